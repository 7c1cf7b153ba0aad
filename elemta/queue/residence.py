"""Which messages stand in memory, and what becomes due as time passes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import trio

from elemta.queue.load import Load
from elemta.queue.model import WAITING, State
from elemta.queue.window import AHEAD, LOAD, next_due
from elemta.queue.writer import PROBE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from elemta.queue.backlog import Item
    from elemta.queue.change import Insert, Settle
    from elemta.queue.entry import Entry
    from elemta.queue.floor import Floor
    from elemta.queue.lane import Lane
    from elemta.queue.model import Message, Recipient
    from elemta.queue.schedule import Schedule
    from elemta.queue.window import Cursors, Window
    from elemta.queue.writer import Writer

#: Seconds between two loads while memory is full: most of what they bring stays on disk.
PACE: Final = 0.02
#: Seconds after the end of its time in which a message from disk is still tried once: its last
#: attempt is due at that end, and may be a little late. Afterwards it is given up untried.
LATE: Final = 3600.0
#: Seconds between two looks for what may leave an overfull memory.
SHED: Final = 1.0
#: Seconds between two looks at the clock at most: it may be set anew.
MOST_SLEEP: Final = 60.0
#: And at least: sums of times are not exact, and a virtual clock does not move by itself.
LEAST_SLEEP: Final = 0.001


class Residence:
    """Moves messages between disk, lanes and workers.

    Args:
        deadline: when a recipient is given up, seconds since the epoch.
        memory: octets of bodies that may be kept for their first attempt.
        finished: told of each message that is finished durably.
        timely: told the time whenever we look at it; says when it should be at the latest.

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
        deadline: Callable[[Message, Recipient], float],
        memory: int,
        finished: Callable[[Entry, float], None],
        timely: Callable[[float], float],
    ) -> None:
        self._writer = writer
        self._clock = clock
        self._window = window
        self._schedule = schedule
        self._floor = floor
        self._deadline = deadline
        self._memory = memory
        self._finished = finished
        self._timely = timely
        self.pending = 0
        self._alarm = trio.Event()
        self._planned = -math.inf
        self._load_after = -math.inf
        self._loading = False
        self._pace_until = -math.inf
        self._shed_after = -math.inf

    # In and out of memory.

    def admit(self, insert: Insert, now: float) -> None:
        """New mail is tried at once, unless much is waiting before it."""
        entry, message = insert.entry, insert.entry.message
        if self._window.full and not self._admits(entry, message.recipients, now):
            self._pass_by(entry)
            return
        if insert.content is not None and message.size <= self._memory:
            entry.content = insert.content
            self._memory -= message.size
        self._window.add(entry)
        self._schedule.ready(entry, message.recipients, now)
        self.serve(now)

    def put_off(self, entry: Entry) -> None:
        """New mail that is not to be tried yet waits on disk."""
        self._window.spill(entry)
        self.wake_by(self._window.next_load())

    def _admits(self, entry: Entry, recipients: Iterable[Recipient], now: float) -> bool:
        """Whether a message may stand in a full memory: it goes where little else does."""
        if not self._schedule.wants(entry.message, recipients):
            return False
        if self._window.overfull:
            self._shed(now)
        return not self._window.overfull

    def _shed(self, now: float) -> None:
        """Let something leave an overfull memory: of the lanes in which the most stand."""
        if 0 <= self._shed_after - now <= SHED:
            return
        self._shed_after = now + SHED
        self._schedule.shed(self._window.excess)
        self._rest_shelved(now)

    def _pass_by(self, entry: Entry) -> None:
        """New mail stays on disk."""
        if self._window.finds(entry.key):
            return
        if self._window.searched and not self._window.overfull:
            self._schedule.leave(entry, entry.message.recipients)
        else:  # so much for so many lanes that it is not worth knowing each
            self._window.find(entry.key)

    def find(self, key: int) -> Entry | None:
        """The message with this key, if it is in memory."""
        return self._window.entries.get(key)

    def enter(self, entry: Entry, now: float) -> None:
        """A message was read from the store: it stands in memory from now on, if it did not."""
        if entry.key in self._window.entries:
            return
        self._window.add(entry)
        message = entry.message
        late = all(
            max(each.due, self._deadline(message, each)) + LATE < now
            for each in message.recipients
            if each.state in WAITING and each.due <= now
        )
        self.place(entry, message.recipients, now, late=late)

    def bring(self, entry: Entry) -> None:
        """A message that was on disk alone is in somebody's hands now, until `put_back`."""
        self._window.add(entry)

    def put_back(self, entry: Entry, ready: Sequence[Recipient], now: float) -> None:
        """A message that was brought goes back to disk, unless others want it in memory by now.

        Args:
            entry: from `bring`.
            ready: recipients that were in the same hands, and are READY.
            now: seconds since the epoch.
        """
        if entry.resting:
            self._schedule.leave(entry, ready)
            self._window.spill(entry)
            self.wake_by(self._window.next_load())
            self.serve(now)
            return
        deferred = [each for each in entry.message.recipients if each.state is State.DEFERRED]
        self.place(entry, [*ready, *deferred], now)
        self.serve(now)

    def place(
        self, entry: Entry, recipients: Iterable[Recipient], now: float, *, late: bool = False
    ) -> None:
        """Let these stand where they belong: in a lane, or where they wait for their time.

        Args:
            entry: their message.
            recipients: some of it.
            now: seconds since the epoch.
            late: as for `Schedule.ready`.
        """
        ready: list[Recipient] = []
        for recipient in recipients:
            if recipient.state is State.DEFERRED:
                if recipient.due > now:
                    self._schedule.defer(entry, recipient)
                    self.wake_by(recipient.due)
                    continue
                recipient.state = State.READY
            if recipient.state is State.READY:
                ready.append(recipient)
        self._schedule.ready(entry, ready, now, late=late)

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

    def settled(self, settle: Settle, ready: Sequence[Recipient] | None = None) -> None:
        """An outcome is durable.

        Args:
            settle: it.
            ready: as for `put_back`, if the message was brought.
        """
        self.pending -= 1
        entry, now = settle.entry, self._clock()
        if settle.finished:
            self.drop_content(entry)
            self._window.forget(entry)
            self._finished(entry, now)
        elif ready is not None:
            self.put_back(entry, ready, now)
        elif not self.rest(entry, now):
            for recipient in settle.changed:
                if recipient.state is State.DEFERRED:
                    self._schedule.defer(entry, recipient)
                    self.wake_by(recipient.due)
        self._load(now)

    def serve(self, now: float) -> None:
        """Something is ready, or a place is free."""
        self._floor.serve()
        if self._schedule.shelved:
            self._rest_shelved(now)
        if self._schedule.hungry:
            self._load(now)

    def _rest_shelved(self, now: float) -> None:
        """What has no place in memory any more goes back to disk."""
        shelved, self._schedule.shelved = self._schedule.shelved, []
        for entry in shelved:
            self.rest(entry, now)

    def restart(self, now: float) -> None:
        """Lanes are others now: find again what they have on disk."""
        self._window.restart()
        self.wake_by(now)
        self.serve(now)

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
        timely = self._timely(now)
        self._schedule.wake(now)
        if self._writer.trouble is not None:
            self._writer.retry()
        self._load(now)
        self.serve(now)
        self._planned = min(
            now + MOST_SLEEP,
            timely,
            now + self._floor.next_look,
            now + (MOST_SLEEP if self._writer.trouble is None else PROBE),
            self._schedule.next_wake(now),
            math.inf if self._loading else self._next_load(),
        )

    def _next_load(self) -> float:
        return max(self._window.next_load(), self._load_after, self._pace_until)

    # Reading from the store.

    def _load(self, now: float) -> None:
        """Bring messages into memory, if there is room and something to bring."""
        if self._loading or now < self._load_after:
            return
        if self._window.overfull:
            self._shed(now)
        drawn = self._drawn(now) if self._schedule.hungry else []
        search = self._window.wants(now) and not now < self._pace_until <= now + PACE
        if not (drawn or search):
            return
        self._loading = True
        begin = self._window.begin_load() if search else None
        if self._window.full:
            self._pace_until = now + PACE

        def loaded(wanted: list[Entry], entries: list[Entry], reached: Cursors | None) -> None:
            self._end_load(reached)
            self._loaded(wanted, entries)
            for lane, _ in drawn:
                self._schedule.fed(lane, self._clock())
            self.serve(self._clock())

        def failed() -> None:
            self._end_load(begin)
            self._load_after = self._clock() + PROBE
            self.wake_by(self._load_after)
            for lane, items in drawn:
                self._schedule.not_fed(lane, items)

        keys = [item.key for _, items in drawn for item in items]
        until, known = now + AHEAD, self._window.entries
        self._writer.submit(Load(keys, begin, until, known, loaded, failed))

    def _drawn(self, now: float) -> list[tuple[Lane, list[Item]]]:
        """What lanes want of what they have on disk."""
        drawn: list[tuple[Lane, list[Item]]] = []
        left, hungry = LOAD, self._schedule.hungry
        while left > 0 and hungry and not self._window.overfull:
            lane = hungry.pop(0)
            items = self._schedule.unshelve(lane, left, now)
            if items:
                left -= len(items)
                drawn.append((lane, items))
            else:
                self._schedule.fed(lane, now)
        return drawn

    def _end_load(self, reached: Cursors | None) -> None:
        self._loading = False
        if reached is not None:
            self._window.end_load(reached)

    def _loaded(self, wanted: list[Entry], entries: list[Entry]) -> None:
        now = self._clock()
        for entry in wanted:
            if _soon(entry, now):
                self.enter(entry, now)
        for entry in entries:
            if self._window.full and not self._admits(entry, soon := _soon(entry, now), now):
                self._schedule.leave(entry, soon)
            else:
                self.enter(entry, now)
        self.wake_by(self._next_load())


def _soon(entry: Entry, now: float) -> list[Recipient]:
    """Those recipients that are ready, or will be before loading comes to them again."""
    return [
        each
        for each in entry.message.recipients
        if each.state is State.READY or (each.state is State.DEFERRED and each.due <= now + AHEAD)
    ]
