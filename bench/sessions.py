"""What a session costs by itself, and its plugins: no network, no disk, no other process.

The CPU time of one thread, which what else the machine does hardly distorts.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import trio
from msgspec.structs import replace

from bench.empty import Empty
from elemta.config import load
from elemta.listener.reception import House, Reception
from elemta.listener.session import Session
from elemta.net.limits import Limit
from elemta.net.reaper import Reaper
from elemta.net.transport import Endpoint
from elemta.plugins import Chain, Loaded
from tests.dialogue import CONFIG
from tests.fakes import FakeQueue

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Messages between two looks at the clock.
BATCH: Final = 20

_SAID: Final = (
    b"EHLO client.example\r\n",
    b"MAIL FROM:<a@b.example>\r\n",
    b"RCPT TO:<somebody@any.example>\r\n",
    b"DATA\r\n",
    b"Subject: x\r\n\r\n" + (b"x" * 70 + b"\r\n") * 57 + b".\r\n",
    b"QUIT\r\n",
    b"",
)


class Scripted:
    """A client that says the same each time (`elemta.net.transport.Transport`)."""

    peer = Endpoint("192.0.2.1", 4242)
    local = Endpoint("192.0.2.2", 25)
    waiting = False

    def __init__(self) -> None:
        self.deadline = 0.0
        self.heard = b""
        self._rest = iter(_SAID)

    async def receive(self) -> bytes:
        await trio.lowlevel.checkpoint()
        return next(self._rest)

    def receive_nowait(self) -> None:
        return None

    async def send_all(self, octets: bytes) -> None:
        self.heard += octets

    def interrupt(self, reason: Exception) -> None:
        raise reason

    def close(self) -> None:
        """Nothing is open."""


async def measure(chains: Sequence[int], batches: int) -> dict[int, list[float]]:
    """Seconds a message, by how many empty plugins there are: batches by turns."""
    receptions = {count: _reception(count) for count in chains}
    took: dict[int, list[float]] = {count: [] for count in chains}
    for _ in range(batches):
        for count, (reception, queue) in receptions.items():
            begun = time.thread_time()
            for _ in range(BATCH):
                transport = Scripted()
                await Session(transport, reception).run()
                assert b"queued as" in transport.heard
            took[count].append((time.thread_time() - begun) / BATCH)
            queue.kept.clear()
    return took


def _reception(count: int) -> tuple[Reception, FakeQueue]:
    queue = FakeQueue()
    house = House.of(load(CONFIG), queue=queue, reaper=Reaper(), clock=time.time)
    if count:
        house = replace(house, plugins=Chain([Loaded(Empty()) for _ in range(count)]))
    return Reception.of(house, house.config.listeners[0], Limit(20, 100)), queue
