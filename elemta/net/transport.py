"""The byte transport that sessions talk through: what it promises, and its TCP form.

Rules of this file:

- No deadline is kept by a cancel scope: a scope round each read costs a third of the throughput
  (bench). `Transport.deadline` is a plain attribute, `elemta.net.reaper` looks at it.
- Wait, then receive: a peer that takes turns with us has never said more when we ask, and asking
  in vain costs a system call and an exception. Only who has just filled a whole read is asked at
  once. What can be written is written at once; neither goes on for ever: see `_ALLOWANCE`.
- Each transport belongs to one task at a time. `interrupt` and `close` may come from another.
"""

from __future__ import annotations

import errno
import ipaddress
import math
import os
import socket
from typing import Final, NamedTuple, Protocol, TypeAlias

import trio
from typing_extensions import override

#: The most octets that one `Transport.receive` returns.
MOST: Final = 64 * 1024

#: How much a transport may do without letting other tasks run: each receive or send counts for
#: its octets and for `_CALL`. A client that never lets us wait would otherwise own the loop. A
#: checkpoint costs about 6 us: 0.4 us a call, and little beside what 64 KiB of content cost.
_ALLOWANCE: Final = 64 * 1024
_CALL: Final = 4 * 1024

#: Seconds until we knock again at a Unix socket that too many wait at.
_BUSY: Final = 0.05

#: What `socket.getpeername` and `socket.accept` say: it depends on the address family.
SocketAddress: TypeAlias = "tuple[str, int] | tuple[str, int, int, int] | str | bytes"


class Endpoint(NamedTuple):
    """One end of a connection.

    Attributes:
        host: an IP address; IPv4 is never written as mapped IPv6, and no scope id is in it.
            Empty for a Unix socket.
        port: 0 for a Unix socket.
    """

    host: str
    port: int

    @override
    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Transport(Protocol):
    """A stream of octets to and from one peer, used by one task at a time.

    Attributes:
        deadline: when a `Reaper` is to interrupt whoever waits, in `trio.current_time`; infinite
            for never. The transport itself never looks at it.
    """

    deadline: float

    @property
    def peer(self) -> Endpoint:
        """The other end."""
        ...

    @property
    def local(self) -> Endpoint:
        """This end."""
        ...

    @property
    def waiting(self) -> bool:
        """Whether a `receive` or `send_all` waits for the peer just now."""
        ...

    async def receive(self) -> bytes:
        """Some octets, at most `MOST`, as soon as there are any; none at the end of the stream.

        Not every call is a checkpoint, but in a loop of calls there always comes one.

        Raises:
            trio.BrokenResourceError: the connection is gone.
            trio.ClosedResourceError: we closed it.
            Exception: the reason given to `interrupt`.
        """
        ...

    def receive_nowait(self) -> bytes | None:
        """What the peer has sent already, as `receive`; None if there is nothing yet.

        Raises:
            trio.BrokenResourceError: the connection is gone.
            trio.ClosedResourceError: we closed it.
        """
        ...

    async def send_all(self, octets: bytes) -> None:
        """Write all of it.

        If this raises, an unknown part of the octets was written: what follows would make no
        sense to the peer.

        Raises:
            trio.BrokenResourceError: the connection is gone.
            trio.ClosedResourceError: we closed it.
            Exception: the reason given to `interrupt`.
        """
        ...

    def interrupt(self, reason: Exception) -> None:
        """Make whoever waits raise `reason`; if nobody does, the next `receive` that would wait.

        The transport stays usable: a goodbye can still be written. A reason is raised once; while
        one is yet to be raised, further ones are dropped.
        """
        ...

    def close(self) -> None:
        """Close at once; never blocks, and may be repeated. Who waits gets ClosedResourceError."""
        ...


