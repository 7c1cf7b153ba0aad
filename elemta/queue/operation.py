"""What the store is asked to write, and how who asked learns that it is durable."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import outcome
import trio
from msgspec import Struct
from typing_extensions import override

from elemta.queue.errors import StoreUnavailable

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

#: What a column can hold.
Value: TypeAlias = int | float | str | bytes | None


class Rows(Struct):
    """What one transaction writes: for each statement its values, row after row.

    Attributes:
        messages: key, phase, recipients, record.
        bodies: key, content.
        finished: key, phase, outcome.
        scattered: key; the message gets recipient rows.
        gathered: key; its recipient rows go.
        recipients: key, number, state, due, standing.
        attempts: key, number, ordinal, record.
        notes: key, record.
        renewed: key, record of the message, in place of the one it has.
        scheduled: key, due.
        receipts: key, id, digest, at.
        dead_bodies: key.
        dead_files: ids, whose files are removed once the transaction is durable.
    """

    messages: list[Value] = []
    bodies: list[Value] = []
    finished: list[Value] = []
    scattered: list[Value] = []
    gathered: list[Value] = []
    recipients: list[Value] = []
    attempts: list[Value] = []
    notes: list[Value] = []
    renewed: list[Value] = []
    scheduled: list[Value] = []
    receipts: list[Value] = []
    dead_bodies: list[Value] = []
    dead_files: list[str] = []


class Operation:
    """One thing to write. Everything that waits becomes one transaction.

    `collect` and `run` are called in the writer's thread, and again if a transaction fails;
    `done` in Trio's.
    """

    #: Tried again until it is written, since what it says has happened already.
    keep: bool = False
    #: Somebody waits for it. What nobody waits for is held back a moment, to share a commit.
    urgent: bool = True
    #: Reads: it sees all that its group writes, also what was submitted after it; so it is told
    #: after all the others, who then have done what follows from their writes.
    reads: bool = False

    def __init__(self) -> None:
        self._settled = False
        self._error: Exception | None = None
        self._task: trio.lowlevel.Task | None = None

    def collect(self, rows: Rows) -> None:
        """Say what is to be written."""

    def run(self, connection: sqlite3.Connection) -> None:
        """Do what `Rows` has no word for; after all that is collected was written."""

    def written(self) -> None:
        """It is durable: what follows from that, before anybody who waits goes on."""

    def failed(self) -> None:
        """It was not written and never will be."""

    def done(self, error: Exception | None) -> None:
        """For the writer: it is durable, or else it was not written."""
        self._settled = True
        self._error = error
        if error is None:
            self.written()
        else:
            self.failed()
        if self._task is not None:
            trio.lowlevel.reschedule(self._task, self._outcome())
            self._task = None

    async def wait(self, *, abandonable: bool = False) -> None:
        """Wait until it is durable.

        Args:
            abandonable: a cancellation ends the waiting (never the writing). Otherwise there is
                no way out: a commit on its way cannot be called back.

        Raises:
            StoreUnavailable: the disk; nothing was kept.
        """
        if self._settled:
            await trio.lowlevel.cancel_shielded_checkpoint()
            self._outcome().unwrap()
            return

        def abort(_: object) -> trio.lowlevel.Abort:
            if not abandonable:
                return trio.lowlevel.Abort.FAILED
            self._task = None
            return trio.lowlevel.Abort.SUCCEEDED

        self._task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(abort)

    def _outcome(self) -> outcome.Outcome[None]:
        if self._error is None:
            return outcome.Value(None)
        # A fresh exception for each who waits: a traceback is not shared.
        error = StoreUnavailable(str(self._error))
        error.__cause__ = self._error
        return outcome.Error(error)


class Call(Operation):
    """Anything else, after what its group writes: fetching, pruning, probing.

    Args:
        function: what to do.
        then: told that it is durable.
    """

    reads = True

    def __init__(
        self,
        function: Callable[[sqlite3.Connection], None],
        then: Callable[[], None] | None = None,
    ) -> None:
        super().__init__()
        self._function = function
        self._then = then

    @override
    def run(self, connection: sqlite3.Connection) -> None:
        self._function(connection)

    @override
    def written(self) -> None:
        if self._then is not None:
            self._then()
