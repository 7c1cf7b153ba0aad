"""One lane: what is ready to go to one destination, and how much of it may go at once."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from elemta.queue.entry import Entry
    from elemta.queue.model import Recipient

#: Connections to one destination: at first, and at most (safe-defaults §5.7).
FIRST: Final = 2
MOST: Final = 20
#: What is of lower priority and ready is passed over so many times in a row, and then goes.
PATIENCE: Final = 15
#: Seconds that a destination is left alone after it did not answer: once, and at most.
PARK: Final = 30.0
PARK_MOST: Final = 1800.0


class Stand:
    """The recipients of one message that are ready in one lane."""

    __slots__ = ("entry", "recipients")

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.recipients: list[Recipient] = []


class Lane:
    """What goes to one destination.

    High priority goes first, and within one priority who came first; but what is low is passed
    over `PATIENCE` times in a row at most.

    Attributes:
        name: what the router calls it.
        workers: how many are at work on it now.
        window: how many may be; grows by one with each success, halves with each failure.
        parked_until: not to be tried before, seconds since the epoch; None if it answers.
        probing: parked, and its time is over: one worker may try.
        ready: how many stands wait.
        listed: for the schedule: it waits for a worker.
    """

    __slots__ = (
        "_limit",
        "_overdue",
        "_parks",
        "_passed",
        "_stands",
        "listed",
        "name",
        "parked_until",
        "probing",
        "ready",
        "window",
        "workers",
    )

    def __init__(self, name: str, first: int = FIRST, most: int = MOST) -> None:
        self.name = name
        self.workers = 0
        self.window = first
        self.parked_until: float | None = None
        self.probing = False
        self.ready = 0
        self.listed = False
        self._limit = most
        self._parks = 0
        self._stands: dict[int, deque[Stand]] = {}
        self._passed: dict[int, int] = {}
        self._overdue: deque[Stand] = deque()

    @property
    def open(self) -> bool:
        """Whether there is work here that one more worker may begin."""
        if self.parked_until is None:
            return self.ready > 0 and self.workers < self.window
        if self.probing and self.ready > 0:
            return self.workers == 0
        return bool(self._overdue) and self.workers < self.window

    @property
    def idle(self) -> bool:
        """Whether nothing is known of this lane that would be worth remembering."""
        return not (self.ready or self.workers or self.parked_until is not None)

    def forgettable(self, now: float) -> bool:
        """Whether it was parked once, and nobody has wanted to go there for long."""
        return (
            self.parked_until is not None
            and self.parked_until + PARK_MOST < now
            and not (self.ready or self.workers)
        )

    def add(self, stand: Stand) -> None:
        """Something more is ready."""
        self.ready += 1
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
        if not self.ready or (self.parked_until is not None and not self.probing):
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
        self._stands.setdefault(stand.entry.message.priority, deque()).appendleft(stand)

    def remove(self, stand: Stand) -> None:
        """Take out one stand, wherever it is; seldom done, so it may be slow."""
        self.ready -= 1
        if stand in self._overdue:
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

    def succeeded(self) -> None:
        """The destination took something: more of us may come."""
        if self.window < self._limit:
            self.window += 1
        if self.parked_until is not None:
            self.parked_until, self.probing, self._parks = None, False, 0
            for stand in self._overdue:
                self.ready -= 1
                self.add(stand)
            self._overdue.clear()

    def failed(self) -> None:
        """The destination turned us away: fewer of us should come."""
        self.window = max(1, self.window // 2)

    def park(self, now: float) -> float:
        """The destination did not answer: leave it alone, longer each time. Returns until when."""
        if self.parked_until is not None and not self.probing:
            return self.parked_until  # told before, by a worker side by side with this one
        self.window, self.probing = 1, False
        self.parked_until = until = now + min(PARK * 2.0**self._parks, PARK_MOST)
        self._parks = min(self._parks + 1, 10)
        return until

    def wake(self, now: float) -> None:
        """See whether a parked lane may be probed; and let out what has no time left to wait.

        A message whose lifetime is over goes to a worker even so, who can then give it up.
        """
        if self.parked_until is None:
            return
        if self.parked_until <= now:
            self.probing = True
        for priority, stands in list(self._stands.items()):
            late = [stand for stand in stands if stand.entry.message.expires_at <= now]
            if late:
                self._overdue.extend(late)
                left = deque(stand for stand in stands if stand.entry.message.expires_at > now)
                if left:
                    self._stands[priority] = left
                else:
                    del self._stands[priority]
