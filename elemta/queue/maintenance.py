"""What goes on in the background: old history goes, and files that nobody owns, and free space."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import trio
from msgspec import Struct

from elemta.log import logger
from elemta.queue.counting import KEPT
from elemta.queue.errors import StoreUnavailable
from elemta.queue.ids import first_key, key_of
from elemta.queue.operation import Call
from elemta.queue.records import decode_message
from elemta.queue.schema import PAGE

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from elemta.queue.store import Store
    from elemta.queue.writer import Writer

log = logger(__name__)

#: Seconds between two rounds.
ROUND: Final = 60.0
#: The same while nothing is finished: history grows old even so.
SELDOM: Final = 3600.0
#: Rows, files or pages of one step: a few milliseconds, as mail waits meanwhile.
STEP: Final = 200
#: Free pages that the database keeps, as more mail will come: 16 MiB.
SLACK: Final = 2048
#: How long keys are remembered that messages came with, in seconds; and how many are at most.
RECEIPT_AGE: Final = 7 * 86400.0
RECEIPTS: Final = 100_000

_OLD: Final = """
    SELECT key FROM message WHERE key < ? AND phase >= 2
    AND NOT EXISTS (SELECT 1 FROM scheduled WHERE scheduled.key = message.key AND due >= ?)
    ORDER BY key LIMIT ?
"""
_FORGET_RECEIPTS: Final = """
    DELETE FROM receipt WHERE key IN (SELECT key FROM receipt WHERE at < ? ORDER BY at LIMIT ?)
"""

_FORGET_STATISTICS: Final = """
    DELETE FROM statistics WHERE step = ? AND start IN (
      SELECT start FROM statistics WHERE step = ? AND start < ? ORDER BY start LIMIT ?)
"""


class HistoryLimits(Struct, frozen=True, kw_only=True):
    """How much of what is finished is remembered.

    Attributes:
        age: seconds since the message came in, or was to be tried first; at least a day more than
            its lifetime, as what has just ended must be found.
        count: messages. A million takes about 700 MB of disk.
    """

    age: float = 7 * 86400.0
    count: int = 1_000_000


class Maintenance:
    """Prunes and sweeps, in small steps between which mail goes on.

    Args:
        lifetime: of a message in the queue, seconds.
    """

    def __init__(
        self,
        store: Store,
        writer: Writer,
        clock: Callable[[], float],
        limits: HistoryLimits,
        lifetime: float,
    ) -> None:
        self._store = store
        self._writer = writer
        self._clock = clock
        self._age = max(limits.age, lifetime + 86400.0)
        self._count = limits.count
        store.bodies.sweep()
        self._files = store.bodies.ids()  # of before this process: none of them is on its way in
        self._free = 0
        self._went = -math.inf
        self._history = -1

    def reusable(self) -> int:
        """Octets that are free inside the database file, as of the last round."""
        return self._free

    async def run(self) -> None:
        """Go round once a minute, or seldom if nothing happens, until cancelled."""
        while True:
            now, history = self._clock(), self._store.history
            if history != self._history or not 0 <= now - self._went < SELDOM:
                try:
                    await self._round()
                    self._went, self._history = now, history
                except StoreUnavailable as error:
                    log.warning("maintenance.put_off", reason=str(error))
            await trio.sleep(ROUND)

    async def _round(self) -> None:
        while self._files:
            await self._step(self._sweep)
        while (pruned := await self._step(self._prune)) > 0:
            self._store.history -= pruned
        while await self._step(self._prune_receipts) > 0:
            pass
        while await self._step(self._prune_statistics) > 0:
            pass
        while await self._step(self._shrink) > 0:
            pass
        await self._step(self._take_stock)

    async def _step(self, function: Callable[[sqlite3.Connection], int]) -> int:
        done: list[int] = []
        call = Call(lambda connection: done.append(function(connection)))
        call.urgent = False
        self._writer.submit(call)
        await call.wait(abandonable=True)
        return done[-1]

    def _sweep(self, connection: sqlite3.Connection) -> int:
        """Remove files whose messages are finished, or never were."""
        some, rest = self._files[:STEP], self._files[STEP:]
        for id in some:  # noqa: A001 # the word of people
            row: tuple[bytes] | None = connection.execute(
                "SELECT record FROM message WHERE key = ? AND phase < 2", (key_of(id),)
            ).fetchone()
            if row is None or decode_message(row[0]).id != id:
                self._store.bodies.remove(id)
        self._files = rest
        return len(some)

    def _prune(self, connection: sqlite3.Connection) -> int:
        """Forget the oldest of what is finished, as far as there is too much of it."""
        too_many = min(STEP, max(0, self._store.history - self._count))
        oldest = self._clock() - self._age
        keys = _column(connection, _OLD, (first_key(oldest), oldest, STEP))
        if len(keys) < too_many:
            keys = _column(
                connection,
                "SELECT key FROM message WHERE phase >= 2 ORDER BY key LIMIT ?",
                (too_many,),
            )
        rows = [(key,) for key in keys]
        connection.executemany("DELETE FROM attempt WHERE key = ?", rows)
        connection.executemany("DELETE FROM note WHERE key = ?", rows)
        connection.executemany("DELETE FROM scheduled WHERE key = ?", rows)
        connection.executemany("DELETE FROM message WHERE key = ?", rows)
        return len(keys)

    def _prune_receipts(self, connection: sqlite3.Connection) -> int:
        """Forget keys that nobody will come with any more, and the oldest if they are too many."""
        (count,) = _column(connection, "SELECT count(*) FROM receipt", ())
        known: tuple[float] | None = connection.execute(
            "SELECT at FROM receipt ORDER BY at LIMIT 1 OFFSET ?", (max(0, count - RECEIPTS),)
        ).fetchone()
        oldest = self._clock() - RECEIPT_AGE
        before = oldest if known is None else max(oldest, known[0])
        return connection.execute(_FORGET_RECEIPTS, (before, STEP)).rowcount

    def _prune_statistics(self, connection: sqlite3.Connection) -> int:
        """Forget how much happened long ago."""
        now = self._clock()
        return sum(
            connection.execute(_FORGET_STATISTICS, (step, step, now - age, STEP)).rowcount
            for step, age in KEPT.items()
        )

    def _shrink(self, connection: sqlite3.Connection) -> int:
        """Give free pages back to the disk."""
        excess = _free_pages(connection) - SLACK
        if excess <= 0:
            return 0
        for _ in range(min(STEP, excess)):  # Python lets this statement free one page, no more
            connection.execute("PRAGMA incremental_vacuum(1)")
        return excess + SLACK - _free_pages(connection)

    def _take_stock(self, connection: sqlite3.Connection) -> int:
        self._free = _free_pages(connection) * PAGE
        self._store.write_tally()
        return 0


def _free_pages(connection: sqlite3.Connection) -> int:
    found: tuple[int] = connection.execute("PRAGMA freelist_count").fetchone()
    return found[0]


def _column(connection: sqlite3.Connection, query: str, values: tuple[float, ...]) -> list[int]:
    rows: list[tuple[int]] = connection.execute(query, values).fetchall()
    return [key for (key,) in rows]
