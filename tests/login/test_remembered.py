from __future__ import annotations

import gc

from elemta.login import Remembered
from elemta.testing import FakeClock


def test_what_was_right_is_known_for_a_while() -> None:
    clock = FakeClock()
    known: Remembered[int] = Remembered(300, clock)
    assert known.recall("bob", "horse") is None
    known.keep(7, "bob", "horse")
    clock.advance(299)
    assert known.recall("bob", "horse") == 7
    assert known.recall("bob", "house") is None
    assert known.recall("bobh", "orse") is None
    clock.advance(1)
    assert known.recall("bob", "horse") is None
    assert len(known) == 0


def test_it_can_be_switched_off_and_forgotten() -> None:
    off: Remembered[int] = Remembered(0, FakeClock())
    off.keep(7, "bob")
    assert off.recall("bob") is None
    known: Remembered[int] = Remembered(300, FakeClock())
    known.keep(7, "bob")
    known.forget()
    assert known.recall("bob") is None


def test_who_was_not_seen_for_longest_makes_room() -> None:
    known: Remembered[int] = Remembered(300, FakeClock(), most=2)
    known.keep(1, "ann")
    known.keep(2, "bob")
    assert known.recall("ann") == 1
    known.keep(3, "eve")
    assert [known.recall(each) for each in ("ann", "bob", "eve")] == [1, None, 3]


def test_no_password_stays_in_memory() -> None:
    known: Remembered[int] = Remembered(300, FakeClock())
    known.keep(7, "bob", "".join(("corr", "ect horse")))
    held = list(gc.get_referents(known._known, *known._known.values()))
    assert not any("horse" in repr(each) for each in held)
