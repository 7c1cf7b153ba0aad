"""How much may go to one destination: at once, and in a period. Pure, and told the time."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Connections to one destination at most: what mail servers usually allow one client.
MOST: Final = 20
#: Parts of a period that are counted each on its own: what went in one of them is forgotten
#: together, by so much of the period late.
PARTS: Final = 60

#: What a rate counts: transactions begun, their recipients, or connections.
Kind: TypeAlias = Literal["messages", "recipients", "connections"]


class Rate(Struct, frozen=True):
    """No more than `count` of a kind in any `seconds`."""

    kind: Kind
    count: int
    seconds: float


class LaneLimits(Struct, frozen=True):
    """What may go to one destination.

    Attributes:
        connections: at once, at most; it begins with fewer.
        rates: all of them hold.
    """

    connections: int = MOST
    rates: tuple[Rate, ...] = ()


_UNLIMITED: Final = LaneLimits()


def unlimited(lane: str) -> LaneLimits:
    """What holds where nothing is said: no rates."""
    return _UNLIMITED


class Meter:
    """Counts what went in the last period: no more than the rate's count in any of them.

    Attributes:
        rate: what it holds to.
    """

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self._part = rate.seconds / PARTS
        self._gone: deque[tuple[float, float, int]] = deque()  # first and last time, and how many
        self._sum = 0

    def left(self, now: float) -> int:
        """How many more may go now."""
        gone, since = self._gone, now - self.rate.seconds
        # What seems to have gone in the future went before the clock was set back.
        while gone and not since < gone[0][1] <= now:
            self._sum -= gone.popleft()[2]
        return self.rate.count - self._sum

    def count(self, number: int, now: float) -> None:
        """So many go."""
        self._sum += number
        if self._gone and now - self._gone[-1][0] < self._part:
            first, _, before = self._gone.pop()
            self._gone.append((first, now, before + number))
        else:
            self._gone.append((now, now, number))

    def free_at(self, now: float) -> float:
        """When one more may go, if not now."""
        left = self.left(now)
        if left > 0:
            return now
        for _, last, number in self._gone:
            left += number
            if left > 0:
                return last + self.rate.seconds
        return math.inf  # a rate of nothing


class Meters:
    """The meters of one lane."""

    def __init__(self, rates: Iterable[Rate], before: Meters | None = None) -> None:
        """Count by these rates; what was counted `before` by one of them still counts."""
        known = {} if before is None else {each.rate: each for each in before.all}
        self.all: list[Meter] = [known.get(rate) or Meter(rate) for rate in rates]

    def left(self, kind: Kind, now: float) -> float:
        """How many more of a kind may go now; infinity if it is not counted."""
        found = (each.left(now) for each in self.all if each.rate.kind == kind)
        return min(found, default=math.inf)

    def count(self, kind: Kind, number: int, now: float) -> None:
        """So many of a kind go."""
        for each in self.all:
            if each.rate.kind == kind:
                each.count(number, now)

    def free_at(self, kinds: tuple[Kind, ...], now: float) -> float | None:
        """When one more of each of these kinds may go; None if it may now."""
        free = max((each.free_at(now) for each in self.all if each.rate.kind in kinds), default=now)
        return free if free > now else None

    def empty(self, now: float) -> bool:
        """Whether nothing that went counts any more."""
        return all(each.left(now) == each.rate.count for each in self.all)
