"""How much happened, minute by minute and hour by hour.

Once a minute it is looked how far the bus has counted; nobody who tells it of an event does more
for that. What the last hour and the last month came to is in memory, so that asking reads no disk;
rows have it for the next start, and for longer. They are written soon, never at once, so that a
crash forgets a minute of counts, and a broken disk nothing once it is well again.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Final

import msgspec
import trio
from typing_extensions import override

from elemta.log import logger
from elemta.queue.errors import StoreUnavailable
from elemta.queue.operation import Call

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from elemta.queue.events import EventBus
    from elemta.queue.writer import Writer

log = logger(__name__)

MINUTE: Final = 60
HOUR: Final = 3600
DAY: Final = 86400
#: Seconds that rows are kept, by their step.
KEPT: Final = {MINUTE: 2 * DAY, HOUR: 400 * DAY}
#: Steps of each kind that are in memory: an hour and a month, and one that has just begun.
REMEMBERED: Final = {MINUTE: 61, HOUR: 31 * 24}

_READ: Final = "SELECT start, counts FROM statistics WHERE step = ? AND start > ?"
_WRITE: Final = "INSERT OR REPLACE INTO statistics (step, start, counts) VALUES (?, ?, ?)"

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(dict[str, int]).decode


class Counting:
    """Keeps what the bus counts.

    Args:
        events: the bus.
        connection: to read what is known already, now.
        writer: writes it.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        events: EventBus,
        connection: sqlite3.Connection,
        writer: Writer,
        clock: Callable[[], float],
    ) -> None:
        self._events = events
        self._writer = writer
        self._clock = clock
        self._seen = Counter(events.counts)
        #: By step, by start.
        self._counts: dict[int, dict[int, Counter[str]]] = {}
        self._changed: set[tuple[int, int]] = set()
        for step, many in REMEMBERED.items():
            rows = connection.execute(_READ, (step, _start(clock(), step) - many * step))
            self._counts[step] = {start: Counter(counts_of(record)) for start, record in rows}

    async def run(self) -> None:
        """Write once a minute what happened in it, until cancelled."""
        while True:
            began = self._clock()
            await trio.sleep(max(1.0, _start(began, MINUTE) + MINUTE - began))
            self._gather(began)
            try:
                if call := self._write():
                    await call.wait(abandonable=True)
            except StoreUnavailable as error:
                log.warning("statistics.put_off", reason=str(error))

    def flush(self) -> None:
        """Have all that is counted written; for the end."""
        self._gather(self._clock())
        self._write()

    def buckets(self, step: int, count: int) -> list[tuple[int, dict[str, int]]]:
        """How much happened in each of the last steps, the one that goes on included.

        Args:
            step: `MINUTE`, `HOUR` or `DAY`; days are those of UTC.
            count: of steps; an hour of minutes at most, a month of hours or days.

        Returns:
            The start of each, seconds since the epoch, and counts by the names of events in small
            letters; the oldest first.
        """
        now = self._clock()
        self._gather(now)
        last = _start(now, step)
        first = last - (count - 1) * step
        found = {start: Counter[str]() for start in range(first, last + step, step)}
        for start, counts in self._counts[min(step, HOUR)].items():
            if first <= start < last + step:
                found[_start(start, step)].update(counts)
        return [(start, dict(counts)) for start, counts in found.items()]

    def _gather(self, at: float) -> None:
        """Take over what the bus has counted since the last time, as of a time."""
        news = Counter(self._events.counts)
        news.subtract(self._seen)
        self._seen = Counter(self._events.counts)
        told = {name.lower(): count for name, count in news.items() if count}
        for step, known in self._counts.items():
            start = _start(at, step)
            if told:
                known.setdefault(start, Counter()).update(told)
                self._changed.add((step, start))
            oldest = start - REMEMBERED[step] * step
            for each in [each for each in known if each < oldest]:
                del known[each]

    def _write(self) -> Call | None:
        """Have what has changed written, all of each row, so that to do so again does no harm."""
        if not self._changed:
            return None
        changed, self._changed = self._changed, set[tuple[int, int]]()
        rows = [
            (step, start, _encode(dict(known)))
            for step, start in sorted(changed)
            if (known := self._counts[step].get(start)) is not None
        ]

        def write(connection: sqlite3.Connection) -> None:
            connection.executemany(_WRITE, rows)

        call = _Write(write, lambda: self._changed.update(changed))
        self._writer.submit(call)
        return call


class _Write(Call):
    """Nobody is held up by it; what is not written is written later."""

    urgent = False

    def __init__(
        self, function: Callable[[sqlite3.Connection], None], failed: Callable[[], object]
    ) -> None:
        super().__init__(function)
        self._not_written = failed

    @override
    def failed(self) -> None:
        self._not_written()


def counts_of(record: bytes) -> dict[str, int]:
    """From `statistics.counts`; what cannot be read counts for nothing: `check` tells of it."""
    try:
        return _decode(record)
    except msgspec.MsgspecError:
        return {}


def _start(time: float, step: int) -> int:
    """When the step began that a time is in."""
    return math.floor(time / step) * step
