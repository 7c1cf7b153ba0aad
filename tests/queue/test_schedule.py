from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from elemta.queue import Message, Priority, Recipient, State
from elemta.queue.entry import Entry
from elemta.queue.ids import IdSource
from elemta.queue.lane import FEW, FIRST, PARK, PARK_MOST, PATIENCE
from elemta.queue.rate import MOST, LaneLimits
from elemta.queue.schedule import LOOK, Schedule
from tests.queue.mail import address, by_domain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from elemta.queue.lane import Lane

new_id = IdSource(lambda: 1000.0)


class House:
    """A schedule, and the messages that stand in it."""

    def __init__(
        self, workers: int = 500, limits: Callable[[str], LaneLimits] = lambda _: LaneLimits()
    ) -> None:
        self.entries: dict[int, Entry] = {}
        self.schedule = Schedule(
            by_domain,
            self.entries,
            word=lambda message, _: message.expires_at,
            limits=limits,
            workers=workers,
        )
        self.names: dict[int, str] = {}
        self.now = 0.0

    def add(
        self,
        name: str,
        *to: str,
        priority: Priority = Priority.NORMAL,
        expires_at: float = 1e9,
    ) -> Entry:
        entry = self.message(name, *to, priority=priority, expires_at=expires_at)
        self.entries[entry.key] = entry
        self.schedule.ready(entry, entry.message.recipients, self.now)
        return entry

    def message(
        self,
        name: str,
        *to: str,
        priority: Priority = Priority.NORMAL,
        expires_at: float = 1e9,
    ) -> Entry:
        """A message that stands nowhere yet."""
        message = Message(
            id=new_id(),
            sender=None,
            recipients=[Recipient(number=i, address=address(each)) for i, each in enumerate(to)],
            received_at=self.now,
            expires_at=expires_at,
            size=1,
            priority=priority,
        )
        entry = Entry(message)
        self.names[entry.key] = name
        return entry

    def shelved(self) -> list[str]:
        """The names of messages that were sent back to disk since the last time."""
        entries = list(self.schedule.shelved)
        self.schedule.shelved.clear()
        for entry in entries:
            if not entry.stands:
                entry.shelved.clear()
                del self.entries[entry.key]
        return [self.names[entry.key] for entry in entries]

    def wanted(self) -> list[str]:
        """The names of messages that hungry lanes want from disk, which does not bring them."""
        names: list[str] = []
        for lane in self.schedule.hungry:
            names += [self.names[item.key] for item in self.schedule.unshelve(lane, 1000, self.now)]
        self.schedule.hungry.clear()
        return names

    def succeeded(self, lane: Lane) -> None:
        """What the queue does when a worker says so."""
        if lane.parked_until is None:
            self.schedule.succeeded(lane)
        else:
            self.schedule.released(lane, self.now)

    def wake(self, now: float) -> None:
        self.now = now
        self.schedule.wake(now)

    def take(self, lane: Lane, most: int = 100) -> str | None:
        """The name of the next message, with the numbers of its recipients if not all."""
        taken = self.schedule.take(lane, most, self.now)
        if taken is None:
            return None
        entry, recipients, overdue = taken
        numbers = [each.number for each in recipients]
        name = self.names[entry.key]
        whole = len(numbers) == len(entry.message.recipients)
        return (name if whole else f"{name}{numbers}") + ("!" if overdue else "")

    def claim(self) -> Lane:
        lane = self.schedule.claim(self.now)
        assert lane is not None
        return lane

    def drain(self) -> list[str | None]:
        lane = self.claim()
        return list(iter(lambda: self.take(lane), None))


def claims(schedule: Schedule) -> Iterable[str]:
    while (lane := schedule.claim(0.0)) is not None:
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


