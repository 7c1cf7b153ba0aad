"""Who hands in the same again, with the same key, gets the answer of the first time."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest
import trio

from elemta.queue import (
    KeyReusedError,
    Queue,
    Receipt,
    Result,
    StoreUnavailable,
    check,
    open_queue,
)
from elemta.queue.maintenance import RECEIPT_AGE, RECEIPTS, ROUND, STEP
from elemta.queue.schema import INLINE
from tests.queue.mail import (
    CONTENT,
    EPOCH,
    POLICY,
    Disks,
    by_domain,
    envelope,
    found,
    settle_next,
    virtual_queue,
)

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

LARGE = bytes(INLINE + 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "queue"


@pytest.mark.parametrize("content", [CONTENT, LARGE])
async def test_the_same_again_is_one_message(
    folder: Path, autojump_clock: MockClock, content: bytes
) -> None:
    async with virtual_queue(folder) as queue:
        assert await queue.known("k") is None
        first = await queue.accept(envelope(), content, key="k", digest=b"d")
        wanted = queue.new_id()
        again = await queue.accept(envelope(), content, wanted, key="k", digest=b"d")
        assert again == first != wanted
        assert await queue.accept(envelope(), content, key="l", digest=b"d") != first
        assert await queue.accept(envelope(), content) != first
        known = await queue.known("k")
        assert known == Receipt("k", first, b"d", known.at if known else 0.0)
        assert len(found(folder)) == 3
        assert len(list((folder / "bodies").iterdir())) == (3 if content is LARGE else 0)
        assert queue.events.counts["Queued"] == 3


async def test_it_is_known_after_a_restart_and_when_the_message_is_finished(
    folder: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(folder) as queue:
        first = await queue.accept(envelope(), CONTENT, key="k")
        await settle_next(queue, Result.DELIVERED)
    async with virtual_queue(folder) as queue:
        assert await queue.accept(envelope(), CONTENT, key="k") == first
        assert found(folder) == []


async def test_something_else_with_the_same_key_is_not_taken(
    folder: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(folder) as queue:
        first = await queue.accept(envelope(), CONTENT, key="k", digest=b"d")
        with pytest.raises(KeyReusedError, match=first):
            await queue.accept(envelope("b@y"), CONTENT, key="k", digest=b"e")
        async with queue.receive(envelope()) as incoming:
            await incoming.write(LARGE)
            with pytest.raises(KeyReusedError):
                await incoming.commit(key="k", digest=b"e")
        assert found(folder) == [first]
        assert list((folder / "bodies").iterdir()) == []


async def test_a_large_message_that_comes_again_leaves_no_second_body(
    folder: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(folder) as queue:
        first = await queue.accept(envelope(), LARGE, key="k")
        async with queue.receive(envelope()) as incoming:
            await incoming.write(LARGE)
            assert await incoming.commit(key="k") == first
        assert [each.name for each in (folder / "bodies").iterdir()] == [first]


async def test_what_the_disk_did_not_take_can_come_again(
    folder: Path, autojump_clock: MockClock
) -> None:
    disks = Disks()
    async with virtual_queue(folder, disk=disks) as queue:
        disks.disk.full = True
        with pytest.raises(StoreUnavailable):
            await queue.accept(envelope(), CONTENT, key="k")
        assert await queue.known("k") is None
        disks.disk.full = False
        first = await queue.accept(envelope(), CONTENT, key="k")
        assert found(folder) == [first]


async def test_those_who_come_at_the_same_time_get_one_answer(folder: Path) -> None:
    """With the writer's thread, and real threads that look: whoever is first, he is alone."""
    answers: list[str] = []

    async def submit(queue: Queue, key: str) -> None:
        answers.append(await queue.accept(envelope(), CONTENT, key=key))

    async with open_queue(folder, POLICY, lane=by_domain) as queue:
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(submit, queue, f"key {number % 2}")
        assert len(answers) == 20
        assert sorted(set(answers)) == found(folder)
        assert len(set(answers)) == 2


async def test_who_gives_up_waiting_for_his_turn_holds_nobody_up(
    folder: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(folder) as queue:
        with trio.CancelScope() as scope:
            scope.cancel()
            await queue.accept(envelope(), CONTENT, key="k")
        assert scope.cancelled_caught
        assert await queue.accept(envelope(), CONTENT, key="k") == found(folder)[0]


async def test_keys_that_cannot_be_looked_up_take_no_mail(
    folder: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(folder) as queue:
        database = sqlite3.connect(folder / "queue.db", isolation_level=None)
        database.execute("ALTER TABLE receipt RENAME TO elsewhere")
        with pytest.raises(StoreUnavailable, match="cannot read the queue"):
            await queue.accept(envelope(), CONTENT, key="k")
        database.execute("ALTER TABLE elsewhere RENAME TO receipt")
        database.close()
        assert found(folder) == []


@pytest.mark.large
async def test_keys_are_forgotten_after_a_week(folder: Path, autojump_clock: MockClock) -> None:
    async with virtual_queue(folder) as queue:
        first = await queue.accept(envelope(), CONTENT, key="k")
        await trio.sleep(RECEIPT_AGE - ROUND)
        assert await queue.accept(envelope(), CONTENT, key="k") == first
        await trio.sleep(3700)
        assert await queue.known("k") is None
        assert await queue.accept(envelope(), CONTENT, key="k") != first


async def test_of_too_many_keys_the_oldest_are_forgotten(
    folder: Path, autojump_clock: MockClock
) -> None:
    excess = STEP + 50
    async with virtual_queue(folder):
        pass
    database = sqlite3.connect(folder / "queue.db")
    database.execute(
        "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
        "INSERT INTO receipt SELECT 'key ' || i, ?, x'', ? + i / 1000.0 FROM n",
        (RECEIPTS + excess - 1, "0" * 26, EPOCH - 1000),
    )
    database.commit()
    database.close()
    async with virtual_queue(folder) as queue:
        await trio.sleep(1)
        assert await queue.known(f"key {excess - 1}") is None
        assert await queue.known(f"key {excess}") is not None
        assert await queue.known(f"key {RECEIPTS + excess - 1}") is not None


async def test_a_receipt_that_names_no_message_is_found(
    folder: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(folder) as queue:
        await queue.accept(envelope(), CONTENT, key="k")
        await settle_next(queue, Result.DELIVERED)
    assert check(folder) == []
    database = sqlite3.connect(folder / "queue.db", isolation_level=None)
    database.execute("UPDATE receipt SET id = 'nonsense'")
    database.execute("INSERT INTO scheduled VALUES (5, 1.0)")
    database.close()
    told = {each.where: each.what for each in check(folder)}
    assert told["receipt k"] == "'nonsense' is not the id of a message"
    assert "scheduled 5" in told
