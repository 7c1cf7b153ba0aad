"""A server that is steered from elsewhere: its control protocol, over a websocket of its API."""

from __future__ import annotations

import ipaddress
import ssl
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import msgspec
import trio
import trio_websocket
from msgspec import Struct
from typing_extensions import override

from elemta import __version__
from elemta.config import HostPort
from elemta.control.client import Client, NotRunningError
from elemta.control.framing import MAX_ANSWER
from elemta.control.interface import (
    ControlError,
    ForbiddenError,
    RequestError,
    UnavailableError,
    UnknownError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

#: Where the API has it.
PATH: Final = "/v1/control"
#: Seconds for the connection with its handshakes, and for the farewell.
PATIENCE: Final = 10.0
FAREWELL: Final = 1.0
#: Seconds between two pings.
PING: Final = 20.0
#: Octets that are read at a time.
PIECE: Final = 65536
_TLS: Final = {"http": False, "ws": False, "https": True, "wss": True}
_NOT_THERE: Final = (404, 405, 426)


class Remote(Struct, frozen=True, kw_only=True):
    """A server's API. Made by `remote`.

    Attributes:
        host, port, path: where it is.
        tls: whether to encrypt.
        token: says who we are; a secret.
        ca: a file with certificates of authorities that are trusted, too (PEM).
    """

    host: str
    port: int
    path: str
    tls: bool
    token: str
    ca: Path | None = None

    @override
    def __repr__(self) -> str:
        return f"Remote({self})"

    @property
    def authority(self) -> str:
        """Host and port, as URLs have them."""
        return str(HostPort(self.host, self.port))

    @override
    def __str__(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.authority}{self.path}"

    @property
    def exposed(self) -> bool:
        """Whether the token goes over a network for everybody to read."""
        if self.tls or self.host == "localhost":
            return False
        try:
            return not ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return True


def remote(url: str, token: str, ca: Path | None = None) -> Remote:
    """What a URL such as ``https://mx.example.org:8025`` means.

    Raises:
        ValueError: nothing.
    """
    parts = urlsplit(url)
    tls = _TLS.get(parts.scheme)
    if tls is None or not parts.hostname:
        raise ValueError(f"expected http://HOST:PORT or https://HOST:PORT, not {url!r}")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("expected a URL without a user, a query or a fragment")
    if not token.isascii() or not token.isprintable() or " " in token or not token:
        raise ValueError("expected a token of printable ASCII, without spaces")
    return Remote(
        host=parts.hostname,
        port=parts.port or (443 if tls else 80),
        path=parts.path.rstrip("/"),
        tls=tls,
        token=token,
        ca=ca,
    )


@asynccontextmanager
async def connect(
    server: Remote, *, within: float = PATIENCE, ping: float = PING
) -> AsyncGenerator[Client]:
    """Reach a server by its API.

    Args:
        server: which one.
        within: seconds for the connection, with its handshakes; and for the answer to a ping.
        ping: seconds between two of these.

    Raises:
        NotRunningError: nobody listens there.
        ForbiddenError: the token is not accepted.
        UnavailableError: it cannot be reached, or is not who it should be.
        RequestError: the file of authorities is none.
        UnknownError: who listens there has no such API.
    """
    context = _context(server.ca) if server.tls else None
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                deadline = trio.current_time() + within
                with _in_time(server, deadline):
                    stream = await _dial(server, context)
                async with stream:
                    with _in_time(server, deadline):
                        connection = await _upgrade(server, stream, nursery)
                    nursery.start_soon(_keep_alive, connection, stream, ping, within)
                    yield Client(WebsocketStream(connection))
                    with trio.move_on_after(FAREWELL):
                        await connection.aclose()
            except trio.Cancelled:
                raise
            except BaseException as error:  # as it is, rather than in a group of one
                failure = error
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:  # from the websocket's own task
        cause = _root(group)
        if isinstance(cause, trio_websocket.ConnectionRejected):
            failure = _refused(server, cause)
        elif isinstance(cause, KeyboardInterrupt):
            failure = cause
        else:
            raise
    if failure is not None:
        raise failure


@contextmanager
def _in_time(server: Remote, deadline: float) -> Generator[None]:
    try:
        with trio.fail_at(deadline):
            yield
    except trio.TooSlowError:
        raise UnavailableError(
            f"who listens at {server}, if anybody does, does not answer as the API does"
        ) from None


async def _dial(
    server: Remote, context: ssl.SSLContext | None
) -> trio.SocketStream | trio.SSLStream[trio.SocketStream]:
    """A connection, encrypted if it shall be."""
    try:
        stream = await trio.open_tcp_stream(server.host, server.port)
    except OSError as error:
        cause = _root(error)
        if isinstance(cause, ConnectionRefusedError):
            raise NotRunningError(f"nobody listens at {server}") from None
        why = (cause.strerror if isinstance(cause, OSError) else None) or str(cause)
        raise UnavailableError(f"{server} cannot be reached: {why}") from None
    if context is None:
        return stream
    encrypted = trio.SSLStream(stream, context, server_hostname=server.host, https_compatible=True)
    try:
        await encrypted.do_handshake()
    except BaseException as error:
        await trio.aclose_forcefully(stream)
        if not isinstance(error, trio.BrokenResourceError):
            raise
        reason = error.__cause__
        if isinstance(reason, ssl.SSLCertVerificationError):
            why = f"its certificate is not good: {reason.verify_message}"
        else:
            why = f"it does not encrypt: {getattr(reason, 'reason', None) or 'it has hung up'}"
        raise UnavailableError(f"{server}: {why}") from None
    return encrypted


async def _keep_alive(
    connection: trio_websocket.WebSocketConnection,
    stream: trio.abc.AsyncResource,
    ping: float,
    within: float,
) -> None:
    """Find out when the other end is gone without a word, while it has nothing to say."""
    while True:
        await trio.sleep(ping)
        try:
            with trio.fail_after(within):
                await connection.ping()
        except trio.TooSlowError:
            await trio.aclose_forcefully(stream)  # who waits for it is told that it is closed
            return
        except trio_websocket.ConnectionClosed:
            return


async def _upgrade(
    server: Remote,
    stream: trio.SocketStream | trio.SSLStream[trio.SocketStream],
    nursery: trio.Nursery,
) -> trio_websocket.WebSocketConnection:
    """A websocket, whose task is in the nursery."""
    return await trio_websocket.wrap_client_stream(
        nursery,
        stream,
        server.authority,
        f"{server.path}{PATH}",
        extra_headers=[
            (b"Authorization", f"Bearer {server.token}".encode()),
            (b"User-Agent", f"elemta/{__version__}".encode()),
        ],
        max_message_size=MAX_ANSWER,
        receive_buffer_size=PIECE,
    )


class WebsocketStream(trio.abc.Stream):
    """A websocket as a stream of octets, however they are cut into frames.

    Resource handling:
        The connection is its opener's to close; what is closed here can only not be used again.
    """

    def __init__(self, connection: trio_websocket.WebSocketConnection) -> None:
        self._connection = connection
        self._closed = False

    @override
    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send a frame of text."""
        if self._closed:
            raise trio.ClosedResourceError
        try:
            await self._connection.send_message(bytes(data).decode())
        except trio_websocket.ConnectionClosed:
            raise trio.BrokenResourceError from None

    @override
    async def wait_send_all_might_not_block(self) -> None:
        """Nobody knows when that is."""
        await trio.lowlevel.checkpoint()

    @override
    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """The content of a frame, however large; nothing: the other end has closed."""
        if self._closed:
            raise trio.ClosedResourceError
        try:
            frame = await self._connection.get_message()
        except trio_websocket.ConnectionClosed:
            return b""
        return frame.encode() if isinstance(frame, str) else frame

    @override
    async def aclose(self) -> None:
        """Use it no more."""
        self._closed = True
        await trio.lowlevel.checkpoint()


def _context(ca: Path | None) -> ssl.SSLContext:
    """What to trust: the authorities of this machine, and one of the user's own.

    Raises:
        RequestError: `ca` cannot be read.
    """
    context = ssl.create_default_context()
    if ca is not None:
        try:
            context.load_verify_locations(ca)
        except ssl.SSLError:
            raise RequestError(f"{ca}: there is no certificate in it", "ca") from None
        except OSError as error:
            raise RequestError(f"{ca}: {error.strerror or error}", "ca") from None
    return context


def _root(error: BaseException) -> BaseException:
    """What an error was caused by, or one of those that a group has."""
    if isinstance(error, BaseExceptionGroup):
        return _root(error.exceptions[0])  # pyright: ignore # a group does not say of what
    return error if error.__cause__ is None else _root(error.__cause__)


class _Told(Struct):
    detail: str = ""


_told: Final = msgspec.json.Decoder(_Told)


def _refused(server: Remote, error: trio_websocket.ConnectionRejected) -> ControlError:
    """What the server says in place of a websocket."""
    try:
        detail = _told.decode(error.body or b"{}").detail
    except (msgspec.DecodeError, UnicodeDecodeError):
        detail = ""
    status = error.status_code
    if status in (401, 403):
        return ForbiddenError(f"{server} does not take the token: {detail or status}")
    if status in _NOT_THERE:
        return UnknownError(f"there is no API of Elemta at {server} (it answers {status})")
    return UnavailableError(f"{server} does not let us in: {detail or f'it answers {status}'}")
