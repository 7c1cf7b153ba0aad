"""What waits in one lane hides neither what waits in another nor what is more urgent.

Workers take a second for each message, so that what is told of time can be counted in messages.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import pytest
import trio

from elemta.queue import Claim, LaneLimits, Priority, Queue, Rate, Result, RetryPolicy, Tuning
from elemta.queue.lane import FEW, PARK_MOST
from elemta.queue.rate import MOST
from tests.queue.mail import (
    CONTENT,
    EPOCH,
    Disks,
    attempts,
    envelope,
    fill,
    now,
    quick,
    virtual_queue,
)

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

#: Recipients in memory.
WINDOW: Final = 400
TUNING: Final = Tuning(window=WINDOW)


class Postmen:
    """Deliver whatever comes, each message in a second."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        #: When each message went where, in turn.
        self.went: list[tuple[float, str, str]] = []
        #: Lanes in which nothing ever gets on.
        self.stuck: set[str] = set()
        #: Lanes whose destinations do not answer, and how often they were tried.
        self.dead = Counter[str]()

    async def run(self) -> None:
        async with trio.open_nursery() as workers:
            while True:
                claim = await self._queue.claim()
                workers.start_soon(self._work, claim)

    async def _work(self, claim: Claim) -> None:

        with claim:
            while work := claim.take():
                with work:
                    if claim.lane in self.dead:
                        self.dead[claim.lane] += 1
                        claim.failed(park=True, reason="connection refused")
                        await self._queue.settle(work, attempts(work, Result.DEFERRED))
                        continue
                    await trio.sleep(1e9 if claim.lane in self.stuck else 1.0)
                    self.went.append((now() - EPOCH, claim.lane, work.message.id))
                    await self._queue.settle(work, attempts(work, Result.DELIVERED))
                claim.succeeded()

    def times(self, ids: list[str]) -> list[float]:
        wanted = set(ids)
        return [time for time, _, id_ in self.went if id_ in wanted]


def to(domain: str, count: int) -> list[tuple[str, ...]]:
    return [(f"u{number}@{domain}",) for number in range(count)]


