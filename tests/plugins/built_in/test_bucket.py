from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elemta.plugins.built_in.bucket import Bucket

NOW = 1_800_000_000.0
HUNDRED = Bucket(100, 3600)


def test_a_full_one_gives_all_it_has_at_once_and_then_one_after_the_other() -> None:
    full_at, given = NOW, 0
    while HUNDRED.has(1, full_at, NOW):
        full_at, given = HUNDRED.take(1, full_at, NOW), given + 1
    assert given == 100
    assert not HUNDRED.has(1, full_at, NOW + 35.9)
    assert HUNDRED.has(1, full_at, NOW + 36)
    assert HUNDRED.left(full_at, NOW + 1800) == pytest.approx(50)
    assert HUNDRED.left(full_at, NOW + 3600) == 100
    assert full_at == pytest.approx(NOW + 3600)


def test_it_owes_no_more_than_it_holds() -> None:
    full_at = HUNDRED.take(100_000, NOW, NOW)
    assert HUNDRED.left(full_at, NOW) == -100
    assert not HUNDRED.has(0.01, full_at, NOW + 3599)
    assert HUNDRED.has(1, full_at, NOW + 3637)


def test_what_is_put_back_makes_it_no_more_than_full() -> None:
    full_at = HUNDRED.take(10, NOW, NOW)
    assert HUNDRED.left(HUNDRED.take(-4, full_at, NOW), NOW) == pytest.approx(94)
    assert HUNDRED.left(HUNDRED.take(-40, full_at, NOW), NOW) == 100


def test_a_clock_that_was_set_back_keeps_nobody_out_for_long() -> None:
    full_at = HUNDRED.take(100, NOW + 1e9, NOW + 1e9)
    assert HUNDRED.left(full_at, NOW) == -100
    assert HUNDRED.has(1, HUNDRED.take(0, full_at, NOW), NOW + 3637)


@settings(max_examples=50, derandomize=True, deadline=None)
@given(
    st.integers(1, 1000),
    st.floats(0.1, 1e6),
    st.lists(st.floats(0, 2), min_size=1, max_size=300),
)
def test_in_any_time_it_gives_at_most_twice_what_it_holds(
    count: int, seconds: float, pauses: list[float]
) -> None:
    bucket, now, full_at = Bucket(count, seconds), NOW, NOW
    taken: list[float] = []
    for pause in pauses:
        now += pause * seconds / count
        if bucket.has(1, full_at, now):
            full_at = bucket.take(1, full_at, now)
            taken.append(now)
    for start in taken[::10]:
        assert sum(start <= at <= start + seconds for at in taken) <= 2 * count + 1
