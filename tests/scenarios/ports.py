"""Ports of loopback, and waiting for what happens there."""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

#: Below those that Linux gives to whoever asks for any or connects (net.ipv4.ip_local_port_range):
#: one of these would be somebody else's while a daemon starts, or is down for a moment.
_PORTS: Final = range(20_000, 32_700)
_BLOCK: Final = 100
#: Sockets in the abstract namespace by which this process holds its blocks, as long as it lives.
_held: Final[list[socket.socket]] = []


def _own_ports() -> Iterator[int]:
    """Ports of blocks that no other process takes from, as tests run in several."""
    for first in _PORTS[::_BLOCK]:
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0elemta-scenarios-ports-{first}")
        except OSError:
            claim.close()
            continue
        _held.append(claim)
        yield from range(first, first + _BLOCK)
    raise RuntimeError("no port is left")


_own: Final = _own_ports()


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody uses, and that nobody else is given, as long as the tests run."""
    while True:
        port = next(_own)
        with (
            suppress(OSError),  # a server of this machine has it
            socket.socket() as stream,
            socket.socket(type=socket.SOCK_DGRAM) as datagrams,
        ):
            stream.bind((host, port))
            datagrams.bind((host, port))
            return port


def greets(port: int, host: str = "127.0.0.1") -> bool:
    """Whether an SMTP server says 220 there."""
    try:
        with socket.create_connection((host, port), timeout=5.0) as client:
            greeting = client.recv(512)
            client.sendall(b"QUIT\r\n")
            client.recv(512)
    except OSError:
        return False
    return greeting.startswith(b"220")


def listens(port: int, host: str = "127.0.0.1") -> bool:
    """Whether anybody takes connections there."""
    try:
        socket.create_connection((host, port), timeout=5.0).close()
    except OSError:
        return False
    return True


def eventually(probe: Callable[[], T], *, within: float = 60.0, what: str = "") -> T:
    """Ask until the answer is true, and return it; fail after `within` seconds.

    Nobody waits so long for what works, and a busy machine may be slow: what must not take long is
    another question.
    """
    deadline = time.monotonic() + within
    while not (answer := probe()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within:.0f} s: {what or probe}; last: {answer!r}")
        time.sleep(0.02)
    return answer
