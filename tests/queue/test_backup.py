from __future__ import annotations

import itertools
import os
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
import trio
from typing_extensions import override

from elemta.queue import (
    Filter,
    Message,
    Result,
    RetryPolicy,
    SpoolError,
    State,
    StoreReader,
    StoreUnavailable,
    View,
    backup,
    check,
    open_queue,
)
from elemta.queue.backup import choose_moment
from elemta.queue.bodies import BodyFiles
from elemta.queue.change import Insert
from elemta.queue.entry import Entry
from elemta.queue.ids import IdSource
from elemta.queue.reader import connect
from elemta.queue.schema import INLINE
from elemta.queue.store import Store, database
from tests.queue.mail import (
    CONTENT,
    EPOCH,
    attempts,
    by_domain,
    envelope,
    found,
    hold,
    settle_next,
    virtual_queue,
)

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

LARGE = bytes(range(256)) * 1025


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "queue"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "copy"


async def test_a_copy_is_a_queue_as_it_was_at_one_moment(
    folder: Path, target: Path, autojump_clock: MockClock
) -> None:
    assert len(LARGE) > INLINE
    async with virtual_queue(folder) as queue:
        done = await queue.accept(envelope("a@x"), LARGE)
        await settle_next(queue, Result.DELIVERED)
        held = await queue.accept(envelope("b@x"), CONTENT)
        await hold(queue, held)
        large = await queue.accept(envelope("c@x"), LARGE)
        backup(folder, target)
        await settle_next(queue, Result.DELIVERED)
        await queue.accept(envelope("d@x"), CONTENT)
    assert sorted(os.listdir(folder)) == ["bodies", "lock", "queue.db"]
    assert sorted(os.listdir(folder.parent)) == ["copy", "queue"]
    assert check(target, clock=lambda: EPOCH) == []
    assert found(target) == [held, large]
    assert found(target, Filter(views=(View.DELIVERED,))) == [done]
    assert [path.stat().st_mode & 0o77 for path in (target, target / "queue.db")] == [0, 0]
    async with virtual_queue(target) as queue:
        with await queue.claim() as claim:
            work = claim.take()
            assert work is not None
            with work:
                body = await work.body()
                assert b"".join([piece async for piece in body.chunks()]) == LARGE
                await queue.settle(work, attempts(work, Result.DELIVERED), durable=True)
        with StoreReader(target) as reader:
            message = reader.get(held)
        assert message is not None
        assert message.recipients[0].state is State.HELD
        assert queue.new_id() > large


async def test_a_queue_that_is_closed_can_be_copied(
    folder: Path, target: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(folder) as queue:
        large = await queue.accept(envelope(), LARGE)
    backup(folder, target)
    assert found(target) == [large]
    assert (target / "bodies" / large).read_bytes() == LARGE


async def test_a_copy_is_true_while_large_mail_comes_and_goes(folder: Path, target: Path) -> None:
    """Each copy is whole, whatever was delivered, and its file removed, while it was made."""
    async with open_queue(folder, RetryPolicy(), lane=by_domain) as queue:

        async def carry_on() -> None:
            for number in itertools.count():
                await queue.accept(envelope(f"u{number}@x"), LARGE)
                if number > 5:
                    await settle_next(queue, Result.DELIVERED)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(carry_on)
            for number in range(5):
                copy = target.with_name(f"copy{number}")
                await trio.to_thread.run_sync(backup, folder, copy)
                assert await trio.to_thread.run_sync(check, copy) == []
            nursery.cancel_scope.cancel()


async def test_a_body_that_was_lost_before_is_not_in_the_copy_either(
    folder: Path, target: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(folder) as queue:
        lost = await queue.accept(envelope(), LARGE)
        (folder / "bodies" / lost).unlink()
        backup(folder, target)
    assert [finding.where for finding in check(target)] == [lost]


class Restless(BodyFiles):
    """Whenever one looks, a large message has come whose file has gone already."""

    def __init__(self, store: Store) -> None:
        super().__init__(store.bodies.path(""))
        self._store = store
        self._new_id = IdSource(lambda: EPOCH)

    @override
    def ids(self) -> list[str]:
        message = Message(
            id=self._new_id(),
            sender=None,
            recipients=[],
            received_at=EPOCH,
            expires_at=EPOCH,
            size=INLINE + 1,
        )
        self._store.apply([Insert(Entry(message), None, lambda _: None)])
        return []


def test_where_large_mail_never_rests_the_copy_is_put_off(folder: Path, tmp_path: Path) -> None:
    store = Store(folder)
    with closing(connect(database(folder))) as source:
        with pytest.raises(StoreUnavailable, match="faster than they can be copied"):
            choose_moment(source, Restless(store), tmp_path)
        assert not source.in_transaction
    store.close()


async def test_what_cannot_be_copied_leaves_nothing_behind(
    folder: Path, target: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(folder) as queue:
        large = await queue.accept(envelope(), LARGE)
        body = folder / "bodies" / large
        body.rename(folder / "aside")
        body.mkdir()  # has no second name
        with pytest.raises(OSError, match="not permitted"):
            backup(folder, target)
        body.rmdir()
        (folder / "aside").rename(body)
    assert sorted(os.listdir(folder)) == ["bodies", "lock", "queue.db"]
    assert sorted(os.listdir(folder.parent)) == ["queue"]


def test_a_copy_is_never_made_over_something(tmp_path: Path, target: Path) -> None:
    target.mkdir()
    with pytest.raises(FileExistsError):
        backup(tmp_path, target)


def test_where_there_is_no_queue_nothing_is_copied(folder: Path, target: Path) -> None:
    folder.mkdir()
    with pytest.raises(SpoolError, match="there is no queue"):
        backup(folder, target)
    assert not target.exists()
