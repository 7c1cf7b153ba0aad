"""Looks whether the store is whole: its file, its rows against each other, bodies against both.

Reads only, and as of one moment, so it works whether the daemon runs or not. What it cannot know
is whether a body is what the client sent.
"""

from __future__ import annotations

import sqlite3
import time
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
from msgspec import Struct

from elemta.queue.bodies import BodyFiles
from elemta.queue.counting import counts_of
from elemta.queue.ids import key_of, parse_id
from elemta.queue.model import State
from elemta.queue.reader import connect
from elemta.queue.records import (
    apply_outcome,
    apply_standing,
    decode_attempt,
    decode_message,
    decode_note,
)
from elemta.queue.schema import Phase
from elemta.queue.store import database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from elemta.queue.model import Message, MessageId

#: Seconds after which a file without a message is no longer thought to be on its way in.
ON_ITS_WAY: Final = 3600.0

_MESSAGES: Final = """
    SELECT key, phase, recipients, record, outcome,
           (SELECT length(content) FROM body WHERE body.key = message.key)
    FROM message ORDER BY key
"""
_RECIPIENTS: Final = """
    SELECT number, state, due, standing FROM recipient WHERE key = ? ORDER BY number
"""
#: Rows of messages that there are not, or that should have no such rows.
_STRANGE: Final = """
    SELECT DISTINCT 'body', key FROM body LEFT JOIN message USING (key)
    WHERE phase IS NULL OR phase >= 2
    UNION ALL SELECT DISTINCT 'recipient', key FROM recipient LEFT JOIN message USING (key)
    WHERE phase IS NOT 1
    UNION ALL SELECT DISTINCT 'attempt', key FROM attempt LEFT JOIN message USING (key)
    WHERE phase IS NULL
    UNION ALL SELECT 'scheduled', key FROM scheduled LEFT JOIN message USING (key)
    WHERE phase IS NULL
    UNION ALL SELECT DISTINCT 'note', key FROM note LEFT JOIN message USING (key)
    WHERE phase IS NULL
"""


class Finding(Struct, frozen=True, kw_only=True):
    """Something that is not as it should be.

    Attributes:
        where: the id of a message, a row's table and key, or a file.
        what: is wrong, for people.
    """

    where: str
    what: str


class _Row(NamedTuple):
    key: int
    phase: int
    recipients: int
    record: bytes
    outcome: bytes | None
    #: Octets of the body that is a row.
    body: int | None


def check(folder: Path, *, clock: Callable[[], float] = time.time) -> list[Finding]:
    """Look at a queue; blocks for as long as it takes to read it all.

    Returns:
        What is wrong; nothing if all is well.

    Raises:
        SpoolError: there is no queue here, or another Elemta wrote it.
        OSError, sqlite3.Error: the disk cannot be read.
    """
    path, files = database(folder), BodyFiles(folder / "bodies")
    connection = connect(path)
    try:
        connection.execute("BEGIN")  # all that is read now is of one moment
        damages = _damages(connection)
        if damages:  # whatever else could be read may be nonsense
            return [Finding(where=path.name, what=each) for each in damages]
        found, filed = _rows(connection)
        connection.execute("COMMIT")
        found += amiss(connection, files, filed)
        found += strays(connection, files, clock() - ON_ITS_WAY)
        return found
    finally:
        connection.close()


def _damages(connection: sqlite3.Connection) -> list[str]:
    """What SQLite finds wrong with its file, indexes included."""
    try:
        rows: list[tuple[str]] = connection.execute("PRAGMA integrity_check").fetchall()
    except sqlite3.DatabaseError as error:
        return [str(error)]
    return [text for (text,) in rows if text != "ok"]


def _rows(connection: sqlite3.Connection) -> tuple[list[Finding], list[Message]]:
    """What is wrong with the rows; and whose bodies should be files."""
    strange: Iterable[tuple[str, int]] = connection.execute(_STRANGE)
    found = [
        Finding(where=f"{table} {key}", what="belongs to no message that has such rows")
        for table, key in strange
    ]
    found += _unreadable(connection, "attempt", decode_attempt)
    found += _unreadable(connection, "note", decode_note)
    found += _false_receipts(connection)
    found += _false_counts(connection)
    filed: list[Message] = []
    for row in map(_Row._make, connection.execute(_MESSAGES)):
        try:
            message = decode_message(row.record)
            faults = list(_faults(connection, row, message))
        except (msgspec.MsgspecError, ValueError, IndexError) as error:
            found.append(Finding(where=f"message {row.key}", what=f"cannot be read: {error}"))
            continue
        found += [Finding(where=message.id, what=each) for each in faults]
        if row.phase < Phase.DELIVERED and row.body is None:
            filed.append(message)
    return found, filed


