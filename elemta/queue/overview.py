"""How it stands with lanes and with those who stand there, for people; nothing is changed by it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from elemta.queue.destination import Census, Destination
from elemta.queue.model import State
from elemta.queue.standing import Standing

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from elemta.queue.entry import Entry
    from elemta.queue.lane import Lane
    from elemta.queue.model import LaneOf


def census(lanes: Collection[Lane], workers: int) -> Census:
    """How many there are, without a picture of each.

    Args:
        lanes: all.
        workers: how many are at work on them.
    """
    counts, messages = Counter[str](), Counter[str]()
    ready = 0
    for lane in lanes:
        backlog = lane.backlog
        if backlog is None and not lane.closed:  # nearly all
            ready += lane.ready
            continue
        condition = lane.condition
        counts[condition] += 1
        messages[condition] += lane.ready + (0 if backlog is None else backlog.count)
    counts["open"] += len(lanes) - counts.total()
    messages["open"] += ready
    return Census(destinations=counts, messages=messages, workers=workers)


def destinations(lanes: Collection[Lane]) -> list[Destination]:
    """A picture of each."""
    return [
        Destination(
            name=lane.name,
            ready=lane.ready,
            on_disk=lane.backlog.count if lane.backlog is not None else 0,
            workers=lane.workers,
            window=lane.window,
            parked_until=lane.parked_until,
            parks=lane.parks,
            suspended=lane.suspended,
            throttled_until=lane.throttled_until or lane.full_until,
            error=lane.error,
        )
        for lane in lanes
    ]


def standings(entry: Entry, lanes: Mapping[str, Lane], lane_of: LaneOf) -> dict[int, Standing]:
    """Where the recipients of a message are that are ready, by their numbers.

    Args:
        entry: the message.
        lanes: all, by name.
        lane_of: names the lane of one that is being tried, and so in none.
    """
    found: dict[int, Standing] = {}
    for name, stand in entry.stands.items():
        here = Standing(lane=name, ahead=lanes[name].ahead(stand))
        found.update((each.number, here) for each in stand.recipients)
    for name, recipients in entry.shelved.items():
        here = Standing(lane=name, ahead=lanes[name].ready, on_disk=True)
        found.update((each.number, here) for each in recipients)
    if entry.works:
        sender = entry.message.sender
        for each in entry.message.recipients:
            if each.state is State.READY and each.number not in found:
                found[each.number] = Standing(lane=lane_of(each, sender), tried=True)
    return found
