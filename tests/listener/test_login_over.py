"""A login that holds no more ends the conversation in which somebody goes on sending by it."""

from __future__ import annotations

import io
import json
from base64 import b64encode
from typing import TYPE_CHECKING

import msgspec
import trio
from typing_extensions import override

from elemta import log as logs
from elemta.plugins import CONTINUE, Defer, Granted, Plugin, Reject, Verdict
from elemta.units import Seconds
from tests.dialogue import NOW, Server

if TYPE_CHECKING:
    from trio.testing import MockClock

    from elemta.plugins import Session
    from elemta.protocol import Credentials

PLAIN = b64encode(b"\0ann\0secret").decode()
LOGIN = f"""
    S: 220 ...
    C: EHLO client.example
    S: 250 ...
    C: AUTH PLAIN {PLAIN}
    S: 235 ...
"""
MESSAGE = """
    C: MAIL FROM:<ann@example.org>
    S: 250 ...
    C: RCPT TO:<bob@far.example>
    S: 250 ...
    C: DATA
    S: 354 ...
    C: Subject: x
    C:
    C: .
    S: 250 ...
"""
OVER = """
    C: MAIL FROM:<ann@example.org>
    S: 421 4.7.0 your login is over, log in again
"""


class Directory(Plugin):
    """Lets ann in, and says what it is told to of who is in.

    Attributes:
        says: that.
        asked: how often it was asked for it.
    """

    name = "directory"

    def __init__(self, until: float | None = None) -> None:
        self.granted = Granted("ann") if until is None else Granted("ann", until=until)
        self.says: Verdict = CONTINUE
        self.asked = 0

    @override
    async def on_authenticate(
        self, session: Session, credentials: Credentials
    ) -> Granted | Verdict:
        return self.granted

    @override
    async def on_account(self, session: Session) -> Verdict:
        self.asked += 1
        return self.says


class Time:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


async def serving(nursery: trio.Nursery, directory: Directory, time: Time | None = None) -> Server:
    server = Server(directory, auth="always")
    if time is not None:
        house = msgspec.structs.replace(server.house, clock=time)
        server = Server(house=house)
    nursery.start_soon(server.run)
    await server.play(LOGIN)
    return server


async def test_who_is_let_in_no_more_sends_no_more(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    out = io.StringIO()
    logs.configure("json", "info", out)
    directory = Directory()
    server = await serving(nursery, directory)
    await server.play(MESSAGE)
    assert directory.asked == 1
    directory.says = Reject((7, 13), "no", note="the user is disabled")
    await server.play(OVER)
    await server.expect_end()
    logs.flush()
    (told,) = [each for each in map(json.loads, out.getvalue().splitlines()) if "why" in each]
    assert (told["event"], told["login"]) == ("client.login_over", "ann")
    assert told["why"] == "the user is disabled"


async def test_where_nobody_can_say_whether_it_holds_a_message_is_put_off(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    directory = Directory()
    server = await serving(nursery, directory)
    directory.says = Defer((7, 0), "try again later")
    await server.play("C: MAIL FROM:<ann@example.org>\nS: 451 4.7.0 try again later")
    directory.says = CONTINUE
    await server.play(MESSAGE)


async def test_a_token_that_has_expired_is_over(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    time = Time()
    server = await serving(nursery, Directory(until=NOW + 60), time)
    time.now += 59
    await server.play(MESSAGE)
    time.now += 1
    await server.play(OVER)
    await server.expect_end()


async def test_nobody_goes_on_for_ever_without_logging_in_anew(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = await serving(nursery, Directory())
    for _ in range(14):
        await trio.sleep(250)
        await server.play("C: NOOP\nS: 250 ...")
    await server.play(MESSAGE)
    await trio.sleep(101)
    await server.play(OVER)
    await server.expect_end()


async def test_who_has_not_logged_in_is_not_asked_about(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    directory = Directory()
    server = Server(directory, auth="always")
    nursery.start_soon(server.run)
    await server.play("S: 220 ...\nC: EHLO client.example\nS: 250 ...")
    await server.play("C: MAIL FROM:<ann@example.org>\nS: 250 ...")
    assert directory.asked == 0


async def test_it_may_be_that_a_login_never_ends(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    made = Server(Directory(), auth="always")
    config = made.house.config
    login = msgspec.structs.replace(config.login, again=Seconds(0))
    config = msgspec.structs.replace(config, login=login)
    server = Server(house=msgspec.structs.replace(made.house, config=config))
    nursery.start_soon(server.run)
    await server.play(LOGIN)
    for _ in range(20):
        await trio.sleep(250)
        await server.play("C: NOOP\nS: 250 ...")
    await server.play(MESSAGE)
