from __future__ import annotations

import os
import sqlite3
import stat
from typing import TYPE_CHECKING

import pytest

from elemta.config import Logins, Network
from elemta.ledger import FILE
from elemta.login import Guesses, Locked, ScramVerifier
from elemta.login.guesses import MOST
from elemta.testing import FakeClock, at_once
from elemta.testing.stand_ins import EPOCH

if TYPE_CHECKING:
    from pathlib import Path

HOME, OFFICE, STRANGER = "192.0.2.1", "192.0.2.2", "198.51.100.9"
HOUR, DAY = 3600.0, 86400.0
RULES = Logins()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def guesses(clock: FakeClock) -> Guesses:
    return Guesses(RULES, clock, bytes(32))


def why(guesses: Guesses, address: str, user: str = "ann") -> str:
    found = guesses.locked(address, user)
    return "" if found is None else found.why


def wrong(guesses: Guesses, address: str, user: str = "ann", times: int = 1) -> None:
    for _ in range(times):
        guesses.wrong(address, user)


def strangers(count: int) -> list[str]:
    return [f"198.51.{number // 250}.{number % 250}" for number in range(count)]


# One account at one network.


def test_whoever_is_wrong_again_and_again_waits_twice_as_long_each_time(
    guesses: Guesses, clock: FakeClock
) -> None:
    wrong(guesses, HOME, times=4)
    assert why(guesses, HOME) == ""
    for minutes in (1, 2, 4, 8, 16, 32, 60, 60):
        wrong(guesses, HOME)
        assert guesses.locked(HOME, "ann") == Locked("tries", clock.now + 60 * minutes)
        clock.advance(60 * minutes)
        assert why(guesses, HOME) == ""


def test_who_is_right_begins_anew(guesses: Guesses) -> None:
    wrong(guesses, HOME, times=4)
    guesses.right(HOME, "ann")
    wrong(guesses, HOME, times=4)
    assert why(guesses, HOME) == ""
    wrong(guesses, HOME)
    assert why(guesses, HOME) == "tries"


def test_what_was_wrong_yesterday_is_forgotten(guesses: Guesses, clock: FakeClock) -> None:
    wrong(guesses, HOME, times=4)
    clock.advance(DAY + 1)
    wrong(guesses, HOME)
    assert why(guesses, HOME) == ""


def test_a_name_is_the_same_however_it_is_written(guesses: Guesses) -> None:
    for user in ("ann", "Ann", "ANN", "aNN", "anN"):
        guesses.wrong(HOME, user)
    assert why(guesses, HOME, "ann") == "tries"


def test_the_same_wrong_password_is_one_guess(guesses: Guesses) -> None:
    for _ in range(100):
        guesses.wrong(HOME, "ann", "of last year")
    assert why(guesses, HOME) == ""
    for number in range(4):
        guesses.wrong(HOME, "ann", f"guess {number}")
    assert why(guesses, HOME) == "tries"


def test_of_a_password_next_to_nothing_is_kept(guesses: Guesses) -> None:
    guesses.wrong(HOME, "ann", "secret")
    (row,) = guesses._pairs.rows.values()  # what a thief of the file would have
    assert [len(each) for each in row.said] == [4]


# A network.


def test_a_network_that_tries_many_names_waits(guesses: Guesses, clock: FakeClock) -> None:
    for number in range(20):
        assert why(guesses, STRANGER, "zoe") == ""
        guesses.wrong(STRANGER, f"user{number}")
    assert guesses.locked(STRANGER, "zoe") == Locked("network", clock.now + 180)
    assert guesses.locked(STRANGER, "") == Locked("network", clock.now + 180)
    assert why(guesses, OFFICE, "zoe") == ""
    clock.advance(181)
    assert why(guesses, STRANGER, "zoe") == ""
    guesses.wrong(STRANGER, "zoe")
    assert why(guesses, STRANGER, "zed") == "network"


def test_a_network_that_goes_on_is_banned(guesses: Guesses, clock: FakeClock) -> None:
    number = 0
    began = clock.now
    while why(guesses, STRANGER, "zoe") != "banned":
        if why(guesses, STRANGER, "zoe") == "network":
            clock.advance(180)
        else:
            guesses.wrong(STRANGER, f"user{number}")
            number += 1
    assert 100 <= number <= 130
    assert clock.now - began < 8 * HOUR
    clock.advance(DAY - 1)
    assert why(guesses, STRANGER, "zoe") == "banned"
    clock.advance(2)
    assert why(guesses, STRANGER, "zoe") == ""


