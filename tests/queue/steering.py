"""An operator at work, and what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from elemta.queue import (
    Action,
    Attempt,
    Filter,
    Message,
    Queue,
    Recipient,
    Report,
    Result,
    State,
    StoredBody,
    StoreReader,
    Tally,
    Timeline,
)
from tests.queue.mail import (
    CONTENT,
    attempts,
    envelope,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


ROOT: Final = "operator:root"
EVERYTHING: Final = Filter()


def timeline(folder: Path, id: str) -> Timeline:  # noqa: A002 # the word of people
    with StoreReader(folder) as reader:
        known = reader.timeline(id)
    assert known is not None
    return known


def states(folder: Path, id: str) -> list[State]:  # noqa: A002 # the word of people
    return [each.state for each in timeline(folder, id).message.recipients]


def tally(messages: int, recipients: int | None = None, *, busy: int = 0) -> Tally:
    return Tally(
        messages=messages,
        recipients=messages if recipients is None else recipients,
        octets=messages * len(CONTENT),
        busy=busy,
    )


async def act(queue: Queue, action: Action, wanted: Filter = EVERYTHING) -> Tally:
    return await queue.act(action, wanted, who=ROOT, reason="spring cleaning")


async def tried(queue: Queue, within: float = 0.0001) -> list[str]:
    """Addresses that workers find ready, in their order; all are delivered."""
    order: list[str] = []
    with trio.move_on_after(within):
        while True:
            with await queue.claim() as claim:
                while work := claim.take():
                    with work:
                        order += [str(each.address) for each in work.recipients]
                        outcome = attempts(work, Result.DELIVERED)
                        await queue.settle(work, outcome, durable=True)
    return order


class Postmaster:
    """Writes reports; `asked` keeps what it was asked, `stop` makes it wait for `go`."""

    def __init__(self) -> None:
        self.asked: list[tuple[Message, list[tuple[Recipient, Attempt]], bytes | None]] = []
        self.go = trio.Event()
        self.go.set()
        self.broken = False

    async def __call__(
        self,
        message: Message,
        failed: Sequence[tuple[Recipient, Attempt]],
        body: StoredBody | None,
    ) -> Sequence[Report]:
        await self.go.wait()
        if self.broken:
            raise RuntimeError("no ink")
        content = b"".join([piece async for piece in body.chunks()]) if body else None
        self.asked.append((message, list(failed), content))
        return [Report(envelope=envelope("sender@home"), content=b"bounced")]
