"""What several nodes tell without end, as one stream, for as long as somebody listens."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from elemta.control.interface import ControlError, UnavailableError
from elemta.log import logger
from elemta.net.feed import Feed, Lost
from elemta.queue import Missed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from elemta.control.interface import Control
    from elemta.nodes.asking import Reach

log = logger(__name__)

T = TypeVar("T")

#: Things that who listens may be behind.
_BEHIND: Final = 10_000
#: Seconds until a node whose stream has ended is asked for more.
PAUSE: Final = 1.0


class Streams:
    """Runs what listens to nodes.

    It is no nursery of who listens here: an async generator must not hold one, as it is left
    wherever it happens to wait.
    """

    def __init__(self) -> None:
        self._nursery: trio.Nursery | None = None

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None

    async def merged(
        self, sources: Sequence[AsyncGenerator[T | Missed]]
    ) -> AsyncGenerator[T | Missed]:
        """What all sources tell, in the order in which it comes.

        Raises:
            UnavailableError: `run` does not run.
        """
        if self._nursery is None:
            raise UnavailableError("the server starts, or stops")
        scope = trio.CancelScope()
        with Feed[T](_BEHIND) as feed:
            self._nursery.start_soon(_gather, sources, feed, scope)
            try:
                async for heard in feed:
                    yield Missed(heard.count) if isinstance(heard, Lost) else heard
            finally:
                scope.cancel()


async def of_node(
    reach: Reach, who: str, ask: Callable[[Control], AsyncGenerator[T | Missed]]
) -> AsyncGenerator[T | Missed]:
    """What a node tells, also once it has been started again."""
    while True:
        try:
            async with reach(who) as node, aclosing(ask(node)) as told:
                async for each in told:
                    yield each
        except ControlError as error:  # it is being started again, perhaps
            log.warning("node.unheard", error=str(error))
        await trio.sleep(PAUSE)


async def _gather(
    sources: Sequence[AsyncGenerator[T | Missed]], feed: Feed[T], scope: trio.CancelScope
) -> None:
    with feed, scope:
        async with trio.open_nursery() as nursery:
            for source in sources:
                nursery.start_soon(_pour, source, feed)


async def _pour(source: AsyncGenerator[T | Missed], feed: Feed[T]) -> None:
    async with aclosing(source) as told:
        async for each in told:
            if isinstance(each, Missed):
                feed.miss(each.count)
            else:
                feed.put(each)
