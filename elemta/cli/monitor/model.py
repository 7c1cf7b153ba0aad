"""What the monitor knows, apart from how it looks."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from elemta.cli.screens import event_line
from elemta.queue import Destination, Missed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from elemta.control.interface import Happening, Status

#: Rates that are shown, by the events that are counted for them.
RATES: Final[Mapping[str, tuple[str, ...]]] = {
    "in": ("Queued",),
    "delivered": ("Delivered",),
    "deferred": ("Deferred",),
    "failed": ("Failed", "Expired"),
}
#: What there are connections for.
EVENTS: Final = "events"
LOOKING: Final = "looking"
_DESTINATION: Final = "destination:"
#: Looks back: one a second.
LOOKS: Final = 120
#: Events that are remembered.
REMEMBERED: Final = 1000


class Rate:
    """How much happened, look by look."""

    def __init__(self) -> None:
        self._last: tuple[float, int] | None = None
        self.looks: deque[float] = deque(maxlen=LOOKS)
        """A second, between one look and the next; the newest last."""

    def look(self, at: float, count: int) -> None:
        """Note how much happened so far.

        Args:
            at: seconds, of the server's clock.
            count: since the server started; less than last time: it was started again.
        """
        if self._last is not None:
            before, counted = self._last
            if at <= before:
                return
            happened = count - counted if count >= counted else count
            self.looks.append(happened / (at - before))
        self._last = at, count

    @property
    def now(self) -> float:
        """The last one."""
        return self.looks[-1] if self.looks else 0.0


def _quiet(listed: list[Destination], suspended: Sequence[str]) -> list[Destination]:
    """Destinations that are suspended, and where nothing waits just now."""
    known = {each.name for each in listed}
    return [
        Destination(
            name=name, ready=0, on_disk=0, workers=0, window=0, parked_until=None, parks=0,
            suspended=scope, throttled_until=None, error="",
        )
        for scope in suspended
        if (name := scope.removeprefix(_DESTINATION)) != scope and name not in known
    ]  # fmt: skip


class Model:
    """What the monitor knows.

    Args:
        clock: seconds, from whenever.

    Attributes:
        status: as it was last.
        destinations: the busiest first.
        suspended: scopes that are more than a destination.
        events: what happened, the newest last.
        rates: by name.
        lost: why connections are missing, and when the next try is, by what they are for.
        hears: events are heard.
        missed: events that were told as lost.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.status: Status | None = None
        self.destinations: list[Destination] = []
        self.suspended: list[str] = []
        self.events: deque[Happening] = deque(maxlen=REMEMBERED)
        self.rates = {name: Rate() for name in RATES}
        self.lost: dict[str, tuple[str, float]] = {}
        self.hears = False
        self.missed = 0

    def look(
        self, status: Status, destinations: list[Destination], suspended: Sequence[str] = ()
    ) -> None:
        """Take over how the server is.

        Args:
            status: of the server.
            destinations: as it lists them: those where something waits just now.
            suspended: all scopes that are. A destination among them is listed in any case, as
                somebody may want to resume it.
        """
        self.status = status
        destinations += _quiet(destinations, suspended)
        self.suspended = [scope for scope in suspended if not scope.startswith(_DESTINATION)]
        for name, counted in RATES.items():
            count = sum(status.counts.get(each, 0) for each in counted)
            self.rates[name].look(status.asked_at, count)
        destinations.sort(key=lambda each: (-each.workers, -each.ready - each.on_disk, each.name))
        self.destinations = destinations

    def hear(self, event: Happening) -> None:
        """Something happened."""
        if isinstance(event, Missed):
            self.missed += event.count
        self.events.append(event)

    def lose(self, part: str, why: str, pause: float) -> None:
        """There is no connection for this."""
        self.lost[part] = why, self._clock() + pause
        self.hears = self.hears and part != EVENTS

    def regain(self, part: str) -> None:
        """There is one."""
        self.lost.pop(part, None)
        self.hears = self.hears or part == EVENTS

    @property
    def trouble(self) -> tuple[str, float] | None:
        """Why something is not heard or seen, and seconds until the next try; None: all is."""
        if not self.lost:
            return None
        why, at = max(self.lost.values(), key=lambda each: each[1])
        return why, max(0.0, at - self._clock())

    def lines(self, wanted: str, count: int) -> list[str]:
        """The last events that have a text in them, case ignored, as lines; the newest last."""
        found: list[str] = []
        folded = wanted.casefold()
        for event in reversed(self.events):
            line = event_line(event, numbered=False)
            if folded in line.casefold():
                found.append(line)
                if len(found) >= count:
                    break
        return found[::-1]