def _unreadable(
    connection: sqlite3.Connection, table: str, decode: Callable[[bytes], object]
) -> Iterator[Finding]:
    query = "SELECT key, record FROM %s"
    rows: Iterable[tuple[int, bytes]] = connection.execute(query % table)
    for key, record in rows:
        try:
            decode(record)
        except msgspec.MsgspecError as error:
            yield Finding(where=f"{table} {key}", what=f"cannot be read: {error}")


def _false_receipts(connection: sqlite3.Connection) -> Iterator[Finding]:
    """Those that name what cannot be a message; one that is forgotten may well be named."""
    rows: Iterable[tuple[str, str]] = connection.execute("SELECT key, id FROM receipt")
    for key, id in rows:  # noqa: A001 # the word of people
        if parse_id(id) != id:
            yield Finding(where=f"receipt {key}", what=f"{id!r} is not the id of a message")


def _false_counts(connection: sqlite3.Connection) -> Iterator[Finding]:
    rows: Iterable[tuple[int, int, bytes]] = connection.execute(
        "SELECT step, start, counts FROM statistics"
    )
    for step, start, record in rows:
        if not counts_of(record):
            yield Finding(where=f"statistics {step} {start}", what="cannot be read")


def _faults(connection: sqlite3.Connection, row: _Row, message: Message) -> Iterator[str]:
    """What is wrong with one message, but for a body that is a file."""
    phase = Phase(row.phase)
    if key_of(message.id) != row.key:
        yield f"stands in the row of another, {row.key}"
    if len(message.recipients) != row.recipients:
        yield f"{len(message.recipients)} recipients, and the row says {row.recipients}"
    if (row.outcome is not None) is not (phase >= Phase.DELIVERED):
        has = "no" if row.outcome is None else "an"
        yield f"of phase {phase.name}, and has {has} outcome"
    elif row.outcome is not None:
        apply_outcome(message, row.outcome)
    if row.body is not None and row.body != message.size:
        yield f"{row.body} octets of body, and there should be {message.size}"
    if phase is Phase.SCATTERED:
        yield from _scattered(connection, row.key, message)


def _scattered(connection: sqlite3.Connection, key: int, message: Message) -> Iterator[str]:
    rows: list[tuple[int, str, float | None, bytes]] = connection.execute(
        _RECIPIENTS, (key,)
    ).fetchall()
    if [number for number, *_ in rows] != [each.number for each in message.recipients]:
        yield f"{len(message.recipients)} recipients, and rows for {len(rows)}"
        return
    for number, state, due, standing in rows:
        recipient = message.recipients[number]
        apply_standing(recipient, state, due, standing)
        if (due is not None) is not (recipient.state in (State.READY, State.DEFERRED)):
            yield f"recipient {number} is {state}, and {'is' if due else 'never'} due"
    if all(each.state.final for each in message.recipients):
        yield "nothing is left to try, and it is not finished"


def amiss(
    connection: sqlite3.Connection, files: BodyFiles, filed: Iterable[Message]
) -> Iterator[Finding]:
    """Messages whose bodies are not whole, or not there."""
    for message in filed:
        try:
            size = files.path(message.id).stat().st_size
        except FileNotFoundError:
            # It may have finished since its row was read.
            if _is_unfinished(connection, message.id):
                yield Finding(where=message.id, what="its body is missing")
        else:
            if size != message.size:
                what = f"{size} octets of body, and there should be {message.size}"
                yield Finding(where=message.id, what=what)


def strays(connection: sqlite3.Connection, files: BodyFiles, before: float) -> Iterator[Finding]:
    """Files that belong to no message, and are too old to be on their way in."""
    for id in files.ids():  # noqa: A001 # the word of people
        try:
            old = files.path(id).stat().st_mtime < before
        except FileNotFoundError:
            continue
        if old and not _is_unfinished(connection, id):
            what = "belongs to no message that waits; the next start removes it"
            yield Finding(where=f"bodies/{id}", what=what)


def _is_unfinished(connection: sqlite3.Connection, id: MessageId) -> bool:  # noqa: A002 # the word of people
    row = connection.execute(
        "SELECT 1 FROM message WHERE key = ? AND phase < 2", (key_of(id),)
    ).fetchone()
    return row is not None
