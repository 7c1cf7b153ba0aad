from __future__ import annotations

import threading

import pytest
import trio
import trio.testing

from elemta.plugins import crew
from elemta.plugins.crew import THREADS, briefly


async def test_it_gives_back_what_the_call_does_and_raises_what_it_raises() -> None:
    here = threading.get_ident()
    assert await briefly(threading.get_ident) != here
    with pytest.raises(ZeroDivisionError):
        await briefly(lambda: 1 // 0)
    assert await briefly(lambda: None) is None


async def test_many_calls_share_few_threads_and_each_hears_of_its_own() -> None:
    found: dict[int, tuple[int, int]] = {}

    async def call(number: int) -> None:
        found[number] = await briefly(lambda: (number, threading.get_ident()))

    async with trio.open_nursery() as nursery:
        for number in range(200):
            nursery.start_soon(call, number)
    assert [found[number][0] for number in range(200)] == list(range(200))
    assert len({thread for _, thread in found.values()}) <= THREADS


async def test_calls_that_take_long_leave_threads_to_others() -> None:
    on = threading.Event()
    async with trio.open_nursery() as nursery:
        for _ in range(THREADS - 1):
            nursery.start_soon(briefly, on.wait)
        await trio.testing.wait_all_tasks_blocked()
        assert await briefly(lambda: "meanwhile") == "meanwhile"
        on.set()


async def test_each_of_two_that_come_at_once_has_a_thread() -> None:
    await briefly(lambda: None)
    await trio.sleep(0.01)  # its thread waits for more
    both = threading.Barrier(2, timeout=10)  # neither ends without the other
    async with trio.open_nursery() as nursery:
        nursery.start_soon(briefly, both.wait)
        nursery.start_soon(briefly, both.wait)


async def test_without_threads_who_asks_hears_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match="can't start"):
            await briefly(lambda: "lost")
    on = threading.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(briefly, on.wait)
        await trio.testing.wait_all_tasks_blocked()
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", start)
            nursery.start_soon(briefly, on.set)  # waits for a thread that is there
            await trio.testing.wait_all_tasks_blocked()
        assert await briefly(lambda: "next") == "next"
        assert on.is_set()


async def test_who_is_cancelled_does_not_wait_and_the_others_get_theirs() -> None:
    on, begun = threading.Event(), threading.Event()

    def hang() -> str:
        begun.set()
        on.wait()
        return "too late"

    async with trio.open_nursery() as nursery:
        nursery.start_soon(briefly, hang)
        await trio.to_thread.run_sync(begun.wait)
        nursery.cancel_scope.cancel()
    on.set()
    assert await briefly(lambda: "next") == "next"


async def test_a_thread_that_has_nothing_to_do_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "IDLE", 0.0)
    thread = await briefly(threading.current_thread)
    await trio.to_thread.run_sync(thread.join)
    assert await briefly(lambda: "again") == "again"


def test_each_event_loop_has_its_own() -> None:
    assert [trio.run(briefly, lambda: 7) for _ in range(3)] == [7, 7, 7]
