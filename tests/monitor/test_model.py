from __future__ import annotations

import pytest

from elemta.cli.monitor.model import EVENTS, LOOKING, LOOKS, REMEMBERED, Model, Rate
from elemta.queue import Missed
from tests.monitor.world import NOW, destination, finished, queued, status


def model(at: float = 0.0) -> Model:
    return Model(lambda: at)


def test_a_rate_is_what_happened_between_two_looks() -> None:
    rate = Rate()
    assert rate.now == 0
    rate.look(NOW, 100)
    assert list(rate.looks) == []  # nobody knows since when these are
    rate.look(NOW + 2, 110)
    rate.look(NOW + 3, 110)
    rate.look(NOW + 3, 110)  # the same answer twice is one look
    assert list(rate.looks) == [5.0, 0.0]
    assert rate.now == 0


def test_a_server_that_was_started_again_counts_from_nothing() -> None:
    rate = Rate()
    rate.look(NOW, 100)
    rate.look(NOW + 1, 3)
    assert list(rate.looks) == [3.0]


def test_looks_are_forgotten_in_time() -> None:
    rate = Rate()
    for second in range(2 * LOOKS):
        rate.look(NOW + second, second * second)
    assert len(rate.looks) == LOOKS


def test_the_rates_are_those_of_the_events_that_they_are_named_for() -> None:
    known = model()
    known.look(status(NOW), [])
    known.look(status(NOW + 1, Queued=4, Delivered=3, Deferred=2, Failed=1, Expired=1), [])
    assert {name: rate.now for name, rate in known.rates.items()} == {
        "in": 4, "delivered": 3, "deferred": 2, "failed": 2,
    }  # fmt: skip


def test_the_busiest_destinations_come_first() -> None:
    known = model()
    quiet, full, busy = (
        destination("a"), destination("b", ready=2, on_disk=9), destination("c", workers=1),
    )  # fmt: skip
    known.look(status(), [quiet, full, busy])
    assert [each.name for each in known.destinations] == ["c", "b", "a"]


def test_events_are_remembered_up_to_a_number_and_found_by_their_text() -> None:
    known = model()
    for number in range(REMEMBERED):
        known.hear(queued(number))
    for number in range(3):
        known.hear(finished(REMEMBERED + number))
    assert len(known.events) == REMEMBERED
    assert len(known.lines("FINISHED", 10)) == 3
    newest = known.lines("", 2)
    assert len(newest) == 2
    assert all("Finished id=" in line for line in newest)
    assert known.lines("nothing of that kind", 10) == []


def test_what_was_missed_is_counted_and_shown_in_its_place() -> None:
    known = model()
    known.hear(Missed(3))
    known.hear(finished(5))
    assert known.missed == 3
    assert known.lines("", 10)[0] == "(3 events missed)"


def test_there_is_trouble_until_all_is_heard_and_seen_again() -> None:
    time = 100.0
    known = Model(lambda: time)
    assert known.trouble is None
    known.lose(EVENTS, "gone", 1.0)
    known.lose(LOOKING, "down", 4.0)
    assert known.trouble == ("down", 4.0)
    time = 103.0
    assert known.trouble == ("down", pytest.approx(1.0))
    known.regain(LOOKING)
    assert known.trouble == ("gone", 0.0)
    known.regain(EVENTS)
    known.regain(EVENTS)
    assert known.trouble is None


def test_a_destination_that_is_suspended_is_listed_even_if_nothing_waits_there() -> None:
    known = model()
    busy = destination("mx:a", workers=1, suspended="destination:mx:a")
    known.look(status(), [busy], ["destination:mx:a", "destination:mx:b", "domain:x", "all"])
    assert [(each.name, each.suspended) for each in known.destinations] == [
        ("mx:a", "destination:mx:a"), ("mx:b", "destination:mx:b"),
    ]  # fmt: skip
    assert known.suspended == ["domain:x", "all"]
