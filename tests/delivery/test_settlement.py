"""What became of an attempt, and what is told of it: both, or neither."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Final

import pytest
import trio
from typing_extensions import override

from elemta.config import load
from elemta.delivery.carrier import Tried
from elemta.delivery.reports import Counts, News, Reporter
from elemta.delivery.settlement import Settlement
from elemta.message import Action
from elemta.protocol import Mailbox, Notify, RcptParams, reply
from elemta.queue import (
    Addressee,
    Envelope,
    Filter,
    Message,
    Report,
    Result,
    RetryPolicy,
    State,
    StoreReader,
    StoreUnavailable,
    View,
    open_queue,
)
from tests.delivery.world import on_virtual_time
from tests.queue.mail import CONTENT, Disks, now

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from elemta.delivery.transaction import StoredBody
    from elemta.protocol import ReversePath
    from elemta.queue import Destined, Queue, Timeline
    from elemta.queue.operation import Operation
    from elemta.queue.store import Store
    from elemta.queue.writer import Applies

HOUR: Final = 3600.0
ANN: Final = Mailbox("ann", "sender.example")
CONFIG: Final = load("hostname: mx.us.example\nlisteners: [{name: mx, address: '127.0.0.1:25'}]")
NO: Final = Tried(Result.FAILED, reply(550, 1, 1, "no such user"), remote=True)
LATER: Final = Tried(Result.DEFERRED, reply(451, 2, 0, "later"), remote=True)
KEPT: Final = Tried(Result.DELIVERED, reply(250, 0, 0, "kept"), action=Action.DELIVERED)
POLICY: Final = RetryPolicy(jitter=0.0, schedule=(HOUR,), delay_warning=4 * HOUR)

pytestmark = pytest.mark.trio(run=on_virtual_time)


def a_queue(
    folder: Path,
    disk: Callable[[Store], Applies] = lambda store: store,
    policy: RetryPolicy = POLICY,
) -> AbstractAsyncContextManager[Queue]:
    def lane(recipient: Destined, _: ReversePath) -> str:
        return recipient.address.domain

    return open_queue(folder, policy, lane=lane, clock=now, inline=True, disk=disk)


class Place:
    """A queue, and who settles what is in it."""

    def __init__(self, queue: Queue, folder: Path) -> None:
        self.queue = queue
        self.folder = folder
        self.reporter = Reporter(CONFIG, queue.new_id, now)
        self.settlement = Settlement(queue, self.reporter, now)

    async def send(self, *notify: Notify, sender: Mailbox | None = ANN, to: str = "bob") -> str:
        params = RcptParams(notify=frozenset(notify))
        addressees = [
            Addressee(address=Mailbox(name, "b.example"), params=params) for name in to.split()
        ]
        envelope = Envelope(sender=sender, recipients=tuple(addressees))
        return await self.queue.accept(envelope, CONTENT)

    async def settle(self, *tried: Tried) -> None:
        """Settle what is ready in b.example: one outcome for each recipient. Reports go out."""
        done = False
        while not done:
            with await self.queue.claim() as claim:
                work = claim.take()
                assert work is not None
                done = claim.lane == "b.example"
                outcomes = tried if done else (KEPT,)
                with work:
                    numbers = [each.number for each in work.recipients]
                    found = dict(zip(numbers, outcomes, strict=True))
                    body = await work.body()
                    await self.settlement.settle(work, work.recipients, found, body, now())

    def timeline(self, id: str) -> Timeline:  # noqa: A002 # the word of people
        with StoreReader(self.folder) as reader:
            found = reader.timeline(id)
        assert found is not None
        return found

    def reports(self) -> list[Message]:
        """What is on its way to a sender."""
        return [message for message in stored(self.folder) if message.sender is None]


def stored(folder: Path) -> list[Message]:
    """All that the store knows, finished or not."""
    with StoreReader(folder) as reader:
        return reader.search(Filter(views=tuple(View)), limit=1000, now=now())


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Place]:
    async with a_queue(tmp_path / "queue") as queue:
        yield Place(queue, tmp_path / "queue")


class Idle(Reporter):
    """One that must not be asked."""

    @override
    async def tell(
        self, message: Message, news: Sequence[News], body: StoredBody | None
    ) -> tuple[Report, ...]:
        raise AssertionError("nobody asked for anything")


async def test_for_a_plain_message_that_was_delivered_nothing_is_written(here: Place) -> None:
    here.settlement = Settlement(here.queue, Idle(CONFIG, here.queue.new_id, now), now)
    id_ = await here.send(to="bob cid")
    await here.settle(KEPT, KEPT)
    assert [each.state for each in here.timeline(id_).message.recipients] == [State.DELIVERED] * 2


async def test_fates_of_recipients_are_told_apart(here: Place) -> None:
    await trio.sleep(1)
    id_ = await here.send(Notify.SUCCESS, Notify.FAILURE, to="bob cid dora")
    await here.settle(KEPT, NO, LATER)
    states = [each.state for each in here.timeline(id_).message.recipients]
    assert states == [State.DELIVERED, State.FAILED, State.DEFERRED]
    assert len(here.reports()) == 2
    assert here.reporter.counts == Counts(failure=1, success=1)


@pytest.mark.parametrize(
    ("action", "counts"),
    [
        (Action.DELIVERED, Counts(success=1)),
        (Action.RELAYED, Counts(relayed=1)),
        (None, Counts()),
    ],
)
async def test_success_is_told_by_whoever_knows_of_it(
    action: Action | None, counts: Counts, here: Place
) -> None:
    await here.send(Notify.SUCCESS)
    await here.settle(Tried(Result.DELIVERED, reply(250, 0, 0, "ok"), action=action))
    assert here.reporter.counts == counts


async def test_a_delay_is_told_once(here: Place) -> None:
    id_ = await here.send()
    for hour in range(9):
        await trio.sleep(HOUR if hour else 0)
        await here.settle(LATER)
    timeline = here.timeline(id_)
    assert [attempt.warned for attempt in timeline.attempts].index(True) == 4
    assert sum(attempt.warned for attempt in timeline.attempts) == 1
    assert timeline.message.recipients[0].warned
    assert here.reporter.counts == Counts(delay=1)


@pytest.mark.parametrize(
    ("sender", "notify"),
    [(None, ()), (ANN, (Notify.NEVER,)), (ANN, (Notify.FAILURE,))],
    ids=["null sender", "NEVER", "FAILURE"],
)
async def test_who_does_not_want_to_hear_of_delays_does_not(
    sender: Mailbox | None, notify: tuple[Notify, ...], here: Place
) -> None:
    id_ = await here.send(*notify, sender=sender)
    await here.settle(LATER)
    await trio.sleep(5 * HOUR)
    await here.settle(LATER)
    assert len(stored(here.folder)) == 1
    assert not here.timeline(id_).message.recipients[0].warned


async def test_the_end_of_a_lifetime_is_a_failure(here: Place) -> None:
    id_ = await here.send()
    await trio.sleep(POLICY.lifetime - HOUR / 2)
    await here.settle(LATER)
    assert here.timeline(id_).message.recipients[0].state is State.EXPIRED
    assert here.reporter.counts == Counts(failure=1)


async def test_what_is_overdue_is_told_with_what_was_said_last(here: Place) -> None:
    id_ = await here.send()
    await here.settle(LATER)
    await trio.sleep(HOUR)
    with await here.queue.claim() as claim:
        work = claim.take()
        assert work is not None
        with work:
            await here.settlement.settle_overdue(work, await work.body())
    first, second = here.timeline(id_).attempts
    assert (second.result, second.reply, second.remote) == (Result.DEFERRED, first.reply, False)


# A bug of ours, or being told to stop.


class Faulty(Reporter):
    @override
    async def tell(
        self, message: Message, news: Sequence[News], body: StoredBody | None
    ) -> tuple[Report, ...]:
        raise RuntimeError("a bug")


async def test_who_has_a_message_does_not_get_it_again_for_a_bug_of_ours(here: Place) -> None:
    good = here.settlement
    here.settlement = Settlement(here.queue, Faulty(CONFIG, here.queue.new_id, now), now)
    id_ = await here.send(to="bob cid")
    with pytest.raises(RuntimeError, match="a bug"):
        await here.settle(KEPT, NO)
    await trio.sleep(1)
    states = [each.state for each in here.timeline(id_).message.recipients]
    assert states == [State.DELIVERED, State.READY]
    here.settlement = good
    await here.settle(NO)
    assert len(here.reports()) == 1


class Slow:
    """A large body, from a disk that takes its time."""

    size = 300_000
    octets = None

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        await trio.sleep(1)
        yield b"Subject: slow\r\n\r\n"


async def test_being_stopped_does_not_keep_an_outcome_from_being_told(here: Place) -> None:
    id_ = await here.send(to="bob cid")
    with await here.queue.claim() as claim:
        work = claim.take()
        assert work is not None
        with work, trio.CancelScope() as scope:
            scope.cancel()
            found = {0: KEPT, 1: NO}
            await here.settlement.settle(work, work.recipients, found, Slow(), now())
    await trio.sleep(1)
    states = [each.state for each in here.timeline(id_).message.recipients]
    assert states == [State.DELIVERED, State.FAILED]
    assert len(here.reports()) == 1


# A bad disk.


async def test_on_a_full_disk_there_is_neither_an_outcome_nor_a_report_until_there_are_both(
    tmp_path: Path,
) -> None:
    disks = Disks()
    async with a_queue(tmp_path / "queue", disks) as queue:
        here = Place(queue, tmp_path / "queue")
        id_ = await here.send()
        disks.disk.full = True
        await here.settle(NO)
        await trio.sleep(100)
        assert disks.disk.refused
        assert here.timeline(id_).message.recipients[0].state is State.READY
        assert here.reports() == []
        disks.disk.full = False
        await trio.sleep(100)
        assert here.timeline(id_).message.recipients[0].state is State.FAILED
        assert len(here.reports()) == 1


class Cut:
    """A disk that takes so many transactions, and then none: the power is gone."""

    def __init__(self, store: Applies, left: int) -> None:
        self._store = store
        self._left = left

    def apply(self, operations: Sequence[Operation]) -> None:
        if not self._left:
            raise sqlite3.OperationalError("disk I/O error")
        self._store.apply(operations)
        self._left -= 1


@pytest.mark.parametrize("left", [*range(7), 100])
async def test_wherever_the_power_is_cut_a_failure_and_its_report_are_both_there_or_neither(
    left: int, tmp_path: Path
) -> None:
    folder = tmp_path / "queue"
    soon = RetryPolicy(jitter=0.0, schedule=(60.0,))
    async with a_queue(folder, lambda store: Cut(store, left), soon) as queue:
        here = Place(queue, folder)
        try:
            await here.send(to="bob cid")
            await here.settle(NO, LATER)
            await trio.sleep(70)
            with trio.move_on_after(30):  # what is not written is not tried again
                await here.settle(NO)
        except StoreUnavailable:
            assert left < 2
    async with a_queue(folder) as queue:
        messages = stored(folder)
        failed = sum(
            each.state is State.FAILED
            for message in messages
            if message.sender is not None
            for each in message.recipients
        )
        assert len(Place(queue, folder).reports()) == failed
        if left == 100:
            assert failed == 2
