"""Operators who say when something is tried next."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from elemta.queue import (
    Filter,
    Hold,
    Release,
    Reschedule,
    Rescheduled,
    Result,
    State,
    Tuning,
)
from tests.queue.mail import (
    CONTENT,
    EPOCH,
    POLICY,
    address,
    attempts,
    envelope,
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


@pytest.mark.parametrize("wait", [20.0, 5000.0])  # it stays in memory, or goes to disk
@pytest.mark.parametrize("deferred", [False, True])
async def test_what_waits_is_tried_at_that_time_and_not_before(
    folder: Path, autojump_clock: MockClock, wait: float, deferred: bool
) -> None:
    async with virtual_queue(folder) as queue:
        queued = await queue.accept(envelope("a@x"), CONTENT)
        if deferred:
            await settle_next(queue, Result.DEFERRED)
        with queue.events.subscribe() as events:
            assert await queue.count(EVERYTHING, Reschedule(EPOCH + wait)) == tally(1)
            assert await act(queue, Reschedule(EPOCH + wait)) == tally(1)
            event = await anext(events)
        assert isinstance(event, Rescheduled)
        assert (event.recipient, event.who, event.due) == (address("a@x"), ROOT, EPOCH + wait)
        (recipient,) = timeline(folder, queued).message.recipients
        assert (recipient.state, recipient.due) == (State.DEFERRED, EPOCH + wait)
        (note,) = timeline(folder, queued).notes
        told = {20.0: "2026-09-21T14:13:40+00:00", 5000.0: "2026-09-21T15:36:40+00:00"}
        assert note.action == f"reschedule {told[wait]}"
        assert await tried(queue, within=wait - 1) == []
        assert await tried(queue, within=2) == ["a@x"]


async def test_it_holds_after_a_restart(folder: Path, autojump_clock: MockClock) -> None:
    async with virtual_queue(folder) as queue:
        await queue.accept(envelope("a@x", "b@y"), CONTENT)
        assert await act(queue, Reschedule(EPOCH + 5000), Filter(domain="y")) == tally(1)
    async with virtual_queue(folder) as queue:
        assert await tried(queue, within=4990) == ["a@x"]
        assert await tried(queue, within=20) == ["b@y"]


async def test_the_past_means_now(folder: Path, autojump_clock: MockClock) -> None:
    async with virtual_queue(folder) as queue:
        queued = await queue.accept(envelope("a@x"), CONTENT)
        await settle_next(queue, Result.DEFERRED)
        assert await act(queue, Reschedule(-1e300)) == tally(1)
        assert timeline(folder, queued).notes[0].action == "reschedule 1970-01-01T00:00:00+00:00"
        assert await tried(queue) == ["a@x"]


async def test_who_is_held_stays_so_and_who_is_being_tried_is_left_alone(
    folder: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(folder) as queue:
        queued = await queue.accept(envelope("a@x", "b@y"), CONTENT)
        await act(queue, Hold(), Filter(domain="y"))
        with await queue.claim() as claim, claim.take() or pytest.fail("nothing to do") as work:
            assert await act(queue, Reschedule(EPOCH + 60)) == tally(0, busy=1)
            await queue.settle(work, attempts(work, Result.DELIVERED), durable=True)
        assert states(folder, queued) == [State.DELIVERED, State.HELD]


async def test_a_time_after_the_end_of_one_is_refused_for_all(
    folder: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(folder, tuning=Tuning(window=2)) as queue:
        first = await queue.accept(envelope("a@x"), CONTENT)
        await act(queue, Hold(), Filter(ids=(first,)))
        await trio.sleep(1000)
        ids = [await queue.accept(envelope(f"u{number}@x"), CONTENT) for number in range(4)]
        await act(queue, Release())
        late = EPOCH + POLICY.lifetime + 500
        for ask in (queue.count(EVERYTHING, Reschedule(late)), act(queue, Reschedule(late))):
            with pytest.raises(ValueError, match=rf"a@x of {first} is given up at 2026-09-26T"):
                await ask
        assert all(states(folder, each) == [State.READY] for each in (first, *ids))
        assert await act(queue, Reschedule(late), Filter(ids=tuple(ids))) == tally(4)
        assert await act(queue, Reschedule(EPOCH + POLICY.lifetime), Filter(ids=(first,))) == tally(
            1
        )
