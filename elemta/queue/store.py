"""The store: one SQLite database in WAL mode, and a folder of large bodies.

Whoever writes asks `Store.apply` with everything that waits; it becomes one transaction and one
fsync. A second process is turned away by a lock on a file.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import sqlite3
from typing import TYPE_CHECKING, Final

from elemta.files import sync_folder
from elemta.queue.bodies import BodyFiles
from elemta.queue.errors import SpoolError
from elemta.queue.operation import Rows, Value
from elemta.queue.schema import open_database

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from elemta.queue.operation import Operation

#: Rows of one statement: Python lets go of its lock at each statement, and has to win it back.
ROWS: Final = 64
#: Octets that the log grows by at a time, at most; it grows by its own size as long as it is small.
STRETCH: Final = 2**20
_ZEROS: Final = bytes(STRETCH)


class Store:
    """The files of a queue. Used by one thread at a time.

    Args:
        folder: where they are; made if need be.

    Raises:
        SpoolError: another process uses them, or a later Elemta wrote them.
        OSError, sqlite3.Error: the disk.

    Resource handling:
        Close it.
    """

    def __init__(self, folder: Path) -> None:
        bodies = folder / "bodies"
        for each in (folder, bodies):  # of parents that it makes, mkdir lets everybody read
            each.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = _lock(folder / "lock")
        try:
            _close_to_others(database(folder))
            self.connection = open_database(database(folder))
        except BaseException:
            os.close(self._lock)
            raise
        for each in (folder, folder.parent):  # SQLite syncs the name of its log, not its own
            sync_folder(each)
        self._log = _Log(database(folder))
        self.bodies = BodyFiles(bodies)
        self.last_key = self._number("SELECT max(key) FROM message")
        """The highest key that was ever given, as far as is known."""
        self.history = self._number(_HISTORY)
        """How many finished messages there are; a little wrong after a crash."""

    def apply(self, operations: Sequence[Operation]) -> None:
        """Write all of this, or nothing. It is durable on return.

        Raises:
            sqlite3.Error: nothing was written. After a failed fsync it may yet be found after a
                crash, as SQLite cannot unsay it; then it is there as a whole.
        """
        rows = Rows()
        for operation in operations:
            operation.collect(rows)
        connection = self.connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            self._write(rows)
            for operation in operations:
                operation.run(connection)
            connection.commit()  # as a statement it lets go of Python's lock four times, not once
        except BaseException:
            if connection.in_transaction:  # SQLite rolls back by itself when the disk fails
                connection.execute("ROLLBACK")
            raise
        self._log.stretch()
        self.history += len(rows.finished) // 3
        for id in rows.dead_files:  # noqa: A001 # the word of people
            self.bodies.remove(id)

    def _write(self, rows: Rows) -> None:
        if rows.messages:
            self._many(_INSERT_MESSAGE, 4, rows.messages)
        if rows.bodies:
            self._many(_INSERT_BODY, 2, rows.bodies)
        if rows.recipients:
            self._many(_PUT_RECIPIENT, 5, rows.recipients)
        if rows.attempts:
            self._many(_INSERT_ATTEMPT, 4, rows.attempts)
        if rows.scattered:
            self._many(_SCATTER, 1, rows.scattered)
        if rows.finished:
            self._many(_FINISH, 3, rows.finished)
            self._many(_DELETE_BODY, 1, rows.dead_bodies)
        if rows.gathered:
            self._many(_DELETE_RECIPIENTS, 1, rows.gathered)
        if rows.notes:
            self._many(_INSERT_NOTE, 2, rows.notes)
        if rows.renewed:
            self._many(_RENEW, 2, rows.renewed)
        if rows.scheduled:
            self._many(_INSERT_SCHEDULED, 2, rows.scheduled)
        if rows.receipts:
            self._many(_INSERT_RECEIPT, 4, rows.receipts)

    def _many(self, statements: list[str], width: int, values: list[Value]) -> None:
        step = ROWS * width
        for start in range(0, len(values), step):
            part = values[start : start + step] if len(values) > step else values
            self.connection.execute(statements[len(part) // width], part)

    def _number(self, query: str) -> int:
        row: tuple[int | None] | None = self.connection.execute(query).fetchone()
        return (row[0] if row is not None else None) or 0

    def write_tally(self) -> None:
        """Write down how long the history is: counting it would take seconds."""
        if self.history != self._number(_HISTORY):
            self.connection.execute(
                "INSERT OR REPLACE INTO tally VALUES ('history', ?)", (self.history,)
            )

    def close(self) -> None:
        """Close the files. SQLite moves its log into the database."""
        try:
            with contextlib.suppress(sqlite3.Error):  # a count; the disk may be full
                self.write_tally()
            self.connection.close()
        finally:
            self._log.close()
            os.close(self._lock)


class _Log:
    """SQLite's log, which is to grow seldom.

    A commit that makes a file longer has its length made durable, too: the file system commits its
    own journal then, by a thread of the kernel's and a second flush of the disk. So there is room
    for many commits behind the last one, of zeros: SQLite reads a log up to the first frame whose
    checksum is wrong, and begins anew at its start once all was moved into the database.

    Args:
        path: of the database, which is open: its log is there.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(f"{path}-wal", os.O_WRONLY | os.O_CLOEXEC)
        self._size = 0

    def stretch(self) -> None:
        """Make room if the last commit had to. Only for whoever writes the log, between commits."""
        with contextlib.suppress(OSError):  # the disk is full: then there is no room
            size = os.fstat(self._file).st_size
            if size > self._size:
                size += os.pwrite(self._file, _ZEROS[: min(size, STRETCH)], size)
            self._size = size

    def close(self) -> None:
        """Close it."""
        os.close(self._file)


