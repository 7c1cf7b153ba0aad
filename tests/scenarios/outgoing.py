"""Plugins of a daemon in scenarios: one for each thing that they can do with mail that is taken."""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import override

from elemta.plugins import (
    CONTINUE,
    Accept,
    Granted,
    Letter,
    Plugin,
    Quarantine,
    Reject,
    Verdict,
)
from elemta.queue import Held, Priority

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elemta.plugins import Session, Steers
    from elemta.protocol import Credentials
    from elemta.queue import Destined, QueueEvent


class Users(Plugin):
    """Knows alice."""

    name = "users"

    @override
    async def on_authenticate(
        self, session: Session, credentials: Credentials
    ) -> Granted | Verdict:
        if credentials.user != "alice":
            return CONTINUE
        if credentials.password == "correct horse":
            return Granted("alice@example.org")
        return Reject((7, 8), "no")


class Files(Plugin):
    """Keeps mail in files of its own."""

    name = "files"

    @override
    async def on_store(self, letter: Letter) -> Verdict:
        content = b"".join([each async for each in letter.body.chunks()])
        path = self.tools.folder / f"{letter.message.id}.{letter.recipient.number}"
        await self.tools.in_thread(lambda: path.write_bytes(letter.head + content))
        return Accept("filed")


class Local(Plugin):
    """Brings home what is for one domain elsewhere, and holds what is odd."""

    name = "local"

    @override
    def on_route(self, recipient: Destined) -> Sequence[str] | None:
        return ["maildir"] if recipient.address.domain == "elsewhere.example" else None

    @override
    async def on_attempt(self, letter: Letter) -> Verdict:
        odd = letter.recipient.address.local_part == "odd"
        return Quarantine("looks odd") if odd else CONTINUE

    @override
    async def on_event(self, event: QueueEvent, queue: Steers) -> None:
        # Not as soon as it is queued: what is being tried just then is passed over.
        if isinstance(event, Held) and event.recipient.local_part == "odd":
            await queue.reprioritise(event.id, Priority.HIGH, "odd things first")
