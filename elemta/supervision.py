"""Keeps the parts of a server running: what fails is started again, after a pause, and counted.

A fault of ours in one part must not keep mail from coming in or going out by the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import trio
from msgspec import Struct

from elemta.log import logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

log = logger(__name__)

#: Seconds until a part that failed is started again; doubled each time.
PAUSE: Final = 1.0
#: Seconds that pause never exceeds; and after which a part that ran so long counts as sound.
LONGEST_PAUSE: Final = 60.0


class Part(Struct, frozen=True, kw_only=True):
    """How it stands with a part of the server.

    Attributes:
        running: False while it waits to be started again, and once it is over.
        restarts: how often it was started again.
        failure: what it failed with last; None if it never did, or has been sound since.
    """

    name: str
    running: bool
    restarts: int
    failure: str | None = None


class Keeps(Protocol):
    """Runs a part of the server for as long as it should run."""

    async def __call__(self, name: str, run: Callable[[], Awaitable[object]], /) -> None:
        """Run it until it ends by itself."""
        ...


async def once(name: str, run: Callable[[], Awaitable[object]], /) -> None:
    """Run a part without supervision: it fails with whoever runs it."""
    await run()


class Supervision:
    """Starts parts again that failed, until we stop."""

    def __init__(self) -> None:
        self._kept: list[_Kept] = []
        self._stopping = trio.Event()

    @property
    def parts(self) -> tuple[Part, ...]:
        """All parts, in the order in which they were begun."""
        return tuple(each.part(trio.current_time()) for each in self._kept)

    async def keep(self, name: str, run: Callable[[], Awaitable[object]]) -> None:
        """Run a part until it ends by itself; begin anew if it fails, unless we are stopping.

        A part that is cancelled is no part any more.
        """
        kept = _Kept(name)
        self._kept.append(kept)
        try:
            await self._keep(kept, run)
        except BaseException:
            self._kept.remove(kept)
            raise

    async def _keep(self, kept: _Kept, run: Callable[[], Awaitable[object]]) -> None:
        pause, name = PAUSE, kept.name
        while True:
            kept.began = began = trio.current_time()
            try:
                await run()
            except Exception as error:  # what it is for: no part takes the others with it
                if trio.current_time() - began > LONGEST_PAUSE:
                    pause = PAUSE
                kept.failure = words_of(error)
                log.exception("part.failed", part=name, pause=pause, restarts=kept.restarts)
            else:
                return
            finally:
                kept.began = None
            with trio.move_on_after(pause):
                await self._stopping.wait()
                return
            pause = min(2 * pause, LONGEST_PAUSE)
            kept.restarts += 1

    def stop(self) -> None:
        """From now on start nothing again; what runs goes on."""
        self._stopping.set()


def words_of(error: BaseException) -> str:
    """What failed, in a line; of several that failed together the first."""
    if isinstance(error, BaseExceptionGroup):
        return words_of(error.exceptions[0])  # pyright: ignore # a group does not say of what
    return f"{type(error).__name__}: {error}"


class _Kept:
    def __init__(self, name: str) -> None:
        self.name = name
        self.restarts = 0
        self.failure: str | None = None
        self.began: float | None = None

    def part(self, now: float) -> Part:
        sound = self.began is not None and now - self.began > LONGEST_PAUSE
        return Part(
            name=self.name,
            running=self.began is not None,
            restarts=self.restarts,
            failure=None if sound else self.failure,
        )
