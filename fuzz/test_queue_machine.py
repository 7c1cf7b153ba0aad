"""The queue on a disk that dies: whatever was answered is there after a crash, and nothing else.

A program of steps runs against the real queue and the real database, beside a model that knows
what was answered. At one commit, drawn by Hypothesis, the files are copied as a crash would leave
them; a new queue is opened on the copy and compared with the model, and then delivers the rest.

Three crashes are drawn. A kill (the files as they are after the commit), a kill before it (as they
were before), and a power cut in its midst: of each 512-octet sector of the log that the commit
wrote, either the old or the new state reached the disk, in any mixture, as nothing says in which
order a disk writes what was not yet synced. The same is drawn for the database file while SQLite
moves the log into it, which is made to happen often here.

What this proves: our transactions cut at the right places, and SQLite's recovery under this model
of a disk. It does not prove that the kernel and the device keep what they said was synced, nor
that we sync all that we should of large bodies (a sector model of their files is not drawn: they
are synced before the commit begins, and copied whole).

Hypothesis runs no async state machines, so the steps of a run are drawn first, as a list, and run
in one `trio.run` on a virtual clock.
"""

from __future__ import annotations

import copy
import random
import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import hypothesis.strategies as st
import msgspec
import trio
import trio.testing
from hypothesis import given
from msgspec import Struct

from elemta.protocol import Mailbox, reply
from elemta.queue import (
    Action,
    Addressee,
    Attempt,
    Bounce,
    Delete,
    Envelope,
    Filter,
    Hold,
    Message,
    Priority,
    Queue,
    Recipient,
    Redirect,
    Release,
    Report,
    Reprioritise,
    Reroute,
    Reschedule,
    Result,
    Retry,
    RetryPolicy,
    State,
    StoredBody,
    StoreReader,
    StoreUnavailable,
    Tuning,
    View,
    Work,
    open_queue,
)
from elemta.queue.schema import INLINE
from fuzz.profiles import examples
from tests.queue.mail import FaultyDisk, by_domain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elemta.queue.operation import Operation
    from elemta.queue.store import Store

EPOCH: Final = 1_790_000_000.0
SECTOR: Final = 512
POLICY: Final = RetryPolicy(schedule=(100.0, 1000.0), jitter=0.0, lifetime=10_000.0)
DOMAINS: Final = ("x", "y")
FINAL: Final = {
    Result.DELIVERED: State.DELIVERED,
    Result.FAILED: State.FAILED,
    Result.DEFERRED: State.DEFERRED,
}


class Accept(Struct, frozen=True):
    """Take some messages in, some of them for later; those with a key come twice."""

    to: tuple[str, ...]
    size: int
    copies: int
    wait: float
    keyed: bool


class Try(Struct, frozen=True):
    """Try the next work, with these outcomes for its recipients in turn; None leaves one open."""

    results: tuple[Result | None, ...]
    report: bool
    large_report: bool
    #: Another work is tried, and settled first, while this one is at work.
    beside: bool


class Steer(Struct, frozen=True):
    """An operator does something with a message, and then perhaps something else."""

    actions: tuple[Action, ...]
    which: int


class Sleep(Struct, frozen=True):
    """Let time pass."""

    seconds: float


class Full(Struct, frozen=True):
    """The disk is full, or no longer."""

    full: bool


Step = Accept | Try | Steer | Sleep | Full

