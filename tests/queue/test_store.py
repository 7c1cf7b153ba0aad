from __future__ import annotations

import itertools
import shutil
import sqlite3
from typing import TYPE_CHECKING

import pytest

from elemta.queue import Message, Recipient, SpoolError, State
from elemta.queue.change import Insert, Settle
from elemta.queue.entry import Entry
from elemta.queue.ids import IdSource
from elemta.queue.load import Load, load_entry
from elemta.queue.operation import Call
from elemta.queue.schema import INLINE, Phase
from elemta.queue.store import ROWS, STRETCH, Store
from elemta.queue.window import LOAD, NO_KEY, Cursors
from tests.queue.mail import CONTENT, address

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

new_id = IdSource(lambda: 1_790_000_000.0)
START = Cursors(-1, (float("-inf"), -1))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "queue")
    yield store
    store.close()


def insert(name: str | None = None) -> Insert:
    message = Message(
        id=name or new_id(),
        sender=None,
        recipients=[Recipient(number=0, address=address("a@x"))],
        received_at=0.0,
        expires_at=1e12,
        size=len(CONTENT),
    )
    return Insert(Entry(message), CONTENT, lambda _: None)


def count(store: Store, table: str) -> int:
    found: tuple[int] = store.connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    return found[0]


def load(store: Store, begin: Cursors = START, until: float = 1e12) -> tuple[list[Entry], Cursors]:
    got: list[tuple[list[Entry], Cursors]] = []

    def loaded(wanted: list[Entry], entries: list[Entry], reached: Cursors | None) -> None:
        assert wanted == []
        assert reached is not None
        got.append((entries, reached))

    operation = Load((), begin, until, (), loaded, lambda: None)
    store.apply([operation])
    operation.written()
    return got[0]


def test_the_log_grows_seldom_as_each_time_costs_the_disk_a_flush(
    store: Store, tmp_path: Path
) -> None:
    log = tmp_path / "queue" / "queue.db-wal"
    sizes: list[int] = []
    for _ in range(400):
        store.apply([insert()])
        sizes.append(log.stat().st_size)
    grown = [after - before for before, after in itertools.pairwise(sizes) if after > before]
    assert sizes[-1] > 2 * STRETCH
    assert len(grown) < 15
    assert max(grown) < STRETCH + 2**17


def test_a_log_with_room_behind_its_end_is_read_to_its_end(store: Store, tmp_path: Path) -> None:
    names = [new_id() for _ in range(3)]
    for name in names:
        store.apply([insert(name)])
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "queue", copy)  # as a kill leaves it: nobody has closed the log
    (copy / "queue.db-shm").unlink()
    assert (copy / "queue.db-wal").read_bytes().endswith(bytes(4096))
    again = Store(copy)
    assert [entry.message.id for entry in load(again)[0]] == names
    again.close()


@pytest.mark.parametrize("number", [1, ROWS - 1, ROWS, ROWS + 1, 3 * ROWS])
def test_a_group_of_any_size_is_written_whole(store: Store, number: int) -> None:
    store.apply([insert() for _ in range(number)])
    assert count(store, "message") == count(store, "body") == number


def test_a_group_that_fails_leaves_nothing(store: Store) -> None:
    name = new_id()
    with pytest.raises(sqlite3.IntegrityError):
        store.apply([insert(), insert(name), insert(name)])
    assert count(store, "message") == count(store, "body") == 0
    store.apply([insert(name)])
    assert count(store, "message") == 1


def test_a_database_that_may_not_grow_refuses_and_then_recovers(store: Store) -> None:
    # The real error of a full disk, made by SQLite itself.
    (pages,) = store.connection.execute("PRAGMA page_count").fetchone()
    store.connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(sqlite3.OperationalError, match="database or disk is full"):
        store.apply([insert() for _ in range(200)])
    assert count(store, "message") == 0
    store.connection.execute("PRAGMA max_page_count = 1000000")
    store.apply([insert()])
    assert count(store, "message") == 1


def test_a_transaction_that_somebody_ended_is_not_ended_twice(store: Store) -> None:
    def fail(connection: sqlite3.Connection) -> None:
        connection.execute("ROLLBACK")
        raise sqlite3.OperationalError("disk I/O error")

    with pytest.raises(sqlite3.OperationalError, match="disk I/O error"):
        store.apply([insert(), Call(fail)])
    assert count(store, "message") == 0


