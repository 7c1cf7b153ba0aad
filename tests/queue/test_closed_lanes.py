"""Lanes that are suspended or out of their rates, and what lanes have on disk."""

from __future__ import annotations

import pytest

from elemta.queue import Addressee, LaneLimits, Priority, Rate, State
from elemta.queue.lane import ENOUGH, FEW, PARK, PARK_MOST
from elemta.queue.schedule import LOOK
from elemta.queue.suspension import Scopes
from tests.queue.mail import address
from tests.queue.test_schedule import House, claims

HOUR = 3600.0


def rated(*rates: Rate, connections: int = 20) -> House:
    """A house with these rates for x alone."""
    limits = LaneLimits(connections, rates)
    return House(limits=lambda name: limits if name == "mx:x" else LaneLimits())


# Rates.


def test_a_lane_out_of_its_messages_is_shut_until_the_first_is_long_enough_ago() -> None:
    house = rated(Rate("messages", 2, HOUR))
    for name in "abc":
        house.add(name, "u@x")
    house.add("other", "u@y")
    lane = house.claim()
    assert house.take(lane) == "a"
    house.now = 100.0
    assert house.take(lane) == "b"
    assert house.take(lane) is None
    house.schedule.release(lane)
    assert set(claims(house.schedule)) == {"mx:y"}
    (x,) = [each for each in house.schedule.destinations() if each.name == "mx:x"]
    assert x.throttled_until == HOUR
    assert house.schedule.next_wake(HOUR - 1) == HOUR
    house.wake(HOUR - 0.001)
    assert list(claims(house.schedule)) == []
    house.wake(HOUR)
    assert house.take(house.claim()) == "c"


def test_a_message_goes_to_so_many_of_its_recipients_as_may_go_now() -> None:
    house = rated(Rate("recipients", 3, HOUR))
    house.add("m", "a@x", "b@x", "c@x", "d@x", "e@x")
    house.add("n", "u@x")
    lane = house.claim()
    assert house.take(lane, 2) == "m[0, 1]"
    assert house.take(lane, 2) == "m[2]"
    assert house.take(lane, 2) is None
    house.wake(HOUR)
    assert house.take(lane) == "m[3, 4]"
    assert house.take(lane) == "n"
    assert house.take(lane) is None


def test_who_is_connected_goes_on_where_nobody_else_may_connect() -> None:
    house = rated(Rate("connections", 1, HOUR))
    for name in "abcd":
        house.add(name, "u@x")
    lane = house.claim()
    assert house.schedule.claim(0.0) is None
    assert house.take(lane) == "a"
    house.wake(LOOK)
    assert house.take(lane) == "b"
    (x,) = house.schedule.destinations()
    assert x.throttled_until == HOUR
    house.schedule.release(lane)
    assert house.schedule.claim(house.now) is None
    house.wake(HOUR)
    assert house.take(house.claim()) == "c"


