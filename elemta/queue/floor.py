"""Where workers meet work: who waits for a lane, who rests in one, and who is served."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Final

import outcome
import trio

from elemta.queue.work import FAIR, Claim

if TYPE_CHECKING:
    from collections.abc import Callable

    from elemta.queue.lane import Lane
    from elemta.queue.schedule import Schedule
    from elemta.queue.work import Gives

#: Seconds between two looks at who has rested for too long.
LOOK: Final = 1.0


class Floor:
    """The workers of a queue.

    Args:
        queue: what their claims speak to.
        schedule: what they are to do.
        clock: seconds since the epoch.
    """

    def __init__(self, queue: Gives, schedule: Schedule, clock: Callable[[], float]) -> None:
        self._queue = queue
        self._schedule = schedule
        self._clock = clock
        self._claimants: deque[trio.lowlevel.Task] = deque()
        self._resting: dict[Claim, float] = {}
        self._idle: dict[Lane, list[Claim]] = {}

    async def claim(self) -> Claim:
        """See `Queue.claim`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        lane = None if self._claimants else self._schedule.claim(self._clock())
        if lane is not None:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return Claim(self._queue, lane)
        task = trio.lowlevel.current_task()
        self._claimants.append(task)
        self._make_room()

        def abort(_: object) -> trio.lowlevel.Abort:
            self._claimants.remove(task)
            return trio.lowlevel.Abort.SUCCEEDED

        claim: Claim = await trio.lowlevel.wait_task_rescheduled(abort)
        return claim

    def serve(self) -> None:
        """Something is ready, or a place is free: wake those whom that concerns."""
        called = self._schedule.called
        if called:
            if self._idle:
                for lane in called:
                    # Who rested last goes first, so that connections not needed can end.
                    while lane.gives and (idle := self._idle.get(lane)):
                        idle[-1].hand()
            called.clear()
        if self._claimants and self._schedule.listed:
            now = self._clock()
            while self._claimants and (lane_to_claim := self._schedule.claim(now)) is not None:
                claim = Claim(self._queue, lane_to_claim)
                trio.lowlevel.reschedule(self._claimants.popleft(), outcome.Value(claim))
        if self._resting:
            self._make_room()

    def rest(self, claim: Claim, deadline: float) -> bool:
        """This worker would wait for work in its lane, until `deadline` (Trio time).

        Returns:
            Whether it may: not while others need its place.
        """
        if self._schedule.crowded:
            return False
        self._resting[claim] = deadline
        self._idle.setdefault(claim.place, []).append(claim)
        return True

    def stir(self, claim: Claim) -> None:
        """This worker waits no more."""
        del self._resting[claim]
        idle = self._idle[claim.place]
        idle.remove(claim)
        if not idle:
            del self._idle[claim.place]

    def end_rest(self, lane: Lane) -> None:
        """Send away all who rest in this lane."""
        for claim in list(self._idle.get(lane, ())):
            claim.hand(empty=True)

    def end_suspended_rest(self) -> None:
        """Send away all who rest where nothing is to be tried by order."""
        for lane in [lane for lane in self._idle if lane.suspended is not None]:
            self.end_rest(lane)

    def end_overdue_rest(self, now: float) -> None:
        """Send away who has rested for long enough; `now` is Trio time."""
        for claim in [claim for claim, deadline in self._resting.items() if deadline <= now]:
            claim.hand(empty=True)

    @property
    def next_look(self) -> float:
        """Seconds until `end_overdue_rest` should be called again; infinity if nobody rests."""
        return LOOK if self._resting else math.inf

    def may_go_on(self, claim: Claim) -> bool:
        """Whether a worker should take more, or make room for lanes that have none.

        Where the destination has turned us away, there may be more workers than places.
        """
        lane = claim.place
        return lane.workers <= lane.window and (claim.taken < FAIR or not self._schedule.crowded)

    def _make_room(self) -> None:
        if self._schedule.crowded and self._resting:
            next(iter(self._resting)).hand(empty=True)
