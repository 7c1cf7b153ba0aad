"""Takes connections on the control socket, and says in whose name each of them steers."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio

from elemta.control.conversation import LARGE, Conversation
from elemta.control.framing import encode
from elemta.control.messages import Refusal, Refused
from elemta.control.place import listening, name_of, peer_of
from elemta.log import logger

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from elemta.control.interface import Control

log = logger(__name__)

#: Clients at a time: people, their scripts, and what watches.
CLIENTS: Final = 32


class ControlServer:
    """Serves `Control` on a Unix socket.

    Args:
        path: of the socket.
        group: whose members may use it too.
        control: gives the server as somebody may steer it, who is e.g. ``operator:root``.
    """

    def __init__(self, path: Path, group: str | None, control: Callable[[str], Control]) -> None:
        self._path = path
        self._group = group
        self._control = control
        self._clients = 0
        self._large = trio.Semaphore(LARGE)

    async def run(self) -> None:
        """Serve until cancelled.

        Raises:
            OSError, LookupError: as `listening`.
        """
        with listening(self._path, self._group) as sock:
            listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
            log.info("control.ready", socket=str(self._path))
            await trio.serve_listeners(self._serve, [listener])

    async def _serve(self, stream: trio.SocketStream) -> None:
        """Serve one client. Whatever happens to it must not end the others."""
        try:
            uid = peer_of(stream.socket)
            who = f"operator:{await trio.to_thread.run_sync(name_of, uid)}"
            async with stream:
                if self._clients >= CLIENTS:
                    await _turn_away(stream)
                    return
                self._clients += 1
                try:
                    trusted = uid in (0, os.geteuid())
                    talk = Conversation(
                        stream, self._control, who, trusted=trusted, large=self._large
                    )
                    await talk.run()
                finally:
                    self._clients -= 1
        except Exception:  # a fault of ours, and not of the other clients
            log.exception("control.conversation_failed")


async def _turn_away(stream: trio.SocketStream) -> None:
    busy = Refused(why=Refusal.UNAVAILABLE, text=f"there are {CLIENTS} clients already")
    with trio.move_on_after(1), suppress(trio.BrokenResourceError):
        await stream.send_all(encode(busy))
