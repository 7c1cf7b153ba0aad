"""Mailboxes and aliases as sites keep them: in PostgreSQL, in SQLite, in a file, behind HTTP."""

from __future__ import annotations

import contextlib
import http.server
import json
import smtplib
import sqlite3
import threading
import urllib.parse
from typing import TYPE_CHECKING, ClassVar

import pytest
from typing_extensions import override

from elemta.config import Query
from elemta.maps import database_of
from elemta.maps.sql import MOST
from tests.scenarios import messages, ports
from tests.scenarios.directories import postgresql
from tests.scenarios.test_users import needs_postgresql

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.scenarios.conftest import MakeDaemon
    from tests.scenarios.daemon import Daemon
    from tests.scenarios.directories import PostgreSql

pytestmark = pytest.mark.scenario

DOMAIN = {"name": "example.org", "delimiter": "+", "mailbox_map": "users", "alias_map": "aliases"}


def recipient(daemon: Daemon, address: str) -> tuple[int, str]:
    """What is answered to RCPT."""
    with smtplib.SMTP("127.0.0.1", daemon.port, "client.example", timeout=60.0) as client:
        client.ehlo()
        client.mail("ann@far.example")
        code, text = client.rcpt(address)
    return code, text.decode()


def answers(daemon: Daemon, address: str, code: int) -> bool:
    return recipient(daemon, address)[0] == code


def see_that_much_is_not_fetched(database: PostgreSql) -> None:
    """Of what a query finds no more than is used: all of it would be gigabytes."""
    known = ("key", "local_part", "domain")
    for number, rows in ((0, 0), (1, 1), (10**9, MOST), (2, 2)):
        query = Query.parse(f"SELECT generate_series(1, {number}), :key::text", known)
        asked = database_of(database.url, query, 20.0, "maps.x")
        for _ in range(2):
            assert len(asked.query({"key": "bob"}).rows) == rows
        asked.close()


@needs_postgresql
def test_a_database_has_the_users_and_what_is_down_is_put_off(
    make_elemta: MakeDaemon, place: Path
) -> None:
    with postgresql(place / "postgresql") as database:
        see_that_much_is_not_fetched(database)
        database.do("CREATE TABLE users (name text, domain text, PRIMARY KEY (name, domain))")
        database.do("CREATE TABLE aliases (address text, led text)")
        database.do("INSERT INTO users VALUES ('bob', 'example.org'), ('o''brien', 'example.org')")
        database.do("INSERT INTO aliases VALUES ('team@example.org', 'bob, o''brien@example.org')")
        daemon = make_elemta(
            {
                "domains": [DOMAIN],
                "maps": {
                    "users": {
                        "database": database.url,
                        "query": "SELECT 1 FROM users WHERE name = :local_part"
                        " AND domain = :domain AND name NOT LIKE 'x%'",
                        "ttl": "1 s",
                        "negative_ttl": "0 s",
                        "timeout": "5 s",
                    },
                    "aliases": {
                        "database": database.url,
                        "query": "SELECT led FROM aliases WHERE address = :key",
                        "ttl": "1 s",
                        "stale": "1 h",
                    },
                },
            }
        )
        daemon.start()
        message = messages.numbered("by-map")
        daemon.send(message, ["Team@example.org", "bob+list@example.org"], "ann@far.example")
        ports.eventually(lambda: daemon.waiting() == 0, what="delivery")
        assert len(daemon.maildir("o%27brien@example.org")) == 1
        (kept,) = daemon.maildir("bob@example.org")  # once, though named twice
        assert b"Delivered-To: bob@example.org\nX-Original-To: Team@example.org\n" in kept
        assert recipient(daemon, "eve@example.org")[0] == 550
        assert recipient(daemon, "x'; DROP TABLE users; --@example.org")[0] in (501, 550, 553)

        database.stop()
        ports.eventually(lambda: answers(daemon, "bob@example.org", 451), what="the database gone")
        assert recipient(daemon, "bob@example.org") == (
            451,
            "4.4.3 who that is cannot be found out just now",
        )
        assert recipient(daemon, "eve@example.org")[0] == 451  # never that he is not there
        assert any(line.startswith("the map users is down") for line in troubles(daemon))
        told = said(daemon, "explain", "--to", "bob@example.org", "--from", "ann@far.example")
        assert "the map users is down" in told

        database.start()
        ports.eventually(lambda: answers(daemon, "bob@example.org", 250), what="the database")
        assert recipient(daemon, "eve@example.org")[0] == 550
        assert [each["map"] for each in daemon.events("map.down")].count("users") == 1
        assert troubles(daemon) == []
        told = said(daemon, "explain", "--to", "team@example.org", "--from", "ann@far.example")
        assert "team@example.org is an alias of aliases: bob@example.org, o'brien@example" in told
        assert "the map users is asked for bob@example.org: 1" in told
        assert "database-secret" not in daemon.log.read_text()


