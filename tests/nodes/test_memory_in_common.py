"""What plugins and logins remember, all nodes of a server know: a client may meet any of them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elemta.config import Logins
from elemta.login import Guesses
from elemta.plugins import Chain, Continue, Loaded, Quarantine, Verdict
from elemta.plugins.built_in.brake import Usual, sent, sent_by_both
from elemta.plugins.built_in.bucket import Bucket
from elemta.plugins.built_in.greylisting import Greylisting, Settings
from elemta.plugins.built_in.harvest_guard import HarvestGuard
from elemta.plugins.built_in.rate_limit import RateLimit
from elemta.plugins.built_in.sending_limits import SendingLimits
from elemta.plugins.built_in.window import Taken, Window, taken_by_both
from elemta.testing import FakeClock, FakeContent, a_session, a_transaction, mailbox
from elemta.testing.stand_ins import EPOCH, at_once
from tests.nodes.several import Node, Server, a_server, settled

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from trio.testing import MockClock

    from elemta.plugins.remembering import Remembering

BOB = mailbox("bob@us.example")
SMALL = FakeContent(b"Subject: x\r\n\r\ny\r\n")
HOME, STRANGER = "192.0.2.1", "198.51.100.9"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@asynccontextmanager
async def living(server: Server, *plugins: Remembering) -> AsyncGenerator[None]:
    """Each plugin at a node of its own."""
    for number, plugin in enumerate(plugins, 1):
        plugin.tools = Node(server, number).tools(plugin.name)
        await plugin.start()
    yield
    for plugin in plugins:
        await plugin.stop()


async def come(plugin: Greylisting) -> Verdict:
    return await plugin.on_greylist(a_transaction(a_session(HOME), recipients=()), BOB)


async def test_who_was_greylisted_by_one_node_may_come_back_to_another(
    tmp_path: Path, clock: FakeClock, autojump_clock: MockClock
) -> None:
    one, two, three = (Greylisting(Settings(passes=2)) for _ in range(3))
    async with a_server(tmp_path, clock) as server, living(server, one, two, three):
        assert (await come(one)).reply is not None
        await settled()
        clock.advance(300)
        assert await come(two) == Continue(note="came back")
        await settled()
        assert (await come(three)).reply is None
        assert len(three._triplets.passed.rows) == 1
        assert not three._triplets.attempts.rows


async def send(plugin: SendingLimits, number: int) -> Verdict:
    session = a_session(HOME, trusted=True)
    session.login = "alice@example.org"
    one = a_transaction(session, sender="alice@example.org", recipients=["bob@far.example"])
    one.id = f"MESSAGE{number}"
    return await Chain([Loaded(plugin)]).on_message(one, SMALL)


async def test_an_account_has_its_limit_once_however_many_nodes_there_are(
    tmp_path: Path, clock: FakeClock, autojump_clock: MockClock
) -> None:
    wanted = {"account": {"messages": ["10/1 h"]}, "brake": None}
    plugins = [SendingLimits.configured(wanted, "settings") for _ in range(3)]
    async with a_server(tmp_path, clock) as server, living(server, *plugins):
        passed = 0
        for number in range(30):
            passed += (await send(plugins[number % 3], number)).reply is None
            await settled()
        assert passed == 30, "what is held is taken"
        assert sum(each.tools.meters.sending["passed"] for each in plugins) == 10
        assert sum(each.tools.meters.sending["held"] for each in plugins) == 20


async def test_what_passes_at_once_at_several_nodes_counts_for_the_next(
    tmp_path: Path, clock: FakeClock, autojump_clock: MockClock
) -> None:
    wanted = {"account": {"messages": ["4/1 h"]}, "brake": None}
    plugins = [SendingLimits.configured(wanted, "settings") for _ in range(2)]
    async with a_server(tmp_path, clock) as server, living(server, *plugins):
        for number in range(6):
            await send(plugins[number % 2], number)
        assert sum(each.tools.meters.sending["passed"] for each in plugins) == 6
        await settled()
        for plugin in plugins:
            assert "7 of 4 messages" in (await held_by(plugin)).reason


async def held_by(plugin: SendingLimits) -> Quarantine:
    session = a_session(HOME, trusted=True)
    session.login = "alice@example.org"
    one = a_transaction(session, sender="alice@example.org", recipients=["bob@far.example"])
    found = await plugin.on_message(one, SMALL)
    assert isinstance(found, Quarantine)
    return found


async def test_an_account_that_one_node_stops_is_stopped_and_told_of_once(
    tmp_path: Path, clock: FakeClock, autojump_clock: MockClock
) -> None:
    wanted = {"brake": {"new_account": 5}}
    one, two = (SendingLimits.configured(wanted, "settings") for _ in range(2))
    async with a_server(tmp_path, clock) as server, living(server, one, two):
        for number in range(6):
            await send(one, number)
        await settled()
        await send(two, 7)
        assert two.tools.meters.sending["braked"] == 1
        assert (len(one._untold), len(two._untold)) == (1, 0)
        one._let_go("alice@example.org", clock.now)
        await settled()
        await send(two, 8)
        assert two.tools.meters.sending["passed"] == 1


async def test_a_rate_is_one_for_all_nodes(
    tmp_path: Path, clock: FakeClock, autojump_clock: MockClock
) -> None:
    wanted = {"rules": [{"of": "connections", "limit": "5/1 h"}]}
    plugins = [RateLimit.configured(wanted, "settings") for _ in range(2)]
    async with a_server(tmp_path, clock) as server, living(server, *plugins):
        verdicts: list[bool] = []
        for number in range(8):
            verdicts.append((await plugins[number % 2].on_connect(a_session())).reply is None)
            await settled()
        assert verdicts == [True] * 5 + [False] * 3


async def test_who_guesses_addresses_at_one_node_is_barred_at_all(
    tmp_path: Path, clock: FakeClock, autojump_clock: MockClock
) -> None:
    wanted = {"unknown": "3/1 h"}
    plugins = [HarvestGuard.configured(wanted, "settings") for _ in range(2)]
    async with a_server(tmp_path, clock) as server, living(server, *plugins):
        for number in range(4):
            await plugins[number % 2].on_unknown(a_transaction(a_session()), BOB)
        await settled()
        for each in plugins:
            assert len(each._guessers.rows) == 1
        await plugins[0].on_unknown(a_transaction(a_session()), BOB)
        await settled()
        assert (await plugins[1].on_connect(a_session())).reply is not None


@asynccontextmanager
async def guessing(server: Server, count: int) -> AsyncGenerator[list[Guesses]]:
    found: list[Guesses] = []
    for number in range(1, count + 1):
        node, guesses = Node(server, number), Guesses(Logins(), server.clock)
        secret = server.folder / "login" / "secret"
        await guesses.open(node.folder / "login", secret, at_once, node.exchange)
        found.append(guesses)
    yield found
    for each in found:
        await each.close()


def why(guesses: Guesses, address: str, user: str = "ann") -> str:
    found = guesses.locked(address, user)
    return "" if found is None else found.why


async def test_a_guess_counts_at_whatever_node_it_is_made(
    tmp_path: Path, clock: FakeClock, autojump_clock: MockClock
) -> None:
    async with a_server(tmp_path, clock) as server, guessing(server, 2) as (one, two):
        for number in range(5):
            (one, two)[number % 2].wrong(STRANGER, "ann", f"guess {number}")
        assert why(one, STRANGER) == why(two, STRANGER) == "", "they have not heard of each other"
        await settled()
        assert why(one, STRANGER) == why(two, STRANGER) == "tries"
        assert one.locked(STRANGER, "ann") == two.locked(STRANGER, "ann")
        for number in range(40):
            (one, two)[number % 2].wrong(STRANGER, f"user {number}", "guess")
        await settled()
        assert why(one, STRANGER, "bob") == why(two, STRANGER, "bob") == "network"
        wanted = 45 - Logins().failures.count + 1
        for each in (one, two):
            found = each.locked(STRANGER, "bob")
            assert found is not None
            seconds = wanted * Logins().failures.seconds / Logins().failures.count
            assert found.until - clock.now == pytest.approx(seconds)


async def test_who_is_at_home_at_one_node_is_at_home_at_all(
    tmp_path: Path, clock: FakeClock, autojump_clock: MockClock
) -> None:
    async with a_server(tmp_path, clock) as server, guessing(server, 2) as (one, two):
        one.wrong(HOME, "ann", "old")
        two.wrong(HOME, "ann", "older")
        await settled()
        one.right(HOME, "ann")
        await settled()
        for number in range(100):
            two.wrong(f"198.51.100.{number}", "ann", f"{number}")
        assert why(two, HOME) == ""
        assert why(two, "203.0.113.1") == "account"


TIMES = st.lists(st.tuples(st.floats(0, 9 * 86400), st.integers(1, 9)), max_size=8)


@given(TIMES, TIMES, TIMES)
def test_what_two_have_taken_at_once_is_what_one_would_have_taken(
    first: list[tuple[float, int]], here: list[tuple[float, int]], there: list[tuple[float, int]]
) -> None:
    window = Window(3600.0)

    def taken(row: Taken | None, takes: list[tuple[float, int]], since: float) -> Taken | None:
        for at, amount in sorted(takes):
            row = window.take(row, amount, since + at / 86400)
        return row

    base = taken(None, first, EPOCH)
    one, two = taken(base, here, EPOCH + 10), taken(base, there, EPOCH + 10)
    if one is None or two is None or not here or not there:
        return
    together = taken(base, [*here, *there], EPOCH + 10)
    now = EPOCH + 20
    assert window.taken(taken_by_both(base, one, two), now) == window.taken(together, now)


def test_what_two_nodes_sent_on_a_day_is_added_up() -> None:
    def after(row: Usual | None, number: int, day: int) -> Usual:
        return sent(row, number, 14, EPOCH + day * 86400)

    base = after(after(None, 5, 0), 3, 2)
    one, two = after(base, 10, 2), after(after(base, 100, 2), 7, 3)
    together = after(after(after(base, 10, 2), 100, 2), 7, 3)
    assert sent_by_both(base, one, two) == sent_by_both(base, two, one) == together
    fresh = sent_by_both(None, after(None, 1, 0), after(None, 2, 0))
    assert fresh == after(after(None, 1, 0), 2, 0)


@given(st.floats(0, 100), st.floats(0.1, 4), st.floats(0.1, 4))
def test_of_a_bucket_both_have_taken(behind: float, here: float, there: float) -> None:
    bucket, now = Bucket(10, 100.0), 1000.0
    before = now + behind
    both = bucket.joined(
        before, bucket.take(here, before, now), bucket.take(there, before, now), now
    )
    assert both == pytest.approx(bucket.take(here + there, before, now))
