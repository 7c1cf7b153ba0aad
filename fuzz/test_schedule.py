"""Whatever workers do and destinations answer: nothing is forgotten, and nothing goes twice."""

from __future__ import annotations

from collections import Counter

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from elemta.protocol import Mailbox, ReversePath
from elemta.queue import Destined, Message, Priority, Recipient, State
from elemta.queue.entry import Entry
from elemta.queue.ids import IdSource
from elemta.queue.lane import FEW, PATIENCE, Lane
from elemta.queue.rate import MOST, LaneLimits, Rate
from elemta.queue.schedule import Schedule
from elemta.queue.suspension import Scopes
from fuzz.profiles import examples

WORKERS = 6
LIFETIME = 50_000.0
DOMAINS = ("x", "y", "z")
RATED = LaneLimits(
    connections=3,
    rates=(Rate("messages", 5, 60.0), Rate("recipients", 9, 60.0), Rate("connections", 4, 60.0)),
)


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
        self.schedule = Schedule(
            self.lane,
            self.entries,
            word=lambda message, _: message.expires_at,
            limits=lambda name: RATED if name.startswith("z") else LaneLimits(),
            workers=WORKERS,
        )
        #: What was sent back to disk.
        self.disk: dict[int, Entry] = {}
        self.suffix = ""
        self.new_id = IdSource(lambda: 1.0)
        self.busy: list[Worker] = []
        self.went: list[tuple[float, str, int]] = []
        self.passed: Counter[tuple[int, str]] = Counter()

    def lane(self, recipient: Destined, sender: ReversePath = None) -> str:
        return recipient.address.domain + self.suffix

    @rule(
        to=st.lists(st.sampled_from(DOMAINS), min_size=1, max_size=4),
        priority=st.sampled_from(Priority),
        life=st.sampled_from([LIFETIME, LIFETIME, 5.0]),
        copies=st.sampled_from([1, 1, 1, 5, FEW + 3]),
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
        self.take_shelved()

    @rule(target=workers)
    def claim(self) -> Worker:
        lane = self.schedule.claim(self.now)
        if lane is None:
            return Worker(Lane("nowhere"))
        worker = Worker(lane)
        self.busy.append(worker)
        return worker

    @rule(worker=workers, most=st.sampled_from([1, 2, 100]))
    def take(self, worker: Worker, most: int) -> None:
        if worker not in self.busy or worker.entry is not None:
            return
        taken = self.schedule.take(worker.lane, most, self.now)
        if taken is None:
            return
        worker.entry, recipients, overdue = taken
        worker.entry.works += 1
        worker.recipients = list(recipients)
        assert 0 < len(recipients) <= most
        assert len({self.lane(each) for each in recipients}) == 1
        names = (self.lane(recipients[0]), "domain:" + recipients[0].address.domain)
        assert worker.lane.name in names or self.suffix
        for each in recipients:
            assert each.state is State.READY
        if worker.lane.suspended or (worker.lane.parked_until and not worker.lane.probing):
            assert overdue
        if overdue:
            assert worker.entry.message.expires_at <= self.now
        elif worker.lane.meters is not None:
            self.went.append((self.now, worker.lane.name, len(recipients)))
            last = [
                n for at, name, n in self.went if at > self.now - 60 and name == worker.lane.name
            ]
            assert len(last) <= 5
            assert sum(last) <= 9

    @rule(worker=workers, state=st.sampled_from([State.DELIVERED, State.DEFERRED, State.READY]))
    def end_work(self, worker: Worker, state: State) -> None:
        """Delivered, deferred, or given back."""
        if worker.entry is None:
            return
        entry, recipients = worker.entry, worker.recipients
        worker.entry, worker.recipients = None, []
        entry.works -= 1
        for number, each in enumerate(recipients):
            each.state = state
            if state is State.DEFERRED:
                each.due = self.now + 10 * number
                self.schedule.defer(entry, each)
        if state is State.READY:
            self.schedule.ready(entry, recipients, self.now)
        self.take_shelved()

    @rule(worker=workers, what=st.sampled_from(["succeeded", "failed", "park"]))
    def tell(self, worker: Worker, what: str) -> None:
        if worker not in self.busy:
            return
        if what == "succeeded":
            self.succeeded(worker.lane)
        else:
            self.schedule.failed(worker.lane, self.now, park=what == "park")
        self.take_shelved()

    def succeeded(self, lane: Lane) -> None:
        if lane.parked_until is None:
            self.schedule.succeeded(lane)
        else:
            self.schedule.released(lane, self.now)

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
        self.take_shelved()
        for lane in self.schedule._lanes.values():
            until = lane.parked_until
            if until is None or lane.suspended or lane.meters or lane.workers or not lane.ready:
                continue
            late = any(
                lane.name in entry.stands and entry.stands[lane.name].overdue
                for entry in self.entries.values()
            )
            # One may probe when its time is over; what has no time left need not wait for that.
            assert lane.open == (until <= self.now or late)

    @rule(scopes=st.sets(st.sampled_from(["all", "x", "y", "domain:x"]), max_size=2))
    def suspend(self, scopes: set[str]) -> None:
        domains = frozenset(each[7:] for each in scopes if each.startswith("domain:"))
        found = Scopes("all" in scopes, frozenset(scopes & {"x", "y"}), domains)
        if self.schedule.suspend(found, self.now):
            self.find_all()
        self.take_shelved()

    @rule(suffix=st.sampled_from(["", "", "-other"]))
    def reload(self, suffix: str) -> None:
        self.suffix = suffix
        self.schedule.reroute(self.lane, self.now)
        self.find_all()
        self.take_shelved()

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
        for key, entry in list(self.disk.items()):  # an operator brings them first
            if any(each.state is State.HELD for each in entry.message.recipients):
                self.bring(key)
        for entry in self.entries.values():
            held = [each for each in entry.message.recipients if each.state is State.HELD]
            for each in held:
                each.state = State.READY
            self.schedule.ready(entry, held, self.now)
        self.take_shelved()

    def take_shelved(self) -> None:
        """What the queue does with what was shelved: it waits on disk, till its lane wants it."""
        for entry in self.schedule.shelved:
            deferred = any(each.state is State.DEFERRED for each in entry.message.recipients)
            if entry.resting and not deferred and self.entries.pop(entry.key, None) is not None:
                entry.shelved.clear()
                self.disk[entry.key] = entry
        self.schedule.shelved.clear()
        while self.schedule.hungry:
            lane = self.schedule.hungry.pop()
            for item in self.schedule.unshelve(lane, 40, self.now):
                self.bring(item.key)
            self.schedule.fed(lane, self.now)
            if self.schedule.shelved:
                self.take_shelved()

    def bring(self, key: int) -> None:
        entry = self.disk.pop(key, None)
        if entry is not None:
            self.entries[key] = entry
            ready = [each for each in entry.message.recipients if each.state is State.READY]
            self.schedule.ready(entry, ready, self.now)

    def find_all(self) -> None:
        for key in list(self.disk):
            self.bring(key)

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
        shelved = [
            id(each)
            for entry in self.entries.values()
            for recipients in entry.shelved.values()
            for each in recipients
        ]
        assert sorted(at_work + standing + shelved) == sorted(ready)

    @invariant()
    def limits_hold(self) -> None:
        assert self.schedule.workers == len(self.busy) <= WORKERS
        for lane, count in Counter(worker.lane for worker in self.busy).items():
            assert count == lane.workers
            assert 1 <= lane.window <= MOST
            assert lane.meters is None or count <= 3

    def teardown(self) -> None:
        """When destinations answer again, all is delivered: nothing is forgotten or starved."""
        for worker in list(self.busy):
            self.leave(worker)
        self.release_all()
        self.suspend(set())
        for _ in range(20_000):
            lane = self.schedule.claim(self.now)
            if lane is None:
                self.now += 1000.0
                self.schedule.wake(self.now)
                self.take_shelved()
                if self.all_is_finished():
                    break
                continue
            worker = Worker(lane)
            self.busy.append(worker)
            self.take(worker, 100)
            if worker.entry is not None:
                self.end_work(worker, State.DELIVERED)
            self.succeeded(lane)
            self.take_shelved()
            self.leave(worker)
        assert self.all_is_finished()

    def all_is_finished(self) -> bool:
        return not self.disk and all(self.finished(entry) for entry in self.entries.values())

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