def said(daemon: Daemon, *arguments: str) -> str:
    """What a command prints, though it may end with bad news."""
    return daemon.begin(*arguments).communicate(timeout=60.0)[0]


def troubles(daemon: Daemon) -> list[str]:
    return list(json.loads(said(daemon, "status", "--json"))["troubles"])


def test_a_file_is_read_again_and_a_mistake_in_it_is_named(make_elemta: MakeDaemon) -> None:
    daemon = make_elemta(
        {
            "domains": [{**DOMAIN, "mailbox_map": None, "mailboxes": ["bob", "eve"]}],
            "maps": {"aliases": {"file": "aliases"}},
        }
    )
    aliases = daemon.folder / "aliases"
    aliases.write_text("# ours\nsales: bob\n@example.org   eve\n")
    daemon.start()
    assert recipient(daemon, "sales@example.org")[0] == 250
    assert recipient(daemon, "anybody@example.org")[0] == 250
    aliases.write_text("sales: bob\n")
    ports.eventually(lambda: answers(daemon, "anybody@example.org", 550), what="what changed")
    aliases.write_text("sales: bob\nnobody\n")
    ports.eventually(lambda: read_again(daemon), what="the mistake")
    assert recipient(daemon, "sales@example.org")[0] == 250
    (event,) = daemon.events("map.unreadable")
    assert str(event["problem"]).endswith("line 2: expected a key and its values, not 'nobody'")


def read_again(daemon: Daemon) -> bool:
    recipient(daemon, "sales@example.org")
    return daemon.events("map.unreadable") != []


class People(http.server.BaseHTTPRequestHandler):
    """Knows aliases."""

    known: ClassVar[dict[str, list[str]]] = {"team@example.org": ["bob", "far@far.example"]}

    def do_GET(self) -> None:
        found = self.known.get(urllib.parse.unquote(self.path.removeprefix("/of/")))
        body = json.dumps(found).encode()
        self.send_response(404 if found is None else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    @override
    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def people() -> Iterator[int]:
    """The port of a service that runs."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), People)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_mailboxes_in_sqlite_and_aliases_behind_http(make_elemta: MakeDaemon) -> None:
    with people() as port:
        daemon = make_elemta(
            {
                "domains": [DOMAIN],
                "routes": [{"match": "*", "via": ["discard"]}],
                "maps": {
                    "users": {
                        "database": "sqlite:users.db",
                        "query": "SELECT 1 FROM users WHERE name = :local_part",
                    },
                    "aliases": {"http": f"http://127.0.0.1:{port}/of/{{key}}"},
                },
            }
        )
        with contextlib.closing(sqlite3.connect(daemon.folder / "users.db")) as database:
            database.execute("CREATE TABLE users (name TEXT)")
            database.execute("INSERT INTO users VALUES ('bob')")
            database.commit()
        daemon.start()
        daemon.send(messages.numbered("sqlite"), ["team+x@example.org"], "ann@far.example")
        ports.eventually(lambda: daemon.maildir("bob@example.org") != [], what="delivery")
        assert recipient(daemon, "eve@example.org")[0] == 550
        daemon.tell("check")
