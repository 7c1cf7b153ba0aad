from __future__ import annotations

import msgspec
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from elemta.queue import EventBus, Finished, Missed, QueueEvent, Subscription


def happen(bus: EventBus, count: int = 1) -> None:
    for _ in range(count):
        bus.publish(Finished(bus.next(), 1.0, "01M82PRTX4DMBY1QGHWMKJBMPQ"))


async def read(subscription: Subscription, count: int) -> list[int | Missed]:
    got: list[int | Missed] = []
    async for event in subscription:
        got.append(event if isinstance(event, Missed) else event.number)
        if len(got) == count:
            break
    return got


async def test_a_subscriber_hears_what_happens_from_now_on() -> None:
    bus = EventBus()
    happen(bus)
    with bus.subscribe() as subscription:
        happen(bus, 2)
        assert await read(subscription, 2) == [2, 3]


async def test_a_subscriber_waits_for_what_comes() -> None:
    bus = EventBus()
    got: list[int | Missed] = []

    async def listen() -> None:
        with bus.subscribe() as subscription:
            got.extend(await read(subscription, 1))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        await wait_all_tasks_blocked()
        happen(bus)
    assert got == [1]


async def test_a_slow_subscriber_is_told_how_many_it_missed() -> None:
    bus = EventBus()
    with bus.subscribe(buffer=3) as slow, bus.subscribe() as quick:
        happen(bus, 10)
        assert await read(slow, 4) == [Missed(7), 8, 9, 10]
        assert await read(quick, 10) == list(range(1, 11))


async def test_a_client_resumes_from_a_number() -> None:
    bus = EventBus()
    happen(bus, 5)
    with bus.subscribe(since=3) as subscription:
        happen(bus)
        assert await read(subscription, 3) == [4, 5, 6]


async def test_who_resumes_from_what_is_no_longer_kept_is_told_how_much() -> None:
    bus = EventBus(kept=2)
    happen(bus, 5)
    with bus.subscribe(since=1) as subscription:
        assert await read(subscription, 3) == [Missed(2), 4, 5]


async def test_a_number_from_another_process_brings_all_that_is_kept() -> None:
    bus = EventBus()
    happen(bus, 2)
    with bus.subscribe(since=1000) as subscription:
        assert await read(subscription, 2) == [1, 2]


async def test_nothing_is_missed_where_nothing_happened() -> None:
    bus = EventBus()
    with bus.subscribe(since=0) as subscription:
        happen(bus)
        assert await read(subscription, 1) == [1]


async def test_closing_ends_the_iteration_of_who_waits() -> None:
    bus = EventBus()
    subscription = bus.subscribe()
    async with trio.open_nursery() as nursery:

        async def listen() -> None:
            assert [event async for event in subscription] == []

        nursery.start_soon(listen)
        await wait_all_tasks_blocked()
        subscription.close()
        subscription.close()
    happen(bus)
    with pytest.raises(StopAsyncIteration):
        await subscription.__anext__()


def test_events_are_a_tagged_union_that_a_client_can_decode() -> None:
    octets = msgspec.json.encode(Finished(7, 1.0, "01M82PRTX4DMBY1QGHWMKJBMPQ"))
    assert octets.startswith(b'{"type":"Finished"')
    assert msgspec.json.decode(octets, type=QueueEvent).number == 7
