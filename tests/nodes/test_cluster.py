from __future__ import annotations

import io
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
import trio
import trio.testing

from elemta import log as logs
from elemta.config import load
from elemta.control.facts import (
    Bucket,
    Hypothesis,
    LogEntry,
    Metric,
    PluginStatus,
    Sample,
    Scale,
    SessionStatus,
    Spoken,
    Statistics,
    Submission,
    TraceFilter,
    Transcript,
)
from elemta.control.interface import (
    ListenerStatus,
    RequestError,
    Status,
    UnavailableError,
    UnknownError,
)
from elemta.control.summing import statistics_of, sum_statistics
from elemta.nodes import Cluster
from elemta.nodes.cluster import SEEN
from elemta.nodes.running import Running
from elemta.protocol import parse_mailbox
from elemta.queue import (
    Destination,
    Filter,
    Finished,
    Hold,
    Missed,
    Parked,
    Reschedule,
    Suspension,
    Timeline,
)
from elemta.supervision import Part
from tests.control.fake import FakeControl, message

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from elemta.control.interface import Control, Happening
    from elemta.nodes.asking import Reach


CONFIG = """
hostname: mx.example
listeners: [{name: mx, address: "127.0.0.1:0"}]
nodes: 2
"""


class Node(FakeControl):
    """A node that may be down."""

    down = False

    @asynccontextmanager
    async def reach(self, who: str) -> AsyncGenerator[Control]:
        if self.down:
            raise UnavailableError("nobody listens")
        yield self.steered_by(who)


def own_status() -> Status:
    return Status(
        version="1", hostname="mx.example", pid=9, started_at=0.0, asked_at=1.0,
        stopping=False, troubles=(), listeners=(), sessions=0, places=0, deliveries=0, files=5,
        in_memory=0, queue=None, counts={}, parts=(),
    )  # fmt: skip


def control_of(*nodes: Node) -> Control:
    reach: list[Reach] = [node.reach for node in nodes]
    return Cluster(reach, own_status, running()).steered_by("operator:me")


def running(file: Path = Path("/etc/elemta/elemta.yaml")) -> Running:
    return Running(load(CONFIG), file)


def destination(name: str, *, ready: int = 0, parked_until: float | None = None) -> Destination:
    return Destination(
        name=name, ready=ready, on_disk=1, workers=2, window=3, parked_until=parked_until,
        parks=0, suspended=None, throttled_until=None, error="",
    )  # fmt: skip


async def test_messages_of_all_nodes_are_one_list_the_oldest_first() -> None:
    one, two = Node(), Node()
    one.messages = [message(1), message(4)]
    two.messages = [message(2), message(3), message(5)]
    control = control_of(one, two)
    found = await control.search(Filter(), limit=4)
    assert [each.id for each in found] == [message(number).id for number in (1, 2, 3, 4)]
    later = await control.search(Filter(), limit=4, after=found[-1].id)
    assert [each.id for each in later] == [message(5).id]
    found = await control.search(Filter(), limit=3, newest=True)
    assert [each.id for each in found] == [message(number).id for number in (5, 4, 3)]
    found = await control.search(Filter(), limit=3, after=found[-1].id, newest=True)
    assert [each.id for each in found] == [message(number).id for number in (2, 1)]


async def test_counts_are_added_up() -> None:
    control = control_of(Node(), Node(), Node())
    assert (await control.stats()).messages == 21
    assert (await control.status()).queue == await control.stats()


async def test_what_an_operator_does_is_done_on_every_node_in_that_name() -> None:
    nodes = [Node(), Node()]
    tally = await control_of(*nodes).act(Hold(), Filter(), reason="because")
    assert tally.recipients == 4
    assert [node.acted[0].reason for node in nodes] == ["because", "because"]
    assert {node.who for node in nodes} == {"operator:me"}


async def test_a_time_that_one_node_refuses_is_refused_before_any_has_changed() -> None:
    one, two = Node(), Node()
    two.failure = RequestError("too late", "action.at")
    with pytest.raises(RequestError, match="too late"):
        await control_of(one, two).act(Reschedule(5.0), Filter())
    assert [acted.dry_run for acted in one.acted] == [True]
    two.failure = None
    assert (await control_of(one, two).act(Reschedule(5.0), Filter())).messages == 2
    assert [acted.dry_run for acted in two.acted] == [True, False]


