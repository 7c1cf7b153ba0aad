"""What a worker of delivery holds: a place in a lane, and then some work. Both by `with`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self

import outcome
import trio

if TYPE_CHECKING:
    from elemta.queue.bodies import StoredBody
    from elemta.queue.entry import Entry
    from elemta.queue.lane import Lane
    from elemta.queue.model import Message, Recipient

#: Works that a worker may do in a row while others wait for its place.
FAIR: int = 20


class Gives(Protocol):
    """What `Claim` and `Work` need of the queue."""

    def take(self, claim: Claim, most: int) -> Work | None:
        """See `Claim.take`."""
        ...

    def rest(self, claim: Claim, deadline: float) -> bool:
        """This worker would wait for work; whether it may."""
        ...

    def stir(self, claim: Claim) -> None:
        """This worker waits no more."""
        ...

    def succeeded(self, lane: Lane) -> None:
        """See `Claim.succeeded`."""
        ...

    def failed(self, lane: Lane, *, park: bool, reason: str) -> None:
        """See `Claim.failed`."""
        ...

    def release(self, claim: Claim) -> None:
        """The worker leaves."""
        ...

    def give_back(self, work: Work) -> None:
        """A work ends; what it has open is ready again."""
        ...

    async def body_of(self, entry: Entry) -> StoredBody:
        """See `Work.body`."""
        ...


class Claim:
    """A place in a lane's window: one worker, one connection. Made by `Queue.claim`.

    Attributes:
        taken: how many works came of it.
    """

    def __init__(self, queue: Gives, lane: Lane) -> None:
        self._queue = queue
        self._lane = lane
        self._task: trio.lowlevel.Task | None = None
        self._most = 0
        self._released = False
        self.taken = 0

    @property
    def place(self) -> Lane:
        """For the queue: the lane itself."""
        return self._lane

    @property
    def lane(self) -> str:
        """The name of the lane."""
        return self._lane.name

    @property
    def counted(self) -> bool:
        """Whether connections of this lane are counted, this claim being one of them.

        Who has none any more then leaves, and does not make another by the same claim.
        """
        return self._lane.meters is not None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._released:
            self._released = True
            self._queue.release(self)

    def take(self, most: int = 100) -> Work | None:
        """The next work of this lane, if there is any and this worker should go on.

        It should not once it has done `FAIR` works while lanes wait that have no worker at all,
        nor when the lane is parked, suspended, out of its rates, or has more workers than places.

        Args:
            most: recipients at most.
        """
        return self._queue.take(self, most)

    async def wait(self, timeout: float, most: int = 100) -> Work | None:  # noqa: ASYNC109 # no scope: it is looked after by the queue
        """Wait for work.

        Returns:
            None after `timeout` seconds (rounded up to the next look of the queue, once a second),
            or sooner when others need the place.
        """
        work = self.take(most)
        if work is not None or not self._queue.rest(self, trio.current_time() + timeout):
            await trio.lowlevel.cancel_shielded_checkpoint()
            return work
        self._most = most
        self._task = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            self._task = None
            self._queue.stir(self)
            return trio.lowlevel.Abort.SUCCEEDED

        found: Work | None = await trio.lowlevel.wait_task_rescheduled(abort)
        return found

    def hand(self, *, empty: bool = False) -> None:
        """For the queue: end the waiting, with work if there is any."""
        assert self._task is not None, "only who waits is handed anything"
        task, self._task = self._task, None
        self._queue.stir(self)
        work = None if empty else self._queue.take(self, self._most)
        trio.lowlevel.reschedule(task, outcome.Value(work))

    def dismiss(self) -> None:
        """End the waiting with nothing, if somebody waits."""
        if self._task is not None:
            self.hand(empty=True)

    def succeeded(self) -> None:
        """The destination took something: the lane's window grows."""
        self._queue.succeeded(self._lane)

    def failed(self, *, park: bool = False, reason: str = "") -> None:
        """The destination turned us away: the lane's window shrinks.

        Args:
            park: it did not answer at all: nobody goes there for a while; then one worker tries.
            reason: what it said, or what went wrong, for people.
        """
        self._queue.failed(self._lane, park=park, reason=reason)


class Work:
    """Some recipients of one message, to be tried together. Made by `Claim.take`.

    Leave its `with` block with something not settled, and that is ready again.

    Attributes:
        message: with all its recipients.
        recipients: those to be tried.
        overdue: not to be tried: the destination is closed (parked, suspended or out of its
            rates), or we were down for long, and the time has come to tell the sender. Connect to
            nobody and settle each as DEFERRED, with what was said last: `Queue.expires` and
            `Queue.warns` say what of it the sender is told.
    """

    def __init__(
        self,
        queue: Gives,
        entry: Entry,
        lane: str,
        recipients: list[Recipient],
        *,
        overdue: bool = False,
    ) -> None:
        self._queue = queue
        self.entry = entry
        """For the queue."""
        self.lane = lane
        self.message: Message = entry.message
        self.recipients = tuple(recipients)
        self.overdue = overdue
        self.open: dict[int, Recipient] = {each.number: each for each in recipients}
        """For the queue: what is not settled yet."""
        self._ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._ended:
            self._ended = True
            self._queue.give_back(self)

    async def body(self) -> StoredBody:
        """The content of the message.

        Raises:
            StoreUnavailable: it cannot be read just now.
        """
        return await self._queue.body_of(self.entry)
