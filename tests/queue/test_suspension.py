from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from elemta.queue import (
    Queue,
    Result,
    Resumed,
    RetryPolicy,
    StoreUnavailable,
    Suspended,
    Suspension,
    Tuning,
    parse_scope,
)
from tests.queue.mail import (
    CONTENT,
    EPOCH,
    Disks,
    attempts,
    envelope,
    now,
    settle_next,
    virtual_queue,
)
from tests.queue.test_queue import nothing_ready

if TYPE_CHECKING:
    from pathlib import Path


def suspension(scope: str, until: float | None = None) -> Suspension:
    return Suspension(scope=scope, reason="a test", who="operator:me", since=EPOCH, until=until)


@pytest.mark.parametrize(
    ("text", "scope"),
    [
        ("all", "all"),
        ("destination:mx:Example.net", "destination:mx:Example.net"),
        ("domain:Example.NET", "domain:example.net"),
        ("domain:@bücher.example", "domain:xn--bcher-kva.example"),
        ("domain:[192.0.2.1]", "domain:[192.0.2.1]"),
    ],
)
def test_a_scope_has_one_spelling(text: str, scope: str) -> None:
    assert parse_scope(text) == scope


@pytest.mark.parametrize("text", ["", "All", "destination:", "domain:", "domain:@", "x"])
def test_anything_else_is_no_scope(text: str) -> None:
    with pytest.raises(ValueError, match="expected all, destination:LANE or domain:NAME"):
        parse_scope(text)


