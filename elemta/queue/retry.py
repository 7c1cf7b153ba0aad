"""When to try again, and when to give up (RFC 5321 §4.5.4.1)."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Callable

_MINUTE: Final = 60.0
_HOUR: Final = 3600.0
_DAY: Final = 86400.0


class RetryPolicy(Struct, frozen=True, kw_only=True):
    """How patient the queue is. All in seconds.

    Attributes:
        schedule: to wait after the first failed attempt, the second, …; the last is repeated.
            RFC 5321 asks for at least 30 minutes, but for the first ones, which greylisting wants
            sooner.
        jitter: the share by which a wait may be shorter or longer, so that what failed together
            is not tried together for ever.
        lifetime: how long a message is tried (RFC 5321: at least 4 to 5 days).
    """

    schedule: tuple[float, ...] = (
        5 * _MINUTE,
        10 * _MINUTE,
        20 * _MINUTE,
        40 * _MINUTE,
        1 * _HOUR,
        2 * _HOUR,
        4 * _HOUR,
    )
    jitter: float = 0.1
    lifetime: float = 5 * _DAY

    def __post_init__(self) -> None:
        if not self.schedule or min(self.schedule) <= 0:
            raise ValueError("a retry schedule has at least one wait, and each is above 0 s")
        if not 0 <= self.jitter < 1:
            raise ValueError("jitter is a share of the wait: at least 0, below 1")
        if self.lifetime <= 0:
            raise ValueError("a lifetime is above 0 s")

    def delay(self, attempts: int, chance: Callable[[], float] = random.random) -> float:
        """Seconds to wait after the `attempts`-th attempt failed.

        Args:
            attempts: from 1.
            chance: a number from 0 to 1.
        """
        wait = self.schedule[min(attempts, len(self.schedule)) - 1]
        return wait * (1 + self.jitter * (2 * chance() - 1))

    def shortest_delay(self, attempts: int) -> float:
        """The same with the luck that makes it shortest."""
        return self.delay(attempts, lambda: 0.0)
