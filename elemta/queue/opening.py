"""Opens a queue, and closes it with nothing left unwritten."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio
from msgspec import Struct

from elemta.metrics.meters import Meters
from elemta.queue.maintenance import HistoryLimits, Maintenance
from elemta.queue.queue import Queue
from elemta.queue.rate import unlimited
from elemta.queue.reader import StoreReader
from elemta.queue.retry import RetryPolicy
from elemta.queue.room import Disk, Reserve
from elemta.queue.store import Store
from elemta.queue.suspension import Suspensions
from elemta.queue.window import LIMIT
from elemta.queue.writer import InlineWriter, ThreadWriter
from elemta.supervision import once

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

    from elemta.queue.model import LaneOf
    from elemta.queue.rate import LaneLimits
    from elemta.queue.retry import PolicyOf
    from elemta.queue.writer import Applies, Writer
    from elemta.supervision import Keeps


class Tuning(Struct, frozen=True, kw_only=True):
    """What seldom has to be changed.

    Attributes:
        window: recipients in memory.
        workers: deliveries at once, in all.
        memory: octets of bodies that are kept for their first attempt.
        gather: seconds that a commit waits for company, and again as long as more comes or is to
            be expected.
        linger: the same while nobody waits for it. What was delivered in the time of a crash and
            not written yet is delivered again.
    """

    window: int = LIMIT
    workers: int = 500
    memory: int = 64 * 2**20
    gather: float = 0.001
    linger: float = 0.02


@asynccontextmanager
async def open_queue(
    path: Path,
    policy: RetryPolicy | PolicyOf,
    *,
    lane: LaneOf,
    limits: Callable[[str], LaneLimits] = unlimited,
    clock: Callable[[], float] = time.time,
    tuning: Tuning | None = None,
    history: HistoryLimits | None = None,
    reserve: Reserve | None = None,
    inline: bool = False,
    disk: Callable[[Store], Applies] = lambda store: store,
    keep: Keeps = once,
    meters: Meters | None = None,
) -> AsyncGenerator[Queue, None]:
    """Open the queue in a folder, made if need be; on leaving, all that was submitted is written.

    Args:
        path: the folder, `data_dir/queue`.
        policy: when to try again: for all, or for each recipient. Nothing is remembered for less
            than a day after its lifetime; where it is for each, that is `history`'s to see to.
        lane: where a recipient goes.
        limits: what may go to a lane.
        clock: seconds since the epoch.
        tuning: what seldom has to be changed.
        history: how much of what is finished to remember.
        reserve: what the disk must have left for `Queue.room`.
        inline: write in this thread and not in one of its own: for virtual time, see
            `InlineWriter`.
        disk: what stands between writer and store: a test's bad disk.
        keep: runs the queue's own tasks: starts them again, it may be, if they fail.
        meters: count what goes on.

    Raises:
        SpoolError: another process uses this queue, or a later Elemta wrote it.
        OSError, sqlite3.Error: the disk.
    """
    tuning, meters = tuning or Tuning(), meters or Meters()
    store = Store(path) if inline else await trio.to_thread.run_sync(Store, path)
    try:
        target = disk(store)
        writer: Writer = (
            InlineWriter(target)
            if inline
            else ThreadWriter(target, gather=tuning.gather, linger=tuning.linger, meters=meters)
        )
        lifetime = policy.lifetime if isinstance(policy, RetryPolicy) else 0.0
        maintenance = Maintenance(store, writer, clock, history or HistoryLimits(), lifetime)
        suspensions = Suspensions(store.connection, writer, clock())
        with StoreReader(path) as reader:
            queue = Queue(
                store,
                writer,
                reader,
                policy,
                lane=lane,
                limits=limits,
                suspensions=suspensions,
                clock=clock,
                room=Disk(path, reserve or Reserve(), clock, maintenance.reusable).room,
                window=tuning.window,
                workers=tuning.workers,
                memory=tuning.memory,
                inline=inline,
                meters=meters,
            )
            async with _running(queue, maintenance, writer, keep):
                yield queue
    finally:
        store.close()


@asynccontextmanager
async def _running(
    queue: Queue, maintenance: Maintenance, writer: Writer, keep: Keeps
) -> AsyncGenerator[None, None]:
    failure: Exception | None = None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep, "schedule", queue.run)
            nursery.start_soon(keep, "maintenance", maintenance.run)
            nursery.start_soon(keep, "counting", queue.counting.run)
            try:
                yield
            except Exception as error:  # what our user raised leaves in no group
                failure = error
            nursery.cancel_scope.cancel()
    finally:
        queue.counting.flush()
        await writer.close()
    if failure is not None:
        raise failure
