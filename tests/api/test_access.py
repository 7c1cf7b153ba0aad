from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, TypeVar

import pytest
import trio
import trio.testing

from elemta.api import guesses as guessing
from elemta.api import keys as keeping
from elemta.api import sessions as sessions_
from elemta.api import tokens
from elemta.api.access import COOKIE, Entrance
from elemta.api.guesses import Guesses
from elemta.api.keys import Keys
from elemta.api.problem import Problem
from elemta.api.sessions import Sessions
from elemta.api.tokens import Known, TokenFile
from elemta.api.visit import Scope, Visit
from tests.api.fakes import at_once

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from elemta.api.threads import InThread

T = TypeVar("T")

NOW = 1_800_000_000.0
WRONG = "elemta_" + "a" * 12 + "_" + "b" * 43


class House:
    """An entrance on virtual time, with one token."""

    def __init__(
        self,
        folder: Path,
        origins: tuple[str, ...] = (),
        *,
        secure: bool = False,
        in_thread: InThread = at_once,
    ) -> None:
        self.file = TokenFile(folder)
        self.token, self.text = tokens.issue(
            self.file, "test", [Scope.ADMIN], now=NOW, expires=NOW + 86400
        )
        self.keys = Keys(self.file, self.clock, in_thread)
        self.entrance = Entrance(
            self.keys,
            Sessions(self.clock),
            Guesses(self.clock),
            origins=origins,
            secure=secure,
        )

    def clock(self) -> float:
        return NOW + trio.current_time()

    async def login(self) -> tuple[dict[str, str], str]:
        """A cookie, and what its pages know."""
        cookie, session = await self.entrance.enter(visit("POST"), token=self.text, once=None)
        return {COOKIE: cookie.partition("=")[2].partition(";")[0]}, session.csrf

    async def refusal(self, told: Visit) -> Problem:
        with pytest.raises(Problem) as problem:
            await self.entrance.identify(told)
        return problem.value


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def visit(
    method: str = "GET",
    *,
    client: str = "192.0.2.1",
    cookies: dict[str, str] | None = None,
    **headers: str,
) -> Visit:
    named = {name.replace("_", "-").title(): value for name, value in headers.items()}
    return Visit(
        method=method,
        path="/v1/x",
        client=client,
        headers={"Host": "localhost:8025", **named},
        cookies=cookies or {},
    )


async def test_a_token_may_stand_in_either_header(
    house: House, autojump_clock: trio.testing.MockClock
) -> None:
    for told in (
        visit(authorization=f"Bearer {house.text}"),
        visit(authorization=f"bearer  {house.text} "),
        visit(x_api_key=house.text),
    ):
        caller = await house.entrance.identify(told)
        assert caller.who == "token:test"
        assert caller.may(Scope.SUBMIT)


@pytest.mark.parametrize(
    "authorization", ["Basic dTpw", "Bearer", "Bearer ", "Bearer x", f"Bearer {WRONG}", ""]
)
async def test_what_is_no_token_is_refused(
    house: House, authorization: str, autojump_clock: trio.testing.MockClock
) -> None:
    problem = await house.refusal(visit(authorization=authorization))
    assert problem.status is HTTPStatus.UNAUTHORIZED
    assert problem.headers["WWW-Authenticate"].startswith('Bearer realm="elemta"')


async def test_a_wrong_token_is_not_made_up_for_by_a_cookie(
    house: House, autojump_clock: trio.testing.MockClock
) -> None:
    cookies, _ = await house.login()
    problem = await house.refusal(visit(cookies=cookies, authorization=f"Bearer {WRONG}"))
    assert problem.status is HTTPStatus.UNAUTHORIZED


async def test_a_token_expires(house: House, autojump_clock: trio.testing.MockClock) -> None:
    told = visit(x_api_key=house.text)
    await house.entrance.identify(told)
    await trio.sleep(86400)
    assert (await house.refusal(told)).status is HTTPStatus.UNAUTHORIZED


async def test_a_token_that_is_revoked_elsewhere_is_refused_within_a_second(
    house: House, autojump_clock: trio.testing.MockClock
) -> None:
    told = visit(x_api_key=house.text)
    await house.entrance.identify(told)
    tokens.revoke(house.file, house.token.id)
    await trio.sleep(1)
    assert (await house.refusal(told)).status is HTTPStatus.UNAUTHORIZED


