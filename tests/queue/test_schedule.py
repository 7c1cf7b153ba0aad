from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from elemta.queue import Message, Priority, Recipient, State
from elemta.queue.entry import Entry
from elemta.queue.ids import IdSource
from elemta.queue.lane import MOST, PARK, PARK_MOST, PATIENCE
from elemta.queue.schedule import LOOK, PARKED, Schedule
from tests.queue.mail import address, by_domain

if TYPE_CHECKING:
    from collections.abc import Iterable

    from elemta.queue.lane import Lane

new_id = IdSource(lambda: 1000.0)


class House:
    """A schedule, and the messages that stand in it."""

    def __init__(self, workers: int = 500) -> None:
        self.entries: dict[int, Entry] = {}
        self.schedule = Schedule(by_domain, self.entries, workers=workers)
        self.names: dict[int, str] = {}

    def add(
        self,
        name: str,
        *to: str,
        priority: Priority = Priority.NORMAL,
        expires_at: float = 1e9,
        now: float = 0.0,
    ) -> Entry:
        message = Message(
            id=new_id(),
            sender=None,
            recipients=[Recipient(number=i, address=address(each)) for i, each in enumerate(to)],
            received_at=now,
            expires_at=expires_at,
            size=1,
            priority=priority,
        )
        entry = Entry(message)
        self.entries[entry.key] = entry
        self.names[entry.key] = name
        self.schedule.ready(entry, message.recipients, now)
        return entry

    def take(self, lane: Lane, most: int = 100) -> str | None:
        """The name of the next message, with the numbers of its recipients if not all."""
        taken = self.schedule.take(lane, most)
        if taken is None:
            return None
        entry, recipients = taken
        numbers = [each.number for each in recipients]
        name = self.names[entry.key]
        whole = len(numbers) == len(entry.message.recipients)
        return name if whole else f"{name}{numbers}"

    def claim(self) -> Lane:
        lane = self.schedule.claim()
        assert lane is not None
        return lane

    def drain(self) -> list[str | None]:
        lane = self.claim()
        return list(iter(lambda: self.take(lane), None))


def claims(schedule: Schedule) -> Iterable[str]:
    while (lane := schedule.claim()) is not None:
        yield lane.name


def test_within_a_priority_who_came_first_goes_first() -> None:
    house = House()
    for name in "abc":
        house.add(name, "u@x")
    assert house.drain() == ["a", "b", "c"]


def test_high_priority_goes_first() -> None:
    house = House()
    house.add("low", "u@x", priority=Priority.LOW)
    house.add("normal", "u@x")
    house.add("critical", "u@x", priority=Priority.CRITICAL)
    house.add("high", "u@x", priority=Priority.HIGH)
    assert house.drain() == ["critical", "high", "normal", "low"]


def test_low_priority_is_not_starved_by_an_endless_stream_of_high() -> None:
    house = House()
    house.add("low", "u@x", priority=Priority.LOW)
    house.add("normal", "u@x")
    lane = house.claim()
    order: list[str | None] = []
    for _ in range(3 * PATIENCE):
        house.add("high", "u@x", priority=Priority.HIGH)
        order.append(house.take(lane))
    assert order.index("low") <= PATIENCE + 1
    assert order.index("normal") <= PATIENCE + 1
    assert order.count("high") == 3 * PATIENCE - 2


def test_recipients_of_a_message_are_taken_together_if_they_share_a_lane() -> None:
    house = House()
    house.add("m", "a@x", "b@y", "c@x")
    taken = {lane.name: house.take(lane) for lane in (house.claim(), house.claim())}
    assert taken == {"mx:x": "m[0, 2]", "mx:y": "m[1]"}


def test_more_recipients_than_a_worker_wants_are_taken_by_turns() -> None:
    house = House()
    house.add("m", "a@x", "b@x", "c@x")
    house.add("n", "u@x")
    lane = house.claim()
    assert [house.take(lane, 2) for _ in range(3)] == ["m[0, 1]", "m[2]", "n"]


def test_lanes_are_served_in_turn() -> None:
    house = House()
    for number in range(6):
        house.add(f"x{number}", "u@x")
    house.add("y", "u@y")
    house.add("z", "u@z")
    assert list(claims(house.schedule)) == ["mx:x", "mx:y", "mx:z", "mx:x", "mx:y", "mx:z"]


def test_a_window_begins_with_two_and_grows_with_success() -> None:
    house = House()
    for number in range(60):
        house.add(f"m{number}", "u@x")
    lane = house.claim()
    assert house.schedule.claim() is lane
    assert house.schedule.claim() is None
    house.schedule.succeeded(lane)
    assert house.schedule.claim() is lane
    assert house.schedule.claim() is None
    for _ in range(100):
        house.schedule.succeeded(lane)
    assert len(list(claims(house.schedule))) == MOST - 3


