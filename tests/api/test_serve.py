"""With in-memory streams and virtual time: what a client can do, and what it cannot."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING, TypeAlias

import pytest
import trio
import trio.testing
import trustme

from elemta.api import connection, serve

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, Scope
    from trio.abc import Stream

App: TypeAlias = "Callable[[Scope, ASGIReceiveCallable, ASGISendCallable], Awaitable[None]]"

#: Seconds that a busy machine may take for what takes none.
PATIENCE = 20.0
#: More than the buffers of a connection hold.
BIG = b"x" * (8 * 2**20)


class Seen:
    """An application that says what it is told to, and remembers what it was asked.

    Attributes:
        asked: path and scheme of each request.
        cancelled: requests that were given up.
    """

    def __init__(self, body: bytes = b"well\n") -> None:
        self.body = body
        self.asked: list[tuple[str, str]] = []
        self.cancelled = 0
        self.began = trio.Event()

    async def __call__(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        self.asked.append((scope["path"], scope["scheme"]))
        try:
            if scope["type"] == "websocket":
                await self._chat(receive, send)
            elif scope["path"] == "/slow":
                self.began.set()
                await trio.sleep_forever()
            else:
                await self._answer(send)
        except trio.Cancelled:
            self.cancelled += 1
            raise

    async def _answer(self, send: ASGISendCallable) -> None:
        length = (b"content-length", str(len(self.body)).encode())
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        self.began.set()
        await send({"type": "http.response.body", "body": self.body, "more_body": False})

    async def _chat(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await receive()
        await send({"type": "websocket.accept", "subprotocol": None, "headers": []})
        self.began.set()
        while True:
            await send({"type": "websocket.send", "bytes": None, "text": "x" * 100_000})
            await trio.sleep(0.001)  # once the client is gone, `send` alone waits for nothing


class Listening:
    """A server of an application on a free port of this machine."""

    def __init__(self, app: App, tls: ssl.SSLContext | None = None) -> None:
        self.app = app
        self.tls = tls
        self.stopping = trio.Event()
        self.ended = trio.Event()
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.socket.getsockname()[1]

    async def run(self) -> None:
        with self.socket:
            await serve.run(self.app, [self.socket], self.stopping, tls=self.tls)
        self.ended.set()

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)

    async def stop(self) -> None:
        """End, and see that it does, whatever clients do: a busy machine may take some seconds."""
        self.stopping.set()
        with trio.fail_after(PATIENCE):
            await self.ended.wait()


async def hear_all(stream: Stream) -> bytes:
    """All that is sent until the end."""
    heard = b""
    while octets := await stream.receive_some():
        heard += octets
    return heard


async def hear_answer(stream: Stream) -> bytes:
    """The header of an answer, and what has come of its body."""
    heard = b""
    while b"\r\n\r\n" not in heard:
        octets = await stream.receive_some()
        assert octets, heard
        heard += octets
    return heard


def request(path: str = "/", *headers: str, method: str = "GET") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


UPGRADE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Extensions: permessage-deflate",
)


class Client:
    """One end of a connection in memory; at the other there is a server."""

    def __init__(self, app: App, tls: ssl.SSLContext | None = None) -> None:
        self.server = serve.Server(app, tls)
        self.stream, self._theirs = trio.testing.memory_stream_pair()
        self.ended = trio.Event()

    async def run(self) -> None:
        await self.server.serve(self._theirs, ("192.0.2.1", 4000), ("192.0.2.2", 80))
        await self._theirs.aclose()
        self.ended.set()


async def test_requests_are_answered_one_after_the_other(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    app = Seen()
    client = Client(app)
    nursery.start_soon(client.run)
    await client.stream.send_all(request("/a") + request("/b", "Connection: close"))
    heard = await hear_all(client.stream)
    assert heard.count(b"HTTP/1.1 200") == 2
    assert heard.endswith(b"well\n")
    assert app.asked == [("/a", "http"), ("/b", "http")]


async def test_who_says_nothing_is_sent_away(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    client = Client(Seen())
    nursery.start_soon(client.run)
    assert await hear_all(client.stream) == b""
    assert trio.current_time() == pytest.approx(connection.IDLE)


async def test_who_sends_a_header_drop_by_drop_is_cut_off(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    client = Client(Seen())
    nursery.start_soon(client.run)

    async def drip() -> None:
        for octet in request("/", *(f"X-{number}: y" for number in range(50))):
            await client.stream.send_all(bytes([octet]))
            await trio.sleep(1)

    with pytest.raises(trio.BrokenResourceError):
        await drip()
    assert trio.current_time() <= connection.IDLE + connection.LINGER + 1


async def test_the_next_request_gets_as_long_as_the_first(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    client = Client(Seen())
    nursery.start_soon(client.run)
    for _ in range(5):
        await trio.sleep(connection.IDLE - 1)
        await client.stream.send_all(request())
        await hear_answer(client.stream)


async def test_a_request_that_takes_long_is_not_taken_for_idle(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    client = Client(Seen())
    nursery.start_soon(client.run)
    await client.stream.send_all(request("/slow"))
    await trio.sleep(connection.IDLE * 5)
    assert not client.ended.is_set()


async def test_a_header_that_never_ends_is_refused(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    client = Client(Seen())
    nursery.start_soon(client.run)
    await client.stream.send_all(request("/", "X: " + "y" * serve.HEADER)[:-2])
    assert (await hear_all(client.stream)).startswith(b"HTTP/1.1 431 ")


async def test_what_is_no_http_is_refused(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    client = Client(Seen())
    nursery.start_soon(client.run)
    await client.stream.send_all(b"EHLO client.example\r\n\r\n")
    assert (await hear_all(client.stream)).startswith(b"HTTP/1.1 400 ")


async def test_a_body_that_nobody_wanted_does_not_cost_the_answer(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Closing with something unread makes the kernel take back what was written."""
    client = Client(Seen())
    nursery.start_soon(client.run)
    await client.stream.send_all(request("/", "Content-Length: 5000000", method="POST") + b"a")
    heard = await hear_answer(client.stream)
    await client.stream.send_all(b"b" * 1000)
    assert heard.startswith(b"HTTP/1.1 200 ")
    assert await hear_all(client.stream) in (b"", b"well\n")
    assert trio.current_time() <= connection.LINGER + 0.1