def database(folder: Path) -> Path:
    """The database file of the queue in this folder."""
    return folder / "queue.db"


def _close_to_others(path: Path) -> None:
    """Have a database for its owner alone before SQLite opens it, whose log takes its mode."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        path.chmod(0o600)  # not opened: to close it would undo the locks of whoever reads


def _lock(path: Path) -> int:
    """Keep other processes out until this descriptor is closed."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(file, 32, 0).decode(errors="replace").strip() or "another process"
        os.close(file)
        raise SpoolError(f"{path.parent} is in use by process {owner}") from None
    os.ftruncate(file, 0)
    os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
    return file


def _statements(head: str, row: str, tail: str = "") -> list[str]:
    """The statement for 0, 1, 2, … rows."""
    return [head + ",".join(itertools.repeat(row, count)) + tail for count in range(ROWS + 1)]


_HISTORY: Final = "SELECT value FROM tally WHERE name = 'history'"
_INSERT_MESSAGE: Final = _statements(
    "INSERT INTO message (key, phase, recipients, record) VALUES ", "(?,?,?,?)"
)
_INSERT_BODY: Final = _statements("INSERT INTO body (key, content) VALUES ", "(?,?)")
_PUT_RECIPIENT: Final = _statements(
    "INSERT OR REPLACE INTO recipient (key, number, state, due, standing) VALUES ", "(?,?,?,?,?)"
)
_INSERT_ATTEMPT: Final = _statements(
    "INSERT INTO attempt (key, number, ordinal, record) VALUES ", "(?,?,?,?)"
)
_INSERT_NOTE: Final = _statements("INSERT INTO note (key, record) VALUES ", "(?,?)")
_INSERT_SCHEDULED: Final = _statements("INSERT INTO scheduled (key, due) VALUES ", "(?,?)")
_INSERT_RECEIPT: Final = _statements(
    "INSERT INTO receipt (key, id, digest, at) VALUES ", "(?,?,?,?)"
)
_RENEW: Final = _statements(
    "UPDATE message SET record = new.column2 FROM (VALUES ",
    "(?,?)",
    ") AS new WHERE key = new.column1",
)
_SCATTER: Final = _statements("UPDATE message SET phase = 1 WHERE key IN (", "?", ")")
_FINISH: Final = _statements(
    "UPDATE message SET phase = new.column2, outcome = new.column3 FROM (VALUES ",
    "(?,?,?)",
    ") AS new WHERE key = new.column1",
)
_DELETE_BODY: Final = _statements("DELETE FROM body WHERE key IN (", "?", ")")
_DELETE_RECIPIENTS: Final = _statements("DELETE FROM recipient WHERE key IN (", "?", ")")
