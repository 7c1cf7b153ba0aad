"""Reads the store beside its writer: for the API and the command line.

Has read-only connections of its own, so it works while the daemon runs, and when it is down. What
it shows is what is durable: a moment behind what the daemon knows. All calls block: use threads.
"""

from __future__ import annotations

import sqlite3
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self
from urllib.parse import quote

from elemta.queue.bodies import BodyFiles, StoredBody, is_large
from elemta.queue.errors import SpoolError, StoreUnavailable
from elemta.queue.filter import Condition
from elemta.queue.ids import key_of, parse_id, time_of
from elemta.queue.load import read_messages
from elemta.queue.model import Receipt, State, Stats, Timeline
from elemta.queue.records import decode_attempt, decode_note
from elemta.queue.schema import VERSION, version_of
from elemta.queue.search import read_page
from elemta.queue.store import database
from elemta.queue.window import NO_KEY

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from elemta.queue.filter import Filter
    from elemta.queue.load import Found
    from elemta.queue.model import LaneOf, Message, MessageId
    from elemta.queue.search import Page
    from elemta.threads import InThread


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

    def search(
        self,
        filter: Filter,  # noqa: A002 # the word of people
        *,
        now: float,
        limit: int = 100,
        after: MessageId | None = None,
        newest: bool = False,
        lane: LaneOf | None = None,
    ) -> list[Message]:
        """Messages of which at least one recipient is meant, finished or not.

        Views and ages are found by an index; for all else, each message is looked at that they
        leave: 100,000 take some seconds.

        Args:
            filter: who is meant.
            now: seconds since the epoch.
            limit: so many at most.
            after: those behind this one, to go on where the last search ended. It need not be
                there any more.
            newest: these first, and not the oldest.
            lane: where a recipient goes; only the running server knows.

        Raises:
            SpoolError: there is no queue here, or a later Elemta wrote it.
            sqlite3.Error: the disk.
            ValueError: the filter asks for a destination, and there is no `lane`.
        """
        found: list[Message] = []
        pages = self.pages(filter, now=now, after=after, newest=newest, lane=lane)
        while len(found) < limit and (page := next(pages, None)) is not None:
            found += page
        return found[:limit]

    def pages(
        self,
        filter: Filter,  # noqa: A002 # the word of people
        *,
        now: float,
        after: MessageId | None = None,
        newest: bool = False,
        lane: LaneOf | None = None,
    ) -> Iterator[list[Message]]:
        """The same without a limit, some at a time; a part may be empty though more follow.

        Each takes milliseconds: who waits for a thread that does it can give up in between.
        """
        condition = Condition(filter, now, lane)
        begin: int | None = NO_KEY if newest else -1
        if after is not None:  # another queue's message may have the same key, and another id
            begin = key_of(after) + (1 if newest else -1)
        while begin is not None:
            page = self.page(condition, begin, newest=newest)
            begin = page.after
            found = [hit.message for hit in page.hits]
            if after is not None:
                found = [each for each in found if (each.id < after if newest else each.id > after)]
            yield found

    def page(self, condition: Condition, after: int, *, newest: bool = False) -> Page:
        """A part of a search that takes milliseconds.

        Args:
            condition: who is meant.
            after: the key behind which it begins.
            newest: these first.

        Raises:
            As `search`.
        """
        with self._connection() as connection:
            return read_page(connection, condition, after, newest=newest)

    def get(self, id: MessageId) -> Message | None:  # noqa: A002 # the word of people
        """One message, finished or not; None if it is not known, or no longer.

        Raises:
            As `search`.
        """
        timeline = self.timeline(id)
        return timeline.message if timeline is not None else None

    def timeline(self, id: MessageId) -> Timeline | None:  # noqa: A002 # the word of people
        """What happened to one message, finished or not; None if it is not known, or no longer.

        Raises:
            As `search`.
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
            notes: list[tuple[bytes]] = connection.execute(
                "SELECT record FROM note WHERE key = ? ORDER BY number", (key,)
            ).fetchall()
        attempts = [decode_attempt(record) for (record,) in rows] + list(read.attempts)
        attempts.sort(key=lambda attempt: attempt.ended)
        return Timeline(
            message=read.message,
            finished_at=read.finished_at,
            attempts=tuple(attempts),
            notes=tuple([decode_note(record) for (record,) in notes]),
        )

    def stats(self) -> Stats:
        """How full the queue is. Walks indexes of what is unfinished: 10 ms for 100,000.

        Raises:
            As `search`.
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

    def body(self, id: MessageId) -> bytes | None:  # noqa: A002 # the word of people
        """The content of a message, all of it; None if it is finished or not known.

        For large ones see `body_file`.

        Raises:
            As `search`, and OSError.
        """
        with self._connection() as connection:
            read = _read(connection, key_of(id)) if parse_id(id) else None
            if read is None or read.message.id != id or read.finished_at is not None:
                return None
            content = _content(connection, key_of(id))
        return content if content is not None else self._bodies.path(id).read_bytes()

    def receipt(self, key: str) -> Receipt | None:
        """What was answered to whoever came with this key; None if nobody did, or long ago.

        Raises:
            As `search`.
        """
        with self._connection() as connection:
            row: tuple[str, bytes, float] | None = connection.execute(
                "SELECT id, digest, at FROM receipt WHERE key = ?", (key,)
            ).fetchone()
        return None if row is None else Receipt(key, *row)

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
            connection = connect(database(self._folder))
        try:
            yield connection
        finally:
            with self._lock:
                self._free.append(connection)


def connect(path: Path) -> sqlite3.Connection:
    """Open the database for one who only reads.

    Raises:
        SpoolError: there is none, or it is of another version.
        sqlite3.Error: the disk.
    """
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


def _read(connection: sqlite3.Connection, key: int) -> Found | None:
    return next(iter(read_messages(connection, [key])), None)


def _content(connection: sqlite3.Connection, key: int) -> bytes | None:
    row: tuple[bytes] | None = connection.execute(
        "SELECT content FROM body WHERE key = ?", (key,)
    ).fetchone()
    return row[0] if row is not None else None
