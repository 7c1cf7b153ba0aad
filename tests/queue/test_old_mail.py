from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from elemta.queue import HistoryLimits, Result, RetryPolicy, StoreReader
from tests.queue.mail import CONTENT, envelope, hold, settle_next, virtual_queue

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

DAY = 86400.0


async def test_fault_7_no_clean_up_takes_mail_that_is_not_finished(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The original deleted whatever was older than a day, once an hour, in all its queues."""
    policy = RetryPolicy(jitter=0.0, schedule=(DAY,), lifetime=DAY / 4)
    nothing = HistoryLimits(age=1.0, count=0)
    async with virtual_queue(tmp_path / "queue", policy=policy, history=nothing) as queue:
        done = await queue.accept(envelope("f@done"), CONTENT)
        await settle_next(queue, Result.DELIVERED)
        deferred = await queue.accept(envelope("a@slow"), CONTENT)
        await settle_next(queue, Result.DEFERRED)
        held = await queue.accept(envelope("b@held"), CONTENT)
        await hold(queue, held)
        half = await queue.accept(envelope("c@done", "d@slow"), CONTENT)
        await settle_next(queue, Result.DELIVERED)
        ready = await queue.accept(envelope("e@ready"), CONTENT)
        await trio.sleep(3 * DAY)
        with StoreReader(tmp_path / "queue") as reader:
            assert reader.get(done) is None
            assert [reader.body(each) for each in (deferred, held, half, ready)] == [CONTENT] * 4
