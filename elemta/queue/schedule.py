"""What is tried when and where: pure, and told the time.

Ready recipients stand in lanes, one lane a destination. Lanes are served in turn. What is deferred
and in memory waits in a heap for its time. A lane whose destination does not answer is parked: all
but a few of those who stand in it are put off, lest they fill the memory that others need.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from elemta.queue.lane import FIRST, MOST, Lane, Stand
from elemta.queue.model import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from elemta.protocol import Mailbox
    from elemta.queue.entry import Entry
    from elemta.queue.model import Recipient

#: Stands that stay in a parked lane, to probe it with.
PARKED: Final = 50
#: Seconds between two looks at the parked lanes.
LOOK: Final = 10.0


class PutOff(NamedTuple):
    """Some recipients of a message that shall not wait in memory."""

    entry: Entry
    recipients: list[Recipient]
    #: Not before this, seconds since the epoch.
    until: float


class Schedule:
    """Lanes, and what will be ready later.

    Args:
        lane: where a recipient stands.
        entries: the messages in memory, by key.
        workers: how many workers there may be in all.
        first, most: how many in one lane, at first and at most.

    Attributes:
        workers: how many there are.
        called: lanes that something new stands in; for who knows of idle workers there to clear.
        put_off: what was put off since it was last cleared.
    """

    def __init__(
        self,
        lane: Callable[[Mailbox], str],
        entries: Mapping[int, Entry],
        *,
        workers: int = 500,
        first: int = FIRST,
        most: int = MOST,
    ) -> None:
        self._lane = lane
        self._entries = entries
        self._most_workers = workers
        self._window = (first, most)
        self.workers = 0
        self._lanes: dict[str, Lane] = {}
        self._listed: deque[Lane] = deque()
        self._parked: dict[str, Lane] = {}
        self._deferred: list[tuple[float, int, int]] = []
        self.called: list[Lane] = []
        self.put_off: list[PutOff] = []

    def ready(self, entry: Entry, recipients: Iterable[Recipient], now: float) -> None:
        """These may be tried as soon as it is their turn."""
        stands = entry.stands
        for recipient in recipients:
            name = self._lane(recipient.address)
            stand = stands.get(name)
            if stand is None:
                stand = stands[name] = Stand(entry)
                stand.recipients.append(recipient)
                self._stand(name, stand, now)
            else:
                stand.recipients.append(recipient)

    def _stand(self, name: str, stand: Stand, now: float) -> None:
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = Lane(name, *self._window)
        lane.add(stand)
        if lane.parked_until is not None:
            self._put_off(lane)
        self._list(lane)
        self.called.append(lane)

    def defer(self, entry: Entry, recipient: Recipient) -> None:
        """This one is ready at its `due`, if it is still in memory then, and still deferred."""
        heapq.heappush(self._deferred, (recipient.due, entry.key, recipient.number))

    def wake(self, now: float) -> None:
        """Let those be ready whose time has come, and see which parked lanes may be probed."""
        while self._deferred and self._deferred[0][0] <= now:
            due, key, number = heapq.heappop(self._deferred)
            entry = self._entries.get(key)
            if entry is not None:
                recipient = entry.message.recipients[number]
                if recipient.state is State.DEFERRED and recipient.due == due:
                    recipient.state = State.READY
                    self.ready(entry, (recipient,), now)
        for lane in list(self._parked.values()):
            lane.wake(now)
            self._list(lane)
            if lane.forgettable(now):
                del self._parked[lane.name], self._lanes[lane.name]

    def next_wake(self, now: float) -> float:
        """When `wake` has something to do, seconds since the epoch; infinity if never."""
        first = self._deferred[0][0] if self._deferred else math.inf
        return min(first, now + LOOK) if self._parked else first

    def claim(self) -> Lane | None:
        """A lane with work and room for a worker, who is counted from now; None if there is none.

        Each lane in its turn.
        """
        while self._listed and self.workers < self._most_workers:
            lane = self._listed.popleft()
            lane.listed = False
            if lane.open:
                lane.workers += 1
                self.workers += 1
                self._list(lane)
                return lane
        return None

    @property
    def crowded(self) -> bool:
        """Whether lanes with work wait for workers of other lanes."""
        if self.workers < self._most_workers:
            return False
        while self._listed and not self._listed[0].open:  # its work was taken meanwhile
            self._listed.popleft().listed = False
        return bool(self._listed)

    def take(self, lane: Lane, most: int) -> tuple[Entry, list[Recipient]] | None:
        """The next recipients of this lane, all of one message; None if there are none.

        Args:
            lane: from `claim`.
            most: so many at most; the others go next.
        """
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
        return entry, recipients

    def release(self, lane: Lane) -> None:
        """A worker has left."""
        lane.workers -= 1
        self.workers -= 1
        self._list(lane)
        if lane.idle and self._lanes.get(lane.name) is lane:
            del self._lanes[lane.name]

    def succeeded(self, lane: Lane) -> None:
        """The destination took something."""
        lane.succeeded()
        self._parked.pop(lane.name, None)
        self._list(lane)

    def failed(self, lane: Lane, now: float, *, park: bool) -> None:
        """The destination turned us away, or (`park`) did not answer at all."""
        if park:
            lane.park(now)
            self._parked[lane.name] = lane
            lane.wake(now)
            self._put_off(lane)
        else:
            lane.failed()
        self._list(lane)

    def standing(self, address: Mailbox) -> int:
        """How many stand in the lane of this recipient."""
        lane = self._lanes.get(self._lane(address))
        return lane.ready if lane is not None else 0

    def withdraw(self, entry: Entry) -> list[Recipient]:
        """Take all recipients of a message that are ready out of their lanes."""
        withdrawn: list[Recipient] = []
        for name, stand in entry.stands.items():
            self._lanes[name].remove(stand)
            withdrawn += stand.recipients
        entry.stands.clear()
        return withdrawn

    def reroute(self, lane: Callable[[Mailbox], str], now: float) -> None:
        """From now on lanes are these; so for what is ready already."""
        self._lane = lane
        stands = [stand for each in self._lanes.values() for stand in each.drain()]
        for stand in stands:
            stand.entry.stands.clear()
        for stand in stands:
            self.ready(stand.entry, stand.recipients, now)

    def _list(self, lane: Lane) -> None:
        if not lane.listed and lane.open:
            lane.listed = True
            self._listed.append(lane)

    def _put_off(self, lane: Lane) -> None:
        assert lane.parked_until is not None, "only a parked lane puts off"
        for stand in lane.overflow(PARKED):
            del stand.entry.stands[lane.name]
            self.put_off.append(PutOff(stand.entry, stand.recipients, lane.parked_until))
