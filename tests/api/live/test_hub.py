from __future__ import annotations

import json
from collections import Counter
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from elemta.api.live.hub import HEARTBEAT, TOGETHER, Hub
from elemta.api.live.reader import BEHIND, EndedError
from elemta.api.live.round import AT_ONCE, LONGEST_TICK, TICK
from elemta.api.live.source import Events
from elemta.control.choice import EventChoice, Everything
from tests.api.live.world import FIRST, LiveControl

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from elemta.api.live.batch import Batch
    from elemta.queue import QueueEvent

ALL = EventChoice()


class Stage:
    """A hub, and the server that it is of."""

    def __init__(self, nursery: trio.Nursery, kept: int = 100) -> None:
        self.control = LiveControl(kept)
        self.stopping = trio.Event()
        self.hub: Hub[QueueEvent] = Hub(Events(self.control), nursery.start_soon, self.stopping)

    @asynccontextmanager
    async def client(
        self, choice: EventChoice = ALL, since: int | None = None
    ) -> AsyncGenerator[Client]:
        """Somebody who has been greeted."""
        async with aclosing(self.hub.tell(choice, since)) as told:
            client = Client(told)
            client.hello = (await client.batch())[0]
            yield client


class Client:
    def __init__(self, told: AsyncGenerator[Batch]) -> None:
        self._told = told
        self.batches: list[Batch] = []
        self.hello: dict[str, Any] = {}

    async def batch(self) -> list[dict[str, Any]]:
        """What it is told next."""
        batch = await anext(self._told)
        self.batches.append(batch)
        found: list[dict[str, Any]] = json.loads(batch.frame)
        return found

    async def numbers(self, count: int) -> list[int]:
        """The numbers of so many events."""
        numbers: list[int] = []
        while len(numbers) < count:
            batch = await self.batch()
            assert batch[0]["type"] not in ("Heartbeat", "Missed")
            numbers += [each["number"] for each in batch]
        return numbers


@pytest.fixture
def stage(nursery: trio.Nursery) -> Stage:
    return Stage(nursery)


async def test_a_client_is_greeted_and_told_what_happens_from_then_on(
    stage: Stage, autojump_clock: MockClock
) -> None:
    stage.control.queued()
    async with stage.client() as client:
        assert client.hello["type"] == "Hello"
        assert client.hello["number"] == FIRST + 1
        assert client.hello["heartbeat"] == HEARTBEAT
        stage.control.queued("a@example.net", "b@example.net")
        stage.control.finished()
        queued, finished = await client.batch()
    assert (queued["type"], queued["number"]) == ("Queued", FIRST + 2)
    assert queued["recipients"] == ["a@example.net", "b@example.net"]
    assert (finished["type"], finished["number"]) == ("Finished", FIRST + 3)


async def test_all_clients_share_one_subscription_and_each_batch(
    stage: Stage, autojump_clock: MockClock
) -> None:
    async with stage.client() as one, stage.client() as two, stage.client() as three:
        stage.control.queued()
        for each in (one, two, three):
            await each.batch()
        assert stage.control.listening == 1
        assert one.batches[-1] is two.batches[-1] is three.batches[-1]
        assert one.batches[-1].frame is two.batches[-1].frame


async def test_nothing_is_listened_to_before_the_first_and_after_the_last_client(
    stage: Stage,
    autojump_clock: MockClock,
) -> None:
    assert stage.hub.idle
    async with stage.client():
        async with stage.client():
            pass
        assert stage.control.listening == 1
        assert not stage.hub.idle
    await wait_all_tasks_blocked()
    assert stage.control.listening == 0
    assert stage.hub.idle
    async with stage.client() as again:
        number = stage.control.finished()
        assert await again.numbers(1) == [number]


async def test_what_happens_between_two_ticks_is_one_batch(
    stage: Stage, autojump_clock: MockClock
) -> None:
    async with stage.client() as client:
        began = trio.current_time()
        for _ in range(50):
            stage.control.finished()
        assert len(await client.batch()) == 50
        assert TICK <= trio.current_time() - began < 2 * TICK


