"""The tables of the store, and how one version of them becomes the next.

A message is in one of four phases:

* WHOLE: nothing was settled yet. Its recipients stand in its record alone, so that taking in a
  message and delivering it at the first attempt touch two tables and one small index.
* SCATTERED: something was settled, and something is left to try. Each recipient has a row.
* DELIVERED or FAILED: finished, all well or not. Body and recipient rows are gone; what became of
  the recipients stands in `outcome`. These rows are the history.
"""

from __future__ import annotations

import enum
import sqlite3
from typing import TYPE_CHECKING, Final

from elemta.queue.errors import SpoolError

if TYPE_CHECKING:
    from pathlib import Path

#: Octets of a page. Twice this made a commit a fifth dearer, half of it no cheaper.
PAGE: Final = 8192
#: Pages of write-ahead log before they are moved into the database file: 64 MiB.
CHECKPOINT: Final = 8192
#: Bodies up to this many octets are rows, larger ones files. Part of the format.
INLINE: Final = 256 * 1024


class Phase(enum.IntEnum):
    """How far a message has come; see the top of this file."""

    WHOLE = 0
    SCATTERED = 1
    DELIVERED = 2
    FAILED = 3


#: Each makes the next version of the one before; the first makes version 1 of an empty database.
MIGRATIONS: Final = (
    """
    CREATE TABLE message (
      key INTEGER PRIMARY KEY,      -- the first 63 bits of the id
      phase INTEGER NOT NULL,
      recipients INTEGER NOT NULL,  -- how many
      record BLOB NOT NULL,         -- the Message as it came in, MessagePack
      outcome BLOB                  -- an Outcome, MessagePack
    );
    CREATE INDEX message_whole ON message (key, recipients) WHERE phase = 0;
    CREATE INDEX message_failed ON message (key) WHERE phase = 3;

    CREATE TABLE body (key INTEGER PRIMARY KEY, content BLOB NOT NULL);

    CREATE TABLE recipient (
      key INTEGER NOT NULL,
      number INTEGER NOT NULL,
      state TEXT NOT NULL,
      due REAL,                     -- NULL if nothing is to be tried
      standing BLOB NOT NULL,       -- a Standing, MessagePack
      PRIMARY KEY (key, number)
    ) WITHOUT ROWID;
    CREATE INDEX recipient_due ON recipient (due, key) WHERE due IS NOT NULL;
    CREATE INDEX recipient_state ON recipient (state, key);

    CREATE TABLE attempt (          -- those that did not finish their message
      key INTEGER NOT NULL,
      number INTEGER NOT NULL,      -- the recipient's
      ordinal INTEGER NOT NULL,     -- which of its attempts, from 1
      record BLOB NOT NULL,         -- the Attempt, MessagePack
      PRIMARY KEY (key, number, ordinal)
    ) WITHOUT ROWID;

    CREATE TABLE tally (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
    """,
    """
    CREATE TABLE note (             -- what operators did with a message, in the order of numbers
      number INTEGER PRIMARY KEY,
      key INTEGER NOT NULL,
      record BLOB NOT NULL          -- a Note, MessagePack
    );
    CREATE INDEX note_key ON note (key);

    CREATE TABLE suspension (
      scope TEXT PRIMARY KEY,
      record BLOB NOT NULL          -- a Suspension, MessagePack
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE scheduled (        -- messages that came in to be tried later
      key INTEGER PRIMARY KEY,
      due REAL NOT NULL             -- not before; history counts their age from here
    );

    CREATE TABLE receipt (          -- what was answered to those who came with a key
      key TEXT PRIMARY KEY,
      id TEXT NOT NULL,             -- of the message, which may be forgotten by now
      digest BLOB NOT NULL,
      at REAL NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX receipt_at ON receipt (at);

    CREATE TABLE statistics (       -- how much happened
      step INTEGER NOT NULL,        -- seconds: 60 or 3600
      start INTEGER NOT NULL,       -- seconds since the epoch
      counts BLOB NOT NULL,         -- by the names of events in small letters, MessagePack
      PRIMARY KEY (step, start)
    ) WITHOUT ROWID;
    """,
)
VERSION: Final = len(MIGRATIONS)


def open_database(path: Path) -> sqlite3.Connection:
    """Open the database for the one who writes it, made or brought up to date if need be.

    Raises:
        SpoolError: it is from a later version of Elemta, or it is no database.
        sqlite3.Error: the disk.
    """
    connection = sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, cached_statements=1024
    )
    try:
        # These two count for an empty file only.
        connection.execute(f"PRAGMA page_size = {PAGE}")
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT}")
        # Whoever reads for long lets the log grow; it shrinks again after that.
        connection.execute(f"PRAGMA journal_size_limit = {CHECKPOINT * PAGE}")
        connection.execute("PRAGMA cache_size = -65536")
        # Debian's SQLite overwrites what is deleted with zeros, page by page.
        connection.execute("PRAGMA secure_delete = OFF")
        migrate(connection, path)
    except BaseException as error:
        connection.close()
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(
            error, sqlite3.OperationalError
        ):
            raise SpoolError(f"{path}: {error}") from error
        raise
    return connection


def version_of(connection: sqlite3.Connection) -> int:
    """Which version the tables have; 0 if there are none."""
    found: tuple[int] = connection.execute("PRAGMA user_version").fetchone()
    return found[0]


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the tables up to date, a version a transaction.

    Raises:
        SpoolError: they are from a later version.
    """
    version = version_of(connection)
    if version > VERSION:
        raise SpoolError(
            f"{path} has version {version}; this Elemta knows versions up to {VERSION}: "
            "install the Elemta that wrote it, or a later one"
        )
    for number in range(version, VERSION):
        connection.executescript(
            f"BEGIN IMMEDIATE; {MIGRATIONS[number]} PRAGMA user_version = {number + 1}; COMMIT;"
        )
