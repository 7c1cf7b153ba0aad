from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING

import pytest
import trio
from typing_extensions import override

from elemta.control.tracing import sessions, transcripts
from elemta.plugins import (
    CONTINUE,
    Accept,
    Chain,
    Defer,
    Discard,
    Granted,
    Loaded,
    Plugin,
    Quarantine,
    Reject,
    Verdict,
)
from tests.dialogue import Server

if TYPE_CHECKING:
    import io

    from trio.testing import MockClock

    from elemta.plugins import Session
    from elemta.protocol import Credentials

PASSWORD = "correct horse"


def plain(user: str = "ann", password: str = PASSWORD, acting_as: str = "") -> str:
    return b64encode(f"{acting_as}\0{user}\0{password}".encode()).decode()


def said(text: str) -> str:
    return b64encode(text.encode()).decode()


class Users(Plugin):
    """Knows ann, and answers for some others as it is told to: what is an exception is raised."""

    name = "users"

    def __init__(self, seconds: float = 0.0, **others: object) -> None:
        self._seconds = seconds
        self._others = others
        self.asked: list[Credentials] = []

    @override
    async def on_authenticate(
        self, session: Session, credentials: Credentials
    ) -> Granted | Verdict:
        self.asked.append(credentials)
        await trio.sleep(self._seconds)
        if credentials.user == "ann":
            return Granted("ann") if credentials.password == PASSWORD else Reject((7, 8), "no!")
        found = self._others.get(credentials.user, CONTINUE)
        if isinstance(found, Exception):
            raise found
        return found  # type: ignore[return-value] # whatever an author might return


GREETED = """
    S: 220 ...
    C: EHLO client.example
    S: 250 ...
"""
WRONG = "535 5.7.8 these credentials are not right"
LATER = "454 4.7.0 nobody can say now who you are, try again later"


@pytest.fixture
def users() -> Users:
    return Users()


@pytest.fixture
async def server(users: Users, nursery: trio.Nursery, autojump_clock: MockClock) -> Server:
    made = Server(users, auth="always")
    nursery.start_soon(made.run)
    await made.play(GREETED)
    return made


async def keywords(made: Server, nursery: trio.Nursery) -> list[str]:
    nursery.start_soon(made.run)
    await made.expect("220 ...")
    await made.client.send_all(b"EHLO client.example\r\n")
    lines = [await made.line()]
    while lines[-1].startswith("250-"):
        lines.append(await made.line())
    return [line[4:] for line in lines if line[4:].startswith("AUTH")]


@pytest.mark.parametrize(
    ("auth", "plugins", "offered"),
    [
        ("always", (Users(),), ["AUTH PLAIN LOGIN"]),
        ("always", (), []),
        ("tls", (Users(),), []),
        ("off", (Users(),), []),
        (None, (Users(),), []),
    ],
)
async def test_auth_is_offered_where_that_is_wanted_and_somebody_knows_people(
    auth: str | None,
    plugins: tuple[Plugin, ...],
    offered: list[str],
    nursery: trio.Nursery,
    autojump_clock: MockClock,
) -> None:
    settings = {} if auth is None else {"auth": auth}
    made = Server(*plugins, **settings)
    assert await keywords(made, nursery) == offered
    if not offered:
        # Fault 13 of the original: AUTH where it was off let anybody in, to relay. Fault 14: AUTH
        # PLAIN was taken in clear, whatever was configured.
        await made.play(f"C: AUTH PLAIN {plain()}\nS: 502 ...")
        await made.play("C: MAIL FROM:<a@b.example>\nS: 250 ...\nC: RCPT TO:<bob@far.example>")
        await made.play("S: 550 ...")
        assert not any(each.asked for each in plugins if isinstance(each, Users))


