"""A message's whole life at a destination that does not want it, on virtual time."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final

import pytest
import trio
from typing_extensions import override

from elemta.queue import RetryPolicy, State
from tests.delivery.world import EPOCH, on_virtual_time, world

if TYPE_CHECKING:
    from pathlib import Path

    from elemta.queue import Attempt
    from tests.delivery.world import Host, Taken, World

pytestmark = pytest.mark.trio(run=on_virtual_time)

MINUTE: Final = 60.0
HOUR: Final = 3600.0
DAY: Final = 86400.0
#: As it comes, jitter included.
POLICY: Final = RetryPolicy()
ONE, HOME = "198.51.100.1", "198.51.100.9"


def furnish(here: World) -> Host:
    """A destination, and the home of the sender, which is given."""
    here.domain("b.example", ("mx.b.example", ONE))
    here.domain("sender.example", ("mx.sender.example", HOME))
    return here.net.host(HOME)


def actions(reports: list[Taken]) -> list[str]:
    """What the reports say was done, one each."""
    found = []
    for report in reports:
        assert report.sender == ""
        assert report.recipients == ("ann@sender.example",)
        lines = report.content.decode().splitlines()
        found += [line.partition(": ")[2] for line in lines if line.startswith("Action: ")]
    return found


def check_schedule(attempts: tuple[Attempt, ...]) -> None:
    """Whether each wait was as long as it should be, give or take the jitter."""
    for number, (before, after) in enumerate(pairwise(attempts)):
        wait = POLICY.schedule[min(number, len(POLICY.schedule) - 1)]
        most = wait * POLICY.jitter + 2
        assert after.started - before.ended == pytest.approx(wait, abs=most), f"wait {number}"


async def test_a_refused_message_is_tried_on_time_warned_of_once_and_bounced(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, policy=POLICY) as here:
        home = furnish(here)
        here.net.host(ONE, RCPT="450 4.2.0 not yet")
        id_ = await here.send("bob@b.example")

        await trio.sleep(3.9 * HOUR)
        assert home.taken == []
        await trio.sleep(4.5 * DAY)
        assert here.states(id_) == [State.DEFERRED]
        assert actions(home.taken) == ["delayed"]
        await trio.sleep(1 * DAY)
        assert here.states(id_) == [State.EXPIRED]
        assert actions(home.taken) == ["delayed", "failed"]
        warning, failure = (taken.content for taken in home.taken)
        assert b"450 4.2.0 not yet" in warning
        assert b"450 4.2.0 not yet" in failure

        attempts = here.timeline(id_).attempts
        check_schedule(attempts)
        assert 30 <= len(attempts) <= 38
        assert attempts[-1].expired
        assert attempts[-1].ended - EPOCH <= 5 * DAY
        old = [attempt for attempt in attempts if attempt.ended >= EPOCH + 4 * HOUR]
        assert [attempt for attempt in attempts if attempt.warned] == old[:1]
        assert here.messages() == []


async def test_a_dead_host_is_warned_of_once_a_message_and_each_bounces(tmp_path: Path) -> None:
    # Two days, as a parked lane looks at the clock every ten seconds of them.
    async with world(tmp_path, policy=RetryPolicy(lifetime=2 * DAY)) as here:
        home = furnish(here)
        ids = [await here.send(f"user{number}@b.example") for number in range(40)]

        await trio.sleep(1.7 * DAY)
        assert actions(home.taken) == ["delayed"] * 40
        await trio.sleep(0.5 * DAY)
        assert [here.states(id_) for id_ in ids] == [[State.EXPIRED]] * 40
        assert sorted(actions(home.taken)) == ["delayed"] * 40 + ["failed"] * 40
        assert here.messages() == []
        # Each on its own would be tried 17 times.
        assert here.net.dialled.count(ONE) < 40 * 17 / 4


async def test_a_message_of_the_null_sender_is_given_up_sooner_and_nobody_is_told(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, policy=POLICY) as here:
        home = furnish(here)
        here.net.host(ONE, RCPT="450 4.2.0 not yet")
        id_ = await here.send("bob@b.example", sender=None)

        await trio.sleep(0.75 * DAY)
        assert here.states(id_) == [State.DEFERRED]
        await trio.sleep(0.3 * DAY)
        assert here.states(id_) == [State.EXPIRED]
        assert home.taken == []
        assert here.messages() == []


class Greylist(dict[str, "str | None"]):
    """What a host says that wants to see whoever it does not know a second time."""

    def __init__(self, says: dict[str, str | None], patience: float) -> None:
        super().__init__(says)
        self._patience = patience
        self._since: float | None = None

    @override
    def __getitem__(self, step: str) -> str | None:
        if step == "RCPT":
            if self._since is None:
                self._since = trio.current_time()
            if trio.current_time() < self._since + self._patience:
                return "451 4.7.1 greylisted, come again"
        return super().__getitem__(step)


@pytest.mark.parametrize("patience", [MINUTE, 4 * MINUTE, 10 * MINUTE])
async def test_greylisting_costs_minutes_and_nobody_is_told(
    patience: float, tmp_path: Path
) -> None:
    async with world(tmp_path, policy=POLICY) as here:
        home = furnish(here)
        host = here.net.host(ONE)
        host.says = Greylist(host.says, patience)
        id_ = await here.send("bob@b.example")

        await trio.sleep(20 * MINUTE)
        assert here.states(id_) == [State.DELIVERED]
        assert len(host.taken) == 1
        attempts = here.timeline(id_).attempts
        assert len(attempts) == (2 if patience < 5 * MINUTE else 3)
        check_schedule(attempts)
        assert home.taken == []
