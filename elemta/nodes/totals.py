"""What the metrics of several nodes come to.

A counter never falls: whoever reads it takes a fall for a new start, and what is left for new. So
what a node had counted when it was last heard of stays in the sum while it cannot be reached, and
when it was started again it goes on from there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from elemta.control.facts import Metric, Sample
from elemta.metrics.catalogue import NODE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: A sample: its name, its metric's name, and its labels.
_Key: TypeAlias = "tuple[str, str, tuple[tuple[str, str], ...]]"

#: When a node was started: tells a new process from the one before.
STARTED: Final = "elemta_start_time_seconds"


class Totals:
    """Adds nodes up, and remembers what they have counted."""

    def __init__(self) -> None:
        self._nodes: dict[int, _Counted] = {}
        self._known: dict[str, Metric] = {}

    def together(self, found: Sequence[Sequence[Metric] | None]) -> list[Metric]:
        """What nodes tell, as if it were one.

        Args:
            found: what each told, by its number; None: it could not be reached.
        """
        values: dict[_Key, float] = {}
        for number, metrics in enumerate(found):
            counted = self._nodes.setdefault(number, _Counted())
            for each in metrics or ():
                self._known.setdefault(each.name, each)
                for sample in each.samples:
                    if each.together == "each":
                        labels = {NODE: str(number), **sample.labels}
                        values[_key(each, sample, labels)] = sample.value
                    elif each.kind == "gauge":
                        key = _key(each, sample, sample.labels)
                        values[key] = _joined(each, values.get(key), sample.value)
            if metrics is not None:
                counted.take(metrics)
            for key, value in counted.values():
                values[key] = values.get(key, 0.0) + value
        return self._metrics(values)

    def _metrics(self, values: dict[_Key, float]) -> list[Metric]:
        samples: dict[str, list[Sample]] = {name: [] for name in self._known}
        for (name, metric, labels), value in values.items():
            samples[metric].append(Sample(name, value, dict(labels)))
        return [
            Metric(
                name=each.name,
                kind=each.kind,
                about=each.about,
                samples=tuple(samples[each.name]),
                together=each.together,
            )
            for each in self._known.values()
            if samples[each.name]
        ]


class _Counted:
    """What one node has counted, in all of its lives.

    Attributes:
        started: its present life; -inf before the first.
    """

    def __init__(self) -> None:
        self.started = float("-inf")
        self._before: dict[_Key, float] = {}
        self._now: dict[_Key, float] = {}

    def take(self, metrics: Iterable[Metric]) -> None:
        """It was heard of."""
        metrics = list(metrics)
        started = max(
            (each.value for m in metrics if m.name == STARTED for each in m.samples),
            default=self.started,
        )
        if started < self.started:
            return  # an answer that was overtaken by one of the next life
        if started > self.started:
            for key, value in self._now.items():
                self._before[key] = self._before.get(key, 0.0) + value
            self._now.clear()
            self.started = started
        for each in metrics:
            if each.kind == "gauge" or each.together == "each":
                continue
            for sample in each.samples:
                key = _key(each, sample, sample.labels)
                # The largest: of two answers at a time the older one may come later.
                self._now[key] = max(sample.value, self._now.get(key, 0.0))

    def values(self) -> Iterable[tuple[_Key, float]]:
        """All that it has counted."""
        for key, value in self._now.items():
            yield key, value + self._before.get(key, 0.0)
        for key, value in self._before.items():
            if key not in self._now:
                yield key, value


def _key(metric: Metric, sample: Sample, labels: dict[str, str]) -> _Key:
    return sample.name, metric.name, tuple(labels.items())


def _joined(metric: Metric, so_far: float | None, value: float) -> float:
    if so_far is None:
        return value
    match metric.together:
        case "max":
            return max(so_far, value)
        case "min":
            return min(so_far, value)
        case _:
            return so_far + value
