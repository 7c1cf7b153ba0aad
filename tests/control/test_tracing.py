from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from elemta.control import tracing
from elemta.control.facts import Said, Spoken, TraceFilter
from elemta.net.dialogues import Dialogue, Dialogues, Standing
from elemta.queue import Missed

if TYPE_CHECKING:
    from elemta.net.dialogues import Direction


def standing() -> Standing:
    return Standing(state="data", messages=2, message="M3", sender="a@b", recipients=1, octets=9)


def now() -> float:
    return 7.0


def begun(
    record: Dialogues,
    id: str = "s1",  # noqa: A002 # the word of people
    *,
    direction: Direction = "in",
    place: str = "mx",
    peer: str = "192.0.2.1:49152",
    name: str = "",
) -> Dialogue:
    dialogue = Dialogue(record, direction, place, peer, id)
    dialogue.name = name
    dialogue.begin(standing)
    return dialogue


async def heard(filter: TraceFilter, *said: tuple[str, str]) -> list[str]:  # noqa: A002 # the word of people
    """Of what is said in three conversations, what is told to who asked with this filter."""
    record = Dialogues(10, now)
    dialogues = {
        "a": begun(record, "a", name="Client.Example"),
        "b": begun(record, "b", peer="198.51.100.7:1", place="submission"),
        "c": begun(
            record, "c", direction="out", place="mx:b.example", peer="mx1.b.example[::1]:25"
        ),
    }
    dialogues["b"].said("C", b"MAIL FROM:<before@example.org>")
    told: list[str] = []

    async def listen() -> None:
        async with aclosing(tracing.trace(record, filter)) as lines:
            async for line in lines:
                assert isinstance(line, Spoken)
                told.append(f"{line.session} {line.text}")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        await wait_all_tasks_blocked()
        for session, text in said:
            dialogues[session].said("C", text.encode())
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert record.feeds == []
    return told


HELLOS = (("a", "1"), ("b", "2"), ("c", "3"))


@pytest.mark.parametrize(
    ("filter", "told"),
    [
        (TraceFilter(), ["a 1", "b 2", "c 3"]),
        (TraceFilter(direction="out"), ["c 3"]),
        (TraceFilter(place="submission"), ["b 2"]),
        (TraceFilter(place="sub"), []),
        (TraceFilter(session="a"), ["a 1"]),
        (TraceFilter(peer="MX1.B"), ["c 3"]),
        (TraceFilter(peer="client.example"), ["a 1"]),
        (TraceFilter(peer="198.51.100."), ["b 2"]),
        (TraceFilter(direction="in", peer="192.0.2.1"), ["a 1"]),
        (TraceFilter(address="BEFORE@example.org"), ["b 2"]),
        (TraceFilter(address="nobody@example.org"), []),
    ],
)
async def test_a_filter_means_what_all_its_conditions_mean(
    filter: TraceFilter,  # noqa: A002 # the word of people
    told: list[str],
) -> None:
    assert await heard(filter, *HELLOS) == told


async def test_a_conversation_is_meant_from_the_line_on_that_names_the_address() -> None:
    said = (
        ("a", "EHLO x"),
        ("a", "RCPT TO:<Bob@Example.net>"),
        ("a", "DATA"),
        ("b", "DATA"),
        ("a", "QUIT"),
    )
    assert await heard(TraceFilter(address="bob@example.net"), *said) == [
        "a RCPT TO:<Bob@Example.net>",
        "a DATA",
        "a QUIT",
    ]


async def test_each_line_of_a_reply_is_told_on_its_own_with_its_conversation() -> None:
    record = Dialogues(10, now)
    dialogue = begun(record)
    told: list[Spoken | Missed] = []

    async def listen() -> None:
        async with aclosing(tracing.trace(record, TraceFilter())) as lines:
            told.extend([await anext(lines), await anext(lines)])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        await wait_all_tasks_blocked()
        dialogue.said("S", b"250-a\r\n250 b\r\n")
    assert told == [
        Spoken(
            session="s1",
            direction="in",
            place="mx",
            peer="192.0.2.1:49152",
            at=7.0,
            speaker="S",
            text=text,
        )
        for text in ("250-a", "250 b")
    ]


async def test_who_does_not_read_is_told_how_much_was_missed() -> None:
    record = Dialogues(10, now)
    dialogue = begun(record)
    async with aclosing(tracing.trace(record, TraceFilter())) as lines:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(anext, lines)
            await wait_all_tasks_blocked()
            dialogue.said("C", b"first")
        for _ in range(tracing.BEHIND + 5):
            dialogue.said("C", b"NOOP")
        assert await anext(lines) == Missed(5)


def test_sessions_are_told_as_they_stand() -> None:
    record = Dialogues(10, now)
    dialogue = begun(record, name="x\x1b[2J")
    dialogue.tls, dialogue.login = "TLSv1.3 X", "ann"
    (status,) = tracing.sessions(record)
    assert (status.id, status.place, status.name) == ("s1", "mx", "x\\x1b[2J")
    assert (status.state, status.tls, status.login) == ("data", "TLSv1.3 X", "ann")
    assert (status.messages, status.message, status.sender) == (2, "M3", "a@b")
    assert (status.recipients, status.octets, status.since) == (1, 9, 7.0)
    dialogue.end()
    assert tracing.sessions(record) == []


def test_a_transcript_is_found_by_its_message() -> None:
    record = Dialogues(10, now)
    dialogue = begun(record)
    dialogue.about("M1")
    dialogue.said("C", b"DATA")
    dialogue.said("C", "9 octets of content")
    (transcript,) = tracing.transcripts(record, "M1")
    assert transcript.messages == ("M1",)
    assert transcript.said == (Said(7.0, "C", "DATA"), Said(7.0, "C", "(9 octets of content)"))
    assert (transcript.ended, transcript.cut) == (None, 0)
    dialogue.end()
    assert tracing.transcripts(record, "M1")[0].ended == 7.0
    assert tracing.transcripts(record, "M2") == []
