"""What is known of a message that we answer for: facts, never decisions such as a route.

Times are seconds since the epoch (`time.time`): they outlive the process. Whatever is derived
(which queue people find it in, which destination it goes to) is computed, not stored.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from msgspec import Struct

from elemta.protocol import Mailbox, MailParams, RcptParams, Reply, ReversePath

if TYPE_CHECKING:
    from collections.abc import Callable

#: Sortable by time, unguessable, 26 letters and digits (ULID text form).
MessageId: TypeAlias = str


class State(enum.Enum):
    """Where one recipient stands. Being tried right now is no state: a crash ends it."""

    READY = "ready"
    DEFERRED = "deferred"
    HELD = "held"
    DELIVERED = "delivered"
    FAILED = "failed"
    EXPIRED = "expired"
    #: An operator gave it up, and told nobody.
    DELETED = "deleted"

    @property
    def final(self) -> bool:
        """Whether nothing more will be tried."""
        return self in _FINAL


_FINAL: Final = (State.DELIVERED, State.FAILED, State.EXPIRED, State.DELETED)
#: The states in which something will be tried, sooner or later.
WAITING: Final = (State.READY, State.DEFERRED)


class Priority(enum.IntEnum):
    """The higher goes first; the low is never starved."""

    LOW = 1
    NORMAL = 2
    HIGH = 3
    CRITICAL = 4


class Origin(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a message came from, as far as we saw it.

    Attributes:
        address: the client's IP address; empty if we made the message ourselves.
        helo: what the client called itself.
        session: the id of the session in our logs.
        listener: the name of the listener that took it.
        protocol: the WITH word of the Received field (RFC 3848), e.g. ``ESMTP``.
        login: who was logged in, if anybody.
    """

    address: str = ""
    helo: str = ""
    session: str = ""
    listener: str = ""
    protocol: str = ""
    login: str = ""


