"""Why a message waits, and when it goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from msgspec.structs import replace

from elemta.protocol import Mailbox
from elemta.queue import (
    Addressee,
    Delete,
    Envelope,
    Filter,
    Hold,
    LaneLimits,
    Rate,
    Redirect,
    Reroute,
    Reschedule,
    Result,
    Retry,
    Suspension,
)
from tests.explaining.scene import scene
from tests.queue.mail import EPOCH, address, attempts, envelope, settle_next

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

    from elemta.control.facts import Explanation, Step
    from elemta.queue import Queue


def only(found: Explanation) -> Step:
    (one,) = found.steps
    return one


def suspension(scope: str, until: float | None = None, reason: str = "") -> Suspension:
    return Suspension(scope=scope, reason=reason, who="operator:jane", since=EPOCH, until=until)


async def park(queue: Queue) -> None:
    """The next destination does not answer."""
    with await queue.claim() as claim:
        work = claim.take()
        assert work is not None
        with work:
            await queue.settle(work, attempts(work, Result.DEFERRED), durable=True)
        claim.failed(park=True, reason="451 4.4.1 cannot connect: timed out")


async def test_what_is_ready_says_behind_how_many(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with scene(tmp_path) as here:
        first, second = [await here.accept(envelope("a@far.example")) for _ in range(2)]
        told = only(here.why(first))
        assert told.question == "a@far.example"
        assert told.answer == "ready: is next; its lane mx:far.example is open"
        assert told.good is None
        assert told.details == (
            "2 messages ready, 0 more on disk; 0 at work, of 2 at most",
            "given up 2026-09-23 14:13:20 UTC (in 2 d)",
            "0 attempts so far; after each failed one it waits 5 min, 1 h",
        )
        assert only(here.why(second)).answer.startswith("ready: waits behind 1 message; its lane")
        found = here.why(second)
        assert found.next_at == EPOCH
        assert found.summary == (
            "1 of 1 recipient left to try; the next attempt is now, or as soon as it is its turn"
        )


async def test_what_is_being_tried_says_so(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with scene(tmp_path) as here:
        id_ = await here.accept(envelope("a@far.example"))
        await here.accept(envelope("b@far.example"))
        with await here.queue.claim() as claim, await here.queue.claim():
            with claim.take() or pytest.fail("there is work"):
                found = here.why(id_)
                assert only(found).answer == "is being tried just now, in mx:far.example"
                assert found.next_at == EPOCH
            other = await here.accept(envelope("c@far.example"))
            assert only(here.why(other)).answer.endswith("is open; all its 2 places are taken")


async def test_each_recipient_has_its_own_answer(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with scene(tmp_path) as here:
        id_ = await here.accept(envelope("a@one.example", "b@two.example", "c@three.example"))
        await settle_next(here.queue, Result.DELIVERED)
        await settle_next(here.queue, Result.FAILED)
        await trio.sleep(60)
        found = here.why(id_)
        delivered, failed, waiting = found.steps
        assert delivered.good
        assert delivered.answer == "delivered 1970-01-01 00:00:02 UTC (20717 d ago)"
        assert delivered.reply == "250 2.2.0 taken"
        assert delivered.details == ("last attempt: mx.x[192.0.2.1]:25",)
        assert (failed.good, failed.reply) == (False, "550 5.1.1 never")
        assert failed.answer.startswith("given up 1970")
        assert waiting.good is None
        assert found.summary.startswith("1 of 3 recipients left to try")


async def test_what_is_put_off_says_until_when_and_why(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with scene(tmp_path) as here:
        id_ = await here.accept(envelope("a@far.example"))
        await settle_next(here.queue, Result.DEFERRED)
        found = here.why(id_)
        told = only(found)
        assert found.next_at is not None
        assert 270 <= found.next_at - EPOCH <= 330
        assert told.answer.startswith("the 1st attempt failed for now; the next is due 2026-09-21")
        assert told.reply == "451 4.3.0 later"
        assert told.details[0] == "given up 2026-09-23 14:13:20 UTC (in 2 d)"
        assert told.details[-1] == "last attempt: mx.x[192.0.2.1]:25"
        await trio.sleep(found.next_at - EPOCH + 1)
        assert "ready: is next" in only(here.why(id_)).answer


async def test_what_waits_behind_a_dead_host_says_so(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with scene(tmp_path) as here:
        first = await here.accept(envelope("a@far.example"))
        await park(here.queue)
        second = await here.accept(envelope("b@far.example"))
        found = here.why(second)
        assert found.next_at == EPOCH + 30
        told = only(found)
        assert told.answer == (
            "ready: is next; its lane mx:far.example is parked until "
            "2026-09-21 14:13:50 UTC (in 30 s), as it did not answer (1 time in a row)"
        )
        assert told.details[1] == (
            "said last when an attempt failed: 451 4.4.1 cannot connect: timed out"
        )
        told = only(here.why(first))
        assert told.answer.startswith("the 1st attempt failed for now")
        assert told.details[0].startswith("its lane mx:far.example is parked until")
        await trio.sleep(31)
        with await here.queue.claim():
            answer = only(here.why(second)).answer
            assert answer.endswith("is parked, and about to be probed by one worker")


@pytest.mark.parametrize("scope", ["all", "destination:mx:far.example", "domain:far.example"])
async def test_what_is_suspended_says_by_whom_and_until_when(
    tmp_path: Path, autojump_clock: MockClock, scope: str
) -> None:
    async with scene(tmp_path) as here:
        await here.queue.suspend(suspension(scope, EPOCH + 600, "they move"))
        id_ = await here.accept(envelope("a@far.example"))
        found = here.why(id_)
        assert found.next_at == EPOCH + 600
        assert only(found).answer == (
            f"ready: is next; its lane mx:far.example is suspended ({scope}) by operator:jane "
            "until 2026-09-21 14:23:20 UTC (in 10 min): they move"
        )
        await here.queue.suspend(suspension(scope))
        found = here.why(id_)
        assert found.next_at is None
        assert only(found).answer.endswith("by operator:jane until it is resumed")
        assert found.summary == "1 of 1 recipient: nothing is tried before somebody wants it"


async def test_what_is_out_of_its_rates_says_until_when(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    limits = LaneLimits(20, (Rate("messages", 1, 3600),))
    async with scene(tmp_path, limits=lambda _: limits) as here:
        await here.accept(envelope("a@far.example"))
        id_ = await here.accept(envelope("b@far.example"))
        await settle_next(here.queue, Result.DELIVERED)
        found = here.why(id_)
        assert found.next_at is not None
        assert found.next_at - EPOCH == pytest.approx(3600, rel=0.05)
        assert "is out of its rates until" in only(found).answer


async def test_what_is_held_says_by_whom_and_never_goes_by_itself(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with scene(tmp_path) as here:
        id_ = await here.accept(envelope("a@far.example"))
        this = Filter(ids=(id_,))
        await here.queue.act(Hold(), this, who="operator:jane", reason="looks odd")
        found = here.why(id_)
        assert only(found).answer == (
            "held by operator:jane since 2026-09-21 14:13:20 UTC (0 s ago), "
            "until it is released: looks odd"
        )
        assert found.next_at is None


async def test_who_gave_it_up_and_why_is_told(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with scene(tmp_path) as here:
        id_ = await here.accept(envelope("a@far.example"))
        this = Filter(ids=(id_,))
        await here.queue.act(Redirect(address("b@far.example")), this, who="operator:jane")
        assert only(here.why(id_)).question == "b@far.example (for a@far.example)"
        await here.queue.act(Delete(), this, who="operator:jane", reason="spam")
        await trio.sleep(5)
        found = here.why(id_)
        assert only(found).answer == (
            "deleted by operator:jane 2026-09-21 14:13:20 UTC (5 s ago): spam"
        )
        assert found.summary == "Finished 2026-09-21 14:13:20 UTC (5 s ago)"
        assert found.next_at is None


async def test_what_is_scheduled_says_so(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with scene(tmp_path) as here:
        later = replace(envelope("a@far.example"), due=EPOCH + 7200)
        id_ = await here.accept(later)
        found = here.why(id_)
        assert found.next_at == EPOCH + 7200
        assert only(found).answer == (
            "scheduled: not to be tried before 2026-09-21 16:13:20 UTC (in 2 h), "
            "as its sender wants it"
        )


async def test_what_waits_on_disk_says_so(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with scene(tmp_path) as here:
        await here.queue.suspend(suspension("destination:mx:far.example"))
        ids = [await here.accept(envelope("a@far.example")) for _ in range(51)]
        both = await here.accept(envelope("a@far.example", "b@near.example"))
        told = only(here.why(ids[-1]))
        assert told.answer.startswith("ready: waits on disk until its lane has room in memory")
        far, near = here.why(both).steps
        assert far.answer.startswith("ready: waits on disk, behind 50 messages in memory")
        assert near.answer == "ready: is next; its lane mx:near.example is open"


async def test_who_retries_it_lets_it_go_at_once(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with scene(tmp_path) as here:
        id_ = await here.accept(envelope("a@far.example"))
        await settle_next(here.queue, Result.DEFERRED)
        await here.queue.act(Retry(), Filter(ids=(id_,)), who="operator:jane")
        assert only(here.why(id_)).answer.startswith("ready: is next")


async def test_what_an_operator_put_off_or_sent_elsewhere_says_so(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with scene(tmp_path) as here:
        id_ = await here.accept(envelope("a@far.example"))
        this = Filter(ids=(id_,))
        await here.queue.act(Reschedule(EPOCH + 3600), this, who="operator:jane")
        found = here.why(id_)
        assert found.next_at == EPOCH + 3600
        assert only(found).answer == "not to be tried before 2026-09-21 15:13:20 UTC (in 1 h)"
        await here.queue.act(Reroute(("smtp://relay.example",)), this, who="operator:jane")
        told = only(here.why(id_))
        assert "goes via smtp://relay.example, as somebody chose" in told.details


async def test_a_bare_postmaster_has_no_domain_to_suspend(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with scene(tmp_path) as here:
        await here.queue.suspend(suspension("domain:far.example"))
        postmaster = Addressee(address=Mailbox("postmaster", ""))
        id_ = await here.accept(Envelope(sender=None, recipients=(postmaster,)))
        assert only(here.why(id_)).answer == "ready: is next; its lane maildir is open"
