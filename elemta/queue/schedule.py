"""What is tried when and where: pure, and told the time.

Ready recipients stand in lanes, one lane a destination. Lanes are served in turn. What is deferred
and in memory waits in a heap for its time.

A lane may be closed for a while: parked, since its destination does not answer; suspended by an
operator; or out of its rates. Of those who stand in it all but a few go back to disk, lest they
fill the memory that others need. What a lane has on disk it knows by key; it is asked for when the
lane has little left. What a closed lane has for too long is handed out once, not to be tried but
for the sender to be told.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from typing import TYPE_CHECKING, Final

from elemta.protocol import comparable_domain
from elemta.queue import overview
from elemta.queue.lane import ENOUGH, FEW, Lane, Stand
from elemta.queue.model import State
from elemta.queue.rate import unlimited
from elemta.queue.suspension import DOMAIN, Scopes

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Mapping

    from elemta.protocol import ReversePath
    from elemta.queue.backlog import Item
    from elemta.queue.destination import Census, Destination
    from elemta.queue.entry import Entry
    from elemta.queue.model import Destined, LaneOf, Message, Recipient
    from elemta.queue.rate import LaneLimits
    from elemta.queue.standing import Standing

#: Seconds between two looks at closed lanes, for what has no time left there.
LOOK: Final = 10.0


class Schedule:
    """Lanes, and what will be ready later.

    Args:
        lane: where a recipient stands. It is asked whenever one is to stand somewhere, and may say
            another thing each time: where one stands already is known by the name it had then.
        entries: the messages in memory, by key.
        word: when the sender of a recipient has to hear of it, though it cannot be tried; seconds
            since the epoch.
        limits: what may go to a lane.
        workers: how many workers there may be in all.

    Attributes:
        workers: how many there are.
        listed: lanes that may have work for one worker more, in turn; for who asks whether to
            `claim`.
        called: lanes that something new stands in; for who knows of idle workers there to clear.
        shelved: messages some of whose recipients were sent back to disk; for who can do it.
        hungry: lanes that want some of what they have on disk; for who can bring it.
    """

    def __init__(
        self,
        lane: LaneOf,
        entries: Mapping[int, Entry],
        *,
        word: Callable[[Message, Recipient], float],
        limits: Callable[[str], LaneLimits] = unlimited,
        workers: int = 500,
    ) -> None:
        self._route = self._lane = lane
        self._entries = entries
        self._word = word
        self._limits = limits
        self._most_workers = workers
        self._scopes = Scopes()
        self._suspended = False
        self.workers = 0
        self._lanes: dict[str, Lane] = {}
        self.listed: deque[Lane] = deque()
        self._watched: dict[str, Lane] = {}
        self._next_look = math.inf
        self._alarms: list[tuple[float, str]] = []
        self._deferred: list[tuple[float, int, int]] = []
        self.called: list[Lane] = []
        self.shelved: list[Entry] = []
        self.hungry: list[Lane] = []

    # In and out of lanes.

    def ready(
        self, entry: Entry, recipients: Iterable[Recipient], now: float, *, late: bool = False
    ) -> None:
        """These may be tried as soon as it is their turn.

        Args:
            entry: their message.
            recipients: some of it.
            now: seconds since the epoch.
            late: their time is over: they are given up, not tried.
        """
        stands, sender = entry.stands, entry.message.sender
        closed: list[tuple[Lane, Stand]] | None = None
        for recipient in recipients:
            name = self._lane(recipient, sender)
            stand = stands.get(name)
            if stand is not None:
                stand.recipients.append(recipient)
                continue
            stand = stands[name] = Stand(entry)
            stand.recipients.append(recipient)
            if late:
                stand.overdue = True
            lane = self._lanes.get(name)
            if lane is None:
                lane = self._make(name)
            if lane.closed:  # whether they stay there is asked of all of them together
                closed = closed or []
                closed.append((lane, stand))
            else:
                lane.add(stand)
                self._list(lane)
                self.called.append(lane)
        if closed is not None:
            self._stand_closed(closed, now)

    def _stand_closed(self, closed: list[tuple[Lane, Stand]], now: float) -> None:
        for lane, stand in closed:
            stand.overdue = stand.overdue or self._word_of(stand) <= now
            lane.add(stand)
            self._shelve(lane, FEW)
            self._list(lane)
            self.called.append(lane)

    def _make(self, name: str) -> Lane:
        lane = self._lanes[name] = Lane(name, self._limits(name))
        if self._suspended and (scope := self._scopes.of_lane(name)) is not None:
            lane.suspend(scope)
        if lane.closed or lane.meters is not None:
            self._watched[name] = lane
        return lane

    def defer(self, entry: Entry, recipient: Recipient) -> None:
        """This one is ready at its `due`, if it is still in memory then, and still deferred."""
        heapq.heappush(self._deferred, (recipient.due, entry.key, recipient.number))

    def withdraw(self, entry: Entry, numbers: Container[int] | None = None) -> list[Recipient]:
        """Take recipients of a message that are ready out of their lanes.

        Args:
            entry: their message.
            numbers: theirs; None: all of them.
        """
        withdrawn: list[Recipient] = []
        for name, stand in list(entry.stands.items()):
            lane = self._lanes[name]
            out, stay = _split(stand.recipients, numbers)
            withdrawn += out
            if stay:
                stand.recipients = stay
            else:
                lane.remove(stand)
                del entry.stands[name]
                self._feed(lane)
                self._tidy(lane)
        for name, recipients in list(entry.shelved.items()):
            out, stay = _split(recipients, numbers)
            withdrawn += out
            if stay:
                entry.shelved[name] = stay
            else:
                del entry.shelved[name]
        return withdrawn

    def lane_of(self, recipient: Destined, sender: ReversePath) -> str:
        """The name of the lane where a recipient's mail of a sender goes, suspended or not."""
        return self._route(recipient, sender)

    def astray(self, entry: Entry) -> set[int]:
        """Numbers of those who stand elsewhere than they would now: where lanes lead may change."""
        sender = entry.message.sender
        stood = [(name, stand.recipients) for name, stand in entry.stands.items()]
        stood += entry.shelved.items()
        return {
            each.number
            for name, recipients in stood
            for each in recipients
            if self._lane(each, sender) != name
        }

    # Between memory and disk.

    def wants(self, message: Message, recipients: Iterable[Recipient]) -> bool:
        """Whether some of these go where so little stands that they should be in memory."""
        for recipient in recipients:
            lane = self._lanes.get(self._lane(recipient, message.sender))
            if lane is None or lane.lacks(message.priority):
                return True
        return False

    def leave(self, entry: Entry, recipients: Iterable[Recipient]) -> None:
        """These are ready, but their message stays on disk until their lanes want it."""
        words: dict[str, float] = {}
        message = entry.message
        for recipient in recipients:
            name = self._lane(recipient, message.sender)
            words[name] = min(self._word(message, recipient), words.get(name, math.inf))
        for name, word in words.items():
            lane = self._lanes.get(name)
            if lane is None:
                lane = self._make(name)
            lane.shelve(message.priority, entry.key, word)
            self._feed(lane)

    def shed(self, recipients: int) -> None:
        """Send so many recipients back to disk, of those lanes in which the most stand."""
        for lane in sorted(self._lanes.values(), key=lambda each: each.ready, reverse=True):
            if recipients <= 0 or lane.ready <= ENOUGH:
                return
            recipients -= self._shelve(lane, max(ENOUGH, lane.ready // 2))

    def _shelve(self, lane: Lane, keep: int) -> int:
        """Send what stands in a lane back to disk, but for so many; returns how many recipients."""
        shelved = 0
        for stand in lane.overflow(keep):
            entry = stand.entry
            entry.shelved.setdefault(lane.name, []).extend(stand.recipients)
            del entry.stands[lane.name]
            lane.shelve(entry.message.priority, entry.key, self._word_of(stand))
            self.shelved.append(entry)
            shelved += len(stand.recipients)
        return shelved

    def unshelve(self, lane: Lane, most: int, now: float) -> list[Item]:
        """What this lane wants of what it has on disk. What is in memory stands again already.

        Until `fed` or `not_fed` it asks for no more.
        """
        items: list[Item] = []
        for item in lane.unshelve(most, now):
            entry = self._entries.get(item.key)
            if entry is None:
                items.append(item)
            elif (recipients := entry.shelved.pop(lane.name, None)) is not None:
                self.ready(entry, recipients, now)
        return items

    def fed(self, lane: Lane, now: float) -> None:
        """What a lane wanted is here, or has gone."""
        lane.asked = False
        self._feed(lane, now)
        self._tidy(lane)

    def not_fed(self, lane: Lane, items: Iterable[Item]) -> None:
        """What a lane wanted could not be read just now."""
        lane.put_on_shelf(items)
        self.fed(lane, -math.inf)

    def _feed(self, lane: Lane, now: float = -math.inf) -> None:
        """Say so if a lane wants something of what it has on disk."""
        if lane.backlog is not None and lane.wants(now):
            lane.asked = True
            self.hungry.append(lane)

    # Time.

    def wake(self, now: float) -> None:
        """Let those be ready whose time has come, and see which closed lanes may be tried."""
        while self._deferred and self._deferred[0][0] <= now:
            due, key, number = heapq.heappop(self._deferred)
            entry = self._entries.get(key)
            if entry is not None:
                recipient = entry.message.recipients[number]
                if recipient.state is State.DEFERRED and recipient.due == due:
                    recipient.state = State.READY
                    self.ready(entry, (recipient,), now)
        while self._alarms and self._alarms[0][0] <= now:
            lane = self._lanes.get(heapq.heappop(self._alarms)[1])
            if lane is not None:
                self._wake(lane, now)
        if self._watched and not now < self._next_look <= now + LOOK:
            self._next_look = now + LOOK
            for lane in list(self._watched.values()):
                self._wake(lane, now)
                if lane.forgettable(now):
                    self._forget(lane)

    def _wake(self, lane: Lane, now: float) -> None:
        lane.wake(now, self._word_of)
        self._attend(lane, now)

    def _attend(self, lane: Lane, now: float) -> None:
        """A lane is perhaps open, or closed, that was not so before."""
        if lane.closed:
            self._watched[lane.name] = lane
            time = min((each for each in lane.waits_until if each > now), default=None)
            if time is not None and time != lane.alarm:
                lane.alarm = time
                heapq.heappush(self._alarms, (time, lane.name))
            self._shelve(lane, FEW)
        elif lane.meters is None:
            self._watched.pop(lane.name, None)
        self._feed(lane, now)
        self._list(lane)
        self.called.append(lane)

    def next_wake(self, now: float) -> float:
        """When `wake` has something to do, seconds since the epoch; infinity if never."""
        first = self._deferred[0][0] if self._deferred else math.inf
        if self._alarms:
            first = min(first, self._alarms[0][0])
        return min(first, now + LOOK) if self._watched else first

    # Workers.

    def claim(self, now: float) -> Lane | None:
        """A lane with work and room for a worker, who is counted from now; None if there is none.

        Each lane in its turn.
        """
        while self.listed and self.workers < self._most_workers:
            lane = self.listed.popleft()
            lane.listed = False
            if lane.open:
                lane.workers += 1
                self.workers += 1
                if lane.meters is not None and lane.may_try:
                    lane.connect(now)
                    self._attend(lane, now)
                self._list(lane)
                return lane
        return None

    @property
    def crowded(self) -> bool:
        """Whether lanes with work wait for workers of other lanes."""
        if self.workers < self._most_workers:
            return False
        while self.listed and not self.listed[0].open:  # its work was taken meanwhile
            self.listed.popleft().listed = False
        return bool(self.listed)

    def take(self, lane: Lane, most: int, now: float) -> tuple[Entry, list[Recipient], bool] | None:
        """The next recipients of this lane, all of one message; None if there are none.

        Args:
            lane: from `claim`.
            most: so many at most; the others go next.
            now: seconds since the epoch.

        Returns:
            Their message, they, and whether they are overdue (`Work.overdue`).
        """
        metered = lane.meters is not None
        if metered:
            most = min(most, lane.allowance(now)) or most  # nothing: what is overdue may go
            self._attend(lane, now)
        stand = lane.take()
        if stand is None:
            return None
        entry, recipients = stand.entry, stand.recipients
        if len(recipients) > most:
            recipients, stand.recipients = recipients[:most], recipients[most:]
            lane.put_back(stand)
            self._list(lane)
        else:
            del entry.stands[lane.name]
        if metered and not stand.overdue:
            lane.count(len(recipients), now)
            self._attend(lane, now)
        if lane.backlog is not None:
            self._feed(lane, now)
        return entry, recipients, stand.overdue

    def release(self, lane: Lane) -> None:
        """A worker has left."""
        lane.workers -= 1
        self.workers -= 1
        if lane.ready:
            self._list(lane)
        elif not lane.workers:
            self._tidy(lane)

    def succeeded(self, lane: Lane) -> None:
        """The destination took something, as ever."""
        lane.succeeded()
        self._list(lane)

    def released(self, lane: Lane, now: float) -> None:
        """The destination took something, and was parked."""
        lane.succeeded()
        lane.release()
        self._attend(lane, now)

    def failed(self, lane: Lane, now: float, *, park: bool) -> bool:
        """The destination turned us away, or (`park`) did not answer at all.

        Returns:
            Whether it is parked from now on, and was not, or was being probed.
        """
        if not park:
            lane.failed()
            self._list(lane)
            return False
        parked = lane.park(now)
        if parked:
            lane.wake(now, self._word_of)
            self._attend(lane, now)
        return parked

    def _list(self, lane: Lane) -> None:
        if not lane.listed and lane.open:
            lane.listed = True
            self.listed.append(lane)

    def _tidy(self, lane: Lane) -> None:
        """Forget a lane that nothing is known of."""
        if lane.idle and self._lanes.get(lane.name) is lane:
            self._forget(lane)

    def _forget(self, lane: Lane) -> None:
        del self._lanes[lane.name]
        if self._watched:
            self._watched.pop(lane.name, None)

    def _word_of(self, stand: Stand) -> float:
        """When the sender of what stands here has to hear of it."""
        message = stand.entry.message
        return min(self._word(message, each) for each in stand.recipients)

    # What people decide.

    def reroute(self, lane: LaneOf | None, now: float) -> None:
        """From now on lanes are these; so for what is ready already, and in memory.

        Where they are as before (None), what is on disk has to be found again all the same.
        """
        self._route = lane or self._route
        self._settle_anew(now)

    def limit(self, limits: Callable[[str], LaneLimits], now: float) -> None:
        """From now on these limits hold."""
        self._limits = limits
        for lane in list(self._lanes.values()):
            lane.limit(limits(lane.name))
            if lane.meters is not None:
                self._watched[lane.name] = lane
            self._attend(lane, now)
            self._tidy(lane)

    def suspend(self, scopes: Scopes, now: float) -> bool:
        """From now on this is suspended. Whether lanes are others now, as by `reroute`."""
        before, self._scopes = self._scopes, scopes
        self._suspended = scopes != Scopes()
        for lane in list(self._lanes.values()):
            scope = scopes.of_lane(lane.name)
            if scope != lane.suspended:
                lane.suspend(scope)
                self._attend(lane, now)
                self._tidy(lane)
        if before.domains == scopes.domains:
            return False
        self._settle_anew(now)
        return True

    def _settle_anew(self, now: float) -> None:
        """Stand all that is ready where it belongs now. What is on disk has to be found again."""
        self._lane = self._lane_or_domain if self._scopes.domains else self._route
        for lane in self.hungry:
            lane.asked = False
        self.hungry.clear()
        stands: list[Stand] = []
        for lane in list(self._lanes.values()):
            stands += lane.drain()
            lane.backlog = None
            self._tidy(lane)
        for stand in stands:
            stand.entry.stands.clear()
        for stand in stands:
            self.ready(stand.entry, stand.recipients, now)
        for entry in self._entries.values():
            if entry.shelved:
                shelved, entry.shelved = entry.shelved, {}
                for recipients in shelved.values():
                    self.ready(entry, recipients, now)

    def _lane_or_domain(self, recipient: Destined, sender: ReversePath) -> str:
        """The lane of a recipient; of one whose domain is suspended, a lane of that domain."""
        domain = comparable_domain(recipient.address.domain)
        if domain in self._scopes.domains:
            return DOMAIN + domain
        return self._route(recipient, sender)

    def probe(self, name: str, now: float) -> bool:
        """Let a parked lane be tried now; whether there is such a one."""
        lane = self._lanes.get(name)
        if lane is None or lane.parked_until is None:
            return False
        lane.parked_until = min(lane.parked_until, now)
        self._wake(lane, now)
        return True

    def note(self, name: str, error: str) -> None:
        """What was said last when an attempt in this lane failed."""
        lane = self._lanes.get(name)
        if lane is not None:
            lane.error = error

    # How it stands, for people.

    def census(self) -> Census:
        """How many lanes there are, without a picture of each."""
        return overview.census(self._lanes.values(), self.workers)

    def standings(self, entry: Entry) -> dict[int, Standing]:
        """Where the recipients of a message are that are ready, by their numbers."""
        return overview.standings(entry, self._lanes, self._route)

    def destinations(self) -> list[Destination]:
        """How it stands with each lane."""
        return overview.destinations(self._lanes.values())


def _split(
    recipients: list[Recipient], numbers: Container[int] | None
) -> tuple[list[Recipient], list[Recipient]]:
    """Those with these numbers, and the others."""
    if numbers is None:
        return recipients, []
    return (
        [each for each in recipients if each.number in numbers],
        [each for each in recipients if each.number not in numbers],
    )
