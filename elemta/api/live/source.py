"""Where what is told live comes from: events, conversations, the log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

from elemta.api.live.batch import Item, encode, item
from elemta.control import plain
from elemta.queue import Missed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from elemta.control.facts import LogEntry, Spoken, TraceFilter
    from elemta.control.interface import Control
    from elemta.queue import QueueEvent

T = TypeVar("T")


class Source(Protocol[T]):
    """What can be listened to."""

    async def position(self) -> int:
        """The number of what happened last; 0 where nothing has numbers."""
        ...

    def listen(self, since: int | None) -> AsyncGenerator[T | Missed]:
        """What happens after this number; None: from now on. Never ends by itself."""
        ...

    def number(self, happened: T) -> int:
        """Its number; 0: it has none."""
        ...

    def item(self, happened: T | Missed) -> Item:
        """What it is on the wire."""
        ...


class Events:
    """What happens in the queue."""

    def __init__(self, control: Control) -> None:
        self._control = control

    async def position(self) -> int:
        """See `Source`."""
        return (await self._control.status()).event

    def listen(self, since: int | None) -> AsyncGenerator[QueueEvent | Missed]:
        """See `Source`."""
        return self._control.events(since)

    def number(self, happened: QueueEvent) -> int:
        """See `Source`."""
        return happened.number

    def item(self, happened: QueueEvent | Missed) -> Item:
        """See `Source`."""
        number = happened.last if isinstance(happened, Missed) else happened.number
        return item(number, plain.event(happened))


class Conversations:
    """What is said to clients and by them, and to other servers."""

    def __init__(self, control: Control, meant: TraceFilter) -> None:
        self._control = control
        self._meant = meant

    async def position(self) -> int:
        """See `Source`."""
        return 0

    def listen(self, since: int | None) -> AsyncGenerator[Spoken | Missed]:
        """See `Source`."""
        return self._control.trace(self._meant)

    def number(self, happened: Spoken) -> int:
        """See `Source`."""
        return 0

    def item(self, happened: Spoken | Missed) -> Item:
        """See `Source`."""
        return Item(0, encode(happened))


class Log:
    """What is logged."""

    def __init__(self, control: Control, level: str) -> None:
        self._control = control
        self._level = level

    async def position(self) -> int:
        """See `Source`."""
        return 0

    def listen(self, since: int | None) -> AsyncGenerator[LogEntry | Missed]:
        """See `Source`."""
        return self._control.follow(level=self._level)

    def number(self, happened: LogEntry) -> int:
        """See `Source`."""
        return 0

    def item(self, happened: LogEntry | Missed) -> Item:
        """See `Source`."""
        return Item(0, encode(happened))
