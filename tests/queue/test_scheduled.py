"""Mail that its sender wants to be sent later."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
import trio

from elemta.queue import (
    Delete,
    Envelope,
    Filter,
    HistoryLimits,
    Hold,
    Holder,
    Redirect,
    Release,
    Result,
    Retry,
    RetryPolicy,
    State,
    StoreReader,
    Tuning,
    View,
    check,
)
from elemta.queue.schema import INLINE
from tests.queue.mail import (
    CONTENT,
    EPOCH,
    address,
    envelope,
    found,
    now,
    settle_next,
    virtual_queue,
)
from tests.queue.steering import act, tally, timeline, tried

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

DAY = 86400.0
LATER = EPOCH + 2 * DAY


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "queue"


def at(due: float, *recipients: str) -> Envelope:
    return msgspec.structs.replace(envelope(*recipients), due=due)


@pytest.mark.parametrize("content", [CONTENT, bytes(INLINE + 1)])
async def test_it_is_not_tried_before_its_time_and_then_it_is(
    folder: Path, autojump_clock: MockClock, content: bytes
) -> None:
    async with virtual_queue(folder) as queue:
        queued = await queue.accept(at(EPOCH + 5000, "a@x", "b@y"), content)
        message = timeline(folder, queued).message
        assert [each.state for each in message.recipients] == [State.DEFERRED] * 2
        assert [each.due for each in message.recipients] == [EPOCH + 5000] * 2
        assert message.due == EPOCH + 5000
        assert queue.waiting == 0
        assert await tried(queue, within=4990) == []
        assert sorted(await tried(queue, within=11)) == ["a@x", "b@y"]
        assert timeline(folder, queued).finished_at == pytest.approx(EPOCH + 5000, abs=1)
    assert check(folder) == []


async def test_it_waits_through_a_restart(folder: Path, autojump_clock: MockClock) -> None:
    async with virtual_queue(folder) as queue:
        queued = await queue.accept(at(LATER), CONTENT)
    async with virtual_queue(folder) as queue:
        assert found(folder, Filter(views=(View.DEFERRED,)), now()) == [queued]
        assert await tried(queue, within=2 * DAY - 10) == []
        assert await tried(queue, within=20) == ["a@x"]


async def test_a_time_that_is_over_means_now(folder: Path, autojump_clock: MockClock) -> None:
    async with virtual_queue(folder) as queue:
        queued = await queue.accept(at(EPOCH - 1), CONTENT)
        assert timeline(folder, queued).message.due is None
        assert await tried(queue) == ["a@x"]


async def test_it_is_found_in_time_whatever_else_waits(
    folder: Path, autojump_clock: MockClock
) -> None:
    """It is deferred while the memory is full, and beside others that are due earlier and later."""
    async with virtual_queue(folder, tuning=Tuning(window=2)) as queue:
        for number in (3, 1, 4, 2, 5):
            await queue.accept(at(EPOCH + 10 * number, f"u{number}@x"), CONTENT)
            await queue.accept(at(EPOCH + 10 * number, f"v{number}@y"), CONTENT)
        order = await tried(queue, within=100)
        assert [each[1] for each in order] == list("1122334455")


async def test_its_age_counts_from_its_time(folder: Path, autojump_clock: MockClock) -> None:
    policy = RetryPolicy(jitter=0.0, schedule=(3600.0,), lifetime=2 * DAY, delay_warning=4 * 3600.0)
    async with virtual_queue(folder, policy=policy) as queue:
        queued = await queue.accept(at(LATER), CONTENT)
        message = timeline(folder, queued).message
        (recipient,) = message.recipients
        assert message.expires_at == LATER + 2 * DAY
        assert queue.deadline(message, recipient) == LATER + 2 * DAY
        assert not queue.warns(message, recipient, LATER + 4 * 3600 - 1)
        assert queue.warns(message, recipient, LATER + 4 * 3600)
        assert not queue.expires(message, recipient, LATER + DAY)
        assert queue.expires(message, recipient, LATER + 2 * DAY)


async def test_an_operator_can_send_it_now(folder: Path, autojump_clock: MockClock) -> None:
    async with virtual_queue(folder) as queue:
        queued = await queue.accept(at(LATER), CONTENT)
        assert await act(queue, Retry()) == tally(1)
        await settle_next(queue, Result.DEFERRED)
        (recipient,) = timeline(folder, queued).message.recipients
        assert recipient.due == pytest.approx(EPOCH + 300, abs=1), "it is tried on from now on"
        assert await tried(queue, within=301) == ["a@x"]


async def test_an_operator_can_take_it_back(folder: Path, autojump_clock: MockClock) -> None:
    async with virtual_queue(folder) as queue:
        await queue.accept(at(EPOCH + 5000), CONTENT)
        assert await act(queue, Delete()) == tally(1)
        assert await tried(queue, within=6000) == []


@pytest.mark.parametrize("wait", [20, 5000])  # in memory already, and on disk
async def test_neither_a_hold_nor_another_address_sends_it_sooner(
    folder: Path, autojump_clock: MockClock, wait: float
) -> None:
    async with virtual_queue(folder) as queue:
        await queue.accept(at(EPOCH + wait, "a@x", "b@y"), CONTENT)
        await trio.sleep(1)
        await act(queue, Hold())
        await act(queue, Release(), Filter(recipient="a@x"))
        await act(queue, Redirect(to=address("c@z")), Filter(recipient="b@y"))
        assert await tried(queue, within=wait - 2) == []
        assert sorted(await tried(queue, within=2)) == ["a@x", "c@z"]


@pytest.mark.parametrize(("wait", "sent"), [(100.0, EPOCH + 5000), (6000.0, EPOCH + 6000)])
async def test_what_comes_in_held_waits_for_both(
    folder: Path, autojump_clock: MockClock, wait: float, sent: float
) -> None:
    holder = Holder(owner="plugin:scan", since=EPOCH)
    async with virtual_queue(folder) as queue:
        wanted = msgspec.structs.replace(at(EPOCH + 5000), holder=holder)
        queued = await queue.accept(wanted, CONTENT)
        await trio.sleep(wait)
        assert found(folder, Filter(views=(View.HOLD,)), now()) == [queued]
        await act(queue, Release())
        await tried(queue, within=7000)
        assert timeline(folder, queued).finished_at == pytest.approx(sent, abs=1)


async def test_it_is_history_as_long_as_other_mail_is(
    folder: Path, autojump_clock: MockClock
) -> None:
    policy, limits = RetryPolicy(jitter=0.0, lifetime=60.0), HistoryLimits(age=1.1 * DAY)
    async with virtual_queue(folder, policy=policy, history=limits) as queue:
        queued = await queue.accept(at(LATER), CONTENT)
        assert await tried(queue, within=2 * DAY + 1) == ["a@x"]
        with StoreReader(folder) as reader:
            await trio.sleep(1.05 * DAY)
            assert reader.get(queued) is not None
            await trio.sleep(0.15 * DAY)
            assert reader.get(queued) is None
    assert check(folder) == []
