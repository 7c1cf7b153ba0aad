"""Serves the API, and ends when it is told to, whatever its clients do.

::

    run
    └── lifespan                of the application
        └── connections         cut off `GRACE` after the end was asked for
            └── accepting       stopped first

See `elemta.api.connection` for what a single client can do.
"""

from __future__ import annotations

import errno
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.logging import Logger
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.worker_context import WorkerContext
from typing_extensions import override

from elemta.api.connection import Connection
from elemta.log import logger
from elemta.net.limits import Limit, TooManyError, network

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Sequence

    from hypercorn.typing import ASGIFramework, ResponseSummary, WWWScope
    from trio.abc import Stream

log = logger(__name__)

#: Connections of one client network at a time, and of all together.
OF_ONE: Final = 256
OF_ALL: Final = 512
#: Octets of the header of a request.
HEADER: Final = 16384
#: Octets of a message that a websocket sends us.
MESSAGE: Final = 2**20
#: Seconds between two pings of a websocket.
PING: Final = 30.0
#: Seconds that the handshake of TLS may take.
HANDSHAKE: Final = 10.0
#: Seconds that requests and websockets get to end by themselves, once we are told to stop.
GRACE: Final = 1.0
#: Seconds to wait when there are no descriptors left, as `trio.serve_listeners` has it.
_PAUSE: Final = 0.1
#: Clients that are let in at one turn of the loop.
BATCH: Final = 64

_BUSY: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 5\r\n"
    b"content-type: text/plain\r\ncontent-length: 21\r\n\r\ntoo many connections\r\n"
)
_NO_ROOM: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
#: The socket is none that can be accepted on: there is no use in trying again.
_OURS: Final = frozenset({errno.EBADF, errno.EINVAL, errno.ENOTSOCK, errno.EOPNOTSUPP})


async def run(
    app: ASGIFramework,
    sockets: Sequence[socket.socket],
    stopping: trio.Event,
    *,
    tls: ssl.SSLContext | None = None,
) -> None:
    """Serve until `stopping` is set, and then no longer than `GRACE` and a moment.

    Args:
        app: answers.
        sockets: listening.
        stopping: what is open may end by itself once this is set, and is then cut off.
        tls: what is shown to clients; None: they are served in clear.

    Raises:
        Exception: the application cannot start; or a fault of ours.

    Resource handling:
        The sockets stay open.
    """
    await Server(app, tls).run(sockets, stopping)


class Server:
    """Serves an application; see `run`."""

    def __init__(self, app: ASGIFramework, tls: ssl.SSLContext | None) -> None:
        self._app = ASGIWrapper(app)
        self._tls = tls
        self._config = _limits()
        self._context = WorkerContext(None)
        self._limit = Limit(OF_ONE, OF_ALL)
        self._open: set[Connection] = set()

    async def run(self, sockets: Sequence[socket.socket], stopping: trio.Event) -> None:
        """See `run` above."""
        for each in sockets:
            each.setblocking(False)
        lifespan = Lifespan(self._app, self._config, {})
        async with trio.open_nursery() as nursery:
            await nursery.start(lifespan.handle_lifespan)
            await lifespan.wait_for_startup()
            async with trio.open_nursery() as connections:
                async with trio.open_nursery() as accepting:
                    for each in sockets:
                        accepting.start_soon(self._accept, each, connections)
                    await stopping.wait()
                    accepting.cancel_scope.cancel()
                await self._context.terminated.set()  # who is in a request ends after it
                for connection in self._open:
                    connection.end_if_idle()
                connections.cancel_scope.deadline = trio.current_time() + GRACE
            nursery.cancel_scope.cancel()

    async def _accept(self, sock: socket.socket, connections: trio.Nursery) -> None:
        """Let clients in, all that wait there at a time.

        One at each turn of the loop would let a hundred of them wait for each other, while others
        make every turn a long one.
        """
        while True:
            await trio.lowlevel.wait_readable(sock)
            for _ in range(BATCH):
                try:
                    client, _ = sock.accept()
                except BlockingIOError:
                    break
                except OSError as error:
                    if error.errno in _NO_ROOM:
                        log.warning("api.no_room", error=error.strerror)
                        await trio.sleep(_PAUSE)
                        break
                    if error.errno in _OURS:
                        raise
                    continue  # the client went away before we came to it (accept(2))
                connections.start_soon(self._serve, client)

    async def _serve(self, sock: socket.socket) -> None:
        """Serve one client. Whatever happens to it must not end the others."""
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        try:
            client, server = stream.socket.getpeername(), stream.socket.getsockname()
            with self._limit.hold(network(client[0])):
                await self.serve(stream, client[:2], server[:2])
        except TooManyError as error:
            log.warning("api.too_many", limit=str(error))
            if self._tls is None:
                with trio.move_on_after(_PAUSE), suppress(trio.BrokenResourceError):
                    await stream.send_all(_BUSY)
        except OSError:  # it was gone before we could ask who it is
            pass
        except Exception:  # a fault of ours, and not of the other clients
            log.exception("api.connection_failed")
        finally:
            await trio.aclose_forcefully(stream)

    async def serve(self, plain: Stream, client: tuple[str, int], server: tuple[str, int]) -> None:
        """Serve the client at the other end of a stream."""
        stream = plain
        if self._tls is not None:
            stream = encrypted = trio.SSLStream(
                plain, self._tls, server_side=True, https_compatible=True
            )
            try:
                with trio.fail_after(HANDSHAKE):
                    await encrypted.do_handshake()
            except (trio.BrokenResourceError, trio.TooSlowError) as error:
                log.info("api.no_handshake", client=client[0], error=str(error.__cause__ or error))
                return
        connection = Connection(
            stream,
            self._app,
            self._config,
            self._context,
            client=client,
            server=server,
            tls=self._tls is not None,
        )
        self._open.add(connection)
        try:
            await connection.run()
        finally:
            self._open.discard(connection)
        with trio.move_on_after(GRACE), suppress(trio.BrokenResourceError):
            await stream.aclose()


def _limits() -> Config:
    config = Config()
    config.h11_max_incomplete_size = HEADER
    config.websocket_max_message_size = MESSAGE
    config.websocket_ping_interval = PING
    config.include_server_header = False
    config.logger_class = _Log
    config.startup_timeout = 10
    return config


class _Log(Logger):
    """What Hypercorn has to say, as events of ours."""

    def __init__(self, config: Config) -> None:
        self.access_logger = self.error_logger = None

    @override
    async def access(
        self, request: WWWScope, response: ResponseSummary, request_time: float
    ) -> None:
        """Who asked what is not logged: what they changed is, by the audit log."""

    @override
    async def warning(self, message: str, *args: object, **kwargs: object) -> None:
        log.warning("api.server", text=message)

    @override
    async def exception(self, message: str, *args: object, **kwargs: object) -> None:
        log.exception("api.failed", text=message)  # noqa: LOG004 # Hypercorn calls it in one