def test_a_window_begins_with_two_and_grows_with_success_as_far_as_it_is_used() -> None:
    house = House()
    for number in range(60):
        house.add(f"m{number}", "u@x")
    lane = house.claim()
    assert lane.window == FIRST
    house.succeeded(lane)
    assert lane.window == FIRST  # one of the two places was free: it says nothing of a third
    assert house.claim() is lane
    assert house.schedule.claim(0.0) is None
    house.succeeded(lane)
    assert house.claim() is lane
    assert house.schedule.claim(0.0) is None
    for _ in range(100):
        house.succeeded(lane)
        list(claims(house.schedule))
    assert lane.workers == lane.window == MOST


def test_a_destination_may_have_another_ceiling() -> None:
    house = House(limits=lambda name: LaneLimits(connections=1 if name == "mx:x" else 3))
    for number in range(60):
        house.add(f"m{number}", "u@x", "u@y")
    for _ in range(100):
        list(claims(house.schedule))
        for lane in house.schedule._lanes.values():
            house.succeeded(lane)
    assert {lane.name: lane.workers for lane in house.schedule._lanes.values()} == {
        "mx:x": 1,
        "mx:y": 3,
    }


def wide(house: House, window: int) -> Lane:
    """A lane whose window has grown so far, with a worker in each place."""
    for number in range(60):
        house.add(f"m{number}", "u@x")
    lane = house.claim()
    while lane.window < window:
        list(claims(house.schedule))
        house.succeeded(lane)
    list(claims(house.schedule))
    return lane


def test_a_window_halves_when_the_destination_turns_us_away_but_leaves_one() -> None:
    house = House()
    lane = wide(house, 8)
    while lane.workers > 1:
        house.schedule.release(lane)
    for window in (4, 2, 1, 1):
        assert not house.schedule.failed(lane, 0.0, park=False)
        assert lane.window == window


def test_what_all_who_are_at_work_are_told_at_once_counts_once() -> None:
    house = House()
    lane = wide(house, 8)
    for _ in range(7):
        house.schedule.failed(lane, 0.0, park=False)
    house.succeeded(lane)  # the last of them fared better
    assert lane.window == 4
    house.schedule.failed(lane, 0.0, park=False)
    assert lane.window == 2


def test_after_it_was_turned_away_a_window_grows_more_slowly() -> None:
    house = House()
    lane = wide(house, 8)
    house.schedule.failed(lane, 0.0, park=False)
    while lane.workers > 4:
        house.schedule.release(lane)
    for successes, window in ((3, 4), (1, 5)):
        for _ in range(successes):
            house.succeeded(lane)
        assert lane.window == window


def test_there_are_so_many_workers_in_all_and_no_more() -> None:
    house = House(workers=3)
    for name in "vwxyz":
        house.add(name, f"u@{name}")
    lanes = [house.claim() for _ in range(3)]
    assert house.schedule.claim(house.now) is None
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
    assert house.schedule.claim(house.now) is None
    assert house.schedule.next_wake(0.0) == LOOK
    assert house.schedule.next_wake(PARK - 1) == PARK
    house.wake(PARK - 1)
    assert house.schedule.claim(house.now) is None
    house.wake(PARK)
    probe = house.claim()
    assert house.schedule.claim(house.now) is None
    assert house.take(probe) == "b"
    house.succeeded(probe)
    assert house.take(probe) == "c"


def test_a_destination_that_stays_silent_is_probed_less_and_less() -> None:
    house = House()
    for number in range(20):
        house.add(f"m{number}", "u@x")
    waits: list[float] = []
    for _ in range(10):
        lane = house.claim()
        assert house.take(lane) is not None
        assert house.schedule.failed(lane, house.now, park=True)
        house.schedule.release(lane)
        assert lane.parked_until is not None
        waits.append(lane.parked_until - house.now)
        house.wake(lane.parked_until)
    assert waits[:3] == [PARK, 2 * PARK, 4 * PARK]
    assert waits[-1] == PARK_MOST


def test_a_parked_lane_keeps_few_and_sends_the_others_to_disk() -> None:
    house = House()
    for number in range(FEW + 10):
        house.add(f"m{number}", "u@x")
    lane = house.claim()
    house.schedule.failed(lane, 0.0, park=True)
    assert lane.ready == FEW
    assert house.shelved() == [f"m{FEW + number}" for number in range(10)]
    house.add("late", "u@x")
    assert house.shelved() == ["late"]
    assert house.schedule.hungry == []
    # It answers: what it had to leave comes back, the oldest first.
    house.succeeded(lane)
    assert house.wanted() == [*(f"m{FEW + number}" for number in range(10)), "late"]


