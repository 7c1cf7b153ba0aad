from __future__ import annotations

import os
import pwd
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
import trio

from elemta.control.client import NotRunningError, connect
from elemta.control.interface import UnavailableError
from elemta.control.server import CLIENTS, ControlServer
from tests.control.fake import FakeControl

if TYPE_CHECKING:
    from pathlib import Path

    from elemta.control.interface import Control


class Desk:
    """Notes who comes."""

    def __init__(self) -> None:
        self.control = FakeControl()
        self.came: list[str] = []

    def steered_by(self, who: str) -> Control:
        self.came.append(who)
        return self.control


async def until_up(path: Path) -> None:
    with trio.fail_after(60):
        while not path.exists():  # noqa: ASYNC110, ASYNC240 # nobody there could set an event
            await trio.sleep(0.005)


async def test_who_comes_is_known_by_the_kernels_word(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    path, desk = tmp_path / "control.sock", Desk()
    nursery.start_soon(ControlServer(path, None, desk.steered_by).run)
    await until_up(path)
    for _ in range(2):
        async with connect(path) as client:
            assert (await client.stats()).messages == 7
    assert desk.came == [f"operator:{pwd.getpwuid(os.geteuid()).pw_name}"] * 2
    nursery.cancel_scope.cancel()


async def test_clients_beyond_the_last_are_turned_away_and_a_place_is_given_back(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    path, desk = tmp_path / "control.sock", Desk()
    nursery.start_soon(ControlServer(path, None, desk.steered_by).run)
    await until_up(path)
    async with AsyncExitStack() as held:
        for _ in range(CLIENTS):
            client = await held.enter_async_context(connect(path))
            await client.stats()
        async with connect(path) as one_more:
            with pytest.raises(UnavailableError, match=f"there are {CLIENTS} clients already"):
                await one_more.stats()
    with trio.fail_after(60):
        while True:  # the server may not yet have seen all of them leave
            async with connect(path) as client:
                try:
                    await client.stats()
                except UnavailableError:
                    continue
                break
    nursery.cancel_scope.cancel()


async def test_when_it_stops_nobody_listens_any_more(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ControlServer(path, None, Desk().steered_by).run)
        await until_up(path)
        nursery.cancel_scope.cancel()
    assert not path.exists()
    with pytest.raises(NotRunningError):
        async with connect(path):
            pass
