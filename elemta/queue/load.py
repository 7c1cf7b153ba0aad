"""Reads messages from the store into memory, a few at a time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from typing_extensions import override

from elemta.queue.entry import Entry
from elemta.queue.operation import Operation
from elemta.queue.records import apply_standing, decode_message
from elemta.queue.schema import Phase
from elemta.queue.window import LOAD, NO_KEY, Cursors

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Container

    from elemta.queue.model import Message

_WHOLE = """
    SELECT key, record FROM message WHERE phase = 0 AND key > ? ORDER BY key LIMIT ?
"""
_DUE = """
    SELECT due, key FROM recipient
    WHERE due IS NOT NULL AND (due, key) > (?, ?) ORDER BY due, key LIMIT ?
"""


class Load(Operation):
    """Reads what is to be tried next, from two cursors on.

    Read where all is written, so that it sees each message as it was left: a message that was
    settled after this read still stands in memory when the read's answer comes.

    Args:
        begin: where the cursors stand.
        until: deferred recipients due later stay where they are.
        known: keys of messages in memory. Asked from the writer's thread; a stale answer costs a
            needless read, and no more.
        loaded: told of the messages, and where the cursors stand now.
        failed: told that nothing came of it.
    """

    reads = True

    def __init__(
        self,
        begin: Cursors,
        until: float,
        known: Container[int],
        loaded: Callable[[list[Entry], Cursors], None],
        failed: Callable[[], None],
    ) -> None:
        super().__init__()
        self._begin = begin
        self._until = until
        self._known = known
        self._on_load = loaded
        self._not_loaded = failed
        self._entries: list[Entry] = []
        self._reached = begin

    @override
    def run(self, connection: sqlite3.Connection) -> None:
        self._entries = []
        due = self._run_due(connection)
        self._reached = Cursors(self._run_whole(connection), due)

    def _run_due(self, connection: sqlite3.Connection) -> tuple[float, int]:
        reached = self._begin.due
        seen: set[int] = set()
        rows: list[tuple[float, int]] = connection.execute(_DUE, (*reached, LOAD + 1)).fetchall()
        for due, key in rows[:LOAD]:
            if due > self._until:
                return due, key - 1
            reached = (due, key)
            if key not in seen and key not in self._known:
                seen.add(key)
                entry = load_entry(connection, key)
                if entry is not None:
                    self._entries.append(entry)
        return reached if len(rows) > LOAD else (math.inf, NO_KEY)

    def _run_whole(self, connection: sqlite3.Connection) -> int:
        reached = self._begin.key
        rows: list[tuple[int, bytes]] = connection.execute(_WHOLE, (reached, LOAD + 1)).fetchall()
        for key, record in rows[:LOAD]:
            reached = key
            if key not in self._known:
                self._entries.append(Entry(decode_message(record)))
        return reached if len(rows) > LOAD else NO_KEY

    @override
    def written(self) -> None:
        self._on_load(self._entries, self._reached)

    @override
    def failed(self) -> None:
        self._not_loaded()


def load_entry(connection: sqlite3.Connection, key: int) -> Entry | None:
    """One message that is not finished; None if there is none with this key."""
    row: tuple[int, bytes] | None = connection.execute(
        "SELECT phase, record FROM message WHERE key = ? AND phase < 2", (key,)
    ).fetchone()
    if row is None:
        return None
    phase, message = Phase(row[0]), decode_message(row[1])
    if phase is Phase.SCATTERED:
        apply_rows(connection, key, message)
    return Entry(message, phase)


def apply_rows(connection: sqlite3.Connection, key: int, message: Message) -> None:
    """Bring a scattered message to where its recipients' rows say it is."""
    rows: list[tuple[int, str, float | None, bytes]] = connection.execute(
        "SELECT number, state, due, standing FROM recipient WHERE key = ?", (key,)
    ).fetchall()
    for number, state, due, standing in rows:
        apply_standing(message.recipients[number], state, due, standing)
