"""From what was counted to what prometheus-client knows how to show."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from elemta.metrics.catalogue import CATALOGUE
from elemta.metrics.meters import Distribution

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from prometheus_client.core import Metric

    from elemta.metrics.catalogue import Description


class Reading(NamedTuple):
    """What one metric of the catalogue shows just now.

    Attributes:
        labels: their values, in the order of the catalogue.
    """

    name: str
    value: float | Distribution
    labels: tuple[str, ...] = ()


class Instruments:
    """Shows what is read from them, when somebody looks: a collector of prometheus-client.

    Args:
        read: reads all that there is to read; it is called for each look.
    """

    def __init__(self, read: Callable[[], Iterable[Reading]]) -> None:
        self._read = read

    def describe(self) -> Iterable[Metric]:
        """For the registry, which else would look in order to learn the names."""
        return [_family(each) for each in CATALOGUE.values()]

    def collect(self) -> Iterator[Metric]:
        """What is read, in the order of the catalogue. What is not read is left out."""
        found: dict[str, list[Reading]] = {}
        for reading in self._read():
            found.setdefault(reading.name, []).append(reading)
        assert found.keys() <= CATALOGUE.keys(), "each is described"
        for description in CATALOGUE.values():
            if (readings := found.get(description.name)) is not None:
                family = _family(description)
                for reading in readings:
                    _add(family, reading)
                yield family


def registry_of(read: Callable[[], Iterable[Reading]]) -> CollectorRegistry:
    """A registry with nothing but these readings."""
    registry = CollectorRegistry()
    registry.register(Instruments(read))
    return registry


def process_registry() -> CollectorRegistry:
    """What this process says of itself. Look at it in a thread: it counts its open files."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


def _family(
    description: Description,
) -> CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily:
    name, about, labels = description.name, description.about, description.labels
    match description.kind:
        case "counter":
            return CounterMetricFamily(name, about, labels=labels)
        case "gauge":
            return GaugeMetricFamily(name, about, labels=labels)
        case "histogram":
            return HistogramMetricFamily(name, about, labels=labels)


def _add(
    family: CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily, reading: Reading
) -> None:
    value = reading.value
    if isinstance(family, HistogramMetricFamily):
        assert isinstance(value, Distribution), f"{reading.name} is a histogram"
        family.add_metric(reading.labels, _buckets(value), value.total)
    else:
        assert not isinstance(value, Distribution), f"{reading.name} is no histogram"
        family.add_metric(reading.labels, value)


def _buckets(distribution: Distribution) -> list[tuple[str, float]]:
    """As Prometheus has them: each holds all that the lower ones hold."""
    buckets: list[tuple[str, float]] = []
    count = 0
    for bound, own in zip([*distribution.bounds, None], distribution.counts, strict=True):
        count += own
        buckets.append(("+Inf" if bound is None else str(float(bound)), count))
    return buckets
