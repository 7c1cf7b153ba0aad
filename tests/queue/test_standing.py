"""Where a recipient is that is ready."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from elemta.queue import Filter, Priority, Result, Retry, RetryPolicy, Standing, Suspension
from tests.queue.mail import CONTENT, EPOCH, attempts, envelope, settle_next, virtual_queue

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock


def suspension(scope: str) -> Suspension:
    return Suspension(scope=scope, reason="a test", who="operator:me", since=EPOCH)


async def test_who_came_first_and_who_is_more_urgent_go_before(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue") as queue:
        ids = [await queue.accept(envelope("a@x"), CONTENT) for _ in range(3)]
        low = await queue.accept(envelope("a@x", priority=Priority.LOW), CONTENT)
        high = await queue.accept(envelope("a@x", "b@x", "c@y", priority=Priority.HIGH), CONTENT)
        told = [queue.standings(id_)[0].ahead for id_ in (high, *ids, low)]
        assert told == [0, 1, 2, 3, 4]
        here, there = Standing(lane="mx:x"), Standing(lane="mx:y")
        assert queue.standings(high) == {0: here, 1: here, 2: there}


async def test_what_is_being_tried_is_told_from_what_waits(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue") as queue:
        id_ = await queue.accept(envelope("a@x", "b@x", "c@y"), CONTENT)
        with await queue.claim() as claim:
            work = claim.take(most=1)
            assert work is not None
            with work:
                assert queue.standings(id_) == {
                    0: Standing(lane="mx:x", tried=True),
                    1: Standing(lane="mx:x"),
                    2: Standing(lane="mx:y"),
                }
                await queue.settle(work, attempts(work, Result.DEFERRED))
                assert set(queue.standings(id_)) == {1, 2}


async def test_of_what_is_not_in_memory_nothing_is_known(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue") as queue:
        id_ = await queue.accept(envelope("a@x"), CONTENT)
        await settle_next(queue, Result.DEFERRED)
        assert queue.standings(id_) == {}
        await queue.act(Retry(), Filter(ids=(id_,)), who="operator:me")
        assert queue.standings(id_) == {0: Standing(lane="mx:x")}


async def test_what_found_no_place_in_its_lane_waits_on_disk(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue") as queue:
        await queue.suspend(suspension("destination:mx:x"))
        for _ in range(50):
            await queue.accept(envelope("a@x"), CONTENT)
        last = await queue.accept(envelope("a@x", "b@y"), CONTENT)
        assert queue.standings(last) == {
            0: Standing(lane="mx:x", ahead=50, on_disk=True),
            1: Standing(lane="mx:y"),
        }


async def test_what_has_no_time_left_goes_before_all_others(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    policy = RetryPolicy(jitter=0.0, delay_warning=100.0)
    async with virtual_queue(tmp_path / "queue", policy=policy) as queue:
        await queue.suspend(suspension("domain:x"))
        old = [await queue.accept(envelope("a@x"), CONTENT) for _ in range(2)]
        await trio.sleep(120)
        new = await queue.accept(envelope("a@x", priority=Priority.HIGH), CONTENT)
        found = [queue.standings(each)[0] for each in (*old, new)]
        assert [(each.lane, each.ahead) for each in found] == [
            ("domain:x", 0),
            ("domain:x", 1),
            ("domain:x", 2),
        ]
