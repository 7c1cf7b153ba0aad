from __future__ import annotations

import pytest

from elemta.config import ConfigError, check
from elemta.plugins.built_in.brake import DAY, Brake, Usual, sent, usual

NOON = 20_000.5 * DAY


def history(*counts: int, begin: float = NOON, days: int = 14) -> Usual:
    row: Usual | None = None
    for number, count in enumerate(counts):
        if count:
            row = sent(row, count, days, begin + number * DAY)
    assert row is not None
    return row


def test_of_an_account_that_nobody_knows_nothing_is_usual() -> None:
    assert usual(None, 14, NOON) == 0
    assert Brake().allowance(0) == 100


def test_today_is_not_usual_yet() -> None:
    row = history(1000)
    assert usual(row, 14, NOON) == 0
    assert usual(row, 14, NOON + DAY) == 1000


def test_it_is_the_average_of_the_days_that_are_known_with_those_without_mail() -> None:
    row = history(10, 0, 0, 20)
    assert usual(row, 14, NOON + 4 * DAY) == 7.5
    assert usual(row, 14, NOON + 10 * DAY) == 3
    assert usual(row, 3, NOON + 4 * DAY) == 20 / 3
    assert usual(row, 14, NOON + 14 * DAY) == 30 / 14
    assert usual(row, 14, NOON + 15 * DAY) == 20 / 14
    assert usual(row, 14, NOON + 18 * DAY) == 0
    assert Brake().allowance(7.5) == 375


def test_of_a_year_a_fortnight_is_remembered() -> None:
    row = history(*([7] * 365))
    assert len(row.counts) == 15
    assert usual(row, 14, NOON + 365 * DAY) == 7
    assert row.until == (20_000 + 364 + 15) * DAY


def test_several_messages_of_a_day_are_one_day() -> None:
    row = sent(sent(history(5), 3, 14, NOON), 2, 14, NOON)
    assert usual(row, 14, NOON + DAY) == 10
    assert row.counts == [10]


def test_a_long_silence_leaves_nothing() -> None:
    row = sent(history(5), 1, 14, NOON + 1000 * DAY)
    assert sum(row.counts) == 1
    assert usual(row, 14, NOON + 1001 * DAY) == 1 / 14


def test_a_clock_that_is_set_back_begins_anew() -> None:
    row = history(500)
    assert usual(row, 14, NOON - 9 * DAY) == 0
    assert sent(row, 1, 14, NOON - 9 * DAY).counts == [1]


def test_it_must_last() -> None:
    with pytest.raises(ConfigError, match="lasts must be more than 0"):
        check({"lasts": "0 s"}, Brake, "brake")
