"""What a plugin remembers over restarts: rows in memory, written to a small SQLite file behind it.

The rules of this file:

- No hook waits for a disk: rows are read from memory, where all of them are, and changes are
  written some at a time by a thread. What the last second or two changed may be lost in a crash.
- It is bounded: a book has so many rows, and those that mean least are dropped for new ones.
- A file that cannot be read is put aside, and the plugin begins anew: it knows guesses, and mail
  must not wait for them. One that must not be read or written is a mistake of whoever set up the
  machine, and keeps the server from starting. A full or dying disk is neither: all goes on in
  memory, and is written once that works again.

Each node has its own file, so each knows what it has seen itself.
"""

from __future__ import annotations

import math
import sqlite3
import threading
from contextlib import suppress
from hashlib import blake2b
from itertools import islice
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeAlias, TypeVar

import msgspec
import trio
from msgspec import Struct

from elemta.log import logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from elemta.plugins.tools import Tools

log = logger(__name__)

#: What the file is called, in the plugin's folder.
FILE: Final = "ledger.sqlite"
#: Seconds between two batches, and at most between two when the disk fails.
EVERY: Final = 1.0
PATIENCE: Final = 60.0
#: Seconds between two looks for what means nothing any more, if there may be some; and at most.
PRUNING: Final = 60.0
SELDOM: Final = 3600.0
#: Rows that are written at a time.
BATCH: Final = 5000
#: Octets of a key that is kept as it is; of a longer one a hash is.
LONGEST: Final = 40

_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS rows (
  book TEXT NOT NULL, key BLOB NOT NULL, until REAL NOT NULL, row BLOB NOT NULL,
  PRIMARY KEY (book, key)
) WITHOUT ROWID
"""
_PUT: Final = """
INSERT INTO rows (book, key, until, row) VALUES (?, ?, ?, ?)
ON CONFLICT (book, key) DO UPDATE SET until = excluded.until, row = excluded.row
"""
#: What is wrong with the disk, and may be well again.
_DISK: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM})
#: What is wrong with the file, and will not.
_FILE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR})


class Row(Struct, array_like=True):
    """Base of what a book has of one key.

    Attributes:
        until: when it means nothing any more, seconds since the epoch. Of too many rows those go
            first that would go first anyway.
    """

    until: float


R = TypeVar("R", bound=Row)


def short(*words: str) -> bytes:
    """A key of bounded length: a client can choose names as long as it likes."""
    key = "\n".join(words).encode("utf-8", "surrogatepass")
    return key if len(key) <= LONGEST else blake2b(key, digest_size=16).digest()


class Pages(Protocol):
    """What a ledger knows of a book, whatever is in it.

    Attributes:
        changed: keys whose rows the disk does not know, or does not know to be gone.
        stir: called when there are some, after there were none.
    """

    changed: set[bytes]
    stir: Callable[[], None]

    @property
    def most(self) -> int:
        """How many rows it has at most."""
        ...

    def snapshot(self, keys: Iterable[bytes]) -> list[tuple[bytes, Row | None]]:
        """What is there of these keys just now."""
        ...

    def fill(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Take in what the disk has. What another version wrote is passed over."""
        ...

    def prune(self, now: float) -> float:
        """Drop what means nothing any more; returns when the next one does, infinity if none."""
        ...

    def resize(self, most: int) -> None:
        """Have another bound from now on."""
        ...


