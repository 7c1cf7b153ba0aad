"""Ports of loopback, and waiting for what happens there."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as listener:
        listener.bind((host, 0))
        port: int = listener.getsockname()[1]
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


def eventually(probe: Callable[[], T], *, within: float = 15.0, what: str = "") -> T:
    """Ask until the answer is true, and return it; fail after `within` seconds."""
    deadline = time.monotonic() + within
    while not (answer := probe()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within:.0f} s: {what or probe}; last: {answer!r}")
        time.sleep(0.02)
    return answer
