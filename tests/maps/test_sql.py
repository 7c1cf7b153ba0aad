from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from elemta.config import Query
from elemta.maps import MapDownError
from elemta.maps.sql import Postgresql, Sql, Sqlite
from elemta.testing import at_once

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

KNOWN = ("key", "local_part", "domain")


@pytest.fixture
def database(tmp_path: Path) -> Generator[sqlite3.Connection]:
    connection = sqlite3.connect(tmp_path / "mail.db", isolation_level=None)
    connection.execute("CREATE TABLE aliases (address TEXT, led TEXT)")
    connection.executemany(
        "INSERT INTO aliases VALUES (?, ?)",
        [
            ("bob@example.org", "carol@example.org, dave@example.net"),
            ("bob@example.org", "eve@example.org"),
            ("here@example.org", None),
        ],
    )
    yield connection
    connection.close()


def asks(folder: Path, query: str, timeout: float = 5) -> Sql:
    return Sql(Sqlite(folder / "mail.db", Query.parse(query, KNOWN), timeout), at_once)


async def test_the_first_column_of_each_row_is_a_value_or_several(
    database: sqlite3.Connection, tmp_path: Path
) -> None:
    source = asks(tmp_path, "SELECT led FROM aliases WHERE address = :key")
    assert await source.find("bob@example.org") == (
        *("carol@example.org", "dave@example.net", "eve@example.org"),
    )
    assert await source.find("here@example.org") == ()
    assert await source.find("gone@example.org") is None


async def test_what_is_asked_for_is_no_part_of_the_query(
    database: sqlite3.Connection, tmp_path: Path
) -> None:
    source = asks(tmp_path, "SELECT led FROM aliases WHERE address = :local_part || '@' || :domain")
    assert await source.find("x' OR '1'='1@example.org") is None
    found = await source.find("bob@example.org")
    assert found is not None
    assert len(found) == 3


async def test_a_query_can_only_read(database: sqlite3.Connection, tmp_path: Path) -> None:
    source = asks(tmp_path, "DELETE FROM aliases WHERE address = :key")
    with pytest.raises(MapDownError, match="readonly"):
        await source.find("bob@example.org")


async def test_a_database_that_is_not_there_is_down_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(MapDownError, match="unable to open"):
        await asks(tmp_path, "SELECT :key").find("bob")
    assert not (tmp_path / "mail.db").exists()


async def test_a_query_that_takes_too_long_is_ended(
    database: sqlite3.Connection, tmp_path: Path
) -> None:
    for_ever = (
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n)"
        " SELECT count(*) FROM n WHERE x = :key"
    )
    with pytest.raises(MapDownError, match="interrupted"):
        await asks(tmp_path, for_ever, timeout=0.05).find("bob")


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("SELECT :key", "SELECT %(key)s"),
        ("SELECT ':x', \":x\", :key::text -- :x", "SELECT ':x', \":x\", %(key)s::text -- :x"),
        ("x LIKE 'a%' AND y = :domain", "x LIKE 'a%%' AND y = %(domain)s"),
    ],
)  # fmt: skip
def test_a_parameter_is_none_in_quotes(text: str, written: str) -> None:
    query = Query.parse(text, KNOWN)
    assert query.written(lambda n: f"%({n})s", lambda t: t.replace("%", "%%")) == written


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("SELECT :address", "expected one of :key, :local_part, :domain, not :address"),
        ("SELECT 1", "expected a query with one of :key, :local_part, :domain in it"),
    ],
)
def test_other_parameters_are_refused(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Query.parse(text, KNOWN)


@pytest.mark.parametrize("more", ["", "?options=-c%20search_path%3Dmail"])
def test_postgresql_is_told_to_give_up_and_to_write_nothing_whatever_else_it_is_told(
    more: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    def connect(conninfo: str, **_: object) -> None:
        told.append(conninfo)
        raise psycopg.OperationalError("refused")

    monkeypatch.setattr(psycopg, "connect", connect)
    query = Query.parse("SELECT :key", KNOWN)
    database = Postgresql(f"postgresql://127.0.0.1/mail{more}", query, 5, "maps.x")
    with pytest.raises(MapDownError, match="refused"):
        database.query({"key": "bob"})
    options = conninfo_to_dict(told[0])["options"]
    assert isinstance(options, str)
    assert options.startswith("-c statement_timeout=5000 -c default_transaction_read_only=on")
    assert ("search_path=mail" in options) is bool(more)
