"""Work as it is handed out, and what becomes of it.

The other half of `floor`: that knows who waits for work and who has a place; this, what a worker
who has one is given, and where an outcome leaves a recipient.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final, Protocol

from elemta.queue import events as happened
from elemta.queue.change import Settle
from elemta.queue.floor import Floor
from elemta.queue.model import Result, State
from elemta.queue.work import Claim, Work

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from elemta.metrics.meters import Meters
    from elemta.queue.bodies import StoredBody
    from elemta.queue.change import Insert
    from elemta.queue.entry import Entry
    from elemta.queue.events import EventBus
    from elemta.queue.lane import Lane
    from elemta.queue.model import Attempt, MessageId, Recipient, Report
    from elemta.queue.residence import Residence
    from elemta.queue.retry import Patience
    from elemta.queue.schedule import Schedule

#: Outcomes that may wait to be written before `settle` waits too.
PENDING: Final = 2000


class Serves(Protocol):
    """What `Trials` needs of the queue."""

    patience: Patience

    def queue_report(self, report: Report) -> Insert:
        """What queues a report, once it is written."""
        ...

    async def body_of(self, entry: Entry) -> StoredBody:
        """See `Work.body`."""
        ...


class Trials:
    """Hands work to those who have a place, and takes what became of it.

    Args:
        queue: whose work it is.
        schedule: whose turn it is.
        events: told what happens.
        clock: seconds since the epoch.
        meters: told how long mail has waited for its first attempt.

    Attributes:
        body_of: the queue's.
        floor: who waits for work.
        residence: where goes what is not being tried any more; given by the queue before anything
            is, as it has to know the floor.
    """

    residence: Residence

    def __init__(
        self,
        queue: Serves,
        schedule: Schedule,
        events: EventBus,
        clock: Callable[[], float],
        meters: Meters,
    ) -> None:
        self.floor = Floor(self, schedule, clock)
        self._queue = queue
        self.body_of = queue.body_of
        self._schedule = schedule
        self._events = events
        self._clock = clock
        self._meters = meters

    async def settle(
        self,
        work: Work,
        attempts: Sequence[Attempt],
        reports: Sequence[Report] = (),
        *,
        durable: bool = False,
    ) -> None:
        """Write what became of an attempt: outcomes, reports, and an end if all is done, at once.

        It counts from now on, and is written soon, again and again if the disk does not let us.
        A crash before that means that the recipients are tried once more.

        Args:
            work: whose recipients these are; those not named stay open.
            attempts: one for each recipient. DEFERRED ones are tried again by the retry policy.
            reports: messages to queue, durable together with it.
            durable: wait for that. Otherwise this waits only when too much is pending, and is no
                checkpoint.

        Raises:
            ValueError: an attempt at a recipient that is not open in this work.
        """
        now, entry = self._clock(), work.entry
        changed = self._apply(work, attempts, now)
        inserts = [self._queue.queue_report(report) for report in reports]
        settle = Settle(entry, changed, attempts, inserts, now, self.residence.settled)
        if not entry.stands and entry.works <= 1:
            self.residence.drop_content(entry)
        settle.urgent = durable
        self.residence.submit(settle)
        if durable or self.residence.pending > PENDING:
            await settle.wait(abandonable=True)

    def _apply(self, work: Work, attempts: Sequence[Attempt], now: float) -> list[Recipient]:
        """Move recipients to where attempts leave them, in memory."""
        for attempt in attempts:
            if attempt.number not in work.open:
                raise ValueError(f"recipient {attempt.number} is not open in this work")
        entry = work.entry
        changed: list[Recipient] = []
        chance = random.random()  # noqa: S311 # one for all: what is tried together now can be so again
        for attempt in attempts:
            recipient = work.open.pop(attempt.number)
            recipient.attempts += 1
            recipient.last = attempt.reply
            recipient.warned = recipient.warned or attempt.warned
            recipient.state, recipient.due = _STATES[attempt.result], 0.0
            if recipient.state is State.DEFERRED:
                if attempt.expired:
                    recipient.state = State.EXPIRED
                else:
                    policy = self._queue.patience.policy(recipient, entry.message.sender)
                    delay = policy.delay(recipient.attempts, lambda: chance)
                    deadline = self._queue.patience.deadline(entry.message, recipient)
                    recipient.due = min(now + delay, max(now, deadline))
            if recipient.state is not State.DELIVERED:
                self._schedule.note(attempt.destination, str(attempt.reply))
            entry.left -= recipient.state.final
            changed.append(recipient)
            self._publish(entry.message.id, recipient, attempt, now)
        return changed

    def _publish(
        self,
        id: MessageId,  # noqa: A002 # the word of people
        recipient: Recipient,
        attempt: Attempt,
        now: float,
    ) -> None:
        where = (id, recipient.address, attempt.destination, attempt.host, attempt.reply)
        number = self._events.next()
        match recipient.state:
            case State.DELIVERED:
                event: happened.QueueEvent = happened.Delivered(number, now, *where)
            case State.DEFERRED:
                event = happened.Deferred(number, now, *where, recipient.due)
            case State.EXPIRED:
                event = happened.Expired(number, now, *where)
            case _:
                event = happened.Failed(number, now, *where)
        self._events.publish(event)

    # What a claim and a work need (`work.Gives`).

    def take(self, claim: Claim, most: int) -> Work | None:
        """See `Claim.take`."""
        if not self.floor.may_go_on(claim):
            return None
        now = self._clock()
        found = self._schedule.take(claim.place, most, now)
        if found is None:
            return None
        entry, recipients, overdue = found
        claim.taken += 1
        entry.works += 1
        if not overdue:
            if not recipients[0].attempts:
                self._meters.waits.observe(now - entry.message.received_at)
            self._events.publish(
                happened.AttemptStarted(
                    self._events.next(),
                    now,
                    entry.message.id,
                    claim.lane,
                    tuple([each.address for each in recipients]),
                )
            )
        return Work(self, entry, claim.lane, recipients, overdue=overdue)

    def give_back(self, work: Work) -> None:
        """See `Work`."""
        entry, now = work.entry, self._clock()
        entry.works -= 1
        if work.open:
            self._schedule.ready(entry, work.open.values(), now)
            work.open = {}
            self.residence.serve(now)
        elif entry.left:
            self.residence.rest(entry, now)

    def rest(self, claim: Claim, deadline: float) -> bool:
        """See `Claim.wait`."""
        may = self.floor.rest(claim, deadline)
        self.residence.wake_by(self._clock() + self.floor.next_look)
        return may

    def stir(self, claim: Claim) -> None:
        """See `Claim.wait`."""
        self.floor.stir(claim)

    def succeeded(self, lane: Lane) -> None:
        """See `Claim.succeeded`."""
        if lane.parked_until is None:
            self._schedule.succeeded(lane)
            self.floor.serve()
            return
        now = self._clock()
        self._schedule.released(lane, now)
        self._events.publish(happened.Unparked(self._events.next(), now, lane.name))
        self.residence.serve(now)

    def failed(self, lane: Lane, *, park: bool, reason: str) -> None:
        """See `Claim.failed`."""
        now = self._clock()
        lane.error = reason or lane.error
        if self._schedule.failed(lane, now, park=park) and (until := lane.parked_until) is not None:
            self.floor.end_rest(lane)
            self.residence.wake_by(self._schedule.next_wake(now))
            number = self._events.next()
            self._events.publish(happened.Parked(number, now, lane.name, until, lane.error))
        self.residence.serve(now)

    def release(self, claim: Claim) -> None:
        """See `Claim`."""
        self._schedule.release(claim.place)
        self.floor.serve()


_STATES: Final = {
    Result.DELIVERED: State.DELIVERED,
    Result.DEFERRED: State.DEFERRED,
    Result.FAILED: State.FAILED,
}
