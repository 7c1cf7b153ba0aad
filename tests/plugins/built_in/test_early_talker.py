from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from elemta.config import ConfigError
from elemta.plugins.built_in.early_talker import EarlyTalker, Settings
from elemta.testing import FakeClock, a_session, some_tools
from elemta.units import Seconds
from tests.dialogue import TRUSTED, Server

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from trio.testing import MockClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@asynccontextmanager
async def living(
    folder: Path, clock: FakeClock, settings: Settings | None = None
) -> AsyncGenerator[EarlyTalker]:
    plugin = EarlyTalker(settings or Settings())
    plugin.tools = some_tools("early-talker", folder=folder, clock=clock)
    try:
        await plugin.start()
        yield plugin
    finally:
        await plugin.stop()


async def waited(server: Server, dialogue: str) -> float:
    """How long a client took for a dialogue."""
    began = trio.current_time()
    await server.play(dialogue)
    return trio.current_time() - began


async def test_who_speaks_while_it_waits_is_refused(
    tmp_path: Path, clock: FakeClock, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async with living(tmp_path, clock) as plugin:
        server = Server(plugin)
        nursery.start_soon(server.run)
        began = trio.current_time()
        await trio.sleep(1)
        await server.client.send_all(b"EHLO client.example\r\nMAIL FROM:<a@b.example>\r\n")
        assert (await server.line()).startswith("554 ")
        await server.expect_end()
        assert trio.current_time() - began == pytest.approx(3)
        assert server.house.meters.refusals["spoke_first"] == 1
        assert not plugin._patient.rows, "nothing good was learnt of it"


async def test_who_waits_is_greeted_and_need_not_wait_again_for_a_day(
    tmp_path: Path, clock: FakeClock, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    polite = "S: 220 ...\nC: EHLO client.example\nS: 250 ...\nC: QUIT\nS: 221 ...\nE:"
    async with living(tmp_path, clock) as plugin:
        for seconds in (3, 0):
            server = Server(plugin)
            nursery.start_soon(server.run)
            assert await waited(server, polite) == pytest.approx(seconds)
        assert plugin.tools.counts == {"waited": 1, "known": 1}
    clock.advance(86000)
    async with living(tmp_path, clock) as plugin:  # a restart
        server = Server(plugin)
        nursery.start_soon(server.run)
        assert await waited(server, polite) == pytest.approx(0)
        clock.advance(86401)
        server = Server(plugin)
        nursery.start_soon(server.run)
        assert await waited(server, polite) == pytest.approx(3)


async def test_nobody_waits_for_others(
    tmp_path: Path, clock: FakeClock, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async with living(tmp_path, clock) as plugin:
        servers = [Server(plugin, client=f"192.0.2.{number}") for number in range(50)]
        trusted = Server(plugin, client=TRUSTED)
        for server in (*servers, trusted):
            nursery.start_soon(server.run)
        assert await waited(trusted, "S: 220 ...") == pytest.approx(0)
        began = trio.current_time()
        for server in servers:
            await server.expect("220 ...")
        assert trio.current_time() - began == pytest.approx(3)


async def test_who_hangs_up_meanwhile_costs_nothing_more(
    tmp_path: Path, clock: FakeClock, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async with living(tmp_path, clock) as plugin:
        server = Server(plugin)
        server.client.close()
        with trio.fail_after(3.5):
            await server.run()
        meters = server.house.meters
        assert meters.connection_errors == {"lost": 1}
        assert len(server.house.roster) == 0


async def test_it_can_let_clients_wait_each_time(tmp_path: Path, clock: FakeClock) -> None:
    async with living(tmp_path, clock, Settings(remember=Seconds(0))) as plugin:
        await plugin.on_hello(a_session(), "client.example")
        assert not plugin._patient.rows


@pytest.mark.parametrize("wait", ["0 s", "21 s"])
def test_a_wait_that_makes_no_sense_is_a_mistake(wait: str) -> None:
    with pytest.raises(ConfigError, match="wait must be more than none and at most 20 s"):
        EarlyTalker.configured({"wait": wait}, "settings")