class Holder(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who keeps a recipient from being tried.

    Attributes:
        owner: e.g. ``operator:root``, or ``plugin:NAME`` for a quarantine.
        reason: for people.
        since: seconds since the epoch.
    """

    owner: str
    reason: str = ""
    since: float


class Destined(Protocol):
    """Whoever mail is for, as far as that decides where it goes and how patient we are."""

    @property
    def address(self) -> Mailbox:
        """Where it is to be delivered."""
        ...

    @property
    def via(self) -> tuple[str, ...]:
        """Targets that somebody chose for it; none: the configuration decides."""
        ...


#: Where a recipient's mail of a sender goes: the name of its lane.
LaneOf: TypeAlias = "Callable[[Destined, ReversePath], str]"


class Recipient(Struct, kw_only=True, omit_defaults=True):
    """One recipient of a message, and how it stands with it.

    Attributes:
        number: which of the message's recipients, from 0; never changes.
        original: as the client named it, if an alias or an operator led here; else None.
        via: targets, as the configuration writes them, that somebody chose for it; none: the
            configuration decides.
        due: when to try next, for READY and DEFERRED.
        attempts: how many were begun and ended.
        last: the reply that ended the last attempt, a remote's or one of our own making.
        holder: why it is HELD; None if it is not.
        warned: its sender was told that it is delayed (RFC 3461 §4.1).
    """

    number: int
    address: Mailbox
    params: RcptParams = RcptParams()
    original: Mailbox | None = None
    via: tuple[str, ...] = ()
    state: State = State.READY
    due: float = 0.0
    attempts: int = 0
    last: Reply | None = None
    holder: Holder | None = None
    warned: bool = False


class Message(Struct, kw_only=True, omit_defaults=True):
    """A message without its body.

    Attributes:
        size: octets of the content as stored, trace fields included.
        eight_bit: the content has octets above 127.
        hops: Received fields when it came in.
        due: nothing of it is tried before, seconds since the epoch, as its sender wanted; its age
            counts from then. None: it came in to be tried at once.
    """

    id: MessageId
    sender: ReversePath
    params: MailParams = MailParams()
    recipients: list[Recipient]
    received_at: float
    expires_at: float
    size: int
    eight_bit: bool = False
    hops: int = 0
    priority: Priority = Priority.NORMAL
    origin: Origin = Origin()
    tags: tuple[str, ...] = ()
    due: float | None = None

    @property
    def begun_at(self) -> float:
        """Since when it is tried, or will be: lifetime and delay count from here."""
        return self.received_at if self.due is None else self.due


class Receipt(Struct, frozen=True):
    """What was answered to whoever handed a message in with a key.

    Attributes:
        id: of the message that came of it.
        digest: of what was handed in.
        at: when, seconds since the epoch.
    """

    key: str
    id: MessageId
    digest: bytes
    at: float


class Addressee(Struct, frozen=True, kw_only=True):
    """A recipient before the queue knows it: what a listener, an alias or a report names.

    Attributes:
        holder: it is taken in HELD: a quarantine of this one alone.
    """

    address: Mailbox
    params: RcptParams = RcptParams()
    original: Mailbox | None = None
    via: tuple[str, ...] = ()
    holder: Holder | None = None


class Envelope(Struct, frozen=True, kw_only=True):
    """What is known of a message before its content came in.

    Attributes:
        holder: it is taken in with all its recipients HELD: a quarantine.
        due: it is taken in with all its recipients DEFERRED until then, seconds since the epoch,
            if that is to come. How far ahead that may be is for the caller to judge.
        notes: what was done to it on its way in: the first of its timeline.
    """

    sender: ReversePath
    params: MailParams = MailParams()
    recipients: tuple[Addressee, ...]
    origin: Origin = Origin()
    priority: Priority = Priority.NORMAL
    tags: tuple[str, ...] = ()
    hops: int = 0
    holder: Holder | None = None
    due: float | None = None
    notes: tuple[Note, ...] = ()


class Result(enum.Enum):
    """How an attempt ended for one recipient."""

    DELIVERED = "delivered"
    #: Try again later.
    DEFERRED = "deferred"
    #: Never try again.
    FAILED = "failed"


class Attempt(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One attempt at one recipient: a row of the message's timeline.

    Attributes:
        number: which of the message's recipients.
        started, ended: seconds since the epoch.
        destination: the lane it was tried in, e.g. ``mx:example.net`` or ``maildir``.
        host: who was spoken to, ``name[address]:port``; or whose verdict ended it before that,
            ``plugin:NAME``; empty if nobody was reached.
        reply: the remote's reply word for word, or one of our own making.
        remote: whether `reply` is the remote's own words.
        expired: a DEFERRED one that was the last: the message's lifetime is over.
        warned: with it the sender is told that it is delayed.
        tls: how the conversation was encrypted, e.g. ``TLSv1.3 TLS_AES_256_GCM_SHA384``; empty:
            it was not.
    """

    number: int
    started: float
    ended: float
    result: Result
    destination: str
    host: str = ""
    reply: Reply
    remote: bool = False
    expired: bool = False
    warned: bool = False
    tls: str = ""


class Note(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an operator or a plugin did with a message, or found out about it.

    It stands in the timeline beside the attempts.

    Attributes:
        at: seconds since the epoch.
        who: e.g. ``operator:root`` or ``plugin:spf``.
        action: in a word, e.g. ``hold``; with what it came to, if that varies.
        recipients: the numbers of those it was done to; none: it is about the whole message.
        reason: for people.
    """

    at: float
    who: str
    action: str
    recipients: tuple[int, ...]
    reason: str = ""


class Report(Struct, frozen=True, kw_only=True):
    """A message of our own making, queued in the transaction that gives cause for it."""

    envelope: Envelope
    content: bytes


class Timeline(Struct, frozen=True, kw_only=True):
    """What happened to a message.

    Attributes:
        finished_at: when nothing more was left to try; None while something is.
        attempts: in the order in which they ended.
        notes: what operators and plugins did and found out, in that order.
    """

    message: Message
    finished_at: float | None
    attempts: tuple[Attempt, ...]
    notes: tuple[Note, ...] = ()


class Stats(Struct, frozen=True, kw_only=True):
    """How full the queue is.

    Attributes:
        messages: how many still have something to try, or are held.
        recipients: of these messages, by state.
        oldest: when the oldest of them came in; None if there is none.
        history: finished messages still known; as of the last minute, or before a crash.
    """

    messages: int
    recipients: dict[State, int]
    oldest: float | None
    history: int
