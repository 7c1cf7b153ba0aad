"""Each kind of transport, made the same way, for tests that all must pass."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import trio

from elemta.net.memory import memory_transport_pair
from elemta.net.tls import start_tls, unverified_client
from elemta.net.transport import SocketTransport
from tests.net.certificates import server_context

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


async def encrypted(link: Link) -> Link:
    """The same connection, in TLS; the second end is the server."""
    ends: dict[bool, Transport] = {}

    async def shake_hands(transport: Transport, *, server: bool) -> None:
        # Tickets that nobody has read make the kernel reset the connection when it is closed.
        context = server_context(tickets=0) if server else unverified_client()
        ends[server] = await start_tls(transport, context, server_side=server)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(shake_hands, link.one, server=False))
        nursery.start_soon(partial(shake_hands, link.two, server=True))
    return Link(ends[False], ends[True], link.reset)


async def fill(transport: Transport) -> None:
    """Write until the peer, who does not read, makes us wait."""
    with trio.move_on_after(0.05):
        while True:
            await transport.send_all(b"x" * 65536)
