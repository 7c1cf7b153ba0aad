"""Whatever workers do and destinations answer: nothing is forgotten, and nothing goes twice."""

from __future__ import annotations

from collections import Counter

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from elemta.protocol import Mailbox
from elemta.queue import Message, Priority, Recipient, State
from elemta.queue.entry import Entry
from elemta.queue.ids import IdSource
from elemta.queue.lane import MOST, PATIENCE, Lane
from elemta.queue.schedule import PARKED, Schedule
from fuzz.profiles import examples

WORKERS = 6
LIFETIME = 50_000.0
DOMAINS = ("x", "y", "z")


class Worker:
    """Has a place in a lane, and perhaps some recipients."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.entry: Entry | None = None
        self.recipients: list[Recipient] = []


class ScheduleMachine(RuleBasedStateMachine):
    """The schedule, and the crowd around it. The model is a bag of recipients still to be tried."""

    workers = Bundle("workers")

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.entries: dict[int, Entry] = {}
        self.schedule = Schedule(self.lane, self.entries, workers=WORKERS)
        self.suffix = ""
        self.new_id = IdSource(lambda: 1.0)
        self.busy: list[Worker] = []
        self.passed: Counter[tuple[int, str]] = Counter()

    def lane(self, address: Mailbox) -> str:
        return address.domain + self.suffix

    @rule(
        to=st.lists(st.sampled_from(DOMAINS), min_size=1, max_size=4),
        priority=st.sampled_from(Priority),
        life=st.sampled_from([LIFETIME, LIFETIME, 5.0]),
        copies=st.sampled_from([1, 1, 1, 5, PARKED + 3]),
    )
    def come(self, to: list[str], priority: Priority, life: float, copies: int) -> None:
        for _ in range(copies):
            message = Message(
                id=self.new_id(),
                sender=None,
                recipients=[
                    Recipient(number=i, address=Mailbox("u", each)) for i, each in enumerate(to)
                ],
                received_at=self.now,
                expires_at=self.now + life,
                size=1,
                priority=priority,
            )
            entry = Entry(message)
            self.entries[entry.key] = entry
            self.schedule.ready(entry, message.recipients, self.now)
        self.take_put_off()

    @rule(target=workers)
    def claim(self) -> Worker:
        lane = self.schedule.claim()
        if lane is None:
            return Worker(Lane("nowhere"))
        worker = Worker(lane)
        self.busy.append(worker)
        return worker

    @rule(worker=workers, most=st.sampled_from([1, 2, 100]))
    def take(self, worker: Worker, most: int) -> None:
        if worker not in self.busy or worker.entry is not None:
            return
        taken = self.schedule.take(worker.lane, most)
        if taken is None:
            return
        worker.entry, recipients = taken
        worker.recipients = list(recipients)
        assert 0 < len(recipients) <= most
        assert len({self.lane(each.address) for each in recipients}) == 1
        assert self.lane(recipients[0].address) == worker.lane.name or self.suffix
        for each in recipients:
            assert each.state is State.READY
        if worker.lane.parked_until is not None and not worker.lane.probing:
            assert worker.entry.message.expires_at <= self.now

    @rule(worker=workers, state=st.sampled_from([State.DELIVERED, State.DEFERRED, State.READY]))
    def end_work(self, worker: Worker, state: State) -> None:
        """Delivered, deferred, or given back."""
        if worker.entry is None:
            return
        entry, recipients = worker.entry, worker.recipients
        worker.entry, worker.recipients = None, []
        for number, each in enumerate(recipients):
            each.state = state
            if state is State.DEFERRED:
                each.due = self.now + 10 * number
                self.schedule.defer(entry, each)
        if state is State.READY:
            self.schedule.ready(entry, recipients, self.now)
        self.take_put_off()

    @rule(worker=workers, what=st.sampled_from(["succeeded", "failed", "park"]))
    def tell(self, worker: Worker, what: str) -> None:
        if worker not in self.busy:
            return
        if what == "succeeded":
            self.schedule.succeeded(worker.lane)
        else:
            self.schedule.failed(worker.lane, self.now, park=what == "park")
        self.take_put_off()

    @rule()
    def try_in_vain(self) -> None:
        """The next lane's destination does not answer."""
        worker = self.claim()
        self.take(worker, 1)
        self.end_work(worker, State.DEFERRED)
        self.tell(worker, "park")
        self.leave(worker)

    @rule(worker=consumes(workers))
    def leave(self, worker: Worker) -> None:
        if worker in self.busy:
            if worker.entry is not None:
                self.end_work(worker, State.READY)
            self.busy.remove(worker)
            self.schedule.release(worker.lane)

    @rule(seconds=st.sampled_from([0.0, 1.0, 7.0, 40.0, 3000.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.schedule.wake(self.now)
        self.take_put_off()
        for lane in self.schedule._lanes.values():
            until = lane.parked_until
            if until is None or lane.workers or not lane.ready:
                continue
            late = any(
                entry.message.expires_at <= self.now
                for entry in self.entries.values()
                if lane.name in entry.stands
            )
            # One may probe when its time is over; what has no time left need not wait for that.
            assert lane.open == (until <= self.now or late)

    @rule(suffix=st.sampled_from(["", "", "-other"]))
    def reload(self, suffix: str) -> None:
        self.suffix = suffix
        self.schedule.reroute(self.lane, self.now)
        self.take_put_off()

    @rule(data=st.data())
    def hold(self, data: st.DataObject) -> None:
        if not self.entries:
            return
        key = data.draw(st.sampled_from(sorted(self.entries)[:3]))
        withdrawn = self.schedule.withdraw(self.entries[key])
        for each in withdrawn:
            each.state = State.HELD

    @rule()
    def release_all(self) -> None:
        for entry in self.entries.values():
            held = [each for each in entry.message.recipients if each.state is State.HELD]
            for each in held:
                each.state = State.READY
            self.schedule.ready(entry, held, self.now)
        self.take_put_off()

    def take_put_off(self) -> None:
        """What the queue does with what was put off: it waits, on disk, and comes back."""
        for entry, recipients, until in self.schedule.put_off:
            for each in recipients:
                assert each.state is State.READY
                each.state, each.due = State.DEFERRED, min(until + 60, entry.message.expires_at)
                self.schedule.defer(entry, each)
        self.schedule.put_off.clear()

    @invariant()
    def everybody_is_in_one_place(self) -> None:
        at_work = [id(each) for worker in self.busy for each in worker.recipients]
        standing = [
            id(each)
            for entry in self.entries.values()
            for stand in entry.stands.values()
            for each in stand.recipients
        ]
        ready = [
            id(each)
            for entry in self.entries.values()
            for each in entry.message.recipients
            if each.state is State.READY
        ]
        assert sorted(at_work + standing) == sorted(ready)

    @invariant()
    def limits_hold(self) -> None:
        assert self.schedule.workers == len(self.busy) <= WORKERS
        for lane, count in Counter(worker.lane for worker in self.busy).items():
            assert count == lane.workers
            assert 1 <= lane.window <= MOST

    def teardown(self) -> None:
        """When destinations answer again, all is delivered: nothing is forgotten or starved."""
        for worker in list(self.busy):
            self.leave(worker)
        self.release_all()
        for _ in range(20_000):
            lane = self.schedule.claim()
            if lane is None:
                self.now += 1000.0
                self.schedule.wake(self.now)
                self.take_put_off()
                if all(self.finished(entry) for entry in self.entries.values()):
                    break
                continue
            worker = Worker(lane)
            self.busy.append(worker)
            self.take(worker, 100)
            if worker.entry is not None:
                self.end_work(worker, State.DELIVERED)
            self.schedule.succeeded(lane)
            self.leave(worker)
        assert all(self.finished(entry) for entry in self.entries.values())

    @staticmethod
    def finished(entry: Entry) -> bool:
        return all(each.state is State.DELIVERED for each in entry.message.recipients)


TestSchedule = ScheduleMachine.TestCase
TestSchedule.settings = settings(examples(60), stateful_step_count=40)


def test_low_priority_waits_no_longer_than_its_patience() -> None:
    machine = ScheduleMachine()
    machine.come(["x"], Priority.LOW, LIFETIME, 1)
    worker = machine.claim()
    for _ in range(PATIENCE + 1):
        for priority in (Priority.NORMAL, Priority.HIGH, Priority.CRITICAL):
            machine.come(["x"], priority, LIFETIME, 1)
    taken: list[Priority] = []
    while Priority.LOW not in taken:
        machine.take(worker, 1)
        assert worker.entry is not None
        taken.append(worker.entry.message.priority)
        machine.end_work(worker, State.DELIVERED)
    # Four priorities compete: those that are starved go one after the other.
    assert len(taken) <= PATIENCE + 3
