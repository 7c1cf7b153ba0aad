"""The file of a `elemta.ledger`: opened, read and written in threads.

A damaged file is put aside; a full or dying disk may be well again, and is tried anew; anything
else, such as permissions, is a mistake of whoever set up the machine.
"""

from __future__ import annotations

import sqlite3
import threading
from contextlib import suppress
from time import monotonic, sleep
from typing import TYPE_CHECKING, Final, TypeAlias

from elemta.log import logger

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from elemta.ledger.books import Row

log = logger(__name__)

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

#: Seconds until a file that somebody else writes to is given up, and between two tries: SQLite
#: waits by itself, but not where two make a file at once, as the first process and node 1 may.
_PATIENCE: Final = 2.0
_PAUSE: Final = 0.01

#: A book, a key, and what stands there; None: nothing.
Line: TypeAlias = "tuple[str, bytes, Row | None]"


class File:
    """The file. Its methods block; each may be called in any thread.

    Args:
        path: where it lies; its folder is there.
        plugin: whose it is, for the log.
        encode: makes octets of a row.
    """

    def __init__(self, path: Path, plugin: str, encode: Callable[[Row], bytes]) -> None:
        self._path = path
        self._plugin = plugin
        self._lock = threading.Lock()  # who was cancelled may still be writing
        self._connection: sqlite3.Connection | None = None
        self._encode = encode
        self._ready = False
        self._swept = 0.0

    def open(self, now: float) -> str:
        """Open it. Returns what is wrong with the disk; empty: nothing.

        Raises:
            OSError, sqlite3.Error: see `Ledger.open`.
        """
        deadline = monotonic() + _PATIENCE
        with self._lock:
            while True:
                try:
                    return self._open(now)
                except sqlite3.Error as error:
                    self._disconnect()
                    if _code(error) in _FILE:
                        self._put_aside(error)
                        return self._open(now)
                    if _code(error) != sqlite3.SQLITE_BUSY or monotonic() >= deadline:
                        raise
                    sleep(_PAUSE)

    def _open(self, now: float) -> str:
        self._disconnect()
        connection = self._connection = sqlite3.connect(
            self._path, timeout=_PATIENCE, check_same_thread=False
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

    def write(self, batch: list[Line], now: float) -> str:
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
