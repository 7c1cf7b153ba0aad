"""What several nodes say of the same thing, put together."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from msgspec.structs import replace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elemta.control.facts import LogEntry, PluginStatus, SessionStatus, Transcript
    from elemta.queue import QueueEvent


def plugins(found: Sequence[list[PluginStatus]]) -> list[PluginStatus]:
    """The plugins of all nodes: each has the same ones, and has asked its own.

    Where they differ, as a node has started anew since somebody switched one, the one that is not
    asked by all is told to be off: it cannot be relied on.
    """
    together = list(found[0])
    for others in found[1:]:
        for place, (one, other) in enumerate(zip(together, others, strict=False)):
            together[place] = replace(
                one,
                enabled=one.enabled and other.enabled,
                asked=one.asked + other.asked,
                failed=one.failed + other.failed,
            )
    return together


def sessions(found: Sequence[list[SessionStatus]]) -> list[SessionStatus]:
    """The sessions of all nodes, the oldest first."""
    return list(heapq.merge(*found, key=lambda each: each.since))


def transcripts(found: Sequence[list[Transcript]]) -> list[Transcript]:
    """The oldest first."""
    return list(heapq.merge(*found, key=lambda each: each.began))


def failures(found: Sequence[list[QueueEvent]], *, limit: int) -> list[QueueEvent]:
    """What failed on any node, the newest first. Each node has numbers of its own: they are 0."""
    together = sorted(
        (event for events in found for event in events), key=lambda each: each.at, reverse=True
    )
    return [replace(event, number=0) for event in together[:limit]]


def entries(found: Sequence[list[LogEntry]], *, limit: int) -> list[LogEntry]:
    """What all processes have logged, the newest last."""
    together = sorted((entry for entries in found for entry in entries), key=lambda each: each.at)
    return together[max(0, len(together) - limit) :]
