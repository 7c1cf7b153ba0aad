"""Metrics as facts that can go over the wire, and from there what several nodes come to."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from elemta.control.facts import Metric, Sample
from elemta.metrics.catalogue import together
from elemta.queue import Stats

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric as Family

    from elemta.metrics.catalogue import Kind


class Stored(Struct, frozen=True):
    """What only the disk and the kernel know.

    Attributes:
        stats: None: the queue cannot be read.
        free: octets that the queue's disk has left for us; None: it does not say.
        process: what this process says of itself.
    """

    stats: Stats | None
    free: int | None
    process: tuple[Metric, ...]


def told(families: Iterable[Family]) -> Iterator[Metric]:
    """What a registry of prometheus-client has collected. When series began is left out."""
    for family in families:
        kind = _KINDS.get(family.type)
        assert kind is not None, f"{family.name} is a {family.type}"
        yield Metric(
            name=family.name,
            kind=kind,
            about=family.documentation,
            samples=tuple(
                [
                    # A plain number: a reading may be an `Octets`, which has no form on the wire.
                    Sample(each.name, float(each.value), each.labels)
                    for each in family.samples
                    if not each.name.endswith("_created")
                ]
            ),
            together=together(family.name),
        )


def free_octets(folder: Path) -> int | None:
    """What the disk of a folder has left for us; None if it does not say. Blocks."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize


def process_metrics(registry: CollectorRegistry) -> tuple[Metric, ...]:
    """What a process says of itself. Blocks for as long as its open files take to count."""
    return tuple(told(registry.collect()))


_KINDS: Final[dict[str, Kind]] = {
    "counter": "counter",
    "gauge": "gauge",
    "histogram": "histogram",
}