def test_a_window_halves_with_failure_but_leaves_one() -> None:
    house = House()
    house.add("m", "u@x")
    lane = house.claim()
    for _ in range(6):
        house.schedule.succeeded(lane)
    assert lane.window == 8
    for window in (4, 2, 1, 1):
        house.schedule.failed(lane, 0.0, park=False)
        assert lane.window == window


def test_there_are_so_many_workers_in_all_and_no_more() -> None:
    house = House(workers=3)
    for name in "vwxyz":
        house.add(name, f"u@{name}")
    lanes = [house.claim() for _ in range(3)]
    assert house.schedule.claim() is None
    assert house.schedule.crowded
    house.schedule.release(lanes[0])
    assert house.claim().name == "mx:y"


def test_a_parked_lane_is_left_alone_for_all_its_messages_then_probed_by_one() -> None:
    house = House()
    for name in "abcd":
        house.add(name, "u@x")
    lane, other = house.claim(), house.claim()
    assert house.take(lane) == "a"
    house.schedule.failed(lane, 0.0, park=True)
    house.schedule.failed(other, 0.0, park=True)  # told twice, parked once
    assert house.take(lane) is None
    for each in (lane, other):
        house.schedule.release(each)
    assert house.schedule.claim() is None
    assert house.schedule.next_wake(0.0) == LOOK
    house.schedule.wake(PARK - 1)
    assert house.schedule.claim() is None
    house.schedule.wake(PARK)
    probe = house.claim()
    assert house.schedule.claim() is None
    assert house.take(probe) == "b"
    house.schedule.succeeded(probe)
    assert house.take(probe) == "c"


def test_a_destination_that_stays_silent_is_probed_less_and_less() -> None:
    house = House()
    for number in range(20):
        house.add(f"m{number}", "u@x")
    now, waits = 0.0, list[float]()
    for _ in range(10):
        lane = house.claim()
        assert house.take(lane) is not None
        house.schedule.failed(lane, now, park=True)
        house.schedule.release(lane)
        assert lane.parked_until is not None
        waits.append(lane.parked_until - now)
        now = lane.parked_until
        house.schedule.wake(now)
    assert waits[:3] == [PARK, 2 * PARK, 4 * PARK]
    assert waits[-1] == PARK_MOST


def test_a_parked_lane_keeps_few_and_puts_the_others_off() -> None:
    house = House()
    for number in range(PARKED + 10):
        house.add(f"m{number}", "u@x")
    lane = house.claim()
    house.schedule.failed(lane, 0.0, park=True)
    assert lane.ready == PARKED
    assert len(house.schedule.put_off) == 10
    assert all(until == PARK for _, _, until in house.schedule.put_off)
    assert all(not each.entry.stands for each in house.schedule.put_off)
    house.add("late", "u@x", now=1.0)
    assert house.names[house.schedule.put_off[-1].entry.key] == "late"


def test_high_priority_stays_in_a_parked_lane_rather_than_low() -> None:
    house = House()
    for number in range(PARKED):
        house.add(f"m{number}", "u@x")
    house.add("high", "u@x", priority=Priority.HIGH)
    lane = house.claim()
    house.schedule.failed(lane, 0.0, park=True)
    assert [house.names[each.entry.key] for each in house.schedule.put_off] == [f"m{PARKED - 1}"]


def test_what_has_no_time_left_leaves_a_parked_lane_to_be_given_up() -> None:
    house = House()
    house.add("a", "u@x")
    house.add("late", "u@x", expires_at=100.0)
    house.add("later", "u@x", expires_at=101.0)
    house.add("high and late", "u@x", expires_at=100.0, priority=Priority.HIGH)
    lane = house.claim()
    house.schedule.failed(lane, 99.0, park=True)
    house.schedule.release(lane)
    assert house.schedule.claim() is None
    house.schedule.wake(100.0)
    lane = house.claim()
    assert {house.take(lane), house.take(lane)} == {"late", "high and late"}
    assert house.take(lane) is None


def test_what_is_overdue_stands_in_line_again_when_the_lane_answers() -> None:
    house = House()
    house.add("a", "u@x")
    house.add("late", "u@x", expires_at=100.0)
    lane = house.claim()
    house.schedule.failed(lane, 100.0, park=True)
    house.schedule.succeeded(lane)
    assert [house.take(lane) for _ in range(3)] == ["a", "late", None]
    assert lane.ready == 0


