"""Real clients over a real socket: ours, and one that is not."""

from __future__ import annotations

import json
import socket
import ssl
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
import trio
import trustme
from typing_extensions import override
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect as websocket_of

from elemta.api import serve
from elemta.api.app import create_app
from elemta.control.client import NotRunningError
from elemta.control.interface import (
    ForbiddenError,
    RequestError,
    UnavailableError,
    UnknownError,
)
from elemta.control.remote import Remote, connect, remote
from elemta.queue import Delete, Filter, Finished
from tests.api.fakes import site_of
from tests.api.live.world import FIRST, ID, LiveControl
from tests.control.fake import message

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from websockets.sync.client import ClientConnection


class Served:
    """An API on a port of loopback."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.control = LiveControl()
        self.site = site_of(self.control)
        self.tls = tls
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.sock.getsockname()[1]

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Served]:
        with self.sock:
            async with trio.open_nursery() as nursery:
                app, stopping = create_app(self.site), self.site.stopping
                nursery.start_soon(partial(serve.run, app, [self.sock], stopping, tls=self.tls))
                with trio.fail_after(60):
                    yield self
                self.site.stopping.set()

    def remote(self, token: str = "all", *, host: str = "127.0.0.1") -> Remote:
        scheme = "http" if self.tls is None else "https"
        return remote(f"{scheme}://{host}:{self.port}", token)


@asynccontextmanager
async def websocket(served: Served, path: str, token: str = "read") -> AsyncGenerator[Foreign]:
    """A client of the `websockets` library, in threads of its own."""
    held = ExitStack()

    def dial() -> ClientConnection:
        headers = {"Authorization": f"Bearer {token}"}
        url = f"ws://127.0.0.1:{served.port}{path}"
        return held.enter_context(websocket_of(url, additional_headers=headers))

    connection = await trio.to_thread.run_sync(dial)
    try:
        yield Foreign(connection)
    finally:
        await trio.to_thread.run_sync(held.close)


class Foreign:
    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    async def receive(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(
            await trio.to_thread.run_sync(partial(self._connection.recv, timeout=10))
        )
        return found


async def test_a_client_that_is_not_ours_hears_resumes_and_is_told_of_the_end() -> None:
    async with Served().running() as served:
        async with websocket(served, "/v1/events") as client:
            (hello,) = await client.receive()
            assert hello["number"] == FIRST
            first = served.control.queued()
            (queued,) = await client.receive()
            assert (queued["type"], queued["number"]) == ("Queued", first)
        later = [served.control.finished() for _ in range(3)]
        async with websocket(served, f"/v1/events?since={first}") as client:
            await client.receive()
            assert [each["number"] for each in await client.receive()] == later
            served.site.stopping.set()
            with pytest.raises(ConnectionClosed) as closed:
                await client.receive()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1001


async def test_a_client_that_is_not_ours_is_told_why_it_is_not_let_in() -> None:
    async with Served().running() as served:
        for path, token, status, text in (
            ("/v1/events", "wrong", 401, b"no token"),
            ("/v1/events", "submit", 403, b"this needs the scope `read`"),
            ("/v1/events?type=Nothing", "read", 422, b"there is no event 'Nothing'"),
        ):
            with pytest.raises(InvalidStatus) as refused:
                async with websocket(served, path, token):
                    pass
            assert refused.value.response.status_code == status
            assert text in refused.value.response.body


async def test_a_server_is_steered_from_elsewhere() -> None:
    async with Served().running() as served, connect(served.remote()) as client:
        served.control.messages = [message(number, recipients=20) for number in range(1500)]
        assert (await client.status()).hostname == "mx.example"
        assert len(await client.search(Filter(), limit=1500)) == 1500
        assert (await client.act(Delete(), Filter(ids=(ID,)))).messages == 1
        assert served.control.who == "token:all"
        number = served.control.finished()
        events = client.events(FIRST)
        assert await anext(events) == Finished(number, 2.0, ID)
        await events.aclose()  # there is no other way to end a question
        with pytest.raises(UnavailableError, match="went away"):
            await client.status()


async def test_a_large_answer_comes_whole() -> None:
    async with Served().running() as served, connect(served.remote()) as client:
        large = message(1, recipients=60_000)
        served.control.messages = [large]
        assert await client.search(Filter()) == [large]


async def test_what_was_being_asked_ends_when_the_server_does() -> None:
    async with Served().running() as served, connect(served.remote()) as client:
        events = client.events()
        async with trio.open_nursery() as nursery:

            async def listen() -> None:
                with pytest.raises(UnavailableError, match="went away"):
                    await anext(events)

            nursery.start_soon(listen)
            await trio.sleep(0.1)
            served.site.stopping.set()


class Wire:
    """What lies between a client and a server, and can fall silent.

    Args:
        port: of the server.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self.silent = False

    async def carry(self, client: trio.SocketStream) -> None:
        server = await trio.open_tcp_stream("127.0.0.1", self._port)
        async with server, trio.open_nursery() as nursery:
            nursery.start_soon(self._pass_on, client, server)
            nursery.start_soon(self._pass_on, server, client)

    async def _pass_on(self, source: trio.SocketStream, target: trio.SocketStream) -> None:
        async for octets in source:
            if not self.silent:
                await target.send_all(octets)


