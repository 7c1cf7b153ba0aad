"""`Control` of a queue that is real, on virtual time."""

from __future__ import annotations

import io
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

import msgspec
import pytest
import trio
import trio.testing

from elemta import log as logs
from elemta.control.checks import MAX_HOSTS
from elemta.control.facts import (
    Configuration,
    Explanation,
    Hypothesis,
    LogEntry,
    PluginStatus,
    Scale,
    Spoken,
    Submission,
    Submitted,
    TraceFilter,
)
from elemta.control.interface import RequestError, Status, UnavailableError, UnknownError
from elemta.control.node import Node
from elemta.net.dialogues import Dialogue, Dialogues, Standing
from elemta.protocol import Mailbox, parse_mailbox
from elemta.queue import (
    Action,
    Addressee,
    Bounce,
    Delete,
    Envelope,
    Filter,
    Hold,
    Priority,
    Queued,
    Redirect,
    Release,
    Report,
    Reprioritise,
    Reroute,
    Reschedule,
    Result,
    Retry,
    State,
    StoreReader,
    View,
)
from tests.queue.mail import (
    CONTENT,
    EPOCH,
    Disks,
    address,
    envelope,
    now,
    settle_next,
    virtual_queue,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from pathlib import Path

    from elemta.config import Change
    from elemta.control.facts import Metric
    from elemta.control.interface import Control, Happening
    from elemta.control.measuring import Stored
    from elemta.queue import Attempt, MakesReports, Message, Queue, Recipient, StoredBody, Timeline


class Server:
    """What a daemon lends."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.dialogues = Dialogues(10, now)
        self.reloads: list[bool] = []
        self.told: list[tuple[str, list[str]]] = []
        self.asked = True
        self.stored: Stored | None = None
        self.submitted: list[tuple[str, Submission]] = []
        self.hypotheses: list[Hypothesis] = []

    @property
    def report(self) -> MakesReports:
        return self._tell

    async def _tell(
        self,
        message: Message,
        failed: Sequence[tuple[Recipient, Attempt]],
        body: StoredBody | None,
    ) -> Sequence[Report]:
        self.told.append((message.id, [str(attempt.reply) for _, attempt in failed]))
        assert message.sender is not None
        back = Envelope(sender=None, recipients=(Addressee(address=message.sender),))
        return [Report(envelope=back, content=b"Subject: failed\r\n\r\n")]

    def status(self) -> Status:
        return Status(
            version="1", hostname="mx.example", pid=1, started_at=EPOCH, asked_at=now(),
            stopping=False, troubles=("something else",), listeners=(), sessions=0, places=1,
            deliveries=1, files=1, in_memory=self.queue.waiting, queue=None,
            counts=dict(self.queue.events.counts), parts=(),
        )  # fmt: skip

    def metrics(self, stored: Stored) -> list[Metric]:
        self.stored = stored
        return list(stored.process)

    async def reload(self, *, dry_run: bool) -> tuple[Change, ...]:
        await trio.lowlevel.checkpoint()
        self.reloads.append(dry_run)
        return ()

    def configuration(self) -> Configuration:
        return Configuration(file="/etc/elemta/elemta.yaml", values={"hostname": "mx.example"})

    def plugins(self) -> list[PluginStatus]:
        return [
            PluginStatus(name="p", about="", enabled=self.asked, hooks=("on_rcpt",), timeout=30.0)
        ]

    async def submit(self, submission: Submission, who: str) -> Submitted:
        self.submitted.append((who, submission))
        return Submitted(id="01M82Q28V6DAVJCKE0E9HMK3Q1")

    async def explain(self, hypothesis: Hypothesis) -> Explanation:
        self.hypotheses.append(hypothesis)
        return Explanation(summary="It would be taken", steps=())

    def why(self, timeline: Timeline) -> Explanation:
        return Explanation(summary=f"why {timeline.message.id}", steps=())

    def switch_plugin(self, name: str, *, enabled: bool) -> None:
        if name != "p":
            raise UnknownError("no such plugin")
        self.asked = enabled


class House:
    """A queue, and who steers it."""

    def __init__(self, queue: Queue, folder: Path, reader: StoreReader) -> None:
        self.queue = queue
        self.server = Server(queue)
        node = Node(self.server, reader, folder, now)
        self.control: Control = node.steered_by("operator:jane")

    async def accept(self, *recipients: str, priority: Priority = Priority.NORMAL) -> str:
        return await self.queue.accept(envelope(*recipients, priority=priority), CONTENT)

    async def states(self, id: str) -> list[State]:  # noqa: A002 # the word of people
        return [each.state for each in (await self.control.timeline(id)).message.recipients]


@asynccontextmanager
async def house(folder: Path, disks: Disks | None = None) -> AsyncGenerator[House]:
    async with virtual_queue(folder, disk=disks or (lambda store: store)) as queue:
        with StoreReader(folder) as reader:
            yield House(queue, folder, reader)


async def test_a_filter_finds_messages_page_by_page(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        ids = [await here.accept("a@x", f"b@{n}.example") for n in range(5)]
        found = await here.control.search(Filter(), limit=3)
        assert [each.id for each in found] == ids[:3]
        found = await here.control.search(Filter(), after=found[-1].id)
        assert [each.id for each in found] == ids[3:]
        found = await here.control.search(Filter(), limit=2, after=ids[3], newest=True)
        assert [each.id for each in found] == [ids[2], ids[1]]
        (one,) = await here.control.search(Filter(text="B@3"))
        assert one.id == ids[3]
        (one,) = await here.control.search(Filter(domain="3.example"))
        assert one.id == ids[3]
        (one,) = await here.control.search(Filter(destination="mx:4.example"))
        assert one.id == ids[4]
        assert len(await here.control.search(Filter(destination="mx:x"))) == 5
        with pytest.raises(RequestError) as caught:
            await here.control.search(Filter(), after="nonsense")
        assert caught.value.place == "after"


async def test_a_timeline_says_who_did_what_and_why(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        id_ = await here.accept("a@x")
        await settle_next(here.queue, Result.DEFERRED)
        await here.control.act(Hold(), Filter(ids=(id_,)), reason="looks odd")
        found = await here.control.timeline(id_)
        assert [attempt.result for attempt in found.attempts] == [Result.DEFERRED]
        (note,) = found.notes
        assert (note.who, note.action, note.reason) == ("operator:jane", "hold", "looks odd")
        (recipient,) = found.message.recipients
        assert recipient.holder is not None
        assert recipient.holder.owner == "operator:jane"
        for unknown in ("nonsense", "01M82Q28V6DAVJCKE0E9HMK3Q1"):
            with pytest.raises(UnknownError):
                await here.control.timeline(unknown)


async def test_content_is_shown_until_its_message_is_finished(tmp_path: Path) -> None:
    large = b"Subject: large\r\n\r\n" + b"x" * 500_000 + b"\r\n"
    async with house(tmp_path) as here:
        small, big = await here.accept("a@x"), await here.queue.accept(envelope("b@x"), large)
        assert b"".join([piece async for piece in here.control.raw(small)]) == CONTENT
        assert b"".join([piece async for piece in here.control.raw(big)]) == large
        await here.control.act(Delete(), Filter(ids=(small,)))
        for unknown in (small, "nonsense"):
            with pytest.raises(UnknownError):
                await anext(here.control.raw(unknown))


async def test_each_action_does_what_it_says_and_counts_it(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        id_ = await here.accept("a@x", "b@y")
        this = Filter(ids=(id_,))
        tally = await here.control.act(Hold(), this)
        assert (tally.messages, tally.recipients, tally.octets) == (1, 2, len(CONTENT))
        assert await here.states(id_) == [State.HELD, State.HELD]

        released = await here.control.act(Release(), Filter(ids=(id_,), domain="x"))
        assert released.recipients == 1
        assert await here.states(id_) == [State.READY, State.HELD]

        to = parse_mailbox("c@z")
        assert (await here.control.act(Redirect(to), Filter(domain="y"))).recipients == 1
        found = (await here.control.timeline(id_)).message
        assert [str(each.address) for each in found.recipients] == ["a@x", "c@z"]

        await here.control.act(Reprioritise(Priority.HIGH), this)
        assert (await here.control.timeline(id_)).message.priority is Priority.HIGH

        await settle_next(here.queue, Result.DEFERRED)
        assert State.DEFERRED in await here.states(id_)
        assert (await here.control.act(Retry(), this)).messages == 1
        assert await here.states(id_) == [State.READY, State.READY]

        assert (await here.control.act(Bounce(), Filter(domain="x"), reason="no")).recipients == 1
        ((told, replies),) = here.server.told
        assert told == id_
        assert "no" in replies[0]
        assert (await here.control.act(Delete(), this)).recipients == 1
        assert await here.states(id_) == [State.FAILED, State.DELETED]
        (report,) = await here.control.search(Filter(sender="<>"))
        assert str(report.recipients[0].address) == "sender@home.example"


@pytest.mark.parametrize(
    "action",
    [
        Hold(),
        Retry(),
        Delete(),
        Bounce(),
        Reprioritise(Priority.LOW),
        Redirect(address("c@z.example")),
        Reroute(("smtp://relay.example",)),
        Reschedule(0.0),
    ],
)
async def test_a_dry_run_of_any_action_counts_and_does_nothing(
    tmp_path: Path, action: Action
) -> None:
    async with house(tmp_path) as here:
        id_ = await here.accept("a@x", "b@y")
        tally = await here.control.act(action, Filter(domain="x"), dry_run=True)
        assert (tally.messages, tally.recipients) == (1, 1)
        assert await here.states(id_) == [State.READY, State.READY]
        found = await here.control.timeline(id_)
        assert found.notes == ()
        assert found.message.priority is Priority.NORMAL
        assert here.server.told == []


async def test_what_nobody_has_parsed_is_no_address(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        id_ = await here.accept("a@x")
        for bad in (
            Mailbox("x\r\nRCPT TO:<y", "example.net"),
            Mailbox("x", "example.net>\r\n"),
            Mailbox("x", "EXAMPLE.net"),
        ):
            for dry_run in (True, False):
                with pytest.raises(RequestError) as caught:
                    await here.control.act(Redirect(bad), Filter(ids=(id_,)), dry_run=dry_run)
                assert caught.value.place == "action.to"
        assert str((await here.control.timeline(id_)).message.recipients[0].address) == "a@x"


@pytest.mark.parametrize(
    ("via", "index", "problem"),
    [
        (("nonsense",), 0, "expected maildir"),
        (("smtp://a", "smtp://b:x"), 1, "expected"),
        (("smtp://a", "lmtp://b"), 1, "stands alone"),
        (("maildir", "maildir"), 1, "stands alone"),
        (("pipe:/bin/sh",), 0, "no other can be chosen"),
        (("discard",), 0, "no other can be chosen"),
        (("smtp://a",) * (MAX_HOSTS + 1), MAX_HOSTS, "at most 10 targets"),
    ],
)
async def test_what_is_no_host_is_told_with_its_place(
    tmp_path: Path, via: tuple[str, ...], index: int, problem: str
) -> None:
    async with house(tmp_path) as here:
        await here.accept("a@x")
        for dry_run in (True, False):
            with pytest.raises(RequestError, match=problem) as caught:
                await here.control.act(Reroute(via), Filter(), dry_run=dry_run)
            assert caught.value.place == f"action.via[{index}]"


async def test_targets_are_kept_in_one_spelling(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        id_ = await here.accept("a@x")
        await here.control.act(Reroute(("smtp://relay.example/", "smtp://[::1]")), Filter())
        (recipient,) = (await here.control.timeline(id_)).message.recipients
        assert recipient.via == ("smtp://relay.example:25", "smtp://[::1]:25")
        for via in (("maildir",), ("lmtp:///run/lmtp", "lmtp://b:24"), ()):
            assert (await here.control.act(Reroute(via), Filter())).recipients == 1
        (recipient,) = (await here.control.timeline(id_)).message.recipients
        assert recipient.via == ()


async def test_a_time_after_the_end_is_no_time(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        id_ = await here.accept("a@x")
        for dry_run in (True, False):
            with pytest.raises(RequestError, match="given up at 2026-") as caught:
                await here.control.act(Reschedule(now() + 1e9), Filter(), dry_run=dry_run)
            assert caught.value.place == "action.at"
        await here.control.act(Reschedule(now() + 60), Filter())
        assert await here.states(id_) == [State.DEFERRED]


async def test_what_is_suspended_waits_until_it_is_resumed(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        await here.accept("a@x", "b@y")
        dry = await here.control.suspend("domain:X", dry_run=True)
        assert dry is not None
        assert (dry.messages, dry.recipients) == (1, 1)
        assert await here.control.suspensions() == []
        assert await here.control.suspend("domain:X", reason="repairs") is None
        (found,) = await here.control.suspensions()
        assert (found.scope, found.who, found.reason) == ("domain:x", "operator:jane", "repairs")
        assert found.until is None
        states = {each.name: each.suspended for each in await here.control.destinations()}
        assert "domain:x" in states.values()
        dry = await here.control.resume("domain:x", dry_run=True)
        assert dry is not None
        assert dry.recipients == 1
        assert len(await here.control.suspensions()) == 1
        assert await here.control.resume("domain:x") is None
        assert await here.control.suspensions() == []
        with pytest.raises(UnknownError, match="domain:x is not suspended"):
            await here.control.resume("domain:x")


async def test_all_and_a_destination_are_scopes_and_other_words_are_not(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        await here.accept("a@x", "b@y")
        for scope, waits in (("all", 2), ("destination:mx:y", 1), ("destination:mx:z", 0)):
            dry = await here.control.suspend(scope, dry_run=True)
            assert dry is not None
            assert dry.recipients == waits
        for bad in ("", "everything", "domain:", "destination:"):
            with pytest.raises(RequestError) as caught:
                await here.control.suspend(bad)
            assert caught.value.place == "scope"


async def test_a_suspension_may_end_by_itself_but_not_in_the_past(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with house(tmp_path) as here:
        with pytest.raises(RequestError) as caught:
            await here.control.suspend("all", until=now())
        assert caught.value.place == "until"
        await here.control.suspend("all", until=now() + 3600)
        await trio.sleep(3700)
        assert await here.control.suspensions() == []


async def test_events_are_told_as_they_happen_and_again_since_a_number(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        first = await here.accept("a@x")
        async with aclosing(here.control.events(since=0)) as events:
            event = await anext(events)
            assert isinstance(event, Queued)
            number = event.number
            assert event.id == first
            heard: list[Happening] = []

            async def hear() -> None:
                heard.append(await anext(events))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(hear)
                await trio.testing.wait_all_tasks_blocked()
                assert heard == []
                await here.accept("b@x")
            (event,) = heard
            assert isinstance(event, Queued)
            assert event.number == number + 1


async def test_status_has_what_the_disk_says_and_what_is_wrong_if_it_says_nothing(
    tmp_path: Path,
) -> None:
    async with house(tmp_path) as here:
        await here.accept("a@x")
        status = await here.control.status()
        assert status.queue == await here.control.stats()
        assert status.queue.messages == 1
        assert (status.in_memory, status.counts) == (1, {"Queued": 1})
        assert status.troubles == ("something else",)
        nowhere = Node(here.server, StoreReader(tmp_path / "nowhere"), tmp_path, now)
        status = await nowhere.steered_by("operator:jane").status()
        assert status.queue is None
        assert "there is no queue" in status.troubles[-1]


async def test_a_disk_in_trouble_is_told(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    disks = Disks()
    async with house(tmp_path, disks) as here:
        await here.accept("a@x")
        disks.disk.full = True
        with pytest.raises(UnavailableError, match="full"):
            await here.control.suspend("all")
        disks.disk.full = False
        await trio.sleep(5)
        await here.control.suspend("all")
    with StoreReader(tmp_path / "nowhere") as reader:
        async with virtual_queue(tmp_path) as queue:
            control = Node(Server(queue), reader, tmp_path / "nowhere", now).steered_by("x")
            with pytest.raises(UnavailableError):
                await control.search(Filter())
            with pytest.raises(UnavailableError):
                await control.check()
            with pytest.raises(UnavailableError, match="no copy was made"):
                await control.backup(tmp_path / "copy")


async def test_check_finds_nothing_in_a_queue_that_is_whole(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        await here.accept("a@x")
        assert await here.control.check() == []


async def test_a_copy_is_a_queue_of_its_own(tmp_path: Path) -> None:
    async with house(tmp_path / "queue") as here:
        id_ = await here.accept("a@x")
        saved = await here.control.backup(tmp_path / "copy")
        assert saved.target == str(tmp_path / "copy")
        with StoreReader(tmp_path / "copy") as copy:
            assert [each.id for each in copy.search(Filter(), now=now())] == [id_]
        with pytest.raises(RequestError, match="is there already"):
            await here.control.backup(tmp_path / "copy")
        with pytest.raises(RequestError, match="absolute"):
            await here.control.backup((tmp_path / "copy").relative_to(tmp_path))


async def test_a_reload_may_be_a_dry_run(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        assert await here.control.reload(dry_run=True) == ()
        assert await here.control.reload() == ()
        assert here.server.reloads == [True, False]


async def test_what_is_being_tried_is_counted_as_busy_and_left_alone(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        id_ = await here.accept("a@x", "b@y")
        with await here.queue.claim() as claim:
            work = claim.take()
            assert work is not None
            with work:
                tally = await here.control.act(Hold(), Filter(ids=(id_,)))
                assert (tally.recipients, tally.busy) == (1, 1)
        assert sorted(each.value for each in await here.states(id_)) == ["held", "ready"]


async def test_views_are_what_people_know(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        held, gone = await here.accept("a@x"), await here.accept("b@x")
        await here.control.act(Hold(), Filter(ids=(held,)))
        await here.control.act(Delete(), Filter(ids=(gone,)))
        for view, found in ((View.HOLD, [held]), (View.FAILED, [gone]), (View.ACTIVE, [])):
            assert [each.id for each in await here.control.search(Filter(views=(view,)))] == found
        assert (await here.control.count(Filter(owner="operator:jane"))).recipients == 1


async def test_configuration_and_plugins_are_those_of_the_server(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        assert (await here.control.configuration()).values == {"hostname": "mx.example"}
        await here.control.switch_plugin("p", enabled=False)
        (plugin,) = await here.control.plugins()
        assert not plugin.enabled
        with pytest.raises(UnknownError):
            await here.control.switch_plugin("q", enabled=False)


async def test_metrics_have_what_the_disk_and_the_kernel_know(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with house(tmp_path) as here:
        await here.accept("a@x", "b@x")
        found = await here.control.metrics()
        stored = here.server.stored
    assert stored is not None
    assert stored.stats is not None
    assert (stored.stats.messages, stored.stats.recipients[State.READY]) == (1, 2)
    assert (stored.free or 0) > 0
    (memory,) = [each for each in found if each.name == "process_resident_memory_bytes"]
    assert memory.samples[0].value > 2**20
    assert memory.together == "each"


async def test_metrics_are_told_though_the_disk_says_nothing(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with house(tmp_path) as here:
        node = Node(here.server, StoreReader(tmp_path / "gone"), tmp_path / "gone", now)
        assert await node.steered_by("operator:jane").metrics()
        assert here.server.stored is not None
        assert (here.server.stored.stats, here.server.stored.free) == (None, None)


async def test_what_failed_is_told_the_newest_first(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        one, two = await here.accept("a@b.example"), await here.accept("c@d.example")
        for _ in range(2):
            await settle_next(here.queue, Result.DEFERRED)
        found = await here.control.failures(limit=1)
        assert [getattr(each, "id", None) for each in found] == [two]
        assert [getattr(each, "id", None) for each in await here.control.failures()] == [two, one]


async def test_who_is_connected_and_what_is_said_and_logged_is_told(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        record = here.server.dialogues
        dialogue = Dialogue(record, "in", "mx", "192.0.2.1:1", "s1")
        dialogue.begin(lambda: Standing(state="ready"))
        dialogue.about("M1")
        (status,) = await here.control.sessions()
        assert (status.id, status.state) == ("s1", "ready")
        (transcript,) = await here.control.transcripts("M1")
        assert transcript.id == "s1"
        told: list[object] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first_of, here.control.trace(TraceFilter()), told)
            await trio.testing.wait_all_tasks_blocked()
            dialogue.said("C", b"NOOP")
        logs.configure("json", "info", io.StringIO())
        try:
            assert await here.control.log_level("warning") == "warning"
            assert await here.control.log_level() == "warning"
            (entry,) = await here.control.log(limit=1)
            assert (entry.event, entry.fields["who"]) == ("control.log_level", "operator:jane")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(first_of, here.control.follow(level="error"), told)
                await trio.testing.wait_all_tasks_blocked()
                logs.logger("x").error("failed")
        finally:
            logs.configure("console", "warning")
        line, entry = told
        assert isinstance(line, Spoken)
        assert line.text == "NOOP"
        assert isinstance(entry, LogEntry)
        assert entry.event == "failed"


async def first_of(stream: AsyncGenerator[object], told: list[object]) -> None:
    async with aclosing(stream) as things:
        told.append(await anext(things))


async def test_a_message_is_handed_in_in_somebodys_name(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        submission = Submission(
            sender=None, recipients=(parse_mailbox("postmaster@x.example"),), content=CONTENT
        )
        assert (await here.control.submit(submission)).id == "01M82Q28V6DAVJCKE0E9HMK3Q1"
        assert here.server.submitted == [("operator:jane", submission)]


def handed(**what: object) -> Submission:
    right = Submission(sender=None, recipients=(parse_mailbox("a@x.example"),), content=CONTENT)
    return msgspec.structs.replace(right, **what)


@pytest.mark.parametrize(
    ("place", "submission"),
    [
        ("sender", handed(sender=Mailbox("a b\r\nDATA", "x"))),
        ("recipients", handed(recipients=())),
        ("recipients[1]", handed(recipients=(parse_mailbox("a@b"), Mailbox("a", "B")))),
        ("recipients[0]", handed(recipients=(Mailbox("a", "b\r\n"),))),
        ("recipients[0]", handed(recipients=(Mailbox("", ""),))),
        ("tags", handed(tags=("t",) * 51)),
        ("tags[1]", handed(tags=("t", "a\x1b[2J"))),
        ("tags[0]", handed(tags=("",))),
        ("due", handed(due=EPOCH + 400 * 86400)),
        ("due", handed(due=float("inf"))),
        ("due", handed(due=float("nan"))),
        ("key", handed(key="k" * 201)),
        ("key", handed(key="k\n")),
        ("client", handed(client="localhost")),
        ("client", handed(client="2001:DB8::1")),
    ],
)
async def test_what_cannot_be_handed_in_is_told_by_its_place(
    tmp_path: Path, place: str, submission: Submission
) -> None:
    async with house(tmp_path) as here:
        with pytest.raises(RequestError) as caught:
            await here.control.submit(submission)
        assert caught.value.place == place
        assert here.server.submitted == []


def thought(**what: object) -> Hypothesis:
    return msgspec.structs.replace(Hypothesis(recipient=parse_mailbox("a@x.example")), **what)


@pytest.mark.parametrize(
    ("place", "hypothesis"),
    [
        ("recipient", thought(recipient=Mailbox("a>\r\nRSET", "b"))),
        ("sender", thought(sender=Mailbox("a", "-"))),
        ("client", thought(client="here")),
        ("helo", thought(helo="a\r\nMAIL FROM:<>")),
        ("helo", thought(helo="a" * 256)),
        ("size", thought(size=-1)),
    ],
)
async def test_what_cannot_be_thought_through_is_told_by_its_place(
    tmp_path: Path, place: str, hypothesis: Hypothesis
) -> None:
    async with house(tmp_path) as here:
        with pytest.raises(RequestError) as caught:
            await here.control.explain(hypothesis)
        assert caught.value.place == place
        assert here.server.hypotheses == []


async def test_why_and_what_if_are_asked_of_the_server(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        id_ = await here.accept("a@x")
        assert (await here.control.why(id_)).summary == f"why {id_}"
        with pytest.raises(UnknownError):
            await here.control.why("nonsense")
        asked = thought(recipient=Mailbox("postmaster", ""))
        assert (await here.control.explain(asked)).summary == "It would be taken"
        await here.control.explain(thought(client="2001:DB8:0::1"))
        assert [each.client for each in here.server.hypotheses] == ["127.0.0.1", "2001:db8::1"]


@pytest.mark.parametrize(
    ("scale", "step", "count"),
    [(Scale.HOUR, 60, 60), (Scale.DAY, 3600, 24), (Scale.WEEK, 86400, 7), (Scale.MONTH, 86400, 30)],
)
async def test_statistics_have_the_steps_of_their_scale(
    tmp_path: Path, scale: Scale, step: float, count: int
) -> None:
    async with house(tmp_path) as here:
        await here.accept("a@x")
        found = await here.control.statistics(scale)
        assert (found.scale, found.step, len(found.buckets)) == (scale, step, count)
        assert found.buckets[-1].start <= now() < found.buckets[-1].start + step
        assert found.buckets[-1].counts == found.total == {"queued": 1}
        assert found.buckets[0].counts == {}
