from __future__ import annotations

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from elemta.ledger import Book, Ledger, Row
from elemta.ledger.exchange import JOINING, Open, frame
from elemta.ledger.ledger import PRUNING
from elemta.testing import some_tools
from tests.nodes import several
from tests.nodes.several import a_server, settled

if TYPE_CHECKING:
    from trio.testing import MockClock

    from tests.nodes.several import Server


class Visit(Row, array_like=True):
    count: int = 1


def added(before: Visit | None, here: Visit, there: Visit) -> Visit:
    gained = here.count - (0 if before is None else before.count)
    return Visit(max(here.until, there.until), there.count + gained)


class Visits(Book[Visit]):
    def __init__(self, most: int = 1000) -> None:
        super().__init__(Visit, most, added)
        self.over = 0

    def expired(self, row: Visit) -> None:
        self.over += 1

    def add(self, key: bytes, until: float) -> None:
        known = self.get(key)
        self.put(key, Visit(until, 1 if known is None else known.count + 1))


class Node(several.Node):
    """A node that counts visits."""

    def __init__(self, server: Server, number: int) -> None:
        super().__init__(server, number)
        self.x = self.tools("x")
        self.ledger = Ledger()
        self.visits: Visits

    async def start(self, most: int = 1000) -> Visits:
        await self.ledger.open(self.x)
        self.visits = await self.ledger.book("visits", Visits(most), common=True)
        return self.visits


async def nodes_of(server: Server, count: int, most: int = 1000) -> list[Node]:
    found = [Node(server, number) for number in range(1, count + 1)]
    for each in found:
        await each.start(most)
    return found


def later(server: Server) -> float:
    return server.clock.now + 1000


