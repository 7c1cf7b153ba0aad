"""Mail to put into a queue, outcomes to settle it with, and disks that fail."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Final

import trio

from elemta.protocol import Mailbox, reply
from elemta.queue import (
    Addressee,
    Attempt,
    Envelope,
    Filter,
    Hold,
    LaneLimits,
    Message,
    Priority,
    Recipient,
    Release,
    Result,
    RetryPolicy,
    StoreReader,
    open_queue,
)
from elemta.queue.change import Insert
from elemta.queue.entry import Entry
from elemta.queue.ids import IdSource
from elemta.queue.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from elemta.protocol import ReversePath
    from elemta.queue import Destined, HistoryLimits, LaneOf, Queue, Tuning, Work
    from elemta.queue.operation import Operation
    from elemta.queue.writer import Applies

#: When the tests' clock stands at zero: some day in 2026.
EPOCH: Final = 1_790_000_000.0
CONTENT: Final = b"Subject: hello\r\n\r\nworld\r\n"
POLICY: Final = RetryPolicy(jitter=0.0)
EVERYTHING: Final = Filter()
REPLIES: Final = {
    Result.DELIVERED: reply(250, 2, 0, "taken"),
    Result.DEFERRED: reply(451, 3, 0, "later"),
    Result.FAILED: reply(550, 1, 1, "never"),
}


def address(text: str) -> Mailbox:
    local, _, domain = text.partition("@")
    return Mailbox(local, domain)


def envelope(*recipients: str, priority: Priority = Priority.NORMAL) -> Envelope:
    return Envelope(
        sender=address("sender@home.example"),
        recipients=tuple(Addressee(address=address(each)) for each in recipients or ("a@x",)),
        priority=priority,
    )


def by_domain(recipient: Destined, _sender: ReversePath = None) -> str:
    return ",".join(recipient.via) or f"mx:{recipient.address.domain}"


def now() -> float:
    """Wall time, as virtual as Trio's."""
    return EPOCH + trio.current_time()


def attempts(
    work: Work, result: Result, *, expired: bool = False, warned: bool = False
) -> list[Attempt]:
    """The same outcome for all recipients of a work."""
    return [
        Attempt(
            number=each.number,
            started=1.0,
            ended=2.0,
            result=result,
            destination=work.lane,
            host="mx.x[192.0.2.1]:25",
            reply=REPLIES[result],
            remote=True,
            expired=expired,
            warned=warned,
        )
        for each in work.recipients
    ]


async def hold(queue: Queue, id: str) -> bool:  # noqa: A002 # the word of people
    """Hold a message; whether that stopped anybody."""
    return (await queue.act(Hold(), Filter(ids=(id,)), who="operator:test")).recipients > 0


async def release(queue: Queue, id: str) -> bool:  # noqa: A002 # the word of people
    """Release a message; whether anybody was held."""
    return (await queue.act(Release(), Filter(ids=(id,)), who="operator:test")).recipients > 0


def found(folder: Path, wanted: Filter = EVERYTHING, at: float = EPOCH) -> list[str]:
    """Ids of messages that a reader finds, whether the queue is open or not."""
    with StoreReader(folder) as reader:
        return [message.id for message in reader.search(wanted, now=at)]


def virtual_queue(
    folder: Path,
    *,
    policy: RetryPolicy = POLICY,
    tuning: Tuning | None = None,
    history: HistoryLimits | None = None,
    disk: Callable[[Store], Applies] = lambda store: store,
    limits: Callable[[str], LaneLimits] = lambda _: LaneLimits(),
    lane: LaneOf | None = None,
) -> AbstractAsyncContextManager[Queue]:
    """A queue on virtual time: for tests with `autojump_clock`."""
    return open_queue(
        folder,
        policy,
        lane=lane or by_domain,
        limits=limits,
        clock=now,
        tuning=tuning,
        history=history,
        inline=True,
        disk=disk,
    )


async def settle_next(
    queue: Queue, result: Result, *, expired: bool = False, durable: bool = True
) -> str:
    """Claim, take one work, settle all of it; returns its message's id."""
    with await queue.claim() as claim:
        work = claim.take()
        assert work is not None
        with work:
            await queue.settle(work, attempts(work, result, expired=expired), durable=durable)
            return work.message.id


class FaultyDisk:
    """A disk that can be full. `written` counts transactions, `refused` those it did not take."""

    def __init__(self, store: Applies) -> None:
        self._store = store
        self.full = False
        self.written = 0
        self.refused = 0

    def apply(self, operations: Sequence[Operation]) -> None:
        if self.full:
            self.refused += 1
            raise sqlite3.OperationalError("database or disk is full")
        self._store.apply(operations)
        self.written += 1


class Disks:
    """For `open_queue(disk=…)`: keeps hold of the disk it made."""

    def __init__(self) -> None:
        self.made: list[FaultyDisk] = []

    def __call__(self, store: Store) -> FaultyDisk:
        self.made.append(FaultyDisk(store))
        return self.made[-1]

    @property
    def disk(self) -> FaultyDisk:
        return self.made[-1]


def quick(store: Store) -> Store:
    """For `open_queue(disk=…)`: a disk that does not wait, for tests with thousands of messages."""
    store.connection.execute("PRAGMA synchronous = OFF")
    return store


def fill(
    folder: Path, *to: tuple[str, ...], priority: Priority = Priority.NORMAL, at: float = EPOCH
) -> list[str]:
    """Put messages, each to some recipients, where a queue that starts finds them; their ids."""
    store = quick(Store(folder))
    new_id = IdSource(lambda: at, store.last_key)
    ids: list[str] = []
    for start in range(0, len(to), 250):
        inserts: list[Insert] = []
        for recipients in to[start : start + 250]:
            message = Message(
                id=new_id(),
                sender=address("sender@home.example"),
                recipients=[
                    Recipient(number=number, address=address(each), due=at)
                    for number, each in enumerate(recipients)
                ],
                received_at=at,
                expires_at=at + POLICY.lifetime,
                size=len(CONTENT),
                priority=priority,
            )
            ids.append(message.id)
            inserts.append(Insert(Entry(message), CONTENT, lambda _: None))
        store.apply(inserts)
    store.close()
    return ids
