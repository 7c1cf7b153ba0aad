"""What is written down of a session."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from elemta import log as logs
from elemta.control.facts import TraceFilter
from elemta.control.tracing import sessions, trace, transcripts
from tests.dialogue import NOW, STRANGER, Server

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from trio.testing import MockClock

    from elemta.control.facts import Spoken
    from elemta.queue import Missed

MESSAGE = """
    S: 220 ...
    C: EHLO client.example
    C: MAIL FROM:<a@b.example>
    C: RCPT TO:<alice@here.example>
    C: DATA
    S: 250 ...
    S: 250 ...
    S: 250 ...
    S: 354 ...
    C: Subject: confidential
    C:
    C: ..secret
    C: .
    C: QUIT
    S: 250 ...
    S: 221 ...
"""


def said_about(server: Server, message: str) -> list[str]:
    (transcript,) = transcripts(server.house.dialogues, message)
    return [f"{each.speaker}: {each.text}" for each in transcript.said]


async def test_a_session_is_written_down_with_its_content_counted(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = Server()
    nursery.start_soon(server.run)
    await server.play(MESSAGE)
    await server.expect_end()
    said = said_about(server, "Q1")
    assert [each for each in said if not each.startswith("S: 250-")] == [
        "S: 220 mx.example ESMTP",
        "C: EHLO client.example",
        "S: 250 LIMITS RCPTMAX=1000 MAILMAX=100",
        "C: MAIL FROM:<a@b.example>",
        "S: 250 2.1.0 sender OK",
        "C: RCPT TO:<alice@here.example>",
        "S: 250 2.1.5 recipient OK",
        "C: DATA",
        "S: 354 end with <CRLF>.<CRLF>",
        "C: (34 octets of content)",
        "S: 250 2.0.0 OK: queued as Q1",
        "C: QUIT",
        "S: 221 2.0.0 bye",
    ]
    assert "confidential" not in "".join(said)
    (transcript,) = transcripts(server.house.dialogues, "Q1")
    assert (transcript.direction, transcript.place) == ("in", "mx")
    assert transcript.peer == f"{STRANGER}:49152"
    assert (transcript.began, transcript.ended) == (NOW, NOW)
    assert transcript.messages == ("Q1",)


async def test_who_is_connected_is_told_with_what_is_under_way(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = Server()
    nursery.start_soon(server.run)
    record = server.house.dialogues
    await server.expect("220 ...")
    await wait_all_tasks_blocked()
    (status,) = sessions(record)
    assert (status.direction, status.state, status.name) == ("in", "start", "")
    assert (status.message, status.messages, status.since) == (None, 0, NOW)
    await server.play("""
        C: EHLO client.example
        C: MAIL FROM:<a@b.example>
        C: RCPT TO:<alice@here.example>
        C: DATA
        S: 250 ...
        S: 250 ...
        S: 250 ...
        S: 354 ...
        C: half
        C: a message
    """)
    await wait_all_tasks_blocked()
    (status,) = sessions(record)
    assert (status.state, status.name) == ("data", "client.example")
    assert (status.message, status.sender, status.recipients) == ("Q1", "a@b.example", 1)
    assert status.octets == len("half\r\na message\r\n")
    await server.play("""
        C: .
        S: 250 ...
    """)
    await wait_all_tasks_blocked()
    (status,) = sessions(record)
    assert (status.state, status.messages, status.message) == ("ready", 1, None)
    assert status.octets == 0
    server.client.close()
    await wait_all_tasks_blocked()
    assert sessions(record) == []


@pytest.mark.parametrize(
    ("script", "last"),
    [
        (
            "S: 220 ...\nW: 400\nS: 421 ...",
            ["S: 421 4.4.2 timed out waiting for you", "S: (timed out)"],
        ),
        ("S: 220 ...\nC: GET / HTTP/1.1\nS: 554 ...", ["C: GET / HTTP/1.1", "S: 554"]),
        ("S: 220 ...\nO: \\x16\\x03\\x01\nS: 554 ...", ["C: (no SMTP)", "S: 554"]),
        (
            "S: 220 ...\nC: " + "x" * 3000 + "\nS: 500 ...",
            ["C: (a line that is too long)", "S: 500"],
        ),
        ("S: 220 ...\nC: EHLO a\x1b[2J\nS: 500 ...", ["C: EHLO a\\x1b[2J", "S: 500"]),
    ],
)
async def test_how_a_session_came_to_its_end_is_written_down(
    script: str, last: list[str], nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = Server()
    nursery.start_soon(server.run)
    (dialogue,) = [server.session._dialogue]
    dialogue.about("any")
    await server.play(script)
    await wait_all_tasks_blocked()
    said = said_about(server, "any")[-2:]
    assert [each[: len(want)] for each, want in zip(said, last, strict=True)] == [
        want[: len(each)] for each, want in zip(said, last, strict=True)
    ]


async def test_a_client_that_hangs_up_is_written_down(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = Server()
    nursery.start_soon(server.run)
    await server.play("""
        S: 220 ...
        C: EHLO a
        C: MAIL FROM:<>
        S: 250 ...
        S: 250 ...
    """)
    server.client.close()
    await wait_all_tasks_blocked()
    assert said_about(server, "Q1")[-1] == "C: (hung up)"


async def test_a_session_that_is_cancelled_leaves_nothing_behind(
    autojump_clock: MockClock,
) -> None:
    server = Server()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run)
        await server.play("""
            S: 220 ...
            C: EHLO a
            C: MAIL FROM:<>
            S: 250 ...
            S: 250 ...
        """)
        nursery.cancel_scope.cancel()
    assert server.house.dialogues.open == []
    assert said_about(server, "Q1")[-2:] == [
        "S: 421 4.3.2 shutting down, come again",
        "S: (cancelled)",
    ]


async def overhear(lines: AsyncGenerator[Spoken | Missed], told: list[str]) -> None:
    async for line in lines:
        told += [repr(line)]


@settings(max_examples=40, deadline=None)
@given(
    user=st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=9),
    password=st.binary(min_size=9, max_size=30),
    form=st.sampled_from(("initial", "asked", "login", "no mechanism", "indented")),
    pipelined=st.booleans(),
)
def test_a_password_is_in_no_transcript_no_trace_and_no_log(
    user: str, password: bytes, form: str, pipelined: bool
) -> None:
    plain, alone = b64encode(b"\0" + user.encode() + b"\0" + password), b64encode(password)
    lines = {
        "initial": [b"AUTH PLAIN " + plain],
        "asked": [b"AUTH PLAIN", plain],
        "login": [b"AUTH LOGIN", b64encode(user.encode()), alone],
        "no mechanism": [b"AUTH " + alone],
        "indented": [b"  auth plain " + plain],
    }[form]
    told: list[str] = []

    async def play() -> None:
        server = Server()
        record = server.house.dialogues
        async with trio.open_nursery() as nursery:
            nursery.start_soon(overhear, trace(record, TraceFilter()), told)
            nursery.start_soon(server.session.run)
            await server.expect("220 ...")
            await server.client.send_all(b"EHLO a\r\nMAIL FROM:<>\r\nRSET\r\n")
            for _ in range(3):
                await server.expect("250 ...")
            for octets in [b"\r\n".join(lines)] if pipelined else lines:
                await server.client.send_all(octets + b"\r\n")
            await wait_all_tasks_blocked()
            server.client.close()
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        told.extend(map(repr, transcripts(record, "Q1")))

    logs.set_level(logs.Level.DEBUG)
    try:
        with logs.listening(lambda entry: told.append(repr(entry))):
            trio.run(play)
    finally:
        logs.set_level(None)
    everything = "\n".join(told)
    assert "MAIL FROM:<>" in everything
    assert "client.refused" in everything
    assert plain.decode() not in everything
    assert alone.decode() not in everything
