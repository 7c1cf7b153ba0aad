"""How much happened, on virtual time and a real database."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Final

import msgspec
import pytest
import trio

from elemta.queue import DAY, HOUR, MINUTE, Queue, Result, check
from elemta.queue.counting import KEPT, REMEMBERED
from tests.queue.mail import (
    CONTENT,
    EPOCH,
    Disks,
    envelope,
    settle_next,
    virtual_queue,
)

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

#: The tests begin in the midst of these: at 14:13:20 UTC.
THIS_MINUTE: Final = int(EPOCH) // 60 * 60
THIS_HOUR: Final = int(EPOCH) // 3600 * 3600
TODAY: Final = int(EPOCH) // 86400 * 86400


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "queue"


async def deliver(queue: Queue, count: int = 1) -> None:
    for _ in range(count):
        await queue.accept(envelope(), CONTENT)
        await settle_next(queue, Result.DELIVERED)


def delivered(queue: Queue, step: int, count: int) -> dict[int, int]:
    """How many were delivered in which steps; those without any are left out."""
    buckets = queue.counting.buckets(step, count)
    assert len(buckets) == count
    starts = [start for start, _ in buckets]
    assert starts == list(range(starts[0], starts[0] + count * step, step))
    return {start: told["delivered"] for start, told in buckets if told.get("delivered")}


def rows(folder: Path) -> dict[tuple[int, int], dict[str, int]]:
    with closing(sqlite3.connect(folder / "queue.db")) as database:
        found = database.execute("SELECT step, start, counts FROM statistics").fetchall()
    return {(step, start): msgspec.msgpack.decode(counts) for step, start, counts in found}


async def test_what_happens_is_counted_at_once_by_its_name(
    folder: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(folder) as queue:
        await deliver(queue, 2)
        await queue.accept(envelope(), CONTENT)
        await settle_next(queue, Result.FAILED)
        (_, told) = queue.counting.buckets(MINUTE, 60)[-1]
        assert told == {
            "queued": 3, "attemptstarted": 3, "delivered": 2, "failed": 1, "finished": 3,
        }  # fmt: skip
        assert queue.counting.buckets(MINUTE, 60)[-2] == (THIS_MINUTE - 60, {})


async def test_each_minute_has_its_own_and_hours_and_days_have_all(
    folder: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(folder) as queue:
        await deliver(queue)
        await trio.sleep(60)
        await deliver(queue, 2)
        await trio.sleep(3600)
        await deliver(queue, 4)
        minutes = {THIS_MINUTE + 60: 2, THIS_MINUTE + 3660: 4}
        assert delivered(queue, MINUTE, 61) == minutes
        assert delivered(queue, HOUR, 24) == {THIS_HOUR: 3, THIS_HOUR + 3600: 4}
        assert delivered(queue, DAY, 7) == {TODAY: 7}
        await trio.sleep(DAY)
        await deliver(queue)
        assert delivered(queue, DAY, 2) == {TODAY: 7, TODAY + DAY: 1}
        assert delivered(queue, DAY, 1) == {TODAY + DAY: 1}
        assert delivered(queue, HOUR, 24) == {THIS_HOUR + DAY + 3600: 1}


async def test_a_restart_forgets_nothing_and_goes_on_in_the_same_minute(
    folder: Path, autojump_clock: MockClock
) -> None:
    for count in (1, 2, 3):
        async with virtual_queue(folder) as queue:
            await deliver(queue)
            assert delivered(queue, MINUTE, 60) == {THIS_MINUTE: count}
            assert delivered(queue, DAY, 30) == {TODAY: count}
    assert rows(folder)[HOUR, THIS_HOUR]["delivered"] == 3


async def test_a_crash_forgets_what_happened_in_its_minute_alone(
    folder: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(folder) as queue:
        await deliver(queue)
        assert rows(folder) == {}
        await trio.sleep(60)
        await deliver(queue)
        now_on_disk = rows(folder)
        assert now_on_disk[MINUTE, THIS_MINUTE]["delivered"] == 1
        assert now_on_disk[HOUR, THIS_HOUR]["delivered"] == 1
        assert (MINUTE, THIS_MINUTE + 60) not in now_on_disk


async def test_where_nothing_happens_nothing_is_written(
    folder: Path, autojump_clock: MockClock
) -> None:
    disks = Disks()
    async with virtual_queue(folder, disk=disks) as queue:
        await deliver(queue)
        await trio.sleep(100)
        written = disks.disk.written
        await trio.sleep(1800)
        assert disks.disk.written == written


async def test_what_the_disk_did_not_take_is_written_once_it_does(
    folder: Path, autojump_clock: MockClock
) -> None:
    disks = Disks()
    async with virtual_queue(folder, disk=disks) as queue:
        await deliver(queue)
        disks.disk.full = True
        await trio.sleep(300)
        assert rows(folder) == {}
        disks.disk.full = False
        await trio.sleep(61)
        assert rows(folder)[MINUTE, THIS_MINUTE]["delivered"] == 1
        assert delivered(queue, MINUTE, 60) == {THIS_MINUTE: 1}


async def test_what_is_too_old_to_be_asked_for_is_not_kept_in_memory(
    folder: Path, autojump_clock: MockClock
) -> None:
    disks = Disks()
    async with virtual_queue(folder, disk=disks) as queue:
        await deliver(queue)
        disks.disk.full = True
        await trio.sleep(2 * HOUR)
        disks.disk.full = False
        await deliver(queue)
        await trio.sleep(60)
        assert len(queue.counting._counts[MINUTE]) == 1
        # That minute never reached the disk; its hour did.
        assert (MINUTE, THIS_MINUTE) not in rows(folder)
        assert rows(folder)[HOUR, THIS_HOUR]["delivered"] == 1


async def test_rows_go_after_their_time(folder: Path, autojump_clock: MockClock) -> None:
    async with virtual_queue(folder) as queue:
        await deliver(queue)
    old = {step: _start(EPOCH - age - 2 * step, step) for step, age in KEPT.items()}
    young = {step: _start(EPOCH - age + 2 * step, step) for step, age in KEPT.items()}
    with closing(sqlite3.connect(folder / "queue.db", isolation_level=None)) as database:
        for starts in (old, young):
            for step, start in starts.items():
                row = (step, start, msgspec.msgpack.encode({"queued": 1}))
                database.execute("INSERT INTO statistics VALUES (?, ?, ?)", row)
    async with virtual_queue(folder):
        await trio.sleep(1)
    found = rows(folder)
    assert all(step_and_start in found for step_and_start in young.items())
    assert not any(step_and_start in found for step_and_start in old.items())


async def test_a_row_that_cannot_be_read_counts_for_nothing_and_is_found(
    folder: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(folder) as queue:
        await deliver(queue)
    assert check(folder) == []
    with closing(sqlite3.connect(folder / "queue.db", isolation_level=None)) as database:
        database.execute("UPDATE statistics SET counts = x'c1' WHERE step = 60")
    (finding,) = check(folder)
    assert (finding.where, finding.what) == (f"statistics 60 {THIS_MINUTE}", "cannot be read")
    async with virtual_queue(folder) as queue:
        assert delivered(queue, MINUTE, 60) == {}
        assert delivered(queue, HOUR, 24) == {THIS_HOUR: 1}


def test_what_is_in_memory_is_enough_for_what_is_asked() -> None:
    assert REMEMBERED[MINUTE] > 60
    assert REMEMBERED[HOUR] > 29 * 24 + 23


def _start(time: float, step: int) -> int:
    return int(time) // step * step
