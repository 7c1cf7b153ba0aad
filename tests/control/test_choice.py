from __future__ import annotations

import pytest

from elemta.control.choice import TYPES, EventChoice, Everything
from elemta.protocol import parse_mailbox, reply
from elemta.queue import (
    AttemptStarted,
    Delivered,
    Finished,
    Parked,
    Queued,
    QueueEvent,
    Resumed,
    Suspended,
    Unparked,
)

ID = "01M82Q28V6DAVJCKE0E9HMK3Q1"
BOB, ANN = parse_mailbox("bob@example.net"), parse_mailbox("ann@sub.example.net")
DELIVERED = Delivered(1, 1.0, ID, BOB, "mx:example.net", "mx", reply(250, 2, 0, "ok"))


def test_all_conditions_must_hold() -> None:
    assert "Delivered" in TYPES
    for choice, passes in (
        (EventChoice(), True),
        (EventChoice(types=frozenset({"Delivered", "Failed"}), domain="example.net", id=ID), True),
        (EventChoice(types=frozenset({"Failed"})), False),
        (EventChoice(id=ID.replace("1", "2")), False),
        (EventChoice(domain="example.com"), False),
    ):
        assert choice.passes(DELIVERED) is passes, choice
    assert Everything().passes(DELIVERED)


@pytest.mark.parametrize(
    ("event", "of_the_domain", "below_it"),
    [
        (DELIVERED, True, False),
        (Queued(1, 1.0, ID, None, (ANN, BOB), 10), True, True),
        (Queued(1, 1.0, ID, BOB, (ANN,), 10), False, True),
        (AttemptStarted(1, 1.0, ID, "mx:example.net", (BOB,)), True, False),
        (Finished(1, 1.0, ID), False, False),
        (Parked(1, 1.0, "mx:example.net", 2.0, "no answer"), True, False),
        (Unparked(1, 1.0, "mx:sub.example.net"), False, True),
        (Parked(1, 1.0, "smtp:[192.0.2.1]:25", 2.0, ""), False, False),
        (Suspended(1, 1.0, "all", "", "me", None), True, True),
        (Suspended(1, 1.0, "domain:example.net", "", "me", None), True, False),
        (Resumed(1, 1.0, "destination:mx:sub.example.net"), False, True),
    ],
)
def test_what_an_event_has_to_do_with_a_domain(
    event: QueueEvent, *, of_the_domain: bool, below_it: bool
) -> None:
    assert EventChoice(domain="example.net").passes(event) is of_the_domain
    assert EventChoice(domain="*.example.net").passes(event) is below_it
