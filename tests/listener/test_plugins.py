"""Plugins in a session: what they see of it, from its first word to its end, and who is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from elemta.listener.session import FAREWELL
from elemta.plugins import CONTINUE, Chain, Loaded, Plugin, Reject, Session
from elemta.plugins import Transaction as Asked
from tests.dialogue import Server
from tests.plugins.saying import saying

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from elemta.message import HeaderScanner

GREETED = """
    S: 220 ...
    C: EHLO client.example
    S: 250 ...
"""


# The end of a session.


async def _quits(server: Server) -> None:
    await server.play(GREETED)
    await server.play("""
        C: QUIT
        S: 221 ...
        E:
    """)


async def _goes_away(server: Server) -> None:
    await server.play(GREETED)
    server.client.close()


async def _goes_away_in_a_message(server: Server) -> None:
    await server.play(GREETED)
    await server.play("""
        C: MAIL FROM:<a@b.example>
        C: RCPT TO:<alice@here.example>
        C: DATA
        S: 250 ...
        S: 250 ...
        S: 354 ...
        C: Subject: x
    """)
    server.client.close()


async def _says_nothing(server: Server) -> None:
    await server.play(GREETED)
    await trio.sleep(400)
    await server.expect("421 ...")


async def _talks_nonsense(server: Server) -> None:
    await server.play(GREETED)
    for _ in range(30):
        await server.client.send_all(b"NONSENSE\r\n")
        if (await server.line()).startswith("421"):
            return
    raise AssertionError("it may go on for ever")


async def _is_sent_away(server: Server) -> None:
    await server.play(GREETED)
    await wait_all_tasks_blocked()
    server.house.roster.drain()
    await server.expect("421 ...")


ENDS = [
    _quits, _goes_away, _goes_away_in_a_message, _says_nothing, _talks_nonsense, _is_sent_away
]  # fmt: skip


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__.strip("_"))
async def test_plugins_are_told_once_that_a_session_is_over_however_it_ended(
    end: Callable[[Server], Awaitable[None]], autojump_clock: MockClock
) -> None:
    ended: list[Session] = []
    plugin = saying(on_disconnect=ended.append, on_connect=CONTINUE)
    fails = saying("fails", on_disconnect=lambda _: 1 // 0)
    server = Server(fails, plugin)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run)
        await end(server)
    (session,) = ended
    assert session.helo == "client.example"
    assert server.house.plugins.users.count == 0


async def test_plugins_are_told_of_a_session_that_is_cancelled_or_breaks(
    autojump_clock: MockClock,
) -> None:
    ended: list[Session] = []
    plugin = saying(on_disconnect=ended.append)
    server = Server(plugin)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run)
        await server.play(GREETED)
        nursery.cancel_scope.cancel()
    assert len(ended) == 1
    refusing = Server(plugin, saying(on_connect=Reject((7, 1), "no")))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(refusing.run)
        await refusing.expect("554 5.7.1 no")
        refusing.client.close()
    assert len(ended) == 2


async def test_plugins_that_need_no_time_are_told_of_the_end_of_a_session_at_once(
    autojump_clock: MockClock,
) -> None:
    ended: list[str] = []

    class Fails(Plugin):
        name = "fails"

        async def on_disconnect(self, session: Session) -> None:
            raise OSError("no room for notes")

    class Ends(Plugin):
        name = "ends"

        async def on_disconnect(self, session: Session) -> None:
            ended.append(session.helo)

    server = Server(Fails(), Ends())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run)
        await _quits(server)
    assert ended == ["client.example"]
    server = Server(Fails(), Ends())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run)
        await server.play(GREETED)
        nursery.cancel_scope.cancel()
    assert ended == ["client.example"] * 2
    assert server.house.plugins.plugins[0].counts.failed == 1


async def test_a_plugin_cannot_hold_up_the_end_of_a_session(autojump_clock: MockClock) -> None:
    async def hangs(_: Session) -> None:
        await trio.sleep_forever()

    server = Server(saying("a", on_disconnect=hangs), saying("b", on_disconnect=hangs))
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run)
        await _quits(server)
    assert trio.current_time() - began == pytest.approx(FAREWELL)
    # And we need no longer than that to stop.
    server = Server(saying(on_disconnect=hangs))
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run)
        await server.play(GREETED)
        nursery.cancel_scope.cancel()
    assert trio.current_time() - began == pytest.approx(FAREWELL)


async def test_who_is_cancelled_while_plugins_look_at_its_message_hears_goodbye(
    autojump_clock: MockClock,
) -> None:
    looking = trio.Event()

    async def hangs(*_: object) -> None:
        looking.set()
        await trio.sleep_forever()

    server = Server(saying("a", on_inspect=hangs), saying("b", on_inspect=hangs))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run)
        await server.play(GREETED)
        await server.play("""
            C: MAIL FROM:<a@b.example>
            C: RCPT TO:<alice@here.example>
            C: DATA
            S: 250 ...
            S: 250 ...
            S: 354 ...
            C: .
        """)
        await looking.wait()
        nursery.cancel_scope.cancel()
    await server.expect("421 4.3.2 shutting down, come again")
    assert server.queue.kept == []


# What of the stream is shown.

HEAD = st.sampled_from([b"", b"Subject: x\r\n", b"A: b\r\n c\r\nB: d\r\n", b"no field\r\n"])
BODY = st.lists(
    st.sampled_from([b"\r\n", b"x\r\n", b".\r\n", b"..\r\n", b"\r\n\r\n", b"y" * 300 + b"\r\n"]),
    max_size=8,
).map(b"".join)
CUTS = st.lists(st.integers(1, 40), max_size=30)


@settings(max_examples=60, deadline=None)
@given(HEAD, st.none() | BODY, CUTS)
@example(b"Subject: x\r\n", b".\r\n\r\n", [1] * 60)
@example(b"", b"\r\n", [2, 2, 1, 1])
@example(b"", None, [])
def test_the_body_is_what_is_behind_the_empty_line_however_the_stream_is_cut(
    head: bytes, body: bytes | None, cuts: list[int]
) -> None:
    content = head if body is None else head + b"\r\n" + body
    seen: list[object] = []

    def look(_: Asked, header: HeaderScanner) -> object:
        seen.append(header.header)
        return CONTINUE

    def more(_: Asked, octets: bytes) -> object:
        seen.append(octets)
        return CONTINUE

    async def bring() -> None:
        server = Server(saying(on_header=look, on_body=more))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.run)
            await server.play(GREETED)
            await server.play("""
                C: MAIL FROM:<a@b.example>
                C: RCPT TO:<alice@here.example>
                C: DATA
                S: 250 ...
                S: 250 ...
                S: 354 ...
            """)
            stuffed = b"".join(
                b"." + line if line.startswith(b".") else line
                for line in content.splitlines(keepends=True)
            )
            stream, start = stuffed + b".\r\n", 0
            for size in cuts:
                await server.client.send_all(stream[start : start + size])
                await wait_all_tasks_blocked()
                start += size
            await server.client.send_all(stream[start:])
            await server.expect("250 ...")
            nursery.cancel_scope.cancel()
        assert server.queue.kept[0].content.endswith(content)

    trio.run(bring, clock=MockClock(autojump_threshold=0))
    assert seen[0] == head
    assert b"" not in seen[1:]
    assert b"".join(each for each in seen[1:] if isinstance(each, bytes)) == (body or b"")


# Who is asked.


async def test_a_plugin_may_be_asked_of_the_clients_of_some_listeners_alone() -> None:
    asked: list[str] = []
    here = saying("here", asked=asked, on_connect=CONTINUE)
    there = saying("there", on_connect=Reject((7, 1), "no"))
    server = Server()
    chain = Chain([Loaded(here, listeners=("mx",)), Loaded(there, listeners=("api", "other"))])
    house = msgspec.structs.replace(server.house, plugins=chain)
    server = Server(house=house)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run)
        await _quits(server)
    assert asked == ["on_connect"]


async def test_an_error_of_ours_is_told_to_plugins_as_an_end(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    ended: list[Session] = []
    server = Server(saying(on_disconnect=ended.append))

    def breaks() -> bool:
        raise ZeroDivisionError

    server.queue.room = breaks  # type: ignore[method-assign] # a bug
    nursery.start_soon(server.run)
    await server.play(GREETED)
    await server.client.send_all(b"MAIL FROM:<>\r\n")
    await server.expect("421 ...")
    assert len(ended) == 1
