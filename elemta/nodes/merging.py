"""What several nodes say of the same thing, put together."""

from __future__ import annotations

import heapq
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from msgspec.structs import replace

from elemta.control.interface import (
    ControlError,
    ListenerStatus,
    UnavailableError,
    UnknownError,
)
from elemta.queue import Destination, State, Stats, Tally

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from elemta.control.facts import LogEntry, PluginStatus, SessionStatus, Transcript
    from elemta.control.interface import Status
    from elemta.queue import Message, MessageId, QueueEvent

T = TypeVar("T")


def one_of(answers: Iterable[T | ControlError]) -> T:
    """The answer to what one node alone can know, as to a question about one message.

    Raises:
        ControlError: none knows it; that one cannot be reached counts for more than that others
            do not know.
    """
    unknown: UnknownError | None = None
    trouble: ControlError | None = None
    for answer in answers:
        if isinstance(answer, UnknownError):
            unknown = answer
        elif isinstance(answer, ControlError):
            trouble = answer
        else:
            return answer
    raise trouble or unknown or UnavailableError("there is no node")


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
                objected=one.objected + other.objected,
                events=dict(Counter(one.events) + Counter(other.events)),
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


def _id(message: Message) -> MessageId:
    return message.id


def in_order(found: Iterable[list[Message]], limit: int, *, newest: bool = False) -> list[Message]:
    """What several queues have found, the oldest or the newest first, as each list is already."""
    return list(islice(heapq.merge(*found, key=_id, reverse=newest), limit))


def sum_tallies(tallies: Iterable[Tally]) -> Tally:
    """How much was meant, or done, on several nodes."""
    tallies = list(tallies)
    return Tally(
        messages=sum(each.messages for each in tallies),
        recipients=sum(each.recipients for each in tallies),
        octets=sum(each.octets for each in tallies),
        busy=sum(each.busy for each in tallies),
    )


def sum_stats(found: Sequence[Stats]) -> Stats:
    """How full several queues are together."""
    recipients = Counter[State]()
    for each in found:
        recipients.update(each.recipients)
    return Stats(
        messages=sum(each.messages for each in found),
        recipients=dict(recipients),
        oldest=min((each.oldest for each in found if each.oldest is not None), default=None),
        history=sum(each.history for each in found),
    )


def listeners(found: Sequence[Status]) -> tuple[ListenerStatus, ...]:
    """Listeners are the same sockets in each node; their clients are not."""
    listeners: dict[str, ListenerStatus] = {}
    for each in found:
        for listener in each.listeners:
            before = listeners.get(listener.name)
            connections = listener.connections + (before.connections if before else 0)
            listeners[listener.name] = replace(listener, connections=connections)
    return tuple(listeners.values())


def destination(found: Sequence[Destination]) -> Destination:
    """One destination, of which each node has its own view."""
    return Destination(
        name=found[0].name,
        ready=sum(each.ready for each in found),
        on_disk=sum(each.on_disk for each in found),
        workers=sum(each.workers for each in found),
        window=sum(each.window for each in found),
        # What is open for one node is open.
        parked_until=_earliest(each.parked_until for each in found),
        parks=min(each.parks for each in found),
        suspended=next((each.suspended for each in found if each.suspended), None),
        throttled_until=_earliest(each.throttled_until for each in found),
        error=next((each.error for each in found if each.error), ""),
    )


def _earliest(times: Iterable[float | None]) -> float | None:
    """The first of them; None if one of them is."""
    known: list[float] = []
    for each in times:
        if each is None:
            return None
        known.append(each)
    return min(known)
