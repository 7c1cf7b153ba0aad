"""What an operator closes and opens: suspensions as they begin and end, and probes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elemta.queue import events as happened

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from elemta.queue.events import EventBus
    from elemta.queue.floor import Floor
    from elemta.queue.residence import Residence
    from elemta.queue.schedule import Schedule
    from elemta.queue.suspension import Suspension, Suspensions


class Gate:
    """Keeps the schedule to what is suspended.

    Args:
        suspensions: those that hold.
    """

    def __init__(
        self,
        suspensions: Suspensions,
        schedule: Schedule,
        floor: Floor,
        events: EventBus,
        clock: Callable[[], float],
    ) -> None:
        self._suspensions = suspensions
        self._schedule = schedule
        self._floor = floor
        self._events = events
        self._clock = clock
        schedule.suspend(suspensions.scopes, clock())

    @property
    def suspensions(self) -> tuple[Suspension, ...]:
        """What is suspended."""
        return tuple(self._suspensions)

    async def suspend(self, suspension: Suspension, residence: Residence) -> None:
        """See `Queue.suspend`."""
        await self._suspensions.put(suspension)
        now = self._clock()
        self._events.publish(
            happened.Suspended(
                self._events.next(),
                now,
                suspension.scope,
                suspension.reason,
                suspension.who,
                suspension.until,
            )
        )
        self._apply(residence, now)

    async def resume(self, scope: str, residence: Residence) -> bool:
        """See `Queue.resume`."""
        found = await self._suspensions.end(scope)
        if found:
            self._ended([scope], residence, self._clock())
        return found

    def end_over(self, residence: Residence, now: float) -> float:
        """End those whose time is over; when that of the next one is."""
        if scopes := self._suspensions.over(now):
            self._ended(scopes, residence, now)
        return self._suspensions.next_end

    def _ended(self, scopes: Sequence[str], residence: Residence, now: float) -> None:
        for scope in scopes:
            self._events.publish(happened.Resumed(self._events.next(), now, scope))
        self._apply(residence, now)

    def _apply(self, residence: Residence, now: float) -> None:
        anew = self._schedule.suspend(self._suspensions.scopes, now)
        self._floor.end_suspended_rest()
        residence.wake_by(min(self._suspensions.next_end, self._schedule.next_wake(now)))
        if anew:
            residence.restart(now)
        else:
            residence.serve(now)
