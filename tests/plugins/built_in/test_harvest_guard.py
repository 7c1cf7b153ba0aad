from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from elemta.plugins import CONTINUE, Allowed, Chain, Defer, Loaded, Reject
from elemta.plugins.built_in.harvest_guard import HarvestGuard, Settings
from elemta.testing import FakeClock, FakeContent, a_session, a_transaction, mailbox, some_tools
from elemta.units import Frequency, Seconds
from tests.dialogue import TRUSTED, Server

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    import trio
    from trio.testing import MockClock

    from elemta.plugins import Session

NOBODY = mailbox("nobody@us.example")
THREE = Settings(unknown=Frequency(3, Seconds(3600)))
BARRED = Defer((7, 0), "too many unknown recipients, try again later", note="3/3600 s")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@asynccontextmanager
async def living(
    folder: Path, clock: FakeClock, settings: Settings = THREE
) -> AsyncGenerator[HarvestGuard]:
    plugin = HarvestGuard(settings)
    plugin.tools = some_tools("harvest-guard", folder=folder, clock=clock)
    try:
        await plugin.start()
        yield plugin
    finally:
        await plugin.stop()


async def guess(plugin: HarvestGuard, times: int = 1, session: Session | None = None) -> None:
    for _ in range(times):
        await plugin.on_unknown(a_transaction(session or a_session()), NOBODY)


async def test_who_guesses_is_barred_also_if_it_connects_anew(
    tmp_path: Path, clock: FakeClock
) -> None:
    async with living(tmp_path, clock) as plugin:
        await guess(plugin, 3)
        assert await plugin.on_connect(a_session()) is CONTINUE
        await guess(plugin)
        assert await plugin.on_connect(a_session()) == BARRED
        assert await plugin.on_mail(a_transaction()) == BARRED
        assert await plugin.on_rcpt(a_transaction(), mailbox("bob@us.example")) == BARRED
        assert await plugin.on_unknown(a_transaction(), NOBODY) == BARRED, "as of anybody"
        assert await plugin.on_connect(a_session("192.0.2.2")) is CONTINUE
        assert plugin.tools.counts == {"barred": 1}
        clock.advance(3600)
        assert await plugin.on_connect(a_session()) is CONTINUE


async def test_it_remembers_over_a_restart(tmp_path: Path, clock: FakeClock) -> None:
    other = a_session("198.51.100.1")
    async with living(tmp_path, clock) as plugin:
        await guess(plugin, 4)
        await guess(plugin, 3, other)
    async with living(tmp_path, clock) as plugin:
        assert await plugin.on_connect(a_session()) == BARRED
        assert await plugin.on_connect(other) is CONTINUE
        await guess(plugin, 1, other)
        assert await plugin.on_connect(other) == BARRED


async def test_who_names_an_unknown_recipient_now_and_then_is_left_alone(
    tmp_path: Path, clock: FakeClock
) -> None:
    async with living(tmp_path, clock) as plugin:
        for _ in range(50):
            await guess(plugin)
            clock.advance(1201)
            assert await plugin.on_connect(a_session()) is CONTINUE


async def test_recipients_that_are_there_make_up_for_those_that_are_not(
    tmp_path: Path, clock: FakeClock
) -> None:
    async with living(tmp_path, clock) as plugin:
        for _ in range(20):
            await guess(plugin, 2)
            message = a_transaction(recipients=("bob@us.example", "carol@us.example"))
            assert await plugin.on_message(message, FakeContent(b"\r\n")) is CONTINUE
        assert await plugin.on_connect(a_session()) is CONTINUE
        await guess(plugin, 4)
        await plugin.on_message(a_transaction(), FakeContent(b"\r\n"))
        assert await plugin.on_connect(a_session()) == BARRED, "a message does not lift it"


async def test_it_never_bars_whom_somebody_vouches_for(tmp_path: Path, clock: FakeClock) -> None:
    trusted, allowed = a_session(trusted=True), a_session()
    allowed.results.add(Allowed("allow-deny"), "allow-deny")
    async with living(tmp_path, clock) as plugin:
        await guess(plugin, 50, trusted)
        await guess(plugin, 50, allowed)
        assert await plugin.on_connect(a_session()) is CONTINUE, "they were not counted"
        await guess(plugin, 4)
        assert await plugin.on_connect(trusted) is CONTINUE
        assert await plugin.on_connect(allowed) is CONTINUE
        await guess(plugin, 50, a_session(""))
        assert await plugin.on_connect(a_session("")) is CONTINUE, "a Unix socket"


async def test_it_can_refuse_for_good(tmp_path: Path, clock: FakeClock) -> None:
    settings = Settings(unknown=Frequency(3, Seconds(3600)), action="reject")
    async with living(tmp_path, clock, settings) as plugin:
        await guess(plugin, 4)
        assert isinstance(await plugin.on_connect(a_session()), Reject)


async def test_a_clock_that_was_set_back_bars_nobody(tmp_path: Path, clock: FakeClock) -> None:
    async with living(tmp_path, clock) as plugin:
        await guess(plugin, 4)
        clock.advance(-1e8)
        assert await plugin.on_connect(a_session()) is CONTINUE


async def test_many_networks_that_guess_take_little_memory(
    tmp_path: Path, clock: FakeClock
) -> None:
    settings = Settings(clients=1000)
    async with living(tmp_path, clock, settings) as plugin:
        await guess(plugin, 21)
        for number in range(20_000):
            session = a_session(f"2001:db8:{number % 65536:x}:{number // 65536:x}::1")
            await guess(plugin, 1, session)
        assert len(plugin._guessers.rows) <= 1000
        assert isinstance(await plugin.on_connect(a_session()), Defer)


async def test_a_client_that_comes_again_hears_it_before_it_can_ask(
    tmp_path: Path, clock: FakeClock, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async with living(tmp_path, clock) as plugin:
        chain = Chain([Loaded(plugin)])
        assert chain.unknown
        for client, dialogue in (
            (
                "192.0.2.1",
                """
                S: 220 ...
                C: EHLO client.example
                C: MAIL FROM:<a@b.example>
                C: RCPT TO:<w@here.example>
                C: RCPT TO:<x@here.example>
                C: RCPT TO:<y@here.example>
                C: RCPT TO:<z@here.example>
                C: RCPT TO:<alice@here.example>
                C: RSET
                C: MAIL FROM:<a@b.example>
                S: 250 ...
                S: 250 ...
                S: 550 5.1.1 no such mailbox
                S: 550 5.1.1 no such mailbox
                S: 550 5.1.1 no such mailbox
                S: 451 4.7.0 too many unknown recipients, try again later
                S: 451 4.7.0 too many unknown recipients, try again later
                S: 250 ...
                S: 451 4.7.0 too many unknown recipients, try again later
                """,
            ),
            ("192.0.2.1", "S: 421 4.7.0 too many unknown recipients, try again later\nE:"),
            (TRUSTED, "S: 220 ..."),
        ):
            server = Server(plugin, client=client)
            nursery.start_soon(server.run)
            await server.play(dialogue)