async def test_a_token_that_is_made_elsewhere_works_at_once(
    house: House, autojump_clock: trio.testing.MockClock
) -> None:
    await house.entrance.identify(visit(x_api_key=house.text))
    _, text = tokens.issue(house.file, "new", [Scope.READ], now=NOW, expires=None)
    caller = await house.entrance.identify(visit(x_api_key=text))
    assert (caller.who, caller.may(Scope.OPERATE)) == ("token:new", False)


async def test_a_damaged_file_leaves_those_in_who_were_known(
    house: House, autojump_clock: trio.testing.MockClock
) -> None:
    told = visit(x_api_key=house.text)
    await house.entrance.identify(told)
    house.file.path.write_text("{")
    await trio.sleep(1)
    await house.entrance.identify(told)


class Disk:
    """Does at once what it is asked to, unless it is dead."""

    def __init__(self) -> None:
        self.dead = False

    async def __call__(self, call: Callable[[], T], limiter: trio.CapacityLimiter, /) -> T:
        if self.dead:
            await trio.sleep_forever()
        return await at_once(call, limiter)


async def test_a_dead_disk_stops_nobody_who_was_known(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    disk = Disk()
    house = House(tmp_path, in_thread=disk)
    known = visit(x_api_key=house.text)
    await house.entrance.identify(known)
    disk.dead = True
    for _ in range(3):
        began = trio.current_time()
        await house.entrance.identify(known)
        assert trio.current_time() - began <= keeping.LOOK_PATIENCE
        await trio.sleep(10)
    problem = await house.refusal(visit(x_api_key=WRONG))
    assert problem.status is HTTPStatus.SERVICE_UNAVAILABLE
    link = "once" + WRONG.removeprefix("elemta")
    with pytest.raises(Problem) as refused:
        await house.entrance.enter(visit("POST"), token=None, once=link)
    assert refused.value.status is HTTPStatus.SERVICE_UNAVAILABLE
    async with trio.open_nursery() as nursery:
        nursery.start_soon(house.keys.run)
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        nursery.cancel_scope.cancel()
    assert trio.current_time() - began <= 1


async def test_when_a_token_was_used_is_written_down_now_and_then(
    house: House, autojump_clock: trio.testing.MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(house.keys.run)
        await house.entrance.identify(visit(x_api_key=house.text))
        house.file.path.write_text("{")
        await trio.sleep(keeping.USED + 1)
        house.file.path.unlink()
        house.file.change(lambda known: (Known(tokens=(house.token,)), None))
        await trio.sleep(keeping.USED)
        (token,) = house.file.read().tokens
        assert token.used == pytest.approx(NOW)
        nursery.cancel_scope.cancel()


# Guessing.


async def test_who_guesses_must_wait_and_who_knows_need_not(
    house: House, autojump_clock: trio.testing.MockClock
) -> None:
    known = visit(x_api_key=house.text)
    await house.entrance.identify(known)
    for _ in range(guessing.OF_ONE):
        problem = await house.refusal(visit(x_api_key=WRONG))
        assert problem.status is HTTPStatus.UNAUTHORIZED
    problem = await house.refusal(visit(x_api_key=WRONG))
    assert problem.status is HTTPStatus.TOO_MANY_REQUESTS
    assert 0 < int(problem.headers["Retry-After"]) <= 7
    await house.entrance.identify(known)
    await house.refusal(visit(x_api_key=WRONG, client="192.0.2.2"))
    await trio.sleep(int(problem.headers["Retry-After"]))
    problem = await house.refusal(visit(x_api_key=WRONG))
    assert problem.status is HTTPStatus.UNAUTHORIZED


async def test_guesses_from_everywhere_are_limited_too(
    house: House, autojump_clock: trio.testing.MockClock
) -> None:
    for number in range(guessing.OF_ALL):
        await house.refusal(visit(x_api_key="x", client=f"2001:db8:{number}::1"))
    problem = await house.refusal(visit(x_api_key="x", client="192.0.2.99"))
    assert problem.status is HTTPStatus.TOO_MANY_REQUESTS


async def test_addresses_of_one_network_guess_together(
    house: House, autojump_clock: trio.testing.MockClock
) -> None:
    for number in range(guessing.OF_ONE):
        await house.refusal(visit(x_api_key="x", client=f"2001:db8::{number}"))
    problem = await house.refusal(visit(x_api_key="x", client="2001:db8::ffff"))
    assert problem.status is HTTPStatus.TOO_MANY_REQUESTS


async def test_logins_and_links_are_guesses_too(
    house: House, autojump_clock: trio.testing.MockClock
) -> None:
    for number in range(guessing.OF_ONE):
        given = {"token": WRONG, "once": None} if number % 2 else {"token": None, "once": "x"}
        with pytest.raises(Problem):
            await house.entrance.enter(visit("POST"), **given)
    with pytest.raises(Problem) as problem:
        await house.entrance.enter(visit("POST"), token=None, once="x")
    assert problem.value.status is HTTPStatus.TOO_MANY_REQUESTS


async def test_what_was_wrong_is_forgotten(autojump_clock: trio.testing.MockClock) -> None:
    guesses = Guesses(trio.current_time)
    for _ in range(guessing.OF_ONE):
        guesses.wrong("192.0.2.1")
    assert guesses.wait("192.0.2.1") == pytest.approx(guessing.WINDOW / guessing.OF_ONE)
    await trio.sleep(guessing.WINDOW)
    assert guesses.wait("192.0.2.1") == 0
    guesses.wrong("192.0.2.2")
    assert guesses.wait("192.0.2.1") == 0


# Cookies.


async def test_a_cookie_reads_and_with_what_its_pages_know_it_writes(
    house: House, autojump_clock: trio.testing.MockClock
) -> None:
    cookies, csrf = await house.login()
    assert (await house.entrance.identify(visit(cookies=cookies))).who == "token:test"
    assert house.entrance.csrf(visit(cookies=cookies)) == csrf
    await house.entrance.identify(visit("POST", cookies=cookies, x_csrf_token=csrf))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x_csrf_token": ""},
        {"x_csrf_token": "guess"},
        {"x_csrf_token": "é"},
        {"right": "", "origin": "http://evil.example"},
        {"right": "", "origin": "null"},
        {"right": "", "origin": "http://[broken"},
        {"right": "", "origin": "http://localhost:9999"},
        {"right": "", "sec_fetch_site": "cross-site"},
        {"right": "", "sec_fetch_site": "same-site", "origin": "http://localhost:8025"},
    ],
)
async def test_a_page_of_somebody_else_cannot_write(
    house: House, headers: dict[str, str], autojump_clock: trio.testing.MockClock
) -> None:
    cookies, csrf = await house.login()
    if headers.pop("right", None) is not None:
        headers["x_csrf_token"] = csrf
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        problem = await house.refusal(visit(method, cookies=cookies, **headers))
        assert problem.status is HTTPStatus.FORBIDDEN


