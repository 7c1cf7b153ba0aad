from __future__ import annotations

import msgspec
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from elemta.queue import (
    EventBus,
    Finished,
    Missed,
    Parked,
    QueueEvent,
    Subscription,
    Unparked,
    first_number,
)


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
        assert await read(slow, 4) == [Missed(7, last=7), 8, 9, 10]
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
        assert await read(subscription, 3) == [Missed(2, last=3), 4, 5]


@pytest.mark.parametrize("since", [7, 999, 1003])
async def test_who_resumes_from_another_process_is_told_and_gets_all_that_is_kept(
    since: int,
) -> None:
    bus = EventBus(first=1000)
    happen(bus, 2)
    with bus.subscribe(since=since) as subscription:
        assert await read(subscription, 3) == [Missed(0, last=1000, restarted=True), 1001, 1002]


async def test_what_this_process_has_forgotten_is_counted_beside_the_restart() -> None:
    bus = EventBus(kept=1, first=1000)
    happen(bus, 3)
    with bus.subscribe(since=7) as subscription:
        assert await read(subscription, 2) == [Missed(2, last=1002, restarted=True), 1003]


async def test_since_nothing_is_all_that_is_kept_and_since_the_first_too() -> None:
    bus = EventBus(first=1000)
    happen(bus, 2)
    for since in (0, 1000):
        with bus.subscribe(since=since) as subscription:
            assert await read(subscription, 2) == [1001, 1002]


async def test_what_is_missed_before_and_after_is_told_at_once() -> None:
    bus = EventBus(kept=2, first=1000)
    happen(bus, 3)
    with bus.subscribe(buffer=1, since=7) as subscription:
        assert await read(subscription, 2) == [Missed(2, last=1002, restarted=True), 1003]
        happen(bus, 2)
        assert await read(subscription, 2) == [Missed(1, last=1004), 1005]


async def test_a_later_process_has_greater_numbers_however_soon_it_follows() -> None:
    started = 1_790_000_000.25
    bus = EventBus(first=first_number(started))
    happen(bus, 10)
    assert bus.number < first_number(started + 0.001)
    assert first_number(130_000_000_000.0) < 2**53


async def test_those_who_listen_are_told_of_what_never_came_here() -> None:
    bus = EventBus()
    happen(bus)
    with bus.subscribe() as subscription:
        bus.miss(4)
        happen(bus)
        assert await read(subscription, 2) == [Missed(4, last=1), 2]


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


def test_what_failed_is_not_pushed_out_by_what_went_well() -> None:
    bus = EventBus(kept=3)
    for lane in ("a", "b", "c"):
        bus.publish(Parked(bus.next(), 1.0, lane, 2.0, "no answer"))
        bus.publish(Unparked(bus.next(), 3.0, lane))
        happen(bus, 10)
    found = bus.failures(2)
    assert [each.lane for each in found if isinstance(each, Parked)] == ["c", "b"]
    assert len(bus.failures(100)) == 3


def test_who_is_quick_takes_what_is_there_without_waiting() -> None:
    bus = EventBus()
    subscription = bus.subscribe(buffer=2)
    assert subscription.take() is None
    happen(bus, 3)
    missed = subscription.take()
    assert isinstance(missed, Missed)
    assert missed.count == 1
    found = [subscription.take(), subscription.take(), subscription.take()]
    assert [None if isinstance(each, Missed | None) else each.number for each in found] == [
        2,
        3,
        None,
    ]
    happen(bus)
    subscription.close()
    assert subscription.take() is None
