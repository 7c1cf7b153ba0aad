"""A service in memory that plugins connect to."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias

import trio
from trio.testing import memory_stream_pair

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from elemta.config import Service

#: Serves one connection.
Serves: TypeAlias = "Callable[[trio.abc.Stream], Awaitable[None]]"


class FakeService:
    """What `Tools.connect` may be: each connection is served by `serves`, in a task of its own.

    Attributes:
        connections: how many there were.
        open: how many there are.
        most: how many there were at a time.
        down: nobody is there.
        deaf: nobody answers there.
    """

    def __init__(self, nursery: trio.Nursery, serves: Serves) -> None:
        self._nursery = nursery
        self.serves = serves
        self.connections = self.open = self.most = 0
        self.down = self.deaf = False

    async def __call__(self, service: Service) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        if self.down:
            raise ConnectionRefusedError(f"nobody is at {service}")
        if self.deaf:
            await trio.sleep_forever()
        self.connections += 1
        ours, theirs = memory_stream_pair()
        self._nursery.start_soon(self._serve, theirs)
        return ours

    async def _serve(self, stream: trio.abc.Stream) -> None:
        self.open += 1
        self.most = max(self.most, self.open)
        with suppress(trio.BrokenResourceError):  # the plugin may leave when it likes
            async with stream:
                await self.serves(stream)
        self.open -= 1
