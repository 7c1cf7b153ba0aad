from __future__ import annotations

import tracemalloc
from typing import NamedTuple

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from elemta.ledger import Book, Row
from elemta.plugins.built_in.triplets import (
    SOME,
    Attempts,
    Passes,
    Terms,
    Triplets,
    normal,
    triplet,
)
from elemta.testing import mailbox

TERMS = Terms(delay=300, window=4 * 3600, lifetime=36 * 86400, passes=5)
NOW = 1_800_000_000.0


def triplets(most: int = 10_000) -> Triplets:
    return Triplets(Attempts(most), Book(Row, most), Book(Passes, most), Book(Row, most))


@pytest.mark.parametrize(
    ("sender", "same"),
    [
        ("Bounces+8812-8d7f-ann=us.example@list.example", "bounces+#-ann=us.example@list.example"),
        ("0100018f3a2b-6c1e-47aa-9c1d-000000@ses.example", "#@ses.example"),
        ("list-owner@list.example", "list-owner@list.example"),
        ("SRS0=hHhH=TT=orig.example=bob@fwd.example", "srs=#=orig.example=bob@fwd.example"),
        ("srs0+a1=9z=orig.example=bob@fwd.example", "srs=#=orig.example=bob@fwd.example"),
        (
            "SRS1=aaaa=first.example==HHH=TT=orig.example=bob@fwd.example",
            "srs=#=first.example=#=orig.example=bob@fwd.example",
        ),
        ("prvs=0123abcdef=bob@x.example", "prvs=#=bob@x.example"),
        ("prvs=abcdefabcd=bob@x.example", "prvs=#=bob@x.example"),
        ("btv1==deadbeef==bob@x.example", "prvs=#=bob@x.example"),
        ("msprvs1=19abC=bounces-12-34@x.example", "prvs=#=bounces-#@x.example"),
        ("a_1_b_2@x.example", "a_#_b_#@x.example"),
        ('"a b 7"@x.example', "a b #@x.example"),
    ],
)
def test_messages_of_one_sender_have_one_return_path(sender: str, same: str) -> None:
    assert normal(mailbox(sender)) == same


def test_the_null_sender_is_one() -> None:
    assert normal(None) == "<>"


def test_case_makes_no_difference() -> None:
    one = triplet("192.0.2.0/24", mailbox("Ann@X.example"), mailbox("Bob@Us.example"))
    assert one == triplet("192.0.2.0/24", mailbox("ann@x.example"), mailbox("bob@us.example"))
    assert one != triplet("192.0.3.0/24", mailbox("ann@x.example"), mailbox("bob@us.example"))


def test_who_comes_back_in_time_is_known_from_then_on() -> None:
    known = triplets()
    assert known.look(b"k", "net", NOW, TERMS) == ("greylisted", 300)
    assert known.look(b"k", "net", NOW + 299, TERMS) == ("early", 1)
    assert known.look(b"k", "net", NOW + 300, TERMS) == ("passed", 0)
    assert known.look(b"k", "net", NOW + 301, TERMS) == ("known", 0)
    late = NOW + 300 + 35 * 86400
    assert known.look(b"k", "net", late, TERMS) == ("known", 0)
    assert known.look(b"k", "net", late + 35 * 86400, TERMS) == ("known", 0), "it was used"
    assert known.look(b"k", "net", late + 72 * 86400, TERMS) == ("greylisted", 300)


def test_who_comes_back_too_late_is_a_stranger_again() -> None:
    known = triplets()
    known.look(b"k", "net", NOW, TERMS)
    assert known.look(b"k", "net", NOW + TERMS.window, TERMS) == ("greylisted", 300)
    assert known.attempts.given_up == 1
    known.attempts.prune(NOW + 2 * TERMS.window)
    assert known.attempts.given_up == 2
    assert not known.attempts.clients


def test_a_clock_that_was_set_back_keeps_nobody_out() -> None:
    known = triplets()
    known.look(b"k", "net", NOW + 1e8, TERMS)
    assert known.look(b"k", "net", NOW, TERMS) == ("greylisted", 300)
    assert known.look(b"k", "net", NOW + 300, TERMS) == ("passed", 0)


def test_who_came_back_often_enough_is_trusted_as_long_as_it_comes() -> None:
    known = triplets()
    for _ in range(4):
        known.came_back(b"net", NOW, TERMS)
        assert not known.trusts(b"net", NOW, TERMS)
    known.came_back(b"net", NOW, TERMS)
    assert known.trusts(b"net", NOW, TERMS)
    assert known.trusts(b"net", NOW + 35 * 86400, TERMS)
    assert known.trusts(b"net", NOW + 70 * 86400, TERMS)
    assert not known.trusts(b"net", NOW + 107 * 86400, TERMS)
    assert not known.trusts(b"net", NOW, TERMS._replace(passes=0))


