"""What systemd is told of us (``Type=notify``, sd_notify(3)). Elsewhere nothing happens."""

from __future__ import annotations

import os
import socket
from contextlib import suppress


def notify(state: str) -> None:
    """Say how we are: ``READY=1``, ``RELOADING=1``, ``STOPPING=1``, ``STATUS=text``."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return
    if address[0] == "@":  # an abstract address begins with a NUL
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
        out.setblocking(False)
        with suppress(OSError):  # who does not listen misses it
            out.sendto(state.encode(), address)
