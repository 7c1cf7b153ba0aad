"""Both kinds of transport, made the same way, for tests that both must pass."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import trio

from elemta.net.memory import memory_transport_pair
from elemta.net.transport import SocketTransport

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from elemta.net.transport import Transport


class Link(NamedTuple):
    """Two connected transports, and how to break the connection from the second one's side."""

    one: Transport
    two: Transport
    reset: Callable[[], None]


@contextmanager
def memory_link() -> Generator[Link]:
    one, two = memory_transport_pair()
    yield Link(one, two, two.reset)
    one.close()
    two.close()


@contextmanager
def socket_link() -> Generator[Link]:
    listener = socket.create_server(("127.0.0.1", 0))
    with listener:
        first = socket.create_connection(listener.getsockname())
        second, address = listener.accept()
    for sock in (first, second):
        # Small buffers, so that a peer that does not read is noticed soon.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 256 * 1024)
    one, two = SocketTransport(first), SocketTransport(second, address)

    def reset() -> None:
        second.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        two.close()

    yield Link(one, two, reset)
    one.close()
    two.close()


async def fill(transport: Transport) -> None:
    """Write until the peer, who does not read, makes us wait."""
    with trio.move_on_after(0.05):
        while True:
            await transport.send_all(b"x" * 65536)
