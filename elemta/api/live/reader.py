"""What waits for one client, and how it learns what it has missed."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import trio

from elemta.api.live.batch import Batch, item

if TYPE_CHECKING:
    from collections.abc import Callable

    from elemta.control.plain import Value

#: What may wait for a reader: items, and octets. A batch that is larger than that waits alone.
BEHIND: Final = 10_000
BEHIND_OCTETS: Final = 2**22


class EndedError(Exception):
    """Nothing more will be told.

    Attributes:
        fault: it is one of ours; else the server is stopping.
    """

    def __init__(self, *, fault: bool) -> None:
        super().__init__("a fault of the server" if fault else "the server is stopping")
        self.fault = fault


class Reader:
    """What waits for one client. Never holds up who puts something here.

    Args:
        position: gives the number up to which everything was put here.
    """

    def __init__(self, position: Callable[[], int]) -> None:
        self._position = position
        self._batches: deque[Batch] = deque()
        self._count = 0
        self._size = 0
        self._missed = 0
        self._last_missed = 0
        self._ended: EndedError | None = None
        self._waiting = trio.lowlevel.ParkingLot()

    @property
    def position(self) -> int:
        """The number up to which all is received, if nothing waits."""
        return self._position()

    @property
    def waits(self) -> bool:
        """Whether something does."""
        return bool(self._batches)

    def put(self, batch: Batch) -> None:
        """Hand over a batch; if there is no room, the oldest that wait are forgotten.

        The client is told of it by `wake`, unless it comes for more by itself.
        """
        self._batches.append(batch)
        self._count += batch.count
        self._size += batch.size
        while len(self._batches) > 1 and (self._count > BEHIND or self._size > BEHIND_OCTETS):
            lost = self._next()
            self._missed += lost.count
            self._last_missed = lost.last

    def wake(self) -> None:
        """Something was put here."""
        self._waiting.unpark()

    def end(self, error: EndedError) -> None:
        """Nothing more will come."""
        self._ended = error
        self._waiting.unpark_all()

    async def receive(self) -> Batch:
        """The next batch; before it, if some were forgotten, how many things that was.

        Raises:
            EndedError: there will be none. What waits is not told any more.
        """
        await trio.lowlevel.checkpoint()
        while not self._batches and self._ended is None:
            await self._waiting.park()
        if self._ended is not None:
            raise self._ended
        if self._missed:
            count, self._missed = self._missed, 0
            told: dict[str, Value] = {"type": "Missed", "count": count}
            if self._last_missed:
                told["last"] = self._last_missed
            return Batch([item(self._last_missed, told)])
        return self._next()

    def _next(self) -> Batch:
        batch = self._batches.popleft()
        self._count -= batch.count
        self._size -= batch.size
        return batch
