from __future__ import annotations

from itertools import pairwise

import pytest

from elemta.queue import parse_id
from elemta.queue.ids import IdSource, first_key, key_of, time_of


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def test_ids_sort_as_they_were_given_even_if_the_clock_goes_back() -> None:
    clock = Clock(1_790_000_000.0)
    new_id = IdSource(clock)
    ids = [new_id()]
    for step in (0.0, 0.0005, 1.0, -3600.0, 0.0, 7200.0):
        clock.now += step
        ids += [new_id() for _ in range(300)]
    assert ids == sorted(ids)
    assert all(earlier < later for earlier, later in pairwise(map(key_of, ids)))


def test_an_id_tells_its_time_to_the_millisecond() -> None:
    key = key_of(IdSource(lambda: 1_790_000_000.123)())
    assert time_of(key) == pytest.approx(1_790_000_000.123, abs=0.001)
    assert first_key(1_790_000_000.123) <= key < first_key(1_790_000_000.125)
    assert first_key(-1.0) == 0


def test_ids_go_on_after_the_highest_key_of_the_last_process() -> None:
    before = key_of(IdSource(lambda: 2_000_000_000.0)())
    assert key_of(IdSource(lambda: 1_000_000_000.0, before)()) == before + 1


def test_more_ids_in_a_millisecond_than_have_room_are_of_the_next() -> None:
    new_id = IdSource(lambda: 1_790_000_000.0, chance=lambda count: b"\xff" * count)
    keys = [key_of(new_id()) for _ in range(20_000)]
    assert all(later == earlier + 1 for earlier, later in pairwise(keys))
    assert time_of(keys[-1]) == pytest.approx(1_790_000_000.001)


def test_the_tail_of_an_id_is_chance_and_nothing_else() -> None:
    new_id = IdSource(lambda: 1_790_000_000.0)
    tails = {new_id()[13:] for _ in range(1000)}
    assert len(tails) == 1000
    # Every letter is as likely at every place; each is missing from 1000 with odds of 1 to 10^13.
    assert all(
        {tail[place] for tail in tails} == set("0123456789ABCDEFGHJKMNPQRSTVWXYZ")
        for place in range(13)
    )


def test_an_id_may_be_typed_in_small_letters_with_spaces_around() -> None:
    queued = IdSource(lambda: 1.0)()
    assert parse_id(f" {queued.lower()}\n") == queued


@pytest.mark.parametrize(
    "text",
    [
        "",
        "01M82PRTX4DMBY1QGHWMKJBMP",
        "81M82PRTX4DMBY1QGHWMKJBMPQ",
        "01M82PRTX4DMBY1QGHWMKJBMPU",
        "../../../etc/passwd0000000000",
    ],
)
def test_what_cannot_be_an_id_is_none(text: str) -> None:
    assert parse_id(text) is None