async def test_what_one_node_puts_the_others_know(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_server(tmp_path) as server:
        one, two = await nodes_of(server, 2)
        one.visits.put(b"a", Visit(later(server), 7))
        two.visits.put(b"b", Visit(later(server)))
        await settled()
        assert one.visits.rows == two.visits.rows
        assert two.visits.get(b"a") == Visit(later(server), 7)
        two.visits.drop(b"a")
        await settled()
        assert one.visits.rows == two.visits.rows == {b"b": Visit(later(server))}
        assert not one.visits.changed
        assert not two.visits.changed


async def test_what_two_nodes_count_at_once_counts_twice(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_server(tmp_path) as server:
        nodes = await nodes_of(server, 3)
        for _ in range(10):
            for each in nodes:
                each.visits.add(b"a", later(server))
                each.visits.add(b"a", later(server))
            await trio.sleep(0.001)
        await settled()
        assert [each.visits.get(b"a") for each in nodes] == [Visit(later(server), 60)] * 3


async def test_a_node_that_is_cut_off_goes_on_and_is_heard_later(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_server(tmp_path) as server:
        one, two = await nodes_of(server, 2)
        for key in (b"a", b"b", b"c"):
            one.visits.add(key, later(server))
        await settled()
        two.cut_off()
        two.visits.add(b"a", later(server))
        two.visits.drop(b"b")
        two.visits.add(b"d", later(server))
        one.visits.add(b"a", later(server))
        one.visits.drop(b"c")
        one.visits.add(b"d", later(server))
        await settled()
        assert two.visits.get(b"a") == Visit(later(server), 2)
        two.reachable = True
        await settled()
        for each in (one, two):
            assert each.visits.rows == {
                b"a": Visit(later(server), 3),
                b"d": Visit(later(server), 2),
            }


async def test_what_came_though_nobody_could_say_so_is_counted_once(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_server(tmp_path) as server:
        one, two = await nodes_of(server, 2)
        two.deafen()
        two.visits.add(b"a", later(server))
        await settled()
        assert one.visits.get(b"a") == Visit(later(server), 1)
        two.visits.add(b"a", later(server))
        two.cut_off()
        two.reachable = True
        await settled()
        assert one.visits.get(b"a") == two.visits.get(b"a") == Visit(later(server), 2)


async def test_a_node_that_starts_anew_knows_what_the_others_know(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_server(tmp_path) as server:
        one, two = await nodes_of(server, 2, 5000)
        for number in range(3000):
            one.visits.put(b"%d" % number, Visit(later(server), number))
        await settled()
        two.cut_off()
        anew = Node(server, 2)
        await anew.start(5000)
        assert anew.visits.rows == one.visits.rows
        assert len(anew.visits.rows) == 3000


async def test_what_is_known_outlives_the_server_whatever_the_number_of_nodes(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_server(tmp_path) as server:
        one, two = await nodes_of(server, 2)
        one.visits.add(b"a", later(server))
        two.visits.add(b"b", later(server))
        for each in (two, one):
            await each.ledger.close()
    alone = Ledger()
    tools = some_tools(folder=tmp_path / "plugins" / "x", clock=server.clock)
    await alone.open(tools)
    visits = await alone.book("visits", Visits(), common=True)
    assert visits.rows.keys() == {b"a", b"b"}
    visits.add(b"a", later(server))
    await alone.close()
    async with a_server(tmp_path) as server:
        for each in await nodes_of(server, 2):
            assert each.visits.get(b"a") == Visit(later(server), 2)


async def test_mail_waits_for_no_first_process_that_does_not_answer(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_server(tmp_path) as server:
        (one,) = await nodes_of(server, 1)
        one.visits.add(b"a", later(server))
        await settled()
        two = Node(server, 2)
        two.reachable = False
        before = trio.current_time()
        visits = await two.start()
        for name in ("more", "yet more"):
            await two.ledger.book(name, Visits(), common=True)
        assert trio.current_time() - before == pytest.approx(JOINING)
        visits.add(b"a", later(server))
        assert visits.get(b"a") == Visit(later(server))
        two.reachable = True
        await settled()
        assert one.visits.get(b"a") == visits.get(b"a") == Visit(later(server), 2)
        before = trio.current_time()
        again = await two.ledger.book("again", Visits(), common=True)
        assert trio.current_time() - before < 1
        again.add(b"a", later(server))
        await settled()
        assert not again.changed


async def test_a_node_that_hangs_fills_nobodys_memory(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("elemta.ledger.keeper.PATIENCE", 100)
    async with a_server(tmp_path) as server:
        one, two = await nodes_of(server, 2, 1000)
        ours, theirs = trio.testing.lockstep_stream_pair()
        over = trio.Event()

        async def serve() -> None:
            await server.keeper.serve(theirs)
            over.set()

        server.nursery.start_soon(serve)
        await ours.send_all(frame(Open(1, "plugins/x", "visits", 1000)))
        for number in range(5000):
            if number == 1000:
                assert not over.is_set()
            one.visits.put(b"%d" % number, Visit(later(server) + number))
            if not number % 100:
                await trio.sleep(0.05)
        with trio.fail_after(60):
            await over.wait()
        await settled()
        assert one.visits.rows == two.visits.rows


async def test_what_has_expired_is_counted_once(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with a_server(tmp_path) as server:
        one, two = await nodes_of(server, 2)
        two.visits.add(b"a", server.clock.now + 30)
        two.visits.add(b"b", later(server))
        await settled()
        server.clock.advance(PRUNING)
        await trio.sleep(2 * PRUNING)
        assert one.visits.rows.keys() == two.visits.rows.keys() == {b"b"}
        assert (one.visits.over, two.visits.over) == (1, 0)


async def test_of_too_many_rows_all_nodes_drop_the_same(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_server(tmp_path) as server:
        one, two = await nodes_of(server, 2, 1000)
        for number in range(5000):
            node = one if number % 2 else two
            node.visits.put(b"%d" % number, Visit(server.clock.now + 100 + number))
            if not number % 100:
                await trio.sleep(0.01)
        await settled()
        assert one.visits.rows == two.visits.rows
        assert 500 < len(one.visits.rows) <= 1000
        assert min(int(key) for key in one.visits.rows) > 3000


@pytest.mark.parametrize(("before", "now"), [(100, 1000), (1000, 100)])
async def test_a_reload_gives_a_book_another_bound_everywhere(
    tmp_path: Path, before: int, now: int, autojump_clock: MockClock
) -> None:
    async with a_server(tmp_path) as server:
        one, two = nodes = await nodes_of(server, 2, before)
        for each in nodes:
            await each.start(now)
        for number in range(500):
            one.visits.put(b"%d" % number, Visit(later(server) + number))
        await settled()
        assert one.visits.rows == two.visits.rows
        assert 50 < len(one.visits.rows) <= 100 if now == 100 else len(one.visits.rows) == 500


async def test_a_book_that_is_closed_is_heard_of_no_more(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_server(tmp_path) as server:
        one, two = await nodes_of(server, 2)
        await two.ledger.close()
        one.visits.add(b"a", later(server))
        await settled()
        assert not two.visits.rows
        two.ledger = Ledger()
        await two.ledger.open(two.x)
        anew = await two.ledger.book("visits", Visits(), common=True)
        assert anew.rows == one.visits.rows


@pytest.mark.parametrize(
    "octets",
    [b"\xff\xff\xff\xff", b"\x00\x00\x00\x01\xc1", b"\x00\x00\x00\x09\x95\xa4Open\x01\xa1/"],
)
async def test_nonsense_ends_one_conversation_alone(
    tmp_path: Path, octets: bytes, autojump_clock: MockClock
) -> None:
    async with a_server(tmp_path) as server:
        one, two = await nodes_of(server, 2)
        ours, theirs = trio.testing.memory_stream_pair()
        server.nursery.start_soon(server.keeper.serve, theirs)
        await ours.send_all(octets)
        with trio.fail_after(60):
            assert await ours.receive_some() == b""
        one.visits.add(b"a", later(server))
        await settled()
        assert two.visits.rows == one.visits.rows


Step = tuple[int, str, int]
_STEPS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(["add", "add", "add", "deaf", "cut", "back", "wait"]),
        st.integers(0, 2),
    ),
    max_size=40,
)


@settings(max_examples=15, deadline=None)
@given(_STEPS)
def test_nothing_is_counted_twice_or_forgotten(steps: list[Step]) -> None:
    async def main() -> None:
        with TemporaryDirectory() as folder:
            async with a_server(Path(folder)) as server:
                nodes = await nodes_of(server, 3)
                model = Counter[bytes]()
                for number, word, key in steps:
                    node, name = nodes[number], b"%d" % key
                    match word:
                        case "add":
                            node.visits.add(name, later(server))
                            model[name] += 1
                        case "deaf":
                            node.deafen()
                        case "cut":
                            node.cut_off()
                        case "back":
                            node.reachable = True
                        case _:
                            await trio.sleep(0.005 * key)
                for node in nodes:
                    node.cut_off()
                    node.reachable = True
                await settled()
                for node in nodes:
                    assert {k: row.count for k, row in node.visits.rows.items()} == model

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
