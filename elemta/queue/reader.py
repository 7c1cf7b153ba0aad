"""Reads the store beside its writer: for the API and the command line.

Has read-only connections of its own, so it works while the daemon runs, and when it is down. What
it shows is what is durable: a moment behind what the daemon knows. All calls block: use threads.
"""

from __future__ import annotations

import sqlite3
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple, Self
from urllib.parse import quote

from elemta.queue.bodies import BodyFiles, InThread, StoredBody, is_large
from elemta.queue.errors import SpoolError, StoreUnavailable
from elemta.queue.ids import key_of, parse_id, time_of
from elemta.queue.load import apply_rows
from elemta.queue.model import State, Stats, Timeline
from elemta.queue.records import apply_outcome, decode_attempt, decode_message
from elemta.queue.schema import VERSION, Phase, version_of
from elemta.queue.store import database

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from elemta.queue.model import Attempt, Message, MessageId
    from elemta.queue.operation import Value

#: Keys of unfinished messages above a given one. Each half walks an index and stops at the limit.
_WHOLE: Final = "SELECT key FROM message WHERE phase = 0 AND key > :after"
_SCATTERED: Final = "SELECT key FROM recipient WHERE key > :after"
_OF_STATE: Final = "SELECT key FROM recipient WHERE state = :state AND key > :after"
_FAILED: Final = "SELECT key FROM message WHERE phase = 3 AND key > :after"
_DELIVERED: Final = "SELECT key FROM message WHERE phase >= 2 AND key > :after"


class StoreReader:
    """The read side of a queue.

    Args:
        folder: the queue's. Nothing is opened before something is asked.

    Resource handling:
        `close` it. May be used from several threads at once.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._bodies = BodyFiles(folder / "bodies")
        self._lock = threading.Lock()
        self._free: list[sqlite3.Connection] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; nothing may be asked after that."""
        with self._lock:
            while self._free:
                self._free.pop().close()

    def list(
        self, state: State | None = None, *, limit: int = 100, after: MessageId | None = None
    ) -> list[Message]:
        """Messages, the oldest first.

        Args:
            state: those of which at least one recipient is in this state. The final states find
                finished messages too, as far as history goes back. None: those not finished.
            limit: so many at most.
            after: those that came later than this one, to go on where the last list ended.

        Raises:
            SpoolError: there is no queue here, or a later Elemta wrote it.
            sqlite3.Error: the disk.
        """
        found: list[Message] = []
        begin = key_of(after) if after is not None else -1
        with self._connection() as connection:
            while True:
                keys = _keys(connection, state, begin, limit)
                for key in keys:
                    read = _read(connection, key)
                    if read is not None and _matches(read.message, state):
                        found.append(read.message)
                    if len(found) == limit:
                        return found
                if len(keys) < limit:
                    return found
                begin = keys[-1]

    def get(self, id: MessageId) -> Message | None:  # noqa: A002
        """One message, finished or not; None if it is not known, or no longer.

        Raises:
            As `list`.
        """
        timeline = self.timeline(id)
        return timeline.message if timeline is not None else None

    def timeline(self, id: MessageId) -> Timeline | None:  # noqa: A002
        """What happened to one message, finished or not; None if it is not known, or no longer.

        Raises:
            As `list`.
        """
        found = parse_id(id)
        if found is None:
            return None
        key = key_of(found)
        with self._connection() as connection:
            read = _read(connection, key)
            if read is None or read.message.id != found:
                return None
            rows: list[tuple[bytes]] = connection.execute(
                "SELECT record FROM attempt WHERE key = ?", (key,)
            ).fetchall()
        attempts = [decode_attempt(record) for (record,) in rows] + list(read.attempts)
        attempts.sort(key=lambda attempt: attempt.ended)
        return Timeline(
            message=read.message, finished_at=read.finished_at, attempts=tuple(attempts)
        )

    def stats(self) -> Stats:
        """How full the queue is. Walks indexes of what is unfinished: 10 ms for 100,000.

        Raises:
            As `list`.
        """
        with self._connection() as connection:
            whole: tuple[int, int | None, int | None] = connection.execute(
                "SELECT count(*), sum(recipients), min(key) FROM message WHERE phase = 0"
            ).fetchone()
            scattered: tuple[int, int | None] = connection.execute(
                "SELECT count(DISTINCT key), min(key) FROM recipient"
            ).fetchone()
            rows: list[tuple[str, int]] = connection.execute(
                "SELECT state, count(*) FROM recipient GROUP BY state"
            ).fetchall()
            history: tuple[int] | None = connection.execute(
                "SELECT value FROM tally WHERE name = 'history'"
            ).fetchone()
        recipients = dict.fromkeys(State, 0) | {State(state): count for state, count in rows}
        recipients[State.READY] += whole[1] or 0
        first = [key for key in (whole[2], scattered[1]) if key is not None]
        return Stats(
            messages=whole[0] + scattered[0],
            recipients=recipients,
            oldest=time_of(min(first)) if first else None,
            history=history[0] if history is not None else 0,
        )

    def body(self, id: MessageId) -> bytes | None:  # noqa: A002
        """The content of a message, all of it; None if it is finished or not known.

        For large ones see `body_file`.

        Raises:
            As `list`, and OSError.
        """
        with self._connection() as connection:
            read = _read(connection, key_of(id)) if parse_id(id) else None
            if read is None or read.message.id != id or read.finished_at is not None:
                return None
            content = _content(connection, key_of(id))
        return content if content is not None else self._bodies.path(id).read_bytes()

    async def open_body(self, message: Message, in_thread: InThread) -> StoredBody:
        """The content of a message that is not finished, for a worker.

        Raises:
            StoreUnavailable: it cannot be read just now.
        """

        def read() -> bytes | None:
            with self._connection() as connection:
                return _content(connection, key_of(message.id))

        try:
            content = await in_thread(read)
        except sqlite3.Error as error:
            raise StoreUnavailable(f"cannot read the body: {error}") from error
        if content is None and not is_large(message.size):
            raise StoreUnavailable(f"the body of {message.id} is missing")
        return StoredBody(message, content, self._bodies, in_thread)

    @contextmanager
    def _connection(self) -> Generator[sqlite3.Connection, None, None]:
        with self._lock:
            connection = self._free.pop() if self._free else None
        if connection is None:
            connection = _connect(database(self._folder))
        try:
            yield connection
        finally:
            with self._lock:
                self._free.append(connection)


