from __future__ import annotations

import pytest

from elemta.explaining.words import counted, moment, ordinal, span


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-1, "0 s"), (59.9, "59 s"), (60, "1 min"), (7199, "1 h"), (86400, "1 d"), (1e6, "11 d")],
)
def test_a_span_is_told_in_its_largest_unit(seconds: float, words: str) -> None:
    assert span(seconds) == words


def test_a_moment_says_how_far_away_it_is() -> None:
    assert moment(86400.0, 86100.0) == "1970-01-02 00:00:00 UTC (in 5 min)"
    assert moment(86400.0, 86490.0) == "1970-01-02 00:00:00 UTC (1 min ago)"


def test_one_is_told_from_many() -> None:
    assert [counted(number, "message") for number in (0, 1, 2)] == [
        "0 messages",
        "1 message",
        "2 messages",
    ]
    assert counted(2, "address", "addresses") == "2 addresses"


def test_which_of_many_is_told_as_people_do() -> None:
    told = " ".join(ordinal(each) for each in (1, 2, 3, 4, 10, 11, 12, 13, 21, 102, 111, 113))
    assert told == "1st 2nd 3rd 4th 10th 11th 12th 13th 21st 102nd 111th 113th"
