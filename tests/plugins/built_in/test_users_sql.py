from __future__ import annotations

import sqlite3
import sys
from typing import TYPE_CHECKING

import argon2
import pytest
import trio

from elemta.config import ConfigError
from elemta.login import ScramVerifier, hash_app_password
from elemta.plugins import CONTINUE, Defer, Granted, Known, Reject
from elemta.plugins.built_in import hashing
from elemta.plugins.built_in.elsewhere import LOOKING
from elemta.plugins.built_in.users_sql import UsersSql
from elemta.plugins.plugin import hooks
from elemta.protocol import Credentials
from elemta.testing import a_session, some_tools

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

    from elemta.plugins import Session, Verdict

CHEAP = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
HASH = CHEAP.hash("horse")
VERIFIER = ScramVerifier.of("horse", iterations=4096)
APP = "abcd-efgh-ijkm-npqr-stuv-wxyz-2345"
QUERY = "SELECT login, password, scram, addresses, app FROM users WHERE name = :user"
GRANTED = Granted("bob@example.org", ("sales@example.org", "@example.net"))


class Place:
    """A database of users."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.do("CREATE TABLE users (name, login, password, scram, addresses, app)")
        addresses = "sales@example.org, @example.net nonsense"
        self.add("bob@example.org", None, HASH, str(VERIFIER), addresses, None)
        self.add("bob@example.org", None, hash_app_password(APP), None, None, "phone")
        self.add("nick", "ann@example.org", HASH, None, None, None)

    def do(self, statement: str, *values: object) -> None:
        connection = sqlite3.connect(self.path)
        with connection:
            connection.execute(statement, values)
        connection.close()

    def add(self, *row: str | None) -> None:
        self.do("INSERT INTO users VALUES (?, ?, ?, ?, ?, ?)", *row)

    async def plugin(self, **settings: object) -> UsersSql:
        told = {"database": f"sqlite:{self.path}", "query": QUERY, **settings}
        plugin = UsersSql.configured(told, "plugins[0].settings")
        plugin.tools = some_tools("users-sql")
        await plugin.start()
        return plugin


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "users.db")


async def ask(plugin: UsersSql, password: str, user: str = "bob@example.org") -> Granted | Verdict:
    return await plugin.on_authenticate(a_session(), Credentials(user, password))


async def test_who_is_in_the_database_with_that_password_is_let_in(place: Place) -> None:
    plugin = await place.plugin()
    assert await ask(plugin, "horse", "BOB@example.org") == GRANTED
    assert isinstance(await ask(plugin, "house"), Reject)
    assert isinstance(await ask(plugin, HASH), Reject)  # fault 21 of the original
    assert await ask(plugin, "horse", "nick") == Granted("ann@example.org")


async def test_a_program_comes_with_a_password_of_its_own(place: Place) -> None:
    plugin = await place.plugin()
    assert await ask(plugin, APP.upper()) == Granted("bob@example.org", (), "phone")
    assert isinstance(await ask(plugin, hash_app_password(APP)), Reject)


async def test_who_is_not_there_costs_as_much(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified: list[str] = []

    def verify(kept: str, password: str) -> bool:
        verified.append(kept)
        return False

    monkeypatch.setattr(hashing, "verify_password", verify)
    plugin = await place.plugin()
    assert isinstance(await ask(plugin, "horse"), Reject)
    assert await ask(plugin, "horse", "eve@example.org") == CONTINUE
    assert verified[0] == HASH
    assert [each.rpartition("$")[0].rpartition("$")[0] for each in verified] == [
        HASH.rpartition("$")[0].rpartition("$")[0]
    ] * 2


@pytest.mark.parametrize(
    "user", ["' OR '1'='1", "x'; DROP TABLE users; --", "%", "bob@example.or_"]
)
async def test_what_somebody_calls_himself_is_no_part_of_the_query(place: Place, user: str) -> None:
    plugin = await place.plugin()
    assert await ask(plugin, "horse", user) == CONTINUE
    assert await ask(plugin, "horse") == GRANTED


async def test_a_name_can_be_asked_for_by_its_parts(place: Place) -> None:
    query = "SELECT password FROM users WHERE name = :local_part || '@' || :domain"
    plugin = await place.plugin(query=query)
    assert await ask(plugin, "horse") == Granted("bob@example.org")
    assert await ask(plugin, "horse", "nick") == CONTINUE


async def test_what_was_right_is_not_asked_again_for_a_while(
    place: Place, autojump_clock: MockClock
) -> None:
    plugin = await place.plugin()
    assert await ask(plugin, "horse") == GRANTED
    place.do("DELETE FROM users")
    assert await ask(plugin, "horse") == GRANTED
    await trio.sleep(300)
    assert await ask(plugin, "horse") == CONTINUE


async def test_a_database_that_cannot_be_asked_puts_off(place: Place) -> None:
    plugin = await place.plugin()
    plugin.examine("plugins[0].settings")
    place.path.unlink()
    with pytest.raises(ConfigError, match=r"settings\.database: there is no file"):
        plugin.examine("plugins[0].settings")
    assert isinstance(await ask(plugin, "horse"), Defer)
    assert isinstance(await plugin.on_verifier(a_session(), "bob@example.org"), Defer)
    assert plugin.tools.counts["down"] == 2


@pytest.mark.parametrize(
    "query",
    ["SELECT login FROM users WHERE name = :user", "SELECT '{SSHA}x' AS password WHERE :user > ''"],
)
async def test_an_answer_that_is_none_puts_off(place: Place, query: str) -> None:
    assert isinstance(await ask(await place.plugin(query=query), "horse"), Defer)


async def test_scram_gets_what_is_kept_for_it(place: Place) -> None:
    plugin = await place.plugin(scram=True)
    assert hooks(plugin) == ("on_authenticate", "on_verifier", "on_account")
    assert await plugin.on_verifier(a_session(), "BOB@example.org") == Known(VERIFIER, GRANTED)
    for other in ("nick", "eve", "a b"):
        assert await plugin.on_verifier(a_session(), other) == CONTINUE
    place.do("UPDATE users SET scram = 'nonsense'")
    assert isinstance(await plugin.on_verifier(a_session(), "bob@example.org"), Defer)
    assert hooks(await place.plugin()) == ("on_authenticate", "on_account")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"database": "mysql://x"}, "expected sqlite:PATH or postgresql"),
        ({"database": "sqlite:users.db"}, "expected a whole path"),
        ({"database": "postgresql://u@h/d?password=horse"}, "where it would be shown"),
        ({"query": "SELECT 1"}, "expected a query with one of :user"),
        ({"query": "SELECT :password"}, "not :password"),
        ({"timeout": "0 s"}, "more than 0 s"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told) as refused:
        UsersSql.configured(
            {"database": "sqlite:/x", "query": QUERY, **settings}, "plugins[0].settings"
        )
    assert "horse" not in str(refused.value)


def test_without_its_driver_postgresql_is_a_mistake_of_the_configuration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigError, match=r"plugins\[0\]\.settings\.database: needs a driver"):
        UsersSql.configured(
            {"database": "postgresql://u@h/d", "query": QUERY}, "plugins[0].settings"
        )


async def logged_in(plugin: UsersSql, password: str) -> Session:
    session = a_session()
    found = await plugin.on_authenticate(session, Credentials("bob@example.org", password))
    assert isinstance(found, Granted)
    session.login = found.login
    return session


async def over(plugin: UsersSql, session: Session) -> str:
    """Why a login is over; empty: it is not."""
    await trio.sleep(LOOKING)
    found = await plugin.on_account(session)
    return found.note if isinstance(found, Reject) else ""


async def test_a_login_is_over_once_the_database_says_so(
    place: Place, autojump_clock: MockClock
) -> None:
    plugin = await place.plugin()
    session = await logged_in(plugin, "horse")
    again = await logged_in(plugin, "horse")  # remembered
    assert await over(plugin, session) == await over(plugin, again) == ""
    place.do("UPDATE users SET password = ? WHERE app IS NULL", CHEAP.hash("new"))
    assert await plugin.on_account(again) == CONTINUE, "it is not asked each time"
    assert await over(plugin, session) == "has another password by now"
    assert await over(plugin, again) == "has another password by now"
    session = await logged_in(plugin, "new")
    place.do("DELETE FROM users")
    assert await over(plugin, session) == "is not there any more"
    place.do("DROP TABLE users")
    assert await over(plugin, session) == "", "who cannot be asked sends nobody away"
