"""Reads messages from the store into memory, a few at a time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from typing_extensions import override

from elemta.queue.entry import Entry
from elemta.queue.operation import Operation
from elemta.queue.records import apply_outcome, apply_standing, decode_message
from elemta.queue.schema import Phase
from elemta.queue.window import LOAD, NO_KEY, Cursors

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Container, Mapping, Sequence

    from elemta.queue.model import Attempt, Message

_WHOLE = """
    SELECT key, record FROM message WHERE phase = 0 AND key > ? ORDER BY key LIMIT ?
"""
_DUE = """
    SELECT due, key FROM recipient
    WHERE due IS NOT NULL AND (due, key) > (?, ?) ORDER BY due, key LIMIT ?
"""
_MESSAGES = "SELECT key, phase, record, outcome FROM message WHERE key IN "
_RECIPIENTS = "SELECT key, number, state, due, standing FROM recipient WHERE key IN "


class Load(Operation):
    """Reads what is to be tried next: by key, and from two cursors on.

    Read where all is written, so that it sees each message as it was left: a message that was
    settled after this read still stands in memory when the read's answer comes.

    Args:
        keys: of messages that lanes want.
        begin: where the cursors stand; None: read by key alone.
        until: deferred recipients due later stay where they are.
        known: keys of messages in memory. Asked from the writer's thread; a stale answer costs a
            needless read, and no more.
        loaded: told of the messages that lanes want, of the others, and where the cursors stand
            now.
        failed: told that nothing came of it.
    """

    reads = True

    def __init__(
        self,
        keys: Sequence[int],
        begin: Cursors | None,
        until: float,
        known: Container[int],
        loaded: Callable[[list[Entry], list[Entry], Cursors | None], None],
        failed: Callable[[], None],
    ) -> None:
        super().__init__()
        self._keys = keys
        self._begin = begin
        self._until = until
        self._known = known
        self._on_load = loaded
        self._not_loaded = failed
        self._wanted: list[Entry] = []
        self._entries: list[Entry] = []
        self._reached = begin

    @override
    def run(self, connection: sqlite3.Connection) -> None:
        found = (load_entry(connection, key) for key in self._keys)
        self._wanted = [entry for entry in found if entry is not None]
        if self._begin is not None:
            self._entries = []
            due = self._run_due(connection, self._begin.due)
            self._reached = Cursors(self._run_whole(connection, self._begin.key), due)

    def _run_due(
        self, connection: sqlite3.Connection, reached: tuple[float, int]
    ) -> tuple[float, int]:
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

    def _run_whole(self, connection: sqlite3.Connection, reached: int) -> int:
        rows: list[tuple[int, bytes]] = connection.execute(_WHOLE, (reached, LOAD + 1)).fetchall()
        for key, record in rows[:LOAD]:
            reached = key
            if key not in self._known:
                self._entries.append(Entry(decode_message(record)))
        return reached if len(rows) > LOAD else NO_KEY

    @override
    def written(self) -> None:
        self._on_load(self._wanted, self._entries, self._reached)

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
        apply_rows(connection, {key: message})
    return Entry(message, phase)


class Found(NamedTuple):
    """A message as the store has it.

    Attributes:
        finished_at: None while something is left to try.
        attempts: those that stand in the message's own row.
    """

    key: int
    message: Message
    phase: Phase
    finished_at: float | None
    attempts: Sequence[Attempt]


def read_messages(connection: sqlite3.Connection, keys: Sequence[int]) -> list[Found]:
    """Those of these messages that there are, finished or not, in the order of their keys.

    Two statements: the caller sees to it that nobody writes between them.
    """
    rows: list[tuple[int, int, bytes, bytes | None]] = connection.execute(
        _MESSAGES + _marks(keys) + " ORDER BY key", keys
    ).fetchall()
    scattered: dict[int, Message] = {}
    found: list[Found] = []
    for key, phase, record, outcome in rows:
        message = decode_message(record)
        ended = apply_outcome(message, outcome) if outcome is not None else (None, ())
        if phase == Phase.SCATTERED:
            scattered[key] = message
        found.append(Found(key, message, Phase(phase), *ended))
    if scattered:
        apply_rows(connection, scattered)
    return found


def apply_rows(connection: sqlite3.Connection, messages: Mapping[int, Message]) -> None:
    """Bring scattered messages, by key, to where their recipients' rows say they are."""
    keys = list(messages)
    rows: list[tuple[int, int, str, float | None, bytes]] = connection.execute(
        _RECIPIENTS + _marks(keys), keys
    ).fetchall()
    for key, number, state, due, standing in rows:
        apply_standing(messages[key].recipients[number], state, due, standing)


def _marks(values: Sequence[int]) -> str:
    return "(" + ",".join("?" * len(values)) + ")"