async def test_many_clients_are_told_a_few_at_a_time_and_all_of_them_within_a_second(
    stage: Stage, autojump_clock: MockClock
) -> None:
    told: list[float] = []

    async def wait() -> None:
        async with stage.client() as client:
            for _ in range(2):
                await client.batch()
                told.append(trio.current_time() - began)

    async with trio.open_nursery() as clients:
        for _ in range(1000):
            clients.start_soon(wait)
        await wait_all_tasks_blocked()
        began = trio.current_time()
        stage.control.finished()
        await trio.sleep(LONGEST_TICK / 2)
        stage.control.finished()
    first, second = sorted(told[:1000]), sorted(told[1000:])
    assert max(Counter(told).values()) == AT_ONCE
    assert first[0] == pytest.approx(TICK)
    assert first[-1] == pytest.approx(LONGEST_TICK, abs=0.02)
    assert second[-1] == pytest.approx(2 * LONGEST_TICK, abs=0.04)


async def test_a_heartbeat_gives_way_to_what_a_client_is_about_to_be_told(
    stage: Stage, autojump_clock: MockClock
) -> None:
    heard: list[Any] = []

    async def wait() -> None:
        async with stage.client() as client:
            heard.append(await client.batch())

    async with trio.open_nursery() as clients:
        for _ in range(1000):
            clients.start_soon(wait)
        await wait_all_tasks_blocked()
        await trio.sleep(HEARTBEAT - LONGEST_TICK / 2)
        number = stage.control.finished()
    assert [[each["number"] for each in batch] for batch in heard] == [[number]] * 1000
    assert {batch[0]["type"] for batch in heard} == {"Finished"}


async def test_a_client_gets_what_it_has_chosen_and_a_heartbeat_tells_it_how_far_all_has_come(
    stage: Stage,
    autojump_clock: MockClock,
) -> None:
    async with stage.client(EventChoice(types=frozenset({"Queued"}))) as client:
        number = stage.control.queued()
        last = stage.control.finished()
        assert await client.numbers(1) == [number]
        assert await client.batch() == [{"type": "Heartbeat", "number": last}]


async def test_silence_is_broken_by_heartbeats(stage: Stage, autojump_clock: MockClock) -> None:
    async with stage.client() as client:
        began = trio.current_time()
        assert await client.batch() == [{"type": "Heartbeat", "number": FIRST}]
        assert await client.batch() == [{"type": "Heartbeat", "number": FIRST}]
        assert trio.current_time() - began == pytest.approx(2 * HEARTBEAT)


