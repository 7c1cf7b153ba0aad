from __future__ import annotations

import math
import random

import pytest

from elemta.queue import LaneLimits, Rate
from elemta.queue.rate import MOST, PARTS, Meter, Meters, unlimited

HOUR = 3600.0


def test_where_nothing_is_said_there_are_no_rates() -> None:
    assert unlimited("mx:x") == LaneLimits(connections=MOST, rates=())


def test_so_many_go_at_once_and_then_none_until_the_first_are_an_hour_ago() -> None:
    meter = Meter(Rate("messages", 100, HOUR))
    meter.count(60, 1000.0)
    meter.count(40, 2000.0)
    assert meter.left(2000.0) == 0
    assert meter.free_at(2000.0) == 1000.0 + HOUR
    assert meter.left(1000.0 + HOUR) == 60
    assert meter.free_at(1000.0 + HOUR) == 1000.0 + HOUR
    assert meter.left(2000.0 + HOUR) == 100


@pytest.mark.parametrize("seed", range(20))
def test_there_are_never_more_in_any_hour_and_few_less(seed: int) -> None:
    chance = random.Random(seed)
    meter, now = Meter(Rate("messages", 100, HOUR)), 1e9
    gone: list[float] = []
    while now < 1e9 + 10 * HOUR:
        if meter.left(now) > 0:
            meter.count(1, now)
            gone.append(now)
            now += chance.choice([0.0, 1.0, 20.0])
        else:
            now = meter.free_at(now)
    for index, time in enumerate(gone):
        assert sum(time <= each < time + HOUR for each in gone[index:]) <= 100
    assert len(gone) >= 10 * 100 * 0.9


def test_what_goes_together_is_remembered_together() -> None:
    meter = Meter(Rate("messages", 1_000_000, HOUR))
    for number in range(10_000):
        meter.count(1, number * HOUR / 10_000)
    assert len(meter._gone) <= PARTS + 1


def test_a_clock_that_is_set_back_does_not_stop_the_mail() -> None:
    meter = Meter(Rate("messages", 1, HOUR))
    meter.count(1, 1e9)
    assert meter.left(1e9 - 10 * HOUR) == 1


def test_what_was_overdrawn_is_waited_for() -> None:
    meter = Meter(Rate("connections", 1, HOUR))
    for time in (0.0, 100.0, 200.0):
        meter.count(1, time)
    assert meter.left(200.0) == -2
    assert meter.free_at(200.0) == 200.0 + HOUR


def test_a_rate_of_nothing_is_never_free() -> None:
    assert Meter(Rate("messages", 0, HOUR)).free_at(0.0) == math.inf


def test_all_rates_of_a_kind_hold_and_kinds_are_counted_apart() -> None:
    meters = Meters(
        [Rate("messages", 10, HOUR), Rate("messages", 2, 60.0), Rate("recipients", 50, HOUR)]
    )
    assert meters.left("connections", 0.0) == math.inf
    meters.count("messages", 1, 0.0)
    meters.count("messages", 1, 10.0)
    assert meters.left("messages", 10.0) == 0
    assert meters.left("recipients", 10.0) == 50
    assert meters.free_at(("messages",), 10.0) == 60.0
    assert meters.free_at(("recipients", "connections"), 10.0) is None
    assert not meters.empty(60.0)
    assert meters.empty(10.0 + HOUR)


def test_what_was_counted_by_a_rate_that_stays_still_counts() -> None:
    before = Meters([Rate("messages", 10, HOUR), Rate("recipients", 10, HOUR)])
    before.count("messages", 4, 0.0)
    before.count("recipients", 4, 0.0)
    after = Meters([Rate("messages", 10, HOUR), Rate("recipients", 20, HOUR)], before)
    assert after.left("messages", 1.0) == 6
    assert after.left("recipients", 1.0) == 20
