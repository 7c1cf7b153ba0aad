"""What an account usually sends, and what is so much more that somebody else must be at it. Pure.

The usual is the average of the days before today, those without mail counted: so a burst today does
not make itself usual, and who sends once a month has little. Days are those of UTC; what is held
against the usual is a window of a day that slides, so nobody gets two bursts around midnight.
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

from elemta.config import Table
from elemta.ledger import Row
from elemta.units import Frequency, Seconds

DAY: Final = 86400.0


class Brake(Table, frozen=True, kw_only=True):
    """The ``brake`` of ``sending-limits``."""

    #: How many times its usual recipients an account may have in a day.
    times: Annotated[float, Meta(gt=1, le=100_000)] = 50.0
    #: Of how many days the usual is the average.
    days: Annotated[int, Meta(ge=1, le=90)] = 14
    #: Recipients in a day that any account may have, a new one too, of which nothing is usual.
    new_account: Annotated[int, Meta(ge=1)] = 100
    #: Recipients that servers refuse for good, in a time, beyond which it brakes as well; none:
    #: they are not counted.
    bounces: Frequency | None = None
    #: How long all mail of the account is held, from the last one that was.
    lasts: Seconds = Seconds(DAY)

    def __post_init__(self) -> None:
        if not self.lasts:
            raise ValueError("`lasts` must be more than 0")

    def allowance(self, usual: float) -> int:
        """Recipients that an account may have in a day.

        Args:
            usual: what it has on a usual one.
        """
        return max(self.new_account, int(self.times * usual))


class Usual(Row):
    """What an account has sent.

    Attributes:
        since: the first day that it is known for, in days since the epoch.
        day: the last one in which it sent anything.
        counts: recipients on each day, up to that one.
    """

    since: int
    day: int
    counts: list[int]


def sent(row: Usual | None, recipients: int, days: int, now: float) -> Usual:
    """A row with so many recipients more; it means nothing any more when all its days are over.

    Args:
        row: what is known; None: nothing.
        recipients: how many.
        days: how many are remembered, beside today.
        now: seconds since the epoch.
    """
    today = int(now // DAY)
    if row is None or today < row.day:  # the clock was set back: it begins anew
        row = Usual(0.0, today, today, [])
    gap = min(today - row.day, days + 1) if row.counts else 1
    counts = [*row.counts, *[0] * gap][-days - 1 :]
    counts[-1] += recipients
    return Usual((today + days + 1) * DAY, row.since, today, counts)


def sent_by_both(before: Usual | None, here: Usual, there: Usual) -> Usual:
    """What it comes to if an account has sent by two nodes at once.

    Args:
        before: what both have gone out from.
        here: what it is to one of them.
        there: what it is to the other.
    """
    counts = _by_day(there)
    was = {} if before is None else _by_day(before)
    for day, count in _by_day(here).items():
        counts[day] = counts.get(day, 0) + max(0, count - was.get(day, 0))
    day = max(here.day, there.day)
    first = min(counts, default=day)
    return Usual(
        max(here.until, there.until),
        min(here.since, there.since),
        day,
        [counts.get(each, 0) for each in range(first, day + 1)],
    )


def _by_day(row: Usual) -> dict[int, int]:
    return dict(enumerate(row.counts, row.day - len(row.counts) + 1))


def usual(row: Usual | None, days: int, now: float) -> float:
    """Recipients on a usual day.

    Args:
        row: what is known.
        days: of how many it is the average, at most.
        now: seconds since the epoch; today is not over, and not one of them.
    """
    today = int(now // DAY)
    if row is None or today < row.day:
        return 0.0
    known = min(days, today - row.since)
    if known < 1:
        return 0.0
    begin = row.day - len(row.counts) + 1
    counted = [count for day, count in enumerate(row.counts, begin) if today - known <= day < today]
    return sum(counted) / known
