"""What somebody listens to: each thing in order, or how many were lost to a reader too slow."""

from __future__ import annotations

from collections import deque
from typing import Final, Generic, Self, TypeVar

import trio
from msgspec import Struct

T = TypeVar("T")

#: Things that are handed out before other tasks get their turn.
_AT_ONCE: Final = 64


class Lost(Struct, frozen=True):
    """So many came too fast for this reader."""

    count: int


class Feed(Generic[T]):
    """An async iterator of what is `put` into it, for one reader, in Trio's thread.

    It never makes whoever puts wait. A full buffer loses its oldest, and the reader is told how
    many. Not every step of the iteration is a checkpoint, but among many there always comes one.

    Resource handling:
        Close it, best by `with`.

    Args:
        buffer: how many may wait to be read.
    """

    def __init__(self, buffer: int) -> None:
        self._waiting: deque[T] = deque()
        self._buffer = buffer
        self._lost = 0
        self._over = False
        self._since = 0  # things handed out since the last checkpoint
        self._reader = trio.lowlevel.ParkingLot()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Listen no more: a reader that waits gets nothing more. May be called twice."""
        self._over = True
        self._reader.unpark_all()

    def put(self, thing: T) -> None:
        """One more; never waits."""
        if len(self._waiting) >= self._buffer:
            self._waiting.popleft()
            self._lost += 1
        self._waiting.append(thing)
        if self._reader:
            self._reader.unpark()

    def miss(self, count: int) -> None:
        """So many were lost on their way here."""
        self._lost += count
        if self._reader:
            self._reader.unpark()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T | Lost:
        self._since += 1
        if self._since >= _AT_ONCE or not (self._waiting or self._lost):
            self._since = 0
            await trio.lowlevel.checkpoint()
        while not (self._waiting or self._lost or self._over):
            await self._reader.park()
        if self._over:
            raise StopAsyncIteration
        if self._lost:
            lost, self._lost = self._lost, 0
            return Lost(lost)
        return self._waiting.popleft()