async def test_who_does_not_read_is_cut_off(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    app = Seen(BIG)
    server = serve.Server(app, None)
    ours, theirs = trio.testing.lockstep_stream_pair()

    async def run() -> None:
        await server.serve(theirs, ("192.0.2.1", 4000), ("192.0.2.2", 80))
        await trio.aclose_forcefully(theirs)

    nursery.start_soon(run)
    await ours.send_all(request())
    await app.began.wait()
    await trio.sleep(connection.READING + 1)
    with pytest.raises(trio.BrokenResourceError):
        await ours.send_all(b"x")


async def test_a_client_that_goes_away_ends_its_request(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    app = Seen()
    client = Client(app)
    nursery.start_soon(client.run)
    await client.stream.send_all(request("/slow"))
    await app.began.wait()
    await client.stream.aclose()
    with trio.fail_after(connection.LINGER + 1):
        await client.ended.wait()
    assert app.cancelled == 1


@pytest.mark.parametrize("headers", [("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c")])
async def test_nobody_gets_http2(
    headers: tuple[str, ...], nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    client = Client(Seen())
    nursery.start_soon(client.run)
    await client.stream.send_all(request("/", *headers, "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA"))
    assert (await hear_answer(client.stream)).startswith(b"HTTP/1.1 200 ")


async def test_who_begins_in_http2_is_answered_in_http1(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    app = Seen()
    client = Client(app)
    nursery.start_soon(client.run)
    await client.stream.send_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    heard = await hear_all(client.stream)
    assert heard.startswith(b"HTTP/1.1 ")
    assert b"HTTP/1.1 400 " in heard


async def test_websockets_are_not_compressed(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    client = Client(Seen())
    nursery.start_soon(client.run)
    await client.stream.send_all(request("/events", *UPGRADE))
    heard = await hear_answer(client.stream)
    assert heard.startswith(b"HTTP/1.1 101 ")
    assert b"permessage-deflate" not in heard.lower().partition(b"\r\n\r\n")[0]


async def test_who_speaks_before_its_websocket_is_open_is_cut_off(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """RFC 6455 §4.1. It was a traceback in the log for each who did."""
    client = Client(Seen())
    nursery.start_soon(client.run)
    await client.stream.send_all(request("/events", *UPGRADE) + b"\x81\x85aaaabbbbb")
    with trio.fail_after(connection.LINGER + 1):
        await hear_all(client.stream)
        await client.ended.wait()


async def test_a_websocket_may_follow_a_request(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    client = Client(Seen())
    nursery.start_soon(client.run)
    await client.stream.send_all(request())
    assert (await hear_answer(client.stream)).startswith(b"HTTP/1.1 200 ")
    await client.stream.send_all(request("/events", *UPGRADE))
    assert b"HTTP/1.1 101 " in await hear_answer(client.stream)


async def broken(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    raise ValueError("a fault of ours")


async def test_a_fault_costs_one_request(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    client = Client(broken)
    nursery.start_soon(client.run)
    await client.stream.send_all(request())
    assert (await hear_all(client.stream)).startswith(b"HTTP/1.1 500 ")


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context


async def test_an_encrypted_request_is_known_for_one(
    authority: trustme.CA,
    tls: ssl.SSLContext,
    nursery: trio.Nursery,
    autojump_clock: trio.testing.MockClock,
) -> None:
    app = Seen()
    client = Client(app, tls)
    nursery.start_soon(client.run)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    stream = trio.SSLStream(
        client.stream, context, server_hostname="localhost", https_compatible=True
    )
    await stream.send_all(request("/", "Connection: close"))
    assert (await hear_all(stream)).endswith(b"well\n")
    assert app.asked == [("/", "https")]


async def test_who_does_not_shake_hands_is_sent_away(
    tls: ssl.SSLContext, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    client = Client(Seen(), tls)
    nursery.start_soon(client.run)
    await client.stream.send_all(b"\x16\x03")
    assert await hear_all(client.stream) == b""
    assert trio.current_time() == pytest.approx(serve.HANDSHAKE)


async def test_who_speaks_clear_to_a_server_that_encrypts_is_sent_away(
    tls: ssl.SSLContext, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    app = Seen()
    client = Client(app, tls)
    nursery.start_soon(client.run)
    await client.stream.send_all(request())
    await hear_all(client.stream)
    assert app.asked == []


# With real sockets and real time, as buffers of the kernel are part of the question.


@pytest.fixture
async def listening(nursery: trio.Nursery) -> Listening:
    server = Listening(Seen(BIG))
    nursery.start_soon(server.run)
    return server


@pytest.fixture
def long_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for clients that are given time waits longer than a test does."""
    monkeypatch.setattr(serve, "GRACE", 10 * PATIENCE)


@pytest.mark.usefixtures("long_grace")
async def test_a_server_that_nobody_uses_stops_at_once(listening: Listening) -> None:
    await trio.testing.wait_all_tasks_blocked()
    await listening.stop()


@pytest.mark.usefixtures("long_grace")
async def test_a_client_between_two_requests_does_not_hold_up_the_end(
    nursery: trio.Nursery,
) -> None:
    server = Listening(Seen())
    nursery.start_soon(server.run)
    async with await server.connect() as stream:
        await stream.send_all(request())
        await hear_answer(stream)
        await server.stop()
        assert await hear_all(stream) in (b"", b"well\n")


@pytest.mark.parametrize("ask", [request(), request("/events", *UPGRADE), request("/slow")])
async def test_who_does_not_read_does_not_hold_up_the_end(ask: bytes, listening: Listening) -> None:
    """Hypercorn alone waits for as long as the client likes."""
    app = listening.app
    assert isinstance(app, Seen)
    async with await listening.connect() as stream:
        await stream.send_all(ask)
        with trio.fail_after(60):
            await app.began.wait()
        await trio.sleep(0.1)  # the buffers are full by then
        await listening.stop()


async def test_who_does_not_read_does_not_hold_up_a_cancellation(listening: Listening) -> None:
    app = listening.app
    assert isinstance(app, Seen)
    async with trio.open_nursery() as nursery, await listening.connect() as stream:
        await stream.send_all(request())
        with trio.fail_after(60):
            await app.began.wait()
        other = Listening(Seen())
        nursery.start_soon(other.run)
        async with await other.connect() as second:
            await second.send_all(request("/slow"))
            await trio.testing.wait_all_tasks_blocked(0.05)
            began = trio.current_time()
            nursery.cancel_scope.cancel()
    assert trio.current_time() - began < PATIENCE
    await listening.stop()


async def test_one_client_cannot_have_all_places(nursery: trio.Nursery) -> None:
    server = Listening(Seen())
    nursery.start_soon(server.run)
    streams = [await server.connect() for _ in range(serve.OF_ONE)]
    await trio.testing.wait_all_tasks_blocked(0.05)
    async with await server.connect() as stream:
        assert (await hear_all(stream)).startswith(b"HTTP/1.1 503 ")
    await streams.pop().aclose()
    await trio.testing.wait_all_tasks_blocked(0.05)
    async with await server.connect() as stream:
        await stream.send_all(request())
        assert (await hear_answer(stream)).startswith(b"HTTP/1.1 200 ")
    for stream in streams:
        await trio.aclose_forcefully(stream)
    await server.stop()


async def test_the_sockets_can_be_served_again(nursery: trio.Nursery) -> None:
    """A part that failed is started again."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        for _ in range(2):
            stopping = trio.Event()
            nursery.start_soon(serve.run, Seen(), [sock], stopping)
            async with await trio.open_tcp_stream("127.0.0.1", sock.getsockname()[1]) as stream:
                await stream.send_all(request())
                assert (await hear_answer(stream)).startswith(b"HTTP/1.1 200 ")
            stopping.set()
            await trio.testing.wait_all_tasks_blocked()
