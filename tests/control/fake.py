"""A server to steer that is none, and answers what a test wants."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio
import trio.testing
from msgspec import Struct
from msgspec.structs import replace

from elemta.control.client import Client
from elemta.control.conversation import Conversation
from elemta.control.facts import (
    Bucket,
    Configuration,
    Explanation,
    PluginStatus,
    Spoken,
    Statistics,
    Step,
    Submitted,
)
from elemta.control.interface import Saved, Status, UnknownError
from elemta.protocol import parse_mailbox
from elemta.queue import (
    Action,
    Filter,
    Message,
    Missed,
    Recipient,
    Stats,
    Tally,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from elemta.config import Change
    from elemta.control.facts import (
        Hypothesis,
        LogEntry,
        Metric,
        Scale,
        SessionStatus,
        Submission,
        TraceFilter,
        Transcript,
    )
    from elemta.control.interface import Happening
    from elemta.queue import (
        Destination,
        Finding,
        MessageId,
        QueueEvent,
        Suspension,
        Timeline,
    )


class Acted(Struct, frozen=True):
    """What was asked for."""

    action: Action
    filter: Filter
    reason: str
    dry_run: bool


class FakeControl:
    """Answers at once; fails with `failure` if there is one; `slow` waits for ever, if told so.

    Attributes:
        acted: what was asked.
        measured: its metrics.
        cancelled: calls that were given up.
        messages: what a search finds.
        happenings: what `events` tells, before it waits for ever.
        pieces: what `raw` tells.
        known: the one message that has a timeline.
        installed: its plugins.
        spoken: what `trace` tells, before it waits for ever; so with `logged` and `follow`.
        who: steers it.
        submitted: what was handed in.
        sought: filters of searches.
        stopped: scopes that are suspended, why, and until when.
        supposed: what was to be explained.
        connected, recorded, failed, logged, level: what it tells of itself.
    """

    def __init__(self) -> None:
        self.acted: list[Acted] = []
        self.measured: list[Metric] = []
        self.cancelled = 0
        self.closed = 0
        self.failure: Exception | None = None
        self.slow = False
        self.messages: list[Message] = []
        self.happenings: list[Happening] = []
        self.pieces: list[bytes] = []
        self.changes: tuple[Change, ...] = ()
        self.suspended: list[Suspension] = []
        self.places: list[Destination] = []
        self.who = ""
        self.known: Timeline | None = None
        self.installed: list[PluginStatus] = []
        self.submitted: list[Submission] = []
        self.sought: list[Filter] = []
        self.stopped: list[tuple[str, str, float | None]] = []
        self.supposed: list[Hypothesis] = []
        self.connected: list[SessionStatus] = []
        self.recorded: list[Transcript] = []
        self.failed: list[QueueEvent] = []
        self.spoken: list[Spoken | Missed] = []
        self.logged: list[LogEntry] = []
        self.level = "info"

    def steered_by(self, who: str) -> FakeControl:
        """As the servers of the socket want it."""
        self.who = who
        return self

    async def _answer(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.failure is not None:
            raise self.failure
        if self.slow:
            try:
                await trio.sleep_forever()
            finally:
                self.cancelled += 1

    async def status(self) -> Status:
        await self._answer()
        return Status(
            version="1", hostname="mx.example", pid=1, started_at=0.0, asked_at=1.0,
            stopping=False, troubles=(), listeners=(), sessions=0, places=1, deliveries=1, files=1,
            in_memory=0, queue=await self.stats(), counts={}, parts=(),
        )  # fmt: skip

    async def search(
        self,
        filter: Filter,  # noqa: A002 # the word of people
        *,
        limit: int = 100,
        after: MessageId | None = None,
        newest: bool = False,
    ) -> list[Message]:
        await self._answer()
        self.sought.append(filter)
        found = sorted(self.messages, key=lambda each: each.id, reverse=newest)
        if after is not None:
            found = [each for each in found if (each.id < after if newest else each.id > after)]
        return found[:limit]

    async def timeline(self, id: MessageId) -> Timeline:  # noqa: A002 # the word of people
        await self._answer()
        if self.known is not None and self.known.message.id == id:
            return self.known
        raise UnknownError(f"no message {id!r}")

    async def raw(self, id: MessageId) -> AsyncGenerator[bytes]:  # noqa: A002 # the word of people
        await self._answer()
        try:
            for piece in self.pieces:
                yield piece
        finally:
            self.closed += 1

    async def stats(self) -> Stats:
        await self._answer()
        return Stats(messages=7, recipients={}, oldest=None, history=0)

    async def destinations(self) -> list[Destination]:
        await self._answer()
        return self.places

    async def count(self, filter: Filter) -> Tally:  # noqa: A002 # the word of people
        await self._answer()
        return Tally()

    async def act(
        self,
        action: Action,
        filter: Filter,  # noqa: A002 # the word of people
        *,
        reason: str = "",
        dry_run: bool = False,
    ) -> Tally:
        await self._answer()
        self.acted.append(Acted(action, filter, reason, dry_run))
        return Tally(messages=1, recipients=2, octets=3)

    async def suspend(
        self, scope: str, *, reason: str = "", until: float | None = None, dry_run: bool = False
    ) -> Tally | None:
        await self._answer()
        if dry_run:
            return Tally()
        self.stopped.append((scope, reason, until))
        return None

    async def resume(self, scope: str, *, dry_run: bool = False) -> Tally | None:
        await self._answer()
        if dry_run:
            return Tally()
        self.stopped = [each for each in self.stopped if each[0] != scope]
        return None

    async def suspensions(self) -> list[Suspension]:
        await self._answer()
        return self.suspended

    async def events(self, since: int | None = None) -> AsyncGenerator[Happening]:
        try:
            yield Missed(since or 0)
            for happening in self.happenings:
                yield happening
            await trio.sleep_forever()
        finally:
            self.closed += 1

    async def reload(self, *, dry_run: bool = False) -> tuple[Change, ...]:
        await self._answer()
        return self.changes

    async def check(self) -> list[Finding]:
        await self._answer()
        return []

    async def backup(self, target: Path) -> Saved:
        await self._answer()
        return Saved(target=str(target))

    async def sessions(self) -> list[SessionStatus]:
        await self._answer()
        return self.connected

    async def transcripts(self, id: MessageId) -> list[Transcript]:  # noqa: A002 # the word of people
        await self._answer()
        return [each for each in self.recorded if id in each.messages]

    async def trace(self, filter: TraceFilter) -> AsyncGenerator[Spoken | Missed]:  # noqa: A002 # the word of people
        await self._answer()
        try:
            for each in self.spoken:
                if filter.session is None or (
                    isinstance(each, Spoken) and each.session == filter.session
                ):
                    yield each
            await trio.sleep_forever()
        finally:
            self.closed += 1

    async def failures(self, *, limit: int = 100) -> list[QueueEvent]:
        await self._answer()
        return self.failed[:limit]

    async def log(self, *, level: str = "debug", limit: int = 100) -> list[LogEntry]:
        await self._answer()
        levels = ("debug", "info", "warning", "error")
        least = levels.index(level)
        return [each for each in self.logged if levels.index(each.level) >= least][-limit:]

    async def follow(self, *, level: str = "debug") -> AsyncGenerator[LogEntry | Missed]:
        await self._answer()
        try:
            for each in await self.log(level=level):
                yield each
            await trio.sleep_forever()
        finally:
            self.closed += 1

    async def log_level(self, level: str | None = None) -> str:
        await self._answer()
        self.level = level or self.level
        return self.level

    async def statistics(self, scale: Scale) -> Statistics:
        await self._answer()
        bucket = Bucket(start=0.0, counts={"queued": 2})
        return Statistics(scale=scale, step=60.0, buckets=(bucket,), total={"queued": 2})

    async def configuration(self) -> Configuration:
        await self._answer()
        return Configuration(file="/etc/elemta/elemta.yaml", values={"hostname": "mx.example"})

    async def plugins(self) -> list[PluginStatus]:
        await self._answer()
        return self.installed

    async def switch_plugin(self, name: str, *, enabled: bool) -> None:
        await self._answer()
        if all(each.name != name for each in self.installed):
            raise UnknownError(f"there is no plugin {name!r}")
        self.installed = [
            replace(each, enabled=enabled) if each.name == name else each for each in self.installed
        ]

    async def explain(self, hypothesis: Hypothesis) -> Explanation:
        await self._answer()
        self.supposed.append(hypothesis)
        step = Step(question="recipient", answer="it is known", good=True)
        return Explanation(summary="it would go to a Maildir", steps=(step,))

    async def why(self, id: MessageId) -> Explanation:  # noqa: A002 # the word of people
        await self.timeline(id)
        return Explanation(summary="it waits for its time", steps=(), next_at=60.0)

    async def submit(self, submission: Submission) -> Submitted:
        await self._answer()
        self.submitted.append(submission)
        return Submitted(id=message(len(self.submitted)).id)

    async def metrics(self) -> list[Metric]:
        await self._answer()
        return self.measured


def message(number: int = 1, recipients: int = 1) -> Message:
    """A message that is only looked at."""
    return Message(
        id=f"01M82Q28V6DAVJCKE0E9H{number:05}",
        sender=None,
        recipients=[
            Recipient(number=each, address=parse_mailbox(f"r{each}@example.net"))
            for each in range(recipients)
        ],
        received_at=0.0,
        expires_at=1.0,
        size=100,
    )


@asynccontextmanager
async def served(
    control: FakeControl, *, trusted: bool = False, large: trio.Semaphore | None = None
) -> AsyncGenerator[trio.StapledStream]:
    """Our end of a stream at whose other end the control is served."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        talk = Conversation(
            theirs, control.steered_by, "operator:test", trusted=trusted, large=large
        )
        nursery.start_soon(talk.run)
        yield ours
        await ours.aclose()


@asynccontextmanager
async def client_of(control: FakeControl, *, trusted: bool = False) -> AsyncGenerator[Client]:
    """A client of it."""
    async with served(control, trusted=trusted) as stream:
        yield Client(stream)