ACCEPT: Final = st.builds(
    Accept,
    st.lists(st.sampled_from(DOMAINS), min_size=1, max_size=3).map(tuple),
    st.sampled_from([0, 10, 5000, 60_000, INLINE + 1]),
    st.sampled_from([1, 1, 5]),
    st.sampled_from([0.0, 0.0, 20.0, 3000.0]),
    st.booleans(),
)
RESULTS: Final = st.lists(st.none() | st.sampled_from(Result), min_size=1, max_size=3).map(tuple)
TRY: Final = st.builds(Try, RESULTS, st.booleans(), st.booleans(), st.booleans())
DELIVER: Final = st.builds(
    Try, st.just((Result.DELIVERED,)), st.just(False), st.just(False), st.booleans()
)
ACTIONS: Final = [
    Hold(),
    Release(),
    Retry(),
    Delete(),
    Bounce(),
    Reprioritise(Priority.HIGH),
    Redirect(Mailbox("new", "y")),
    Reroute(("smtp://other:25",)),
    Reroute(()),
    Reschedule(0.0),  # so much from now; see `Run.steer`
    Reschedule(500.0),
]
#: What seldom comes by chance.
USUAL: Final[list[tuple[Action, ...]]] = [
    (Hold(), Release()),
    (Hold(), Reroute(("smtp://other:25",))),
    (Redirect(Mailbox("new", "y")),),
]
STEER: Final = st.builds(
    Steer,
    st.lists(st.sampled_from(ACTIONS), min_size=1, max_size=3).map(tuple) | st.sampled_from(USUAL),
    st.integers(0, 5),
)
OTHER: Final = st.one_of(
    STEER,
    STEER,
    st.builds(Sleep, st.sampled_from([0.0, 1.0, 99.0, 101.0, 1200.0])),
    st.builds(Full, st.sampled_from([False, False, True])),
)
STEPS: Final = st.one_of(ACCEPT, TRY, TRY, TRY, DELIVER, OTHER)


#: From which states an action moves recipients, and where to.
MOVES: Final[dict[type[Action], tuple[tuple[State, ...], State]]] = {
    Hold: ((State.READY, State.DEFERRED), State.HELD),
    Release: ((State.HELD,), State.READY),
    Retry: ((State.READY, State.DEFERRED), State.READY),
    Delete: ((State.READY, State.DEFERRED, State.HELD), State.DELETED),
    Bounce: ((State.READY, State.DEFERRED, State.HELD), State.FAILED),
    Redirect: ((State.READY, State.DEFERRED, State.HELD), State.READY),
    Reroute: ((State.READY, State.DEFERRED), State.READY),
    Reschedule: ((State.READY, State.DEFERRED), State.DEFERRED),
}
BOUNCED: Final = b"bounced"


class Known(Struct):
    """What the model knows of a message: what it holds, and where each recipient stands.

    Attributes:
        due: nothing of it is tried before, unless somebody retries it.
    """

    content: bytes
    states: list[State]
    due: float = 0.0


Model = dict[str, Known]


class DyingDisk(FaultyDisk):
    """Copies the files at one commit, as a crash in it would leave them.

    Args:
        store: the real one.
        folder: its files.
        copy_to: where the crash is laid down.
        at: at which commit, from 0.
        how: kill after, kill before, or a power cut in the midst.
        chance: which sectors reached the disk.
    """

    def __init__(
        self, store: Store, folder: Path, copy_to: Path, at: int, how: str, chance: random.Random
    ) -> None:
        super().__init__(store)
        # Every few pages: so that the log is moved, and begun anew, within a short program.
        store.connection.execute("PRAGMA wal_autocheckpoint = 20")
        self._folder = folder
        self._copy_to = copy_to
        self.crash_at = at
        self._how = how
        self._chance = chance
        self.dead = False

    def apply(self, operations: Sequence[Operation]) -> None:
        if self.dead or self.full or self.written != self.crash_at:
            super().apply(operations)
            return
        self.dead = True
        before = self._read()
        if self._how != "after" and self._how != "move":
            # Bodies are synced before the commit, and removed after it.
            self._lay_down(before)
        super().apply(operations)
        after = self._read()
        match self._how:
            case "log":  # the database file is not touched before the log is synced
                (self._copy_to / "queue.db-wal").write_bytes(self._mixed(before[1], after[1]))
            case "after":
                self._lay_down(after)
            case "move":  # the log is whole before it is moved
                self._lay_down((self._mixed(before[0], after[0]), after[1]))
            case _:
                pass

    def _read(self) -> tuple[bytes, bytes]:
        database, log = self._folder / "queue.db", self._folder / "queue.db-wal"
        return database.read_bytes(), log.read_bytes()

    def _mixed(self, old: bytes, new: bytes) -> bytes:
        sectors = range(0, len(new), SECTOR)
        changed = [at for at in sectors if old[at : at + SECTOR] != new[at : at + SECTOR]]
        if self._chance.random() < 0.7:
            lost = changed[self._chance.randint(0, len(changed)) :]
        else:
            lost = [at for at in changed if self._chance.random() < 0.2]
        mixed = bytearray(new)
        for at in lost:
            # A file that grew has zeros where nothing was written yet.
            size = len(new[at : at + SECTOR])
            mixed[at : at + SECTOR] = old[at : at + SECTOR].ljust(size, b"\0")
        return bytes(mixed)

    def _lay_down(self, files: tuple[bytes, bytes]) -> None:
        shutil.copytree(self._folder / "bodies", self._copy_to / "bodies")
        (self._copy_to / "queue.db").write_bytes(files[0])
        (self._copy_to / "queue.db-wal").write_bytes(files[1])


