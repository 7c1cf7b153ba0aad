"""Which messages stand in memory: those that can be tried now or very soon, up to a limit.

All others wait in the store, and are found by two cursors, of which this is always true: no message
on disk alone has a key (if nothing of it was settled yet) or a due time (otherwise) below its
cursor, but for those whose keys a lane knows (`Backlog`). Loading raises a cursor; sending back to
disk what no lane knows lowers one.

Loading does not end where memory is full: who stands in a clogged lane must not hide those behind
it. What it passes then is left on disk, and known to its lanes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from elemta.queue.model import State

if TYPE_CHECKING:
    from elemta.queue.entry import Entry

#: Recipients in memory.
LIMIT: Final = 20_000
#: Seconds before it is due that a deferred recipient is loaded.
AHEAD: Final = 30.0
#: Messages that one load brings.
LOAD: Final = 250

#: Above every key.
NO_KEY: Final = 1 << 62


class Cursors(Struct, frozen=True):
    """Where loading goes on.

    Attributes:
        key: messages of phase WHOLE from here on (this one not included).
        due: recipients of others: due time and key, this one not included.
    """

    key: int
    due: tuple[float, int]


_START: Final = Cursors(-1, (-math.inf, -1))
_END: Final = Cursors(NO_KEY, (math.inf, NO_KEY))


class Window:
    """The messages in memory, and where the others begin.

    Args:
        limit: recipients that are loaded at most. One message may reach over it; so may new mail
            for lanes in which little stands, so that a clogged lane never holds up the others.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.entries: dict[int, Entry] = {}
        self._limit = limit
        self._load = 0
        self._cursors = _START
        self._loading = False

    @property
    def full(self) -> bool:
        """Whether only that should come which goes where little stands."""
        return self._load >= self._limit

    @property
    def overfull(self) -> bool:
        """Whether not even mail for an empty lane should come."""
        return self._load >= 2 * self._limit

    @property
    def excess(self) -> int:
        """So many recipients should leave once it is overfull, lest it be so again at once."""
        return self._load - self._limit - self._limit // 2

    def add(self, entry: Entry) -> None:
        """This message stands in memory from now on."""
        self.entries[entry.key] = entry
        self._load += len(entry.message.recipients)

    def forget(self, entry: Entry) -> None:
        """This message is finished."""
        if self.entries.pop(entry.key, None) is not None:
            self._load -= len(entry.message.recipients)

    def spill(self, entry: Entry) -> None:
        """This message goes on on disk alone. All that is known of it has been written.

        What is ready of it, lanes know; what is deferred is found when it is due.
        """
        self.forget(entry)
        if (due := next_due(entry)) < math.inf:
            cursors = self._cursors
            self._cursors = Cursors(cursors.key, min(cursors.due, (due, entry.key - 1)))

    def finds(self, key: int) -> bool:
        """Whether loading will come to a message that nothing was settled of."""
        return not self._loading and self._cursors.key < key

    @property
    def searched(self) -> bool:
        """Whether loading has come to the end of these."""
        return not self._loading and self._cursors.key == NO_KEY

    def find(self, key: int) -> None:
        """Load this message, and what came after it, again."""
        self._cursors = Cursors(min(self._cursors.key, key - 1), self._cursors.due)

    def restart(self) -> None:
        """Load everything again: lanes are others now."""
        self._cursors = _START

    def wants(self, now: float) -> bool:
        """Whether something should be loaded now."""
        return (
            not self._loading
            and not self.overfull
            and (self._cursors.key < NO_KEY or self._cursors.due[0] <= now + AHEAD)
        )

    def next_load(self) -> float:
        """When something has to be loaded, seconds since the epoch, if there is room then."""
        if self._loading or self.overfull:
            return math.inf
        return -math.inf if self._cursors.key < NO_KEY else self._cursors.due[0] - AHEAD

    def begin_load(self) -> Cursors:
        """Load from here. What is spilled meanwhile lowers the cursors as ever."""
        begin, self._cursors = self._cursors, _END
        self._loading = True
        return begin

    def end_load(self, reached: Cursors) -> None:
        """All below these cursors was loaded; or none, if it is what `begin_load` said."""
        self._loading = False
        lower = self._cursors
        self._cursors = Cursors(min(lower.key, reached.key), min(lower.due, reached.due))


def next_due(entry: Entry) -> float:
    """When the first of a message's deferred recipients is due; infinity if there are none."""
    return min(
        (each.due for each in entry.message.recipients if each.state is State.DEFERRED),
        default=math.inf,
    )