def test_a_lane_out_of_its_rates_keeps_few_in_memory() -> None:
    house = rated(Rate("messages", 1, HOUR))
    for number in range(FEW + 20):
        house.add(f"m{number}", "u@x")
    lane = house.claim()
    assert house.take(lane) == "m0"
    assert lane.ready == FEW
    assert len(house.shelved()) == 19
    # It goes on an hour later, by ones, and asks for more when half of the few are gone.
    for hour in range(1, FEW // 2 + 1):
        house.wake(hour * HOUR)
        assert house.wanted() == []
        assert house.take(lane) == f"m{hour}"
    house.wake((FEW // 2 + 1) * HOUR)
    assert house.take(lane)
    house.wake((FEW // 2 + 2) * HOUR)
    assert len(house.wanted()) == 19


def test_what_went_still_counts_when_nothing_has_stood_there_for_a_while() -> None:
    house = rated(Rate("messages", 1, HOUR))
    house.add("a", "u@x")
    lane = house.claim()
    assert house.take(lane) == "a"
    house.schedule.release(lane)
    house.wake(HOUR / 2)
    house.add("b", "u@x")
    assert house.schedule.claim(house.now) is None
    house.wake(HOUR)
    assert house.take(house.claim()) == "b"
    house.schedule.release(lane)
    house.wake(2 * HOUR + LOOK)
    assert house.schedule.destinations() == []


def test_a_parked_lane_with_rates_is_probed_as_any_other() -> None:
    house = rated(Rate("messages", 10, HOUR), Rate("connections", 10, HOUR))
    for name in "abc":
        house.add(name, "u@x")
    lane = house.claim()
    assert house.take(lane) == "a"
    house.schedule.failed(lane, 0.0, park=True)
    assert house.take(lane) is None
    house.schedule.release(lane)
    house.wake(PARK)
    assert house.claim() is lane
    assert house.schedule.claim(house.now) is None
    assert house.take(lane) == "b"


def test_other_limits_hold_at_once_and_what_was_counted_counts() -> None:
    house = rated(Rate("messages", 1, HOUR))
    for name in "abcd":
        house.add(name, "u@x")
    lane = house.claim()
    assert house.take(lane) == "a"
    assert house.take(lane) is None
    house.schedule.limit(lambda _: LaneLimits(1, (Rate("messages", 1, HOUR),)), house.now)
    assert house.take(lane) is None
    assert lane.window == 1
    house.schedule.limit(lambda _: LaneLimits(), house.now)
    assert [house.take(lane) for _ in range(4)] == ["b", "c", "d", None]
    house.schedule.limit(lambda _: LaneLimits(rates=(Rate("messages", 1, HOUR),)), house.now)
    house.add("e", "u@x")
    assert house.take(lane) == "e"
    house.schedule.release(lane)
    house.schedule.limit(lambda _: LaneLimits(), house.now)
    assert house.schedule.destinations() == []


# Suspensions.


@pytest.mark.parametrize(
    ("scopes", "open_lanes"),
    [
        (Scopes(everything=True), []),
        (Scopes(lanes=frozenset({"mx:x"})), ["mx:y", "mx:y"]),
        (Scopes(domains=frozenset({"x"})), ["mx:y", "mx:y"]),
        (Scopes(domains=frozenset({"other"})), ["mx:x", "mx:y", "mx:x", "mx:y"]),
    ],
)
def test_what_is_suspended_is_not_tried_whether_it_stands_already_or_comes_later(
    scopes: Scopes, open_lanes: list[str]
) -> None:
    house = House()
    house.add("a", "u@x", "u@y")
    house.schedule.suspend(scopes, 0.0)
    house.add("b", "u@x", "u@y")
    assert list(claims(house.schedule)) == open_lanes
    house.schedule.suspend(Scopes(), 0.0)
    assert len([*open_lanes, *claims(house.schedule)]) == 4


def test_whoever_is_at_work_in_a_suspended_lane_gets_no_more() -> None:
    house = House()
    house.add("a", "u@x")
    house.add("b", "u@x")
    lane = house.claim()
    assert house.take(lane) == "a"
    house.schedule.suspend(Scopes(lanes=frozenset({"mx:x"})), 0.0)
    assert house.take(lane) is None
    assert not lane.gives
    (x,) = house.schedule.destinations()
    assert x.suspended == "destination:mx:x"
    house.schedule.suspend(Scopes(), 0.0)
    assert lane.gives
    assert house.take(lane) == "b"


def test_a_suspended_lane_keeps_few_in_memory_and_gets_the_others_back() -> None:
    house = House()
    for number in range(FEW + 30):
        house.add(f"m{number}", "u@x")
    house.schedule.suspend(Scopes(everything=True), 0.0)
    assert len(house.shelved()) == 30
    house.add("late", "u@x")
    assert house.shelved() == ["late"]
    house.schedule.suspend(Scopes(), 0.0)
    assert len(house.wanted()) == 31


def test_a_lane_whose_suspension_ends_may_be_parked_still() -> None:
    house = House()
    house.add("a", "u@x")
    house.add("b", "u@x")
    lane = house.claim()
    house.schedule.suspend(Scopes(everything=True), 0.0)
    house.schedule.failed(lane, 0.0, park=True)
    house.schedule.release(lane)
    house.wake(PARK)
    assert house.schedule.claim(house.now) is None
    house.schedule.suspend(Scopes(), house.now)
    assert house.claim() is lane
    assert house.schedule.claim(house.now) is None


def test_a_suspended_lane_in_which_nothing_stands_is_forgotten() -> None:
    house = House()
    entry = house.add("a", "u@x")
    house.schedule.suspend(Scopes(everything=True), 0.0)
    house.schedule.withdraw(entry)
    assert len(house.schedule.destinations()) == 1
    house.wake(LOOK)
    assert house.schedule.destinations() == []


# What has no time left.


def test_what_has_no_time_left_is_handed_out_of_any_closed_lane() -> None:
    house = rated(Rate("messages", 1, HOUR))
    house.add("a", "u@x")
    house.add("late", "u@x", expires_at=100.0)
    house.add("suspended", "u@y", expires_at=100.0)
    lane = house.claim()
    house.take(lane)
    house.schedule.suspend(Scopes(lanes=frozenset({"mx:y"})), 0.0)
    house.wake(100.0 + LOOK)
    assert house.take(lane) == "late!"
    assert house.take(lane) is None
    other = house.claim()
    assert other.name == "mx:y"
    assert house.take(other) == "suspended!"
    assert house.schedule.claim(house.now) is None


def test_what_comes_late_to_a_closed_lane_is_handed_out_at_once_with_all_its_recipients() -> None:
    house = House()
    house.schedule.suspend(Scopes(everything=True), 0.0)
    house.now = 100.0
    house.add("late", "u@x", "v@x", "w@x", expires_at=99.0)
    lane = house.claim()
    assert house.take(lane, 2) == "late[0, 1]!"
    assert house.take(lane, 2) == "late[2]!"


def test_what_is_on_disk_and_has_no_time_left_is_asked_for_though_the_lane_is_closed() -> None:
    house = House()
    house.schedule.suspend(Scopes(everything=True), 0.0)
    for number in range(FEW):
        house.add(f"m{number}", "u@x")
    house.add("late", "u@x", expires_at=120.0)
    house.add("later", "u@x", expires_at=600.0, priority=Priority.LOW)
    assert house.shelved() == ["late", "later"]
    house.wake(100.0)
    assert house.wanted() == []
    house.wake(180.0)
    assert house.wanted() == ["late"]
    house.wake(300.0)
    assert house.wanted() == []
    for lane in list(house.schedule._lanes.values()):
        house.schedule.fed(lane, house.now)
    house.wake(660.0)
    assert house.wanted() == ["later"]


def test_what_is_long_overdue_is_given_up_in_an_open_lane_too_before_anything_is_tried() -> None:
    house = House()
    house.add("a", "u@x")
    entry = house.message("late", "u@x")
    house.entries[entry.key] = entry
    house.schedule.ready(entry, entry.message.recipients, 0.0, late=True)
    lane = house.claim()
    assert house.take(lane) == "late!"
    assert house.take(lane) == "a"


# Probes.


def test_an_alarm_for_a_lane_that_is_gone_wakes_nobody() -> None:
    house = House()
    house.add("a", "u@x")
    lane = house.claim()
    house.take(lane)
    house.schedule.failed(lane, 0.0, park=True)
    house.succeeded(lane)
    house.schedule.release(lane)
    assert house.schedule.destinations() == []
    house.wake(PARK)
    assert house.schedule.next_wake(PARK) == float("inf")


def test_a_parked_lane_can_be_probed_at_once() -> None:
    house = House()
    for name in "abc":
        house.add(name, "u@x")
    lane = house.claim()
    house.take(lane)
    assert not house.schedule.probe("mx:x", 0.0)
    assert not house.schedule.probe("mx:nowhere", 0.0)
    house.schedule.failed(lane, 0.0, park=True)
    house.schedule.release(lane)
    assert house.schedule.claim(0.0) is None
    assert house.schedule.probe("mx:x", 1.0)
    house.now = 1.0
    assert house.claim() is lane
    assert house.schedule.claim(1.0) is None
    assert house.schedule.failed(lane, 1.0, park=True)
    assert lane.parked_until == 1.0 + 2 * PARK
    assert not house.schedule.failed(lane, 1.0, park=True)


def test_a_destination_tells_how_it_stands_with_it() -> None:
    house = House()
    for number in range(FEW + 5):
        house.add(f"m{number}", "u@x")
    lane = house.claim()
    house.schedule.note("mx:x", "421 busy")
    house.schedule.note("mx:nowhere", "421 busy")
    house.schedule.failed(lane, 0.0, park=True)
    (x,) = house.schedule.destinations()
    assert (x.name, x.ready, x.on_disk, x.workers, x.window) == ("mx:x", FEW, 5, 1, 1)
    assert (x.parked_until, x.parks, x.error) == (PARK, 1, "421 busy")
    assert (x.suspended, x.throttled_until) == (None, None)


# On disk.


def test_a_lane_asks_for_more_when_little_is_left_and_the_oldest_first() -> None:
    house = House()
    for number in range(ENOUGH):
        house.add(f"m{number}", "u@x")
    names = [f"n{number}" for number in range(300)]
    for name in names:
        entry = house.message(name, "u@x")
        assert not house.schedule.wants(entry.message, entry.message.recipients)
        house.schedule.leave(entry, entry.message.recipients)
    assert house.wanted() == []
    lane = house.claim()
    house.take(lane)
    assert house.wanted() == names[:ENOUGH]
    house.take(lane)
    assert house.wanted() == []  # what it asked for is on its way
    house.schedule.fed(lane, house.now)
    assert house.wanted() == names[ENOUGH : 2 * ENOUGH]


def test_high_priority_is_asked_for_at_once_and_some_of_the_low_ever() -> None:
    house = House()
    for number in range(1000):
        house.add(f"m{number}", "u@x")
    for name, priority in (
        ("critical", Priority.CRITICAL),
        ("low", Priority.LOW),
        ("normal", Priority.NORMAL),
    ):
        entry = house.message(name, "u@x", priority=priority)
        wants = house.schedule.wants(entry.message, entry.message.recipients)
        assert wants == (name != "normal")
        house.schedule.leave(entry, entry.message.recipients)
    assert house.wanted() == ["critical", "low"]


def test_a_message_for_several_lanes_is_wanted_by_any_that_has_little() -> None:
    house = House()
    for number in range(1000):
        house.add(f"m{number}", "u@x")
    entry = house.message("n", "u@x", "u@y", "v@y")
    assert house.schedule.wants(entry.message, entry.message.recipients)
    house.schedule.leave(entry, entry.message.recipients)
    assert house.wanted() == ["n"]
    assert [each.on_disk for each in house.schedule.destinations()] == [1, 0]


def test_what_could_not_be_read_is_asked_for_again() -> None:
    house = House()
    entry = house.message("n", "u@x")
    house.schedule.leave(entry, entry.message.recipients)
    (lane,) = house.schedule.hungry
    house.schedule.hungry.clear()
    items = house.schedule.unshelve(lane, 10, 0.0)
    assert [item.key for item in items] == [entry.key]
    house.schedule.not_fed(lane, items)
    assert house.wanted() == ["n"]
    house.schedule.fed(lane, 0.0)  # it had gone
    assert house.schedule.destinations() == []


def test_what_is_shelved_and_still_in_memory_stands_again_without_being_read() -> None:
    house = House()
    for number in range(FEW):
        house.add(f"m{number}", "u@x")
    both = house.add("both", "u@x", "u@y", "v@x")
    lane = house.claim()
    house.schedule.failed(lane, 0.0, park=True)
    assert [house.names[each.key] for each in house.schedule.shelved] == ["both"]
    assert list(both.shelved) == ["mx:x"]
    assert both.waiting == {0, 1, 2}
    late = both.message.recipients[1]
    house.schedule.withdraw(both, {1})
    late.address, late.state = address("late@x"), State.READY
    house.schedule.ready(both, [late], 0.0)
    assert [each.number for each in both.shelved["mx:x"]] == [0, 2, 1]
    house.succeeded(lane)
    assert house.wanted() == []
    assert {each.number for each in both.stands["mx:x"].recipients} == {0, 1, 2}


def test_some_recipients_of_a_message_can_be_withdrawn() -> None:
    house = House()
    entry = house.add("m", "a@x", "b@x", "c@y")
    assert [each.number for each in house.schedule.withdraw(entry, {0, 2})] == [0, 2]
    assert list(entry.stands) == ["mx:x"]
    assert house.take(house.claim()) == "m[1]"
    for number in range(FEW):
        house.add(f"m{number}", "u@z")
    house.schedule.suspend(Scopes(everything=True), 0.0)
    shelved = house.add("n", "a@z", "b@z")
    assert [each.number for each in house.schedule.withdraw(shelved, {0})] == [0]
    assert shelved.waiting == {1}
    assert [each.number for each in house.schedule.withdraw(shelved)] == [1]
    assert shelved.waiting == set()


def test_an_overfull_memory_is_relieved_of_the_lanes_in_which_the_most_stand() -> None:
    house = House()
    for number in range(4 * ENOUGH):
        house.add(f"x{number}", "u@x")
    for number in range(2 * ENOUGH):
        house.add(f"y{number}", "u@y")
    house.add("z", "u@z")
    house.schedule.shed(ENOUGH)
    assert {each.name: each.ready for each in house.schedule.destinations()} == {
        "mx:x": 2 * ENOUGH,
        "mx:y": 2 * ENOUGH,
        "mx:z": 1,
    }
    house.schedule.shed(100 * ENOUGH)
    ready = {each.name: each.ready for each in house.schedule.destinations()}
    assert ready == {"mx:x": ENOUGH, "mx:y": ENOUGH, "mx:z": 1}
    house.schedule.shed(0)
    house.schedule.shed(1)
    assert {each.name: each.ready for each in house.schedule.destinations()} == ready


def test_when_lanes_are_others_what_was_known_of_the_disk_is_forgotten() -> None:
    house = House()
    for number in range(FEW):
        house.add(f"m{number}", "u@x")
    house.schedule.suspend(Scopes(lanes=frozenset({"mx:x"})), 0.0)
    shelved = house.add("shelved", "u@x")
    gone = house.message("gone", "u@y")
    house.schedule.leave(gone, gone.message.recipients)
    assert len(house.schedule.hungry) == 1
    assert house.schedule.lane_of(Addressee(address=address("u@x")), None) == "mx:x"
    house.schedule.reroute(lambda *_: "smarthost", 0.0)
    assert house.schedule.hungry == []
    assert shelved.shelved == {}
    assert house.schedule.lane_of(Addressee(address=address("u@x")), None) == "smarthost"
    smarthost = house.schedule.destinations()[-1]
    assert (smarthost.ready, smarthost.on_disk) == (FEW + 1, 0)
    house.schedule.reroute(None, 0.0)
    assert house.schedule.lane_of(Addressee(address=address("u@x")), None) == "smarthost"


def test_a_parked_lane_with_something_on_disk_is_not_forgotten() -> None:
    house = House()
    house.add("a", "u@x")
    lane = house.claim()
    house.take(lane)
    house.schedule.failed(lane, 0.0, park=True)
    house.schedule.release(lane)
    entry = house.message("n", "u@x")
    house.schedule.leave(entry, entry.message.recipients)
    house.schedule.hungry.clear()
    house.wake(PARK + PARK_MOST + LOOK)
    assert len(house.schedule.destinations()) == 1
