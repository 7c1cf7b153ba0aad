from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING

import argon2
import pytest
import trio
import trio.testing

from elemta.plugins.built_in import hashing
from elemta.plugins.built_in.hashing import HASHING, Hashing
from elemta.plugins.tools import in_thread
from elemta.testing import some_tools

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

HASH = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash("horse")


async def test_so_many_passwords_are_hashed_at_a_time(autojump_clock: MockClock) -> None:
    tools, busy, most = some_tools(), 0, 0

    async def slow(call: Callable[[], object]) -> object:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        await trio.sleep(1)
        busy -= 1
        return call()

    tools.in_thread = slow  # type: ignore[assignment]
    two, found = Hashing(2, tools), list[bool]()

    async def verify(password: str) -> None:
        found.append(await two.verify(HASH, password))

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for password in ("horse", "house", "horse", "house"):
            nursery.start_soon(verify, password)
    assert sorted(found) == [False, False, True, True]
    assert (most, trio.current_time() - began) == (2, 2)


async def test_what_is_begun_keeps_its_place_though_nobody_waits_for_it_any_more(
    autojump_clock: MockClock,
) -> None:
    tools, begun = some_tools(), list[float]()

    async def slow(call: Callable[[], object]) -> object:
        begun.append(trio.current_time())
        await trio.sleep(5)
        return call()

    tools.in_thread = slow  # type: ignore[assignment]
    one, began = Hashing(1, tools), trio.current_time()
    with trio.move_on_after(1):
        await one.verify(HASH, "horse")
    assert await one.verify(HASH, "horse")
    assert [at - began for at in begun] == [0, 5]


async def test_no_hash_takes_for_ever(autojump_clock: MockClock) -> None:
    tools = some_tools()

    async def stuck(call: Callable[[], object]) -> object:
        await trio.sleep_forever()
        return call()

    tools.in_thread = stuck  # type: ignore[assignment]
    with pytest.raises(trio.TooSlowError):
        await Hashing(1, tools).verify(HASH, "horse")


async def test_who_is_stuck_keeps_his_place_until_his_thread_ends(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery
) -> None:
    begun, go_on = queue.SimpleQueue[str](), threading.Event()

    def verify(kept: str, password: str) -> bool:
        begun.put(password)
        return go_on.wait(60)

    monkeypatch.setattr(hashing, "verify_password", verify)
    tools = some_tools()
    tools.in_thread = in_thread
    one_at_a_time, told = Hashing(1, tools), list[str]()

    async def ask(password: str) -> None:
        try:
            told.append(f"{password}: {await one_at_a_time.verify(HASH, password)}")
        except trio.TooSlowError:
            told.append(f"{password}: too slow")

    nursery.start_soon(ask, "one")
    await trio.testing.wait_all_tasks_blocked()
    assert await trio.to_thread.run_sync(begun.get) == "one"
    mock_clock.jump(HASHING)
    await trio.testing.wait_all_tasks_blocked()
    assert told == ["one: too slow"]
    nursery.start_soon(ask, "two")
    await trio.testing.wait_all_tasks_blocked()
    assert begun.empty()
    go_on.set()
    assert await trio.to_thread.run_sync(begun.get) == "two"
