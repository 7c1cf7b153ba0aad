"""How it stands with a lane, in words: whether something goes there, and if not, until when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from elemta.explaining.words import counted, moment
from elemta.queue import parse_scope

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elemta.protocol import Mailbox, ReversePath
    from elemta.queue import Destination, Destined, LaneOf, Suspension


class Queue(Protocol):
    """What must be known of the queue."""

    @property
    def suspensions(self) -> tuple[Suspension, ...]:
        """What is suspended."""
        ...

    @property
    def lane_of(self) -> LaneOf:
        """Where a recipient's mail of a sender goes, suspended or not."""
        ...

    def destinations(self) -> list[Destination]:
        """How it stands with each lane that something is known of."""
        ...


class LaneState(Struct, frozen=True, kw_only=True):
    """How it stands with the lane of a recipient.

    Attributes:
        name: the lane's.
        open: whether something goes there just now.
        answer: how it stands with it, in words.
        until: when that changes by itself, seconds since the epoch; None if it does not.
        details: what is known of it, a line each.
    """

    name: str
    open: bool
    answer: str
    until: float | None = None
    details: tuple[str, ...] = ()


def lane_state(queue: Queue, recipient: Destined, sender: ReversePath, now: float) -> LaneState:
    """How it stands with the lane of a recipient.

    Args:
        queue: where the lane is.
        recipient: whose lane it is.
        sender: of the mail that is for it.
        now: seconds since the epoch.
    """
    name = queue.lane_of(recipient, sender)
    known = {each.name: each for each in queue.destinations()}
    suspension = _suspension(queue.suspensions, name, recipient.address)
    # What waits for a domain that is suspended waits in a lane of that domain.
    lane = known.get(name)
    details = () if lane is None else _details(lane)
    if suspension is not None:
        why = f": {suspension.reason}" if suspension.reason else ""
        until = suspension.until
        ends = "until it is resumed" if until is None else f"until {moment(until, now)}"
        since = moment(suspension.since, now)
        answer = f"suspended ({suspension.scope}) by {suspension.who} {ends}{why}"
        details = (f"suspended since {since}", *details)
        return LaneState(name=name, open=False, answer=answer, until=until, details=details)
    if lane is None:
        return LaneState(name=name, open=True, answer="open; nothing waits there")
    if lane.parked_until is not None and lane.parked_until > now:
        answer = (
            f"parked until {moment(lane.parked_until, now)}, "
            f"as it did not answer ({counted(lane.parks, 'time')} in a row)"
        )
        until = lane.parked_until
        return LaneState(name=name, open=False, answer=answer, until=until, details=details)
    if lane.parked_until is not None:
        answer = "parked, and about to be probed by one worker"
        return LaneState(name=name, open=False, answer=answer, until=now, details=details)
    if lane.throttled_until is not None and lane.throttled_until > now:
        until = lane.throttled_until
        answer = f"out of its rates until {moment(until, now)}"
        return LaneState(name=name, open=False, answer=answer, until=until, details=details)
    if lane.ready and lane.workers >= lane.window:
        answer = f"open; all its {counted(lane.window, 'place')} are taken"
        return LaneState(name=name, open=True, answer=answer, details=details)
    return LaneState(name=name, open=True, answer="open", details=details)


def _details(lane: Destination) -> tuple[str, ...]:
    waiting = f"{counted(lane.ready, 'message')} ready, {lane.on_disk} more on disk"
    found = [f"{waiting}; {lane.workers} at work, of {lane.window} at most"]
    if lane.error:
        found.append(f"said last when an attempt failed: {lane.error}")
    return tuple(found)


def _suspension(
    suspensions: Sequence[Suspension], lane: str, address: Mailbox
) -> Suspension | None:
    """The one that stops a recipient; None if none does."""
    scopes = ["all", f"destination:{lane}"]
    if address.domain:
        scopes.append(parse_scope(f"domain:{address.domain}"))
    return next((each for each in suspensions if each.scope in scopes), None)
