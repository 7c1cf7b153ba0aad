from __future__ import annotations

import trio
from trio.testing import wait_all_tasks_blocked

from elemta.net.feed import Feed, Lost


async def read(feed: Feed[int], count: int) -> list[int | Lost]:
    return [await anext(feed) for _ in range(count)]


async def test_a_reader_gets_what_is_put_in_order() -> None:
    with Feed[int](10) as feed:
        feed.put(1)
        feed.put(2)
        assert await read(feed, 2) == [1, 2]


async def test_a_reader_waits_for_what_comes(nursery: trio.Nursery) -> None:
    feed, got = Feed[int](10), list[int | Lost]()

    async def listen() -> None:
        got.extend([each async for each in feed])

    nursery.start_soon(listen)
    await wait_all_tasks_blocked()
    feed.put(1)
    await wait_all_tasks_blocked()
    feed.miss(3)
    await wait_all_tasks_blocked()
    feed.close()
    await wait_all_tasks_blocked()
    assert got == [1, Lost(3)]


async def test_a_slow_reader_loses_the_oldest_and_is_told_how_many() -> None:
    with Feed[int](3) as feed:
        for number in range(10):
            feed.put(number)
        assert await read(feed, 4) == [Lost(7), 7, 8, 9]


async def test_what_is_closed_gives_nothing_more_and_may_be_closed_twice() -> None:
    with Feed[int](1) as feed:
        feed.put(1)
        feed.close()
        assert [each async for each in feed] == []


async def test_a_reader_who_never_waits_lets_others_run_all_the_same() -> None:
    turns: list[int] = []

    async def other() -> None:
        for turn in range(3):
            turns.append(turn)
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        with Feed[int](1000) as feed:
            for number in range(500):
                feed.put(number)
            await read(feed, 500)
        assert turns == [0, 1, 2]
