"""What operators do with mail that waits, on virtual time and a real database."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest
import trio

from elemta.protocol import RcptParams
from elemta.queue import (
    Action,
    Addressee,
    Bounce,
    Delete,
    Deleted,
    Envelope,
    Failed,
    Filter,
    Finished,
    Held,
    Hold,
    Holder,
    Note,
    Priority,
    Queued,
    Redirect,
    Redirected,
    Release,
    Released,
    Reprioritise,
    Reprioritised,
    Result,
    Retry,
    State,
    StoreReader,
    StoreUnavailable,
    Tally,
    Tuning,
    View,
)
from elemta.queue.schema import INLINE
from tests.queue.mail import (
    CONTENT,
    EPOCH,
    REPLIES,
    Disks,
    address,
    attempts,
    envelope,
    found,
    now,
    settle_next,
    virtual_queue,
)
from tests.queue.steering import EVERYTHING, ROOT, act, states, tally, timeline, tried

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "queue"


async def test_what_is_deleted_is_history_and_nobody_hears_of_it(
    folder: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(folder) as queue:
        queued = await queue.accept(envelope("a@x", "b@y"), CONTENT)
        assert await act(queue, Delete()) == tally(1, 2)
        assert await tried(queue) == []
        assert queue.waiting == 0
        known = timeline(folder, queued)
        assert [each.state for each in known.message.recipients] == [State.DELETED, State.DELETED]
        assert known.finished_at == pytest.approx(EPOCH, abs=1)
        assert known.attempts == ()
        (note,) = known.notes
        assert note == Note(
            at=note.at, who=ROOT, action="delete", recipients=(0, 1), reason="spring cleaning"
        )
        with StoreReader(folder) as reader:
            assert reader.body(queued) is None
        assert found(folder, Filter(views=(View.FAILED,))) == [queued]
        assert await act(queue, Delete(), Filter(views=(View.FAILED,))) == tally(0)


async def test_a_large_body_is_removed_with_its_message(
    folder: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(folder) as queue:
        queued = await queue.accept(envelope(), bytes(INLINE + 1))
        await act(queue, Delete(), Filter(ids=(queued,)))
        assert list((folder / "bodies").iterdir()) == []


async def test_who_is_not_meant_stays_as_he_is(folder: Path, autojump_clock: MockClock) -> None:
    async with virtual_queue(folder) as queue:
        queued = await queue.accept(envelope("a@x", "b@x", "c@y"), CONTENT)
        assert await act(queue, Delete(), Filter(recipient="a@x")) == tally(1)
        assert states(folder, queued) == [State.DELETED, State.READY, State.READY]
        assert await act(queue, Hold(), Filter(domain="y")) == tally(1)
        assert await tried(queue) == ["b@x"]
        assert states(folder, queued) == [State.DELETED, State.DELIVERED, State.HELD]
        assert await act(queue, Release()) == tally(1)
        assert await tried(queue) == ["c@y"]


@pytest.mark.parametrize(
    "action", [Hold(), Delete(), Bounce(), Redirect(address("new@y")), Retry()]
)
async def test_who_is_being_tried_is_left_alone_and_counted(
    folder: Path, autojump_clock: MockClock, action: Action
) -> None:
    async with virtual_queue(folder) as queue:
        queued = await queue.accept(envelope("a@x", "b@y"), CONTENT)
        with await queue.claim() as claim:
            work = claim.take()
            assert work is not None
            with work:
                assert await queue.count(EVERYTHING, action) == tally(1, 1, busy=1)
                assert await act(queue, action) == tally(1, 1, busy=1)
                await queue.settle(work, attempts(work, Result.DELIVERED), durable=True)
        assert states(folder, queued)[0] is State.DELIVERED


async def test_what_one_worker_gives_back_can_be_steered_again(
    folder: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(folder) as queue:
        await queue.accept(envelope("a@x"), CONTENT)
        with await queue.claim() as claim, claim.take() or pytest.fail("nothing to do"):
            assert await act(queue, Delete()) == Tally(busy=1)
        assert await act(queue, Delete()) == tally(1)


async def test_messages_on_disk_alone_are_steered_as_well(
    tmp_path: Path, folder: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(folder, tuning=Tuning(window=2)) as queue:
        for number in range(10):
            await queue.accept(envelope(f"u{number}@x"), CONTENT)
        assert await act(queue, Hold()) == tally(10)
        assert queue.waiting == 0
        assert len(found(folder, Filter(views=(View.HOLD,)))) == 10
        assert await act(queue, Release(), Filter(recipient="u7@x")) == tally(1)
        assert await tried(queue) == ["u7@x"]
        assert await act(queue, Delete(), Filter(recipient="u3@x")) == tally(1)
        assert await act(queue, Release()) == tally(8)
        assert len(await tried(queue, within=20)) == 8


async def test_retrying_tries_now_what_was_put_off(folder: Path, autojump_clock: MockClock) -> None:
    async with virtual_queue(folder) as queue:
        queued = await queue.accept(envelope("a@x"), CONTENT)
        await settle_next(queue, Result.DEFERRED)
        assert queue.waiting == 0
        assert await tried(queue) == []
        assert await queue.count(EVERYTHING, Retry()) == tally(1)
        assert await act(queue, Retry()) == tally(1)
        assert await settle_next(queue, Result.DEFERRED) == queued
        assert now() == pytest.approx(EPOCH, abs=1)
        assert [each.attempts for each in timeline(folder, queued).message.recipients] == [2]


async def test_what_is_ready_anyway_is_counted_and_keeps_its_place(
    folder: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(folder) as queue:
        queued = await queue.accept(envelope("a@x"), CONTENT)
        assert await act(queue, Retry()) == tally(1)
        assert timeline(folder, queued).notes == ()
        assert await tried(queue) == ["a@x"]


async def test_retrying_tries_a_destination_that_is_left_alone(
    folder: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(folder) as queue:
        await queue.accept(envelope("a@x"), CONTENT)
        with await queue.claim() as claim:
            claim.failed(park=True)
        assert await tried(queue) == []
        assert await act(queue, Retry(), Filter(domain="x")) == tally(1)
        assert await tried(queue) == ["a@x"]


async def test_a_deferred_message_in_memory_is_retried_once(
    folder: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(folder) as queue:
        await queue.accept(envelope("a@x", "b@y"), CONTENT)
        with await queue.claim() as claim, await queue.claim() as other:
            first, second = claim.take(), other.take()
            assert first is not None
            assert second is not None
            with second:
                with first:
                    await queue.settle(first, attempts(first, Result.DEFERRED), durable=True)
                assert await act(queue, Retry()) == tally(1, 1, busy=1)
                await queue.settle(second, attempts(second, Result.DELIVERED))
        assert await tried(queue, within=2000) == ["a@x"]


async def test_a_hold_has_an_owner_and_survives_a_restart(
    folder: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(folder) as queue:
        await queue.accept(envelope("a@x"), CONTENT)
        await queue.accept(envelope("b@x"), CONTENT)
        await act(queue, Hold(owner="plugin:scan"), Filter(recipient="a@x"))
        await act(queue, Hold(), Filter(recipient="b@x"))
    async with virtual_queue(folder) as queue:
        assert await tried(queue) == []
        (mine,) = found(folder, Filter(owner="plugin:scan"))
        (recipient,) = timeline(folder, mine).message.recipients
        assert recipient.holder is not None
        assert recipient.holder.owner == "plugin:scan"
        assert recipient.holder.reason == "spring cleaning"
        assert recipient.holder.since == pytest.approx(EPOCH, abs=1)
        assert await act(queue, Release(), Filter(owner=ROOT)) == tally(1)
        assert await tried(queue) == ["b@x"]
        assert await act(queue, Release(), Filter(owner="plugin:scan")) == tally(1)
        (recipient,) = timeline(folder, mine).message.recipients
        assert recipient.holder is None


@pytest.mark.parametrize("size", [10, INLINE + 1])
async def test_a_quarantined_message_comes_in_held(
    folder: Path, autojump_clock: MockClock, size: int
) -> None:
    holder = Holder(owner="plugin:virus", reason="EICAR", since=EPOCH)
    caught = Envelope(
        sender=address("s@home"), recipients=(Addressee(address=address("a@x")),), holder=holder
    )
    async with virtual_queue(folder) as queue:
        with queue.events.subscribe() as events:
            queued = await queue.accept(caught, bytes(size))
            assert isinstance(await anext(events), Queued)
            event = await anext(events)
        assert isinstance(event, Held)
        assert (event.who, event.reason) == ("plugin:virus", "EICAR")
        assert await tried(queue) == []
        assert queue.waiting == 0
    async with virtual_queue(folder) as queue:
        assert await tried(queue, within=100) == []
        assert found(folder, Filter(views=(View.HOLD,), owner="plugin:virus")) == [queued]
        assert timeline(folder, queued).message.recipients[0].holder == holder
        assert await act(queue, Release()) == Tally(messages=1, recipients=1, octets=size)
        assert await tried(queue) == ["a@x"]


async def test_the_high_goes_first_as_soon_as_it_is_so(
    folder: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(folder) as queue:
        ids = [await queue.accept(envelope(f"{name}@x"), CONTENT) for name in "abc"]
        last = ids[-1]
        high = Reprioritise(Priority.HIGH)
        assert await act(queue, high, Filter(recipient="c@x")) == tally(1)
        assert await act(queue, high, Filter(recipient="c@x")) == tally(0)
        assert timeline(folder, last).message.priority is Priority.HIGH
        assert await tried(queue) == ["c@x", "a@x", "b@x"]
        (note,) = timeline(folder, last).notes
        assert (note.action, note.recipients) == ("reprioritise high", (0,))


async def test_a_priority_outlives_a_restart_and_what_was_settled(
    folder: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(folder, tuning=Tuning(window=1)) as queue:
        first = await queue.accept(envelope("a@x"), CONTENT)
        await settle_next(queue, Result.DEFERRED)
        second = await queue.accept(envelope("b@x", "c@x"), CONTENT)
        await act(queue, Delete(), Filter(recipient="c@x"))
        assert await act(queue, Reprioritise(Priority.LOW)) == tally(2)
    async with virtual_queue(folder) as queue:
        for each in (first, second):
            assert timeline(folder, each).message.priority is Priority.LOW
        assert states(folder, second) == [State.READY, State.DELETED]
        (recipient,) = timeline(folder, first).message.recipients
        assert (recipient.attempts, recipient.last) == (1, REPLIES[Result.DEFERRED])
        assert await tried(queue, within=400) == ["b@x", "a@x"]


async def test_who_is_redirected_is_tried_elsewhere_and_now(
    folder: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(folder) as queue:
        params = RcptParams(orcpt=None)
        queued = await queue.accept(
            Envelope(
                sender=address("s@home"),
                recipients=(
                    Addressee(address=address("a@x"), params=params),
                    Addressee(address=address("b@y"), original=address("team@y")),
                ),
            ),
            CONTENT,
        )
        await settle_next(queue, Result.DEFERRED)
        to = Redirect(address("new@z"))
        assert await act(queue, to) == tally(1, 2)
        assert await act(queue, to) == tally(0)
        first, second = timeline(folder, queued).message.recipients
        assert [str(first.address), str(first.original)] == ["new@z", "a@x"]
        assert [str(second.address), str(second.original)] == ["new@z", "team@y"]
        assert (first.last, first.attempts) == (None, 1)
        with await queue.claim() as claim:
            assert claim.lane == "mx:z"
            work = claim.take()
            assert work is not None
            with work:
                assert len(work.recipients) == 2
                await queue.settle(work, attempts(work, Result.FAILED), durable=True)
        known = timeline(folder, queued)
        assert [each.state for each in known.message.recipients] == [State.FAILED, State.FAILED]
        assert [str(each.address) for each in known.message.recipients] == ["new@z", "new@z"]
        assert [each.result for each in known.attempts] == [
            Result.DEFERRED,
            Result.FAILED,
            Result.FAILED,
        ]
        assert [note.action for note in known.notes] == ["redirect new@z"]


async def test_every_action_is_told_with_who_and_why(
    folder: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(folder) as queue:
        await queue.accept(envelope("a@x"), CONTENT)
        done: list[Action] = [
            Hold(),
            Release(),
            Reprioritise(Priority.CRITICAL),
            Redirect(address("b@y")),
            Retry(),
            Delete(),
        ]
        with queue.events.subscribe() as events:
            for action in done:
                await act(queue, action)
            await queue.accept(envelope("c@x"), CONTENT)
            await act(queue, Bounce())
            told = [await anext(events) for _ in range(9)]
        kinds = [
            Held,
            Released,
            Reprioritised,
            Redirected,
            Deleted,
            Finished,
            Queued,
            Failed,
            Finished,
        ]
        assert [type(each) for each in told] == kinds
        for each in told:
            if isinstance(each, Held | Released | Deleted | Redirected | Reprioritised):
                assert (each.who, each.reason) == (ROOT, "spring cleaning")


async def test_a_dry_run_counts_what_an_action_would_come_to(
    folder: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(folder) as queue:
        await queue.accept(envelope("a@x"), CONTENT)
        await queue.accept(envelope("b@x", "c@y"), CONTENT)
        await act(queue, Hold(), Filter(recipient="a@x"))
        await act(queue, Delete(), Filter(recipient="c@y"))
        assert await queue.count(EVERYTHING) == tally(2)
        assert await queue.count(Filter(views=(View.FAILED,))) == tally(1)
        counts: list[tuple[Action, int]] = [
            (Hold(), 1),
            (Release(), 1),
            (Retry(), 1),
            (Delete(), 2),
            (Bounce(), 2),
            (Reprioritise(Priority.NORMAL), 0),
            (Reprioritise(Priority.LOW), 2),
            (Redirect(address("a@x")), 1),
        ]
        for action, count in counts:
            assert await queue.count(EVERYTHING, action) == tally(count)
        assert await queue.count(Filter(destination="mx:x"), Delete()) == tally(2)


@pytest.mark.parametrize("action", [Hold(), Delete(), Bounce()])
async def test_what_an_action_takes_from_the_lanes_keeps_no_memory(
    folder: Path, autojump_clock: MockClock, action: Action
) -> None:
    tuning = Tuning(memory=len(CONTENT))  # for one body
    async with virtual_queue(folder, tuning=tuning) as queue:
        await queue.accept(envelope("a@x"), CONTENT)
        await act(queue, action)
        await queue.accept(envelope("b@x"), CONTENT)
        with await queue.claim() as claim, claim.take() or pytest.fail("nothing to do") as work:
            assert (await work.body()).octets is CONTENT


async def test_the_oldest_go_first_up_to_a_limit(folder: Path, autojump_clock: MockClock) -> None:
    async with virtual_queue(folder) as queue:
        queued = [await queue.accept(envelope(f"u{n}@x"), CONTENT) for n in range(5)]
        done = await queue.act(Delete(), EVERYTHING, who=ROOT, limit=2)
        assert done == tally(2)
        assert found(folder) == queued[2:]
        assert await queue.act(Delete(), EVERYTHING, who=ROOT, limit=0) == tally(0)


async def test_what_the_disk_does_not_take_is_kept_until_it_does(
    folder: Path, autojump_clock: MockClock
) -> None:
    disks = Disks()
    async with virtual_queue(folder, disk=disks) as queue:
        ids = [await queue.accept(envelope(f"{name}@x"), CONTENT) for name in "abc"]
        disks.disk.full = True
        with trio.move_on_after(10) as scope:
            await act(queue, Delete(), Filter(recipient="a@x"))
        assert scope.cancelled_caught
        assert states(folder, ids[0]) == [State.READY]
        assert await act(queue, Delete(), Filter(recipient="a@x")) == tally(0)  # it counts already
        disks.disk.full = False
        await trio.sleep(2)
        assert states(folder, ids[0]) == [State.DELETED]
        assert await tried(queue) == ["b@x", "c@x"]


async def test_what_is_on_disk_cannot_be_steered_while_the_disk_fails(
    folder: Path, autojump_clock: MockClock
) -> None:
    disks = Disks()
    async with virtual_queue(folder, disk=disks) as queue:
        await queue.accept(envelope("a@x"), CONTENT)
        await settle_next(queue, Result.DEFERRED)
        disks.disk.full = True
        with pytest.raises(StoreUnavailable):
            await act(queue, Delete())
        disks.disk.full = False
        other = sqlite3.connect(folder / "queue.db", isolation_level=None)
        other.execute("DROP TABLE recipient")
        other.close()
        with pytest.raises(StoreUnavailable, match="cannot read the queue"):
            await act(queue, Delete())