async def test_a_page_of_ours_can_write(
    house: House, autojump_clock: trio.testing.MockClock
) -> None:
    cookies, csrf = await house.login()
    for headers in (
        {"origin": "http://localhost:8025"},
        {"origin": "http://LOCALHOST:8025", "sec_fetch_site": "same-origin"},
        {"sec_fetch_site": "none"},
    ):
        await house.entrance.identify(visit("POST", cookies=cookies, x_csrf_token=csrf, **headers))


async def test_a_token_writes_from_anywhere(
    house: House, autojump_clock: trio.testing.MockClock
) -> None:
    told = visit("POST", x_api_key=house.text, origin="http://evil.example")
    assert (await house.entrance.identify(told)).who == "token:test"


async def test_a_page_of_somebody_else_cannot_log_a_browser_in(
    house: House, autojump_clock: trio.testing.MockClock
) -> None:
    with pytest.raises(Problem) as problem:
        await house.entrance.enter(
            visit("POST", origin="http://evil.example"), token=house.text, once=None
        )
    assert problem.value.status is HTTPStatus.FORBIDDEN


async def test_a_websocket_with_a_cookie_must_be_of_a_page_of_ours(
    house: House, autojump_clock: trio.testing.MockClock
) -> None:
    cookies, _ = await house.login()
    ours = visit("WEBSOCKET", cookies=cookies, origin="http://localhost:8025")
    assert (await house.entrance.identify(ours)).who == "token:test"
    for headers in ({}, {"origin": "http://evil.example"}, {"origin": "null"}):
        problem = await house.refusal(visit("WEBSOCKET", cookies=cookies, **headers))
        assert problem.status is HTTPStatus.FORBIDDEN


