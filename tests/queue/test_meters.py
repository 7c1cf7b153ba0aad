"""What the queue counts, and how many destinations it tells of."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

import trio
import trio.testing

from elemta.metrics.meters import AGE, Meters
from elemta.queue import EventBus, LaneLimits, Rate, Result, open_queue
from elemta.queue.suspension import Scopes
from tests.queue import mail
from tests.queue.mail import CONTENT, envelope, settle_next
from tests.queue.test_schedule import House

if TYPE_CHECKING:
    from pathlib import Path


def bucket(seconds: float) -> list[int]:
    """Of distributions of ages: one of this length."""
    counts = [0] * (len(AGE) + 1)
    counts[bisect_left(AGE, seconds)] = 1
    return counts


async def test_the_first_wait_of_a_message_is_measured_and_its_whole_stay(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    meters = Meters()
    async with open_queue(
        tmp_path, mail.POLICY, lane=mail.by_domain, clock=mail.now, inline=True, meters=meters
    ) as queue:
        await queue.accept(envelope(), CONTENT)
        await trio.sleep(30)
        assert queue.census().messages == {"open": 1}
        await settle_next(queue, Result.DEFERRED)
        assert meters.waits.counts == bucket(30)
        assert sum(meters.stays.counts) == 0
        await settle_next(queue, Result.DELIVERED)
        assert meters.waits.counts == bucket(30)
        assert sum(meters.stays.counts) == 1
        assert meters.stays.total >= 30 + mail.POLICY.delay(1, lambda: 0.5) * 0.8


async def test_the_thread_that_writes_measures_each_transaction(tmp_path: Path) -> None:
    meters = Meters()
    async with (
        open_queue(tmp_path, mail.POLICY, lane=mail.by_domain, meters=meters) as queue,
        trio.open_nursery() as nursery,
    ):
        for _ in range(20):
            nursery.start_soon(queue.accept, envelope(), CONTENT)
    transactions = sum(meters.groups.counts)
    assert sum(meters.commits.counts) == transactions
    assert transactions < 20 <= meters.groups.total
    assert meters.commits.total > 0


def test_a_census_counts_destinations_by_how_it_stands_with_them() -> None:
    house = House(
        limits=lambda name: LaneLimits(
            20, (Rate("messages", 1, 60.0),) if name == "mx:slow" else ()
        )
    )
    for number in range(3):
        house.add(f"a{number}", f"u{number}@open")
        house.add(f"b{number}", f"u{number}@shut")
        house.add(f"c{number}", f"u{number}@slow")
    house.add("d", "u@silent")
    house.add("e", "u@other")
    house.schedule.suspend(Scopes(lanes=frozenset({"mx:shut"})), 0.0)
    lanes = {lane.name: lane for lane in (house.claim() for _ in range(5))}
    house.take(lanes["mx:slow"])
    house.take(lanes["mx:silent"])
    house.schedule.failed(lanes["mx:silent"], 0.0, park=True)
    census = house.schedule.census()
    assert census.destinations == {"open": 2, "suspended": 1, "throttled": 1, "parked": 1}
    assert census.messages == {"open": 4, "suspended": 3, "throttled": 2, "parked": 0}
    assert census.workers == 5


async def test_a_bus_knows_how_many_listen() -> None:
    bus = EventBus()
    with bus.subscribe(), bus.subscribe():
        assert bus.subscribers == 2
    assert bus.subscribers == 0
