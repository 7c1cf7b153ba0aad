"""How much memory all messages on their way in may take together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self

import trio

if TYPE_CHECKING:
    from types import TracebackType

#: Seconds to wait for memory: far below the 10 min that a client waits (RFC 5321 §4.5.3.2.6).
PATIENCE: Final = 30.0


class Budget:
    """Octets that are shared by all sessions.

    Args:
        octets: how many there are.
        patience: seconds to wait for some to become free.
    """

    def __init__(self, octets: int, patience: float = PATIENCE) -> None:
        self.total = octets
        self.free = octets
        self.patience = patience
        self._waiting = 0
        self._changed = trio.Event()

    def share(self) -> Share:
        """A share for one message, empty at first; what it grew by is given back by ``with``."""
        return Share(self)

    def resize(self, octets: int) -> None:
        """Change how many there are; what is held beyond that is not taken away."""
        change, self.total = octets - self.total, octets
        self.give_back(change)

    def give_back(self, octets: int) -> None:
        """Make octets free again, and wake those who wait for some."""
        self.free += octets
        if self._waiting:
            self._changed.set()
            self._changed = trio.Event()

    async def wait(self, octets: int) -> bool:
        """Wait until so many are free; False if it took too long."""
        self._waiting += 1
        try:
            with trio.move_on_after(self.patience):
                while self.free < octets:
                    await self._changed.wait()
                return True
            return False
        finally:
            self._waiting -= 1


class Share:
    """What one message holds of a `Budget`."""

    __slots__ = ("_budget", "held")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.held = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.give_back()

    def grow(self, octets: int) -> bool:
        """Take some more at once; False, and nothing is taken, if they are not free."""
        if octets > self._budget.free:
            return False
        self._budget.free -= octets
        self.held += octets
        return True

    async def wait(self, octets: int) -> bool:
        """Take some more as soon as they are free; False, and nothing is taken, if never."""
        while await self._budget.wait(octets):
            if self.grow(octets):  # nobody was quicker
                return True
        return False

    def give_back(self) -> None:
        """Give all of it back."""
        if self.held:
            self._budget.give_back(self.held)
            self.held = 0