async def test_a_plugin_of_another_listener_lets_nobody_log_in_here(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    made = Server(Users(), auth="always")
    loaded = Loaded(Users(), listeners=("other",))
    house = made.house.__class__(
        **{name: getattr(made.house, name) for name in made.house.__struct_fields__}
        | {"plugins": Chain([loaded])}
    )
    assert await keywords(Server(house=house), nursery) == []


@pytest.mark.parametrize(
    "exchange",
    [
        f"C: AUTH PLAIN {plain()}",
        f"C: auth plain {plain()}",
        f"C: AUTH PLAIN {plain(acting_as='ann')}",
        f"C: AUTH PLAIN\nS: 334 \nC: {plain()}",
        f"C: AUTH LOGIN\nS: 334 {said('Username:')}\nC: {said('ann')}\n"
        f"S: 334 {said('Password:')}\nC: {said(PASSWORD)}",
        f"C: AUTH LOGIN {said('ann')}\nS: 334 {said('Password:')}\nC: {said(PASSWORD)}",
    ],
)
async def test_who_says_the_right_password_is_logged_in_and_may_relay(
    exchange: str, server: Server
) -> None:
    relay = "C: MAIL FROM:<a@b.example>\nS: 250 ...\nC: RCPT TO:<bob@far.example>\n"
    await server.play(relay + "S: 550 ...\nC: RSET\nS: 250 ...")
    # `play` strips what ends a line, and an empty challenge ends in a space (RFC 4954 §4).
    for line in exchange.splitlines():
        if line.startswith("S: 334 ") and not line[7:]:
            assert await server.line() == "334 "
        else:
            await server.play(line)
    await server.play("S: 235 2.7.0 you are logged in\n" + relay + "S: 250 ...")
    await server.play("C: DATA\nS: 354 ...\nC: Subject: hi\nC: .\nS: 250 ...")
    (kept,) = server.queue.kept
    assert b"with ESMTPA\r\n" in kept.content
    assert kept.envelope.origin.login == "ann"
    assert [each.login for each in sessions(server.house.dialogues)] == ["ann"]
    logins = server.house.meters.logins
    assert (logins["tried"], logins["granted"], logins["refused"]) == (1, 1, 0)


async def test_who_is_wrong_and_who_is_unknown_hear_the_same_after_the_same_time(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    for user, seconds in (("ann", 0.0), ("nobody", 0.0), ("ann", 3.0), ("nobody", 3.0)):
        made = Server(Users(seconds), auth="always")
        nursery.start_soon(made.run)
        await made.play(GREETED)
        began = trio.current_time()
        await made.play(f"C: AUTH PLAIN {plain(user, 'wrong')}\nS: {WRONG}")
        assert trio.current_time() - began == pytest.approx(5)
        await made.play("C: MAIL FROM:<a@b.example>\nS: 250 ...\nC: RCPT TO:<b@far.example>")
        await made.play("S: 550 ...")


async def test_who_was_wrong_three_times_is_sent_away_the_next_time(
    server: Server, users: Users, autojump_clock: MockClock
) -> None:
    wrong = f"C: AUTH PLAIN {plain('ann', 'wrong')}\nS: {WRONG}\n"
    await server.play(
        wrong * 3
        + f"C: AUTH PLAIN {plain()}\nS: 421 4.7.0 ...\nE:".replace(
            " ...", " too many failed logins"
        )
    )
    assert len(users.asked) == 3
    logins = server.house.meters.logins
    assert (logins["tried"], logins["granted"], logins["refused"]) == (3, 0, 3)
    assert server.house.meters.refusals["login"] == 3
    assert server.house.meters.refusals["too_many_logins"] == 1


async def test_who_was_wrong_twice_may_be_right(server: Server, autojump_clock: MockClock) -> None:
    wrong = f"C: AUTH PLAIN {plain('ann', 'wrong')}\nS: {WRONG}\n"
    await server.play(wrong * 2 + f"C: AUTH PLAIN {plain()}\nS: 235 ...")


@pytest.mark.parametrize(
    "answer",
    [
        Defer((4, 3), "the directory is down"),
        ValueError("a bug"),
        Accept(),
        Discard("why"),
        Quarantine("why"),
        "ann",
        None,
    ],
)
async def test_what_nobody_can_say_is_no_failure_of_the_client(
    answer: object, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    last = Users(eve=Granted("eve"))
    made = Server(Users(eve=answer), last, auth="always")
    nursery.start_soon(made.run)
    await made.play(GREETED)
    began = trio.current_time()
    await made.play(f"C: AUTH PLAIN {plain('eve', 'x')}\nS: {LATER}\n" * 5)
    assert trio.current_time() - began < 1
    assert last.asked == []
    logins = made.house.meters.logins
    assert (logins["tried"], logins["granted"], logins["refused"]) == (5, 0, 0)
    await made.play(f"C: AUTH PLAIN {plain()}\nS: 235 ...")


async def test_a_plugin_that_hangs_makes_nobody_wait_for_ever(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    made = Server(Users(seconds=10_000), auth="always")
    nursery.start_soon(made.run)
    await made.play(GREETED + f"C: AUTH PLAIN {plain()}\nS: {LATER}")


async def test_the_next_plugin_is_asked_about_whom_one_does_not_know(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    made = Server(Users(), Users(eve=Granted("eve@here.example")), auth="always")
    nursery.start_soon(made.run)
    await made.play(GREETED + f"C: AUTH PLAIN {plain('eve', 'x')}\nS: 235 ...")


@pytest.mark.parametrize(
    ("granted", "answer"), [("eve", WRONG), ("boss", "235 2.7.0 you are logged in")]
)
async def test_nobody_acts_as_another_unless_a_plugin_names_that_one(
    granted: str, answer: str, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    made = Server(Users(eve=Granted(granted)), auth="always")
    nursery.start_soon(made.run)
    await made.play(GREETED + f"C: AUTH PLAIN {plain('eve', 'x', 'boss')}\nS: {answer}")


@pytest.mark.parametrize("login", ["", "a\nb", "x" * 256])
def test_what_is_no_name_cannot_be_granted(login: str) -> None:
    with pytest.raises(ValueError, match="no name"):
        Granted(login)


# What RFC 4954 §4 says of all that is not as it should be.


@pytest.mark.parametrize(
    "exchange",
    [
        "C: AUTH\nS: 501 ...",
        "C: AUTH CRAM-MD5\nS: 504 5.5.4 ...",
        "C: AUTH PLAIN =\nS: 501 5.5.2 ...",
        "C: AUTH PLAIN not*base64\nS: 501 5.5.2 ...",
        "C: AUTH PLAIN YQ\nS: 501 5.5.2 ...",
        f"C: AUTH PLAIN {said('only one word')}\nS: 501 5.5.2 ...",
        f"C: AUTH PLAIN {plain('', 'x')}\nS: 501 5.5.2 ...",
        "C: AUTH LOGIN\nS: 334 ...\nC: *\nS: 501 5.7.0 cancelled",
        "C: AUTH LOGIN\nS: 334 ...\nC: not*base64\nS: 501 5.5.2 ...",
        f"C: AUTH LOGIN\nS: 334 ...\nC: {said('ann')}\nS: 334 ...\nC: *\nS: 501 5.7.0 cancelled",
        f"C: AUTH LOGIN\nS: 334 ...\nC: {'A' * 13000}\nS: 500 5.5.6 ...",
        f"C: AUTH PLAIN {'A' * 13000}\nS: 500 5.5.2 ...",
    ],
)
async def test_what_is_no_exchange_ends_it_and_the_client_may_try_again(
    exchange: str, server: Server, users: Users
) -> None:
    script = "\n".join(
        line[:6] + " ..." if line.startswith("S: ") else line for line in exchange.splitlines()
    )
    await server.play(script)
    assert users.asked == []
    assert server.house.meters.logins["tried"] == 0
    await server.play(f"C: AUTH PLAIN {plain()}\nS: 235 ...")


async def test_a_password_may_take_a_line_as_long_as_the_standard_wants(
    server: Server, users: Users
) -> None:
    await server.play(f"C: AUTH PLAIN {'A' * 12000}\nS: 501 ...")
    assert users.asked == []


async def test_nobody_logs_in_twice_nor_within_a_message(server: Server) -> None:
    again = f"C: AUTH PLAIN {plain()}\n"
    await server.play("C: MAIL FROM:<a@b.example>\nS: 250 ...\n" + again + "S: 503 ...")
    await server.play("C: RCPT TO:<alice@here.example>\nS: 250 ...\n" + again + "S: 503 ...")
    await server.play("C: RSET\nS: 250 ...\n" + again + "S: 235 ...")
    await server.play(again + "S: 503 ...\nC: EHLO again.example\nS: 250 ...\n" + again)
    await server.play("S: 503 ...\nC: MAIL FROM:<a@b.example>\nS: 250 ...")
    await server.play("C: RCPT TO:<bob@far.example>\nS: 250 ...")  # is logged in still


async def test_nobody_logs_in_before_ehlo(
    users: Users, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    made = Server(users, auth="always")
    nursery.start_soon(made.run)
    await made.play(f"S: 220 ...\nC: AUTH PLAIN {plain()}\nS: 503 ...")
    assert users.asked == []


async def test_a_sender_may_be_named_by_mail_where_auth_is_offered(server: Server) -> None:
    await server.play("C: MAIL FROM:<a@b.example> AUTH=<>\nS: 250 ...")


async def test_who_speaks_behind_a_password_is_cut_off(server: Server) -> None:
    await server.play(f"C: AUTH PLAIN {plain()}\nC: MAIL FROM:<a@b.example>\nS: 554 ...\nE:")


# Secrets.


async def test_passwords_are_neither_logged_nor_written_down(
    nursery: trio.Nursery, autojump_clock: MockClock, lines: io.StringIO
) -> None:
    users = Users(eve=ValueError("a bug"))
    made = Server(users, auth="always")
    nursery.start_soon(made.run)
    await made.play(GREETED)
    # No secret may be hexadecimal alone: a session's random identifier would hold it some day.
    secrets = [PASSWORD, "wr0ng", "m1staken"]
    await made.play(f"C: AUTH PLAIN {plain('ann', 'wr0ng')}\nS: 535 ...")
    await made.play(f"C: AUTH PLAIN {plain('eve', 'm1staken')}\nS: 454 ...")
    await made.play(f"C: AUTH LOGIN {said('ann')}\nS: 334 ...\nC: {said(PASSWORD)}\nS: 235 ...")
    await made.play(
        "C: MAIL FROM:<a@b.example>\nS: 250 ...\nC: RCPT TO:<b@far.example>\nS: 250 ..."
    )
    await made.play("C: DATA\nS: 354 ...\nC: x: y\nC: .\nS: 250 ...\nC: QUIT\nS: 221 ...\nE:")
    (transcript,) = transcripts(made.house.dialogues, "Q1")
    written = "\n".join(each.text for each in transcript.said) + lines.getvalue()
    assert "AUTH PLAIN ***" in written
    assert "client.authenticated" in written
    for secret in (*secrets, *(plain(user, word) for user in ("ann", "eve") for word in secrets)):
        assert secret not in written
        assert said(secret) not in written
    assert all(secret not in repr(users.asked) for secret in secrets)
    assert [each.password for each in users.asked] == ["wr0ng", "m1staken", PASSWORD]
