"""So many in a time that slides, kept in a few numbers. Pure, told the time.

The time is cut into `SLOTS` slots, and what was taken in one counts until all of it is over. So in
no stretch of that length is more taken than may be, wherever it begins; who has taken all that he
may waits for up to a slot longer than he would have to, which is a twenty-fourth of it. To remember
each message instead would be exact, and cost what somebody sends; a token bucket, as `rate-limit`
has it, costs one number, but lets nearly twice as much through at the worst.
"""

from __future__ import annotations

import math
from typing import Final

from msgspec import Struct

from elemta.ledger import Row

#: Into how many slots a window is cut: hours of a day.
SLOTS: Final = 24


class Taken(Row):
    """What somebody has taken.

    Attributes:
        first: the number of the slot that `counts` begins with.
        counts: what was taken in each slot, up to the last one in which anything was.
    """

    first: int
    counts: list[int]


def taken_by_both(before: Taken | None, here: Taken, there: Taken) -> Taken:
    """What it comes to if two have taken at once.

    Args:
        before: what both have gone out from.
        here: what it is to one of them.
        there: what it is to the other.
    """
    counts = dict(enumerate(there.counts, there.first))
    was = {} if before is None else dict(enumerate(before.counts, before.first))
    for slot, count in enumerate(here.counts, here.first):
        counts[slot] = counts.get(slot, 0) + max(0, count - was.get(slot, 0))
    first = min(counts, default=there.first)
    slots = range(first, max(counts, default=first - 1) + 1)
    until = max(here.until, there.until)
    return Taken(until, first, [counts.get(slot, 0) for slot in slots])


class Window(Struct, frozen=True):
    """A length of time.

    Attributes:
        seconds: how long.
    """

    seconds: float

    @property
    def _slot(self) -> float:
        return self.seconds / SLOTS

    def taken(self, row: Taken | None, now: float) -> int:
        """How much counts just now.

        Args:
            row: what is known; None: nothing.
            now: seconds since the epoch.
        """
        return 0 if row is None else sum(self._counting(row, now)[1])

    def take(self, row: Taken | None, amount: int, now: float) -> Taken:
        """Take so much; returns a row of its own.

        Args:
            row: what was known.
            amount: how much.
            now: seconds since the epoch.
        """
        last = math.floor(now / self._slot)
        first, counts = (last, []) if row is None else self._counting(row, now)
        if not counts:
            first = last
        counts += [0] * (last - first + 1 - len(counts))
        counts[-1] += amount
        return Taken((last + SLOTS + 1) * self._slot, first, counts)

    def fits_at(self, row: Taken | None, amount: int, most: int, now: float) -> float:
        """When there is room for so much, if nobody takes any before: it may be now.

        Args:
            row: what is known.
            amount: for how much.
            most: what may be taken in all.
            now: seconds since the epoch.

        Returns:
            Seconds since the epoch; infinity if there never is.
        """
        if amount > most:
            return math.inf
        if row is None:
            return now
        first, counts = self._counting(row, now)
        excess = sum(counts) + amount - most
        if excess <= 0:
            return now
        for number, count in enumerate(counts):
            excess -= count
            if excess <= 0:
                return (first + number + SLOTS + 1) * self._slot
        raise AssertionError("all of it being over, there is room")

    def _counting(self, row: Taken, now: float) -> tuple[int, list[int]]:
        """The slots of a row that count: the first one's number, and a list of its own.

        What lies in the future, since the clock was set back, counts as of now: it must not count
        for longer than the window is.
        """
        last = math.floor(now / self._slot)
        first, counts = row.first, row.counts
        over = last - SLOTS - first
        if over > 0:
            first, counts = first + over, counts[over:]
        ahead = first + len(counts) - 1 - last
        if ahead > 0:
            kept = max(0, len(counts) - ahead - 1)
            return last - kept, [*counts[:kept], sum(counts[kept:])]
        return first, list(counts)
