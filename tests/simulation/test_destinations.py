"""Two destinations with thousands of messages each: one well, the other dead, slow or choosy.

With ten thousand each, and workers that only pretend to deliver: `tests/queue/test_fairness.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
import trio

from elemta.config import load
from elemta.queue import AttemptStarted, Parked, Queue, QueueEvent, RetryPolicy, Unparked
from tests.delivery.world import CONFIG, EPOCH, on_virtual_time, wall_clock, world
from tests.queue.mail import fill, quick

if TYPE_CHECKING:
    from pathlib import Path

    from tests.delivery.world import World

pytestmark = pytest.mark.trio(run=on_virtual_time)

MANY: Final = 1500
MINUTE: Final = 60.0
HOUR: Final = 3600.0
FINE, OTHER = "198.51.100.1", "198.51.100.2"
#: Nobody is warned: it would be thousands of messages more.
POLICY: Final = RetryPolicy(jitter=0.0, delay_warning=0.0)


def furnish(here: World) -> None:
    here.domain("fine.example", ("mx.fine.example", FINE))
    here.domain("other.example", ("mx.other.example", OTHER))
    here.net.host(FINE).delay = 0.01


def queue_up(path: Path) -> None:
    """The mail of the other destination stands before that of the fine one."""
    fill(path / "queue", *((f"u{n}@other.example",) for n in range(MANY)), at=EPOCH)
    fill(path / "queue", *((f"u{n}@fine.example",) for n in range(MANY)), at=EPOCH)


class Witness:
    """Keeps what happens to destinations."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self.parked: list[Parked] = []
        self.unparked: list[tuple[float, str]] = []
        self.tried: dict[str, list[float]] = {}

    async def run(self) -> None:
        with self._queue.events.subscribe(100_000) as events:
            async for event in events:
                assert isinstance(event, QueueEvent)
                match event:
                    case Parked():
                        self.parked.append(event)
                    case Unparked():
                        self.unparked.append((event.at - EPOCH, event.lane))
                    case AttemptStarted():
                        self.tried.setdefault(event.lane, []).append(event.at - EPOCH)
                    case _:
                        pass


async def test_a_dead_destination_is_parked_for_all_its_mail_and_released_when_it_is_back(
    tmp_path: Path,
) -> None:
    queue_up(tmp_path)
    async with world(tmp_path, policy=POLICY, disk=quick) as here, trio.open_nursery() as nursery:
        furnish(here)
        witness = Witness(here.queue)
        nursery.start_soon(witness.run)
        # The fine one gets all its mail as if there were no other.
        await trio.sleep(3 * MINUTE)
        assert len(here.net.hosts[FINE].taken) == MANY
        # The dead one was dialled by those who were there at first; then by one at a time.
        assert here.net.dialled.count(OTHER) <= 2 + 3
        assert {each.lane for each in witness.parked} == {"mx:other.example"}
        waits = [each.until - each.at for each in witness.parked]
        assert waits[:3] == [30.0, 60.0, 120.0]
        assert "refused" in witness.parked[-1].reason
        dead = {each.name: each for each in here.queue.destinations()}["mx:other.example"]
        assert dead.parked_until is not None
        assert dead.on_disk > MANY - 100
        assert here.queue.waiting < 100
        await trio.sleep(6 * HOUR - 3 * MINUTE)
        assert here.net.dialled.count(OTHER) < 20
        # It comes back: whoever tries next releases it for all.
        host = here.net.host(OTHER)
        host.delay = 0.01
        back = wall_clock() - EPOCH
        await trio.sleep(HOUR)
        assert len(host.taken) == MANY
        [(at, lane)] = witness.unparked
        assert lane == "mx:other.example"
        assert at - back <= 0.5 * HOUR + 1
        assert here.messages() == []
        nursery.cancel_scope.cancel()


async def test_a_slow_destination_takes_nobody_elses_place(tmp_path: Path) -> None:
    queue_up(tmp_path)
    async with world(tmp_path, policy=POLICY, disk=quick) as here:
        furnish(here)
        slow = here.net.host(OTHER)
        slow.delay = 20.0
        await trio.sleep(3 * MINUTE)
        assert len(here.net.hosts[FINE].taken) == MANY
        await trio.sleep(HOUR)
        # Twenty connections at most, each with a message in some 80 s.
        assert 300 <= len(slow.taken) <= 20 * HOUR / 60
        assert slow.dialled <= 20 * 2


async def test_a_destination_that_takes_so_many_an_hour_gets_so_many_and_no_more(
    tmp_path: Path,
) -> None:
    queue_up(tmp_path)
    config = load(
        CONFIG + "destinations:\n"
        "  - {match: other.example, connections: 3, messages: 300/h, connections_rate: 10/h}\n"
    )
    async with (
        world(tmp_path, config=config, policy=POLICY, disk=quick) as here,
        trio.open_nursery() as nursery,
    ):
        furnish(here)
        choosy = here.net.host(OTHER)
        witness = Witness(here.queue)
        nursery.start_soon(witness.run)
        await trio.sleep(3 * MINUTE)
        assert len(here.net.hosts[FINE].taken) == MANY
        for hour in range(1, 4):
            await trio.sleep(HOUR)
            assert 300 * hour <= len(choosy.taken) <= 300 * (hour + 1)
            assert choosy.dialled <= 10 * (hour + 1)
        tried = witness.tried["mx:other.example"]
        for index in range(len(tried) - 300):
            assert tried[index + 300] - tried[index] >= HOUR - 1e-3
        lane = {each.name: each for each in here.queue.destinations()}["mx:other.example"]
        assert lane.throttled_until is not None
        assert lane.throttled_until - wall_clock() < HOUR
        nursery.cancel_scope.cancel()
