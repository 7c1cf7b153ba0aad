"""Which messages stand in memory, and what becomes due as time passes."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Final

import trio

from elemta.queue.change import Settle
from elemta.queue.lane import PARK_MOST
from elemta.queue.load import Load
from elemta.queue.model import State
from elemta.queue.window import AHEAD, next_due
from elemta.queue.writer import PROBE

if TYPE_CHECKING:
    from collections.abc import Callable

    from elemta.queue.change import Insert
    from elemta.queue.entry import Entry
    from elemta.queue.floor import Floor
    from elemta.queue.model import Recipient
    from elemta.queue.schedule import Schedule
    from elemta.queue.window import Cursors, Window
    from elemta.queue.writer import Writer

#: Stands in a lane below which new mail for it stays in memory though the window is full.
EMPTY: Final = 100
#: Seconds between two looks at the clock at most: it may be set anew.
MOST_SLEEP: Final = 60.0
#: And at least: sums of times are not exact, and a virtual clock does not move by itself.
LEAST_SLEEP: Final = 0.001


class Residence:
    """Moves messages between disk, lanes and workers.

    Args:
        memory: octets of bodies that may be kept for their first attempt.
        finished: told of each message that is finished durably.

    Attributes:
        pending: outcomes that are not written yet.
    """

    def __init__(
        self,
        writer: Writer,
        clock: Callable[[], float],
        window: Window,
        schedule: Schedule,
        floor: Floor,
        *,
        memory: int,
        finished: Callable[[Entry, float], None],
    ) -> None:
        self._writer = writer
        self._clock = clock
        self._window = window
        self._schedule = schedule
        self._floor = floor
        self._memory = memory
        self._finished = finished
        self.pending = 0
        self._alarm = trio.Event()
        self._planned = -math.inf
        self._load_after = -math.inf

    # In and out of memory.

    def admit(self, insert: Insert, now: float) -> None:
        """New mail is tried at once, unless much is waiting before it."""
        entry, message = insert.entry, insert.entry.message
        if self._window.full and not self._admits(entry):
            self._window.spill(entry)
            return
        if insert.content is not None and message.size <= self._memory:
            entry.content = insert.content
            self._memory -= message.size
        self._window.add(entry)
        self._schedule.ready(entry, message.recipients, now)
        self.serve(now)

    def _admits(self, entry: Entry) -> bool:
        """Whether new mail may stay in a full memory: it goes where little else does."""
        return not self._window.overfull and all(
            self._schedule.standing(each.address) < EMPTY for each in entry.message.recipients
        )

    def find(self, key: int) -> Entry | None:
        """The message with this key, if it is in memory."""
        return self._window.entries.get(key)

    def enter(self, entry: Entry, now: float) -> None:
        """A message was read from the store: it stands in memory from now on, if it did not."""
        if entry.key in self._window.entries:
            return
        self._window.add(entry)
        ready: list[Recipient] = []
        for recipient in entry.message.recipients:
            if recipient.state is State.DEFERRED:
                if recipient.due > now:
                    self._schedule.defer(entry, recipient)
                    self.wake_by(recipient.due)
                    continue
                recipient.state = State.READY
            if recipient.state is State.READY:
                ready.append(recipient)
        self._schedule.ready(entry, ready, now)

    def rest(self, entry: Entry, now: float) -> bool:
        """Send a message that nobody needs for a while back to disk; whether that was done."""
        if not entry.resting or next_due(entry) <= now + AHEAD:
            return False
        if self._window.entries.get(entry.key) is entry:
            self.drop_content(entry)
            self._window.spill(entry)
            self.wake_by(self._window.next_load())
        return True

    def drop_content(self, entry: Entry) -> None:
        """The body is not needed in memory any more."""
        if entry.content is not None:
            self._memory += entry.message.size
            entry.content = None

    # Outcomes.

    def submit(self, settle: Settle) -> None:
        """Have an outcome written."""
        self.pending += 1
        self._writer.submit(settle)
        if self._writer.trouble is not None:
            self.wake_by(self._clock() + PROBE)

    def settled(self, settle: Settle) -> None:
        """An outcome is durable."""
        self.pending -= 1
        entry, now = settle.entry, self._clock()
        if settle.finished:
            self.drop_content(entry)
            self._window.forget(entry)
            self._finished(entry, now)
        elif not self.rest(entry, now):
            for recipient in settle.changed:
                if recipient.state is State.DEFERRED:
                    self._schedule.defer(entry, recipient)
                    self.wake_by(recipient.due)
        self._load(now)

    def serve(self, now: float) -> None:
        """Something is ready, or a place is free."""
        self._floor.serve()
        if self._schedule.put_off:
            self._write_put_off(now)

    def _write_put_off(self, now: float) -> None:
        """What stands in a parked lane and has no place in memory waits on disk."""
        put_off, self._schedule.put_off = self._schedule.put_off, []
        for entry, recipients, until in put_off:
            # Not all at once: the lane may be parked still.
            due = until + random.random() * PARK_MOST  # noqa: S311 # a matter of spreading alone
            for recipient in recipients:
                recipient.state = State.DEFERRED
                recipient.due = min(due, entry.message.expires_at)
            self.submit(Settle(entry, recipients, (), (), now, self.settled))

    # Time.

    async def run(self) -> None:
        """Look at the clock whenever something is due, until cancelled."""
        while True:
            self._look()
            with trio.move_on_after(max(LEAST_SLEEP, self._planned - self._clock())):
                await self._alarm.wait()
            self._alarm = trio.Event()

    def wake_by(self, time: float) -> None:
        """Look at the clock then, if not before."""
        if time < self._planned:
            self._planned = time
            self._alarm.set()

    def _look(self) -> None:
        now = self._clock()
        self._floor.end_overdue_rest(trio.current_time())
        self._schedule.wake(now)
        if self._writer.trouble is not None:
            self._writer.retry()
        self._load(now)
        self.serve(now)
        self._planned = min(
            now + MOST_SLEEP,
            now + self._floor.next_look,
            now + (MOST_SLEEP if self._writer.trouble is None else PROBE),
            self._schedule.next_wake(now),
            max(self._window.next_load(), self._load_after),
        )

    # Reading from the store.

    def _load(self, now: float) -> None:
        """Bring messages into memory, if there is room and something to bring."""
        if now < self._load_after or not self._window.wants(now):
            return
        begin = self._window.begin_load()

        def failed() -> None:
            self._window.end_load(begin)
            self._load_after = self._clock() + PROBE
            self.wake_by(self._load_after)

        until, known = now + AHEAD, self._window.entries
        self._writer.submit(Load(begin, until, known, self._loaded, failed))

    def _loaded(self, entries: list[Entry], reached: Cursors) -> None:
        now = self._clock()
        self._window.end_load(reached)
        for entry in entries:
            self.enter(entry, now)
        self.wake_by(self._window.next_load())
        self.serve(now)
