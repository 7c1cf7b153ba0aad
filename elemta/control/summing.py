"""How much happened, as it is told: which steps a scale has, and what several counts add up to."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from elemta.control.facts import Bucket, Scale, Statistics
from elemta.queue import DAY, HOUR, MINUTE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: Of each scale, the seconds of a step, and how many there are.
SPANS: Final = {
    Scale.HOUR: (MINUTE, 60),
    Scale.DAY: (HOUR, 24),
    Scale.WEEK: (DAY, 7),
    Scale.MONTH: (DAY, 30),
}


def statistics_of(scale: Scale, buckets: Iterable[tuple[float, Mapping[str, int]]]) -> Statistics:
    """What these come to.

    Args:
        scale: whose steps they are.
        buckets: start and counts of each; several of one start are one, and those before the last
            that the scale has room for are left out.
    """
    step, most = SPANS[scale]
    found: dict[float, Counter[str]] = {}
    for start, counts in buckets:
        found.setdefault(start, Counter()).update(counts)
    starts = sorted(found)[-most:]
    total = Counter[str]()
    for start in starts:
        total.update(found[start])
    return Statistics(
        scale=scale,
        step=float(step),
        buckets=tuple([Bucket(float(start), dict(found[start])) for start in starts]),
        total=dict(total),
    )


def sum_statistics(scale: Scale, found: Iterable[Statistics]) -> Statistics:
    """What several nodes have counted."""
    return statistics_of(
        scale, ((each.start, each.counts) for several in found for each in several.buckets)
    )
