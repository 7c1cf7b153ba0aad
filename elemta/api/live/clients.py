"""How many listen at a time."""

from __future__ import annotations

from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from elemta.api.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Generator

#: Clients that stay, at a time: each is a descriptor, a task or three, and what waits for it.
CLIENTS: Final = 500
#: Seconds after which one who was turned away may try again.
AGAIN_IN: Final = 10


class Clients:
    """Those who stay.

    Args:
        most: that there may be.

    Attributes:
        count: that there are.
    """

    def __init__(self, most: int = CLIENTS) -> None:
        self._most = most
        self.count = 0

    @contextmanager
    def place(self) -> Generator[None]:
        """Be one of them.

        Raises:
            Problem: 503, there are enough.
        """
        if self.count >= self._most:
            raise Problem(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"{self._most} clients listen already",
                headers={"Retry-After": str(AGAIN_IN)},
            )
        self.count += 1
        try:
            yield
        finally:
            self.count -= 1
