"""The byte transport without a network: for tests, and for simulations on virtual time.

Held to the same tests as `SocketTransport` (``tests/net/test_transport.py``). It differs where
TCP is vague: what was written before `close` always arrives, and a peer that has gone is noticed
by the first write.
"""

from __future__ import annotations

import math
from typing import Final

import trio

from elemta.net.transport import MOST, Endpoint

#: Octets under way in one direction before `MemoryTransport.send_all` waits.
BUFFER: Final = 64 * 1024

#: Calls that succeed at once before other tasks get their turn.
_CALLS: Final = 16

_CLIENT: Final = Endpoint("192.0.2.1", 49152)
_SERVER: Final = Endpoint("192.0.2.25", 25)


class _Pipe:
    """One direction: octets that were sent and not yet received."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.octets = bytearray()
        #: No more will be sent.
        self.ended = False
        #: Nobody will receive any more.
        self.deaf = False
        #: The connection was reset: what is under way is lost.
        self.broken = False
        self.changed = trio.lowlevel.ParkingLot()


class MemoryTransport:
    """One end of a pair made by `memory_transport_pair`; see `Transport`."""

    def __init__(self, inward: _Pipe, outward: _Pipe, local: Endpoint, peer: Endpoint) -> None:
        self.peer: Endpoint = peer
        self.local: Endpoint = local
        self.deadline = math.inf
        self._inward = inward
        self._outward = outward
        self._calls = 0
        self._reason: Exception | None = None
        self._interrupted = False
        self._waiting_at: _Pipe | None = None
        self._closed = False

    @property
    def waiting(self) -> bool:
        """See `Transport`."""
        return self._waiting_at is not None

    async def receive(self) -> bytes:
        """See `Transport`."""
        await self._begin()
        while (octets := self.receive_nowait()) is None:
            if self._reason is not None:
                await self._let_others_run()
                raise self._take_reason()
            await self._wait(self._inward)
        return octets

    def receive_nowait(self) -> bytes | None:
        """See `Transport`."""
        pipe = self._inward
        self._check_open()
        if pipe.broken:
            raise trio.BrokenResourceError("reset by the peer")
        if not (pipe.octets or pipe.ended):
            return None
        octets = bytes(pipe.octets[:MOST])
        del pipe.octets[:MOST]
        pipe.changed.unpark_all()
        return octets

    async def send_all(self, octets: bytes) -> None:
        """See `Transport`."""
        await self._begin()
        pipe = self._outward
        rest = memoryview(octets)
        self._interrupted = False  # what came before is for the next receive
        while True:
            self._check_open()
            if pipe.deaf or pipe.broken:
                raise trio.BrokenResourceError("the peer is gone")
            room = pipe.capacity - len(pipe.octets)
            pipe.octets += rest[:room]
            rest = rest[room:]
            pipe.changed.unpark_all()
            if not rest:
                return
            if self._interrupted:
                raise self._take_reason()
            await self._wait(pipe)

    def interrupt(self, reason: Exception) -> None:
        """See `Transport`."""
        if self._reason is None:
            self._reason = reason
        if self._waiting_at is not None:
            self._interrupted = True
            self._waiting_at.changed.unpark_all()

    def close(self) -> None:
        """See `Transport`."""
        self._closed = True
        self._outward.ended = True
        self._inward.deaf = True
        self._inward.octets.clear()
        for pipe in (self._inward, self._outward):
            pipe.changed.unpark_all()

    def reset(self) -> None:
        """Break the connection, as a peer that crashed or a firewall does."""
        self._inward.broken = self._outward.broken = True
        self.close()

    async def _wait(self, pipe: _Pipe) -> None:
        self._waiting_at = pipe
        try:
            await pipe.changed.park()
        finally:
            self._waiting_at = None
        self._calls = 0

    async def _begin(self) -> None:
        self._calls += 1
        if self._calls > _CALLS:
            await self._let_others_run()

    async def _let_others_run(self) -> None:
        await trio.lowlevel.checkpoint()
        self._calls = 0

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this transport was closed")

    def _take_reason(self) -> Exception:
        reason, self._reason = self._reason, None
        assert reason is not None
        return reason


def memory_transport_pair(
    *, client: Endpoint = _CLIENT, server: Endpoint = _SERVER, buffer: int = BUFFER
) -> tuple[MemoryTransport, MemoryTransport]:
    """Two connected transports: the client's, and the server's.

    Args:
        client: what the server sees as its peer.
        server: what the client sees as its peer.
        buffer: octets that may be under way in each direction; at least 1.
    """
    there, back = _Pipe(buffer), _Pipe(buffer)
    return (
        MemoryTransport(back, there, local=client, peer=server),
        MemoryTransport(there, back, local=server, peer=client),
    )