async def test_a_server_that_is_gone_without_a_word_is_noticed(nursery: trio.Nursery) -> None:
    async with Served().running() as served:
        wire = Wire(served.port)
        serve_it = partial(trio.serve_tcp, wire.carry, 0, host="127.0.0.1")
        (listener,) = await nursery.start(serve_it)
        there = remote(f"http://127.0.0.1:{listener.socket.getsockname()[1]}", "all")
        async with connect(there, within=3.0, ping=0.05) as client:
            number = served.control.finished()
            events = client.events(FIRST)
            await trio.sleep(0.3)  # some pings are answered
            assert (await anext(events)) == Finished(number, 2.0, ID)
            wire.silent = True
            with pytest.raises(UnavailableError, match="went away"):
                await anext(events)
        nursery.cancel_scope.cancel()


class Nameless(trio.abc.HostnameResolver):
    """Knows no names, wherever the tests run: a machine without a network says so otherwise."""

    @override
    async def getaddrinfo(self, *asked: object, **more: object) -> NoReturn:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    @override
    async def getnameinfo(self, sockaddr: object, flags: int) -> NoReturn:
        raise NotImplementedError


async def test_why_a_server_is_not_reached_is_told() -> None:
    async with Served().running() as served:
        with pytest.raises(ForbiddenError, match="does not take the token: no token, or none"):
            async with connect(served.remote("wrong")):
                pass
        elsewhere = remote(f"http://127.0.0.1:{served.port}/elsewhere", "all")
        with pytest.raises(UnknownError, match="there is no API of Elemta at"):
            async with connect(elsewhere):
                pass
        encrypted = remote(f"https://127.0.0.1:{served.port}", "all")
        with pytest.raises(UnavailableError, match="it does not encrypt: "):
            async with connect(encrypted):
                pass
    with pytest.raises(NotRunningError, match="nobody listens at http://127"):
        async with connect(served.remote()):
            pass
    trio.socket.set_custom_hostname_resolver(Nameless())
    with pytest.raises(UnavailableError, match="cannot be reached: Name or service not known"):
        async with connect(remote("http://nowhere.invalid:1", "all")):
            pass


async def test_who_speaks_another_protocol_is_found_out() -> None:
    async def babble(stream: trio.SocketStream) -> None:
        await stream.send_all(b"220 mx.example ESMTP\r\n")
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, babble, [listener])
        port = listener.socket.getsockname()[1]
        for scheme in ("http", "https"):
            server = remote(f"{scheme}://127.0.0.1:{port}", "all")
            with pytest.raises(UnavailableError, match=r"does not (answer as the API|encrypt)"):
                async with connect(server, within=2.0):
                    pass
        nursery.cancel_scope.cancel()


async def test_tls_is_with_whom_the_user_trusts(tmp_path: Path) -> None:
    ca, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(context)
    trusted = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(str(trusted))
    async with Served(context).running() as served:
        url = f"https://localhost:{served.port}"
        async with connect(remote(url, "all", trusted)) as client:
            assert (await client.status()).hostname == "mx.example"
        with pytest.raises(UnavailableError, match=r"its certificate is not good: .*issuer"):
            async with connect(remote(url, "all")):
                pass
        other = remote(f"https://127.0.0.1:{served.port}", "all", trusted)
        with pytest.raises(UnavailableError, match=r"its certificate is not good: .*127\.0\.0\.1"):
            async with connect(other):
                pass
        with pytest.raises(RequestError, match="No such file"):
            async with connect(remote(url, "all", tmp_path / "none.pem")):
                pass
        nothing = tmp_path / "nothing.pem"
        nothing.write_text("hello")
        with pytest.raises(RequestError, match="there is no certificate in it"):
            async with connect(remote(url, "all", nothing)):
                pass


@pytest.mark.parametrize(
    ("url", "shown", "exposed"),
    [
        ("http://127.0.0.1:8025", "http://127.0.0.1:8025", False),
        ("http://localhost:8025/", "http://localhost:8025", False),
        ("http://[::1]:8025", "http://[::1]:8025", False),
        ("https://mx.example.org", "https://mx.example.org:443", False),
        ("http://mx.example.org/mail/", "http://mx.example.org:80/mail", True),
        ("ws://192.0.2.1:1", "http://192.0.2.1:1", True),
    ],
)
def test_a_server_is_named_by_a_url(url: str, shown: str, *, exposed: bool) -> None:
    found = remote(url, "secret")
    assert (str(found), found.exposed) == (shown, exposed)
    assert "secret" not in repr(found)


@pytest.mark.parametrize(
    ("url", "token", "text"),
    [
        ("mx.example.org:8025", "t", "expected http://HOST:PORT"),
        ("ftp://mx.example.org", "t", "expected http://HOST:PORT"),
        ("http://bob@mx.example.org", "t", "without a user"),
        ("http://mx.example.org:x", "t", "Port could not be cast"),
        ("http://mx.example.org", "a\r\nb: c", "expected a token"),
        ("http://mx.example.org", "", "expected a token"),
    ],
)
def test_what_is_no_url_and_what_is_no_token_is_told(url: str, token: str, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        remote(url, token)