def test_the_files_are_for_their_owner_alone(store: Store, tmp_path: Path) -> None:
    store.apply([insert()])
    folder = tmp_path / "queue"
    for path in (folder, *folder.rglob("*")):  # SQLite's log among them
        assert path.stat().st_mode & 0o077 == 0, path
    assert (folder / "queue.db-wal").stat().st_size > 0


def test_a_second_process_is_told_which_one_has_it(store: Store, tmp_path: Path) -> None:
    with pytest.raises(SpoolError, match=r"in use by process \d+"):
        Store(tmp_path / "queue")


def test_a_store_that_cannot_be_opened_lets_go_of_its_lock(tmp_path: Path) -> None:
    (tmp_path / "queue").mkdir()
    (tmp_path / "queue" / "queue.db").write_bytes(b"Dear Sir or Madam," * 100)
    for _ in range(2):
        with pytest.raises(SpoolError, match="not a database"):
            Store(tmp_path / "queue")


def test_the_length_of_history_is_remembered(tmp_path: Path) -> None:
    store = Store(tmp_path / "queue")
    assert store.history == 0
    store.history = 7
    store.close()
    store = Store(tmp_path / "queue")
    assert store.history == 7
    store.close()


def test_loading_goes_on_where_it_ended(store: Store) -> None:
    inserts = [insert() for _ in range(2 * LOAD + 3)]
    store.apply(inserts)
    got: list[int] = []
    cursors = START
    for _ in range(3):
        entries, cursors = load(store, cursors)
        got += [entry.key for entry in entries]
    assert got == [each.entry.key for each in inserts]
    assert cursors.key == NO_KEY


def test_rows_of_no_message_are_passed_over(store: Store) -> None:
    put_recipient = "INSERT INTO recipient VALUES (?, ?, 'deferred', ?, x'9200c0')"
    store.connection.execute(put_recipient, (12345, 0, 1.0))
    entries, cursors = load(store)
    assert entries == []
    assert cursors.due == (float("inf"), NO_KEY)


def test_a_message_with_two_recipients_due_is_loaded_once(store: Store) -> None:
    both = insert()
    both.entry.message.recipients.append(Recipient(number=1, address=address("b@x")))
    both = Insert(both.entry, CONTENT, lambda _: None)
    store.apply([both])
    key = both.entry.key
    store.connection.execute("UPDATE message SET phase = 1")
    put_recipient = "INSERT INTO recipient VALUES (?, ?, 'deferred', ?, x'9201c0')"
    for number in (0, 1):
        store.connection.execute(put_recipient, (key, number, 1.0 + number))
    (entry,), cursors = load(store)
    assert entry.phase is Phase.SCATTERED
    assert [(each.due, each.attempts) for each in entry.message.recipients] == [(1.0, 1), (2.0, 1)]
    entries, cursors = load(store, until=0.5)
    assert entries == []
    assert cursors.due == (1.0, key - 1)


def test_a_message_of_which_nothing_was_settled_is_read_as_it_came(store: Store) -> None:
    new = insert()
    store.apply([new])
    entry = load_entry(store.connection, new.entry.key)
    assert entry is not None
    assert entry.phase is Phase.WHOLE
    assert entry.message == new.entry.message
    assert load_entry(store.connection, new.entry.key + 1) is None


def test_a_body_goes_only_when_it_is_durable_that_it_is_not_needed(store: Store) -> None:
    large = insert()
    large.entry.message.size = INLINE + 1
    store.apply([Insert(large.entry, None, lambda _: None)])
    path = store.bodies.path(large.entry.message.id)
    path.write_bytes(b"large")
    large.entry.message.recipients[0].state = State.DELIVERED
    large.entry.left = 0
    settle = Settle(large.entry, large.entry.message.recipients, (), (), 0.0, lambda _: None)

    def fail(_: sqlite3.Connection) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with pytest.raises(sqlite3.OperationalError):
        store.apply([settle, Call(fail)])
    assert path.exists()
    store.apply([settle])
    assert not path.exists()