def test_a_parked_lane_that_has_nothing_left_to_be_probed_with_gets_something() -> None:
    house = House()
    for number in range(FEW + 40):
        house.add(f"m{number}", "u@x")
    lane = house.claim()
    house.schedule.failed(lane, 0.0, park=True)
    assert len(house.shelved()) == 40
    house.wake(PARK)
    for _ in range(FEW // 2):
        assert house.take(lane)
        assert house.wanted() == []
    assert house.take(lane)
    assert house.wanted() == [f"m{FEW + number}" for number in range(FEW // 2)]


def test_high_priority_stays_in_a_parked_lane_rather_than_low() -> None:
    house = House()
    for number in range(FEW):
        house.add(f"m{number}", "u@x")
    house.add("high", "u@x", priority=Priority.HIGH)
    lane = house.claim()
    house.schedule.failed(lane, 0.0, park=True)
    assert house.shelved() == [f"m{FEW - 1}"]


def test_what_has_no_time_left_leaves_a_parked_lane_to_be_given_up() -> None:
    house = House()
    house.add("a", "u@x")
    house.add("late", "u@x", expires_at=100.0)
    house.add("later", "u@x", expires_at=110.0)
    house.add("high and late", "u@x", expires_at=100.0, priority=Priority.HIGH)
    lane = house.claim()
    house.schedule.failed(lane, 90.0, park=True)
    house.schedule.release(lane)
    assert house.schedule.claim(house.now) is None
    house.wake(99.0)
    assert house.schedule.claim(house.now) is None
    house.wake(100.0)  # it is not yet time for another look
    house.wake(109.0)
    lane = house.claim()
    assert {house.take(lane), house.take(lane)} == {"late!", "high and late!"}
    assert house.take(lane) is None


def test_what_is_overdue_stands_in_line_again_when_the_lane_answers() -> None:
    house = House()
    house.add("a", "u@x")
    house.add("late", "u@x", expires_at=100.0)
    lane = house.claim()
    house.schedule.failed(lane, 100.0, park=True)
    house.succeeded(lane)
    assert [house.take(lane) for _ in range(3)] == ["a", "late", None]
    assert lane.ready == 0


def test_a_parked_lane_that_nobody_wants_is_forgotten() -> None:
    house = House()
    house.add("a", "u@x")
    lane = house.claim()
    house.take(lane)
    house.schedule.failed(lane, 0.0, park=True)
    house.schedule.release(lane)
    house.wake(PARK + PARK_MOST)
    assert house.schedule.next_wake(0.0) == LOOK
    house.wake(PARK + PARK_MOST + LOOK)
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
    house.wake(9.9)
    assert house.take(lane) is None
    house.wake(10.0)
    assert house.take(lane) == "m[0]"
    house.wake(20.0)
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
    house.wake(10.0)
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
    house.wake(10.0)
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
    house.schedule.reroute(lambda *_: "smarthost", 6.0)
    lane = house.claim()
    assert lane.name == "smarthost"
    assert {house.take(lane) for _ in range(3)} == {"a", "b", "late"}
    assert house.take(lane) is None


def test_a_lane_that_nobody_needs_is_forgotten_with_its_window() -> None:
    house = House()
    house.add("a", "u@x")
    lane = house.claim()
    for _ in range(5):
        house.succeeded(lane)
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
    house.succeeded(lane)
    assert [house.take(lane) for _ in range(2)] == ["a", None]
    assert lane.ready == 0


def test_waking_a_lane_that_answers_changes_nothing() -> None:
    house = House()
    house.add("a", "u@x", expires_at=1.0)
    lane = house.claim()
    lane.wake(2.0, lambda _: 1.0)
    assert house.take(lane) == "a"
