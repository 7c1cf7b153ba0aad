"""What happens in the queue, told live to whoever subscribes.

Numbers have no gaps within a process, and no two processes give the same ones: where the first one
stands is made of the time of the start (`first_number`). So whoever resumes after a restart is
told of it, and not given other events for those that it lacks. A subscriber that is too slow for
its buffer loses the oldest events and is told how many; it never slows the queue.
"""

from __future__ import annotations

from collections import Counter, deque
from itertools import islice
from typing import TYPE_CHECKING, Final, Self, TypeAlias

import trio
from msgspec import Struct

from elemta.protocol import Mailbox, Reply, ReversePath
from elemta.queue.model import MessageId, Priority

if TYPE_CHECKING:
    from collections.abc import Callable

#: Events that are kept for those who resume.
KEPT: Final = 10_000
#: Numbers that a process has for each second of its life; with them 2**53, which is as far as
#: JSON's numbers can be trusted, is reached in the year 6325.
PER_SECOND: Final = 2**16
#: Failures that are kept besides, as what goes well is more, and would push them out.
KEPT_FAILURES: Final = 1_000


class Event(Struct, frozen=True):
    """Base of all that happens.

    Attributes:
        at: seconds since the epoch.
    """

    number: int
    at: float


class _OfMessage(Event, frozen=True):
    id: MessageId


class _OfRecipient(_OfMessage, frozen=True):
    recipient: Mailbox


class _Answered(_OfRecipient, frozen=True):
    """An attempt at one recipient has ended.

    Attributes:
        lane, host: where it was tried, and who was spoken to; empty where an operator gave it up.
    """

    lane: str
    host: str
    reply: Reply


class _Steered(_OfRecipient, frozen=True):
    """An operator did something with one recipient."""

    who: str
    reason: str


class Queued(_OfMessage, frozen=True, tag=True):
    """A message is ours. It is durable."""

    sender: ReversePath
    recipients: tuple[Mailbox, ...]
    size: int


class AttemptStarted(_OfMessage, frozen=True, tag=True):
    """Some recipients of a message are being tried, in this lane."""

    lane: str
    recipients: tuple[Mailbox, ...]


class Delivered(_Answered, frozen=True, tag=True):
    """The next host, or a mailbox, has answered for one recipient."""


class Deferred(_Answered, frozen=True, tag=True):
    """An attempt at one recipient failed; the next is due at `due`."""

    due: float


class Failed(_Answered, frozen=True, tag=True):
    """One recipient will never be tried again."""


class Expired(_Answered, frozen=True, tag=True):
    """One recipient will not be tried again, since the message's lifetime is over."""


class Held(_Steered, frozen=True, tag=True):
    """Somebody stopped this recipient: it is not tried until released."""


class Released(_Steered, frozen=True, tag=True):
    """A held recipient is tried again."""


class Deleted(_Steered, frozen=True, tag=True):
    """An operator gave this recipient up, and nobody is told."""


class Redirected(_OfMessage, frozen=True, tag=True):
    """A recipient has another address from now on."""

    former: Mailbox
    recipient: Mailbox
    who: str
    reason: str


class Rescheduled(_Steered, frozen=True, tag=True):
    """A recipient is tried next at `due`, seconds since the epoch, and not before."""

    due: float


class Rerouted(_Steered, frozen=True, tag=True):
    """A recipient goes by these targets from now on; none: as the configuration says."""

    via: tuple[str, ...]


class Reprioritised(_OfMessage, frozen=True, tag=True):
    """A message goes sooner, or later, than it would have gone."""

    priority: Priority
    who: str
    reason: str


class Parked(Event, frozen=True, tag=True):
    """A destination did not answer: it is left alone until `until`, then one worker tries."""

    lane: str
    until: float
    reason: str


class Unparked(Event, frozen=True, tag=True):
    """A destination that was parked answers again."""

    lane: str


class Suspended(Event, frozen=True, tag=True):
    """An operator stopped a destination, a domain or everything; None: until it is resumed."""

    scope: str
    reason: str
    who: str
    until: float | None


class Resumed(Event, frozen=True, tag=True):
    """A suspension is over."""

    scope: str


class Finished(_OfMessage, frozen=True, tag=True):
    """Nothing more is left to try of a message; it is history now."""


class Missed(Struct, frozen=True, tag=True, omit_defaults=True):
    """So many events came too fast for this subscriber, or are too old to be kept.

    Attributes:
        count: those of this process.
        last: the number of the last of them: what is told next comes after it. 0: what is missed
            has no numbers.
        restarted: who resumes comes from another process than this one; how many events of that
            one are lost, nobody knows.
    """

    count: int
    last: int = 0
    restarted: bool = False


