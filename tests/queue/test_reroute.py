"""Operators who say by which hosts something goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from elemta.queue import (
    Addressee,
    Filter,
    Hold,
    LaneLimits,
    Redirect,
    Release,
    Reroute,
    Rerouted,
    Result,
    RetryPolicy,
    State,
    Tuning,
    open_queue,
)
from elemta.queue.records import decode_message, encode_message
from tests.queue.mail import (
    CONTENT,
    EPOCH,
    address,
    attempts,
    by_domain,
    envelope,
    now,
    settle_next,
    virtual_queue,
)
from tests.queue.steering import ROOT, act, states, tally, timeline, tried

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

    from elemta.protocol import ReversePath
    from elemta.queue import Destined

VIA = ("smtp://relay:25",)
LANE = "smtp://relay:25"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "queue"


@pytest.mark.parametrize("window", [1, 1000])
@pytest.mark.parametrize("deferred", [False, True])
async def test_it_goes_there_at_once_and_is_so_remembered(
    folder: Path, autojump_clock: MockClock, window: int, deferred: bool
) -> None:
    async with virtual_queue(folder, tuning=Tuning(window=window)) as queue:
        queued = await queue.accept(envelope("a@x", "b@x"), CONTENT)
        for number in range(3):
            await queue.accept(envelope(f"other{number}@y"), CONTENT)
        if deferred:
            with await queue.claim() as claim, claim.take() or pytest.fail("nothing") as work:
                assert work.message.id == queued
                await queue.settle(work, attempts(work, Result.DEFERRED), durable=True)
        with queue.events.subscribe() as events:
            assert await act(queue, Reroute(VIA), Filter(recipient="a@x")) == tally(1)
            event = await anext(events)
        assert isinstance(event, Rerouted)
        assert (event.id, event.recipient, event.via) == (queued, address("a@x"), VIA)
        assert (event.who, event.reason) == (ROOT, "spring cleaning")
        assert await queue.count(Filter(recipient="a@x"), Reroute(VIA)) == tally(0)
        first, second = timeline(folder, queued).message.recipients
        assert (first.via, first.state, second.via) == (VIA, State.READY, ())
        assert await queue.count(Filter(destination=LANE)) == tally(1)
        went: dict[str, str] = {}
        while len(went) < (4 if deferred else 5):
            with await queue.claim() as claim:
                while work := claim.take():
                    with work:
                        went |= {str(each.address): work.lane for each in work.recipients}
                        outcome = attempts(work, Result.DELIVERED)
                        await queue.settle(work, outcome, durable=True)
        assert went["a@x"] == LANE
        assert went.get("b@x", "mx:x") == "mx:x"
        (note,) = timeline(folder, queued).notes
        assert (note.action, note.recipients) == (f"reroute {LANE}", (0,))
        assert timeline(folder, queued).message.recipients[0].via == VIA, "history keeps it"


async def test_it_holds_after_a_restart_until_it_is_taken_back(
    folder: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(folder) as queue:
        queued = await queue.accept(envelope("a@x"), CONTENT)
        await act(queue, Reroute(VIA))
        await settle_next(queue, Result.DEFERRED)
    async with virtual_queue(folder) as queue:
        (recipient,) = timeline(folder, queued).message.recipients
        assert (recipient.via, recipient.attempts) == (VIA, 1)
        assert await act(queue, Reroute(())) == tally(1)
        assert timeline(folder, queued).notes[-1].action == "reroute as configured"
        with await queue.claim() as claim:
            assert claim.lane == "mx:x"


async def test_other_routes_free_only_what_nobody_has_chosen_hosts_for(
    folder: Path, autojump_clock: MockClock
) -> None:
    def smarthost(recipient: Destined, _: ReversePath) -> str:
        return ",".join(recipient.via) or "smarthost"

    async with virtual_queue(folder) as queue:
        await queue.accept(envelope("a@x", "b@x"), CONTENT)
        await act(queue, Reroute(VIA), Filter(recipient="a@x"))
        queue.retune(lane=smarthost)
        lanes: set[str] = set()
        with await queue.claim() as one, await queue.claim() as other:
            for claim in (one, other):
                with claim.take() or pytest.fail("nothing to do") as work:
                    lanes |= {f"{each.address} {work.lane}" for each in work.recipients}
                    await queue.settle(work, attempts(work, Result.DELIVERED))
        assert lanes == {f"a@x {LANE}", "b@x smarthost"}


async def test_who_is_held_goes_there_once_he_is_released(
    folder: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(folder) as queue:
        queued = await queue.accept(envelope("a@x"), CONTENT)
        await act(queue, Hold(owner="plugin:scan"))
        assert await act(queue, Reroute(VIA)) == tally(1)
        assert states(folder, queued) == [State.HELD]
        (recipient,) = timeline(folder, queued).message.recipients
        assert recipient.holder is not None
        assert recipient.holder.owner == "plugin:scan"
        assert await tried(queue) == []
        await act(queue, Release())
        with await queue.claim() as claim:
            assert claim.lane == LANE


async def test_what_is_scheduled_goes_no_sooner(folder: Path, autojump_clock: MockClock) -> None:
    async with virtual_queue(folder) as queue:
        wanted = msgspec.structs.replace(envelope("a@x"), due=EPOCH + 5000)
        await queue.accept(wanted, CONTENT)
        await act(queue, Reroute(VIA))
        assert await tried(queue, within=4990) == []
        assert await tried(queue, within=20) == ["a@x"]


async def test_another_address_goes_as_configured(folder: Path, autojump_clock: MockClock) -> None:
    async with virtual_queue(folder) as queue:
        await queue.accept(envelope("a@x"), CONTENT)
        await act(queue, Reroute(VIA))
        await act(queue, Redirect(address("c@z")))
        with await queue.claim() as claim:
            assert claim.lane == "mx:z"


async def test_it_may_come_in_so(folder: Path, autojump_clock: MockClock) -> None:
    async with virtual_queue(folder) as queue:
        to = Addressee(address=address("a@x"), via=VIA)
        await queue.accept(msgspec.structs.replace(envelope(), recipients=(to,)), CONTENT)
    async with virtual_queue(folder) as queue:
        with await queue.claim() as claim:
            assert claim.lane == LANE


async def test_patience_and_limits_are_those_of_where_it_goes(
    folder: Path, autojump_clock: MockClock
) -> None:
    slow, fast = RetryPolicy(jitter=0.0), RetryPolicy(schedule=(10.0,), jitter=0.0)
    asked: list[str] = []

    def limits(lane: str) -> LaneLimits:
        asked.append(lane)
        return LaneLimits()

    async with open_queue(
        folder,
        lambda to, _: fast if to.via else slow,
        lane=by_domain,
        limits=limits,
        clock=now,
        inline=True,
    ) as queue:
        await queue.accept(envelope("a@x"), CONTENT)
        await act(queue, Reroute(VIA))
        await settle_next(queue, Result.DEFERRED)
        assert await tried(queue, within=11) == ["a@x"]
        assert LANE in asked


def test_a_record_of_before_reads_on_and_says_no_more_than_it_must() -> None:
    at = {"local_part": "a", "domain": "x"}
    record = msgspec.msgpack.encode(
        {
            "id": "0" * 26,
            "sender": None,
            "recipients": [{"number": 0, "address": at, "due": 1.0}],
            "received_at": 1.0,
            "expires_at": 2.0,
            "size": 3,
        }
    )
    message = decode_message(record)
    (recipient,) = message.recipients
    assert (recipient.via, message.due, message.begun_at) == ((), None, 1.0)
    assert b"via" not in encode_message(message)
