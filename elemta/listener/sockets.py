"""Listening sockets: opened from the configuration, or taken over from systemd.

They are all opened before the first is served, while we may still open ports below 1024.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from elemta.config import HostPort, Listener, SystemdSocket
from elemta.log import logger
from elemta.net.transport import Endpoint, endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from elemta.config import Config

log = logger(__name__)

#: Connections that the kernel keeps for us until we accept them; it may lower this (somaxconn).
BACKLOG: Final = 4096
#: The first file descriptor that systemd passes on (sd_listen_fds(3)).
FIRST_PASSED: Final = 3


class BoundListener(Struct, frozen=True):
    """One listening socket.

    Attributes:
        table: the listener of the configuration that it belongs to.
    """

    table: Listener
    socket: socket.socket

    @property
    def address(self) -> Endpoint:
        """Where clients find it."""
        name: tuple[str, int] | str = self.socket.getsockname()
        return endpoint(name)


class BindError(Exception):
    """A listener cannot be opened; the message says which, and why."""


def bind(
    config: Config, environ: Mapping[str, str] | None = None, first: int = FIRST_PASSED
) -> list[BoundListener]:
    """Open every socket that the configuration asks for; none, if one of them cannot be opened.

    Resource handling:
        The sockets are the caller's to close.

    Args:
        config: what to open.
        environ: where systemd says what it passes on; None: `os.environ`.
        first: the first file descriptor that it passes on.

    Raises:
        BindError: an address is taken, not ours, or not permitted; or systemd passes on no socket
            of that name.
    """
    passed = passed_on(os.environ if environ is None else environ, first)
    bound: list[BoundListener] = []
    try:
        for index, table in enumerate(config.listeners):
            for binding in table.bindings:
                try:
                    sockets = list(_open(binding, passed))
                except OSError as error:
                    place = f"listeners[{index}].address"
                    raise BindError(f"{place}: {binding}: {error.strerror or error}") from error
                bound += [BoundListener(table, sock) for sock in sockets]
    except BaseException:
        for listener in bound:
            listener.socket.close()
        raise
    finally:
        for name, unused in passed.items():
            for sock in unused:
                log.warning("socket.unused", name=name)
                sock.close()
    return bound


def passed_on(
    environ: Mapping[str, str], first: int = FIRST_PASSED
) -> dict[str, list[socket.socket]]:
    """The sockets that systemd passes on, by name (sd_listen_fds_with_names(3)).

    Args:
        environ: ``LISTEN_PID``, ``LISTEN_FDS`` and ``LISTEN_FDNAMES`` are read.
        first: the first file descriptor.
    """
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return {}  # none, or they are meant for a process that we were started by
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    passed: dict[str, list[socket.socket]] = {}
    for index in range(int(environ.get("LISTEN_FDS", "0"))):
        os.set_inheritable(first + index, False)
        name = names[index] if index < len(names) and names[index] else "unknown"
        passed.setdefault(name, []).append(socket.socket(fileno=first + index))
    return passed


def listen(address: HostPort) -> list[socket.socket]:
    """Open the sockets of an address, of which a name, or every address of the machine, has many.

    Resource handling:
        They are the caller's to close.

    Raises:
        OSError: one of them cannot be opened; then none is.
    """
    opened: list[socket.socket] = []
    try:
        for sock in _sockets(address):
            opened.append(sock)  # noqa: PERF402 # what is open must be known when the next fails
    except BaseException:
        for sock in opened:
            sock.close()
        raise
    return opened


def _open(
    binding: HostPort | SystemdSocket, passed: dict[str, list[socket.socket]]
) -> Iterator[socket.socket]:
    if isinstance(binding, SystemdSocket):
        found = passed.pop(binding.name, None)
        if found is None:
            raise OSError(errno.ENOENT, "systemd passes on no socket of this name")
        for sock in found:
            if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                raise OSError(errno.EINVAL, "systemd passes on a socket that does not listen")
            yield _prepared(sock)
        return
    yield from _sockets(binding)


def _sockets(address: HostPort) -> Iterator[socket.socket]:
    if address.host:
        for family, host in _addresses(address.host):
            yield _listening(family, host, address.port)
        return
    # Every address of the machine. Two sockets, so that IPv4 clients are not written as IPv6.
    four = _listening(socket.AF_INET, "0.0.0.0", address.port)  # noqa: S104 (it was asked for)
    yield four
    if socket.has_ipv6:
        port: int = four.getsockname()[1]
        try:
            yield _listening(socket.AF_INET6, "::", port)
        except OSError as error:
            if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                raise
            log.info("socket.no_ipv6", port=port)


def _addresses(host: str) -> list[tuple[socket.AddressFamily, str]]:
    """The addresses of a host name or an IP address; of a name perhaps several."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found))


def _listening(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        # A restart must not wait for the connections of the last run to be forgotten.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
        return _prepared(sock)
    except BaseException:
        sock.close()
        raise


def _prepared(sock: socket.socket) -> socket.socket:
    sock.setblocking(False)
    return sock
