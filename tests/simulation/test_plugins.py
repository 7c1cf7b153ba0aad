"""A day of mail with plugins that do anything: nothing gets lost, and nothing comes twice."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING, Final

import pytest
import trio
from typing_extensions import override

from elemta.config import load
from elemta.plugins import (
    CONTINUE,
    Accept,
    Attempted,
    Chain,
    Choosing,
    Defer,
    Discard,
    Letter,
    Loaded,
    Plugin,
    Quarantine,
    Reject,
    Verdict,
    Watching,
)
from elemta.queue import Deferred, Filter, Release, Result, RetryPolicy, State
from tests.delivery.world import CONFIG, on_virtual_time, world

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from elemta.plugins import Steers
    from elemta.queue import Destined, QueueEvent

pytestmark = pytest.mark.trio(run=on_virtual_time)

A_DAY: Final = RetryPolicy(schedule=(300.0, 1800.0), lifetime=86400, delay_warning=0)
ONE, TWO = "198.51.100.1", "198.51.100.2"
STORED: Final = CONFIG.replace(
    'mailboxes: ["*"]}', 'mailboxes: ["*"], deliver: "plugin:moody"}\nplugins: [{name: moody}]'
)


class Moody(Plugin):
    """Does in each hook whatever chance wants, failures included."""

    name = "moody"

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.begun = Counter[str]()
        self.ended = Counter[str]()
        self.kept = Counter[str]()
        self.refused: set[str] = set()
        self.discarded: set[str] = set()

    def _may_fail(self) -> None:
        if self._chance.random() < 0.1:
            raise self._chance.choice([ValueError("a bug"), SystemExit(3), OSError("no disk")])

    async def _may_hang(self) -> None:
        if self._chance.random() < 0.05:
            await trio.sleep(10_000)
        await trio.sleep(self._chance.random() * 5)

    @override
    def on_route(self, recipient: Destined) -> Sequence[str] | None:
        self._may_fail()
        if recipient.address.domain == "us.example":
            return None
        return self._chance.choice([None, [f"smtp://{ONE}:25"], [f"smtp://{TWO}:25"], []])

    @override
    async def on_attempt(self, letter: Letter) -> Verdict:
        who = str(letter.recipient.address)
        self.begun[who] += 1
        await self._may_hang()
        self._may_fail()
        found: Verdict = self._chance.choices(
            [CONTINUE, Defer((7, 1), "no"), Reject((7, 1), "no"), Discard("x"), Quarantine("x")],
            [20, 5, 1, 1, 3],
        )[0]
        if isinstance(found, Reject):
            self.refused.add(who)
        if isinstance(found, Discard):
            self.discarded.add(who)
        return found

    @override
    async def on_attempted(self, letter: Letter, attempted: Attempted) -> None:
        self.ended[str(letter.recipient.address)] += attempted.result is Result.DELIVERED
        await self._may_hang()
        self._may_fail()

    @override
    async def on_store(self, letter: Letter) -> Verdict:
        await self._may_hang()
        self._may_fail()
        if self._chance.random() < 0.3:
            return self._chance.choice([Defer((2, 2), "full"), CONTINUE, Discard("x")])
        self.kept[str(letter.recipient.address)] += 1
        return Accept()

    @override
    async def on_event(self, event: QueueEvent, queue: Steers) -> None:
        self._may_fail()
        if isinstance(event, Deferred) and self._chance.random() < 0.2:
            await queue.hold(event.id, "chance")


@pytest.mark.parametrize("seed", range(2))
async def test_whatever_plugins_do_no_recipient_gets_lost_or_gets_it_twice(
    seed: int, tmp_path: Path
) -> None:
    chance = random.Random(seed)
    plugin = Moody(chance)
    chain = Chain([Loaded(plugin, timeout=20)])
    choosing = Choosing()
    choosing.chain = chain
    config = load(STORED)
    async with (
        world(
            tmp_path, config=config, plugins=lambda: chain, choose=choosing, policy=A_DAY
        ) as here,
        trio.open_nursery() as nursery,
    ):
        watching = Watching(here.queue, here.delivery.reporter.failure)
        watching.use(chain)
        nursery.start_soon(watching.run)
        here.domain("b.example", ("mx.b.example", ONE))
        hosts = [here.net.host(ONE, RCPT="250 ok"), here.net.host(TWO)]
        sent: dict[str, list[str]] = {}
        for number in range(15):
            who = [f"{number}.{n}@{'us' if n % 2 else 'b'}.example" for n in range(3)]
            sent[await here.send(*who, sender=None)] = who
            await trio.sleep(chance.random() * 60)
        for _ in range(24):
            await trio.sleep(1800)
            await here.queue.act(Release(), Filter(), who="operator:root")
            if chance.random() < 0.3:
                here.queue.retune()
        await here.queue.act(Release(), Filter(), who="operator:root")
        await trio.sleep(86400)
        taken = Counter(each for host in hosts for one in host.taken for each in one.recipients)
        taken.update(plugin.kept)
        for id_, who in sent.items():
            for each, state in zip(who, here.states(id_), strict=True):
                match state:
                    case State.DELIVERED:
                        assert taken[each] == (each not in plugin.discarded), each
                    case State.FAILED:
                        assert each in plugin.refused
                        assert taken[each] == 0
                    case _:
                        assert state in (State.EXPIRED, State.HELD)
                        assert taken[each] == 0
                assert plugin.ended[each] <= 1
        well = sum(each.count(State.DELIVERED) for each in map(here.states, sent))
        assert well > 20, "most of 45 get through in the end"
        assert chain.users.count == 0
        nursery.cancel_scope.cancel()