def test_what_came_back_long_ago_counts_no_more() -> None:
    known = triplets()
    for number in range(10):
        known.came_back(b"net", NOW + number * 37 * 86400, TERMS)
    assert not known.trusts(b"net", NOW + 9 * 37 * 86400, TERMS)
    known.came_back(b"other", NOW, TERMS._replace(passes=0))
    assert b"other" not in known.passes.rows


def test_one_that_tries_without_end_costs_nobody_else_his_place() -> None:
    known = triplets()
    for number in range(50):
        known.look(b"honest %d" % number, f"net {number}", NOW, TERMS)
    known.look(b"own", "flood", NOW, TERMS)
    for number in range(50_000):
        known.look(b"%d" % number, "flood", NOW + 1, TERMS)
    assert known.attempts.clients["flood"] < 1300
    assert known.look(b"new", "another", NOW + 2, TERMS) == ("greylisted", 300)
    for number in range(50):
        found = known.look(b"honest %d" % number, f"net {number}", NOW + 300, TERMS)
        assert found == ("passed", 0)
    assert known.look(b"new", "another", NOW + 302, TERMS) == ("passed", 0)
    assert known.look(b"own", "flood", NOW + 300, TERMS) == ("passed", 0), "it was early"


def test_twenty_that_try_without_end_leave_room_for_others() -> None:
    known = triplets()
    for number in range(60_000):
        known.look(b"%d" % number, f"flood {number % 20}", NOW, TERMS)
    for number in range(30):
        known.look(b"honest %d" % number, f"net {number}", NOW + 1, TERMS)
    assert known.attempts.crowded == 0
    for number in range(30):
        found = known.look(b"honest %d" % number, f"net {number}", NOW + 301, TERMS)
        assert found == ("passed", 0)


@pytest.mark.large
@pytest.mark.parametrize("networks", [1, 200_000])
def test_two_hundred_thousand_hostile_triplets_take_little_memory(networks: int) -> None:
    known = triplets(10_000)
    tracemalloc.start()
    try:
        for number in range(12_000):  # being watched costs ten times as much
            known.look(b"%d" % number, f"net {number % networks}", NOW + number / 1e4, TERMS)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < 10_000 * 600
    for number in range(200_000):
        known.look(b"%d" % number, f"net {number % networks}", NOW + 10 + number / 1e4, TERMS)
    assert len(known.attempts.rows) <= 10_000
    assert len(known.attempts.clients) <= len(known.attempts.rows)
    assert len(known.attempts.changed) <= 20_000


# The same once more, as somebody would tell it: a list of what happened, looked through each time.


class Try(NamedTuple):
    key: bytes
    at: float
    passed: bool


class Model:
    def __init__(self) -> None:
        self.tries: list[Try] = []

    def look(self, key: bytes, now: float) -> str:
        own = [each for each in self.tries if each.key == key]
        last_pass = next((each.at for each in reversed(own) if each.passed), None)
        if last_pass is not None and now - last_pass < TERMS.lifetime:
            self.tries.append(Try(key, now, passed=True))
            return "known"
        first: float | None = None
        for each in own:
            if each.passed:
                first = None
            elif first is None or each.at - first >= TERMS.window:
                first = each.at
        finding = "greylisted"
        if first is not None and now - first < TERMS.window:
            finding = "early" if now - first < TERMS.delay else "passed"
        self.tries.append(Try(key, now, passed=finding == "passed"))
        return finding


# Not at an end to the second: what is renewed is written down a little later than it is used.
TIMES = st.sampled_from([0.0, 1.0, 149.0, 151.0, 300.0, 7000.0, 14400.0, 86400.0, 2e6, 3.2e6])


class Machine(RuleBasedStateMachine):
    """Strangers come when they like, rows are pruned when they like, and there are restarts."""

    def __init__(self) -> None:
        super().__init__()
        self.known = triplets()
        self.model = Model()
        self.now = NOW

    @rule(key=st.sampled_from([b"a", b"b", b"c"]), later=TIMES)
    def come(self, key: bytes, later: float) -> None:
        self.now += later
        found, left = self.known.look(key, "net", self.now, TERMS)
        assert found == self.model.look(key, self.now)
        assert (left > 0) == (found in ("greylisted", "early"))

    @rule(later=TIMES)
    def prune(self, later: float) -> None:
        self.now += later
        for book in (self.known.attempts, self.known.passed):
            book.prune(self.now)

    @rule()
    def restart(self) -> None:
        before, self.known = self.known, triplets()
        encode = msgspec.msgpack.encode
        for old, new in (
            (before.attempts, self.known.attempts),
            (before.passed, self.known.passed),
        ):
            new.fill((key, encode(row)) for key, row in old.rows.items() if row.until > self.now)

    @invariant()
    def those_of_a_network_are_counted(self) -> None:
        attempts = self.known.attempts
        assert sum(attempts.clients.values()) == len(attempts.rows)
        assert len(attempts.rows) < SOME


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