class _Read(NamedTuple):
    message: Message
    finished_at: float | None
    #: Those that stand in the message's own row.
    attempts: Sequence[Attempt]


def _connect(path: Path) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(
            f"file:{quote(str(path))}?mode=ro",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
        )
    except sqlite3.OperationalError as error:
        raise SpoolError(f"there is no queue at {path}: {error}") from error
    try:
        version = version_of(connection)
    except BaseException:
        connection.close()
        raise
    if version != VERSION:
        connection.close()
        raise SpoolError(f"{path} has version {version}; this Elemta reads version {VERSION}")
    return connection


def _keys(connection: sqlite3.Connection, state: State | None, after: int, limit: int) -> list[int]:
    queries = {
        None: (_WHOLE, _SCATTERED),
        State.READY: (_WHOLE, _OF_STATE),
        State.DELIVERED: (_DELIVERED, _OF_STATE),
        State.FAILED: (_FAILED, _OF_STATE),
        State.EXPIRED: (_FAILED, _OF_STATE),
    }.get(state, (_OF_STATE,))
    query = " UNION ".join(queries) + " ORDER BY key LIMIT :limit"
    values: dict[str, Value] = {"after": after, "limit": limit}
    if state is not None:
        values["state"] = state.value
    rows: list[tuple[int]] = connection.execute(query, values).fetchall()
    return [key for (key,) in rows]


def _matches(message: Message, state: State | None) -> bool:
    return state is None or any(each.state is state for each in message.recipients)


def _read(connection: sqlite3.Connection, key: int) -> _Read | None:
    row: tuple[int, bytes, bytes | None] | None = connection.execute(
        "SELECT phase, record, outcome FROM message WHERE key = ?", (key,)
    ).fetchone()
    if row is None:
        return None
    phase, message, outcome = Phase(row[0]), decode_message(row[1]), row[2]
    if outcome is not None:
        return _Read(message, *apply_outcome(message, outcome))
    if phase is Phase.SCATTERED:
        apply_rows(connection, key, message)
    return _Read(message, None, ())


def _content(connection: sqlite3.Connection, key: int) -> bytes | None:
    row: tuple[bytes] | None = connection.execute(
        "SELECT content FROM body WHERE key = ?", (key,)
    ).fetchone()
    return row[0] if row is not None else None
