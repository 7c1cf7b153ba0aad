from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import argon2
import pytest
import trio
from msgspec.structs import replace

from elemta.config import ConfigError
from elemta.login import (
    App,
    ScramVerifier,
    Usage,
    User,
    UserFile,
    UserFileError,
    hash_app_password,
    usage_name,
)
from elemta.plugins import CONTINUE, Defer, Granted, Known, Reject
from elemta.plugins.built_in import hashing
from elemta.plugins.built_in.users_file import LOOK, Settings, UsersFile
from elemta.plugins.plugin import hooks
from elemta.protocol import Credentials
from elemta.testing import a_session, some_tools
from elemta.units import Seconds

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trio.testing import MockClock

    from elemta.plugins import Session, Verdict

CHEAP = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
HASH = CHEAP.hash("correct horse")
VERIFIER = ScramVerifier.of("correct horse", iterations=4096)
APP = "abcd-efgh-ijkm-npqr-stuv-wxyz-2345"
BOB = User(
    password=HASH,
    scram=str(VERIFIER),
    addresses=["sales@example.org", "@example.net"],
    apps={"phone": App(password=hash_app_password(APP))},
)
GRANTED = Granted("bob@example.org", ("sales@example.org", "@example.net"))


class Place:
    """A file of users, and the plugin that knows them.

    Attributes:
        verified: the hashes that passwords were held against.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.file = UserFile(folder / "users.yaml")
        self.folder = folder / "plugins"
        self.verified: list[str] = []
        self.write({"bob@example.org": BOB})
        self.plugin = self.a_plugin()
        really = hashing.verify_password

        def verify(kept: str, password: str) -> bool:
            self.verified.append(kept)
            return really(kept, password)

        monkeypatch.setattr(hashing, "verify_password", verify)

    def a_plugin(self, remember: float = 300) -> UsersFile:
        plugin = UsersFile(Settings(file=self.file.path, remember=Seconds(remember)))
        plugin.tools = some_tools("users-file", folder=self.folder)
        return plugin

    def write(self, users: dict[str, User]) -> None:
        def alter(known: dict[str, User]) -> None:
            known.clear()
            known.update(users)

        self.file.path.unlink(missing_ok=True)  # it may be broken
        self.file.change(alter, make=True)

    async def ask(
        self, password: str, user: str = "bob@example.org", plugin: UsersFile | None = None
    ) -> Granted | Verdict:
        plugin = plugin or self.plugin
        return await plugin.on_authenticate(a_session(), Credentials(user, password))


@pytest.fixture
async def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    place = Place(tmp_path, monkeypatch)
    await place.plugin.start()
    return place


async def test_who_says_his_password_is_let_in_with_his_addresses(place: Place) -> None:
    assert await place.ask("correct horse") == GRANTED
    assert await place.ask("correct horse", "BOB@Example.org") == GRANTED


async def test_who_says_another_is_not_and_nobody_else_is_asked(place: Place) -> None:
    assert isinstance(await place.ask("correct house"), Reject)
    assert isinstance(await place.ask("x\0"), Reject)


@pytest.mark.parametrize("user", ["eve@example.org", "a b"])
async def test_who_is_not_there_costs_as_much_as_who_is(place: Place, user: str) -> None:
    assert await place.ask("correct horse", user) == CONTINUE
    assert await place.ask("correct house") != CONTINUE
    other, own = place.verified
    assert own == HASH
    assert other != HASH
    assert other.rpartition("$")[0].rpartition("$")[0] == HASH.rpartition("$")[0].rpartition("$")[0]


async def test_fault_21_what_is_stored_is_no_password(place: Place) -> None:
    """Fault 21 of the original: a stored hash was accepted."""
    for text in (HASH, str(VERIFIER), hash_app_password(APP)):
        assert isinstance(await place.ask(text), Reject)


async def test_a_password_that_was_right_is_not_hashed_again_for_a_while(
    place: Place, autojump_clock: MockClock
) -> None:
    for _ in range(3):
        assert await place.ask("correct horse") == GRANTED
    assert len(place.verified) == 1
    assert isinstance(await place.ask("correct house"), Reject)
    assert len(place.verified) == 2
    await trio.sleep(300)
    assert await place.ask("correct horse") == GRANTED
    assert len(place.verified) == 3


async def test_that_can_be_switched_off(place: Place) -> None:
    plugin = place.a_plugin(remember=0)
    await plugin.start()
    for _ in range(2):
        await place.ask("correct horse", plugin=plugin)
    assert len(place.verified) == 2


async def test_another_password_holds_within_a_second(
    place: Place, autojump_clock: MockClock
) -> None:
    assert await place.ask("correct horse") == GRANTED
    place.write({"bob@example.org": User(password=CHEAP.hash("another"))})
    await trio.sleep(1)
    assert isinstance(await place.ask("correct horse"), Reject)
    assert await place.ask("another") == Granted("bob@example.org")
    assert place.plugin.tools.counts["read"] == 1


async def test_who_is_disabled_or_removed_is_out_though_he_was_right_before(
    place: Place, autojump_clock: MockClock
) -> None:
    assert await place.ask("correct horse") == GRANTED
    place.write({"bob@example.org": User(password=HASH, apps=BOB.apps, disabled=True)})
    await trio.sleep(1)
    assert isinstance(await place.ask("correct horse"), Reject)
    assert isinstance(await place.ask(APP), Reject)
    assert isinstance(await place.plugin.on_verifier(a_session(), "bob@example.org"), CONTINUE_KIND)
    place.write({})
    await trio.sleep(1)
    assert await place.ask("correct horse") == CONTINUE
    assert await place.ask(APP) == CONTINUE


async def test_with_a_mistake_in_the_file_what_was_holds(
    place: Place, autojump_clock: MockClock
) -> None:
    place.file.path.write_text("users: [")
    for _ in range(2):
        await trio.sleep(1)
        assert await place.ask("correct horse") == GRANTED
    assert place.plugin.tools.counts["not_read"] == 1
    place.write({})
    await trio.sleep(1)
    assert await place.ask("correct horse") == CONTINUE


async def test_a_file_is_read_by_one_thread_at_a_time_and_once_if_it_is_wrong(
    place: Place, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, read = list[str](), UserFile.read

    def slowly(file: UserFile) -> dict[str, User]:
        reads.append("begun")
        if len(reads) < 9:
            place.plugin._known.look()  # pyright: ignore[reportPrivateUsage] # as another thread does
        return read(file)

    monkeypatch.setattr(UserFile, "read", slowly)
    place.write({"bob@example.org": User(password=CHEAP.hash("another"))})
    await trio.sleep(1)
    assert await place.ask("another") == Granted("bob@example.org")
    assert len(reads) == 1
    place.file.path.write_text("users: none")
    for _ in range(3):
        await trio.sleep(1)
        assert await place.ask("another") == Granted("bob@example.org")
    assert len(reads) == 2


async def test_a_program_comes_with_a_password_of_its_own_that_costs_nothing(
    place: Place,
) -> None:
    found = await place.ask(APP.replace("-", ""))
    assert found == Granted("bob@example.org", GRANTED.addresses, "phone")
    assert place.verified == []
    assert await place.ask(APP, "eve@example.org") == CONTINUE


async def test_a_user_may_have_nothing_but_passwords_of_programs(
    place: Place, autojump_clock: MockClock
) -> None:
    place.write({"bob@example.org": User(apps=BOB.apps)})
    await trio.sleep(1)
    assert isinstance(await place.ask("correct horse"), Reject)
    assert isinstance(await place.ask("\0"), Reject)
    assert len(place.verified) == 2
    assert isinstance(await place.ask(APP), Granted)


async def test_scram_gets_what_is_kept_for_it(place: Place, autojump_clock: MockClock) -> None:
    plugin = place.plugin
    assert await plugin.on_verifier(a_session(), "Bob@example.org") == Known(VERIFIER, GRANTED)
    assert await plugin.on_verifier(a_session(), "eve@example.org") == CONTINUE
    place.write({"bob@example.org": User(password=HASH)})
    await trio.sleep(1)
    assert await plugin.on_verifier(a_session(), "bob@example.org") == CONTINUE


async def test_a_file_that_cannot_be_used_keeps_the_server_from_starting(place: Place) -> None:
    os.chmod(place.file.path, 0o644)
    plugin = place.a_plugin()
    with pytest.raises(UserFileError, match="its mode is 0644"):
        await plugin.start()
    with pytest.raises(ConfigError, match=r"^plugins\[3\]\.settings\.file: .*its mode is 0644"):
        plugin.examine("plugins[3].settings")


async def test_when_somebody_was_here_is_written_down_seldom(
    place: Place, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    usage = Usage(place.folder / usage_name(place.file.path))
    nursery.start_soon(place.plugin.run)
    await place.ask(APP)
    await place.ask("correct horse")
    now = place.plugin.tools.clock()
    await trio.sleep(61)
    assert usage.read() == {"bob@example.org": {"phone": now, "": now}}
    usage.path.unlink()
    await place.ask(APP)
    await trio.sleep(120)
    assert usage.read() == {}
    await place.plugin.stop()
    assert usage.read() == {"bob@example.org": {"phone": now}}


async def test_who_logged_in_by_scram_was_here_too(place: Place) -> None:
    session, usage = a_session(), Usage(place.folder / usage_name(place.file.path))
    await place.plugin.on_verifier(session, "bob@example.org")
    await place.plugin.on_disconnect(session)
    await place.plugin.stop()
    assert usage.read() == {}  # he has not proved it
    session.login = "bob@example.org"
    await place.plugin.on_disconnect(session)
    session.login = "somebody of another plugin"
    await place.plugin.on_disconnect(session)
    await place.plugin.stop()
    assert usage.read() == {"bob@example.org": {"": place.plugin.tools.clock()}}


async def test_few_passwords_are_hashed_at_a_time_and_who_waits_too_long_may_come_again(
    place: Place, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    begun: list[threading.Event] = []

    async def slow(call: Callable[[], object]) -> object:
        gate = trio.Event()
        begun.append(threading.Event())
        await gate.wait()
        return call()

    plugin = place.plugin
    await place.ask("correct horse")  # it has looked at the file
    plugin.tools.in_thread = slow  # type: ignore[assignment]
    answers: list[object] = []

    async def ask(password: str) -> None:
        answers.append(await place.ask(password))

    async with trio.open_nursery() as asking:
        for number in range(8):
            asking.start_soon(ask, f"wrong {number}")
        await trio.testing.wait_all_tasks_blocked()
        assert len(begun) == 2
    assert all(isinstance(each, (Defer, Reject)) for each in answers)
    assert any(isinstance(each, Defer) for each in answers)


async def test_scram_can_be_left_out(place: Place) -> None:
    without = UsersFile(Settings(file=place.file.path, scram=False))
    assert hooks(without) == ("on_authenticate", "on_account")
    assert hooks(place.plugin) == (
        *("on_authenticate", "on_verifier", "on_account", "on_disconnect"),
    )


def test_a_path_must_be_whole() -> None:
    with pytest.raises(ConfigError, match="expected a whole path"):
        UsersFile.configured({"file": "users.yaml"}, "plugins[0].settings")


CONTINUE_KIND = type(CONTINUE)


# Who is in, and sends on.


async def logged_in(place: Place, password: str = "correct horse") -> Session:
    session = a_session()
    found = await place.plugin.on_authenticate(session, Credentials("bob@example.org", password))
    assert isinstance(found, Granted)
    session.login, session.app = found.login, found.app
    return session


async def over(place: Place, session: Session) -> str:
    """Why a login is over; empty: it is not."""
    await trio.sleep(LOOK)
    found = await place.plugin.on_account(session)
    return found.note if isinstance(found, Reject) else ""


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"disabled": True}, "the user is disabled"),
        ({"password": CHEAP.hash("another")}, "has another password by now"),
        ({"addresses": []}, ""),
        ({"apps": {}}, ""),
    ],
)
async def test_a_login_is_over_once_the_file_says_so(
    changes: dict[str, object], why: str, place: Place, autojump_clock: MockClock
) -> None:
    session = await logged_in(place)
    assert await over(place, session) == ""
    place.write({"bob@example.org": replace(BOB, **changes)})
    assert await over(place, session) == why
    if "addresses" in changes:
        assert session.addresses == ()
    place.write({})
    assert await over(place, session) == "is not in the file any more"


async def test_an_app_password_that_is_taken_away_ends_what_came_by_it(
    place: Place, autojump_clock: MockClock
) -> None:
    session = await logged_in(place, APP)
    place.write({"bob@example.org": replace(BOB, password=CHEAP.hash("another"))})
    assert await over(place, session) == ""
    place.write({"bob@example.org": replace(BOB, apps={})})
    assert await over(place, session) == "has another password by now"


async def test_a_proof_holds_as_long_as_its_verifier(
    place: Place, autojump_clock: MockClock
) -> None:
    session = a_session()
    await place.plugin.on_verifier(session, "bob@example.org")
    session.login = "bob@example.org"
    place.write({"bob@example.org": replace(BOB, password=CHEAP.hash("another"))})
    assert await over(place, session) == ""
    verifier = str(ScramVerifier.of("another", iterations=4096))
    place.write({"bob@example.org": replace(BOB, scram=verifier)})
    assert await over(place, session) == "has another password by now"


async def test_who_was_let_in_by_others_is_theirs(place: Place, autojump_clock: MockClock) -> None:
    session = await logged_in(place)
    session.login = "eve@example.org"
    place.write({})
    assert await over(place, session) == ""