def now() -> float:
    return EPOCH + trio.current_time()


class Run:
    """One program, up to the crash."""

    def __init__(self, queue: Queue, disk: DyingDisk) -> None:
        self.queue = queue
        self.disk = disk
        self.before: Model = {}
        self.model: Model = {}
        self.keyed: list[str] = []
        self.unwritten = False  # something was settled that the disk did not take yet

    async def play(self, steps: list[Step]) -> None:
        for step in steps:
            self.remember()
            match step:
                case Accept():
                    for _ in range(step.copies):
                        if not self.disk.dead:
                            self.remember()
                            await self.accept(step)
                case Try():
                    await self.attempt(step)
                case Steer():
                    names = sorted(self.model)
                    for action in step.actions if names else ():
                        self.remember()
                        await self.steer(action, names[step.which % len(names)])
                case Sleep(seconds):
                    await trio.sleep(seconds)
                case Full(full):
                    self.disk.full = full
                    await trio.sleep(70)  # long enough for what was kept to be written
                    self.unwritten = self.unwritten and full
            if self.disk.dead:
                return

    def remember(self) -> None:
        """A crash from now on leaves what is so now, or what comes next."""
        if not self.unwritten and not self.disk.dead:
            self.before = copy.deepcopy(self.model)

    async def accept(self, step: Accept) -> None:
        name = self.queue.new_id()
        content = random.Random(name).randbytes(step.size)
        to = [Addressee(address=Mailbox("u", domain)) for domain in step.to]
        due = now() + step.wait if step.wait else None
        envelope = Envelope(sender=Mailbox("s", "home"), recipients=tuple(to), due=due)
        key = name if step.keyed else ""
        if step.keyed:
            self.keyed.append(name)
        try:
            assert await self.queue.accept(envelope, content, name, key=key) == name
        except StoreUnavailable:
            assert self.disk.full
            return
        assert not self.disk.full
        self.model[name] = Known(content, [State.READY] * len(to), due or 0.0)
        if step.keyed:
            assert await self.queue.accept(envelope, content, key=key) == name

    async def attempt(self, step: Try) -> None:
        with trio.move_on_after(0.01):
            with await self.queue.claim() as claim:
                work = claim.take()
                if work is not None:
                    with trio.CancelScope(shield=True), work:
                        if step.beside:
                            await self.attempt(msgspec.structs.replace(step, beside=False))
                            await trio.sleep(1)
                            self.remember()
                        if not self.disk.dead:
                            await self.settle(work, step)

    async def settle(self, work: Work, step: Try) -> None:
        known = self.model[work.message.id]
        body = await work.body()
        content = b"".join([piece async for piece in body.chunks()])
        assert content == known.content
        attempts: list[Attempt] = []
        results = [step.results[i % len(step.results)] for i in range(len(work.recipients))]
        assert now() > known.due - 0.001, "sent too early"
        for recipient, result in zip(work.recipients, results, strict=True):
            assert known.states[recipient.number] in (State.READY, State.DEFERRED), "sent twice"
            if result is not None:
                last = result is Result.DEFERRED and self.queue.expires(
                    work.message, recipient, now()
                )
                attempts.append(outcome(recipient.number, result, expired=last))
                known.states[recipient.number] = State.EXPIRED if last else FINAL[result]
        reports: list[Report] = []
        if step.report and Result.FAILED in results:
            content = b"r" * (INLINE + 5 if step.large_report else 50)
            to = (Addressee(address=Mailbox("s", "home")),)
            reports.append(Report(envelope=Envelope(sender=None, recipients=to), content=content))
        was = set(self.ids()) if reports and not self.disk.full else set[str]()
        await self.queue.settle(work, attempts, reports)
        self.unwritten = self.unwritten or self.disk.full
        if reports and not self.disk.full:
            (new,) = set(self.ids()) - was - {work.message.id}
            self.model[new] = Known(reports[0].content, [State.READY])
        elif reports:
            self.disk.full = False  # a report has no name before it is written
            await trio.sleep(70)
            self.unwritten = False
            for key in set(self.ids()) - set(self.model):
                self.model[key] = Known(reports[0].content, [State.READY])

    async def steer(self, action: Action, name: str) -> None:
        if self.disk.full or self.disk.dead or self.unwritten:
            return
        known, was = self.model[name], set(self.ids())
        if isinstance(action, Reschedule):
            action = Reschedule(now() + action.at)
        try:
            tally = await self.queue.act(
                action, Filter(ids=(name,)), who="operator:fuzz", report=report_bounce
            )
        except ValueError:  # it is given up before that
            assert isinstance(action, Reschedule)
            return
        assert tally.busy == 0
        moves, becomes = MOVES.get(type(action), ((), State.READY))
        meant = [number for number, state in enumerate(known.states) if state in moves]
        for number in meant:
            known.states[number] = becomes
        if isinstance(action, Retry | Reschedule):
            known.due = 0.0
        # They may be so already; and who is held is rerouted, and held.
        if not isinstance(action, Redirect | Reprioritise | Reroute):
            assert tally.recipients == len(meant)
        if isinstance(action, Bounce) and meant:
            (new,) = set(self.ids()) - was
            self.model[new] = Known(BOUNCED, [State.READY])

    def ids(self) -> list[str]:
        """All messages in the store, finished or not."""
        with StoreReader(self.disk._folder) as reader:
            found = reader.search(Filter(views=tuple(View)), now=now(), limit=1000)
        return [message.id for message in found]


