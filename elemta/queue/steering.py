"""Does what an operator asks with the mail that waits: in memory, and on disk alone.

A search of the store finds which messages may be meant, some hundreds at a time. What stands in
memory is then judged by how it stands there; all else is fetched through the writer, who has the
last word on it, and is in our hands until its change is written. So each message has one truth at
any time, whoever else is busy with it. Between two batches mail goes on.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Protocol, TypeVar

import trio
from msgspec import Struct

from elemta.log import logger
from elemta.queue.action import (
    Bounce,
    Hold,
    Reprioritise,
    Reschedule,
    Retry,
    Tally,
    concerned,
    utc,
    words_for,
)
from elemta.queue.entry import Entry
from elemta.queue.errors import StoreUnavailable
from elemta.queue.filter import Condition
from elemta.queue.grip import Errand, Grip
from elemta.queue.ids import key_of
from elemta.queue.load import read_messages
from elemta.queue.model import Attempt, Result, State
from elemta.queue.operation import Call

if TYPE_CHECKING:
    from collections.abc import Callable

    from elemta.queue.action import Action
    from elemta.queue.bodies import StoredBody
    from elemta.queue.change import Insert, Steered
    from elemta.queue.events import EventBus
    from elemta.queue.filter import Filter
    from elemta.queue.model import Message, MessageId, Recipient, Report
    from elemta.queue.reader import StoreReader
    from elemta.queue.residence import Residence
    from elemta.queue.schedule import Schedule
    from elemta.queue.search import Page
    from elemta.queue.work import Work
    from elemta.queue.writer import Writer

T = TypeVar("T")

log = logger(__name__)


class Serves(Protocol):
    """What `Steering` needs of the queue."""

    @property
    def events(self) -> EventBus:
        """What happens, live."""
        ...

    @property
    def new_id(self) -> Callable[[], MessageId]:
        """Gives ids."""
        ...

    async def in_thread(self, call: Callable[[], T]) -> T:
        """Run what blocks."""
        ...

    async def body_of(self, entry: Entry) -> StoredBody:
        """The content of a message."""
        ...

    def queue_report(self, report: Report) -> Insert:
        """What queues a report, once it is written."""
        ...

    def deadline(self, message: Message, recipient: Recipient) -> float:
        """When a recipient is given up."""
        ...

    def probe(self, lane: str) -> None:
        """Try a lane now, parked or not."""
        ...


class _Count(Struct):
    """Adds up a `Tally`; and the lanes of those who are retried."""

    messages: int = 0
    recipients: int = 0
    octets: int = 0
    busy: int = 0
    lanes: set[str] = set()

    def add(self, message: Message, recipients: int, busy: int) -> None:
        self.busy += busy
        if recipients:
            self.messages += 1
            self.recipients += recipients
            self.octets += message.size

    def tally(self) -> Tally:
        return Tally(
            messages=self.messages, recipients=self.recipients, octets=self.octets, busy=self.busy
        )


class Steering:
    """An operator's hand on the queue.

    Args:
        queue: whose mail it is.
    """

    def __init__(
        self,
        queue: Serves,
        reader: StoreReader,
        writer: Writer,
        schedule: Schedule,
        residence: Residence,
        clock: Callable[[], float],
    ) -> None:
        self._queue = queue
        self._reader = reader
        self._writer = writer
        self._schedule = schedule
        self._residence = residence
        self._clock = clock

    async def count(self, filter: Filter, action: Action | None) -> Tally:  # noqa: A002 # the word of people
        """See `Queue.count`."""
        count = _Count()
        after: int | None = -1
        while after is not None:
            condition = self._condition(filter)
            page = await self._page(condition, after)
            for key, message, recipients in page.hits:
                entry = self._residence.find(key)
                if entry is not None:  # what the store knows is a moment old
                    message, recipients = entry.message, condition.selects(entry.message, key)
                meant = concerned(action, message, recipients)
                if isinstance(action, Reschedule):
                    self._check(action, message, meant)
                self._sort(entry, message, meant, count)
            after = page.after
        return count.tally()

    async def act(self, errand: Errand, filter: Filter, limit: int | None) -> Tally:  # noqa: A002 # the word of people
        """See `Queue.act`."""
        if isinstance(errand.action, Reschedule):
            await self.count(filter, errand.action)  # a time that is wrong for one is so for all
        count = _Count()
        last = key_of(self._queue.new_id())  # what comes in meanwhile is not meant
        after: int | None = -1
        while after is not None and after < last and count.messages != limit:
            condition = self._condition(filter)
            page = await self._page(condition, after)
            keys = [hit.key for hit in page.hits if hit.key < last]
            if limit is not None:
                keys = keys[: limit - count.messages]
            while keys:
                grips, keys = await self._grip(errand.action, condition, keys, count)
                await self._carry_out(errand, grips)
            after = page.after
        for lane in count.lanes:
            self._queue.probe(lane)
        return count.tally()

    def _check(self, action: Reschedule, message: Message, recipients: list[Recipient]) -> None:
        """Raise ValueError if one of them is given up before that time."""
        for each in recipients:
            if action.at > (deadline := self._queue.deadline(message, each)):
                raise ValueError(
                    f"{each.address} of {message.id} is given up at {utc(deadline)}: "
                    "it cannot be tried after that"
                )

    async def hold(self, work: Work, recipient: Recipient, who: str, reason: str) -> bool:
        """See `Queue.hold`."""
        if recipient.number not in work.open:
            raise ValueError(f"recipient {recipient.number} is not open in this work")
        id_ = work.message.id
        try:
            known = await self._queue.in_thread(lambda: self._reader.timeline(id_))
        except sqlite3.Error as error:
            raise StoreUnavailable(f"cannot read the queue: {error}") from error
        hold = Hold()
        if known is not None and any(
            (note.who, note.action) == (who, words_for(hold))
            and recipient.number in note.recipients
            for note in known.notes
        ):
            return False
        taken = [work.open.pop(recipient.number)]
        grip = Grip(work.entry, taken, self._schedule, self._residence, moves=True, brought=False)
        errand = Errand(action=hold, who=who, reason=reason, report=None)
        grip.carry_out(errand, (), self._queue.events, self._clock())
        return True

    # Finding.

    def _condition(self, filter: Filter) -> Condition:  # noqa: A002 # the word of people
        return Condition(filter, self._clock(), self._schedule.lane_of)

    async def _page(self, condition: Condition, after: int) -> Page:
        try:
            return await self._queue.in_thread(lambda: self._reader.page(condition, after))
        except sqlite3.Error as error:
            raise StoreUnavailable(f"cannot read the queue: {error}") from error

    def _sort(
        self, entry: Entry | None, message: Message, recipients: list[Recipient], count: _Count
    ) -> list[Recipient]:
        """Count them, and leave out those in somebody's hands: ready, and in no lane."""
        free = recipients
        if entry is not None:
            waiting = entry.waiting
            free = [
                each
                for each in recipients
                if each.state is not State.READY or each.number in waiting
            ]
        count.add(message, len(free), len(recipients) - len(free))
        return free

    # Doing.

    async def _grip(
        self, action: Action, condition: Condition, keys: list[int], count: _Count
    ) -> tuple[list[Grip], list[int]]:
        """Take these messages in hand, as far as they are meant by the last word on them.

        Returns:
            What is in hand, and those that have left memory meanwhile: ask for them again.
        """
        away = [key for key in keys if self._residence.find(key) is None]
        fetched: dict[int, Entry] = {}
        grips: list[Grip] = []
        left: list[int] = []

        def fetch(connection: sqlite3.Connection) -> None:
            for found in read_messages(connection, away):
                if found.finished_at is None:
                    entry = Entry(found.message, found.phase)
                    fetched[entry.key] = entry

        def take() -> None:
            asked = set(away)
            left.extend([k for k in keys if k not in asked and self._residence.find(k) is None])
            for key in keys:
                resident = self._residence.find(key)
                entry = resident or fetched.get(key)
                if entry is not None:
                    grip = self._take(action, condition, entry, resident, count)
                    if grip is not None:
                        grips.append(grip)

        if away:
            call = Call(fetch, take)
            self._writer.submit(call)
            await call.wait()
        else:
            await trio.lowlevel.checkpoint()
            take()
        return grips, left

    def _take(
        self,
        action: Action,
        condition: Condition,
        entry: Entry,
        resident: Entry | None,
        count: _Count,
    ) -> Grip | None:
        message = entry.message
        meant = concerned(action, message, condition.selects(message, entry.key))
        free = self._sort(resident, message, meant, count)
        if isinstance(action, Retry):
            lane_of = self._schedule.lane_of
            count.lanes.update([lane_of(each, message.sender) for each in free])
            astray = set[int]() if resident is None else self._schedule.astray(resident)
            free = [each for each in free if each.state is not State.READY or each.number in astray]
        if not free:
            return None
        return Grip(
            entry,
            free,
            self._schedule,
            self._residence,
            moves=not isinstance(action, Reprioritise),
            brought=resident is None,
        )

    async def _carry_out(self, errand: Errand, grips: list[Grip]) -> None:
        """Change them all, each with its reports, and wait until that is durable."""
        written: list[Steered] = []
        grips.reverse()
        try:
            while grips:
                reports = await self._reports(errand, grips[-1])
                grip = grips.pop()
                written.append(grip.carry_out(errand, reports, self._queue.events, self._clock()))
        finally:
            now = self._clock()
            for grip in grips:
                grip.let_go(now)
            self._residence.serve(now)
        for each in written:
            await each.wait(abandonable=True)

    async def _reports(self, errand: Errand, grip: Grip) -> list[Insert]:
        if not isinstance(errand.action, Bounce) or errand.report is None:
            return []
        now, refusal = self._clock(), errand.refusal
        failed = [
            (
                each,
                Attempt(
                    number=each.number,
                    started=now,
                    ended=now,
                    result=Result.FAILED,
                    destination="",
                    reply=refusal,
                ),
            )
            for each in grip.recipients
        ]
        body: StoredBody | None = None
        try:
            body = await self._queue.body_of(grip.entry)
        except StoreUnavailable as error:  # what is broken must be got rid of, too
            log.warning("queue.body_missing", id=grip.entry.message.id, reason=str(error))
        reports = await errand.report(grip.entry.message, failed, body)
        return [self._queue.queue_report(report) for report in reports]
