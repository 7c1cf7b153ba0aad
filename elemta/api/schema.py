"""What the queue's things are in answers, and how they are made of facts.

The words are those of ``--json`` (`elemta.control.plain`); a test holds the two together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import trio
from msgspec import UNSET, Struct, UnsetType

from elemta.control.interface import ListenerStatus
from elemta.control.plain import address
from elemta.queue import Deferred, Destination, Expired, Failed, Priority, State
from elemta.supervision import Part

if TYPE_CHECKING:
    from elemta import config, queue
    from elemta.control import interface
    from elemta.control.interface import Control

Urgency: TypeAlias = Literal["low", "normal", "high", "critical"]

#: Recipients that are made into answers between two checkpoints.
AT_ONCE = 200


class Recipient(Struct, frozen=True, kw_only=True):
    """One recipient of a message, and how it stands with it.

    Attributes:
        address: where the message goes.
        original: as the client named it, if an alias or an operator led elsewhere.
        via: targets that somebody chose for it; none: it goes as the configuration says.
        state: where it stands.
        due: when it is tried next, seconds since the epoch; only of what is deferred.
        attempts: how many were begun and ended.
        last: the reply that ended the last attempt.
        held_by, held_since, held_for: who holds it, since when, and why.
    """

    address: str
    original: str | None
    via: list[str]
    state: State
    due: float | None
    attempts: int
    last: str | None
    held_by: str | None
    held_since: float | None
    held_for: str | None


class Message(Struct, frozen=True, kw_only=True):
    """A message that waits, or is history.

    Attributes:
        id: its name.
        sender: null of a report.
        received_at, expires_at: seconds since the epoch.
        send_at: it is not tried before, seconds since the epoch, as its sender wanted.
        size: octets.
        priority: the higher goes first.
        client, helo, session, listener: where it came from: address, name, session in the log.
        protocol: how it came (RFC 3848), e.g. ``ESMTPSA``: encrypted (S), by who had logged in (A).
        login: who had logged in, or handed it in; null: nobody.
        tags: that were given to it.
        recipients: all of them.
    """

    id: str
    sender: str | None
    received_at: float
    expires_at: float
    send_at: float | None
    size: int
    priority: Urgency
    client: str | None
    helo: str | None
    session: str | None
    listener: str | None
    protocol: str | None
    login: str | None
    tags: list[str]
    recipients: list[Recipient]


class Attempt(Struct, frozen=True, kw_only=True):
    """An attempt to deliver to one recipient.

    Attributes:
        recipient: as it is called now.
        started, ended: seconds since the epoch.
        result: how it ended.
        destination: the lane in which it was tried.
        host: who was spoken to.
        reply: what was said.
        remote: the host said it, not we ourselves.
        warned: with it the sender was told that it takes long.
    """

    recipient: str
    started: float
    ended: float
    result: Literal["delivered", "deferred", "failed", "expired"]
    destination: str
    host: str | None
    reply: str
    remote: bool
    warned: bool


class Note(Struct, frozen=True, kw_only=True):
    """What an operator or a plugin did with a message, or found out about it.

    Attributes:
        at: seconds since the epoch.
        who: did it, e.g. ``plugin:dnsbl``.
        action: what, in a word or two.
        reason: why.
        recipients: to whom it was done; none: it is about the whole message.
    """

    at: float
    who: str
    action: str
    reason: str | None
    recipients: list[str]


class Timeline(Message, frozen=True, kw_only=True):
    """A message, and what happened to it.

    Attributes:
        finished_at: when nothing was left to try, seconds since the epoch; null: something is.
        attempts: in the order in which they ended.
        notes: what operators and plugins did and found out.
    """

    finished_at: float | None
    attempts: list[Attempt]
    notes: list[Note]


class Page(Struct, frozen=True, kw_only=True):
    """What a search found.

    Attributes:
        messages: the oldest first.
        next: the cursor of the next page; null: this was the last.
    """

    messages: list[Message]
    next: str | None


class Stats(Struct, frozen=True, kw_only=True):
    """How full the queue is.

    Attributes:
        messages: that wait, or are held.
        recipients: of these, by state.
        oldest: when the oldest of them came in, seconds since the epoch.
        history: messages that are finished, and still known.
    """

    messages: int
    recipients: dict[State, int]
    oldest: float | None
    history: int


class Overview(Stats, frozen=True, kw_only=True):
    """How full the queue is, and where mail goes.

    Attributes:
        destinations: where mail stands ready to go, or cannot go just now.
    """

    destinations: list[Destination]


class Status(Struct, frozen=True, kw_only=True):
    """How a server is.

    Attributes:
        started_at, asked_at: seconds since the epoch.
        stopping: it takes no more mail.
        troubles: what is wrong, a line each.
        sessions, places: of clients, and how many there may be.
        deliveries: that may be under way at a time.
        files: descriptors that the process may open; -1: no limit.
        in_memory: messages.
        queue: what is on disk; null: it cannot be read.
        counts: how much happened since the start.
        parts: that are kept running, and how that goes.
        event: the number of the last one.
        api: where the server is found over HTTP.
    """

    version: str
    hostname: str
    pid: int
    started_at: float
    asked_at: float
    stopping: bool
    troubles: list[str]
    listeners: list[ListenerStatus]
    sessions: int
    places: int
    deliveries: int
    files: int
    in_memory: int
    queue: Stats | None
    counts: dict[str, int]
    parts: list[Part]
    event: int
    api: list[str]


class Suspension(Struct, frozen=True, kw_only=True):
    """What is suspended.

    Attributes:
        scope: ``all``, ``destination:LANE`` or ``domain:NAME``.
        reason: why.
        who: did it.
        since, until: seconds since the epoch; null: until it is resumed.
    """

    scope: str
    reason: str
    who: str
    since: float
    until: float | None


class Tally(Struct, frozen=True, kw_only=True):
    """What an action came to, or would come to.

    Attributes:
        messages: of which at least one recipient is concerned.
        recipients: these.
        octets: of these messages.
        busy: recipients that are being tried right now, and so are left alone.
        dry_run: nothing was done.
    """

    messages: int
    recipients: int
    octets: int
    busy: int
    dry_run: bool


class Failure(Struct, frozen=True, kw_only=True):
    """An attempt that failed, for now or for good.

    Attributes:
        type: what it came to.
        number: of the event; counted from the start of the server.
        at: seconds since the epoch.
        id: of the message.
        recipient: who did not get it.
        lane, host: where it was tried, and who was spoken to.
        reply: what was said.
        due: when it is tried next, seconds since the epoch; only of what is deferred.
    """

    type: Literal["Deferred", "Failed", "Expired"]
    number: int
    at: float
    id: str
    lane: str
    host: str
    recipient: str
    reply: str
    due: float | UnsetType = UNSET


class Change(Struct, frozen=True, kw_only=True):
    """A value of the configuration that is not what it was.

    Attributes:
        place: e.g. ``listeners[mx].messages``.
        before, after: as the file would have it; null: it is not there.
        needs_restart: it only holds after a restart.
    """

    place: str
    before: str | None
    after: str | None
    needs_restart: bool


async def message_of(found: queue.Message) -> Message:
    """A message that waits, or is history."""
    origin = found.origin
    recipients: list[Recipient] = []
    for number, each in enumerate(found.recipients, 1):
        recipients.append(_recipient_of(each))
        if number % AT_ONCE == 0:
            await trio.lowlevel.checkpoint()
    return Message(
        id=found.id,
        sender=address(found.sender),
        received_at=found.received_at,
        expires_at=found.expires_at,
        send_at=found.due,
        size=found.size,
        priority=urgency_of(found.priority),
        client=origin.address or None,
        helo=origin.helo or None,
        session=origin.session or None,
        listener=origin.listener or None,
        protocol=origin.protocol or None,
        login=origin.login or None,
        tags=list(found.tags),
        recipients=recipients,
    )


def _recipient_of(found: queue.Recipient) -> Recipient:
    holder = found.holder
    return Recipient(
        address=str(found.address),
        original=address(found.original),
        via=list(found.via),
        state=found.state,
        due=found.due if found.state is State.DEFERRED else None,
        attempts=found.attempts,
        last=None if found.last is None else str(found.last),
        held_by=None if holder is None else holder.owner,
        held_since=None if holder is None else holder.since,
        held_for=None if holder is None else holder.reason,
    )


async def timeline_of(found: queue.Timeline) -> Timeline:
    """A message, and what happened to it."""
    message = await message_of(found.message)
    names = [each.address for each in message.recipients]
    attempts: list[Attempt] = []
    for number, each in enumerate(found.attempts, 1):
        attempts.append(
            Attempt(
                recipient=names[each.number],
                started=each.started,
                ended=each.ended,
                result="expired" if each.expired else each.result.value,
                destination=each.destination,
                host=each.host or None,
                reply=str(each.reply),
                remote=each.remote,
                warned=each.warned,
            )
        )
        if number % AT_ONCE == 0:
            await trio.lowlevel.checkpoint()
    notes = [
        Note(
            at=each.at,
            who=each.who,
            action=each.action,
            reason=each.reason or None,
            recipients=[names[number] for number in each.recipients],
        )
        for each in found.notes
    ]
    return Timeline(
        **{field: getattr(message, field) for field in message.__struct_fields__},
        finished_at=found.finished_at,
        attempts=attempts,
        notes=notes,
    )


def stats_of(found: queue.Stats) -> Stats:
    """How full the queue is."""
    return Stats(
        messages=found.messages,
        recipients={state: found.recipients.get(state, 0) for state in State},
        oldest=found.oldest,
        history=found.history,
    )


async def overview(control: Control) -> Overview:
    """How full the queue is, and where mail goes."""
    stats = stats_of(await control.stats())
    return Overview(
        messages=stats.messages,
        recipients=stats.recipients,
        oldest=stats.oldest,
        history=stats.history,
        destinations=await control.destinations(),
    )


def status_of(found: interface.Status) -> Status:
    """How a server is."""
    return Status(
        version=found.version,
        hostname=found.hostname,
        pid=found.pid,
        started_at=found.started_at,
        asked_at=found.asked_at,
        stopping=found.stopping,
        troubles=list(found.troubles),
        listeners=list(found.listeners),
        sessions=found.sessions,
        places=found.places,
        deliveries=found.deliveries,
        files=found.files,
        in_memory=found.in_memory,
        queue=None if found.queue is None else stats_of(found.queue),
        counts=found.counts,
        parts=list(found.parts),
        event=found.event,
        api=list(found.api),
    )


def suspension_of(found: queue.Suspension) -> Suspension:
    """What is suspended."""
    return Suspension(
        scope=found.scope,
        reason=found.reason,
        who=found.who,
        since=found.since,
        until=found.until,
    )


def tally_of(found: queue.Tally, *, dry_run: bool) -> Tally:
    """What an action came to, or would come to."""
    return Tally(
        messages=found.messages,
        recipients=found.recipients,
        octets=found.octets,
        busy=found.busy,
        dry_run=dry_run,
    )


def failure_of(found: Deferred | Failed | Expired) -> Failure:
    """An attempt that failed."""
    return Failure(
        type=_kind_of(found),
        number=found.number,
        at=found.at,
        id=found.id,
        lane=found.lane,
        host=found.host,
        recipient=str(found.recipient),
        reply=str(found.reply),
        due=found.due if isinstance(found, Deferred) else UNSET,
    )


def _kind_of(found: Deferred | Failed | Expired) -> Literal["Deferred", "Failed", "Expired"]:
    match found:
        case Deferred():
            return "Deferred"
        case Failed():
            return "Failed"
        case Expired():
            return "Expired"


def change_of(found: config.Change) -> Change:
    """A value of the configuration that is not what it was."""
    return Change(
        place=found.place,
        before=found.before,
        after=found.after,
        needs_restart=found.needs_restart,
    )


def urgency_of(priority: Priority) -> Urgency:
    """A priority in a word."""
    match priority:
        case Priority.LOW:
            return "low"
        case Priority.NORMAL:
            return "normal"
        case Priority.HIGH:
            return "high"
        case Priority.CRITICAL:
            return "critical"


def priority_of(urgency: Urgency) -> Priority:
    """A word as a priority."""
    return Priority[urgency.upper()]
