"""The queue: mail that we have taken responsibility for, until it is settled."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, TypeVar

import trio

from elemta.queue import events as happened
from elemta.queue.arrival import Arrivals
from elemta.queue.bodies import StoredBody, is_large
from elemta.queue.counting import Counting
from elemta.queue.errors import StoreUnavailable
from elemta.queue.gate import Gate
from elemta.queue.grip import Errand
from elemta.queue.ids import IdSource, key_of
from elemta.queue.incoming import Incoming
from elemta.queue.operation import Call
from elemta.queue.residence import Residence
from elemta.queue.retry import Patience
from elemta.queue.schedule import Schedule
from elemta.queue.steering import Steering
from elemta.queue.trials import Trials
from elemta.queue.window import Window
from elemta.queue.writer import probe

if TYPE_CHECKING:
    from collections.abc import Callable

    from elemta.metrics.meters import Meters
    from elemta.queue.action import Action, MakesReports, Tally
    from elemta.queue.change import Insert
    from elemta.queue.destination import Census, Destination
    from elemta.queue.entry import Entry
    from elemta.queue.filter import Filter
    from elemta.queue.model import (
        Envelope,
        LaneOf,
        Message,
        MessageId,
        Receipt,
        Recipient,
        Report,
    )
    from elemta.queue.rate import LaneLimits
    from elemta.queue.reader import StoreReader
    from elemta.queue.retry import PolicyOf, RetryPolicy
    from elemta.queue.standing import Standing
    from elemta.queue.store import Store
    from elemta.queue.suspension import Suspension, Suspensions
    from elemta.queue.work import Claim, Work
    from elemta.queue.writer import Writer

T = TypeVar("T")


class Queue:
    """Takes mail in, hands it out to be tried, and keeps what became of it.

    Made by `open_queue`. Used from one Trio loop alone.

    Attributes:
        events: what happens, live.
        new_id: gives ids; they are wanted before the message is here.
        lane_of: where a recipient goes.
        room: whether the disk has more left than its reserve. While it has not, take no mail.
        settle: writes what became of an attempt; see `Trials.settle`.
        run: for `open_queue`: look at the clock whenever something is due, until cancelled.
        bodies: for `Incoming`.
        counting: how much happened when.
        patience: how long mail is tried, by the policy of this moment.
    """

    def __init__(
        self,
        store: Store,
        writer: Writer,
        reader: StoreReader,
        policy: RetryPolicy | PolicyOf,
        *,
        lane: LaneOf,
        limits: Callable[[str], LaneLimits],
        suspensions: Suspensions,
        clock: Callable[[], float],
        room: Callable[[], bool],
        window: int,
        workers: int,
        memory: int,
        inline: bool,
        meters: Meters,
    ) -> None:
        self.events = happened.EventBus(first=happened.first_number(clock()))
        self._meters = meters
        self.bodies = store.bodies
        self.new_id = IdSource(clock, store.last_key)
        self._writer = writer
        self._reader = reader
        self.patience = Patience(policy)
        self._clock = clock
        self.room = room
        self._inline = inline
        resident = Window(window)
        self._schedule = Schedule(
            lane, resident.entries, word=self._next_word, limits=limits, workers=workers
        )
        self._trials = Trials(self, self._schedule, self.events, clock, meters)
        floor = self._trials.floor
        self._gate = Gate(suspensions, self._schedule, floor, self.events, clock)
        self._residence: Residence = Residence(
            writer,
            clock,
            resident,
            self._schedule,
            floor,
            deadline=self.deadline,
            memory=memory,
            finished=self._finished,
            timely=lambda now: self._gate.end_over(self._residence, now),
        )
        self._trials.residence = self._residence
        self._arrivals = Arrivals(self, reader, writer, self._residence, clock)
        self._steering = Steering(self, reader, writer, self._schedule, self._residence, clock)
        self.counting = Counting(self.events, store.connection, writer, clock)
        self.lane_of = self._schedule.lane_of
        self._waiting = resident.entries
        self.run = self._residence.run
        self.settle = self._trials.settle

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

    async def answers(self) -> None:
        """Return once the writer has answered: it lives, though its disk may be in trouble."""
        call = Call(probe)
        self._writer.submit(call)
        with contextlib.suppress(StoreUnavailable):
            await call.wait(abandonable=True)

    def receive(self, envelope: Envelope, *, id: MessageId | None = None) -> Incoming:  # noqa: A002 # the word of people
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
        id: MessageId | None = None,  # noqa: A002 # the word of people
        *,
        key: str = "",
        digest: bytes = b"",
    ) -> MessageId:
        """Take a whole message: it is ours, and durable, when this returns.

        Cannot be cancelled but before it began: a commit on its way cannot be called back.

        Args:
            envelope: of the message.
            content: all of it.
            id: from `new_id`, if it is told before; else there is a new one.
            key: who comes with the same again, now or within a week, after a crash too, gets the
                answer of the first time, and nothing is stored. Should name who hands it in
                besides what he calls it, as all keys are in one bag; some hundred letters at most.
            digest: of what was handed in.

        Returns:
            The message's id; that of the one that came first with this key, if it was another.

        Raises:
            KeyReusedError: the key came with another digest before.
            StoreUnavailable: the disk is full or broken. Nothing is kept.
        """
        size = len(content)
        if is_large(size):
            async with self.receive(envelope, id=id) as incoming:
                await incoming.write(content)
                return await incoming.commit(key=key, digest=digest)
        eight_bit = not content.isascii()
        message = self._arrivals.message(envelope, id, size, eight_bit=eight_bit)
        return await self._arrivals.take_in(message, content, key, digest, notes=envelope.notes)

    async def accept_file(
        self,
        envelope: Envelope,
        id: MessageId,  # noqa: A002 # the word of people
        size: int,
        *,
        eight_bit: bool,
        key: str = "",
        digest: bytes = b"",
    ) -> MessageId:
        """For `Incoming`: the same for a body that is in its file, and synced."""
        message = self._arrivals.message(envelope, id, size, eight_bit=eight_bit)
        return await self._arrivals.take_in(message, None, key, digest, notes=envelope.notes)

    async def known(self, key: str) -> Receipt | None:
        """What was answered to whoever handed something in with this key; None if nobody did.

        Raises:
            StoreUnavailable: it cannot be read just now.
        """
        return await self._arrivals.known(key)

    async def in_thread(self, call: Callable[[], T], *, abandonable: bool = False) -> T:
        """Run what blocks; on virtual time at once, as its clock sees no threads.

        Args:
            call: what to run.
            abandonable: a cancellation ends the waiting: it only reads, and may take long.
        """
        if self._inline:
            await trio.lowlevel.checkpoint()
            return call()
        return await trio.to_thread.run_sync(call, abandon_on_cancel=abandonable)

    # What delivery needs.

    async def claim(self) -> Claim:
        """Wait for a lane with work and room for one more worker; the place is taken now.

        Resource handling:
            Enter the claim at once: leaving it gives the place back.
        """
        return await self._trials.floor.claim()

    async def hold(self, work: Work, recipient: Recipient, *, who: str, reason: str) -> bool:
        """Keep a recipient of a work from being tried, as an operator's `Hold` does others.

        It is not of the work any more, and no attempt is counted. It holds from now on, and is
        written soon: a crash before that means that it is tried again.

        Args:
            work: from `Claim.take`.
            recipient: of it, and not settled.
            who: for the note, and the owner of the hold.
            reason: for people.

        Returns:
            False, and nothing is done, if `who` held it before: somebody has released it since.

        Raises:
            StoreUnavailable: whether that is so cannot be read just now.
            ValueError: it is not open in this work.
        """
        return await self._steering.hold(work, recipient, who, reason)

    def expires(self, message: Message, recipient: Recipient, now: float) -> bool:
        """Whether an attempt that fails now is the last: the lifetime ends before the next.

        Settle it then as DEFERRED with `expired`, and tell the sender.
        """
        return self.patience.expires(message, recipient, now)

    def warns(self, message: Message, recipient: Recipient, now: float) -> bool:
        """Whether an attempt that fails now, and is not the last, is to tell of the delay.

        That is so once for a recipient, when its message has been here for long, unless its
        sender wants no such report (RFC 3461 §4.1). Settle it then with `warned`.
        """
        return self.patience.warns(message, recipient, now)

    def deadline(self, message: Message, recipient: Recipient) -> float:
        """When a recipient is given up by the policy of this moment, seconds since the epoch."""
        return self.patience.deadline(message, recipient)

    def retune(
        self,
        *,
        policy: RetryPolicy | PolicyOf | None = None,
        limits: Callable[[str], LaneLimits] | None = None,
        lane: LaneOf | None = None,
    ) -> None:
        """From now on these hold, for what waits already too. What is None stays as it is.

        Retries that are planned stay where they are; lifetimes are counted anew. What waits in
        memory stands in its new lane at once; what waits on disk is found again from the start.
        """
        now = self._clock()
        if policy is not None:
            self.patience = Patience(policy)
        if limits is not None:
            self._schedule.limit(limits, now)
        self._schedule.reroute(lane, now)
        self._residence.restart(now)

    async def body_of(self, entry: Entry) -> StoredBody:
        """See `Work.body`."""
        message = entry.message
        if entry.content is not None:
            return StoredBody(message, entry.content, self.bodies, self.in_thread)
        return await self._reader.open_body(message, self.in_thread)

    def _next_word(self, message: Message, recipient: Recipient) -> float:
        return self.patience.next_word(message, recipient)

    def queue_report(self, report: Report) -> Insert:
        """For `settle` and for operators: what queues a report, once it is written."""
        content, arrivals = report.content, self._arrivals
        eight_bit = not content.isascii()
        message = arrivals.message(report.envelope, None, len(content), eight_bit=eight_bit)
        return arrivals.insert_of(message, content)

    def _finished(self, entry: Entry, now: float) -> None:
        number = self.events.next()
        self.events.publish(happened.Finished(number, now, entry.message.id))
        self._meters.stays.observe(now - entry.message.received_at)

    # What people ask for.

    def destinations(self) -> list[Destination]:
        """How it stands with each lane that something is known of."""
        return self._schedule.destinations()

    def census(self) -> Census:
        """How many of them there are, by how it stands with them."""
        return self._schedule.census()

    def standings(self, id: MessageId) -> dict[int, Standing]:  # noqa: A002 # the word of people
        """Where those recipients of a message are, by number, that are ready and in memory."""
        entry = self._waiting.get(key_of(id))
        return {} if entry is None else self._schedule.standings(entry)

    def probe(self, lane: str) -> None:
        """Let one worker try a parked destination now. It is released if that goes well."""
        now = self._clock()
        if self._schedule.probe(lane, now):
            self._residence.serve(now)

    @property
    def suspensions(self) -> tuple[Suspension, ...]:
        """What is suspended."""
        return self._gate.suspensions

    async def suspend(self, suspension: Suspension) -> None:
        """Try nothing of this from now on, but for what is being tried. Durable on return.

        It takes the place of one with the same scope. What is suspended grows old all the same:
        its senders are warned and told as ever.

        Args:
            suspension: its scope from `parse_scope`.

        Raises:
            StoreUnavailable: the disk; nothing is suspended.
        """
        await self._gate.suspend(suspension, self._residence)

    async def resume(self, scope: str) -> bool:
        """End a suspension; whether there was one. Durable on return.

        Raises:
            StoreUnavailable: the disk; it is suspended still.
        """
        return await self._gate.resume(scope, self._residence)

    async def count(self, filter: Filter, action: Action | None = None) -> Tally:  # noqa: A002 # the word of people
        """What an action would come to, if it were done now: a dry run.

        Args:
            filter: who is meant.
            action: None counts all who are meant, whatever might be done with them.

        Raises:
            StoreUnavailable: the disk.
            ValueError: as `act`.
        """
        return await self._steering.count(filter, action)

    async def act(
        self,
        action: Action,
        filter: Filter,  # noqa: A002 # the word of people
        *,
        who: str,
        reason: str = "",
        report: MakesReports | None = None,
        limit: int | None = None,
    ) -> Tally:
        """Do something with all who are meant, but for those being tried right now.

        Each message is changed as a whole, with a note of who did it and why, and with the
        reports that it gives cause for. Cancelled, or when an error ends it, it has been done with
        some messages and not with others. It is durable when this returns; a change that the disk
        does not take is kept in memory and written as soon as it does.

        Args:
            action: what to do.
            filter: who is meant. What comes in meanwhile is not.
            who: for the note, and the owner of a hold that names none.
            reason: for people; in the report of a bounce, too.
            report: tells the senders of what is bounced; None tells nobody.
            limit: of messages; the oldest go first.

        Raises:
            StoreUnavailable: the disk cannot be read.
            ValueError: to reschedule after one of them is given up; nothing was done.
        """
        errand = Errand(action=action, who=who, reason=reason, report=report)
        return await self._steering.act(errand, filter, limit)
