"""Where a recipient goes may change between any two times that it is asked; nothing gets lost."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest
import trio

from elemta.queue import Filter, Result, Retry, State, Suspension, Tuning
from tests.queue.mail import CONTENT, attempts, envelope, virtual_queue
from tests.queue.steering import act, states

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

    from elemta.protocol import ReversePath
    from elemta.queue import Destined, Queue


class Says:
    """A lane for everybody, which may become another."""

    def __init__(self, lane: str) -> None:
        self.lane = lane

    def __call__(self, recipient: Destined, sender: ReversePath) -> str:
        return self.lane


def ready(queue: Queue) -> dict[str, int]:
    return {each.name: each.ready for each in queue.destinations() if each.ready}


async def test_who_stands_in_a_lane_is_taken_from_there_and_given_back_to_the_new_one(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    lane = Says("old")
    async with virtual_queue(tmp_path / "queue", lane=lane) as queue:
        await queue.accept(envelope("a@x", "b@x"), CONTENT)
        lane.lane = "new"
        assert ready(queue) == {"old": 1}
        with await queue.claim() as claim:
            work = claim.take()
            assert work is not None
            assert work.lane == "old"
            with work:
                pass
        assert ready(queue) == {"new": 1}


async def test_who_waits_in_a_closed_lane_is_retried_where_he_goes_by_now(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    lane = Says("old")
    async with virtual_queue(tmp_path / "queue", lane=lane) as queue:
        stop = Suspension(scope="destination:old", who="operator:root", reason="", since=0.0)
        await queue.suspend(stop)
        for _ in range(200):  # more than a closed lane keeps in memory
            await queue.accept(envelope("a@x", "b@x"), CONTENT)
        lane.lane = "new"
        assert (await act(queue, Retry())).messages == 200
        assert set(ready(queue)) == {"new"}
        delivered = 0
        while delivered < 200:
            with await queue.claim() as claim:
                while work := claim.take():
                    with work:
                        assert work.lane == "new"
                        await queue.settle(work, attempts(work, Result.DELIVERED), durable=True)
                        delivered += 1
        assert queue.waiting == 0


@pytest.mark.parametrize("seed", range(5))
async def test_with_lanes_that_are_others_each_time_all_mail_is_tried(
    seed: int, tmp_path: Path, autojump_clock: MockClock
) -> None:
    chance = random.Random(seed)

    def lane(_: Destined, _sender: ReversePath) -> str:
        return f"lane{chance.randrange(4)}"

    async with virtual_queue(
        tmp_path / "queue", lane=lane, tuning=Tuning(window=20, workers=3)
    ) as queue:
        ids = [await queue.accept(envelope("a@x", "b@x", "c@y"), CONTENT) for _ in range(100)]
        tried = Counter[str]()

        async def work_off() -> None:
            while True:
                with await queue.claim() as claim:
                    while (work := claim.take(most=2)) is not None:
                        with work:
                            await trio.sleep(chance.random())
                            match chance.randrange(5):
                                case 0:
                                    claim.failed(park=True, reason="silent")
                                case 1:
                                    pass  # given back
                                case 2:
                                    await queue.settle(work, attempts(work, Result.DEFERRED))
                                case _:
                                    claim.succeeded()
                                    tried[work.message.id] += len(work.recipients)
                                    await queue.settle(work, attempts(work, Result.DELIVERED))

        with trio.move_on_after(5 * 86400) as patience:
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(work_off)
                while tried.total() < 300:
                    await trio.sleep(60)
                    if chance.random() < 0.2:
                        queue.retune()
                    if chance.random() < 0.2:
                        await act(queue, Retry())
                await trio.sleep(1)
                nursery.cancel_scope.cancel()
        assert not patience.cancelled_caught
        assert all(states(tmp_path / "queue", id_) == [State.DELIVERED] * 3 for id_ in ids)
        assert set(tried.values()) == {3}
        assert (await queue.count(Filter())).messages == 0
        assert queue.waiting == 0
        assert ready(queue) == {}
