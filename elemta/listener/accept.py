"""Takes connections, sheds those that are too many, and runs a session for each other.

Shedding goes in this order: too many connections of one client, too many in all. Whoever is shed is
told so at once (421), in one write that does not wait.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from elemta.config import HostPort
from elemta.listener import replies
from elemta.listener.reception import Reception
from elemta.listener.session import Session
from elemta.log import logger
from elemta.net.limits import Limit, network
from elemta.net.transport import SocketTransport, endpoint
from elemta.supervision import once

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from elemta.listener.reception import House
    from elemta.listener.sockets import BoundListener
    from elemta.net.transport import Endpoint, SocketAddress
    from elemta.protocol import Reply
    from elemta.supervision import Keeps

log = logger(__name__)

#: Connections accepted before others get their turn.
BATCH: Final = 64
#: Seconds to wait when the process or the machine has no file descriptors or memory left.
PAUSE: Final = 0.5
_NOTHING_LEFT: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Listeners:
    """Accepts on all listening sockets, and knows the sessions that follow.

    To stop: `stop`, which accepts no more; `drain`, which sends the idle away; then wait for the
    nursery of the sessions, and cancel it after a while::

        async with trio.open_nursery() as sessions:
            await sessions.start(listeners.run, sessions)
            await stopped.wait()
            listeners.stop()
            listeners.drain()
            sessions.cancel_scope.deadline = trio.current_time() + GRACE

    Resource handling:
        Takes the sockets over: `stop` closes them.

    Args:
        bound: the sockets.
        house: what all sessions share.
        keep: runs what accepts on each socket: starts it again, it may be, if it fails.
    """

    def __init__(self, bound: Sequence[BoundListener], house: House, *, keep: Keeps = once) -> None:
        self._keep = keep
        self._bound = tuple(bound)
        self._addresses = [each.address for each in bound]
        self._roster = house.roster
        self._meters = house.meters
        self._clients = {each.table.name: Limit(1, 1) for each in bound}
        self._receptions = self._received(house)
        self._accepting = trio.CancelScope()
        self._warn(house)

    @property
    def addresses(self) -> list[Endpoint]:
        """Where clients find us, or found us, in the order of the configuration."""
        return list(self._addresses)

    @property
    def names(self) -> list[str]:
        """What the listeners are called, in the order of the configuration."""
        return list(self._clients)

    def connections(self, name: str) -> int:
        """How many the clients of one listener hold just now."""
        return self._clients[name].held

    def clients(self, name: str) -> Limit:
        """How many each client of one listener holds just now, and may."""
        return self._clients[name]

    def reconfigure(self, house: House) -> None:
        """Give all sessions that begin from now on another configuration.

        Its listeners are found by their names; where a name is gone, the old one stays.
        """
        self._receptions = self._received(house)
        self._warn(house)

    def _warn(self, house: House) -> None:
        """Tell operators where others may read their people's passwords."""
        for table in house.config.listeners:
            if table.logins != "always":
                continue
            for where in table.bindings:
                # What systemd opened it alone knows.
                if isinstance(where, HostPort) and not where.is_loopback:
                    log.warning("login.in_clear", listener=table.name, address=str(where))

    async def run(
        self,
        sessions: trio.Nursery,
        *,
        task_status: trio.TaskStatus[list[Endpoint]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Accept until `stop` or until cancelled.

        Args:
            sessions: where sessions run; they go on when this returns.
            task_status: told where clients find us, as soon as they do.
        """
        try:
            with self._accepting:
                async with trio.open_nursery() as nursery:
                    for each in self._bound:
                        name = f"listener {each.table.name} {each.address}"
                        nursery.start_soon(self._keep, name, partial(self._accept, each, sessions))
                    for each in self._bound:
                        log.info(
                            "listener.ready", listener=each.table.name, address=str(each.address)
                        )
                    task_status.started(self.addresses)
        finally:
            self.stop()

    def stop(self) -> None:
        """Accept no more: from now on clients are refused by the kernel."""
        self._accepting.cancel()
        for each in self._bound:
            if each.socket.fileno() >= 0:
                trio.lowlevel.notify_closing(each.socket)
                each.socket.close()

    def drain(self) -> None:
        """Say goodbye to whoever is in the middle of nothing; others finish their message."""
        self._roster.drain()

    def _received(self, house: House) -> dict[str, Reception]:
        tables = {table.name: table for table in house.config.listeners}
        receptions: dict[str, Reception] = {}
        for each in self._bound:
            name = each.table.name
            table = tables.get(name, each.table)
            clients = self._clients[name]
            clients.per_key = table.connections_per_client
            clients.total = house.config.limits.connections
            receptions[name] = Reception.of(house, table, clients)
        return receptions

    async def _accept(self, listener: BoundListener, sessions: trio.Nursery) -> None:
        sock, name = listener.socket, listener.table.name
        while True:
            await trio.lowlevel.wait_readable(sock)
            for _ in range(BATCH):
                try:
                    client, address = sock.accept()
                except BlockingIOError:
                    break
                except OSError as error:
                    if sock.fileno() < 0:
                        return  # stopped just when a client came
                    if error.errno in _NOTHING_LEFT:
                        log.warning(
                            "listener.exhausted", listener=name, error=os.strerror(error.errno)
                        )
                        self._meters.connection_errors["no_files"] += 1
                        await trio.sleep(PAUSE)
                        break
                    continue  # the client went away before we came to it (accept(2))
                sessions.start_soon(self._serve, client, address, name)

    async def _serve(self, sock: socket.socket, address: SocketAddress, name: str) -> None:
        # Not that of when it was accepted: the plugins of that one may be stopped by now.
        reception = self._receptions[name]
        with sock:
            meters = self._meters
            meters.connections[reception.table.name] += 1
            client = endpoint(address).host
            key, clients = network(client), reception.clients
            if clients.count(key) >= clients.per_key:
                meters.connection_errors["too_many_of_client"] += 1
                _shed(sock, client, reception, replies.TOO_MANY_OF_YOURS)
            elif self._roster.full:
                meters.connection_errors["too_many"] += 1
                _shed(sock, client, reception, replies.TOO_MANY_CONNECTIONS)
            else:
                with clients.hold(key):
                    try:
                        transport = SocketTransport(sock, address)
                    except trio.BrokenResourceError:
                        return  # gone already
                    await Session(transport, reception).run()


def _shed(sock: socket.socket, client: str, reception: Reception, goodbye: Reply) -> None:
    """Say goodbye without waiting: who is too many must not cost us anything."""
    log.info("client.shed", client=client, listener=reception.table.name, reply=str(goodbye))
    sock.setblocking(False)
    with suppress(OSError):
        sock.send(bytes(goodbye))