#: What happened.
QueueEvent: TypeAlias = (
    Queued
    | AttemptStarted
    | Delivered
    | Deferred
    | Failed
    | Expired
    | Held
    | Released
    | Deleted
    | Redirected
    | Rescheduled
    | Rerouted
    | Reprioritised
    | Parked
    | Unparked
    | Suspended
    | Resumed
    | Finished
)


def first_number(started_at: float) -> int:
    """What comes before the number of the first event of a process.

    Args:
        started_at: seconds since the epoch. A process that starts later has greater numbers, as
            long as events come slower than `PER_SECOND`, and the clock was not set back.
    """
    return int(started_at * PER_SECOND)


#: What an operator wants to hear of: an attempt, or a whole destination, that failed.
_FAILURES: Final = frozenset({Deferred, Failed, Expired, Parked})


class EventBus:
    """Hands each event to each subscriber.

    Args:
        kept: how many of the last events a new subscriber can ask for.
        first: what comes before the number of the first event.
    """

    def __init__(self, kept: int = KEPT, first: int = 0) -> None:
        self._last: deque[QueueEvent] = deque(maxlen=kept)
        self._failures: deque[QueueEvent] = deque(maxlen=KEPT_FAILURES)
        self._subscriptions: list[Subscription] = []
        self._first = first
        self.number = first
        """The number of the last event; `first` if there was none."""
        self.counts: Counter[str] = Counter()
        """How many of each kind there were, by the names of their classes."""

    @property
    def subscribers(self) -> int:
        """How many listen."""
        return len(self._subscriptions)

    def next(self) -> int:
        """The number for the event that is made now; publish it before anything else."""
        self.number += 1
        return self.number

    def publish(self, event: QueueEvent) -> None:
        """Tell everybody. Costs a microsecond when nobody listens; never waits."""
        self._last.append(event)
        kind = type(event)
        if kind in _FAILURES:
            self._failures.append(event)
        self.counts[kind.__name__] += 1
        for subscription in self._subscriptions:
            subscription.put(event)

    def miss(self, count: int) -> None:
        """So many events happened of which we know nothing more; those who listen are told."""
        for subscription in self._subscriptions:
            subscription.miss(Missed(count, last=self.number))

    def failures(self, limit: int) -> list[QueueEvent]:
        """The last that failed, the newest first."""
        return list(islice(reversed(self._failures), limit))

    def subscribe(self, buffer: int = 1000, *, since: int | None = None) -> Subscription:
        """Listen from now on, or from the event after number `since`.

        Args:
            buffer: how many events may wait to be read.
            since: 0: all that is kept is told. If it is from another process, that is told, and
                then all that is kept.

        Resource handling:
            Close the subscription, best by `with`.
        """
        subscription = Subscription(buffer, self._subscriptions.remove)
        if since is not None:
            restarted = since != 0 and not self._first <= since <= self.number
            since = max(since, self._first) if since <= self.number else self._first
            before = self._last[0].number - 1 if self._last else self.number
            if restarted or since < before:
                subscription.miss(Missed(before - since, last=before, restarted=restarted))
            for event in self._last:
                if event.number > since:
                    subscription.put(event)
        self._subscriptions.append(subscription)
        return subscription


class Subscription:
    """One reader's view of the bus: an async iterator of events and `Missed`. Made by the bus."""

    def __init__(self, buffer: int, close: Callable[[Subscription], None]) -> None:
        self._events: deque[QueueEvent] = deque()
        self._buffer = buffer
        self._missed: Missed | None = None
        self._close = close
        self._closed = False
        self._reader = trio.lowlevel.ParkingLot()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening: a reader that waits gets no more. May be called twice."""
        if not self._closed:
            self._closed = True
            self._close(self)
            self._reader.unpark_all()

    def put(self, event: QueueEvent) -> None:
        """For the bus: one more event."""
        if len(self._events) >= self._buffer:
            self.miss(Missed(1, last=self._events.popleft().number))
        self._events.append(event)
        self._reader.unpark()

    def miss(self, missed: Missed) -> None:
        """For the bus: these are lost."""
        if (before := self._missed) is not None:
            missed = Missed(
                before.count + missed.count,
                last=missed.last,
                restarted=before.restarted or missed.restarted,
            )
        self._missed = missed
        self._reader.unpark()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> QueueEvent | Missed:
        await trio.lowlevel.checkpoint()
        while not (self._events or self._missed or self._closed):
            await self._reader.park()
        found = self.take()
        if found is None:
            raise StopAsyncIteration
        return found

    def take(self) -> QueueEvent | Missed | None:
        """The next that is here already; None if there is none. For those who are quick.

        Whoever waits for each by itself gets one a turn of the loop, of which there are few when
        much happens.
        """
        if self._closed:
            return None
        if self._missed is not None:
            missed, self._missed = self._missed, None
            return missed
        return self._events.popleft() if self._events else None
