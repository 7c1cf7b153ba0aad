from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from elemta.plugins.built_in.window import SLOTS, Taken, Window

HOUR = Window(3600)
#: The beginning of a slot.
NOW = 1_800_000_000.0
SLOT = 3600 / SLOTS


def test_nothing_is_taken_of_what_nobody_knows() -> None:
    assert HOUR.taken(None, NOW) == 0
    assert HOUR.fits_at(None, 3, 3, NOW) == NOW


def test_what_is_taken_counts_for_the_length_of_the_window() -> None:
    row = HOUR.take(None, 2, NOW)
    assert HOUR.taken(row, NOW) == 2
    assert HOUR.taken(row, NOW + 3600) == 2, "it may have been at the end of its slot"
    assert HOUR.taken(row, NOW + 3600 + SLOT) == 0
    assert row.until == NOW + 3600 + SLOT


def test_rows_do_not_change() -> None:
    row = HOUR.take(None, 2, NOW)
    HOUR.take(row, 5, NOW)
    assert HOUR.taken(row, NOW) == 2


def test_it_is_told_when_there_is_room_again() -> None:
    row = HOUR.take(HOUR.take(None, 2, NOW), 3, NOW + 600)
    assert HOUR.fits_at(row, 5, 10, NOW + 600) == NOW + 600
    assert HOUR.fits_at(row, 2, 5, NOW + 600) == NOW + 3600 + SLOT
    assert HOUR.fits_at(row, 3, 5, NOW + 600) == NOW + 600 + 3600 + SLOT
    assert HOUR.fits_at(row, 6, 5, NOW + 600) == math.inf


def test_a_clock_that_is_set_back_keeps_nobody_out_for_longer_than_the_window() -> None:
    row = HOUR.take(HOUR.take(None, 1, NOW), 2, NOW + 900)
    back = NOW - 100 * 86400
    assert HOUR.taken(row, back) == 3
    assert HOUR.fits_at(row, 1, 3, back) <= back + 3600 + SLOT
    row = HOUR.take(row, 1, back)
    assert HOUR.taken(row, back) == 4
    assert HOUR.taken(row, back + 3600 + SLOT) == 0
    some = HOUR.take(HOUR.take(None, 1, NOW), 2, NOW + 900)
    assert HOUR.taken(HOUR.take(some, 1, NOW + 300), NOW + 300 + 3600) == 3


def test_a_row_has_few_numbers_however_much_is_taken() -> None:
    row: Taken | None = None
    for number in range(1000):
        row = HOUR.take(row, 1, NOW + 10 * number)
    assert row is not None
    assert len(row.counts) <= SLOTS + 1


@given(
    st.lists(st.tuples(st.floats(0, 2000), st.integers(1, 6)), min_size=1, max_size=80),
    st.integers(1, 20),
)
def test_no_sequence_gets_more_through_in_any_stretch_of_its_length(
    steps: list[tuple[float, int]], most: int
) -> None:
    now, row = NOW, None
    passed: list[tuple[float, int]] = []
    for pause, amount in steps:
        now += pause
        at = HOUR.fits_at(row, amount, most, now)
        if at <= now:
            row = HOUR.take(row, amount, now)
            passed.append((now, amount))
        elif at < math.inf:
            assert HOUR.fits_at(row, amount, most, at) <= at, "it is as was told"
            assert at <= now + 3600 + SLOT
    for begin, _ in passed:
        assert sum(n for at, n in passed if begin <= at < begin + 3600) <= most


@given(st.lists(st.floats(0, 1800), min_size=1, max_size=60), st.integers(1, 10))
def test_who_keeps_to_nine_tenths_of_it_is_never_stopped(pauses: list[float], most: int) -> None:
    now, row = NOW, None
    times: list[float] = []
    for pause in pauses:
        now += pause
        if sum(1 for at in times if at > now - 3600 - SLOT) < most:
            assert HOUR.fits_at(row, 1, most, now) <= now
            row = HOUR.take(row, 1, now)
            times.append(now)
