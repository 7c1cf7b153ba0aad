"""Who writes to the store: a thread of its own, or, on virtual time, whoever asks.

Group commit: the thread takes everything that waits, writes it as one transaction with one fsync,
and wakes all who wait with one call into Trio. While it writes, the next group gathers.

When the disk is full or broken, those who wait are told, and nothing of theirs is kept. What must
not be forgotten (`Operation.keep`: a message was delivered) is tried again until it is written. A
probe finds out when the disk is well again.
"""

from __future__ import annotations

import contextlib
import queue
import sqlite3
import threading
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

import trio

from elemta.log import logger
from elemta.metrics.meters import Meters
from elemta.queue.operation import Call

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from elemta.queue.operation import Operation

log = logger(__name__)

#: Operations of one transaction.
GROUP: Final = 256
#: Pauses that a group may grow in.
PAUSES: Final = 8
#: Seconds between two tries to write on a disk that failed.
PROBE: Final = 1.0


class Applies(Protocol):
    """What a writer needs of the store; a test's store may have a bad disk."""

    def apply(self, operations: Sequence[Operation]) -> None:
        """Write all of this durably, or nothing and raise."""
        ...


class Writer(Protocol):
    """Takes what is to be written."""

    @property
    def trouble(self) -> str | None:
        """Why nothing can be written just now; None if all is well."""
        ...

    def submit(self, operation: Operation) -> None:
        """Write this soon. `operation.done` tells when, in Trio's thread, in order."""
        ...

    def retry(self) -> None:
        """About once a second while there is trouble."""
        ...

    async def close(self) -> None:
        """Write all that was submitted, if the disk lets us, and stop."""
        ...


class _Health:
    """Whether the disk takes what we write, as Trio's side sees it."""

    def __init__(self) -> None:
        self.trouble: str | None = None

    def learn(self, error: Exception | None) -> None:
        trouble = None if error is None else str(error) or type(error).__name__
        if trouble is not None and self.trouble is None:
            log.error("store.failing", reason=trouble)
        elif trouble is None and self.trouble is not None:
            log.warning("store.recovered", reason=self.trouble)
        self.trouble = trouble


