from __future__ import annotations

import msgspec
import pytest

from elemta.control.framing import MAX_REQUEST, Lines, decode_answer, decode_request, encode
from elemta.control.interface import RequestError
from elemta.control.messages import Act, AskTimeline, Done, Search
from elemta.queue import Filter, Hold, View


def test_lines_are_cut_wherever_the_octets_are_cut() -> None:
    lines = Lines(100)
    assert lines.receive(b"one\ntw") == [b"one"]
    assert lines.receive(b"o") == []
    assert lines.receive(b"\n\nthree\n") == [b"two", b"", b"three"]


def test_a_line_that_is_too_long_is_thrown_away_as_it_comes_and_the_next_is_whole() -> None:
    lines = Lines(5)
    assert lines.receive(b"12345\n123456\nabc\n") == [b"12345", None, b"abc"]
    for _ in range(1000):
        assert lines.receive(b"x" * 100) == []
    assert lines.receive(b"\nabc\n") == [None, b"abc"]


def test_a_request_is_what_was_asked() -> None:
    asked = Act(action=Hold(), filter=Filter(views=(View.DEFERRED,), older_than=60.0), reason="x")
    assert decode_request(encode(asked).removesuffix(b"\n")) == asked
    assert decode_request(b'{"is": "search"}') == Search()


@pytest.mark.parametrize(
    ("line", "text", "place"),
    [
        (b"nonsense", "expected a line of JSON", ""),
        (b"", "expected a line of JSON", ""),
        (b"\xff", "expected a line of JSON", ""),
        (b"[]", "Expected `object`, got `array`", ""),
        (b"{}", "missing required field `is`", ""),
        (b'{"is": "dance"}', "Invalid value 'dance'", "is"),
        (b'{"is": "timeline"}', "missing required field `id`", ""),
        (b'{"is": "stats", "x": 1}', "unknown field `x`", ""),
        (b'{"is": "search", "limit": 0}', "Expected `int` >= 1", "limit"),
        (
            b'{"is": "search", "filter": {"older_than": "2h"}}',
            "Expected `float | null`, got `str`",
            "filter.older_than",
        ),
        (b'{"is": "search", "filter": {"age": 1}}', "unknown field `age`", "filter"),
        (
            b'{"is": "act", "action": {"type": "hold"}}',
            "missing required field `filter`",
            "",
        ),
    ],
)
def test_what_makes_no_sense_is_told_with_its_place(line: bytes, text: str, place: str) -> None:
    with pytest.raises(RequestError) as caught:
        decode_request(line)
    assert text in str(caught.value)
    assert caught.value.place == place


def test_a_request_that_is_too_long_is_told() -> None:
    with pytest.raises(RequestError, match=f"at most {MAX_REQUEST} octets"):
        decode_request(None)


def test_answers_that_are_not_known_are_no_answers() -> None:
    assert decode_answer(encode(Done()).strip()) == Done()
    for line in (b"", b"{}", b'{"is": "later"}', encode(AskTimeline(id="x")).strip()):
        with pytest.raises(msgspec.DecodeError):
            decode_answer(line)
