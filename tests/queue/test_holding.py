"""Who is at work on mail may hold it, in place of an attempt."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest
import trio
from msgspec.structs import replace

from elemta.queue import Held, Holder, Release, Result, State, StoreReader, StoreUnavailable
from tests.queue.mail import CONTENT, attempts, envelope, virtual_queue
from tests.queue.steering import act, states, timeline, tried

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

BY = "plugin:odd"


async def test_what_is_in_hand_can_be_held_and_the_rest_goes_on(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue") as queue:
        id_ = await queue.accept(envelope("a@x", "b@x"), CONTENT)
        with await queue.claim() as claim:
            work = claim.take()
            assert work is not None
            with work, queue.events.subscribe() as events:
                first, _ = work.recipients
                assert await queue.hold(work, first, who=BY, reason="looks odd")
                event = await anext(events)
                assert isinstance(event, Held)
                assert (event.who, event.reason, event.recipient) == (
                    BY,
                    "looks odd",
                    first.address,
                )
                with pytest.raises(ValueError, match="not open"):
                    await queue.hold(work, first, who=BY, reason="again")
                await queue.settle(work, attempts(work, Result.DELIVERED)[1:], durable=True)
        assert states(tmp_path / "queue", id_) == [State.HELD, State.DELIVERED]
    async with virtual_queue(tmp_path / "queue") as queue:
        assert await tried(queue) == []
        known = timeline(tmp_path / "queue", id_)
        [note] = known.notes
        assert (note.who, note.action, note.recipients, note.reason) == (
            BY,
            "hold",
            (0,),
            "looks odd",
        )
        holder = known.message.recipients[0].holder
        assert holder is not None
        assert (holder.owner, holder.reason) == (BY, "looks odd")
        assert known.message.recipients[0].attempts == 0


async def test_who_held_it_once_does_not_hold_it_again(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue") as queue:
        await queue.accept(envelope("a@x"), CONTENT)
        held: list[bool] = []
        for who in (BY, BY, "plugin:other"):
            with await queue.claim() as claim, claim.take() as work:  # type: ignore[union-attr] # there is one
                held.append(await queue.hold(work, work.recipients[0], who=who, reason=""))
            await act(queue, Release())
            await trio.sleep(1)
        assert held == [True, False, True]


async def test_who_held_it_when_it_came_in_does_so_no_more_when_it_is_finished(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    holder = Holder(owner=BY, reason="looks odd", since=0.0)
    async with virtual_queue(tmp_path / "queue") as queue:
        id_ = await queue.accept(replace(envelope("a@x"), holder=holder), CONTENT)
        await act(queue, Release())
        await tried(queue)
        known = timeline(tmp_path / "queue", id_)
        assert known.finished_at is not None
        assert known.message.recipients[0].holder is None


async def test_without_its_past_it_is_not_held(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    async with virtual_queue(tmp_path / "queue") as queue:
        id_ = await queue.accept(envelope("a@x"), CONTENT)
        with await queue.claim() as claim:
            work = claim.take()
            assert work is not None
            with work, monkeypatch.context() as patch:
                patch.setattr(StoreReader, "timeline", breaks)
                with pytest.raises(StoreUnavailable, match="disk I/O error"):
                    await queue.hold(work, work.recipients[0], who=BY, reason="")
        assert states(tmp_path / "queue", id_) == [State.READY]
