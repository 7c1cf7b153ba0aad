"""How often somebody may be wrong about who they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from elemta.net.limits import network

if TYPE_CHECKING:
    from collections.abc import Callable

#: Wrong guesses of one client network, and of all together, before they have to wait.
OF_ONE: Final = 10
OF_ALL: Final = 200
#: Seconds in which so many are forgotten again.
WINDOW: Final = 60.0


class Guesses:
    """Counts wrong guesses, and forgets them evenly.

    What is remembered is bounded, since nobody may guess more than `OF_ALL` lets them.

    Args:
        clock: seconds, from any beginning.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._all = _Level(OF_ALL)
        self._of: dict[str, _Level] = {}

    def wait(self, client: str) -> float:
        """Seconds until this address may guess again; 0: it may now."""
        now = self._clock()
        own = self._of.get(network(client))
        return max(self._all.wait(now), own.wait(now) if own is not None else 0.0)

    def wrong(self, client: str) -> None:
        """Somebody at this address was wrong."""
        now = self._clock()
        self._all.add(now)
        for key in [key for key, level in self._of.items() if level.empty(now)]:
            del self._of[key]
        self._of.setdefault(network(client), _Level(OF_ONE)).add(now)


class _Level:
    """What fills by one at a time, and runs empty within `WINDOW`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rate = limit / WINDOW
        self._level = 0.0
        self._at = 0.0

    def _now(self, now: float) -> float:
        return max(0.0, self._level - (now - self._at) * self._rate)

    def wait(self, now: float) -> float:
        over = self._now(now) - (self._limit - 1)
        return max(0.0, over / self._rate)

    def empty(self, now: float) -> bool:
        return self._now(now) <= 0.0

    def add(self, now: float) -> None:
        self._level, self._at = self._now(now) + 1.0, now