class Book(Generic[R]):
    """Rows by key, of one kind. Belongs to the loop.

    Args:
        kind: of rows.
        most: how many there may be.

    Attributes:
        changed, stir: see `Pages`.
        rows: all of them; to be read only.
        crowded: how many were dropped to make room for others.
    """

    def __init__(self, kind: type[R], most: int) -> None:
        self.changed: set[bytes] = set()
        self.stir: Callable[[], None] = _nothing
        self.rows: dict[bytes, R] = {}
        self.crowded = 0
        self._most = most
        self._decoder = msgspec.msgpack.Decoder(kind)

    def get(self, key: bytes) -> R | None:
        """What is known."""
        return self.rows.get(key)

    def put(self, key: bytes, row: R) -> None:
        """A new row, or one that has changed."""
        before = self.rows.get(key)
        if before is None:
            if len(self.rows) >= self._most:
                self._make_room()
            self.entered(row)
        elif before is not row:
            self.left(before)
            self.entered(row)
        self.rows[key] = row
        self._change(key)

    def drop(self, key: bytes) -> None:
        """A row that means nothing any more; it need not be there."""
        row = self.rows.pop(key, None)
        if row is not None:
            self._change(key)
            self.left(row)

    def entered(self, row: R) -> None:
        """For books that keep count of what is in them: a row came."""

    def left(self, row: R) -> None:
        """See `entered`: it went, for whatever reason."""

    def expired(self, row: R) -> None:
        """For books that want to know: a row's time was over."""

    def _change(self, key: bytes) -> None:
        changed = self.changed
        if not changed:
            self.stir()
        changed.add(key)
        if len(changed) > 2 * self._most:
            # The disk fails, or is slow. What it has too much goes when its time is over.
            changed.intersection_update(self.rows)

    def _make_room(self) -> None:
        """Drop those that would go first: about a sixteenth, so that it is seldom done.

        Some 10 ms for 100,000 rows; sorting them all would take ten times as long.
        """
        rows = self.rows
        step = max(1, len(rows) // 1000)
        sample = sorted(row.until for row in islice(rows.values(), 0, None, step))
        edge = sample[len(sample) // 16]
        going = (key for key, row in rows.items() if row.until <= edge)
        for key in list(islice(going, max(1, len(rows) // 8))):
            self.drop(key)
            self.crowded += 1

    # For the ledger.

    @property
    def most(self) -> int:
        """See `Pages`."""
        return self._most

    def snapshot(self, keys: Iterable[bytes]) -> list[tuple[bytes, Row | None]]:
        """See `Pages`."""
        return [(key, self.rows.get(key)) for key in keys]

    def fill(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """See `Pages`."""
        for key, octets in rows:
            with suppress(msgspec.DecodeError):
                row = self.rows[key] = self._decoder.decode(octets)
                self.entered(row)

    def prune(self, now: float) -> float:
        """See `Pages`."""
        over = [(key, row) for key, row in self.rows.items() if row.until <= now]
        for key, row in over:
            self.drop(key)
            self.expired(row)
        return min((row.until for row in self.rows.values()), default=math.inf)

    def resize(self, most: int) -> None:
        """See `Pages`."""
        self._most = most
        while len(self.rows) > most:
            self._make_room()


def _nothing() -> None:
    """Nobody wants to know."""


B = TypeVar("B", bound=Pages)


class Ledger:
    """The books of one plugin, and the file behind them.

    All entries of one name have one, and so have those before and after a reload, which overlap::

        self._ledger = self.tools.shared.of(Ledger)
        await self._ledger.open(self.tools)  # in `start`
        self._seen = await self._ledger.book("seen", Book(Seen, 10_000))
        await self._ledger.run()  # in `run`
        await self._ledger.close()  # in `stop`, also if `start` has failed

    Attributes:
        failure: why changes cannot be written just now; empty: they can.
    """

    def __init__(self) -> None:
        self.failure = ""
        self._books: dict[str, Pages] = {}
        self._users = 0
        self._file: _File | None = None
        self._tools: Tools | None = None
        self._turn = trio.Lock()
        self._stirred = trio.Event()

    async def open(self, tools: Tools) -> None:
        """Read the file, or make it.

        Args:
            tools: of the plugin.

        Raises:
            OSError, sqlite3.Error: it must not be read or written, or somebody else has it.
        """
        async with self._turn:
            if not self._users:
                self._tools = tools
                file = _File(tools.folder / FILE, tools.name)
                self.failure = await tools.in_thread(lambda: file.open(tools.clock()))
                if self.failure:
                    log.error("ledger.failed", plugin=tools.name, error=self.failure)
                self._file = file
            self._users += 1

    async def book(self, name: str, new: B) -> B:
        """A book of this ledger.

        Args:
            name: which one.
            new: what it is if it is not there yet: the rows on disk are read into it. If it is
                there, it gets the bound of this one.
        """
        known = self._books.get(name)
        if known is not None and isinstance(known, type(new)):
            known.resize(new.most)
            return known
        assert self._file is not None, "`open` comes first"
        assert self._tools is not None
        file, now = self._file, self._tools.clock()
        new.fill(await self._tools.in_thread(lambda: file.read(name, new.most, now)))
        self._books[name] = new
        new.stir = self._stir
        if new.changed:
            self._stir()
        return new

    async def run(self, also: Callable[[], None] | None = None) -> None:
        """Write what changes, and forget what means nothing any more; never returns.

        Args:
            also: called when something has changed, and a second is over.
        """
        tools = self._tools
        assert tools is not None, "`open` comes first"
        pause, prune_at = EVERY, tools.clock() + PRUNING
        while True:
            now = tools.clock()
            if not self._changed:
                # Who has nothing to do sleeps; but if the clock is set, that must be noticed.
                with trio.move_on_after(min(max(prune_at - now, 0.0), SELDOM)):
                    await self._stirred.wait()
            await trio.sleep(pause)  # what else changes meanwhile is written with it
            now = tools.clock()
            if now >= prune_at or prune_at > now + SELDOM:
                soonest = min((each.prune(now) for each in self._books.values()), default=math.inf)
                prune_at = min(max(soonest, now + PRUNING), now + SELDOM)
            elif self._changed:
                prune_at = min(prune_at, now + PRUNING)
            pause = EVERY if await self.write() else min(2 * pause, PATIENCE)
            if also is not None:
                also()

    @property
    def _changed(self) -> bool:
        return any(each.changed for each in self._books.values())

    def _stir(self) -> None:
        self._stirred.set()
        self._stirred = trio.Event()

    async def close(self) -> None:
        """Write what there is, and close the file; once nobody uses it. May come without `open`."""
        async with self._turn:
            if not self._users:
                return
            self._users -= 1
            file, tools = self._file, self._tools
            if self._users or file is None or tools is None:
                return
            while self._changed:
                if not await self.write():
                    break
            self._books.clear()
            self._file = self._tools = None
            await tools.in_thread(file.close)

    async def write(self) -> bool:
        """Write a batch now. Returns whether that went well."""
        file, tools = self._file, self._tools
        if file is None or tools is None:
            return True
        batch: list[_Line] = []
        taken: list[tuple[Pages, list[bytes]]] = []
        for name, book in self._books.items():
            keys = list(islice(book.changed, BATCH - len(batch)))
            book.changed.difference_update(keys)
            taken.append((book, keys))
            batch += [(name, key, row) for key, row in book.snapshot(keys)]
        if not batch:
            return True
        now, failure = tools.clock(), "cancelled"
        try:
            failure = await tools.in_thread(lambda: file.write(batch, now))
        finally:
            if failure:  # whether it was written nobody knows: twice does no harm
                for book, keys in taken:
                    book.changed.update(keys)
        if failure and not self.failure:
            log.error("ledger.failed", plugin=tools.name, error=failure)
        elif self.failure and not failure:
            log.info("ledger.recovered", plugin=tools.name)
        self.failure = failure
        return not failure


#: A book, a key, and what stands there; None: nothing.
_Line: TypeAlias = "tuple[str, bytes, Row | None]"


class _File:
    """The file. Its methods block; each may be called in any thread."""

    def __init__(self, path: Path, plugin: str) -> None:
        self._path = path
        self._plugin = plugin
        self._lock = threading.Lock()  # who was cancelled may still be writing
        self._connection: sqlite3.Connection | None = None
        self._encode = msgspec.msgpack.Encoder().encode
        self._ready = False
        self._swept = 0.0

    def open(self, now: float) -> str:
        """Open it. Returns what is wrong with the disk; empty: nothing.

        Raises:
            OSError, sqlite3.Error: see `Ledger.open`.
        """
        with self._lock:
            try:
                return self._open(now)
            except sqlite3.Error as error:
                self._disconnect()
                if _code(error) not in _FILE:
                    raise
                self._put_aside(error)
                return self._open(now)

    def _open(self, now: float) -> str:
        self._disconnect()
        connection = self._connection = sqlite3.connect(
            self._path, timeout=2.0, check_same_thread=False
        )
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version not in (0, _VERSION):
                raise sqlite3.DatabaseError(f"a file of version {version}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(_SCHEMA)
            connection.execute(f"PRAGMA user_version = {_VERSION}")
            self._sweep(now)
            # Whether it is sound is found out now, when it can still be put aside.
            (sound,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if sound != "ok":
                raise sqlite3.DatabaseError(f"{sound}")
        except sqlite3.Error as error:
            if _code(error) not in _DISK:
                raise
            return str(error)
        self._ready = True
        return ""

    def _put_aside(self, why: Exception) -> None:
        """Keep what cannot be read for somebody to look at, and begin anew."""
        aside = self._path.with_name(f"{self._path.name}.unreadable")
        log.error(
            "ledger.unreadable",
            plugin=self._plugin,
            error=str(why),
            kept=str(aside),
        )
        self._path.replace(aside)
        for suffix in ("-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)

    def read(self, book: str, most: int, now: float) -> list[tuple[bytes, bytes]]:
        """The rows of a book that mean something, at most so many; none if the disk fails."""
        with self._lock:
            connection = self._connection
            if connection is None or not self._ready:
                return []
            try:
                found = connection.execute(
                    "SELECT key, row, until FROM rows WHERE book = ? AND until > ?"
                    " ORDER BY until DESC LIMIT ?",
                    (book, now, most),
                ).fetchall()
                if len(found) == most:
                    last: float = found[-1][2]
                    with connection:
                        connection.execute(
                            "DELETE FROM rows WHERE book = ? AND until < ?", (book, last)
                        )
            except sqlite3.Error as error:
                log.exception("ledger.failed", plugin=self._plugin, error=str(error))
                return []
        return [(key, row) for key, row, _ in found]

    def write(self, batch: list[_Line], now: float) -> str:
        """Write rows. Returns what is wrong; empty: nothing."""
        with self._lock:
            try:
                if not self._ready and (failure := self._open(now)):
                    return failure
                connection = self._connection
                assert connection is not None, "it is ready"
                with connection:
                    connection.executemany(
                        _PUT,
                        [
                            (book, key, row.until, self._encode(row))
                            for book, key, row in batch
                            if row is not None
                        ],
                    )
                    connection.executemany(
                        "DELETE FROM rows WHERE book = ? AND key = ?",
                        [(book, key) for book, key, row in batch if row is None],
                    )
                if abs(now - self._swept) > 3600:
                    self._sweep(now)
            except sqlite3.Error as error:
                return str(error)
        return ""

    def _sweep(self, now: float) -> None:
        """Forget what means nothing, also of books that nobody has any more."""
        connection = self._connection
        assert connection is not None
        self._swept = now
        with connection:
            connection.execute("DELETE FROM rows WHERE until <= ?", (now,))

    def close(self) -> None:
        """Close it."""
        with self._lock:
            self._disconnect()

    def _disconnect(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None
        self._ready = False


def _code(error: sqlite3.Error) -> int:
    """The kind of a failure (https://sqlite.org/rescode.html), or that of a file that is none."""
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_NOTADB)
    return code & 0xFF
