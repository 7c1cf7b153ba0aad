from __future__ import annotations

import pytest

from elemta.queue import RetryPolicy


def test_the_default_schedule_is_that_of_safe_defaults() -> None:
    policy = RetryPolicy()
    waits = [policy.delay(attempt, lambda: 0.5) for attempt in range(1, 10)]
    assert waits == [300, 600, 1200, 2400, 3600, 7200, 14400, 14400, 14400]
    assert policy.lifetime == 5 * 86400


def test_jitter_is_a_tenth_either_way() -> None:
    policy = RetryPolicy()
    assert policy.delay(1, lambda: 0.0) == pytest.approx(270)
    assert policy.delay(1, lambda: 1.0) == pytest.approx(330)
    assert policy.shortest_delay(1) == pytest.approx(270)
    assert all(270 <= policy.delay(1) <= 330 for _ in range(100))


@pytest.mark.parametrize(
    "fields",
    [
        {"schedule": ()},
        {"schedule": (60.0, 0.0)},
        {"jitter": 1.0},
        {"jitter": -0.1},
        {"lifetime": 0.0},
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"schedule|jitter|lifetime"):
        RetryPolicy(**fields)
