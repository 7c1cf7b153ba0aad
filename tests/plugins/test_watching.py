from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from typing_extensions import override

from elemta.plugins import Chain, Loaded, Plugin, Watching
from elemta.plugins.watching import BUFFER, Hand
from elemta.queue import (
    Deferred,
    Filter,
    Finished,
    Held,
    Hold,
    Priority,
    Queued,
    Result,
    State,
    Unparked,
)
from tests.queue.mail import CONTENT, envelope, now, settle_next, virtual_queue
from tests.queue.steering import Postmaster, states, timeline

if TYPE_CHECKING:
    import io
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from trio.testing import MockClock

    from elemta.plugins import Steers
    from elemta.queue import Queue, QueueEvent


class Hears(Plugin):
    """Remembers what it hears, and does something about it."""

    name = "hears"

    def __init__(
        self, does: Callable[[QueueEvent, Steers], Awaitable[None]] | None = None, slow: float = 0
    ) -> None:
        self._does = does
        self._slow = slow
        self.heard: list[QueueEvent] = []

    @override
    async def on_event(self, event: QueueEvent, queue: Steers) -> None:
        self.heard.append(event)
        if self._slow:
            await trio.sleep(self._slow)
        if self._does is not None:
            await self._does(event, queue)

    @property
    def kinds(self) -> list[str]:
        return [type(each).__name__ for each in self.heard]


@asynccontextmanager
async def watched(folder: Path, chain: Chain) -> AsyncIterator[tuple[Queue, Watching]]:
    async with virtual_queue(folder) as queue, trio.open_nursery() as nursery:
        watching = Watching(queue, Postmaster())
        watching.use(chain)
        nursery.start_soon(watching.run)
        await trio.testing.wait_all_tasks_blocked()
        yield queue, watching
        nursery.cancel_scope.cancel()
    assert queue.events.subscribers == 0


def chain(*plugins: Plugin, timeout: float = 30) -> Chain:
    return Chain([Loaded(each, timeout) for each in plugins])


