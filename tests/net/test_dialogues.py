from __future__ import annotations

import gc
import weakref

import pytest

from elemta.net.dialogues import (
    MOST,
    Dialogue,
    Dialogues,
    Standing,
    count_of,
    lines,
    unheard,
)
from elemta.net.feed import Lost


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def standing() -> Standing:
    return Standing(state="ready")


def begun(record: Dialogues, id: str = "s1", peer: str = "192.0.2.1:25") -> Dialogue:  # noqa: A002 # the word of people
    dialogue = Dialogue(record, "in", "mx", peer, id)
    dialogue.begin(standing)
    return dialogue


def test_what_is_said_is_remembered_in_order_with_its_time() -> None:
    record = Dialogues(5, Clock())
    dialogue = begun(record)
    dialogue.said("S", b"220 mx\r\n")
    dialogue.said("C", b"EHLO a")
    dialogue.said("C", "hung up")
    assert [tuple(each) for each in dialogue.all_said()] == [
        (102.0, "S", b"220 mx\r\n"),
        (103.0, "C", b"EHLO a"),
        (104.0, "C", "hung up"),
    ]


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (b"EHLO a", ["EHLO a"]),
        (b"250-a\r\n250 b\r\n", ["250-a", "250 b"]),
        (b"", [""]),
        (b"\r\n", [""]),
        (b"a\x1b[2J\x00\xff", ["a\\x1b[2J\\x00\\xff"]),
        (b"a\rb", ["a\\x0db"]),
        ("b\u00fccher\u2028".encode(), ["b\u00fccher\\x2028"]),
        ("12 octets of content", ["(12 octets of content)"]),
        ("a\nb", ["(a\\x0ab)"]),
    ],
)
def test_no_line_is_shown_that_was_not_said(words: bytes | str, shown: list[str]) -> None:
    assert list(lines(words)) == shown
    assert count_of(words) == len(shown)


def test_conversations_that_go_on_are_listed_the_oldest_first() -> None:
    record = Dialogues(5)
    first, second = begun(record, "1"), begun(record, "2")
    assert record.open == [first, second]
    first.end()
    assert record.open == [second]


def test_the_last_conversations_that_are_over_are_found_by_message() -> None:
    record = Dialogues(2, Clock())
    found = [begun(record, str(number)) for number in range(4)]
    for each in found:
        each.about("M1")
        each.about("M1")
    for each in found[:3]:
        each.end()
        each.end()
    assert [each.id for each in record.about("M1")] == ["1", "2", "3"]
    assert found[3].messages == ["M1"]
    assert record.about("M2") == []
    record.resize(1)
    assert [each.id for each in record.about("M1")] == ["2", "3"]


def test_a_record_of_none_knows_those_that_go_on() -> None:
    record = Dialogues(0)
    dialogue = begun(record)
    dialogue.about("M1")
    assert record.about("M1") == [dialogue]
    dialogue.end()
    assert record.about("M1") == []


def test_a_conversation_forgets_what_was_said_first_when_it_was_too_much() -> None:
    dialogue = begun(Dialogues(1))
    for number in range(5000):
        dialogue.said("C", b"NOOP %d" % number)
        assert dialogue.weight <= MOST
    left = dialogue.all_said()
    assert left[-1].words == b"NOOP 4999"
    assert dialogue.cut + len(left) == 5000
    assert len(left) > 100


def test_one_line_that_is_too_long_is_forgotten_too() -> None:
    dialogue = begun(Dialogues(1))
    dialogue.said("S", b"220 hi\r\n")
    dialogue.said("S", b"x" * MOST + b"\r\n")
    dialogue.said("C", b"QUIT")
    assert dialogue.weight < MOST
    assert dialogue.cut == 2


def test_of_many_messages_the_last_are_known() -> None:
    dialogue = begun(Dialogues(1))
    for number in range(1000):
        dialogue.about(f"M{number}")
    assert dialogue.messages[-1] == "M999"
    assert len(dialogue.messages) == 200


def test_all_that_are_over_come_to_no_more_than_they_may() -> None:
    record = Dialogues(10_000)
    for number in range(2000):
        dialogue = begun(record, str(number))
        dialogue.about("M1")
        for _ in range(40):
            dialogue.said("C", b"x" * 1000)
        dialogue.end()
    kept = record.about("M1")
    assert kept[-1].id == "1999"
    assert sum(each.weight for each in kept) <= 32 * 2**20
    assert len(kept) < 2000


def test_whoever_led_a_conversation_is_not_held_by_its_record() -> None:
    class Session:
        def __init__(self, record: Dialogues) -> None:
            self.dialogue = Dialogue(record, "in", "mx", "192.0.2.1:25", "s1")
            self.dialogue.begin(self.standing)

        def standing(self) -> Standing:
            return standing()

    record = Dialogues(5)
    session = Session(record)
    session.dialogue.about("M1")
    session.dialogue.end()
    gone = weakref.ref(session)
    del session
    gc.collect()
    assert gone() is None
    assert len(record.about("M1")) == 1


async def test_a_listener_hears_what_is_said_from_now_on() -> None:
    record = Dialogues(5)
    one, other = begun(record, "1"), begun(record, "2")
    one.said("C", b"before")
    with record.listen(10, lambda dialogue, _: dialogue is one) as feed:
        other.said("C", b"not meant")
        one.said("C", b"now")
        heard = await anext(feed)
    assert not isinstance(heard, Lost)
    assert heard[0] is one
    assert heard[1].words == b"now"
    one.said("C", b"after")
    assert record.feeds == []


async def test_a_slow_listener_is_told_what_it_missed_and_nobody_waits_for_it() -> None:
    record = Dialogues(5)
    dialogue = begun(record)
    with record.listen(3, lambda *_: True) as feed:
        for number in range(10):
            dialogue.said("C", b"%d" % number)
        assert await anext(feed) == Lost(7)
        heard = await anext(feed)
    assert not isinstance(heard, Lost)
    assert heard[1].words == b"7"


def test_what_nobody_can_ask_for_can_be_written_down_all_the_same() -> None:
    dialogue = unheard("mx.example")
    dialogue.said("C", b"EHLO a")
    dialogue.end()
    assert dialogue.peer == "mx.example"
