"""Operators who bounce mail, and others who do something else meanwhile."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from elemta.protocol import reply
from elemta.queue import (
    Addressee,
    Bounce,
    Delete,
    Envelope,
    Filter,
    Hold,
    Holder,
    Release,
    Result,
    Retry,
    State,
    StoreReader,
    Tally,
    Tuning,
)
from elemta.queue.search import LOOK
from tests.queue.mail import (
    CONTENT,
    EPOCH,
    Disks,
    address,
    attempts,
    envelope,
    found,
    settle_next,
    virtual_queue,
)
from tests.queue.steering import EVERYTHING, ROOT, Postmaster, act, states, tally, timeline, tried

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "queue"


async def test_a_bounce_is_final_and_its_report_is_queued_with_it(
    folder: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(folder) as queue:
        queued = await queue.accept(envelope("a@x", "b@y"), CONTENT)
        await settle_next(queue, Result.DEFERRED)
        postmaster = Postmaster()
        done = await queue.act(
            Bounce(), EVERYTHING, who=ROOT, reason="The \x1b mailbox moved", report=postmaster
        )
        assert done == tally(1, 2)
        ((message, failed, content),) = postmaster.asked
        assert (message.id, content) == (queued, CONTENT)
        assert [recipient.number for recipient, _ in failed] == [0, 1]
        refusal = reply(554, 7, 0, "The   mailbox moved")
        for _, attempt in failed:
            assert (attempt.result, attempt.reply, attempt.remote) == (
                Result.FAILED,
                refusal,
                False,
            )
        known = timeline(folder, queued)
        assert [each.state for each in known.message.recipients] == [State.FAILED, State.FAILED]
        assert [each.last for each in known.message.recipients] == [refusal, refusal]
        assert len(known.attempts) == 1  # what an operator does is no attempt
        assert known.finished_at is not None
        assert await tried(queue) == ["sender@home"]


async def test_a_bounce_without_a_report_or_a_reason_is_a_bounce(
    folder: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(folder) as queue:
        queued = await queue.accept(envelope("a@x"), CONTENT)
        await queue.act(Bounce(), EVERYTHING, who=ROOT)
        (recipient,) = timeline(folder, queued).message.recipients
        assert str(recipient.last) == "554 5.7.0 given up by the postmaster"


async def test_a_message_whose_body_is_lost_can_be_bounced(
    folder: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(folder) as queue:
        held = Envelope(
            sender=address("s@home"),
            recipients=(Addressee(address=address("a@x")),),
            holder=Holder(owner="me", since=EPOCH),
        )
        queued = await queue.accept(held, CONTENT)
        with StoreReader(folder) as reader:
            assert reader.body(queued) == CONTENT
        other = sqlite3.connect(folder / "queue.db", isolation_level=None)
        other.execute("DELETE FROM body")
        other.close()
        postmaster = Postmaster()
        done = await queue.act(Bounce(), EVERYTHING, who=ROOT, report=postmaster)
        assert done == tally(1)
        ((_, _, content),) = postmaster.asked
        assert content is None


async def test_who_is_about_to_be_bounced_is_not_tried(
    folder: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(folder) as queue:
        """Neither what stands in a lane, nor what becomes due, nor what somebody else releases."""
        ready = await queue.accept(envelope("ready@x"), CONTENT)
        postmaster = Postmaster()
        postmaster.go = trio.Event()
        await queue.accept(envelope("due@y"), CONTENT)
        await act(queue, Hold(), Filter(recipient="ready@x"))
        await settle_next(queue, Result.DEFERRED)
        await act(queue, Release(), Filter(recipient="ready@x"))
        async with trio.open_nursery() as nursery:

            async def bounce() -> None:
                done = await queue.act(Bounce(), EVERYTHING, who=ROOT, report=postmaster)
                assert done == tally(2)

            nursery.start_soon(bounce)
            await wait_all_tasks_blocked()
            assert await act(queue, Delete()) == Tally(busy=2)
            assert await tried(queue, within=1000) == []
            postmaster.go.set()
        assert states(folder, ready) == [State.FAILED]
        assert await tried(queue) == ["sender@home", "sender@home"]


async def test_what_cannot_be_reported_is_not_bounced(
    folder: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(folder) as queue:
        await queue.accept(envelope("ready@x"), CONTENT)
        await queue.accept(envelope("held@x"), CONTENT)
        late = await queue.accept(envelope("late@y", "too@y"), CONTENT)
        await act(queue, Hold(owner="me"), Filter(recipient="held@x"))
        with await queue.claim() as one, await queue.claim() as other:
            for claim in (one, other):
                if claim.lane == "mx:y":
                    with claim.take() or pytest.fail("nothing to do") as work:
                        await queue.settle(work, attempts(work, Result.DEFERRED), durable=True)
        postmaster = Postmaster()
        postmaster.broken = True
        with pytest.raises(RuntimeError, match="no ink"):
            await queue.act(Bounce(), EVERYTHING, who=ROOT, report=postmaster)
        assert states(folder, late) == [State.DEFERRED, State.DEFERRED]
        (held,) = found(folder, Filter(owner="me"))
        assert await tried(queue) == ["ready@x"]
        assert await tried(queue, within=310) == ["late@y", "too@y"]
        assert await act(queue, Release()) == tally(1)
        assert await tried(queue) == ["held@x"]
        assert timeline(folder, held).notes[0].action == "hold"


async def test_many_messages_are_done_in_batches_and_new_mail_is_not_meant(
    folder: Path, autojump_clock: MockClock
) -> None:
    disks = Disks()
    async with virtual_queue(folder, disk=disks, tuning=Tuning(window=50)) as queue:
        for number in range(LOOK + 100):
            await queue.accept(envelope(f"u{number}@x"), CONTENT)
        postmaster = Postmaster()
        postmaster.go = trio.Event()
        async with trio.open_nursery() as nursery:

            async def bounce() -> None:
                done = await queue.act(Bounce(), EVERYTHING, who=ROOT, report=postmaster)
                assert done == tally(LOOK + 100)

            nursery.start_soon(bounce)
            await wait_all_tasks_blocked()
            assert await queue.count(EVERYTHING) == tally(100, busy=LOOK)
            new = await queue.accept(envelope("new@x"), CONTENT)
            postmaster.go.set()
        assert states(folder, new) == [State.READY]


async def test_two_operators_at_once_leave_one_truth(
    folder: Path, autojump_clock: MockClock
) -> None:
    """A message that was fetched for one is steered by another before that is written."""
    disks = Disks()
    async with virtual_queue(folder, disk=disks) as queue:
        queued = await queue.accept(envelope("a@x", "b@x", "c@x"), CONTENT)
        await settle_next(queue, Result.DEFERRED)
        await act(queue, Hold(), Filter(recipient="c@x"))
        assert queue.waiting == 0
        postmaster = Postmaster()
        postmaster.go = trio.Event()
        async with trio.open_nursery() as nursery:

            async def bounce() -> None:
                await queue.act(Bounce(), Filter(recipient="a@x"), who=ROOT, report=postmaster)

            nursery.start_soon(bounce)
            await wait_all_tasks_blocked()
            assert queue.waiting == 1
            assert await act(queue, Release(), Filter(recipient="c@x")) == tally(1)
            assert await act(queue, Retry(), Filter(recipient="b@x")) == tally(1)
            postmaster.go.set()
        assert sorted(await tried(queue)) == ["b@x", "c@x", "sender@home"]
        assert states(folder, queued) == [State.FAILED, State.DELIVERED, State.DELIVERED]
