"""One client's connection, as Hypercorn's HTTP/1.1 and websocket protocols are driven by us.

Hypercorn's own driver sends under a shield without a deadline, so that a client that does not read
holds up whoever wants to end; it is not used. The rules of this file:

- Nothing is shielded: a connection is cut off by cancelling it.
- Each wait for the client has a deadline: for its handshake, for a whole request header, for it to
  read what we send. How long a body may take, the application says; a websocket is pinged.
- What was sent in part cannot be followed by anything: the connection is closed then.
- No HTTP/2, which has limits of its own to be got right, and no compression of websockets, which
  costs 300 KiB for each of them.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import h11
import trio
from hypercorn.events import Closed, RawData, Updated
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.task_group import TaskGroup
from hypercorn.typing import ConnectionState
from trio.abc import HalfCloseableStream
from typing_extensions import override

from elemta.log import logger

if TYPE_CHECKING:
    from hypercorn.config import Config
    from hypercorn.events import Event
    from hypercorn.trio.worker_context import WorkerContext
    from hypercorn.typing import AppWrapper, H11SendableEvent
    from trio.abc import Stream

log = logger(__name__)

#: Seconds that a client gets for the header of a request, and for the pause before it.
IDLE: Final = 20.0
#: Seconds that a client gets to read `PIECE` octets of what we send.
READING: Final = 30.0
#: Octets that are sent at a time.
PIECE: Final = 65536
#: Seconds that a client goes on being read, to no end, when we end and it has more to say: else the
#: kernel would take back what we said. And that the application gets to end once a client has.
LINGER: Final = 2.0


class Http1(H11Protocol):
    """HTTP/1.1, and no way out of it."""

    @override
    async def _check_protocol(self, event: h11.Request) -> None:
        """Go on in HTTP/1.1, whatever else the client would like."""

    @override
    async def _create_stream(self, request: h11.Request) -> None:
        kept = [each for each in request.headers if each[0] != b"sec-websocket-extensions"]
        await super()._create_stream(
            h11.Request(
                method=request.method,
                target=request.target,
                headers=kept,
                http_version=request.http_version,
            )
        )

    @override
    async def _send_h11_event(self, event: H11SendableEvent) -> None:
        try:
            await super()._send_h11_event(event)
        except h11.LocalProtocolError as error:
            # What the client said before leaves no room for an answer, such as a second upgrade.
            log.info("api.no_answer", error=str(error))
            await self.send(Closed())


class Connection:
    """One client's.

    Args:
        stream: to the client; whoever made it closes it.
        app: answers.
        config: limits of Hypercorn's.
        context: of the server.
        client, server: address and port of both ends.
        tls: the stream is encrypted.
    """

    def __init__(
        self,
        stream: Stream,
        app: AppWrapper,
        config: Config,
        context: WorkerContext,
        *,
        client: tuple[str, int],
        server: tuple[str, int],
        tls: bool,
    ) -> None:
        self._stream = stream
        self._sending = trio.Lock()
        self._idle = True
        self._everything = trio.CancelScope()
        self._reading = trio.CancelScope()
        self._ending = False
        self._group = group = TaskGroup()
        self._http = Http1(
            app, config, context, group, ConnectionState({}), tls, client, server, self._take
        )

    async def run(self) -> None:
        """Serve the client until either of us ends."""
        with self._everything:
            async with self._group:
                self._reading.deadline = trio.current_time() + IDLE
                with self._reading:
                    await self._read()
                self._ending = True
                self._everything.deadline = trio.current_time() + LINGER
                await self._http.handle(Closed())

    def end_if_idle(self) -> None:
        """Close the connection, if we wait for a request."""
        if self._idle:
            self._reading.cancel()

    async def _read(self) -> None:
        """Give the protocol what the client sends, until it ends."""
        while True:
            try:
                octets = bytes(await self._stream.receive_some(PIECE))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return
            if not self._ending:
                await self._http.handle(RawData(octets))
            if not octets:
                return

    async def _take(self, event: Event) -> None:
        """What the protocol wants done."""
        if isinstance(event, RawData):
            await self._send(event.data)
        elif isinstance(event, Updated):
            self._idle = event.idle
            if not self._ending:
                deadline = trio.current_time() + IDLE if event.idle else math.inf
                self._reading.deadline = deadline
        elif isinstance(event, Closed):
            await self._end()

    async def _send(self, octets: bytes) -> None:
        async with self._sending:
            try:
                for start in range(0, len(octets), PIECE):
                    with trio.fail_after(READING):
                        await self._stream.send_all(octets[start : start + PIECE])
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._reading.cancel()
            except trio.TooSlowError:
                self._everything.cancel()
            except trio.Cancelled:
                # Nothing can follow half an answer. Whoever was cancelled may be one of many tasks.
                self._everything.cancel()
                raise

    async def _end(self) -> None:
        """Close the connection: we have said all, or will not wait any more."""
        self._ending = True
        if self._more_to_come():
            self._reading.deadline = trio.current_time() + LINGER
            if isinstance(self._stream, HalfCloseableStream):
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await self._stream.send_eof()
        else:
            self._reading.cancel()
        await self._http.handle(Closed())

    def _more_to_come(self) -> bool:
        """Whether the client may be in the middle of something, such as a body nobody wanted."""
        return self._http.connection.their_state not in (h11.IDLE, h11.DONE, h11.CLOSED)