class SocketTransport:
    """A connected socket as a `Transport`.

    Resource handling:
        Takes the socket over: closing the transport closes it. If the constructor raises, the
        socket still belongs to the caller.

    Args:
        sock: connected; TCP or Unix.
        peer: what `accept` said of the other end; saves asking the kernel again.

    Raises:
        trio.BrokenResourceError: the peer is gone already.
    """

    __slots__ = (
        *("_allowance", "_more", "_reason", "_socket", "_waiting"),
        *("deadline", "peer"),
    )

    def __init__(self, sock: socket.socket, peer: SocketAddress | None = None) -> None:
        try:
            sock.setblocking(False)
            address: SocketAddress = sock.getpeername() if peer is None else peer
            if isinstance(address, tuple):  # no Unix socket
                # A reply must not wait for the acknowledgement of the one before it.
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.peer: Endpoint = endpoint(address)
        except OSError as error:
            raise trio.BrokenResourceError(str(error)) from error
        self.deadline = math.inf
        self._socket = sock
        self._allowance = _ALLOWANCE
        self._more = False  # there is likely more to read
        self._reason: Exception | None = None
        self._waiting = False

    @property
    def local(self) -> Endpoint:
        """See `Transport`."""
        return endpoint(self._socket.getsockname())  # few ask, so the kernel is not asked for all

    @property
    def waiting(self) -> bool:
        """See `Transport`."""
        return self._waiting

    async def receive(self) -> bytes:
        """See `Transport`."""
        if self._more or self._reason is not None:
            if self._allowance <= 0:
                await self._let_others_run()
            if (octets := self.receive_nowait()) is not None:
                return octets
            if self._reason is not None:
                await self._let_others_run()
                raise self._take_reason()
        while True:
            if self._socket.fileno() < 0:
                raise trio.ClosedResourceError("this transport was closed already")
            self._waiting = True
            try:
                await trio.lowlevel.wait_readable(self._socket)
            except trio.ClosedResourceError:
                raise self._woken() from None
            finally:
                self._waiting = False
            self._allowance = _ALLOWANCE
            if (octets := self.receive_nowait()) is not None:
                return octets

    def receive_nowait(self) -> bytes | None:
        """See `Transport`."""
        try:
            octets = self._socket.recv(MOST)
        except BlockingIOError:
            self._more = False
            return None
        except OSError as error:
            raise _gone(error) from error
        self._more = len(octets) == MOST
        self._allowance -= len(octets) + _CALL
        return octets

    async def send_all(self, octets: bytes) -> None:
        """See `Transport`."""
        if self._allowance <= 0:
            await self._let_others_run()
        self._allowance -= len(octets) + _CALL
        try:
            sent = self._socket.send(octets)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise _gone(error) from error
        if sent < len(octets):
            await self._send_rest(memoryview(octets)[sent:])

    def interrupt(self, reason: Exception) -> None:
        """See `Transport`."""
        if self._reason is None:
            self._reason = reason
        if self._waiting:
            trio.lowlevel.notify_closing(self._socket)

    def close(self) -> None:
        """See `Transport`."""
        if self._socket.fileno() >= 0:
            if self._waiting:
                trio.lowlevel.notify_closing(self._socket)
            self._socket.close()

    def _send(self, octets: memoryview) -> int:
        try:
            return self._socket.send(octets)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise _gone(error) from error

    async def _send_rest(self, octets: memoryview) -> None:
        before = self._reason  # for the next receive; no reason to stop writing
        while octets:
            self._waiting = True
            try:
                await trio.lowlevel.wait_writable(self._socket)
            except trio.ClosedResourceError:
                raise self._woken() from None
            finally:
                self._waiting = False
            self._allowance = _ALLOWANCE
            octets = octets[self._send(octets) :]
            if octets and self._reason is not before:
                # We were interrupted when we were about to be woken anyway.
                raise self._take_reason()

    def _woken(self) -> Exception:
        """Why our wait was broken off."""
        if self._socket.fileno() < 0:
            return trio.ClosedResourceError("this transport was closed by another task")
        return self._take_reason()

    async def _let_others_run(self) -> None:
        await trio.lowlevel.checkpoint()
        self._allowance = _ALLOWANCE

    def _take_reason(self) -> Exception:
        reason, self._reason = self._reason, None
        assert reason is not None
        return reason


async def connect(
    host: str,
    port: int,
    *,
    source: str | None = None,
    timeout: float = 30,  # noqa: ASYNC109 (RFC 5321 has one for each phase; the caller knows it)
) -> SocketTransport:
    """Connect by TCP.

    Args:
        host: an IP address: names are a resolver's business, and the C library's would block.
        port: the peer's.
        source: our own IP address, or None for the kernel to choose.
        timeout: seconds.

    Raises:
        OSError: refused, unreachable, no local port left, no such `source`, …
        trio.TooSlowError: after `timeout`.
        ValueError: `host` or `source` is no IP address, or they are of different kinds.
    """
    address = ipaddress.ip_address(host)
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    if source is not None and ipaddress.ip_address(source).version != address.version:
        raise ValueError(f"cannot reach {host} from {source}")
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if source is not None:
            # Choose the port when connecting: one port can serve many destinations then.
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind((source, 0))
        with trio.fail_after(timeout):
            await _connect(sock, (host, port))
        try:
            return SocketTransport(sock)
        except trio.BrokenResourceError as error:
            raise OSError(errno.ECONNRESET, "reset as soon as connected") from error
    except BaseException:
        sock.close()
        raise


async def connect_unix(
    path: str,
    *,
    timeout: float = 30,  # noqa: ASYNC109 (as `connect`)
) -> SocketTransport:
    """Connect to a Unix socket.

    Raises:
        OSError: nobody listens there, we may not, …
        trio.TooSlowError: after `timeout`.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        with trio.fail_after(timeout):
            await _connect_unix(sock, path)
        return SocketTransport(sock)
    except trio.BrokenResourceError as error:
        sock.close()
        raise OSError(errno.ECONNRESET, "reset as soon as connected") from error
    except BaseException:
        sock.close()
        raise


async def _connect_unix(sock: socket.socket, path: str) -> None:
    await trio.lowlevel.checkpoint()
    # So many may wait there already that the kernel does not even let us wait.
    while (code := sock.connect_ex(path)) == errno.EAGAIN:  # noqa: ASYNC110 (it tells nobody)
        await trio.sleep(_BUSY)
    if code != 0:
        raise OSError(code, os.strerror(code))


async def _connect(sock: socket.socket, address: tuple[str, int]) -> None:
    code = sock.connect_ex(address)
    if code == errno.EINPROGRESS:
        await trio.lowlevel.wait_writable(sock)
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    else:
        await trio.lowlevel.checkpoint()
    if code != 0:
        raise OSError(code, os.strerror(code))
    if sock.getsockname() == sock.getpeername():
        # Nobody listens on that port of our own, and the kernel chose the very same for us.
        raise OSError(errno.ECONNREFUSED, "connected to itself")


def endpoint(address: SocketAddress) -> Endpoint:
    """What the kernel says of one end of a connection, in the form that policies compare."""
    if isinstance(address, str | bytes):
        return Endpoint("", 0)
    host, port = address[0], address[1]
    if ":" in host:
        host = host.partition("%")[0]
        if host.startswith("::ffff:") and "." in host:
            host = host.removeprefix("::ffff:")
    return Endpoint(host, port)


def _gone(error: OSError) -> trio.BrokenResourceError | trio.ClosedResourceError:
    if error.errno == errno.EBADF:
        return trio.ClosedResourceError("this transport was closed already")
    return trio.BrokenResourceError(str(error))
