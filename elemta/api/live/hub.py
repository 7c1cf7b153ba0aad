"""Lets any number of clients listen to a source, for what one subscription costs it."""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import msgspec
import trio

from elemta import __version__
from elemta.api.live.batch import Batch, item
from elemta.api.live.reader import EndedError
from elemta.api.live.round import Round
from elemta.queue import Missed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from typing import TypeAlias

    from elemta.api.live.batch import Item
    from elemta.api.live.reader import Reader
    from elemta.api.live.round import Choice
    from elemta.api.live.source import Source

    #: Runs something beside everything else.
    Spawn: TypeAlias = Callable[[Callable[[], Awaitable[None]]], object]

#: Seconds of silence after which a client is told that we are still there.
HEARTBEAT: Final = 15.0
#: Items of a batch of what happened before a client came.
TOGETHER: Final = 500

T = TypeVar("T")


class Hub(Generic[T]):
    """Lets clients listen to a source.

    Args:
        source: it is listened to only while there are clients.
        spawn: runs a task that outlives the client who was first.
        stopping: set when the server is to end.
    """

    def __init__(self, source: Source[T], spawn: Spawn, stopping: trio.Event) -> None:
        self._source = source
        self._spawn = spawn
        self._stopping = stopping
        self._round: Round[T] | None = None

    @property
    def idle(self) -> bool:
        """Nobody listens."""
        return self._round is None

    async def tell(self, choice: Choice[T], since: int | None = None) -> AsyncGenerator[Batch]:
        """What a client is told: a greeting, what it lacks, what happens, and heartbeats.

        Never ends by itself.

        Args:
            choice: what it wants to know.
            since: the number of the last thing that it knows; None: it wants nothing of before.

        Raises:
            EndedError: the server stops, or has failed.
            ControlError: what it lacks cannot be found out.
        """
        async with self._joined(choice, since) as (reader, position):
            yield Batch([_greeting(position if since is None else since)])
            if since is not None and since != position:
                async with aclosing(self._before(choice, since, position)) as batches:
                    async for batch in batches:
                        yield batch
            while True:
                told = None
                with trio.move_on_after(HEARTBEAT):
                    told = await reader.receive()
                if told is None and reader.waits:
                    continue  # it was just about to be woken
                yield told or Batch([_heartbeat(reader.position)])

    @asynccontextmanager
    async def _joined(
        self, choice: Choice[T], since: int | None
    ) -> AsyncGenerator[tuple[Reader, int]]:
        """A reader, and the number after which it reads."""
        here = self._round
        if here is None or here.ended is not None:
            if self._stopping.is_set():
                raise EndedError(fault=False)
            here = self._round = Round(self._source, self._stopping)
            self._spawn(here.run)
        here.users += 1
        try:
            await here.begin(since)
            reader = here.add(choice)
            try:
                yield reader, here.position
            finally:
                here.remove(choice, reader)
        finally:
            here.users -= 1
            if not here.users:
                here.cancel()
                if self._round is here:
                    self._round = None

    async def _before(self, choice: Choice[T], since: int, until: int) -> AsyncGenerator[Batch]:
        """What happened after `since` and up to `until`, as far as it is kept."""
        items: list[Item] = []
        async with aclosing(self._source.listen(since)) as happenings:
            async for happened in happenings:
                if isinstance(happened, Missed):
                    number = happened.last
                    items.append(self._source.item(_cut(happened, until)))
                else:
                    number = self._source.number(happened)
                    if number <= until and choice.passes(happened):
                        items.append(self._source.item(happened))
                if number >= until:  # the reader has what comes next
                    break
                if len(items) >= TOGETHER:
                    yield Batch(items)
                    items = []
        if items:
            yield Batch(items)


def _cut(missed: Missed, until: int) -> Missed:
    """Without those that the reader has."""
    beyond = max(0, missed.last - until)
    return msgspec.structs.replace(
        missed, count=max(0, missed.count - beyond), last=missed.last - beyond
    )


def _greeting(number: int) -> Item:
    return item(
        0,
        {"type": "Hello", "number": number, "heartbeat": HEARTBEAT, "version": __version__},
    )


def _heartbeat(number: int) -> Item:
    return item(number, {"type": "Heartbeat", "number": number})
