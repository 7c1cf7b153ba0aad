"""Several nodes of one server in one process, and between them the real exchange over memory."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio
import trio.testing

from elemta.ledger import Exchange, Keeper
from elemta.ledger.exchange import PAUSE
from elemta.testing import FakeClock, some_tools
from elemta.testing.stand_ins import at_once

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from elemta.plugins import Tools

_End = trio.StapledStream[trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream]


class Node:
    """A node's side of the exchange.

    Attributes:
        reachable: whether the first process can be reached.
        folder: of its data.
    """

    def __init__(self, server: Server, number: int) -> None:
        self.reachable = True
        self._server = server
        self._streams: list[tuple[_End, _End]] = []
        self.folder = server.folder if number == 1 else server.folder / "nodes" / str(number)
        self.exchange = Exchange(self._connect, self.folder, server.clock, counts=number == 1)
        server.nursery.start_soon(self.exchange.run)

    def tools(self, name: str) -> Tools:
        """What a plugin of this node works with."""
        tools = some_tools(name, folder=self.folder / "plugins" / name, clock=self._server.clock)
        tools.exchange = self.exchange
        return tools

    async def _connect(self) -> trio.abc.Stream:
        if not self.reachable:
            raise ConnectionRefusedError("nobody listens")
        ours, theirs = trio.testing.memory_stream_pair()
        self._streams.append((ours, theirs))
        self._server.nursery.start_soon(self._server.keeper.serve, theirs)
        return ours

    def deafen(self) -> None:
        """Have it hear nothing of what is said from now on, though what it says is heard."""
        for _, theirs in self._streams:
            theirs.send_stream.send_all_hook = theirs.send_stream.close_hook = None

    def cut_off(self) -> None:
        """Have it meet nobody, until it is reachable again."""
        self.reachable = False
        for several in self._streams:
            for each in several:
                each.receive_stream.put_eof()
        self._streams.clear()


class Server:
    """What the first process has of it."""

    def __init__(self, folder: Path, nursery: trio.Nursery, clock: FakeClock) -> None:
        self.folder = folder
        self.nursery = nursery
        self.clock = clock
        self.keeper = Keeper(folder, clock, at_once)


@asynccontextmanager
async def a_server(folder: Path, clock: FakeClock | None = None) -> AsyncGenerator[Server]:
    """Its nodes end with it."""
    async with trio.open_nursery() as nursery:
        server = Server(folder, nursery, clock or FakeClock())
        async with server.keeper.living():
            yield server
            nursery.cancel_scope.cancel()


async def settled() -> None:
    """Wait until nobody has anything to tell any more (on virtual time)."""
    await trio.sleep(5 * PAUSE)