@pytest.mark.parametrize("scope", ["all", "destination:mx:x", "domain:x"])
async def test_what_is_suspended_waits_until_it_is_resumed_whatever_restarts(
    scope: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue") as queue:
        first = await queue.accept(envelope("a@x"), CONTENT)
        await queue.suspend(suspension(scope))
        second = await queue.accept(envelope("b@x"), CONTENT)
        assert await nothing_ready(queue)
    async with virtual_queue(tmp_path / "queue") as queue:
        assert queue.suspensions == (suspension(scope),)
        await trio.sleep(3600)
        assert await nothing_ready(queue)
        assert not await queue.resume("destination:mx:elsewhere")
        assert await queue.resume(scope)
        assert queue.suspensions == ()
        assert {await settle_next(queue, Result.DELIVERED) for _ in range(2)} == {first, second}
    async with virtual_queue(tmp_path / "queue") as queue:
        assert queue.suspensions == ()


async def test_others_go_on(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with virtual_queue(tmp_path / "queue") as queue:
        await queue.suspend(suspension("domain:x"))
        both = await queue.accept(envelope("a@x", "a@y"), CONTENT)
        with await queue.claim() as claim:
            assert claim.lane == "mx:y"
            work = claim.take()
            assert work is not None
            with work:
                assert [str(each.address) for each in work.recipients] == ["a@y"]
                await queue.settle(work, attempts(work, Result.DELIVERED))
        assert await nothing_ready(queue)
        await queue.resume("domain:x")
        assert await settle_next(queue, Result.DELIVERED) == both


async def test_a_suspension_ends_by_itself_also_while_we_are_down(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue") as queue:
        await queue.accept(envelope("a@x"), CONTENT)
        await queue.suspend(suspension("all", until=EPOCH + 1000))
        assert await settle_next(queue, Result.DELIVERED)
        assert now() == pytest.approx(EPOCH + 1000, abs=0.1)
        assert queue.suspensions == ()
        await queue.accept(envelope("b@x"), CONTENT)
        await queue.suspend(suspension("all", until=EPOCH + 2000))
    await trio.sleep(2000)
    for _ in range(2):
        async with virtual_queue(tmp_path / "queue") as queue:
            assert queue.suspensions == ()
            assert not await nothing_ready(queue)


async def test_a_suspension_may_be_replaced(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with virtual_queue(tmp_path / "queue") as queue:
        await queue.accept(envelope("a@x"), CONTENT)
        await queue.suspend(suspension("all", until=EPOCH + 1000))
        await queue.suspend(suspension("all", until=EPOCH + 500))
        assert await settle_next(queue, Result.DELIVERED)
        assert now() == pytest.approx(EPOCH + 500, abs=0.1)


async def test_suspensions_are_events(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with virtual_queue(tmp_path / "queue") as queue:
        first = queue.events.number
        with queue.events.subscribe() as subscription:
            await queue.suspend(suspension("all", until=EPOCH + 10))
            await queue.suspend(suspension("domain:x"))
            await queue.resume("domain:x")
            await trio.sleep(20)
            told: list[Suspended | Resumed] = []
            async for event in subscription:
                assert isinstance(event, Suspended | Resumed)
                told.append(event)
                if len(told) == 4:
                    break
    assert told[:3] == [
        Suspended(first + 1, EPOCH, "all", "a test", "operator:me", EPOCH + 10),
        Suspended(first + 2, EPOCH, "domain:x", "a test", "operator:me", None),
        Resumed(first + 3, EPOCH, "domain:x"),
    ]
    assert isinstance(told[3], Resumed)
    assert told[3].scope == "all"
    assert told[3].at == pytest.approx(EPOCH + 10, abs=0.1)


async def test_workers_who_rest_in_a_suspended_lane_leave_and_others_stay(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue") as queue:
        for name in "xy":
            await queue.accept(envelope(f"a@{name}"), CONTENT)
        left: list[str] = []

        async def deliver() -> None:
            with await queue.claim() as claim:
                while work := claim.take() or await claim.wait(1000):
                    with work:
                        await queue.settle(work, attempts(work, Result.DELIVERED))
                left.append(claim.lane)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(deliver)
            nursery.start_soon(deliver)
            await wait_all_tasks_blocked()
            await queue.suspend(suspension("destination:mx:x"))
            await wait_all_tasks_blocked()
            assert left == ["mx:x"]


async def test_what_a_full_disk_does_not_take_is_not_suspended_nor_resumed(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    disks = Disks()
    async with virtual_queue(tmp_path / "queue", disk=disks) as queue:
        await queue.accept(envelope("a@x"), CONTENT)
        disks.disk.full = True
        with pytest.raises(StoreUnavailable):
            await queue.suspend(suspension("all"))
        assert queue.suspensions == ()
        assert not await nothing_ready(queue)
        disks.disk.full = False
        await queue.suspend(suspension("all"))
        disks.disk.full = True
        with pytest.raises(StoreUnavailable):
            await queue.resume("all")
        assert queue.suspensions == (suspension("all"),)
        assert await nothing_ready(queue)
        disks.disk.full = False


async def told_of(queue: Queue) -> list[tuple[str, bool, bool]]:
    """Take all that is handed out now; which message it is, and what its sender is told."""
    told: list[tuple[str, bool, bool]] = []
    with trio.move_on_after(1):
        while True:
            with await queue.claim() as claim:
                while work := claim.take():
                    assert work.overdue
                    with work:
                        message, recipient = work.message, work.recipients[0]
                        expired = queue.expires(message, recipient, now())
                        warned = queue.warns(message, recipient, now())
                        told.append((message.id, warned, expired))
                        await queue.settle(
                            work,
                            attempts(work, Result.DEFERRED, expired=expired, warned=warned),
                            durable=True,
                        )
    return told


@pytest.mark.parametrize("window", [pytest.param(20_000, marks=pytest.mark.large), 10])
async def test_suspended_mail_is_warned_of_and_given_up_all_the_same(
    window: int, tmp_path: Path, autojump_clock: MockClock
) -> None:
    policy = RetryPolicy(jitter=0.0, lifetime=86400.0)
    tuning = Tuning(window=window)
    async with virtual_queue(tmp_path / "queue", policy=policy, tuning=tuning) as queue:
        await queue.suspend(suspension("all"))
        ids = {await queue.accept(envelope(f"u{n}@x"), CONTENT) for n in range(300)}
        assert queue.waiting <= 50
        await trio.sleep(4 * 3600 - 100)
        assert await told_of(queue) == []
    async with virtual_queue(tmp_path / "queue", policy=policy, tuning=tuning) as queue:
        await trio.sleep(200)
        assert sorted(await told_of(queue)) == sorted((each, True, False) for each in ids)
        assert queue.waiting <= 50
        await trio.sleep(10 * 3600)
        assert await told_of(queue) == []
        await trio.sleep(10 * 3600)
        assert sorted(await told_of(queue)) == sorted((each, False, True) for each in ids)
        assert queue.waiting == 0


async def test_a_store_full_of_mail_that_expired_while_we_were_down_is_given_up_untried(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue") as queue:
        ids = {await queue.accept(envelope(f"u{n}@x"), CONTENT) for n in range(300)}
        await settle_next(queue, Result.DEFERRED)
    await trio.sleep(10 * 86400)
    async with virtual_queue(tmp_path / "queue", tuning=Tuning(window=100)) as queue:
        assert sorted(await told_of(queue)) == sorted((each, False, True) for each in ids)
