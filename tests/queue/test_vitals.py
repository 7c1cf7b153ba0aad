"""What supervision asks the queue."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from elemta.queue import RetryPolicy, StoreUnavailable, open_queue
from tests.queue import mail
from tests.queue.mail import CONTENT, Disks, envelope, virtual_queue

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path


async def test_the_writer_answers_though_its_disk_is_in_trouble(tmp_path: Path) -> None:
    disks = Disks()
    async with virtual_queue(tmp_path, disk=disks) as queue:
        await trio.testing.wait_all_tasks_blocked()
        before = disks.disk.written
        await queue.answers()
        assert disks.disk.written == before + 1
        disks.disk.full = True
        with pytest.raises(StoreUnavailable):
            await queue.accept(envelope(), CONTENT)
        await queue.answers()
        assert not queue.healthy  # to have answered is not to be well
        disks.disk.full = False
        await queue.answers()
        assert queue.healthy


async def test_events_are_counted_by_their_kind(tmp_path: Path) -> None:
    async with virtual_queue(tmp_path) as queue:
        for _ in range(3):
            await queue.accept(envelope(), CONTENT)
        assert queue.events.counts == {"Queued": 3}


async def test_whoever_supervises_runs_the_queues_own_tasks(tmp_path: Path) -> None:
    kept: list[str] = []

    async def keep(name: str, run: Callable[[], Awaitable[object]], /) -> None:
        kept.append(name)
        await run()

    async with open_queue(
        tmp_path, mail.POLICY, lane=mail.by_domain, clock=mail.now, inline=True, keep=keep
    ):
        await trio.testing.wait_all_tasks_blocked()
    assert sorted(kept) == ["counting", "maintenance", "schedule"]


async def test_a_long_look_at_the_store_keeps_nobody_from_stopping(tmp_path: Path) -> None:
    looked, enough = threading.Event(), threading.Event()

    def look() -> None:
        looked.set()
        enough.wait(20)

    async with open_queue(tmp_path, RetryPolicy(), lane=lambda *_: "x") as queue:
        try:
            with trio.fail_after(60):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(partial(queue.in_thread, look, abandonable=True))
                    await trio.to_thread.run_sync(looked.wait)
                    nursery.cancel_scope.cancel()
        finally:
            enough.set()
