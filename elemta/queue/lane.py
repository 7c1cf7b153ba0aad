"""One lane: what is ready to go to one destination, and how much of it may go at once."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from elemta.queue.backlog import Backlog
from elemta.queue.rate import LaneLimits, Meters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from elemta.queue.backlog import Item
    from elemta.queue.entry import Entry
    from elemta.queue.model import Recipient

#: Connections to one destination at first: a small host shall not meet all of us at once.
FIRST: Final = 2
#: What is of lower priority and ready is passed over so many times in a row, and then goes.
PATIENCE: Final = 15
#: Seconds that a destination is left alone after it did not answer: once, and at most.
PARK: Final = 30.0
PARK_MOST: Final = 1800.0
#: Stands below which a lane gets more from disk, and takes new mail though the memory is full.
ENOUGH: Final = 100
#: The same for one that is not open all the time: what stands there at most, and is kept there.
FEW: Final = 50


class Stand:
    """The recipients of one message that are ready in one lane.

    Attributes:
        overdue: the lane is closed, and their sender has to hear of them.
    """

    __slots__ = ("entry", "overdue", "recipients")

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.recipients: list[Recipient] = []
        self.overdue = False


class Lane:
    """What goes to one destination.

    High priority goes first, and within one priority who came first; but what is low is passed
    over `PATIENCE` times in a row at most.

    Attributes:
        name: what the router calls it.
        workers: how many are at work on it now.
        window: how many may be. It grows by one with each success while all of them are at work;
            once the destination has turned us away, by one with as many successes as it is wide.
        closed: nothing is tried here, or nobody new may come, for one of these reasons:
        parked_until: it did not answer: not before this, seconds since the epoch.
        suspended: the scope of the suspension that stops it.
        throttled_until: its rates let nothing go before this.
        full_until: its rates let nobody connect before this; who is connected goes on.
        probing: parked, and its time is over: one worker may try.
        parks: how often in a row it did not answer.
        meters: what counts by its rates; None for nearly all.
        ready: how many stands wait.
        backlog: what is ready and waits on disk; None for nearly all.
        asked: some of that is wanted in memory, and on its way.
        error: what was said last when an attempt failed.
        listed: for the schedule: it waits for a worker.
        alarm: for the schedule: when it looks at this lane again.
    """

    __slots__ = (
        "_careful",
        "_excused",
        "_limit",
        "_overdue",
        "_passed",
        "_stands",
        "_successes",
        "alarm",
        "asked",
        "backlog",
        "closed",
        "error",
        "full_until",
        "listed",
        "meters",
        "name",
        "parked_until",
        "parks",
        "probing",
        "ready",
        "suspended",
        "throttled_until",
        "window",
        "workers",
    )

    def __init__(self, name: str, limits: LaneLimits = LaneLimits()) -> None:  # noqa: B008 # it is frozen
        self.name = name
        self.workers = 0
        self.window = min(FIRST, limits.connections)
        self.closed = False
        self.parked_until: float | None = None
        self.suspended: str | None = None
        self.throttled_until: float | None = None
        self.full_until: float | None = None
        self.probing = False
        self.parks = 0
        self.meters = Meters(limits.rates) if limits.rates else None
        self.ready = 0
        self.backlog: Backlog | None = None
        self.asked = False
        self.error = ""
        self.listed = False
        self.alarm: float | None = None
        self._limit = limits.connections
        self._careful = False
        self._successes = 0
        self._excused = 0
        self._stands: dict[int, deque[Stand]] = {}
        self._passed: dict[int, int] = {}
        self._overdue: deque[Stand] = deque()

    # Whether something may go.

    @property
    def open(self) -> bool:
        """Whether there is work here that one more worker may begin."""
        if not self.closed:
            return self.ready > 0 and self.workers < self.window
        if self._overdue:
            return self.workers < self.window
        if self.full_until is not None or not self.may_try:
            return False
        most = 1 if self.probing else self.window
        return self.ready > 0 and self.workers < most

    @property
    def condition(self) -> str:
        """How it stands with it, in a word; of several reasons to be closed the gravest."""
        if self.suspended is not None:
            return "suspended"
        if self.parked_until is not None:
            return "parked"
        return "throttled" if self.closed else "open"

    @property
    def gives(self) -> bool:
        """Whether a worker who is here would get something."""
        if not self.closed:
            return self.ready > 0
        return bool(self._overdue) or (self.ready > 0 and self.may_try)

    @property
    def may_try(self) -> bool:
        """Whether a worker who is here may try to deliver."""
        return (
            self.suspended is None
            and self.throttled_until is None
            and (self.parked_until is None or self.probing)
        )

    @property
    def idle(self) -> bool:
        """Whether nothing is known of this lane that would be worth remembering."""
        return not (
            self.ready
            or self.workers
            or self.closed
            or self.meters is not None
            or self.backlog is not None
            or self.asked
        )

    def forgettable(self, now: float) -> bool:
        """The same of one that was closed or metered: nobody has wanted to go there for long."""
        return (
            not (self.ready or self.workers or self.asked)
            and self.backlog is None
            and (self.parked_until is None or self.parked_until + PARK_MOST < now)
            and (self.meters is None or self.meters.empty(now))
        )

    def lacks(self, priority: int) -> bool:
        """Whether more of this priority should stand here, though others need the memory.

        Of each priority some must, or the high ones would starve it.
        """
        if self.closed:
            return self.ready < (FEW // 2 if self.may_try else 1)
        if priority not in self._stands:
            return True
        enough = ENOUGH if self.meters is None else FEW // 2
        ahead = 0
        for each, stands in self._stands.items():
            if each >= priority:
                ahead += len(stands)
        return ahead < enough

    # In and out.

    def add(self, stand: Stand) -> None:
        """Something more is ready."""
        self.ready += 1
        if stand.overdue:
            self._overdue.append(stand)
            return
        priority = stand.entry.message.priority
        found = self._stands.get(priority)
        if found is None:
            found = self._stands[priority] = deque()
        found.append(stand)

    def take(self) -> Stand | None:
        """The stand whose turn it is; None if there is none that may be tried now."""
        if self._overdue:
            self.ready -= 1
            return self._overdue.popleft()
        if not self.ready or (self.closed and not self.may_try):
            return None
        self.ready -= 1
        if len(self._stands) == 1:  # nearly always
            ((priority, stands),) = self._stands.items()
        else:
            priority = self._turn()
            stands = self._stands[priority]
        stand = stands.popleft()
        if not stands:
            del self._stands[priority]
            self._passed.pop(priority, None)
        return stand

    def ahead(self, stand: Stand) -> int:
        """How many go before one that stands here: what is more urgent, and who came first."""
        if stand.overdue:
            return self._overdue.index(stand)
        found, priority = len(self._overdue), stand.entry.message.priority
        for each, stands in self._stands.items():
            if each > priority:
                found += len(stands)
        return found + self._stands[priority].index(stand)

    def _turn(self) -> int:
        """Which priority goes now."""
        highest = max(self._stands)
        starved = [each for each in self._stands if self._passed.get(each, 0) >= PATIENCE]
        chosen = max(starved, default=highest)
        for each in self._stands:
            self._passed[each] = 0 if each == chosen else self._passed.get(each, 0) + 1
        return chosen

    def put_back(self, stand: Stand) -> None:
        """Part of what was taken is left: it goes next of its priority."""
        self.ready += 1
        if stand.overdue:
            self._overdue.appendleft(stand)
        else:
            self._stands.setdefault(stand.entry.message.priority, deque()).appendleft(stand)

    def remove(self, stand: Stand) -> None:
        """Take out one stand, wherever it is; seldom done, so it may be slow."""
        self.ready -= 1
        if stand.overdue:
            self._overdue.remove(stand)
            return
        priority = stand.entry.message.priority
        stands = self._stands[priority]
        stands.remove(stand)
        if not stands:
            del self._stands[priority]
            self._passed.pop(priority, None)

    def drain(self) -> list[Stand]:
        """Take out all that is ready."""
        stands = [*self._overdue, *self.overflow(0)]
        self._overdue.clear()
        self.ready = 0
        return stands

    def overflow(self, keep: int) -> list[Stand]:
        """Take out all that is ready but the first `keep`, and those with no time left."""
        rest: list[Stand] = []
        while self.ready - len(self._overdue) > keep:
            # From the end: a parked lane that mail goes on coming in for is asked each time.
            priority = min(self._stands)
            stands = self._stands[priority]
            rest.append(stands.pop())
            self.ready -= 1
            if not stands:
                del self._stands[priority]
                self._passed.pop(priority, None)
        rest.reverse()
        return rest

    # On disk.

    def shelve(self, priority: int, key: int, word: float) -> None:
        """A message is ready for this lane, and waits on disk; see `Backlog.add`."""
        self._made_backlog().add(priority, key, word)

    def put_on_shelf(self, items: Iterable[Item]) -> None:
        """What should have come did not."""
        for item in items:
            self._made_backlog().put_back(item)

    def _made_backlog(self) -> Backlog:
        if self.backlog is None:
            self.backlog = Backlog()
        return self.backlog

    def wants(self, now: float) -> bool:
        """Whether some of what waits on disk should come into memory."""
        backlog = self.backlog
        if backlog is None or self.asked:
            return False
        if self.closed and backlog.due(now):
            return True
        return any(self.lacks(each) for each in backlog.priorities)

    def unshelve(self, most: int, now: float) -> list[Item]:
        """What of it should come, at most so many."""
        backlog = self.backlog
        assert backlog is not None, "only what has a backlog wants something of it"
        items = backlog.pop_due(now, most) if self.closed else []
        few = self.closed or self.meters is not None
        for priority in backlog.priorities:
            if self.lacks(priority):
                items += backlog.pop(priority, min(FEW // 2 if few else ENOUGH, most - len(items)))
        if not backlog.count:
            self.backlog = None
        return items

    # What a destination says.

    def succeeded(self) -> None:
        """The destination took something: more of us may come."""
        if self.window < self._limit and self.workers >= self.window:
            self._successes += 1
            if not self._careful or self._successes >= self.window:
                self.window += 1
                self._successes = 0
        if self._excused:
            self._excused -= 1

    def release(self) -> None:
        """It is parked no longer."""
        self.parked_until, self.probing, self.parks = None, False, 0
        self._reopen()

    def failed(self) -> None:
        """The destination turned us away: fewer of us should come.

        Those who are at work now may all be told the same, which is one reason and not many.
        """
        if self._excused:
            self._excused -= 1
            return
        self._excused = max(0, self.workers - 1)
        self._careful, self._successes = True, 0
        self.window = max(1, self.window // 2)

    def park(self, now: float) -> bool:
        """The destination did not answer: leave it alone, longer each time. Whether that is new."""
        if self.parked_until is not None and not self.probing:
            return False  # told before, by a worker side by side with this one
        self.window, self.probing, self._excused = 1, False, 0
        self.parked_until = now + min(PARK * 2.0**self.parks, PARK_MOST)
        self.parks = min(self.parks + 1, 10)
        self.closed = True
        return True

    # What we allow ourselves.

    def limit(self, limits: LaneLimits) -> None:
        """From now on these hold. What was counted by a rate that stays still counts."""
        self._limit = limits.connections
        self.window = min(self.window, self._limit)
        self.meters = Meters(limits.rates, self.meters) if limits.rates else None
        self.throttled_until = self.full_until = None
        self._reopen()

    def suspend(self, scope: str | None) -> None:
        """Nothing goes by order of this scope; None: it may."""
        self.suspended = scope
        self._reopen()

    def connect(self, now: float) -> None:
        """For a lane with meters: somebody connects."""
        assert self.meters is not None, "only metered lanes count"
        self.meters.count("connections", 1, now)
        self._meter(self.meters, now)

    def allowance(self, now: float) -> int:
        """For a lane with meters: how many recipients the next message may have."""
        assert self.meters is not None, "only metered lanes count"
        self._meter(self.meters, now)
        if self.throttled_until is not None:
            return 0
        return int(min(self.meters.left("recipients", now), 1 << 30))

    def count(self, recipients: int, now: float) -> None:
        """For a lane with meters: a message goes to so many recipients."""
        assert self.meters is not None, "only metered lanes count"
        self.meters.count("messages", 1, now)
        self.meters.count("recipients", recipients, now)
        self._meter(self.meters, now)

    def _meter(self, meters: Meters, now: float) -> None:
        self.throttled_until = meters.free_at(("messages", "recipients"), now)
        self.full_until = meters.free_at(("connections",), now)
        self._reopen()

    @property
    def waits_until(self) -> list[float]:
        """The times at which it may be open again."""
        times = (self.throttled_until, self.full_until, self.parked_until)
        return [each for each in times if each is not None]

    # Time.

    def wake(self, now: float, word: Callable[[Stand], float]) -> None:
        """See whether it may be tried again; and let out what has no time left to wait.

        Args:
            now: seconds since the epoch.
            word: when the sender of what stands here has to hear of it.
        """
        if self.parked_until is not None and self.parked_until <= now:
            self.probing = True
        if self.meters is not None:
            self._meter(self.meters, now)
        if not self.closed:
            return
        for priority, stands in list(self._stands.items()):
            late = [stand for stand in stands if word(stand) <= now]
            for stand in late:
                stand.overdue = True
            self._overdue.extend(late)
            if late:
                left = deque(stand for stand in stands if not stand.overdue)
                if left:
                    self._stands[priority] = left
                else:
                    del self._stands[priority]

    def _reopen(self) -> None:
        """See whether it is closed; if no longer, what was to be given up is tried instead."""
        before, self.closed = (
            self.closed,
            (
                self.parked_until is not None
                or self.suspended is not None
                or self.throttled_until is not None
                or self.full_until is not None
            ),
        )
        if before and not self.closed and self._overdue:
            overdue, self._overdue = self._overdue, deque()
            for stand in overdue:
                stand.overdue = False
                self.ready -= 1
                self.add(stand)