def test_a_network_of_ipv6_is_as_large_as_one_customer_has(guesses: Guesses) -> None:
    for number in range(20):
        guesses.wrong(f"2001:db8::{number:x}", f"user{number}")
    assert why(guesses, "2001:db8::ffff", "zoe") == "network"
    assert why(guesses, "2001:db8:0:1::1", "zoe") == ""


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", ""])
def test_one_of_many_behind_one_address_locks_out_himself_alone(
    address: str, guesses: Guesses
) -> None:
    for number in range(200):
        guesses.wrong(address, f"user{number}")
    assert why(guesses, address, "zoe") == ""
    wrong(guesses, address, times=5)
    assert why(guesses, address) == "tries"


def test_nobody_is_shared_where_nothing_is_said_of_it(clock: FakeClock) -> None:
    guesses = Guesses(Logins(shared=[]), clock)
    for number in range(20):
        guesses.wrong("127.0.0.1", f"user{number}")
    assert why(guesses, "127.0.0.1", "zoe") == "network"


def test_a_token_that_names_nobody_counts_for_its_network(guesses: Guesses) -> None:
    for number in range(20):
        guesses.wrong(STRANGER, "", f"token {number}")
    assert why(guesses, STRANGER, "") == "network"
    guesses.right(OFFICE, "")
    assert why(guesses, OFFICE, "") == ""


# An account, and its owner.


def test_an_account_is_guarded_against_many_networks(guesses: Guesses, clock: FakeClock) -> None:
    for address in strangers(20):
        guesses.wrong(address, "ann")
    assert guesses.locked("203.0.113.1", "ann") == Locked("account", clock.now + 180)
    assert why(guesses, "203.0.113.1", "bob") == ""


def test_outsiders_cannot_lock_an_owner_out_of_his_own_network(
    guesses: Guesses, clock: FakeClock
) -> None:
    guesses.right(HOME, "ann")
    for address in strangers(2000):
        guesses.wrong(address, "ann")
        clock.advance(10)
    assert why(guesses, "203.0.113.1") == "account"
    assert why(guesses, HOME) == ""
    # Nor can who shares the network with him.
    for number in range(200):
        guesses.wrong(HOME, f"user{number}")
    assert why(guesses, HOME, "zoe") == "banned"
    assert why(guesses, HOME) == ""
    # What he does wrong himself is his own.
    wrong(guesses, HOME, times=5)
    assert why(guesses, HOME) == "tries"


def test_home_is_where_he_has_been_of_late(guesses: Guesses, clock: FakeClock) -> None:
    guesses.right(HOME, "ann")
    clock.advance(29 * DAY)
    for address in strangers(20):
        guesses.wrong(address, "ann")
    assert why(guesses, HOME) == ""
    clock.advance(DAY)
    for address in strangers(20):
        guesses.wrong(address, "ann")
    assert why(guesses, HOME) == "account"


def test_to_be_right_somewhere_is_no_licence_for_others(guesses: Guesses) -> None:
    guesses.right(STRANGER, "eve")
    for number in range(30):
        guesses.wrong(STRANGER, f"user{number}")
    assert why(guesses, STRANGER, "ann") == "network"


def test_strangers_cannot_push_out_where_owners_are_at_home(
    guesses: Guesses, clock: FakeClock
) -> None:
    guesses.right(HOME, "ann")
    for number in range(MOST + 1000):
        guesses.wrong(f"2001:db8:{number >> 16:x}:{number & 0xFFFF:x}::1", f"user{number}")
    assert len(guesses._networks.rows) <= MOST  # that memory is bounded
    assert len(guesses._pairs.rows) <= MOST
    for address in strangers(20):
        guesses.wrong(address, "ann")
    assert why(guesses, HOME) == ""


def test_other_rules_hold_at_once(guesses: Guesses) -> None:
    for number in range(20):
        guesses.wrong(STRANGER, f"user{number}")
    guesses.configure(Logins(shared=[Network.parse("198.51.100.0/24")]))
    assert why(guesses, STRANGER, "zoe") == ""


# Over restarts.


async def test_what_was_wrong_is_known_after_a_restart(tmp_path: Path, clock: FakeClock) -> None:
    folder, secret = tmp_path / "node" / "login", tmp_path / "login" / "secret"
    before = Guesses(RULES, clock)
    await before.open(folder, secret)
    before.right(HOME, "bob")
    before.wrong(HOME, "ann", "old")
    wrong(before, HOME, times=4)
    for address in strangers(20):
        before.wrong(address, "bob")
    shown = before.pretended("nobody")
    await before.close()
    after = Guesses(RULES, clock)
    await after.open(folder, secret, at_once)
    assert why(after, HOME) == "tries"
    assert why(after, HOME, "bob") == ""
    assert why(after, "203.0.113.1", "bob") == "account"
    assert after.pretended("nobody") == shown
    await after.close()
    assert stat.S_IMODE(os.stat(secret).st_mode) == 0o600
    assert os.listdir(secret.parent) == ["secret"]
    assert (folder / FILE).exists()