def test_a_parked_lane_that_nobody_wants_is_forgotten() -> None:
    house = House()
    house.add("a", "u@x")
    lane = house.claim()
    house.take(lane)
    house.schedule.failed(lane, 0.0, park=True)
    house.schedule.release(lane)
    house.schedule.wake(PARK + PARK_MOST)
    assert house.schedule.next_wake(0.0) == LOOK
    house.schedule.wake(PARK + PARK_MOST + 1)
    assert house.schedule.next_wake(0.0) == float("inf")
    house.add("b", "u@x")
    assert house.claim() is not lane


def test_deferred_recipients_are_ready_when_they_are_due() -> None:
    house = House()
    entry = house.add("m", "a@x", "b@x")
    lane = house.claim()
    house.take(lane)
    for recipient, due in zip(entry.message.recipients, (10.0, 20.0), strict=True):
        recipient.state, recipient.due = State.DEFERRED, due
        house.schedule.defer(entry, recipient)
    assert house.schedule.next_wake(0.0) == 10.0
    house.schedule.wake(9.9)
    assert house.take(lane) is None
    house.schedule.wake(10.0)
    assert house.take(lane) == "m[0]"
    house.schedule.wake(20.0)
    assert house.take(lane) == "m[1]"


@pytest.mark.parametrize("change", ["held", "moved", "forgotten"])
def test_what_changed_before_it_was_due_is_not_tried(change: str) -> None:
    house = House()
    entry = house.add("m", "a@x")
    lane = house.claim()
    house.take(lane)
    (recipient,) = entry.message.recipients
    recipient.state, recipient.due = State.DEFERRED, 10.0
    house.schedule.defer(entry, recipient)
    house.schedule.defer(entry, recipient)
    if change == "held":
        recipient.state = State.HELD
    elif change == "moved":
        recipient.due = 11.0
    else:
        del house.entries[entry.key]
    house.schedule.wake(10.0)
    assert house.take(lane) is None


def test_what_is_due_twice_is_tried_once() -> None:
    house = House()
    entry = house.add("m", "a@x")
    lane = house.claim()
    house.take(lane)
    (recipient,) = entry.message.recipients
    recipient.state, recipient.due = State.DEFERRED, 10.0
    house.schedule.defer(entry, recipient)
    house.schedule.defer(entry, recipient)
    house.schedule.wake(10.0)
    assert house.take(lane) == "m"
    assert house.take(lane) is None


def test_what_is_withdrawn_is_passed_over() -> None:
    house = House()
    entry = house.add("a", "u@x", "v@y")
    house.add("b", "u@x")
    assert house.schedule.withdraw(entry) == entry.message.recipients
    assert house.drain() == ["b"]


def test_rerouting_moves_what_stands() -> None:
    house = House()
    house.add("a", "u@x")
    house.add("b", "u@y")
    house.add("late", "u@x", expires_at=5.0)
    lane = house.claim()
    house.schedule.failed(lane, 5.0, park=True)
    house.schedule.release(lane)
    house.schedule.reroute(lambda _: "smarthost", 6.0)
    lane = house.claim()
    assert lane.name == "smarthost"
    assert {house.take(lane) for _ in range(3)} == {"a", "b", "late"}
    assert house.take(lane) is None


def test_how_many_stand_in_the_lane_of_an_address() -> None:
    house = House()
    assert house.schedule.standing(address("u@x")) == 0
    house.add("a", "u@x", "v@x")
    house.add("b", "u@x")
    assert house.schedule.standing(address("w@x")) == 2


def test_a_lane_that_nobody_needs_is_forgotten_with_its_window() -> None:
    house = House()
    house.add("a", "u@x")
    lane = house.claim()
    for _ in range(5):
        house.schedule.succeeded(lane)
    house.take(lane)
    house.schedule.release(lane)
    house.add("b", "u@x")
    assert house.claim() is not lane


def test_taking_back_what_is_overdue_leaves_the_rest() -> None:
    house = House()
    house.add("a", "u@x")
    late = house.add("late", "u@x", expires_at=5.0)
    low = house.add("low", "u@x", priority=Priority.LOW)
    lane = house.claim()
    house.schedule.failed(lane, 5.0, park=True)
    house.schedule.withdraw(late)
    house.schedule.withdraw(low)
    house.schedule.succeeded(lane)
    assert [house.take(lane) for _ in range(2)] == ["a", None]
    assert lane.ready == 0


def test_waking_a_lane_that_answers_changes_nothing() -> None:
    house = House()
    house.add("a", "u@x", expires_at=1.0)
    lane = house.claim()
    lane.wake(2.0)
    assert house.take(lane) == "a"
