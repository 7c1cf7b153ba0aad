"""What happens in the queue, told live to whoever subscribes.

Numbers have no gaps and begin at 1 with each process. A subscriber that is too slow for its buffer
loses the oldest events and is told how many; it never slows the queue.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, Final, Self, TypeAlias

import trio
from msgspec import Struct

from elemta.protocol import Mailbox, Reply, ReversePath
from elemta.queue.model import MessageId, Priority

if TYPE_CHECKING:
    from collections.abc import Callable

#: Events that are kept for those who resume.
KEPT: Final = 10_000


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


class Missed(Struct, frozen=True, tag=True):
    """So many events came too fast for this subscriber, or are too old to be kept."""

    count: int


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
    | Reprioritised
    | Parked
    | Unparked
    | Suspended
    | Resumed
    | Finished
)


class EventBus:
    """Hands each event to each subscriber.

    Args:
        kept: how many of the last events a new subscriber can ask for.
    """

    def __init__(self, kept: int = KEPT) -> None:
        self._last: deque[QueueEvent] = deque(maxlen=kept)
        self._subscriptions: list[Subscription] = []
        self.number = 0
        """The number of the last event; 0 if there was none."""
        self.counts: Counter[str] = Counter()
        """How many of each kind there were, by the names of their classes."""

    def next(self) -> int:
        """The number for the event that is made now; publish it before anything else."""
        self.number += 1
        return self.number

    def publish(self, event: QueueEvent) -> None:
        """Tell everybody. Costs a microsecond when nobody listens; never waits."""
        self._last.append(event)
        self.counts[type(event).__name__] += 1
        for subscription in self._subscriptions:
            subscription.put(event)

    def subscribe(self, buffer: int = 1000, *, since: int | None = None) -> Subscription:
        """Listen from now on, or from the event after number `since`.

        Args:
            buffer: how many events may wait to be read.
            since: if it is from before this process, or from the future, all that is kept is told.

        Resource handling:
            Close the subscription, best by `with`.
        """
        subscription = Subscription(buffer, self._subscriptions.remove)
        if since is not None:
            since = since if since <= self.number else 0
            first = self._last[0].number if self._last else self.number + 1
            if since + 1 < first:
                subscription.miss(first - since - 1)
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
        self._missed = 0
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
            self._events.popleft()
            self._missed += 1
        self._events.append(event)
        self._reader.unpark()

    def miss(self, count: int) -> None:
        """For the bus: so many are lost already."""
        self._missed += count

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> QueueEvent | Missed:
        await trio.lowlevel.checkpoint()
        while not (self._events or self._missed or self._closed):
            await self._reader.park()
        if self._closed:
            raise StopAsyncIteration
        if self._missed:
            missed, self._missed = self._missed, 0
            return Missed(missed)
        return self._events.popleft()
