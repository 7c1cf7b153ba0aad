from __future__ import annotations

import math

import pytest

from elemta.protocol import Notify, RcptParams
from elemta.queue import Message, Recipient, RetryPolicy
from elemta.queue.retry import Patience
from tests.queue.mail import address

DAY = 86400.0


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
        {"report_lifetime": 0.0},
        {"delay_warning": -1.0},
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"schedule|jitter|lifetime|warning"):
        RetryPolicy(**fields)


def message(*to: str, sender: str | None = "ann@home.example") -> Message:
    return Message(
        id="0" * 26,
        sender=None if sender is None else address(sender),
        recipients=[Recipient(number=i, address=address(each)) for i, each in enumerate(to)],
        received_at=1000.0,
        expires_at=math.inf,
        size=1,
    )


def test_each_recipient_has_the_lifetime_of_its_own_policy_counted_from_when_it_came() -> None:
    short = RetryPolicy(schedule=(60.0,), jitter=0.0, lifetime=7200.0)
    patience = Patience(lambda to, _: short if to.address.domain == "x" else RetryPolicy())
    both = message("u@x", "u@y")
    x, y = both.recipients
    assert patience.deadline(both, x) == 1000 + 7200
    assert patience.deadline(both, y) == 1000 + 5 * DAY
    assert not patience.expires(both, x, 1000 + 7200 - 60)
    assert patience.expires(both, x, 1000 + 7200 - 59)
    assert not patience.expires(both, y, 1000 + 7200)


def test_a_message_without_a_sender_is_tried_for_a_day_or_less() -> None:
    report = message("u@x", sender=None)
    assert Patience(RetryPolicy()).deadline(report, report.recipients[0]) == 1000 + DAY
    hasty = Patience(RetryPolicy(lifetime=3600.0))
    assert hasty.deadline(report, report.recipients[0]) == 1000 + 3600


def test_a_sender_is_told_of_a_delay_once_after_four_hours() -> None:
    patience, late = Patience(RetryPolicy()), message("u@x")
    recipient = late.recipients[0]
    assert not patience.warns(late, recipient, 1000 + 4 * 3600 - 1)
    assert patience.next_word(late, recipient) == 1000 + 4 * 3600
    assert patience.warns(late, recipient, 1000 + 4 * 3600)
    recipient.warned = True
    assert not patience.warns(late, recipient, 1000 + 4 * 3600)
    assert patience.next_word(late, recipient) == 1000 + 5 * DAY


def test_who_is_told_of_the_end_is_not_told_of_the_delay() -> None:
    patience, late = Patience(RetryPolicy(lifetime=4 * 3600.0)), message("u@x")
    assert patience.expires(late, late.recipients[0], 1000 + 4 * 3600)
    assert not patience.warns(late, late.recipients[0], 1000 + 4 * 3600)


@pytest.mark.parametrize(
    ("notify", "told"),
    [
        (frozenset[Notify](), True),
        (frozenset({Notify.DELAY, Notify.FAILURE}), True),
        (frozenset({Notify.FAILURE}), False),
        (frozenset({Notify.NEVER}), False),
    ],
)
def test_a_sender_who_wants_no_warning_gets_none(notify: frozenset[Notify], told: bool) -> None:
    patience, late = Patience(RetryPolicy()), message("u@x")
    late.recipients[0].params = RcptParams(notify=notify)
    assert patience.warns(late, late.recipients[0], 1000 + DAY) is told


def test_nobody_is_warned_where_that_is_switched_off_or_there_is_no_sender() -> None:
    late, report = message("u@x"), message("u@x", sender=None)
    off = Patience(RetryPolicy(delay_warning=0.0))
    assert not off.warns(late, late.recipients[0], 1000 + DAY)
    assert not Patience(RetryPolicy()).warns(report, report.recipients[0], 1000 + DAY / 2)