async def test_a_file_that_must_not_be_read_keeps_the_server_from_starting(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"short")
    guesses = Guesses(RULES, FakeClock())
    with pytest.raises(OSError, match="no secret"):
        await guesses.open(tmp_path, tmp_path / "secret")
    (tmp_path / "secret").unlink()
    (tmp_path / FILE).mkdir()
    with pytest.raises((OSError, sqlite3.Error)):
        await guesses.open(tmp_path, tmp_path / "secret")
    await guesses.close()


def test_one_account_with_many_networks_pushes_nobody_out_of_his_home(
    guesses: Guesses, clock: FakeClock
) -> None:
    guesses.right(HOME, "ann")
    clock.now += HOUR
    for number in range(MOST + 1):
        guesses.right(f"2001:db8:0:{number:x}::1", "eve")
    for address in strangers(20):
        guesses.wrong(address, "ann")
    assert why(guesses, STRANGER) == "account"
    assert why(guesses, HOME) == ""


def test_a_traveller_is_at_home_at_fifty_networks_a_day(guesses: Guesses, clock: FakeClock) -> None:
    wrong(guesses, "192.0.2.50", times=5)
    for number in range(51):
        guesses.right(f"192.0.2.{number}", "ann")
    assert why(guesses, "192.0.2.50") == ""
    guesses.right("192.0.2.0", "ann")
    for address in strangers(20):
        guesses.wrong(address, "ann")
    assert [why(guesses, f"192.0.2.{number}") for number in (0, 49, 50)] == ["", "", "account"]
    clock.now += HOUR
    guesses.right("192.0.2.50", "ann")
    for address in strangers(20):
        guesses.wrong(address, "ann")
    assert [why(guesses, f"192.0.2.{number}") for number in (50, 51)] == ["", "account"]


# Users whom nobody knows.


def test_who_is_unknown_has_what_looks_like_a_verifier_always_the_same(guesses: Guesses) -> None:
    real, fake = ScramVerifier.of("x"), guesses.pretended("nobody")
    assert (fake.iterations, len(fake.salt)) == (real.iterations, len(real.salt))
    assert fake == guesses.pretended("nobody")
    assert fake != guesses.pretended("nobody else")
    assert fake.salt != Guesses(RULES, FakeClock()).pretended("nobody").salt


@pytest.mark.parametrize("written", ["NoBody", "\uff4eobody", "\u1d3aobody"])
def test_who_is_unknown_is_the_same_however_his_name_is_written(
    guesses: Guesses, written: str
) -> None:
    # As somebody whom a plugin knows is: else two ways to write a name tell whether it is known.
    assert guesses.pretended(written) == guesses.pretended("nobody")


@pytest.mark.parametrize("written", ["ANN", "\uff41nn", "\u1d2cnn", "\u1d2c\u1d3a\u1d3a"])
def test_another_way_to_write_a_name_gives_no_further_tries(guesses: Guesses, written: str) -> None:
    wrong(guesses, STRANGER, times=5)
    assert why(guesses, STRANGER, written) == "tries"


def test_what_no_plugin_takes_for_a_name_has_its_tries_too(guesses: Guesses) -> None:
    wrong(guesses, STRANGER, "two words", times=5)
    assert why(guesses, STRANGER, "Two Words") == "tries"
    assert guesses.pretended("two words") == guesses.pretended("two words")


def test_time_that_goes_back_frees_nobody_for_long(guesses: Guesses, clock: FakeClock) -> None:
    wrong(guesses, HOME, times=5)
    clock.now = EPOCH - DAY
    guesses.wrong(HOME, "ann")
    assert why(guesses, HOME) == "tries"


def test_who_has_many_networks_of_ipv6_has_ten_times_the_guesses_and_no_more(
    guesses: Guesses, clock: FakeClock
) -> None:
    guesses.right("2001:db8:0:ffff::1", "ann")
    tries = 0
    while why(guesses, f"2001:db8:0:{tries:x}::1", f"user{tries}") == "" and tries < 1000:
        guesses.wrong(f"2001:db8:0:{tries:x}::1", f"user{tries}", "guess")
        tries += 1
    assert tries == 10 * RULES.failures.count
    assert why(guesses, "2001:db8:0:ffff::1") == "", "who is at home there is not held to account"
    assert why(guesses, "2001:db8:1::1", "zoe") == ""
    clock.advance(RULES.failures.seconds / tries)
    assert why(guesses, "2001:db8:0:ff::1", "zoe") == ""
