from __future__ import annotations

import sqlite3
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from elemta.queue import (
    Filter,
    Message,
    Queue,
    Result,
    SpoolError,
    State,
    StoreReader,
    StoreUnavailable,
    Tuning,
)
from tests.queue.mail import (
    CONTENT,
    EPOCH,
    REPLIES,
    attempts,
    envelope,
    hold,
    settle_next,
    virtual_queue,
)

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock


def ids(messages: list[Message]) -> list[str]:
    return [message.id for message in messages]


async def one_of_each(queue: Queue) -> dict[State, str]:
    """A message in each state."""
    found: dict[State, str] = {}
    found[State.DELIVERED] = await queue.accept(envelope("a@x"), CONTENT)
    await settle_next(queue, Result.DELIVERED)
    found[State.FAILED] = await queue.accept(envelope("b@x"), CONTENT)
    await settle_next(queue, Result.FAILED)
    found[State.EXPIRED] = await queue.accept(envelope("c@x"), CONTENT)
    await settle_next(queue, Result.DEFERRED, expired=True)
    found[State.DEFERRED] = await queue.accept(envelope("d@x"), CONTENT)
    await settle_next(queue, Result.DEFERRED)
    found[State.HELD] = await queue.accept(envelope("e@x"), CONTENT)
    await hold(queue, found[State.HELD])
    found[State.READY] = await queue.accept(envelope("f@x", "g@x"), CONTENT)
    return found


async def test_the_reader_works_when_the_daemon_is_down(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue") as queue:
        found = await one_of_each(queue)
    with StoreReader(tmp_path / "queue") as reader:
        stats = reader.stats()
        message = reader.get(found[State.DEFERRED].lower())
    assert stats.messages == 3
    assert stats.recipients == {
        State.READY: 2,
        State.DEFERRED: 1,
        State.HELD: 1,
        State.DELIVERED: 0,
        State.FAILED: 0,
        State.EXPIRED: 0,
        State.DELETED: 0,
    }
    assert stats.oldest == pytest.approx(EPOCH, abs=1)
    assert stats.history == 3
    assert message is not None
    (recipient,) = message.recipients
    assert (recipient.state, recipient.attempts) == (State.DEFERRED, 1)
    assert recipient.due == pytest.approx(EPOCH + 300, abs=1)
    assert recipient.last == REPLIES[Result.DEFERRED]


async def test_an_empty_queue_has_empty_stats(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with virtual_queue(tmp_path / "queue"):
        with StoreReader(tmp_path / "queue") as reader:
            stats = reader.stats()
            assert (stats.messages, stats.oldest, stats.history) == (0, None, 0)
            assert reader.search(Filter(), now=EPOCH) == []


async def test_a_timeline_shows_each_attempt_in_order(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue") as queue:
        queued = await queue.accept(envelope(), CONTENT)
        for result in (Result.DEFERRED, Result.DEFERRED, Result.DELIVERED):
            await settle_next(queue, result)
        with StoreReader(tmp_path / "queue") as reader:
            timeline = reader.timeline(queued)
        assert timeline is not None
        assert [each.result for each in timeline.attempts] == [
            Result.DEFERRED,
            Result.DEFERRED,
            Result.DELIVERED,
        ]
        assert timeline.attempts[-1].host == "mx.x[192.0.2.1]:25"
        assert timeline.finished_at == pytest.approx(EPOCH + 900, abs=1)
        assert timeline.message.recipients[0].attempts == 3


async def test_what_is_not_known_is_none(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with virtual_queue(tmp_path / "queue") as queue:
        queued = await queue.accept(envelope(), CONTENT)
        done = await queue.accept(envelope("b@y"), CONTENT)
        with await queue.claim(), await queue.claim() as claim:
            work = claim.take()
            assert work is not None
            assert work.message.id == done
            with work:
                await queue.settle(work, attempts(work, Result.DELIVERED), durable=True)
        guessed = queued[:13] + "0" * 13
        with StoreReader(tmp_path / "queue") as reader:
            for unknown in ("nonsense", queue.new_id(), guessed):
                assert reader.get(unknown) is None
                assert reader.body(unknown) is None
            assert reader.body(queued) == CONTENT
            assert reader.body(done) is None


async def test_a_body_that_is_missing_or_unreadable_is_told(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue", tuning=Tuning(memory=0)) as queue:
        await queue.accept(envelope(), CONTENT)
        other = sqlite3.connect(tmp_path / "queue" / "queue.db", isolation_level=None)
        with await queue.claim() as claim:
            work = claim.take()
            assert work is not None
            with work:
                other.execute("DELETE FROM body")
                with pytest.raises(StoreUnavailable, match="is missing"):
                    await work.body()
                other.execute("DROP TABLE body")
                with pytest.raises(StoreUnavailable, match="cannot read the body"):
                    await work.body()
        other.close()


async def test_a_reader_serves_several_threads_at_once(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue") as queue:
        wanted = [await queue.accept(envelope(f"u{n}@x"), CONTENT) for n in range(50)]
    got: list[list[str]] = []

    async def read(reader: StoreReader) -> None:
        search = partial(reader.search, Filter(), now=EPOCH)
        got.append(ids(await trio.to_thread.run_sync(search)))

    with StoreReader(tmp_path / "queue") as reader:
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(read, reader)
    assert got == [wanted] * 8


def test_where_there_is_no_queue_the_reader_says_so(tmp_path: Path) -> None:
    with StoreReader(tmp_path) as reader, pytest.raises(SpoolError, match="there is no queue"):
        reader.stats()


def test_a_store_of_another_version_is_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "queue.db")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with StoreReader(tmp_path) as reader, pytest.raises(SpoolError, match="version 99"):
        reader.stats()


def test_a_file_that_is_no_database_is_refused_by_the_reader(tmp_path: Path) -> None:
    (tmp_path / "queue.db").write_bytes(b"Dear Sir or Madam," * 100)
    with StoreReader(tmp_path) as reader, pytest.raises(sqlite3.DatabaseError):
        reader.stats()
