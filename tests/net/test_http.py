from __future__ import annotations

from contextlib import aclosing, suppress
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import memory_stream_pair
from typing_extensions import override

from elemta.net.http import HttpAnswer, HttpError, post

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfound"


async def pieces(*parts: bytes) -> AsyncGenerator[bytes]:
    for part in parts:
        await trio.lowlevel.checkpoint()
        yield part


async def asked(
    answer: bytes, *parts: bytes, size: int | None = None, most: int = 100, cut: int = 10_000
) -> tuple[bytes, HttpAnswer]:
    """What a server hears that says `answer` and hangs up, and what came of it."""
    ours, theirs = memory_stream_pair()
    heard = b""

    async def serve() -> None:
        nonlocal heard
        head, found, body = b"", b"", b""
        while not found or len(body) < int(head.split(b"ontent-Length: ")[1].split(b"\r\n")[0]):
            some = await theirs.receive_some(7)
            if not some:
                break
            heard += some
            head, found, body = heard.partition(b"\r\n\r\n")
        with suppress(trio.BrokenResourceError):
            for start in range(0, len(answer), cut):
                await theirs.send_all(answer[start : start + cut])
        await theirs.aclose()

    size = sum(map(len, parts)) if size is None else size
    async with trio.open_nursery() as nursery, ours:
        nursery.start_soon(serve)
        async with aclosing(pieces(*parts)) as sent:
            found = await post(ours, "/x", [(b"Host", b"y")], size, sent, most=most)
    return heard, found


async def test_a_question_is_sent_piece_by_piece_and_answered() -> None:
    heard, answer = await asked(OK, b"some", b"", b"thing")
    assert heard == (
        b"POST /x HTTP/1.1\r\nHost: y\r\nContent-Length: 9\r\nConnection: close\r\n\r\nsomething"
    )
    assert answer == HttpAnswer(200, b"found")


@pytest.mark.parametrize("cut", [1, 3, 10_000])
@pytest.mark.parametrize(
    "answer",
    [
        OK,
        b"HTTP/1.0 200 OK\r\n\r\nfound",
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nfo\r\n3\r\nund\r\n0\r\n\r\n",
    ],
)
async def test_an_answer_is_the_same_however_it_comes(answer: bytes, cut: int) -> None:
    assert (await asked(answer, b"x", cut=cut))[1] == HttpAnswer(200, b"found")


async def test_who_has_heard_enough_may_say_so_and_hang_up() -> None:
    ours, theirs = memory_stream_pair()
    await theirs.send_all(b"HTTP/1.1 413 no\r\nContent-Length: 0\r\n\r\n")
    await theirs.aclose()
    answer = await post(ours, "/", [(b"Host", b"y")], 4, pieces(b"some"), most=9)
    assert answer == HttpAnswer(413, b"")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nfound",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"\0" * 100_000,
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n" + b"x" * 101,
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    ],
)
async def test_what_is_no_answer_is_an_error(answer: bytes) -> None:
    with pytest.RaisesGroup(HttpError):
        await asked(answer, b"x")


class Reset(trio.abc.Stream):
    """A connection that the other side has reset."""

    @override
    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        raise trio.BrokenResourceError("reset")

    @override
    async def wait_send_all_might_not_block(self) -> None:
        raise AssertionError

    @override
    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        raise trio.BrokenResourceError("reset")

    @override
    async def aclose(self) -> None:
        raise AssertionError


async def test_a_connection_that_breaks_is_an_error() -> None:
    with pytest.raises(HttpError, match="the connection broke"):
        await post(Reset(), "/", [(b"Host", b"y")], 1, pieces(b"x"), most=9)


async def test_no_field_becomes_another_one() -> None:
    ours, _ = memory_stream_pair()
    with pytest.raises(HttpError):
        await post(ours, "/", [(b"Host", b"y\r\nX: z")], 0, pieces(), most=9)


async def test_pieces_of_another_size_are_an_error() -> None:
    with pytest.RaisesGroup(HttpError):
        await asked(OK, b"xxx", size=2)