async def test_statistics_of_all_nodes_are_added_up_step_by_step() -> None:
    found = await control_of(Node(), Node(), Node()).statistics(Scale.HOUR)
    assert found.buckets == (Bucket(0.0, {"queued": 6}),)
    assert (found.step, found.total) == (60.0, {"queued": 6})


def test_a_step_that_begins_between_two_answers_pushes_the_first_one_out() -> None:
    def of(first: int, counts: dict[str, int]) -> Statistics:
        return statistics_of(Scale.WEEK, ((first + day, counts) for day in range(7)))

    found = sum_statistics(Scale.WEEK, [of(1, {"queued": 1}), of(2, {"queued": 1, "failed": 1})])
    assert [each.start for each in found.buckets] == [2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
    assert found.buckets[0].counts == {"queued": 2, "failed": 1}
    assert found.buckets[-1].counts == {"queued": 1, "failed": 1}
    assert found.total == {"queued": 13, "failed": 7}


async def test_nothing_is_done_if_a_node_cannot_be_reached() -> None:
    one, two = Node(), Node()
    two.down = True
    with pytest.raises(UnavailableError, match="node 2 cannot be reached, so nothing was done"):
        await control_of(one, two).act(Hold(), Filter())
    assert one.acted == []


async def test_the_others_are_looked_at_even_so() -> None:
    one, two = Node(), Node()
    two.down = True
    control = control_of(one, two)
    assert (await control.stats()).messages == 7
    assert (await control.status()).troubles == ("node 2: nobody listens",)


async def test_if_none_can_be_reached_that_is_said() -> None:
    one = Node()
    one.down = True
    with pytest.raises(UnavailableError, match="nobody listens"):
        await control_of(one).stats()


async def test_a_wrong_question_is_one_whichever_node_says_so() -> None:
    one, two = Node(), Node()
    two.failure = RequestError("no such thing", "filter")
    with pytest.raises(RequestError, match="no such thing"):
        await control_of(one, two).search(Filter())


async def test_a_message_is_found_wherever_it_is() -> None:
    one, two = Node(), Node()
    two.known = Timeline(message=message(3), finished_at=None, attempts=())
    two.pieces = [b"To: you\r\n", b"\r\n"]
    control = control_of(one, two)
    assert (await control.timeline(message(3).id)) == two.known
    async with aclosing(control.raw(message(3).id)) as pieces:
        assert [piece async for piece in pieces] == two.pieces


async def test_that_a_node_is_away_counts_for_more_than_that_others_do_not_know() -> None:
    one, two = Node(), Node()
    one.down = True
    control = control_of(one, two)
    with pytest.raises(UnavailableError, match="nobody listens"):
        await control.timeline(message(3).id)
    async with aclosing(control.raw(message(3).id)) as pieces:
        with pytest.raises(UnavailableError, match="nobody listens"):
            await anext(pieces)


async def test_a_message_that_no_node_knows_is_unknown() -> None:
    with pytest.raises(UnknownError):
        await control_of(Node(), Node()).timeline(message(3).id)
    with pytest.raises(UnknownError):
        await anext(control_of(Node(), Node()).raw(message(3).id))


async def test_a_message_may_be_in_the_node_that_is_down() -> None:
    one, two = Node(), Node()
    two.down = True
    with pytest.raises(UnavailableError):
        await control_of(one, two).timeline(message(3).id)


async def test_a_destination_is_one_though_each_node_goes_there() -> None:
    one, two = Node(), Node()
    one.places = [destination("mx:a", ready=1), destination("mx:b", parked_until=5.0)]
    two.places = [
        destination("mx:a", ready=2, parked_until=9.0),
        destination("mx:b", parked_until=3.0),
    ]
    a, b = await control_of(one, two).destinations()
    assert (a.ready, a.workers, a.window) == (3, 4, 6)
    assert a.parked_until is None, "one node may go there"
    assert b.parked_until == 3.0


async def test_a_suspension_of_all_nodes_is_told_once() -> None:
    one, two = Node(), Node()
    one.suspended = two.suspended = [
        Suspension(scope="all", reason="x", who="operator:me", since=1.0)
    ]
    control = control_of(one, two)
    assert await control.suspensions() == one.suspended
    assert await control.suspend("all") is None
    assert await control.suspend("all", dry_run=True) is not None
    assert await control.resume("all") is None
    assert await control.resume("all", dry_run=True) is not None


async def test_what_only_one_node_had_suspended_can_be_resumed() -> None:
    one, two = Node(), Node()
    one.failure = UnknownError("all is not suspended")
    assert await control_of(one, two).resume("all") is None
    two.failure = one.failure
    with pytest.raises(UnknownError):
        await control_of(one, two).resume("all")


async def test_listeners_are_the_same_and_their_clients_are_not() -> None:
    listener = ListenerStatus(name="mx", kind="smtp", addresses=("a:25",), connections=3)

    class Busy(Node):
        async def status(self) -> Status:
            status = await super().status()
            return msgspec.structs.replace(
                status, listeners=(listener,), sessions=3, counts={"Queued": 2}, troubles=("slow",)
            )

    status = await control_of(Busy(), Busy()).status()
    assert [each.connections for each in status.listeners] == [6]
    assert (status.sessions, status.counts, status.pid) == (6, {"Queued": 4}, 9)
    assert status.troubles == ("node 1: slow", "node 2: slow")


async def test_events_of_all_nodes_are_numbered_anew(nursery: trio.Nursery) -> None:
    one, two = Node(), Node()
    one.happenings = [Finished(70, 1.0, "x"), Finished(71, 1.0, "x")]
    two.happenings = [Finished(5, 1.0, "y")]
    cluster = Cluster([one.reach, two.reach], own_status, running())
    nursery.start_soon(cluster.run)
    numbers: list[int] = []
    async with aclosing(cluster.steered_by("operator:me").events()) as events:
        async for event in events:
            assert isinstance(event, Finished)
            numbers.append(event.number)
            if len(numbers) == 3:
                break
    assert numbers == [1, 2, 3]
    again: list[Happening] = []
    async with aclosing(cluster.steered_by("operator:me").events(since=1)) as events:
        async for event in events:
            again.append(event)
            if len(again) == 2:
                break
    assert [each.number for each in again if isinstance(each, Finished)] == [2, 3]


async def test_nobody_asks_the_nodes_for_events_before_somebody_wants_them(
    nursery: trio.Nursery,
) -> None:
    one = Node()
    nursery.start_soon(Cluster([one.reach], own_status, running()).run)
    await trio.testing.wait_all_tasks_blocked()
    assert one.who == ""


class Restless(Node):
    """A node in which something happens each time that it is looked at.

    Attributes:
        started_at, number: as its status has them.
        heard: since which number it was listened to.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.started_at = 0.0
        self.number = number
        self.heard: list[int | None] = []

    async def status(self) -> Status:
        told = await super().status()
        told = msgspec.structs.replace(told, started_at=self.started_at, event=self.number)
        self.number += 1
        return told

    async def events(self, since: int | None = None) -> AsyncGenerator[Happening]:
        self.heard.append(since)
        yield Finished(self.number, 1.0, "x")
        await trio.sleep_forever()


async def test_who_looks_first_and_then_listens_misses_nothing(nursery: trio.Nursery) -> None:
    one, two = Restless(70), Restless(5)
    cluster = Cluster([one.reach, two.reach], own_status, running(), first=1000)
    nursery.start_soon(cluster.run)
    control = cluster.steered_by("operator:me")
    number = (await control.status()).event
    assert (await control.status()).event == number == 1000, "somebody else looks, too"
    async with aclosing(control.events(since=number)) as events:
        assert [(await anext(events)) for _ in range(2)] == [
            Finished(1001, 1.0, "x"), Finished(1002, 1.0, "x")
        ]  # fmt: skip
    assert (one.heard, two.heard) == ([70], [5]), "since the first of the two looked"
    assert (await control.status()).event == 1002


async def test_who_looked_long_before_anybody_listened_is_told_what_is_missed(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    one, two, away = Restless(70), Restless(5), Restless(3)
    reach = [one.reach, two.reach, away.reach]
    cluster = Cluster(reach, own_status, running(), first=1000)
    nursery.start_soon(cluster.run)
    control = cluster.steered_by("operator:me")
    assert (await control.status()).event == 1000
    await trio.sleep(SEEN + 1)
    one.number, two.number, two.started_at, away.down = 80, 900, 7.0, True
    assert (await control.status()).event == 1011, "of a node that began anew nobody knows"
    async with aclosing(control.events(since=1000)) as events:
        assert await anext(events) == Missed(11, last=1011)
        assert await anext(events) == Finished(1012, 1.0, "x")
        await anext(events)
    assert (one.heard, two.heard) == ([80], [900])


async def test_parts_are_told_of_the_node_whose_they_are() -> None:
    class Whole(Node):
        async def status(self) -> Status:
            part = Part(name="log", running=True, restarts=0, failure=None)
            return msgspec.structs.replace(await super().status(), parts=(part,))

    one, two = Node(), Whole()
    one.down = True
    [part] = (await control_of(one, two).status()).parts
    assert part.name == "node 2: log"


async def test_a_node_that_comes_back_is_heard_again(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    one = Node()
    one.down = True
    one.happenings = [Finished(5, 1.0, "y")]
    cluster = Cluster([one.reach], own_status, running())
    nursery.start_soon(cluster.run)
    async with aclosing(cluster.steered_by("operator:me").events()) as events:
        nursery.start_soon(come_back, one)
        event = await anext(events)
    assert event == Finished(1, 1.0, "y")
    assert trio.current_time() >= 5


async def come_back(node: Node) -> None:
    await trio.sleep(5)
    node.down = False


async def test_a_reload_is_for_all_and_the_rest_is_too(tmp_path: Path) -> None:
    control = control_of(Node(), Node())
    assert await control.reload() == ()
    assert await control.check() == []
    saved = await control.backup(tmp_path / "copy")
    assert saved.target == str(tmp_path / "copy")
    assert (tmp_path / "copy" / "nodes" / "2").is_dir()
    with pytest.raises(RequestError, match="is there already"):
        await control.backup(tmp_path / "copy")
    with pytest.raises(RequestError, match="absolute"):
        await control.backup(Path("copy"))
    with pytest.raises(UnavailableError, match="No such file"):
        await control.backup(tmp_path / "no" / "copy")


async def test_what_runs_is_told_of_the_whole_server_and_after_a_reload_of_the_new_one(
    tmp_path: Path,
) -> None:
    file = tmp_path / "elemta.yaml"
    file.write_text(CONFIG + "limits: {connections: 100}\nuser: mail\n")
    control = Cluster([Node().reach, Node().reach], own_status, running(file)).steered_by("me")
    before = await control.configuration()
    limits = {"connections": 2000, "memory": "256 MiB", "transcripts": 1000}
    assert before.values["limits"] == limits
    await control.reload(dry_run=True)
    assert await control.configuration() == before
    await control.reload()
    after = await control.configuration()
    assert after.file == str(file)
    assert after.values["limits"] == {**limits, "connections": 100}
    assert after.values["user"] is None, "that holds after a restart"
    file.write_text("nonsense")
    await control.reload()
    assert await control.configuration() == after


def plugin(name: str, *, enabled: bool = True, asked: int = 0) -> PluginStatus:
    return PluginStatus(
        name=name, about="", enabled=enabled, hooks=(), timeout=30.0, asked=asked, failed=1,
        objected=2, events={"seen": asked},
    )  # fmt: skip


async def test_plugins_are_switched_on_all_nodes_and_counted_over_all() -> None:
    one, two = Node(), Node()
    one.installed = [plugin("a", asked=3), plugin("b")]
    two.installed = [plugin("a", asked=4), plugin("b", enabled=False)]
    control = control_of(one, two)
    first, second = await control.plugins()
    assert (first.name, first.enabled, first.asked, first.failed) == ("a", True, 7, 2)
    assert (first.objected, first.events) == (4, {"seen": 7})
    assert (second.name, second.enabled) == ("b", False)
    await control.switch_plugin("b", enabled=True)
    assert [each.enabled for each in await control.plugins()] == [True, True]
    two.down = True
    with pytest.raises(UnavailableError, match="nothing was done"):
        await control.switch_plugin("a", enabled=False)
    assert one.installed[0].enabled
    assert [each.asked for each in await control.plugins()] == [3, 0]


def session(name: str, since: float) -> SessionStatus:
    return SessionStatus(
        id=name, direction="in", place="mx", peer="192.0.2.1:1", name="", state="ready", tls="",
        login="", since=since, messages=0,
    )  # fmt: skip


def transcript(name: str, began: float) -> Transcript:
    return Transcript(
        id=name, direction="in", place="mx", peer="192.0.2.1:1", began=began, ended=None,
        messages=("M1",), said=(),
    )  # fmt: skip


def spoken(text: str) -> Spoken:
    return Spoken(
        session="s", direction="in", place="mx", peer="192.0.2.1:1", at=1.0, speaker="C", text=text
    )


def entry(event: str, at: float, level: str = "info") -> LogEntry:
    return LogEntry(at=at, level=level, event=event, logger="x", fields={})


async def test_sessions_transcripts_and_failures_of_all_nodes_are_put_in_order() -> None:
    one, two = Node(), Node()
    one.connected, two.connected = [session("a", 1), session("c", 3)], [session("b", 2)]
    one.recorded, two.recorded = [transcript("a", 5)], [transcript("b", 4)]
    one.failed = [Parked(9, 9.0, "x", 10.0, ""), Parked(8, 2.0, "y", 10.0, "")]
    two.failed = [Parked(1, 5.0, "z", 10.0, "")]
    control = control_of(one, two)
    assert [each.id for each in await control.sessions()] == ["a", "b", "c"]
    assert [each.id for each in await control.transcripts("M1")] == ["b", "a"]
    assert await control.failures(limit=2) == [
        Parked(0, 9.0, "x", 10.0, ""),
        Parked(0, 5.0, "z", 10.0, ""),
    ]
    two.down = True
    assert [each.id for each in await control.sessions()] == ["a", "c"]


async def test_what_is_said_on_all_nodes_is_one_stream_and_nobody_is_asked_in_vain(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    one, two = Node(), Node()
    one.spoken, two.spoken = [spoken("a"), Missed(3)], [spoken("b")]
    cluster = Cluster([one.reach, two.reach], own_status, running())
    nursery.start_soon(cluster.run)
    await trio.testing.wait_all_tasks_blocked()
    assert one.who == "", "nobody listens yet"
    told: list[Spoken | Missed] = []
    async with aclosing(cluster.steered_by("operator:me").trace(TraceFilter())) as lines:
        told += [await anext(lines) for _ in range(3)]
        assert one.who == "operator:me"
        assert (one.closed, two.closed) == (0, 0)
    await trio.testing.wait_all_tasks_blocked()
    assert (one.closed, two.closed) == (1, 1), "who listened has left"
    assert Missed(3) in told
    assert {each.text for each in told if isinstance(each, Spoken)} == {"a", "b"}


async def test_a_stream_goes_on_when_a_node_comes_back(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    one = Node()
    one.down = True
    one.spoken = [spoken("a")]
    cluster = Cluster([one.reach], own_status, running())
    nursery.start_soon(cluster.run)
    await trio.testing.wait_all_tasks_blocked()
    async with aclosing(cluster.steered_by("me").trace(TraceFilter())) as lines:
        nursery.start_soon(come_back, one)
        assert await anext(lines) == spoken("a")
    assert trio.current_time() >= 5


async def test_nobody_listens_to_nodes_while_the_server_starts() -> None:
    with pytest.raises(UnavailableError, match="starts, or stops"):
        await anext(control_of(Node()).trace(TraceFilter()))


async def test_the_log_of_all_processes_is_one(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    logs.configure("json", "info", io.StringIO())
    try:
        one, two = Node(), Node()
        logs.logger("x").info("ours")
        now = logs.recent(limit=1)[0].at
        one.logged, two.logged = [entry("a", 1.0), entry("c", now + 2)], [entry("b", now + 1)]
        cluster = Cluster([one.reach, two.reach], own_status, running())
        control = cluster.steered_by("operator:me")
        found = await control.log(level="info", limit=3)
        assert [each.event for each in found] == ["ours", "b", "c"]
        with pytest.raises(RequestError):
            await control.log(level="loud")
        nursery.start_soon(cluster.run)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(RequestError):
            await anext(control.follow(level="loud"))
        async with aclosing(control.follow(level="info")) as entries:
            told = [await anext(entries) for _ in range(3)]
            logs.logger("x").info("ours again")
            told.append(await anext(entries))
        assert [each.event for each in told if isinstance(each, LogEntry)][-1] == "ours again"
    finally:
        logs.configure("console", "warning")


async def test_the_level_of_the_log_is_set_on_all_nodes_and_here() -> None:
    logs.configure("json", "info", io.StringIO())
    try:
        one, two = Node(), Node()
        control = control_of(one, two)
        assert await control.log_level("debug") == "debug"
        assert (one.level, two.level, logs.level().name) == ("debug", "debug", "DEBUG")
        with pytest.raises(RequestError):
            await control.log_level("loud")
        two.down = True
        with pytest.raises(UnavailableError, match="nothing was done"):
            await control.log_level("error")
        assert await control.log_level() == one.level == "debug"
    finally:
        logs.configure("console", "warning")


def sample(metrics: list[Metric], name: str, **labels: str) -> float | None:
    for metric in metrics:
        for each in metric.samples:
            if each.name == name and each.labels == labels:
                return each.value
    return None


async def test_a_node_that_cannot_be_reached_is_a_metric_and_no_error(
    autojump_clock: trio.testing.MockClock,
) -> None:
    one, two, three = nodes = Node(), Node(), Node()
    for each in nodes:
        each.measured = [
            Metric(name=name, kind="gauge", about="", samples=(Sample(name, 1.0),))
            for name in ("elemta_nodes_up", "elemta_queue_messages")
        ]
    control = control_of(*nodes)
    found = await control.metrics()
    assert sample(found, "elemta_nodes") == 3
    assert sample(found, "elemta_nodes_up") == 3
    assert (sample(found, "process_resident_memory_bytes", node="0") or 0) > 2**20
    two.down = True
    three.slow = True  # it hangs, and is not waited for
    found = await control.metrics()
    assert sample(found, "elemta_nodes_up") == 1
    assert sample(found, "elemta_queue_messages") == 1
    one.down = True
    found = await control.metrics()
    assert (sample(found, "elemta_nodes"), sample(found, "elemta_nodes_up")) == (3, 0)


def handed(key: str = "") -> Submission:
    to = (parse_mailbox("a@x.example"),)
    return Submission(sender=None, recipients=to, content=b"Subject: x\r\n\r\n", key=key)


async def test_nodes_take_turns_with_what_is_handed_in() -> None:
    nodes = [Node(), Node()]
    control = control_of(*nodes)
    for _ in range(4):
        await control.submit(handed())
    assert [len(node.submitted) for node in nodes] == [2, 2]
    assert {node.who for node in nodes} == {"operator:me"}
    nodes[0].down = True
    for _ in range(4):
        await control.submit(handed())
    assert [len(node.submitted) for node in nodes] == [2, 6]
    nodes[1].down = True
    with pytest.raises(UnavailableError, match="no node can take it: nobody listens"):
        await control.submit(handed())


async def test_a_key_comes_to_the_same_node_each_time_or_to_none() -> None:
    nodes = [Node(), Node()]
    control = control_of(*nodes)
    for number in range(20):
        for _ in range(2):
            await control.submit(handed(f"key {number}"))
    assert all(node.submitted for node in nodes)
    for node in nodes:
        keys = [each.key for each in node.submitted]
        assert {keys.count(key) for key in keys} == {2}
    first = nodes[0].submitted[0]
    nodes[0].down = True
    with pytest.raises(UnavailableError):
        await control.submit(first)
    assert all(each.key != first.key for each in nodes[1].submitted)


async def test_what_a_node_refuses_no_other_is_asked_for() -> None:
    nodes = [Node(), Node()]
    nodes[0].failure = UnavailableError("the disk is full")
    with pytest.raises(UnavailableError, match="the disk is full"):
        await control_of(*nodes).submit(handed())
    assert [node.submitted for node in nodes] == [[], []]


async def test_a_node_that_only_empties_its_queue_takes_nothing() -> None:
    nodes = [Node(), Node(), Node()]  # two of them take mail, by the configuration
    control = control_of(*nodes)
    for number in range(20):
        await control.submit(handed(f"key {number}"))
        await control.submit(handed())
    assert nodes[2].submitted == []


async def test_any_node_can_think_a_message_through() -> None:
    one, two = Node(), Node()
    control = control_of(one, two)
    asked = Hypothesis(recipient=parse_mailbox("a@x.example"))
    one.down = True
    assert (await control.explain(asked)).steps[0].good
    assert two.supposed == [asked]
    two.failure = RequestError("there is no such listener", "listener")
    with pytest.raises(RequestError):
        await control.explain(asked)
    two.down = True
    with pytest.raises(UnavailableError, match="nobody listens"):
        await control.explain(asked)


async def test_the_node_that_has_a_message_says_why_it_waits() -> None:
    one, two = Node(), Node()
    two.known = Timeline(message=message(3), finished_at=None, attempts=())
    control = control_of(one, two)
    assert (await control.why(message(3).id)).next_at == 60.0
    with pytest.raises(UnknownError):
        await control.why(message(4).id)
    two.down = True
    with pytest.raises(UnavailableError):
        await control.why(message(3).id)
