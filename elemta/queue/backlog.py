"""What is ready for one lane and waits on disk: known by its key alone, some 50 octets a message.

Nothing of this is stored. After a restart it is found again as any other mail is.
"""

from __future__ import annotations

import heapq
from typing import Final, NamedTuple

#: A key has so many bits.
_BITS: Final = 63
_KEY: Final = (1 << _BITS) - 1
#: Seconds; a time is told in these.
_STEP: Final = 60


class Item(NamedTuple):
    """A message of a backlog: its priority, and its time and key in one."""

    priority: int
    packed: int

    @property
    def key(self) -> int:
        """The message's key."""
        return self.packed & _KEY

    @property
    def word(self) -> int:
        """When its sender has to hear of it, seconds since the epoch; up to a minute late."""
        return (self.packed >> _BITS) * _STEP


class Backlog:
    """Keys by priority; within one that first whose sender has to hear of it first.

    With one lifetime for all that is who came first. A key may stand here twice, or for a message
    that has gone meanwhile: who looks it up finds nothing to do.

    Attributes:
        count: how many keys.
    """

    __slots__ = ("_heaps", "count")

    def __init__(self) -> None:
        self._heaps: dict[int, list[int]] = {}
        self.count = 0

    def add(self, priority: int, key: int, word: float) -> None:
        """One more; its sender has to hear of it at `word`, seconds since the epoch."""
        self.put_back(Item(priority, (int(word // _STEP) + 1) << _BITS | key))

    def put_back(self, item: Item) -> None:
        """One that was popped stands here again."""
        heapq.heappush(self._heaps.setdefault(item.priority, []), item.packed)
        self.count += 1

    @property
    def priorities(self) -> list[int]:
        """Those that there are, the highest first."""
        return sorted(self._heaps, reverse=True)

    def pop(self, priority: int, most: int) -> list[Item]:
        """The first of a priority."""
        heap = self._heaps[priority]
        items = [self._pop(priority, heap) for _ in range(min(most, len(heap)))]
        if not heap:
            del self._heaps[priority]
        return items

    def pop_due(self, now: float, most: int) -> list[Item]:
        """Those whose sender has to hear of them by now."""
        items: list[Item] = []
        for priority, heap in list(self._heaps.items()):
            while heap and len(items) < most and Item(priority, heap[0]).word <= now:
                items.append(self._pop(priority, heap))
            if not heap:
                del self._heaps[priority]
        return items

    def due(self, now: float) -> bool:
        """Whether there is any of them."""
        return any(Item(each, heap[0]).word <= now for each, heap in self._heaps.items())

    def _pop(self, priority: int, heap: list[int]) -> Item:
        self.count -= 1
        return Item(priority, heapq.heappop(heap))