async def test_a_program_opens_a_websocket_with_its_token(
    house: House, autojump_clock: trio.testing.MockClock
) -> None:
    told = visit("WEBSOCKET", authorization=f"Bearer {house.text}")
    assert (await house.entrance.identify(told)).who == "token:test"
    foreign = visit("WEBSOCKET", x_api_key=house.text, origin="http://evil.example")
    assert (await house.refusal(foreign)).status is HTTPStatus.FORBIDDEN


async def test_behind_a_proxy_pages_of_another_name_are_ours(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    house = House(tmp_path, ("https://mail.example.org",))
    cookie, session = await house.entrance.enter(
        visit("POST", origin="https://mail.example.org"), token=house.text, once=None
    )
    assert cookie.endswith("; Secure"), "the browser says that it came encrypted"
    cookies = {COOKIE: cookie.partition("=")[2].partition(";")[0]}
    for method in ("POST", "WEBSOCKET"):
        await house.entrance.identify(
            visit(
                method,
                cookies=cookies,
                x_csrf_token=session.csrf,
                origin="https://mail.example.org",
            )
        )
    told = visit("WEBSOCKET", cookies=cookies, origin="http://mail.example.org")
    assert (await house.refusal(told)).status is HTTPStatus.FORBIDDEN


async def test_a_cookie_never_goes_in_clear_where_all_is_encrypted(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    house = House(tmp_path, secure=True)
    cookie, _ = await house.entrance.enter(visit("POST"), token=house.text, once=None)
    assert cookie.endswith("; HttpOnly; SameSite=Strict; Secure")


async def test_a_session_ends_when_nobody_uses_it(
    house: House, autojump_clock: trio.testing.MockClock
) -> None:
    cookies, _ = await house.login()
    for _ in range(3):
        await trio.sleep(sessions_.IDLE - 1)
        await house.entrance.identify(visit(cookies=cookies))
    await trio.sleep(sessions_.IDLE)
    problem = await house.refusal(visit(cookies=cookies))
    assert problem.status is HTTPStatus.UNAUTHORIZED


async def test_a_session_ends_though_it_is_used(
    house: House, autojump_clock: trio.testing.MockClock
) -> None:
    cookies, _ = await house.login()
    for _ in range(11):
        await trio.sleep(3600)
        await house.entrance.identify(visit(cookies=cookies))
    await trio.sleep(3600)
    assert (await house.refusal(visit(cookies=cookies))).status is HTTPStatus.UNAUTHORIZED


async def test_a_session_ends_with_its_token(
    house: House, autojump_clock: trio.testing.MockClock
) -> None:
    cookies, _ = await house.login()
    await house.keys.revoke(house.token.id)
    assert (await house.refusal(visit(cookies=cookies))).status is HTTPStatus.UNAUTHORIZED


async def test_who_left_is_out(house: House, autojump_clock: trio.testing.MockClock) -> None:
    cookies, _ = await house.login()
    house.entrance.leave(visit(cookies=cookies))
    assert (await house.refusal(visit(cookies=cookies))).status is HTTPStatus.UNAUTHORIZED
    house.entrance.leave(visit())


async def test_sessions_are_bounded(autojump_clock: trio.testing.MockClock, house: House) -> None:
    caller = await house.entrance.identify(visit(x_api_key=house.text))
    sessions = Sessions(trio.current_time)
    first, _ = sessions.begin(caller, None)
    await trio.sleep(1)
    others = [sessions.begin(caller, None)[0] for _ in range(sessions_.SESSIONS)]
    assert sessions.find(first) is None
    assert all(sessions.find(each) is not None for each in others)


async def test_when_a_token_was_used_is_written_down_at_the_end(
    house: House, autojump_clock: trio.testing.MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(house.keys.run)
        await house.entrance.identify(visit(x_api_key=house.text))
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    (token,) = house.file.read().tokens
    assert token.used is not None
    assert token.used >= NOW
