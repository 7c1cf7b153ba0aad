from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pytest
import trio
import trustme
from trio.testing import memory_stream_pair

from elemta.maps import MapDownError
from elemta.maps.http import Http
from elemta.testing import at_once

if TYPE_CHECKING:
    from elemta.config import Service

#: What a server says, by its status.
OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s"


class Server:
    """Answers one thing to all; hears what it is asked."""

    def __init__(self, answer: bytes, nursery: trio.Nursery) -> None:
        self.answer = answer
        self.heard: list[str] = []
        self.called: list[str] = []
        self._nursery = nursery

    async def connect(self, service: Service) -> trio.abc.Stream:
        self.called.append(str(service))
        ours, theirs = memory_stream_pair()
        self._nursery.start_soon(self._serve, theirs)
        return ours

    async def _serve(self, stream: trio.abc.Stream) -> None:
        question = b""
        while not question.endswith(b"\r\n\r\n"):
            question += await stream.receive_some(4096)
        self.heard.append(question.decode())
        await stream.send_all(self.answer)
        await stream.aclose()


async def find(url: str, key: str, answer: bytes) -> tuple[tuple[str, ...] | None, Server]:
    async with trio.open_nursery() as nursery:
        server = Server(answer, nursery)
        found = await Http(url, server.connect, at_once).find(key)
    return found, server


def ok(body: bytes) -> bytes:
    return OK % (len(body), body)


@pytest.mark.parametrize(
    ("body", "values"),
    [
        (b'["a@x.example", "b"]', ("a@x.example", "b")),
        (b'"a"', ("a",)),
        (b"a, b\nc\n", ("a", "b", "c")),
        (b" [] ", None),
        (b"", None),
    ],
)
async def test_an_answer_is_a_list_or_text(body: bytes, values: tuple[str, ...] | None) -> None:
    found, _ = await find("http://127.0.0.1:8000/", "bob", ok(body))
    assert found == values


@pytest.mark.parametrize(
    ("url", "target", "service"),
    [
        ("http://127.0.0.1:8000", "/b%2Bt%26%2F%40example.org", "127.0.0.1:8000"),
        ("http://api.example/map?of={key}", "/map?of=b%2Bt%26%2F%40example.org", "api.example:80"),
        ("http://[::1]/{domain}/{local_part}", "/example.org/b%2Bt%26%2F", "[::1]:80"),
    ],
)
async def test_the_key_is_encoded(url: str, target: str, service: str) -> None:
    _, server = await find(url, "b+t&/@example.org", ok(b"x"))
    assert server.heard[0].startswith(f"GET {target} HTTP/1.1\r\nHost: ")
    assert server.called == [service]


async def test_404_means_that_it_is_not_there() -> None:
    gone = b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnope"
    assert (await find("http://127.0.0.1/", "bob", gone))[0] is None


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", "the server answers 500"),
        (b"", "ConnectionClosed"),
        (b"220 mx ESMTP\r\n", "closed connection"),
        (ok(b"[1]"), "an answer that is not understood"),
        (ok(b"\xff"), "an answer that is not understood"),
    ],
)
async def test_all_else_means_that_it_is_down(answer: bytes, problem: str) -> None:
    async with trio.open_nursery() as nursery:
        server = Server(answer, nursery)
        with pytest.raises(MapDownError, match=problem):
            await Http("http://127.0.0.1/", server.connect, at_once).find("bob")


async def test_nobody_there_is_down_too() -> None:
    async def refuse(service: Service) -> trio.abc.Stream:
        raise ConnectionRefusedError("refused")

    with pytest.raises(MapDownError, match="refused"):
        await Http("http://127.0.0.1/", refuse, at_once).find("bob")


async def test_a_server_must_prove_who_it_is() -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("api.example").configure_cert(context)
    called: list[str] = []

    async with trio.open_nursery() as nursery:

        async def shake_hands(stream: trio.abc.Stream) -> None:
            with pytest.raises(trio.BrokenResourceError):
                await trio.SSLStream(stream, context, server_side=True).do_handshake()

        async def connect(service: Service) -> trio.abc.Stream:
            called.append(str(service))
            ours, theirs = memory_stream_pair()
            nursery.start_soon(shake_hands, theirs)
            return ours

        with pytest.raises(MapDownError, match="certificate verify failed"):
            await Http("https://api.example/", connect, at_once).find("bob")
    assert called == ["api.example:443"]