async def report_bounce(
    message: Message, failed: Sequence[tuple[Recipient, Attempt]], body: StoredBody | None
) -> list[Report]:
    assert body is not None
    assert len([piece async for piece in body.chunks()]) > 0 or message.size == 0
    assert failed
    to = Addressee(address=Mailbox("s", "home"))
    return [Report(envelope=Envelope(sender=None, recipients=(to,)), content=BOUNCED)]


def outcome(number: int, result: Result, *, expired: bool = False) -> Attempt:
    return Attempt(
        number=number,
        started=now(),
        ended=now(),
        result=result,
        destination="",
        reply=reply(250, 0, 0, "fuzz"),
        expired=expired,
    )


def read(folder: Path) -> Model:
    """What a reader finds in a store."""
    found: Model = {}
    with StoreReader(folder) as reader:
        for message in reader.search(Filter(views=tuple(View)), now=now(), limit=1000):
            states = [each.state for each in message.recipients]
            found[message.id] = Known(reader.body(message.id) or b"", states)
    return found


def plain(model: Model) -> dict[str, tuple[bytes, list[str]]]:
    """For comparing: a finished message has no body; deferred is ready, a moment later."""
    told = {State.DEFERRED: "waiting", State.READY: "waiting"}
    shown: dict[str, tuple[bytes, list[str]]] = {}
    for name, known in model.items():
        done = all(state.final for state in known.states)
        states = [told.get(state, state.value) for state in known.states]
        shown[name] = (b"" if done else known.content, states)
    return shown