async def test_a_clogged_lane_does_not_hide_the_mail_behind_it_on_disk(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    fill(tmp_path / "queue", *to("clogged", 20 * WINDOW))
    others = fill(tmp_path / "queue", *to("x", 500), *to("y", 500), *to("z", 1))
    async with virtual_queue(tmp_path / "queue", tuning=TUNING, disk=quick) as queue:
        postmen = Postmen(queue)
        postmen.stuck.add("mx:clogged")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(postmen.run)
            await trio.sleep(60)
            assert len(postmen.times(others)) == 1001
            assert queue.waiting <= WINDOW + 200
            clogged = {each.name: each for each in queue.destinations()}["mx:clogged"]
            assert clogged.ready + clogged.on_disk == 20 * WINDOW - clogged.workers
            nursery.cancel_scope.cancel()


@pytest.mark.large
async def test_a_dead_destination_is_tried_once_for_all_its_mail_until_it_is_back(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    dead = fill(tmp_path / "queue", *to("dead", 10_000))
    fine = fill(tmp_path / "queue", *to("fine", 10_000))
    tuning = Tuning(window=5 * WINDOW)
    policy = RetryPolicy(jitter=0.0, delay_warning=0.0)
    async with virtual_queue(tmp_path / "queue", policy=policy, tuning=tuning, disk=quick) as queue:
        postmen = Postmen(queue)
        postmen.dead["mx:dead"] = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(postmen.run)
            # Twenty workers, a second for each message, and a few more till they are twenty.
            await trio.sleep(10_000 / MOST + 20)
            assert len(postmen.times(fine)) == 10_000
            assert postmen.dead["mx:dead"] <= 2 + 6
            assert queue.waiting <= FEW + 1
            parked = {each.name: each for each in queue.destinations()}["mx:dead"]
            assert parked.ready + parked.on_disk >= 10_000 - 8
            assert parked.error == "451 4.3.0 later"
            await trio.sleep(24 * 3600)
            assert postmen.dead["mx:dead"] < 8 + 2 * 25
            assert queue.waiting <= FEW + 1
            del postmen.dead["mx:dead"]
            back = now() - EPOCH
            await trio.sleep(PARK_MOST + 10_000 / MOST + 20)
            times = postmen.times(dead)
            assert min(times) <= back + PARK_MOST + 2
            # What was probed with waits for its own next attempt.
            assert len(times) >= 10_000 - 60
            nursery.cancel_scope.cancel()


async def test_new_mail_for_many_lanes_goes_at_once_beside_a_clogged_one(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    fill(tmp_path / "queue", *to("clogged", 3 * WINDOW))
    async with virtual_queue(tmp_path / "queue", tuning=TUNING, disk=quick) as queue:
        postmen = Postmen(queue)
        postmen.stuck.add("mx:clogged")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(postmen.run)
            await trio.sleep(10)
            others = [
                await queue.accept(envelope(f"u@lane{number % 500}"), CONTENT)
                for number in range(1000)
            ]
            more = [await queue.accept(envelope("u@clogged"), CONTENT) for _ in range(100)]
            await trio.sleep(30)
            assert len(postmen.times(others)) == 1000
            assert postmen.times(more) == []
            nursery.cancel_scope.cancel()


async def test_messages_for_a_clogged_lane_and_others_go_to_the_others(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    ids = fill(
        tmp_path / "queue", *((f"u{n}@clogged", f"u@lane{n % 300}") for n in range(5 * WINDOW))
    )
    async with virtual_queue(tmp_path / "queue", tuning=TUNING, disk=quick) as queue:
        postmen = Postmen(queue)
        postmen.stuck.add("mx:clogged")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(postmen.run)
            await trio.sleep(600)
            assert len(postmen.times(ids)) == 5 * WINDOW
            assert queue.waiting <= 2 * WINDOW
            nursery.cancel_scope.cancel()


@pytest.mark.large
async def test_a_critical_message_goes_soon_though_thousands_wait_before_it(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    normal = fill(tmp_path / "queue", *to("x", 50_000))
    critical = fill(tmp_path / "queue", *to("x", 5), priority=Priority.CRITICAL)
    async with virtual_queue(tmp_path / "queue", tuning=TUNING, disk=quick) as queue:
        postmen = Postmen(queue)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(postmen.run)
            await trio.sleep(20)
            # Found on disk behind all others; one that came in just now; and one in between.
            assert len(postmen.times(critical)) == 5
            high = await queue.accept(envelope("u@x", priority=Priority.HIGH), CONTENT)
            late = await queue.accept(envelope("u@x", priority=Priority.CRITICAL), CONTENT)
            came = now() - EPOCH
            await trio.sleep(10)
            assert max(postmen.times([late, high])) <= came + 2
            assert len(postmen.went) < len(normal) / 10
            nursery.cancel_scope.cancel()


async def test_low_priority_on_disk_is_not_starved_by_an_endless_stream_of_high(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    low = fill(tmp_path / "queue", *to("x", 3 * WINDOW), priority=Priority.LOW)
    high = fill(tmp_path / "queue", *to("x", 20 * WINDOW), priority=Priority.HIGH)
    normal = fill(tmp_path / "queue", *to("x", 3 * WINDOW))
    async with virtual_queue(tmp_path / "queue", tuning=TUNING, disk=quick) as queue:
        postmen = Postmen(queue)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(postmen.run)
            await trio.sleep(100)
            counts = Counter[str]()
            for name, ids in (("low", low), ("high", high), ("normal", normal)):
                counts[name] = len(postmen.times(ids))
            assert counts.total() > 1500
            # All but one in sixteen of each of the others.
            assert counts["high"] > 0.8 * counts.total()
            assert counts["low"] > 0.05 * counts.total()
            assert counts["normal"] > 0.05 * counts.total()
            nursery.cancel_scope.cancel()


async def test_a_lane_out_of_its_rates_leaves_memory_and_workers_to_others_and_keeps_to_them(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    rated = fill(tmp_path / "queue", *to("rated", 10 * WINDOW))
    others = fill(tmp_path / "queue", *to("x", 2 * WINDOW))
    limits = LaneLimits(rates=(Rate("messages", 100, 60.0),))
    async with virtual_queue(
        tmp_path / "queue",
        tuning=TUNING,
        disk=quick,
        limits=lambda name: limits if name == "mx:rated" else LaneLimits(),
    ) as queue:
        postmen = Postmen(queue)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(postmen.run)
            await trio.sleep(200)
            assert len(postmen.times(others)) == 2 * WINDOW
            assert queue.waiting <= 150
            await trio.sleep(1200 - 200)
            times = postmen.times(rated)
            assert 0.95 * 2000 <= len(times) <= 2100
            began = [time - 1 for time in times]
            for index in range(len(began) - 100):
                assert began[index + 100] - began[index] >= 60 - 1e-3
            nursery.cancel_scope.cancel()


async def test_what_lanes_want_is_read_when_the_disk_is_well_again(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    ids = fill(tmp_path / "queue", *to("x", 500))
    disks = Disks()
    tuning = Tuning(window=150)
    async with virtual_queue(tmp_path / "queue", tuning=tuning, disk=disks) as queue:
        postmen = Postmen(queue)
        async with trio.open_nursery() as nursery:
            await trio.sleep(1)
            nursery.start_soon(postmen.run)
            disks.disk.full = True
            await trio.sleep(300)
            assert 100 <= len(postmen.went) <= 250
            disks.disk.full = False
            await trio.sleep(300)
            assert sorted(id_ for _, _, id_ in postmen.went) == sorted(ids)
            nursery.cancel_scope.cancel()


async def test_a_reload_finds_everything_on_disk_again(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    ids = fill(tmp_path / "queue", *to("x", 5 * WINDOW))
    async with virtual_queue(tmp_path / "queue", tuning=TUNING, disk=quick) as queue:
        postmen = Postmen(queue)
        postmen.stuck.add("mx:x")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(postmen.run)
            await trio.sleep(10)
            queue.retune(lane=lambda *_: "smarthost", limits=lambda _: LaneLimits(500))
            await trio.sleep(200)
            went = [id_ for _, lane, id_ in postmen.went if lane == "smarthost"]
            assert len(went) == len(set(went)) == len(ids) - 2  # two are in the hands of workers
            nursery.cancel_scope.cancel()


async def test_memory_is_bounded_even_if_every_message_has_a_lane_of_its_own(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    ids = fill(tmp_path / "queue", *((f"u@lane{number}",) for number in range(5 * WINDOW)))
    async with virtual_queue(tmp_path / "queue", tuning=TUNING, disk=quick) as queue:
        await trio.sleep(10)
        assert queue.waiting <= 2 * WINDOW + 250
        ids += [await queue.accept(envelope(f"u@new{number}"), CONTENT) for number in range(50)]
        assert queue.waiting <= 2 * WINDOW + 250
        postmen = Postmen(queue)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(postmen.run)
            await trio.sleep(120)
            assert sorted(id_ for _, _, id_ in postmen.went) == sorted(ids)
            nursery.cancel_scope.cancel()
