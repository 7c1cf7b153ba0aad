from __future__ import annotations

import os
from typing import TYPE_CHECKING

import trio

from elemta.queue import (
    Delete,
    Filter,
    HistoryLimits,
    Result,
    RetryPolicy,
    StoreReader,
    View,
    check,
)
from elemta.queue.maintenance import ROUND, SLACK, STEP
from elemta.queue.schema import INLINE, PAGE
from tests.queue.mail import (
    CONTENT,
    Disks,
    envelope,
    found,
    hold,
    now,
    settle_next,
    virtual_queue,
)

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

DAY = 86400.0


async def test_history_goes_after_its_age(tmp_path: Path, autojump_clock: MockClock) -> None:
    limits = HistoryLimits(age=1.2 * DAY)
    policy = RetryPolicy(jitter=0.0, lifetime=3600.0)
    async with virtual_queue(tmp_path / "queue", policy=policy, history=limits) as queue:
        with StoreReader(tmp_path / "queue") as reader:
            queued = await queue.accept(envelope(), CONTENT)
            await settle_next(queue, Result.DEFERRED)
            await settle_next(queue, Result.DELIVERED)
            held = await queue.accept(envelope(), CONTENT)
            await hold(queue, held)
            await trio.sleep(1.19 * DAY)
            assert reader.get(queued) is not None
            await trio.sleep(0.06 * DAY)  # a round in an hour, if nothing happens
            assert reader.timeline(queued) is None
            assert reader.get(held) is not None  # what is not finished is not history
            assert reader.stats().history == 0


async def test_history_is_kept_longer_than_mail_lives(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    policy, limits = RetryPolicy(lifetime=DAY / 4), HistoryLimits(age=1.0)
    async with virtual_queue(tmp_path / "queue", policy=policy, history=limits) as queue:
        queued = await queue.accept(envelope(), CONTENT)
        await settle_next(queue, Result.DELIVERED)
        await trio.sleep(policy.lifetime + DAY / 2)
        with StoreReader(tmp_path / "queue") as reader:
            assert reader.get(queued) is not None


async def test_history_is_bounded_by_count_and_the_oldest_go(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    count = STEP + 20
    async with virtual_queue(tmp_path / "queue", history=HistoryLimits(count=30)) as queue:
        ids = [await queue.accept(envelope(f"u{n}@x"), CONTENT) for n in range(count)]
        for _ in ids:
            await settle_next(queue, Result.DELIVERED)
        await trio.sleep(ROUND + 1)
        with StoreReader(tmp_path / "queue") as reader:
            assert reader.stats().history == 30
            assert [ids.index(queued) for queued in ids if reader.get(queued)] == [
                *range(count - 30, count)
            ]


async def test_files_that_nobody_owns_are_swept_and_others_are_not(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    bodies = tmp_path / "queue" / "bodies"
    async with virtual_queue(tmp_path / "queue") as queue:
        done = await queue.accept(envelope("a@x"), b"x" * (INLINE + 1))
        await settle_next(queue, Result.DELIVERED)
        live = await queue.accept(envelope("b@x"), b"x" * (INLINE + 1))
        never = queue.new_id()
    alike = live[:13] + "0" * 13
    for orphan in (done, never, alike):
        (bodies / orphan).write_bytes(b"left by a crash")
    (bodies / "README").write_bytes(b"not ours")
    (bodies / "README.new").write_bytes(b"nor this")
    (bodies / f"{live}.new").write_bytes(b"of a crash while a header was rewritten")
    (bodies / f"{never}.new").mkdir()  # what cannot be removed is no reason not to start
    async with (
        virtual_queue(tmp_path / "queue") as queue,
        queue.receive(envelope("c@x")) as incoming,
    ):
        await incoming.write(b"y" * (INLINE + 1))
        await trio.sleep(1)
        ours = [live, incoming.id, f"{never}.new"]
        assert sorted(os.listdir(bodies)) == sorted([*ours, "README", "README.new"])


async def test_a_database_that_was_large_once_shrinks(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    count, size = 300, 200_000
    async with virtual_queue(tmp_path / "queue") as queue:
        for _ in range(count):
            await queue.accept(envelope(), b"z" * size)
        await queue.act(Delete(), Filter(), who="operator:root")
        await trio.sleep(ROUND + 1)
        room = queue.room.__self__  # type: ignore[attr-defined] # it is a `Disk`'s method
        assert room._reusable() == SLACK * PAGE
    assert (tmp_path / "queue" / "queue.db").stat().st_size < count * size / 2


async def test_notes_go_with_the_history_they_stand_in(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue", history=HistoryLimits(count=1)) as queue:
        for _ in range(3):
            await queue.accept(envelope(), CONTENT)
        await queue.act(Delete(), Filter(), who="operator:root")
        await trio.sleep(ROUND + 1)
    assert check(tmp_path / "queue", clock=now) == []
    (left,) = found(tmp_path / "queue", Filter(views=(View.FAILED,)))
    with StoreReader(tmp_path / "queue") as reader:
        timeline = reader.timeline(left)
    assert timeline is not None
    assert [note.action for note in timeline.notes] == ["delete"]


async def test_maintenance_waits_for_a_disk_that_is_full(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    disks = Disks()
    limits = HistoryLimits(count=0)
    async with virtual_queue(tmp_path / "queue", history=limits, disk=disks) as queue:
        queued = await queue.accept(envelope(), CONTENT)
        await settle_next(queue, Result.DELIVERED)
        disks.disk.full = True
        await trio.sleep(3 * ROUND)
        with StoreReader(tmp_path / "queue") as reader:
            assert reader.get(queued) is not None
            disks.disk.full = False
            await trio.sleep(ROUND + 1)
            assert reader.get(queued) is None


async def test_what_is_free_inside_the_database_counts_as_room(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue") as queue:
        for n in range(50):
            await queue.accept(envelope(f"u{n}@x"), b"z" * 100_000)
        for _ in range(50):
            await settle_next(queue, Result.DELIVERED)
        await trio.sleep(ROUND + 1)
        room = queue.room.__self__  # type: ignore[attr-defined] # it is a `Disk`'s method
        assert room._reusable() > 4_000_000
        assert now() > 0
