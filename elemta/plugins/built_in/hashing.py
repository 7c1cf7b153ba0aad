"""Passwords held against hashes in threads: few at a time, as each takes memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from elemta.login import verify_password

if TYPE_CHECKING:
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
        async with self._turns:
            # Not given up halfway: it would go on, and others beside it, more than we have said.
            with trio.CancelScope(shield=True, deadline=trio.current_time() + HASHING):
                return await self._tools.in_thread(lambda: verify_password(kept, password))
            raise trio.TooSlowError
