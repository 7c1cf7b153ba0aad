"""Days of delivery in a second: the real queue and delivery, virtual time, made-up hosts."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import pytest
import trio
from typing_extensions import override

from elemta.queue import RetryPolicy, State
from tests.delivery.world import on_virtual_time, world

if TYPE_CHECKING:
    from pathlib import Path

    from tests.delivery.world import World

pytestmark = pytest.mark.trio(run=on_virtual_time)

MINUTE: Final = 60.0
HOUR: Final = 3600.0
DAY: Final = 86400.0
A_DAY: Final = RetryPolicy(lifetime=DAY, delay_warning=0)
ONE, HOME = "198.51.100.1", "198.51.100.9"


def furnish(here: World) -> None:
    here.domain("b.example", ("mx.b.example", ONE))
    here.domain("sender.example", ("mx.sender.example", HOME))
    here.net.host(HOME)


async def test_five_days_of_4xx_end_in_a_bounce(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        furnish(here)
        here.net.host(ONE, RCPT="450 4.2.0 not yet")
        id_ = await here.send("bob@b.example")
        await trio.sleep(4.5 * DAY)
        assert here.states(id_) == [State.DEFERRED]
        await trio.sleep(1 * DAY)
        assert here.states(id_) == [State.EXPIRED]
        attempts = here.timeline(id_).attempts
        waits = [b.started - a.started for a, b in pairwise(attempts)]
        schedule = [5 * MINUTE, 10 * MINUTE, 20 * MINUTE, 40 * MINUTE, HOUR, 2 * HOUR]
        assert waits[:6] == pytest.approx(schedule, abs=2)
        assert waits[6:] == pytest.approx([4 * HOUR] * len(waits[6:]), abs=2)
        assert 30 <= len(attempts) <= 36
        assert attempts[-1].expired
        assert attempts[-1].ended - attempts[0].started <= 5 * DAY
        report = here.net.hosts[HOME].taken[-1]
        assert report.sender == ""
        assert b"450 4.2.0 not yet" in report.content
        assert b"We have tried for as long as we may" in report.content
        assert here.messages() == []


async def test_jitter_spreads_what_failed_together(tmp_path: Path) -> None:
    async with world(tmp_path, policy=RetryPolicy()) as here:
        furnish(here)
        for n in range(20):
            here.domain(f"d{n}.example", (f"mx{n}.example", f"198.51.100.{100 + n}"))
            here.net.host(f"198.51.100.{100 + n}", RCPT="450 4.2.0 not yet")
        ids = [await here.send(f"bob@d{n}.example") for n in range(20)]
        await trio.sleep(HOUR)
        second = [here.timeline(id_).attempts[1].started for id_ in ids]
        assert 10 < max(second) - min(second) < 70


async def test_a_dead_destination_is_not_hammered_and_its_mail_bounces(tmp_path: Path) -> None:
    async with world(tmp_path, policy=A_DAY) as here:
        furnish(here)
        ids = [await here.send(f"user{n}@b.example") for n in range(30)]
        await trio.sleep(1.2 * DAY)
        assert [here.states(id_) for id_ in ids] == [[State.EXPIRED]] * 30
        assert len(here.net.hosts[HOME].taken) == 30
        # Each on its own would be tried 12 times.
        assert here.net.dialled.count(ONE) < 30 * 12 / 2
        assert here.messages() == []


async def test_a_destination_that_comes_back_gets_its_mail_soon(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        furnish(here)
        ids = [await here.send(f"user{n}@b.example") for n in range(30)]
        await trio.sleep(8 * HOUR)
        host = here.net.host(ONE)
        await trio.sleep(5 * HOUR)
        assert [here.states(id_) for id_ in ids] == [[State.DELIVERED]] * 30
        assert len(host.taken) == 30


async def test_an_answer_that_is_always_lost_makes_no_more_than_a_duplicate_an_attempt(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as here:
        furnish(here)
        host = here.net.host(ONE, **{".": None})
        host.takes_silently = True
        id_ = await here.send("bob@b.example")
        await trio.sleep(HOUR)
        attempts = here.timeline(id_).attempts
        assert len(host.taken) == len(attempts) == 4
        host.says["."] = "250 at last"
        await trio.sleep(2 * HOUR)
        assert here.states(id_) == [State.DELIVERED]


class Moods(dict[str, "str | None"]):
    """What a host says that has good days and bad days."""

    def __init__(self, says: dict[str, str | None], chance: random.Random) -> None:
        super().__init__(says)
        self._chance = chance
        self.trouble = 0.15

    @override
    def __getitem__(self, step: str) -> str | None:
        said = super().__getitem__(step)
        if self._chance.random() >= self.trouble:
            return said
        if step in ("RCPT", "MAIL", ".", "DATA") and self._chance.random() < 0.02:
            return "550 5.7.1 never"
        return self._chance.choice([None, "", "421 4.3.2 busy", "451 4.3.0 later"])


@pytest.mark.parametrize("seed", range(5))
async def test_whatever_happens_each_recipient_gets_it_once_or_the_sender_is_told(
    seed: int, tmp_path: Path
) -> None:
    chance = random.Random(seed)
    async with world(tmp_path, policy=A_DAY) as here:
        furnish(here)
        for n in range(6):
            first, second = f"198.51.100.{10 + 2 * n}", f"198.51.100.{11 + 2 * n}"
            here.domain(f"d{n}.example", (f"mx{n}a.example", first), (f"mx{n}b.example", second))
            for address in (first, second):
                host = here.net.host(address)
                host.says = Moods(host.says, chance)
                host.idle = chance.uniform(5, 400)
                host.recipients = chance.choice([2, 1000])
                if chance.random() < 0.3:
                    host.down = OSError("down")
        ids: list[str] = []
        for number in range(25):
            names = {f"u{chance.randrange(9)}@d{chance.randrange(6)}.example" for _ in range(4)}
            ids.append(await here.send(*sorted(names), body=b"Subject: %d\r\n\r\nx\r\n" % number))
            await trio.sleep(chance.uniform(0, 600))
        await trio.sleep(1.2 * DAY)

        assert here.messages() == [], f"seed {seed}"
        got = Counter(
            (taken.content.split()[1], name)
            for address, host in here.net.hosts.items()
            if address != HOME
            for taken in host.taken
            for name in taken.recipients
        )
        told = b"".join(taken.content for taken in here.net.hosts[HOME].taken)
        for number, id_ in enumerate(ids):
            for recipient in here.timeline(id_).message.recipients:
                name = str(recipient.address)
                copies = got[b"%d" % number, name]
                if recipient.state is State.DELIVERED:
                    assert copies == 1, f"seed {seed}: {name} of {id_}"
                else:
                    assert recipient.state in (State.FAILED, State.EXPIRED), f"seed {seed}"
                    assert copies == 0, f"seed {seed}: {name} of {id_}"
                    assert f"is known here as {id_}".encode() in told, f"seed {seed}: {id_}"


async def test_mail_survives_stops_at_any_time(tmp_path: Path) -> None:
    ids: list[str] = []
    taken: list[str] = []
    for life in range(6):
        async with world(tmp_path) as here:
            furnish(here)
            host = here.net.host(ONE)
            if life < 5:
                host.says["DATA" if life % 2 else "."] = ""  # hangs: we stop in the middle of it
                ids += [await here.send(f"user{n}@b.example") for n in range(5)]
                await trio.sleep(100)
            else:
                await trio.sleep(DAY)
                assert [here.states(id_) for id_ in ids] == [[State.DELIVERED]] * 25
                assert here.messages() == []
            taken += [name for one in host.taken for name in one.recipients]
    assert len(taken) == 25
