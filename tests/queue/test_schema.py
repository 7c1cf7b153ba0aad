from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest

from elemta.queue import SpoolError
from elemta.queue.schema import MIGRATIONS, VERSION, open_database, version_of

if TYPE_CHECKING:
    from pathlib import Path


def test_an_empty_file_becomes_the_newest_version(tmp_path: Path) -> None:
    connection = open_database(tmp_path / "queue.db")
    assert version_of(connection) == VERSION
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert connection.execute("PRAGMA auto_vacuum").fetchone() == (2,)  # INCREMENTAL
    assert connection.execute("PRAGMA journal_size_limit").fetchone() == (64 * 2**20,)
    connection.close()


def test_opening_again_changes_nothing(tmp_path: Path) -> None:
    for _ in range(2):
        connection = open_database(tmp_path / "queue.db")
        tables = connection.execute("SELECT name FROM sqlite_master ORDER BY name").fetchall()
        assert ("message",) in tables
        connection.close()


def test_a_database_of_the_first_version_is_brought_up_to_date(tmp_path: Path) -> None:
    first = sqlite3.connect(tmp_path / "queue.db", isolation_level=None)
    first.executescript(MIGRATIONS[0])
    first.execute("PRAGMA user_version = 1")
    first.execute("INSERT INTO tally VALUES ('history', 7)")
    first.close()
    connection = open_database(tmp_path / "queue.db")
    assert version_of(connection) == VERSION
    assert connection.execute("SELECT value FROM tally").fetchone() == (7,)
    assert connection.execute("SELECT count(*) FROM note").fetchone() == (0,)
    assert connection.execute("SELECT count(*) FROM suspension").fetchone() == (0,)
    connection.close()


def test_a_database_from_the_future_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    connection = open_database(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(SpoolError, match=r"version 99.*or a later one"):
        open_database(path)
    other = sqlite3.connect(path)
    assert version_of(other) == 99
    other.close()


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "queue.db").write_bytes(b"Dear Sir or Madam," * 100)
    with pytest.raises(SpoolError, match="not a database"):
        open_database(tmp_path / "queue.db")


def test_a_disk_that_fails_at_the_start_says_so_itself(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        open_database(tmp_path / "no" / "such" / "folder.db")
    (tmp_path / "queue.db").mkdir()
    with pytest.raises(sqlite3.OperationalError):
        open_database(tmp_path / "queue.db")