async def test_a_heartbeat_does_not_run_ahead_of_what_is_yet_to_be_handed_over(
    stage: Stage, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    async with stage.client() as client:
        nursery.start_soon(happen_just_before, stage, HEARTBEAT - TICK / 2)
        assert await client.batch() == [{"type": "Heartbeat", "number": FIRST}]
        assert await client.numbers(1) == [FIRST + 1]


async def happen_just_before(stage: Stage, after: float) -> None:
    await trio.sleep(after)
    stage.control.finished()


async def test_who_resumes_lacks_nothing_and_gets_nothing_twice(
    stage: Stage, autojump_clock: MockClock
) -> None:
    async with stage.client() as other:
        for _ in range(5):
            stage.control.finished()
        await wait_all_tasks_blocked()  # they are gathered, and not yet handed out
        async with stage.client(since=FIRST + 2) as client:
            stage.control.finished()
            assert client.hello["number"] == FIRST + 2
            assert await client.numbers(4) == [FIRST + 3, FIRST + 4, FIRST + 5, FIRST + 6]
            assert await other.numbers(6) == list(range(FIRST + 1, FIRST + 7))
        assert stage.control.listening == 1


async def test_much_that_is_lacked_comes_in_several_batches(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    stage = Stage(nursery, kept=5000)
    for _ in range(2 * TOGETHER + 1):
        stage.control.finished()
    async with stage.client(since=FIRST) as client:
        assert [len(await client.batch()) for _ in range(3)] == [TOGETHER, TOGETHER, 1]
        number = stage.control.finished()
        assert await client.numbers(1) == [number]


async def test_who_resumes_gets_only_what_it_has_chosen(
    stage: Stage, autojump_clock: MockClock
) -> None:
    stage.control.finished()
    stage.control.queued("a@example.com")
    stage.control.queued("a@example.net")
    async with stage.client(EventChoice(domain="example.net"), since=FIRST) as client:
        assert await client.numbers(1) == [FIRST + 3]


async def test_who_knows_it_all_is_not_told_again(stage: Stage, autojump_clock: MockClock) -> None:
    stage.control.finished()
    async with stage.client(since=FIRST + 1) as client:
        number = stage.control.finished()
        assert await client.numbers(1) == [number]
    assert stage.control.asked == [FIRST + 1]


async def test_who_resumes_from_what_is_no_longer_kept_is_told_how_much_is_gone(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    stage = Stage(nursery, kept=2)
    for _ in range(5):
        stage.control.finished()
    async with stage.client(since=FIRST + 1) as client:
        missed, *events = await client.batch()
        assert missed == {"type": "Missed", "count": 2, "last": FIRST + 3}
        assert [each["number"] for each in events] == [FIRST + 4, FIRST + 5]


async def test_who_resumes_from_before_a_restart_is_told_so_even_if_nothing_has_happened(
    stage: Stage,
    autojump_clock: MockClock,
) -> None:
    async with stage.client(since=12) as client:
        (missed,) = await client.batch()
        assert missed == {"type": "Missed", "count": 0, "last": FIRST, "restarted": True}
        number = stage.control.finished()
        assert await client.numbers(1) == [number]


async def test_a_number_that_is_yet_to_come_is_from_another_process(
    stage: Stage, autojump_clock: MockClock
) -> None:
    stage.control.finished()
    async with stage.client(since=FIRST + 99) as client:
        missed, event = await client.batch()
        assert (missed["restarted"], event["number"]) == (True, FIRST + 1)


async def test_who_knows_more_than_the_hub_has_gathered_lacks_nothing(
    stage: Stage, autojump_clock: MockClock
) -> None:
    async with stage.client():
        number = stage.control.finished()  # the hub has not been run since
        async with stage.client(since=number) as client:
            later = stage.control.finished()
            assert await client.numbers(1) == [later]
    assert stage.control.asked == [FIRST]


async def test_a_client_that_does_not_read_is_told_how_many_it_missed_and_slows_nobody(
    stage: Stage,
    autojump_clock: MockClock,
) -> None:
    rounds = 12
    async with stage.client() as slow, stage.client() as quick:
        for _ in range(rounds):
            for _ in range(1000):
                stage.control.finished()
            assert len(await quick.batch()) == 1000
        (missed,) = await slow.batch()
        lost = rounds * 1000 - BEHIND
        assert missed == {"type": "Missed", "count": lost, "last": FIRST + lost}
        assert await slow.numbers(BEHIND) == list(range(FIRST + lost + 1, FIRST + 12_001))


async def test_what_the_hub_has_missed_is_told_to_all(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    stage = Stage(nursery)
    async with stage.client(EventChoice(types=frozenset({"Queued"}))) as client:
        stage.control.bus.miss(7)
        assert await client.batch() == [{"type": "Missed", "count": 7, "last": FIRST}]


async def test_all_end_when_the_server_stops(stage: Stage, autojump_clock: MockClock) -> None:
    async with stage.client() as one:
        stage.stopping.set()
        with pytest.raises(EndedError) as ended:
            await one.batch()
        assert not ended.value.fault
    with pytest.raises(EndedError):
        async with stage.client():
            pass
    assert stage.control.listening == 0


async def test_a_fault_ends_those_who_listen_and_nobody_else(
    stage: Stage, autojump_clock: MockClock
) -> None:
    async with stage.client() as one:
        stage.control.fail()
        with pytest.raises(EndedError) as ended:
            await one.batch()
        assert ended.value.fault
        stage.control.broken = None
        async with stage.client() as two:
            number = stage.control.finished()
            assert await two.numbers(1) == [number]


async def test_what_cannot_be_reached_ends_who_asks(
    stage: Stage, autojump_clock: MockClock
) -> None:
    stage.control.failure = RuntimeError("a fault of ours")
    with pytest.raises(EndedError):
        async with stage.client():
            pass
    assert stage.hub.idle


def test_whoever_wants_everything_wants_the_same() -> None:
    assert len({Everything(), Everything()}) == 1
    assert Everything().passes("anything")
