"""The store of a server that is down, read only."""

from __future__ import annotations

import time
from contextlib import ExitStack, aclosing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import trio

from elemta.control.interface import UnknownError
from elemta.delivery.routing import Router
from elemta.nodes import folders, in_order, sum_stats
from elemta.queue import StoreReader, check

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Mapping
    from pathlib import Path

    from elemta.config import Config
    from elemta.queue import Filter, Finding, Message, MessageId, Stats, Timeline

T = TypeVar("T")


@contextmanager
def opened(config: Config) -> Generator[Stores]:
    """The queues of this server's nodes, as long as the context lasts.

    Raises:
        SpoolError, sqlite3.Error, OSError: one cannot be read.
    """
    with ExitStack() as held:
        yield Stores(
            config,
            {
                folder: held.enter_context(StoreReader(folder))
                for folder in folders(config.data_dir)
            },
        )


class Stores:
    """The files of a server that is down: a queue for each node. Nothing runs beside these calls.

    Args:
        config: of the server.
        readers: of each queue, by its folder.
    """

    def __init__(self, config: Config, readers: Mapping[Path, StoreReader]) -> None:
        self._readers = readers
        self._router = Router(config)

    async def search(
        self,
        filter: Filter,  # noqa: A002 # the word of people
        *,
        limit: int = 100,
        after: MessageId | None = None,
        newest: bool = False,
    ) -> list[Message]:
        """See `Control`."""
        await trio.lowlevel.checkpoint()
        found = [
            reader.search(
                filter,
                limit=limit,
                after=after,
                newest=newest,
                now=time.time(),
                lane=self._router.lane,
            )
            for reader in self._readers.values()
        ]
        return in_order(found, limit, newest=newest)

    async def timeline(self, id: MessageId) -> Timeline:  # noqa: A002 # the word of people
        """See `Control`."""
        await trio.lowlevel.checkpoint()
        return self._find(id)[0]

    async def raw(self, id: MessageId) -> AsyncGenerator[bytes]:  # noqa: A002 # the word of people
        """See `Control`."""
        await trio.lowlevel.checkpoint()
        timeline, reader = self._find(id)
        if timeline.finished_at is not None:
            raise UnknownError(f"{id} is finished, and its content gone")
        body = await reader.open_body(timeline.message, _in_thread)
        async with aclosing(body.chunks()) as pieces:
            async for piece in pieces:
                yield piece

    async def stats(self) -> Stats:
        """See `Control`."""
        await trio.lowlevel.checkpoint()
        return sum_stats([reader.stats() for reader in self._readers.values()])

    async def check(self) -> list[Finding]:
        """See `Control`."""
        found: list[Finding] = []
        for folder in self._readers:
            found += await trio.to_thread.run_sync(partial(check, folder))
        return found

    def _find(self, id: MessageId) -> tuple[Timeline, StoreReader]:  # noqa: A002 # the word of people
        for reader in self._readers.values():
            if (timeline := reader.timeline(id)) is not None:
                return timeline, reader
        raise UnknownError(f"no message {id!r}, or it is no longer remembered")


async def _in_thread(call: Callable[[], T]) -> T:
    return await trio.to_thread.run_sync(call)