class ThreadWriter:
    """Writes in a thread of its own.

    Args:
        store: where to.
        gather: seconds to wait for more, once something waits that somebody waits for; again
            as long as more comes or is to be expected, `PAUSES` times at most.
        linger: seconds to wait for more while nobody waits for any of it.
        meters: told of each transaction, in the thread that writes it.
        pause: lets so many seconds pass.

    Resource handling:
        `close` it. The thread is a daemon: an interpreter that dies is a crash like any other.
    """

    def __init__(
        self,
        store: Applies,
        *,
        gather: float = 0.001,
        linger: float = 0.02,
        meters: Meters | None = None,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        self._pause = pause
        self._meters = meters or Meters()
        self._store = store
        self._gather = gather
        self._linger = linger
        self._company = 1
        self._health = _Health()
        self._inbox: queue.SimpleQueue[Operation | None] = queue.SimpleQueue()
        self._token = trio.lowlevel.current_trio_token()
        self._kept: list[Operation] = []
        self._ailing = False
        self._closing = False
        self._closed = trio.Event()
        self._thread = threading.Thread(target=self._run, name="elemta-writer", daemon=True)
        self._thread.start()

    @property
    def trouble(self) -> str | None:
        """Why nothing can be written just now."""
        return self._health.trouble

    def submit(self, operation: Operation) -> None:
        """See `Writer`."""
        self._inbox.put(operation)

    def retry(self) -> None:
        """The thread has a clock of its own."""

    async def close(self) -> None:
        """See `Writer`. What must be kept and cannot be written is lost now, and logged."""
        self._inbox.put(None)
        with trio.CancelScope(shield=True):  # ends as soon as the disk has answered
            await self._closed.wait()
        self._thread.join()

    def _run(self) -> None:
        while not self._closing:
            group = self._next_group()
            if group:
                self._write(group)
            elif self._ailing:
                self._write([Call(probe)])
        self._tell(self._closed.set)

    def _next_group(self) -> list[Operation]:
        group, self._kept = self._kept, []
        try:
            first = self._inbox.get(timeout=PROBE if self._ailing or group else None)
        except queue.Empty:
            return group
        self._take(first, group)
        if not self._closing:
            self._take_waiting(group)
        if not any(operation.urgent for operation in group):
            self._take_until(group, self._linger)
        elif self._gather:
            self._take_growing(group)
            self._company = len(group)
        return group

    def _take_growing(self, group: list[Operation]) -> None:
        """What comes while more keeps coming, or until as many are here as met last time.

        A commit costs about the same for one as for many; who is alone waits for one pause, no
        longer. Measured with two processes, each with a queue of its own and ten senders,
        relaying: 4 pauses took 0.41 syncs a message, 8 took 0.27 to 0.29, 12 took 0.19 to 0.24;
        messages a second were the same within the noise of that machine. With 20 senders that
        keep their connections, longer pauses than these made each wait for all: a quarter less.
        """
        for _ in range(PAUSES):
            size = len(group)
            if size >= GROUP or self._closing:
                return
            self._pause(self._gather)
            self._take_waiting(group)
            if len(group) == size and size >= self._company:
                return

    def _take_waiting(self, group: list[Operation]) -> None:
        """What waits, up to a group's size."""
        try:
            while len(group) < GROUP and not self._closing:
                self._take(self._inbox.get_nowait(), group)
        except queue.Empty:
            pass

    def _take_until(self, group: list[Operation], seconds: float) -> None:
        """What comes within this time, but no longer than until somebody waits for it."""
        end = time.monotonic() + seconds
        try:
            while len(group) < GROUP and not self._closing:
                self._take(self._inbox.get(timeout=max(0.0, end - time.monotonic())), group)
                if group[-1].urgent:
                    self._take_waiting(group)
                    return
        except queue.Empty:
            pass

    def _take(self, operation: Operation | None, group: list[Operation]) -> None:
        if operation is None:
            self._closing = True
        else:
            group.append(operation)

    def _write(self, group: list[Operation]) -> None:
        group.sort(key=_reads)
        began = time.monotonic()
        results = attempt(self._store, group)
        self._meters.commits.observe(time.monotonic() - began)
        self._meters.groups.observe(len(group))
        trouble = _trouble(results)
        self._ailing = trouble is not None
        told: Results = []
        for operations, error in results:
            done = operations
            if error is not None:
                self._kept += [operation for operation in operations if operation.keep]
                done = [operation for operation in operations if not operation.keep]
            told.append((done, error))
        self._tell(partial(self._finish, told, trouble))
        if self._closing and self._kept:
            log.error("store.outcomes_lost", count=len(self._kept))

    def _finish(self, results: Results, trouble: Exception | None) -> None:
        """In Trio's thread, once for a group: each call into it wakes it by a system call."""
        self._health.learn(trouble)
        for operations, error in results:
            for operation in operations:
                operation.done(error)

    def _tell(self, what: Callable[[], object]) -> None:
        with contextlib.suppress(trio.RunFinishedError):  # nobody is left to be told
            self._token.run_sync_soon(what)


class InlineWriter:
    """Writes at once, in Trio's own thread, an operation a transaction.

    For simulations and tests on virtual time: Trio's autojump clock sees tasks, not threads, and
    would jump past a deadline while a thread writes. With this one nothing is ever under way when
    all tasks sleep. It blocks the loop for each fsync; no server should want it.
    """

    def __init__(self, store: Applies) -> None:
        self._store = store
        self._health = _Health()
        self._waiting: deque[Operation] = deque()
        self._kept: list[Operation] = []
        self._writing = False

    @property
    def trouble(self) -> str | None:
        """Why nothing can be written just now."""
        return self._health.trouble

    def submit(self, operation: Operation) -> None:
        """See `Writer`. It is written when this returns, unless a write asked for this one."""
        self._waiting.append(operation)
        if self._writing:
            return
        self._writing = True
        try:
            while self._waiting:
                self._write([self._waiting.popleft()])
                if self._kept and self.trouble is None:
                    self.retry()  # the disk is well again, and nobody else will notice
        finally:
            self._writing = False

    def retry(self) -> None:
        """See `Writer`."""
        kept, self._kept = self._kept, []
        if kept or self.trouble:
            self._write(kept or [Call(probe)])

    async def close(self) -> None:
        """See `Writer`."""
        self.retry()
        if self._kept:
            log.error("store.outcomes_lost", count=len(self._kept))
        await trio.lowlevel.cancel_shielded_checkpoint()

    def _write(self, group: list[Operation]) -> None:
        results = attempt(self._store, group)
        self._health.learn(_trouble(results))
        for operations, error in results:
            for operation in operations:
                if error is not None and operation.keep:
                    self._kept.append(operation)
                else:
                    operation.done(error)


#: Operations that were tried together, and why they were not written, if they were not.
Results: TypeAlias = list[tuple[list["Operation"], Exception | None]]


def attempt(store: Applies, group: list[Operation]) -> Results:
    """Write a group; say which of it are durable, and why others are not.

    An error that is not the disk's may be one operation's own: then each is tried by itself, so
    that it harms no other.
    """
    try:
        store.apply(group)
    except sqlite3.OperationalError as error:
        return [(group, error)]
    except Exception as error:  # whatever it is: whoever waits must learn that nothing was kept
        if len(group) == 1:
            return [(group, error)]
        return [result for operation in group for result in attempt(store, [operation])]
    return [(group, None)]


def _trouble(results: Results) -> Exception | None:
    """What is wrong with the store itself, if that is where the fault lies.

    One operation's own fault is only trouble if that operation must be kept.
    """
    for operations, error in results:
        own = not isinstance(error, sqlite3.Error) or isinstance(error, sqlite3.IntegrityError)
        if error is not None and (not own or any(operation.keep for operation in operations)):
            return error
    return None


def _reads(operation: Operation) -> bool:
    return operation.reads


def probe(connection: sqlite3.Connection) -> None:
    """Write something, to learn whether that works."""
    connection.execute("INSERT OR REPLACE INTO tally VALUES ('probe', ?)", (time.time(),))
