"""The queue as listener and delivery see it, on virtual time and a real database."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from elemta.queue import (
    Attempt,
    AttemptStarted,
    Claim,
    Deferred,
    Delivered,
    Envelope,
    Expired,
    Failed,
    Filter,
    Finished,
    Held,
    LaneLimits,
    Parked,
    Priority,
    Queue,
    Queued,
    Rate,
    Released,
    Report,
    Result,
    RetryPolicy,
    SpoolError,
    State,
    StoreReader,
    StoreUnavailable,
    Suspension,
    Tuning,
    Unparked,
    View,
    Work,
    open_queue,
)
from elemta.queue.floor import LOOK
from elemta.queue.work import FAIR
from tests.queue.mail import (
    CONTENT,
    EPOCH,
    POLICY,
    REPLIES,
    Disks,
    attempts,
    by_domain,
    envelope,
    hold,
    now,
    release,
    settle_next,
    virtual_queue,
)

if TYPE_CHECKING:
    from pathlib import Path


async def nothing_ready(queue: Queue) -> bool:
    """Whether a worker would have to wait."""
    with trio.move_on_after(0.0001) as scope:
        with await queue.claim():
            pass
    return scope.cancelled_caught


async def test_what_was_accepted_is_handed_out_with_its_body(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue") as queue:
        queued = await queue.accept(envelope("a@x", "b@x"), CONTENT)
        with await queue.claim() as claim:
            assert claim.lane == "mx:x"
            work = claim.take()
            assert work is not None
            with work:
                assert work.message.id == queued
                assert [str(each.address) for each in work.recipients] == ["a@x", "b@x"]
                assert (await work.body()).octets is CONTENT
                await queue.settle(work, attempts(work, Result.DELIVERED))
        assert await nothing_ready(queue)


async def test_a_message_survives_a_restart_until_it_is_delivered(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue") as queue:
        queued = await queue.accept(envelope(), CONTENT, queue.new_id())
    async with virtual_queue(tmp_path / "queue") as queue:
        with await queue.claim() as claim:
            work = claim.take()
            assert work is not None
            with work:
                assert work.message.id == queued
                body = await work.body()
                assert body.octets == CONTENT
                assert [piece async for piece in body.chunks()] == [CONTENT]
                await queue.settle(work, attempts(work, Result.DELIVERED))
    async with virtual_queue(tmp_path / "queue") as queue:
        assert await nothing_ready(queue)
        assert queue.waiting == 0


async def test_the_message_has_the_facts_of_its_envelope(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue") as queue:
        given = Envelope(
            sender=None,
            recipients=envelope("a@x").recipients,
            priority=Priority.HIGH,
            tags=("news",),
            hops=3,
        )
        queued = await queue.accept(given, "Grüße\r\n".encode())
        with StoreReader(tmp_path / "queue") as reader:
            message = reader.get(queued)
    assert message is not None
    assert message.sender is None
    assert message.eight_bit
    assert message.size == 9
    assert (message.priority, message.tags, message.hops) == (Priority.HIGH, ("news",), 3)
    assert message.received_at == EPOCH
    assert message.expires_at == EPOCH + POLICY.report_lifetime  # it has no sender


async def test_what_is_deferred_is_tried_again_by_the_schedule(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue") as queue:
        queued = await queue.accept(envelope(), CONTENT)
        tried: list[float] = []
        for _ in range(5):
            assert await settle_next(queue, Result.DEFERRED) == queued
            tried.append(now() - EPOCH)
            assert queue.waiting == 0  # it waits on disk, not in memory
        assert tried == pytest.approx([0, 300, 900, 2100, 4500], abs=0.1)
        await settle_next(queue, Result.DELIVERED)
        assert await nothing_ready(queue)


async def test_a_retry_that_was_due_while_we_were_down_comes_at_the_start(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue") as queue:
        queued = await queue.accept(envelope(), CONTENT)
        await settle_next(queue, Result.DEFERRED)
    await trio.sleep(10_000)
    async with virtual_queue(tmp_path / "queue") as queue:
        begun = now()
        assert await settle_next(queue, Result.DELIVERED) == queued
        assert now() - begun < 1


async def test_a_retry_comes_in_time_though_others_of_the_message_are_at_work(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue") as queue:
        await queue.accept(envelope("a@x", "b@y"), CONTENT)
        with await queue.claim() as slow, await queue.claim() as quick:
            long, short = slow.take(), quick.take()
            assert long is not None
            assert short is not None
            with long:
                with short:
                    await queue.settle(short, attempts(short, Result.DEFERRED))
                again = await quick.wait(1000)
                assert again is not None
                assert now() - EPOCH == pytest.approx(300, abs=0.1)
                with again:
                    assert again.recipients == short.recipients
                    await queue.settle(again, attempts(again, Result.DELIVERED))
                await queue.settle(long, attempts(long, Result.DELIVERED))
        assert queue.waiting == 0


async def test_each_recipient_has_a_state_of_its_own(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue") as queue:
        queued = await queue.accept(envelope("a@x", "b@x", "c@x", "d@x"), CONTENT)
        with await queue.claim() as claim:
            work = claim.take()
            assert work is not None
            with work:
                results = (Result.DELIVERED, Result.FAILED, Result.DEFERRED)
                outcome = [attempts(work, result)[number] for number, result in enumerate(results)]
                await queue.settle(work, outcome, durable=True)
        reader = StoreReader(tmp_path / "queue")
        message = reader.get(queued)
        assert message is not None
        states = [each.state for each in message.recipients]
        assert states == [State.DELIVERED, State.FAILED, State.DEFERRED, State.READY]
        # The one that was not settled is ready at once; the deferred one comes later, alone.
        with await queue.claim() as claim:
            work = claim.take()
            assert work is not None
            with work:
                assert [each.number for each in work.recipients] == [3]
                await queue.settle(work, attempts(work, Result.DELIVERED), durable=True)
        with await queue.claim() as claim:
            work = claim.take()
            assert work is not None
            with work:
                assert [each.number for each in work.recipients] == [2]
                assert work.message.recipients[1].last == REPLIES[Result.FAILED]
                await queue.settle(work, attempts(work, Result.DELIVERED), durable=True)
        timeline = reader.timeline(queued)
        reader.close()
    assert timeline is not None
    assert timeline.finished_at is not None
    assert [each.number for each in timeline.attempts] == [0, 1, 2, 3, 2]
    assert [each.state for each in timeline.message.recipients] == [
        State.DELIVERED,
        State.FAILED,
        State.DELIVERED,
        State.DELIVERED,
    ]


async def test_a_worker_that_crashes_gives_its_work_and_place_back(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue", tuning=Tuning(workers=1)) as queue:
        queued = await queue.accept(envelope(), CONTENT)

        async def crash() -> None:
            with await queue.claim() as claim:
                work = claim.take()
                assert work is not None
                with work:
                    raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await crash()
        assert await settle_next(queue, Result.DELIVERED) == queued


async def test_leaving_twice_gives_back_once(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with virtual_queue(tmp_path / "queue") as queue:
        await queue.accept(envelope(), CONTENT)
        claim = await queue.claim()
        with claim, claim:
            work = claim.take()
            assert work is not None
            with work, work:
                pass
            again = claim.take()
            assert again is not None
            assert claim.take() is None
            with again:
                pass
        assert await settle_next(queue, Result.DELIVERED)


async def test_an_attempt_at_what_is_not_open_changes_nothing(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue") as queue:
        await queue.accept(envelope("a@x", "b@x"), CONTENT)
        with await queue.claim() as claim:
            work = claim.take(1)
            assert work is not None
            with work:
                stranger = Attempt(
                    number=1,
                    started=0,
                    ended=0,
                    result=Result.DELIVERED,
                    destination="",
                    reply=REPLIES[Result.DELIVERED],
                )
                with pytest.raises(ValueError, match="recipient 1 is not open"):
                    await queue.settle(work, [*attempts(work, Result.DELIVERED), stranger])
                assert work.recipients[0].state is State.READY


async def test_the_last_attempt_is_known_before_it_is_settled(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    policy = RetryPolicy(schedule=(100.0,), jitter=0.0, lifetime=250.0)
    async with virtual_queue(tmp_path / "queue", policy=policy) as queue:
        queued = await queue.accept(envelope(), CONTENT)
        verdicts: list[bool] = []
        for _ in range(3):
            with await queue.claim() as claim:
                work = claim.take()
                assert work is not None
                with work:
                    last = queue.expires(work.message, work.recipients[0], now())
                    verdicts.append(last)
                    await queue.settle(work, attempts(work, Result.DEFERRED, expired=last))
        assert verdicts == [False, False, True]
        with StoreReader(tmp_path / "queue") as reader:
            timeline = reader.timeline(queued)
        assert timeline is not None
        assert [each.state for each in timeline.message.recipients] == [State.EXPIRED]


async def test_nothing_is_due_after_its_lifetime(tmp_path: Path, autojump_clock: MockClock) -> None:
    policy = RetryPolicy(schedule=(100.0,), jitter=0.0, lifetime=50.0)
    async with virtual_queue(tmp_path / "queue", policy=policy) as queue:
        await queue.accept(envelope(), CONTENT)
        await settle_next(queue, Result.DEFERRED)
        await settle_next(queue, Result.DEFERRED, expired=True)
        assert now() - EPOCH == pytest.approx(50.0, abs=0.1)


async def test_a_report_is_queued_with_what_gave_cause_for_it(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue") as queue:
        await queue.accept(envelope("a@x"), CONTENT)
        with await queue.claim() as claim:
            work = claim.take()
            assert work is not None
            with work:
                report = Report(envelope=envelope("sender@home"), content=b"y" * 300_000)
                await queue.settle(work, attempts(work, Result.FAILED), [report])
        with await queue.claim() as claim:
            assert claim.lane == "mx:home"
            work = claim.take()
            assert work is not None
            with work:
                assert (await work.body()).octets == report.content
    # A large report is a row too, since a file could not be part of the transaction.
    async with virtual_queue(tmp_path / "queue") as queue:
        with await queue.claim() as claim:
            work = claim.take()
            assert work is not None
            with work:
                assert (await work.body()).octets == report.content


async def test_every_step_is_an_event(tmp_path: Path, autojump_clock: MockClock) -> None:
    policy = RetryPolicy(schedule=(10.0,), jitter=0.0, lifetime=15.0)
    async with virtual_queue(tmp_path / "queue", policy=policy) as queue:
        with queue.events.subscribe() as subscription:
            await queue.accept(envelope("a@x"), CONTENT)
            await settle_next(queue, Result.DEFERRED)
            await settle_next(queue, Result.DEFERRED, expired=True)
            await queue.accept(envelope("b@x"), CONTENT)
            await settle_next(queue, Result.FAILED)
            held = await queue.accept(envelope("c@x"), CONTENT)
            assert await hold(queue, held)
            assert await release(queue, held)
            await settle_next(queue, Result.DELIVERED)
            kinds: list[type[object]] = []
            async for event in subscription:
                kinds.append(type(event))
                if len(kinds) == 15:
                    break
    assert kinds == [
        *(Queued, AttemptStarted, Deferred, AttemptStarted, Expired, Finished),
        *(Queued, AttemptStarted, Failed, Finished),
        *(Queued, Held, Released, AttemptStarted, Delivered),
    ]


async def test_a_held_message_is_not_tried_until_released_whatever_restarts(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue") as queue:
        queued = await queue.accept(envelope("a@x", "b@y"), CONTENT)
        with await queue.claim() as claim:
            work = claim.take()
            assert work is not None
            with work:
                await queue.settle(work, attempts(work, Result.DEFERRED))
        assert await hold(queue, queued)
        assert not await hold(queue, queued)
        await trio.sleep(1000)
        assert await nothing_ready(queue)
    async with virtual_queue(tmp_path / "queue") as queue:
        await trio.sleep(1000)
        assert await nothing_ready(queue)
        assert queue.waiting == 0
        assert await release(queue, queued)
        assert not await release(queue, queued)
        await settle_next(queue, Result.DELIVERED)
        await settle_next(queue, Result.DELIVERED)
        assert not await hold(queue, queued)


async def test_what_is_not_there_cannot_be_held(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with virtual_queue(tmp_path / "queue") as queue:
        queued = await queue.accept(envelope(), CONTENT)
        assert not await hold(queue, queue.new_id())
        assert not await release(queue, queue.new_id())
        assert not await hold(queue, queued[:13] + "0" * 13)  # the same key; guessed, not known


async def test_a_deferred_message_on_disk_can_be_held(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue") as queue:
        queued = await queue.accept(envelope(), CONTENT)
        await settle_next(queue, Result.DEFERRED)
        assert queue.waiting == 0
        assert not await release(queue, queued)
        assert queue.waiting == 0  # it was read for nothing, and went back
        assert await hold(queue, queued)
        await trio.sleep(1000)
        assert await nothing_ready(queue)


async def test_a_worker_waits_for_the_next_work_of_its_lane(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue") as queue:
        await queue.accept(envelope("a@x"), CONTENT)
        got: list[str] = []

        async def deliver() -> None:
            with await queue.claim() as claim:
                while work := claim.take() or await claim.wait(60):
                    with work:
                        got.append(work.message.id)
                        await queue.settle(work, attempts(work, Result.DELIVERED))
            got.append("left")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(deliver)
            await trio.sleep(50)
            second = await queue.accept(envelope("b@x"), CONTENT)
            await trio.sleep(0.01)
            assert got[1:] == [second]
            third = await queue.accept(envelope("c@x"), CONTENT)
            await trio.sleep(0.01)
            assert got[2:] == [third]
            begun = now()
        assert got[3:] == ["left"]
        assert 60 <= now() - begun <= 60 + LOOK


async def test_waiting_finds_work_that_is_there_already(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue") as queue:
        await queue.accept(envelope("a@x"), CONTENT)
        with await queue.claim() as claim:
            work = await claim.wait(0)
            assert work is not None
            with work:
                await queue.settle(work, attempts(work, Result.DELIVERED))


async def test_who_waits_can_be_cancelled_and_misses_nothing(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue") as queue:
        assert await nothing_ready(queue)
        await queue.accept(envelope("a@x"), CONTENT)
        await queue.accept(envelope("b@x"), CONTENT)
        with await queue.claim() as one, await queue.claim() as two:
            for claim in (one, two):
                work = claim.take()
                assert work is not None
                with work:
                    await queue.settle(work, attempts(work, Result.DELIVERED))

            async def wait(claim: Claim) -> None:
                await claim.wait(60)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait, one)
                nursery.start_soon(wait, two)
                await wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
        queued = await queue.accept(envelope("c@x"), CONTENT)
        assert await settle_next(queue, Result.DELIVERED) == queued


async def test_who_waits_can_be_dismissed_and_misses_nothing(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue") as queue:
        await queue.accept(envelope("a@x"), CONTENT)
        with await queue.claim() as claim:
            claim.dismiss()  # does not wait
            work = claim.take()
            assert work is not None
            with work:
                await queue.settle(work, attempts(work, Result.DELIVERED))
            found: list[Work | None] = []

            async def wait() -> None:
                found.append(await claim.wait(1000))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                await wait_all_tasks_blocked()
                claim.dismiss()
            assert found == [None]
            assert trio.current_time() < 1
        queued = await queue.accept(envelope("b@x"), CONTENT)
        assert await settle_next(queue, Result.DELIVERED) == queued


async def test_resting_workers_make_room_for_lanes_that_have_none(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue", tuning=Tuning(workers=1)) as queue:
        await queue.accept(envelope("a@x"), CONTENT)
        order: list[str] = []

        async def deliver(claim: Claim) -> None:
            with claim:
                while work := claim.take() or await claim.wait(1000):
                    with work:
                        order.append(claim.lane)
                        await queue.settle(work, attempts(work, Result.DELIVERED))

        async def run() -> None:
            async with trio.open_nursery() as workers:
                while True:
                    workers.start_soon(deliver, await queue.claim())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await trio.sleep(1)
            await queue.accept(envelope("b@y"), CONTENT)
            await trio.sleep(1)
            assert order == ["mx:x", "mx:y"]
            nursery.cancel_scope.cancel()


async def test_who_begins_to_wait_or_to_rest_in_a_crowd_makes_room_at_once(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue", tuning=Tuning(workers=1)) as queue:
        await queue.accept(envelope("a@x"), CONTENT)
        with await queue.claim() as claim:
            work = claim.take()
            assert work is not None
            with work:
                await queue.settle(work, attempts(work, Result.DELIVERED))
            await queue.accept(envelope("b@y"), CONTENT)
            begun = now()
            assert await claim.wait(1000) is None
            assert now() == begun


async def test_who_asks_for_a_place_where_all_are_taken_sends_the_resting_away(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue", tuning=Tuning(workers=1)) as queue:
        await queue.accept(envelope("a@x"), CONTENT)
        left: list[float] = []

        async def deliver() -> None:
            with await queue.claim() as claim:
                while work := claim.take() or await claim.wait(1000):
                    with work:
                        await queue.settle(work, attempts(work, Result.DELIVERED))
                left.append(now())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(deliver)
            await trio.sleep(1)
            await queue.accept(envelope("b@y"), CONTENT)
            begun = now()
            assert await settle_next(queue, Result.DELIVERED)
            assert now() - begun < 0.01
        assert left == [pytest.approx(begun, abs=0.01)]


async def test_a_scattered_message_is_held_and_released_from_disk(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue") as queue:
        queued = await queue.accept(envelope("a@x"), CONTENT)
        await settle_next(queue, Result.DEFERRED)
        assert await hold(queue, queued)
    async with virtual_queue(tmp_path / "queue") as queue:
        assert await release(queue, queued)
        assert await settle_next(queue, Result.DELIVERED) == queued


async def test_a_message_that_is_loaded_twice_stands_in_memory_once(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue") as queue:
        queued = await queue.accept(envelope("a@x"), CONTENT)
        await settle_next(queue, Result.DEFERRED)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(release, queue, queued)
        assert queue.waiting == 0
        assert await settle_next(queue, Result.DELIVERED) == queued
        assert await nothing_ready(queue)


async def test_a_busy_lane_lets_others_have_its_place_after_a_while(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue", tuning=Tuning(workers=1)) as queue:
        for number in range(2 * FAIR):
            await queue.accept(envelope(f"u{number}@x"), CONTENT)
        await queue.accept(envelope("u@y"), CONTENT)
        with await queue.claim() as claim:
            done = 0
            while work := claim.take():
                with work:
                    await queue.settle(work, attempts(work, Result.DELIVERED))
                done += 1
        assert done == FAIR
        with await queue.claim() as claim:
            assert claim.lane == "mx:y"


async def test_a_parked_lane_is_left_alone_and_its_resting_workers_leave(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue") as queue:
        for name in "abc":
            await queue.accept(envelope(f"{name}@x"), CONTENT)
        with await queue.claim() as one, await queue.claim() as two:
            works = [one.take(), two.take(), two.take()]
            for work in works:
                assert work is not None
                with work:
                    await queue.settle(work, attempts(work, Result.DEFERRED))
            async with trio.open_nursery() as nursery:

                async def rest() -> None:
                    assert await two.wait(1000) is None

                nursery.start_soon(rest)
                await wait_all_tasks_blocked()
                begun = now()
                one.failed(park=True)
            assert now() == begun
        late = await queue.accept(envelope("d@x"), CONTENT)
        assert await nothing_ready(queue)
        assert await settle_next(queue, Result.DELIVERED) == late
        assert now() - EPOCH == pytest.approx(30, abs=11)


async def test_a_destination_that_is_down_does_not_fill_the_memory(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue", tuning=Tuning(window=100)) as queue:
        ids = [await queue.accept(envelope(f"u{number}@down"), CONTENT) for number in range(80)]
        with await queue.claim() as claim:
            work = claim.take()
            assert work is not None
            with work:
                await queue.settle(work, attempts(work, Result.DEFERRED))
            claim.failed(park=True)
        assert queue.waiting <= 50
        (down,) = queue.destinations()
        assert down.ready + down.on_disk == 79
        with StoreReader(tmp_path / "queue") as reader:
            ready = reader.search(Filter(views=(View.ACTIVE,)), now=EPOCH)
            assert len(ready) == 79  # nothing was written of them
        # It comes back, and all is delivered in the end.
        delivered: set[str] = set()
        while len(delivered) < len(ids):
            with await queue.claim() as claim:
                while work := claim.take():
                    with work:
                        delivered.add(work.message.id)
                        await queue.settle(work, attempts(work, Result.DELIVERED))
                    claim.succeeded()
        assert delivered == set(ids)


async def test_a_destination_that_turns_us_away_gets_fewer_of_us(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue") as queue:
        for name in "abc":
            await queue.accept(envelope(f"{name}@x"), CONTENT)
        with await queue.claim() as claim:
            claim.failed()
            assert await nothing_ready(queue)
            claim.succeeded()
            with await queue.claim() as other:
                assert other.lane == claim.lane


async def test_success_lets_one_more_begin_who_waits_for_it(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue") as queue:
        for name in "abc":
            await queue.accept(envelope(f"{name}@x"), CONTENT)
        with await queue.claim() as one, await queue.claim():
            async with trio.open_nursery() as nursery:

                async def third() -> None:
                    with await queue.claim() as claim:
                        assert claim.lane == "mx:x"

                nursery.start_soon(third)
                await wait_all_tasks_blocked()
                one.succeeded()


async def test_after_a_reload_what_waits_goes_where_it_goes_now(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue") as queue:
        await queue.accept(envelope("a@x"), CONTENT)
        queue.retune(lane=lambda *_: "smarthost")
        with await queue.claim() as claim:
            assert claim.lane == "smarthost"


async def test_after_a_reload_lifetimes_are_counted_anew_for_what_waits_already(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue") as queue:
        await queue.accept(envelope("a@x"), CONTENT)
        await trio.sleep(1000)
        with await queue.claim() as claim:
            work = claim.take()
            assert work is not None
            with work:
                recipient = work.recipients[0]
                assert queue.deadline(work.message, recipient) == EPOCH + POLICY.lifetime
                assert not queue.expires(work.message, recipient, now())
                assert not queue.warns(work.message, recipient, now())
                queue.retune(policy=lambda *_: RetryPolicy(lifetime=5000.0, delay_warning=500.0))
                assert queue.warns(work.message, recipient, now())
                queue.retune(policy=RetryPolicy(lifetime=500.0))
                assert queue.expires(work.message, recipient, now())
                assert queue.deadline(work.message, recipient) == EPOCH + 500
                await queue.settle(work, attempts(work, Result.DEFERRED, expired=True))


async def test_a_worker_is_told_whether_its_connection_is_counted(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    rated = LaneLimits(rates=(Rate("connections", 1, 60.0),))
    async with virtual_queue(
        tmp_path / "queue", limits=lambda name: rated if name == "mx:x" else LaneLimits()
    ) as queue:
        for name in "xxyx":
            await queue.accept(envelope(f"a@{name}"), CONTENT)
        with await queue.claim() as one, await queue.claim() as other:
            assert (one.lane, one.counted) == ("mx:x", True)
            assert (other.lane, other.counted) == ("mx:y", False)
            assert other.take() is not None
            assert await nothing_ready(queue)


async def test_a_destination_that_is_parked_and_answers_again_is_told_of(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue") as queue:
        for name in "abc":
            await queue.accept(envelope(f"{name}@x"), CONTENT)
        with queue.events.subscribe() as subscription:
            with await queue.claim() as claim:
                assert claim.take() is not None
                claim.failed(park=True, reason="connection refused")
                claim.failed(park=True)
            queue.probe("mx:nowhere")
            assert await nothing_ready(queue)
            queue.probe("mx:x")
            with await queue.claim() as claim:
                assert claim.take() is not None
                claim.succeeded()
                claim.succeeded()
            events: list[object] = []
            async for event in subscription:
                if isinstance(event, Parked | Unparked):
                    events.append(event)
                if len(events) == 2:
                    break
    parked, unparked = events
    assert isinstance(parked, Parked)
    assert (parked.lane, parked.until, parked.reason) == ("mx:x", EPOCH + 30, "connection refused")
    assert isinstance(unparked, Unparked)
    assert unparked.lane == "mx:x"


async def test_what_waits_on_disk_for_two_closed_lanes_leaves_memory_once(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue") as queue:
        await queue.suspend(Suspension(scope="all", reason="", who="me", since=EPOCH))
        ids = [await queue.accept(envelope(f"a{n}@x", f"a{n}@y"), CONTENT) for n in range(60)]
        assert queue.waiting == 50
        # What was held meanwhile is no longer wanted.
        assert await hold(queue, ids[-1])
        await queue.resume("all")
        got: set[str] = set()
        while not await nothing_ready(queue):
            got.add(await settle_next(queue, Result.DELIVERED))
        assert got == set(ids[:-1])
        assert queue.waiting == 0


async def test_more_mail_than_fits_in_memory_waits_on_disk_and_is_delivered(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue", tuning=Tuning(window=110)) as queue:
        ids = [await queue.accept(envelope(f"u{number}@x"), CONTENT) for number in range(300)]
        assert queue.waiting == 110
        # New mail for another lane need not wait behind the clogged one.
        other = await queue.accept(envelope("u@y"), CONTENT)
        assert queue.waiting == 111
        delivered: list[str] = []
        while len(delivered) < 301:
            delivered.append(await settle_next(queue, Result.DELIVERED))
        assert sorted(delivered) == sorted([*ids, other])
        assert len(set(delivered)) == 301
        assert await nothing_ready(queue)


async def test_memory_has_an_end_even_for_new_lanes(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue", tuning=Tuning(window=10)) as queue:
        for number in range(50):
            await queue.accept(envelope(f"u@lane{number}"), CONTENT)
        assert queue.waiting == 20


async def test_bodies_are_kept_in_memory_within_a_budget(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    content = b"z" * 1000
    async with virtual_queue(tmp_path / "queue", tuning=Tuning(memory=1500)) as queue:
        for name in "ab":
            await queue.accept(envelope(f"{name}@{name}"), content)
        same: list[bool] = []
        for _ in range(2):
            with await queue.claim() as claim:
                work = claim.take()
                assert work is not None
                with work:
                    body = await work.body()
                    assert body.octets == content
                    same.append(body.octets is content)
                    await queue.settle(work, attempts(work, Result.DELIVERED), durable=True)
        assert same == [True, False]
        await queue.accept(envelope("c@c"), content)  # the room is free again
        with await queue.claim() as claim:
            work = claim.take()
            assert work is not None
            with work:
                assert (await work.body()).octets is content


async def test_a_full_disk_takes_no_mail_and_leaves_no_trace(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    disks = Disks()
    async with virtual_queue(tmp_path / "queue", disk=disks) as queue:
        assert queue.healthy
        assert queue.why is None
        disks.disk.full = True
        with pytest.raises(StoreUnavailable, match="disk is full"):
            await queue.accept(envelope(), CONTENT)
        assert not queue.healthy
        assert queue.why == "database or disk is full"
        assert queue.waiting == 0
        async with queue.receive(envelope()) as incoming:
            await incoming.write(b"x" * 600_000)
            with pytest.raises(StoreUnavailable, match="disk is full"):
                await incoming.commit()
        assert list((tmp_path / "queue" / "bodies").iterdir()) == []
        disks.disk.full = False
        await trio.sleep(61)
        assert queue.healthy
        await queue.accept(envelope(), CONTENT)


async def test_an_outcome_outlives_a_full_disk(tmp_path: Path, autojump_clock: MockClock) -> None:
    disks = Disks()
    async with virtual_queue(tmp_path / "queue", disk=disks) as queue:
        queued = await queue.accept(envelope(), CONTENT)
        disks.disk.full = True
        await settle_next(queue, Result.DELIVERED, durable=False)
        await trio.sleep(100)
        assert disks.disk.refused > 50  # it keeps on trying
        assert await nothing_ready(queue)  # and does not deliver it twice
        disks.disk.full = False
        await trio.sleep(2)
        assert queue.healthy
    with StoreReader(tmp_path / "queue") as reader:
        timeline = reader.timeline(queued)
        assert timeline is not None
        assert timeline.finished_at is not None


async def test_reading_goes_on_when_the_disk_is_well_again(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    disks = Disks()
    async with virtual_queue(tmp_path / "queue", tuning=Tuning(window=1), disk=disks) as queue:
        first = await queue.accept(envelope("a@x"), CONTENT)
        second = await queue.accept(envelope("b@x"), CONTENT)
        third = await queue.accept(envelope("c@x"), CONTENT)
        got = [await settle_next(queue, Result.DELIVERED)]
        disks.disk.full = True
        got.append(await settle_next(queue, Result.DELIVERED, durable=False))
        await trio.sleep(3)
        disks.disk.full = False
        got.append(await settle_next(queue, Result.DELIVERED))
        assert sorted(got) == [first, second, third]


async def test_settling_waits_when_too_much_is_pending(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("elemta.queue.trials.PENDING", 1)
    disks = Disks()
    async with virtual_queue(tmp_path / "queue", disk=disks) as queue:
        for name in "ab":
            await queue.accept(envelope(f"{name}@x"), CONTENT)
        disks.disk.full = True
        await settle_next(queue, Result.DELIVERED, durable=False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(settle, queue)
            await trio.sleep(5)
            assert len(nursery.child_tasks) == 1
            disks.disk.full = False


async def settle(queue: Queue) -> None:
    await settle_next(queue, Result.DELIVERED, durable=False)


async def test_two_processes_cannot_have_one_queue(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue"):
        with pytest.raises(SpoolError, match="in use by process"):
            await virtual_queue(tmp_path / "queue").__aenter__()
    async with virtual_queue(tmp_path / "queue"):
        pass


async def test_what_its_user_raises_comes_out_in_no_group(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with virtual_queue(tmp_path / "queue"):
            raise KeyError("mine")
    with pytest.raises(KeyError, match="mine"):
        async with open_queue(tmp_path / "queue", POLICY, lane=by_domain):
            raise KeyError("mine")


async def test_the_same_id_twice_is_refused_and_harms_nobody(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue") as queue:
        queued = await queue.accept(envelope("a@x"), CONTENT)
        with pytest.raises(StoreUnavailable, match="UNIQUE"):
            await queue.accept(envelope("b@x"), CONTENT, queued)
        assert await settle_next(queue, Result.DELIVERED) == queued
        assert await nothing_ready(queue)


async def test_a_queue_with_a_thread_of_its_own_keeps_all_its_promises(tmp_path: Path) -> None:
    async with open_queue(tmp_path / "queue", POLICY, lane=by_domain) as queue:
        assert queue.room() in (True, False)
        ids: list[str] = []

        async def produce() -> None:
            for number in range(25):
                to = envelope(f"u{number}@x", f"u{number}@y")
                ids.append(await queue.accept(to, CONTENT))  # as they come

        done: list[tuple[str, str]] = []

        async def deliver(claim: Claim) -> None:
            with claim:
                while work := claim.take() or await claim.wait(60):
                    with work:
                        assert (await work.body()).octets == CONTENT
                        done.append((work.message.id, claim.lane))
                        await queue.settle(work, attempts(work, Result.DELIVERED))
                    claim.succeeded()

        async def run() -> None:
            async with trio.open_nursery() as workers:
                while True:
                    workers.start_soon(deliver, await queue.claim())

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run)
                async with trio.open_nursery() as producers:
                    for _ in range(8):
                        producers.start_soon(produce)
                while queue.waiting:  # noqa: ASYNC110 # real threads; there is no such event
                    await trio.sleep(0.001)
                nursery.cancel_scope.cancel()
    assert sorted(done) == sorted((queued, lane) for queued in ids for lane in ("mx:x", "mx:y"))
    with StoreReader(tmp_path / "queue") as reader:
        stats = reader.stats()
        assert (stats.messages, stats.history) == (0, 200)
