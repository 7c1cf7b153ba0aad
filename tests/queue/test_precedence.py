from __future__ import annotations

import pytest

from elemta.protocol import MailParams
from elemta.queue import Message, Priority, priority_of, value_of


def message(said: int | None, priority: Priority) -> Message:
    return Message(
        id="01JD0000000000000000000000",
        sender=None,
        params=MailParams(mt_priority=said),
        recipients=[],
        received_at=0.0,
        expires_at=1.0,
        size=0,
        priority=priority,
    )


@pytest.mark.parametrize(
    ("values", "priority"),
    [
        (range(-9, 0), Priority.LOW),
        (range(4), Priority.NORMAL),
        (range(4, 7), Priority.HIGH),
        (range(7, 10), Priority.CRITICAL),
    ],
)
def test_each_value_has_its_priority(values: range, priority: Priority) -> None:
    assert {priority_of(value) for value in values} == {priority}


@pytest.mark.parametrize("value", range(-9, 10))
def test_a_value_is_passed_on_as_it_came(value: int) -> None:
    assert value_of(message(value, priority_of(value))) == value


def test_where_nobody_said_anything_nothing_is_passed_on() -> None:
    assert value_of(message(None, Priority.NORMAL)) is None


@pytest.mark.parametrize("priority", Priority)
@pytest.mark.parametrize("said", [None, -9, 9])
def test_a_priority_that_somebody_else_gave_is_passed_on_instead(
    said: int | None, priority: Priority
) -> None:
    value = value_of(message(said, priority))
    assert priority_of(value or 0) is priority
