"""Stays connected to a server: comes back by itself, and goes on where it was."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Final, TypeAlias

import trio

from elemta.control.interface import (
    ControlError,
    ForbiddenError,
    RequestError,
    UnknownError,
)
from elemta.queue import Missed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from elemta.control.interface import Control, Happening

#: Reaches the server. Raises ControlError if it cannot be reached.
Reach: TypeAlias = "Callable[[], AbstractAsyncContextManager[Control]]"
#: Is told why there is no connection, and in how many seconds the next try is.
Lost: TypeAlias = "Callable[[str, float], None]"

#: Seconds until the next try: at first, and at most; each is twice the last.
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 5.0
#: Seconds that a connection must hold, for the pauses to begin anew.
GOOD: Final = 10.0
#: What does not go away by trying again.
_FINAL: Final = (ForbiddenError, RequestError, UnknownError)


async def persist(reach: Reach, use: Callable[[Control], Awaitable[None]], lost: Lost) -> None:
    """Use a server, again and again, until cancelled.

    Args:
        reach: connects.
        use: is given each connection; whatever ends it but an error ends this too.
        lost: is told of each end.

    Raises:
        ControlError: the first try failed; or trying again would not help.
    """
    pause, ever = FIRST_PAUSE, False
    while True:
        began: float | None = None
        try:
            async with reach() as server:
                began, ever = trio.current_time(), True
                await use(server)
                return
        except _FINAL:
            raise
        except ControlError as error:
            if not ever:
                raise
            why = str(error)
        if began is not None and trio.current_time() - began >= GOOD:
            pause = FIRST_PAUSE
        lost(why, pause)
        await trio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


class Follower:
    """Hears all events, over as many connections as it takes.

    Args:
        tell: is told of each, and of what was missed.
        connected: is called when there is a connection.
        since: begin after this one; None: with what happens from now on.
    """

    def __init__(
        self,
        tell: Callable[[Happening], None],
        connected: Callable[[], None] = lambda: None,
        since: int | None = None,
    ) -> None:
        self._tell = tell
        self._connected = connected
        self._since = since

    async def follow(self, server: Control) -> None:
        """For `persist`."""
        if self._since is None:  # so that nothing is lost if the connection is, before an event
            self._since = (await server.status()).event
        self._connected()
        async with aclosing(server.events(self._since)) as events:
            async for event in events:
                if isinstance(event, Missed):
                    self._since = max(event.last, 0 if event.restarted else self._since)
                else:
                    self._since = event.number
                self._tell(event)
