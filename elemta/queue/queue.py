"""The queue: mail that we have taken responsibility for, until it is settled."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from elemta.queue import events as happened
from elemta.queue.bodies import StoredBody, is_large
from elemta.queue.change import Insert, Settle
from elemta.queue.entry import Entry
from elemta.queue.floor import Floor
from elemta.queue.ids import IdSource, key_of
from elemta.queue.incoming import Incoming
from elemta.queue.load import load_entry
from elemta.queue.model import Message, Recipient, Result, State
from elemta.queue.operation import Call
from elemta.queue.residence import Residence
from elemta.queue.schedule import Schedule
from elemta.queue.window import Window
from elemta.queue.work import Claim, Work

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence

    from elemta.protocol import Mailbox
    from elemta.queue.lane import Lane
    from elemta.queue.model import Attempt, Envelope, MessageId, Report
    from elemta.queue.reader import StoreReader
    from elemta.queue.retry import RetryPolicy
    from elemta.queue.store import Store
    from elemta.queue.writer import Writer

T = TypeVar("T")

#: Outcomes that may wait to be written before `settle` waits too.
PENDING: Final = 2000


class Queue:
    """Takes mail in, hands it out to be tried, and keeps what became of it.

    Made by `open_queue`. Used from one Trio loop alone.

    Attributes:
        events: what happens, live.
        new_id: gives ids; they are wanted before the message is here.
        room: whether the disk has more left than its reserve. While it has not, take no mail.
        run: for `open_queue`: look at the clock whenever something is due, until cancelled.
        bodies: for `Incoming`.
    """

    def __init__(
        self,
        store: Store,
        writer: Writer,
        reader: StoreReader,
        policy: RetryPolicy,
        *,
        lane: Callable[[Mailbox], str],
        clock: Callable[[], float],
        room: Callable[[], bool],
        window: int,
        workers: int,
        memory: int,
        inline: bool,
    ) -> None:
        self.events = happened.EventBus()
        self.bodies = store.bodies
        self.new_id = IdSource(clock, store.last_key)
        self._writer = writer
        self._reader = reader
        self._policy = policy
        self._clock = clock
        self.room = room
        self._inline = inline
        resident = Window(window)
        self._schedule = Schedule(lane, resident.entries, workers=workers)
        self._floor = Floor(self, self._schedule)
        self._residence = Residence(
            writer,
            clock,
            resident,
            self._schedule,
            self._floor,
            memory=memory,
            finished=self._finished,
        )
        self._waiting = resident.entries
        self.run = self._residence.run

    # What the listener needs.

    @property
    def healthy(self) -> bool:
        """Whether the last write went well. While it did not, take no mail."""
        return self._writer.trouble is None

    @property
    def why(self) -> str | None:
        """Why it is not healthy; None if it is."""
        return self._writer.trouble

    @property
    def waiting(self) -> int:
        """Messages in memory: being tried, ready, due very soon, or not yet written as settled."""
        return len(self._waiting)

    def receive(self, envelope: Envelope, *, id: MessageId | None = None) -> Incoming:  # noqa: A002
        """Take a message piece by piece.

        Args:
            envelope: may be replaced at `Incoming.commit`.
            id: from `new_id`, if it is told before; else there is a new one.
        """
        return Incoming(self, envelope, id or self.new_id())

    async def accept(
        self,
        envelope: Envelope,
        content: bytes,
        id: MessageId | None = None,  # noqa: A002
    ) -> MessageId:
        """Take a whole message: it is ours, and durable, when this returns.

        Cannot be cancelled but before it began: a commit on its way cannot be called back.

        Raises:
            StoreUnavailable: the disk is full or broken. Nothing is kept.
        """
        size = len(content)
        if is_large(size):
            async with self.receive(envelope, id=id) as incoming:
                await incoming.write(content)
                return await incoming.commit()
        message = self._message(envelope, id, size, eight_bit=not content.isascii())
        await self._insert(message, content)
        return message.id

    async def accept_file(
        self,
        envelope: Envelope,
        id: MessageId,  # noqa: A002
        size: int,
        *,
        eight_bit: bool,
    ) -> MessageId:
        """For `Incoming`: the same for a body that is in its file, and synced."""
        await self._insert(self._message(envelope, id, size, eight_bit=eight_bit), None)
        return id

    async def in_thread(self, call: Callable[[], T]) -> T:
        """Run what blocks; on virtual time at once, as its clock sees no threads."""
        if self._inline:
            await trio.lowlevel.checkpoint()
            return call()
        return await trio.to_thread.run_sync(call)

    def _message(
        self,
        envelope: Envelope,
        id: MessageId | None,  # noqa: A002
        size: int,
        *,
        eight_bit: bool,
    ) -> Message:
        now = self._clock()
        return Message(
            id=id or self.new_id(),
            sender=envelope.sender,
            params=envelope.params,
            recipients=[
                Recipient(
                    number=number,
                    address=each.address,
                    params=each.params,
                    original=each.original,
                    due=now,
                )
                for number, each in enumerate(envelope.recipients)
            ],
            received_at=now,
            expires_at=now + self._policy.lifetime,
            size=size,
            eight_bit=eight_bit,
            hops=envelope.hops,
            priority=envelope.priority,
            origin=envelope.origin,
            tags=envelope.tags,
        )

    async def _insert(self, message: Message, content: bytes | None) -> None:
        insert = Insert(Entry(message), content, self._queued)
        self._writer.submit(insert)
        await insert.wait()

    def _queued(self, insert: Insert) -> None:
        """A message is durable. It is tried at once, unless much is waiting before it."""
        message, now = insert.entry.message, self._clock()
        self.events.publish(
            happened.Queued(
                self.events.next(),
                now,
                message.id,
                message.sender,
                tuple([each.address for each in message.recipients]),
                message.size,
            )
        )
        self._residence.admit(insert, now)

    # What delivery needs.

    async def claim(self) -> Claim:
        """Wait for a lane with work and room for one more worker; the place is taken now.

        Resource handling:
            Enter the claim at once: leaving it gives the place back.
        """
        return await self._floor.claim()

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
        inserts = [
            Insert(Entry(self._report(report)), report.content, self._queued) for report in reports
        ]
        settle = Settle(entry, changed, attempts, inserts, now, self._residence.settled)
        if not entry.stands and entry.works <= 1:
            self._residence.drop_content(entry)
        settle.urgent = durable
        self._residence.submit(settle)
        if durable or self._residence.pending > PENDING:
            await settle.wait(abandonable=True)

    def expires(self, message: Message, recipient: Recipient, now: float) -> bool:
        """Whether an attempt that fails now is the last: the lifetime ends before the next.

        Settle it then as DEFERRED with `expired`, and tell the sender.
        """
        return now + self._policy.shortest_delay(recipient.attempts + 1) > message.expires_at

    def reroute(self, lane: Callable[[Mailbox], str]) -> None:
        """From now on recipients stand in these lanes, whatever stands in memory included."""
        now = self._clock()
        self._schedule.reroute(lane, now)
        self._residence.serve(now)

    def _report(self, report: Report) -> Message:
        content = report.content
        eight_bit = not content.isascii()
        return self._message(report.envelope, None, len(content), eight_bit=eight_bit)

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
            recipient.state, recipient.due = _STATES[attempt.result], 0.0
            if recipient.state is State.DEFERRED:
                if attempt.expired:
                    recipient.state = State.EXPIRED
                else:
                    delay = self._policy.delay(recipient.attempts, lambda: chance)
                    recipient.due = min(now + delay, max(now, entry.message.expires_at))
            entry.left -= recipient.state.final
            changed.append(recipient)
            self._publish(entry.message.id, recipient, attempt, now)
        return changed

    def _publish(
        self,
        id: MessageId,  # noqa: A002
        recipient: Recipient,
        attempt: Attempt,
        now: float,
    ) -> None:
        where = (id, recipient.address, attempt.destination, attempt.host, attempt.reply)
        number = self.events.next()
        match recipient.state:
            case State.DELIVERED:
                event: happened.QueueEvent = happened.Delivered(number, now, *where)
            case State.DEFERRED:
                event = happened.Deferred(number, now, *where, recipient.due)
            case State.EXPIRED:
                event = happened.Expired(number, now, *where)
            case _:
                event = happened.Failed(number, now, *where)
        self.events.publish(event)

    def _finished(self, entry: Entry, now: float) -> None:
        number = self.events.next()
        self.events.publish(happened.Finished(number, now, entry.message.id))

    # What a claim and a work need (`work.Gives`).

    def take(self, claim: Claim, most: int) -> Work | None:
        """See `Claim.take`."""
        if not self._floor.may_go_on(claim):
            return None
        found = self._schedule.take(claim.place, most)
        if found is None:
            return None
        entry, recipients = found
        claim.taken += 1
        entry.works += 1
        self.events.publish(
            happened.AttemptStarted(
                self.events.next(),
                self._clock(),
                entry.message.id,
                claim.lane,
                tuple([each.address for each in recipients]),
            )
        )
        return Work(self, entry, claim.lane, recipients)

    def give_back(self, work: Work) -> None:
        """See `Work`."""
        entry, now = work.entry, self._clock()
        entry.works -= 1
        if work.open:
            self._schedule.ready(entry, work.open.values(), now)
            work.open = {}
            self._residence.serve(now)
        elif entry.left:
            self._residence.rest(entry, now)

    def rest(self, claim: Claim, deadline: float) -> bool:
        """See `Claim.wait`."""
        may = self._floor.rest(claim, deadline)
        self._residence.wake_by(self._clock() + self._floor.next_look)
        return may

    def stir(self, claim: Claim) -> None:
        """See `Claim.wait`."""
        self._floor.stir(claim)

    def succeeded(self, lane: Lane) -> None:
        """See `Claim.succeeded`."""
        self._schedule.succeeded(lane)
        self._floor.serve()

    def failed(self, lane: Lane, *, park: bool) -> None:
        """See `Claim.failed`."""
        now = self._clock()
        self._schedule.failed(lane, now, park=park)
        if park:
            self._floor.end_rest(lane)
            self._residence.wake_by(self._schedule.next_wake(now))
        self._residence.serve(now)

    def release(self, claim: Claim) -> None:
        """See `Claim`."""
        self._schedule.release(claim.place)
        self._floor.serve()

    async def body_of(self, entry: Entry) -> StoredBody:
        """See `Work.body`."""
        message = entry.message
        if entry.content is not None:
            return StoredBody(message, entry.content, self.bodies, self.in_thread)
        return await self._reader.open_body(message, self.in_thread)

    # What people ask for.

    async def hold(self, id: MessageId) -> bool:  # noqa: A002
        """Stop trying a message: all its recipients that are waiting, but not those being tried.

        Returns:
            Whether there is such a message, and any was stopped. It is durable.

        Raises:
            StoreUnavailable: the disk.
        """
        entry = await self._fetch(id)
        if entry is None:
            return False
        held = self._schedule.withdraw(entry)
        held += [each for each in entry.message.recipients if each.state is State.DEFERRED]
        for recipient in held:
            recipient.state, recipient.due = State.HELD, 0.0
        return await self._move(entry, held, happened.Held)

    async def release_held(self, id: MessageId) -> bool:  # noqa: A002
        """Try the held recipients of a message again, now.

        Returns:
            Whether there is such a message, and any was held. It is durable.

        Raises:
            StoreUnavailable: the disk.
        """
        entry = await self._fetch(id)
        if entry is None:
            return False
        now = self._clock()
        released = [each for each in entry.message.recipients if each.state is State.HELD]
        for recipient in released:
            recipient.state, recipient.due = State.READY, now
        self._schedule.ready(entry, released, now)
        self._residence.serve(now)
        return await self._move(entry, released, happened.Released)

    async def _move(
        self,
        entry: Entry,
        recipients: list[Recipient],
        event: type[happened.Held | happened.Released],
    ) -> bool:
        now = self._clock()
        if not recipients:
            self._residence.rest(entry, now)  # it may have been brought into memory for nothing
            return False
        settle = Settle(entry, recipients, (), (), now, self._residence.settled)
        settle.urgent = True
        for recipient in recipients:
            number = self.events.next()
            self.events.publish(event(number, now, entry.message.id, recipient.address))
        self._residence.submit(settle)
        await settle.wait(abandonable=True)
        return True

    async def _fetch(self, id: MessageId) -> Entry | None:  # noqa: A002
        """A message that is not finished, brought into memory if need be."""
        key = key_of(id)
        entry = self._residence.find(key)
        if entry is None:
            found: list[Entry | None] = [None]

            def fetch(connection: sqlite3.Connection) -> None:
                found[0] = load_entry(connection, key)

            def enter() -> None:
                if found[0] is not None:
                    self._residence.enter(found[0], self._clock())
                    self._residence.serve(self._clock())

            call = Call(fetch, enter)
            self._writer.submit(call)
            await call.wait(abandonable=True)
            entry = self._residence.find(key)
        else:
            await trio.lowlevel.checkpoint()
        return entry if entry is not None and entry.message.id == id and entry.left else None


_STATES: Final = {
    Result.DELIVERED: State.DELIVERED,
    Result.DEFERRED: State.DEFERRED,
    Result.FAILED: State.FAILED,
}
