"""One question by HTTP/1.1 (RFC 9112) to a service beside us, and its answer.

A connection serves one question: scanners are near, and a connection that is kept may be gone when
it is needed. The caller has the deadline.
"""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

import h11
import trio
from msgspec import Struct

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, AsyncIterable, Iterable

    from elemta.config import WebAddress
    from elemta.net.services import Connects

#: Octets that are read at a time.
_SOME: Final = 64 * 1024


class HttpAnswer(Struct, frozen=True):
    """What a server answers."""

    status: int
    body: bytes


class HttpError(Exception):
    """That was no answer, or too much of it."""


@asynccontextmanager
async def connected(
    address: WebAddress, connect: Connects, context: ssl.SSLContext | None
) -> AsyncGenerator[trio.abc.Stream]:
    """A connection for one question; what goes wrong while this is entered is told as one kind.

    Args:
        address: of the server.
        connect: to it.
        context: what TLS demands of it; None: it is asked in clear.

    Raises:
        HttpError: it cannot be reached, does not prove who it is, breaks off, or gives no answer.
    """
    try:
        stream = await connect(address.service)
        try:
            if context is not None:
                host = address.where.host
                stream = secure = trio.SSLStream(
                    stream, context, server_hostname=host, https_compatible=True
                )
                await secure.do_handshake()
            yield stream
        finally:
            await stream.aclose()
    except (OSError, trio.BrokenResourceError) as error:
        why = error.__cause__ or error  # TLS tells only there what was wrong
        raise HttpError(str(why) or type(why).__name__) from error


async def post(
    stream: trio.abc.Stream,
    target: str,
    fields: Iterable[tuple[bytes, bytes]],
    size: int,
    pieces: AsyncIterable[bytes],
    *,
    most: int,
) -> HttpAnswer:
    """Send something, and hear what becomes of it.

    Args:
        stream: to the server; the caller closes it.
        target: e.g. ``/checkv2``.
        fields: of the question, beside those of HTTP itself; `Host` among them.
        size: octets of all pieces.
        pieces: what is sent; not asked for more once the server has gone.
        most: octets of the answer that are too many.

    Raises:
        HttpError: no answer, none of HTTP, or one that is too long.
    """
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_SOME)
    length = (b"Content-Length", str(size).encode())
    try:
        with suppress(trio.BrokenResourceError):  # it has heard enough, and says why
            question = h11.Request(
                method="POST",
                target=target,
                headers=[*fields, length, (b"Connection", b"close")],
            )
            await stream.send_all(connection.send(question) or b"")
            async for piece in pieces:
                await stream.send_all(connection.send(h11.Data(piece)) or b"")
            await stream.send_all(connection.send(h11.EndOfMessage()) or b"")
        return await _answer(stream, connection, most)
    except h11.ProtocolError as error:
        raise HttpError(str(error)) from error


async def post_all(
    stream: trio.abc.Stream,
    target: str,
    fields: Iterable[tuple[bytes, bytes]],
    octets: bytes,
    *,
    most: int,
) -> HttpAnswer:
    """Send something that is in memory; otherwise as `post`."""

    async def pieces() -> AsyncGenerator[bytes]:
        yield octets

    async with aclosing(pieces()) as told:
        return await post(stream, target, fields, len(octets), told, most=most)


async def get(
    stream: trio.abc.Stream, target: str, fields: Iterable[tuple[bytes, bytes]], *, most: int
) -> HttpAnswer:
    """Ask for something.

    Args:
        stream: to the server; the caller closes it.
        target: path and query.
        fields: of the question, beside those of HTTP itself; `Host` among them.
        most: octets of the answer that are too many.

    Raises:
        HttpError: no answer, none of HTTP, or one that is too long.
    """
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_SOME)
    try:
        question = h11.Request(
            method="GET", target=target, headers=[*fields, (b"Connection", b"close")]
        )
        with suppress(trio.BrokenResourceError):  # it has heard enough, and says why
            await stream.send_all(
                (connection.send(question) or b"") + (connection.send(h11.EndOfMessage()) or b"")
            )
        return await _answer(stream, connection, most)
    except h11.ProtocolError as error:
        raise HttpError(str(error)) from error


async def _answer(stream: trio.abc.Stream, connection: h11.Connection, most: int) -> HttpAnswer:
    status, body = 0, bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            try:
                connection.receive_data(bytes(await stream.receive_some(_SOME)))
            except trio.BrokenResourceError as error:
                raise HttpError("the connection broke") from error
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > most:
                raise HttpError(f"an answer of more than {most} octets")
        elif isinstance(event, h11.EndOfMessage):
            return HttpAnswer(status, bytes(body))
        elif not isinstance(event, h11.InformationalResponse):
            raise HttpError("the connection ended without an answer")