async def test_a_plugin_hears_what_happens_in_order(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    hears = Hears()
    async with watched(tmp_path, chain(hears)) as (queue, _):
        await queue.accept(envelope("a@x"), CONTENT)
        await settle_next(queue, Result.DELIVERED)
        await trio.sleep(1)
        assert hears.kinds == ["Queued", "AttemptStarted", "Delivered", "Finished"]


async def test_where_nobody_wants_to_hear_nobody_listens(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    class Deaf(Plugin):
        name = "deaf"

    async with watched(tmp_path, chain(Deaf())) as (queue, watching):
        assert queue.events.subscribers == 0
        hears = Hears()
        watching.use(chain(hears))
        assert queue.events.subscribers == 1
        await queue.accept(envelope("a@x"), CONTENT)
        await trio.sleep(1)
        watching.use(chain(Deaf()))
        assert queue.events.subscribers == 0
        await queue.accept(envelope("a@x"), CONTENT)
        await trio.sleep(1)
        assert hears.kinds == ["Queued"]


async def test_a_plugin_that_stays_over_a_reload_misses_nothing_and_is_not_interrupted(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    hears, goes = Hears(slow=2), Hears(slow=2)
    before, after = chain(hears, goes), chain(hears)
    async with watched(tmp_path, before) as (queue, watching):
        for _ in range(3):
            await queue.accept(envelope("a@x"), CONTENT)
        await trio.sleep(1)
        watching.use(after)
        assert before.users.count == 2  # both are in the middle of something
        await trio.sleep(1.5)
        assert before.users.count == 0
        assert after.users.count == 1
        await trio.sleep(10)
        assert hears.kinds == ["Queued"] * 3
        assert goes.kinds == ["Queued"]


async def test_a_slow_plugin_misses_events_and_slows_nobody(
    tmp_path: Path, autojump_clock: MockClock, lines: io.StringIO
) -> None:
    slow, quick = Hears(slow=10), Hears()
    loaded = [Loaded(slow), Loaded(quick)]
    async with watched(tmp_path, Chain(loaded)) as (queue, _):
        began = trio.current_time()
        for _ in range(BUFFER + 500):
            queue.events.publish(Unparked(queue.events.next(), now(), "mx:x"))
            await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked()
        assert trio.current_time() - began < 5
        assert len(quick.heard) == BUFFER + 500
        assert len(slow.heard) == 1
        await trio.sleep(11)
        assert slow.heard[-1].number > 499
    missed = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert [(each["event"], each["count"]) for each in missed] == [("plugin.events_missed", 499)]
    assert loaded[0].counts.events["missed"] == 499


async def test_a_quick_plugin_misses_nothing_of_a_flood(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    hears = Hears()
    async with watched(tmp_path, chain(hears)) as (queue, _):
        for _ in range(100):
            for _ in range(90):  # in one turn of the loop
                queue.events.publish(Unparked(queue.events.next(), now(), "mx:x"))
            await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked()
        numbers = [each.number for each in hears.heard]
        assert len(numbers) == 9000
        assert numbers == sorted(numbers)


async def test_a_plugin_that_fails_or_hangs_hears_the_next_thing(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async def breaks(event: QueueEvent, queue: Steers) -> None:
        raise ValueError("a bug")

    async def hangs(event: QueueEvent, queue: Steers) -> None:
        await trio.sleep_forever()

    loaded = [Loaded(Hears(breaks), 5), Loaded(Hears(hangs), 5)]
    async with watched(tmp_path, Chain(loaded)) as (queue, _):
        await queue.accept(envelope("a@x"), CONTENT)
        await queue.accept(envelope("a@x"), CONTENT)
        await trio.sleep(11)
        assert [each.counts.failed for each in loaded] == [2, 2]


async def test_what_a_plugin_does_stands_in_the_timeline(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async def does(event: QueueEvent, queue: Steers) -> None:
        match event:
            case Queued(id=id_):
                await queue.hold(id_, "let me see")
            case Held(id=id_, who="operator:root"):
                pass
            case Held(id=id_):
                await queue.reprioritise(id_, Priority.HIGH, "it is urgent")
                await queue.reschedule(id_, now() + 1000, "later")
                await queue.release(id_, "fine")
            case Deferred(id=id_):
                await queue.reschedule(id_, now() + 7200, "not so soon")
            case _:
                pass

    hears = Hears(does)
    async with watched(tmp_path, chain(hears)) as (queue, _):
        id_ = await queue.accept(envelope("a@x"), CONTENT)
        await trio.sleep(1)
        await settle_next(queue, Result.DEFERRED)
        await trio.sleep(1)
        known = timeline(tmp_path, id_)
        assert {each.who for each in known.notes} == {"plugin:hears"}
        assert [(each.action.split()[0], each.reason) for each in known.notes] == [
            ("hold", "let me see"),
            ("reprioritise", "it is urgent"),
            ("release", "fine"),
            ("reschedule", "not so soon"),
        ]
        assert known.message.priority is Priority.HIGH
        assert known.message.recipients[0].due == pytest.approx(now() + 7200, abs=5)


async def test_a_plugin_gives_mail_up_and_its_sender_is_told(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async def does(event: QueueEvent, queue: Steers) -> None:
        if isinstance(event, Deferred):
            await queue.bounce(event.id, "no patience")

    async with virtual_queue(tmp_path) as queue, trio.open_nursery() as nursery:
        postmaster = Postmaster()
        watching = Watching(queue, postmaster)
        watching.use(chain(Hears(does)))
        nursery.start_soon(watching.run)
        await trio.testing.wait_all_tasks_blocked()
        id_ = await queue.accept(envelope("a@x"), CONTENT)
        await settle_next(queue, Result.DEFERRED)
        await trio.sleep(1)
        assert states(tmp_path, id_) == [State.FAILED]
        assert len(postmaster.asked) == 1
        nursery.cancel_scope.cancel()


async def test_a_plugin_can_leave_alone_what_somebody_else_holds(tmp_path: Path) -> None:
    async with virtual_queue(tmp_path) as queue:
        ours, theirs = [await queue.accept(envelope(to), CONTENT) for to in ("a@x", "b@x")]
        hand = Hand(queue, Postmaster(), "limits")
        await hand.hold(ours, "too much")
        await queue.act(Hold(), Filter(ids=(theirs,)), who="operator:root")
        for each in (ours, theirs):
            await hand.release(each, "there is room", own=True)
        assert states(tmp_path, ours) == [State.READY]
        assert states(tmp_path, theirs) == [State.HELD]
        await hand.release(theirs)
        assert states(tmp_path, theirs) == [State.READY]


async def test_what_is_not_there_any_more_is_passed_over(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async def does(event: QueueEvent, queue: Steers) -> None:
        if isinstance(event, Finished):
            await queue.hold(event.id, "too late")

    loaded = Loaded(Hears(does))
    async with watched(tmp_path, Chain([loaded])) as (queue, _):
        await queue.accept(envelope("a@x"), CONTENT)
        await settle_next(queue, Result.DELIVERED)
        await trio.sleep(1)
        assert loaded.counts.failed == 0
