"""Passwords held against hashes in threads: few at a time, as each takes memory."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio

from elemta.login import verify_password

if TYPE_CHECKING:
    from collections.abc import Callable

    from elemta.plugins import Tools

#: Seconds that one may take: what is begun goes on, whoever has gone.
HASHING: Final = 10.0


class Hashing:
    """Verifies passwords.

    Args:
        most: so many at a time.
        tools: of the plugin.
    """

    def __init__(self, most: int, tools: Tools) -> None:
        self._turns = trio.CapacityLimiter(most)
        self._tools = tools

    async def verify(self, kept: str, password: str) -> bool:
        """Whether a password is the one that was hashed.

        Args:
            kept: see `verify_password`.
            password: prepared.

        Raises:
            trio.TooSlowError: it takes too long.
        """
        turn = _Turn(self._turns)
        await self._turns.acquire_on_behalf_of(turn)
        try:
            # Not given up halfway for want of a client: it would go on for nobody.
            with trio.CancelScope(shield=True, deadline=trio.current_time() + HASHING):
                return await self._tools.in_thread(
                    lambda: turn.take(lambda: verify_password(kept, password))
                )
            raise trio.TooSlowError
        finally:
            turn.leave()


class _Turn:
    """Somebody's turn, which is over when his thread is: nobody can end that, if it is too slow.

    Else more would be hashed at a time than we have said, on a machine that is too slow already.
    """

    def __init__(self, turns: trio.CapacityLimiter) -> None:
        self._turns = turns
        self._token = trio.lowlevel.current_trio_token()
        self._lock = threading.Lock()
        self._begun = self._over = False

    def take(self, call: Callable[[], bool]) -> bool:
        """In the thread."""
        with self._lock:
            if self._over:
                return False  # nobody waits for it any more
            self._begun = True
        try:
            return call()
        finally:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._turns.release_on_behalf_of, self)

    def leave(self) -> None:
        """Nobody waits any more: what has not begun will not."""
        with self._lock:
            self._over = True
            begun = self._begun
        if not begun:
            self._turns.release_on_behalf_of(self)