async def crash(folder: Path, steps: list[Step], at: int, how: str, seed: int) -> None:
    there, wreck = folder / "there", folder / "wreck"
    wreck.mkdir()
    disks: list[DyingDisk] = []

    def disk(store: Store) -> DyingDisk:
        disks.append(DyingDisk(store, there, wreck, at, how, random.Random(seed)))
        return disks[-1]

    tuning = Tuning(window=2, memory=10_000)  # so that messages go back to disk, and come again
    async with open_queue(
        there, POLICY, lane=by_domain, clock=now, inline=True, disk=disk, tuning=tuning
    ) as queue:
        run = Run(queue, disks[-1])
        await run.play(steps)
        disks[-1].crash_at = -1  # the program is over: no crash comes any more
        disks[-1].full = False
        await trio.sleep(70)  # what was kept is written
        assert plain(read(there)) == plain(run.model)
        await deliver_rest(queue, run.model)
    assert_empty(there)
    if disks[-1].dead:
        async with open_queue(wreck, POLICY, lane=by_domain, clock=now, inline=True) as queue:
            found = read(wreck)
            if not run.unwritten:
                assert plain(found) in (plain(run.before), plain(run.model))
            for name in run.keyed:  # the key is there if the message is
                assert (await queue.known(name) is not None) == (name in found)
            await deliver_rest(queue, found)
        assert_empty(wreck)


async def deliver_rest(queue: Queue, model: Model) -> None:
    """All that is not finished can be delivered, each recipient once, with the body that came."""
    for key, known in model.items():
        if State.HELD in known.states:  # no others: asking for a message brings it into memory
            await queue.act(Release(), Filter(ids=(key,)), who="operator:fuzz")
    left = {
        (key, number)
        for key, known in model.items()
        for number, state in enumerate(known.states)
        if not state.final
    }
    delivered: list[tuple[str, int]] = []
    with trio.move_on_after(20_000):
        while len(delivered) < len(left):
            with await queue.claim() as claim:
                while work := claim.take():
                    with work:
                        body = await work.body()
                        content = b"".join([piece async for piece in body.chunks()])
                        assert content == model[work.message.id].content
                        numbers = [each.number for each in work.recipients]
                        delivered += [(work.message.id, number) for number in numbers]
                        results = [outcome(number, Result.DELIVERED) for number in numbers]
                        await queue.settle(work, results)
    assert sorted(delivered) == sorted(left)
    assert queue.waiting == 0


def assert_empty(folder: Path) -> None:
    """Nothing is left of finished messages but their history."""
    assert all(state.final for known in read(folder).values() for state in known.states)
    with StoreReader(folder) as reader:
        stats = reader.stats()
    assert stats.messages == 0
    assert not any(stats.recipients.values())
    assert list((folder / "bodies").iterdir()) == []
    database = sqlite3.connect(folder / "queue.db")
    assert database.execute("SELECT count(*) FROM body").fetchone() == (0,)
    database.close()


@given(
    first=st.lists(ACCEPT, min_size=2, max_size=4),
    steps=st.lists(STEPS, min_size=8, max_size=25),
    at=st.integers(0, 60),  # a step is several commits
    how=st.sampled_from(["after", "before", "log", "log", "move"]),
    seed=st.integers(0, 1000),
)
@examples(150)
def test_what_was_answered_is_there_after_a_crash(
    first: list[Step], steps: list[Step], at: int, how: str, seed: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        clock = trio.testing.MockClock(autojump_threshold=0)
        trio.run(crash, Path(folder), first + steps, at, how, seed, clock=clock)
