"""A server of which something can be told live."""

from __future__ import annotations

from collections import deque
from contextlib import aclosing
from typing import TYPE_CHECKING, TypeVar

import msgspec
import trio

from elemta.protocol import parse_mailbox
from elemta.queue import EventBus, Finished, Missed, Queued
from tests.control.fake import FakeControl

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from elemta.control.facts import LogEntry, Spoken, TraceFilter
    from elemta.control.interface import Happening, Status

Happened = TypeVar("Happened")

#: What comes before the number of the first event.
FIRST = 1000
ID = "01M82Q28V6DAVJCKE0E9HMK3Q1"


class LiveControl(FakeControl):
    """Happens what a test makes happen.

    Attributes:
        bus: of events.
        listening: subscriptions to anything, just now.
        said, logged: what is told of conversations and of the log.
        traced: what was asked for.
    """

    def __init__(self, kept: int = 100) -> None:
        super().__init__()
        self.bus = EventBus(kept, first=FIRST)
        self.listening = 0
        self.asked: list[int | None] = []
        self.broken: Exception | None = None
        self.said: deque[Spoken | Missed] = deque()
        self.logged: deque[LogEntry | Missed] = deque()
        self.traced: list[TraceFilter] = []
        self.levels: list[str] = []
        self._more = trio.lowlevel.ParkingLot()

    def queued(self, *recipients: str, id_: str = ID) -> int:
        """A message comes in; gives the event's number."""
        number = self.bus.next()
        to = tuple(map(parse_mailbox, recipients or ("bob@example.net",)))
        self.bus.publish(Queued(number, 1.0, id_, None, to, 10))
        return number

    def finished(self, id_: str = ID) -> int:
        """A message is history; gives the event's number."""
        number = self.bus.next()
        self.bus.publish(Finished(number, 2.0, id_))
        return number

    def say(self, line: Spoken | Missed) -> None:
        self.said.append(line)
        self._more.unpark_all()

    def write(self, entry: LogEntry | Missed) -> None:
        self.logged.append(entry)
        self._more.unpark_all()

    def fail(self) -> None:
        """Let whoever listens get an error."""
        self.broken = RuntimeError("a fault of ours")
        self._more.unpark_all()
        self.finished()

    async def status(self) -> Status:
        status = await super().status()
        return msgspec.structs.replace(status, event=self.bus.number)

    async def events(self, since: int | None = None) -> AsyncGenerator[Happening]:
        self.asked.append(since)
        self.listening += 1
        try:
            with self.bus.subscribe(10_000, since=since) as subscription:
                async for event in subscription:
                    if self.broken is not None:
                        raise self.broken
                    yield event
        finally:
            self.listening -= 1

    async def trace(self, filter: TraceFilter) -> AsyncGenerator[Spoken | Missed]:  # noqa: A002 # the word of people
        self.traced.append(filter)
        async with aclosing(self._told(self.said)) as lines:
            async for line in lines:
                yield line

    async def follow(self, *, level: str = "debug") -> AsyncGenerator[LogEntry | Missed]:
        self.levels.append(level)
        async with aclosing(self._told(self.logged)) as entries:
            async for entry in entries:
                yield entry

    async def _told(self, things: deque[Happened]) -> AsyncGenerator[Happened]:
        self.listening += 1
        try:
            while True:
                while things:
                    yield things.popleft()
                await self._more.park()
        finally:
            self.listening -= 1
