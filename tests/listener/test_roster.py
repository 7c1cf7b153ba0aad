from __future__ import annotations

import resource

from elemta.listener.roster import Roster, places


class Guest:
    """Counts what it is asked."""

    def __init__(self) -> None:
        self.hurried = 0
        self.drained = 0

    def hurry(self) -> None:
        self.hurried += 1

    def drain(self) -> None:
        self.drained += 1


def test_the_last_places_make_all_hurry_once() -> None:
    roster = Roster(10)
    guests = [Guest() for _ in range(10)]
    for guest in guests[:8]:
        roster.enter(guest)
    assert not roster.busy
    roster.enter(guests[8])
    assert roster.busy
    assert [guest.hurried for guest in guests] == [1] * 9 + [0]
    roster.leave(guests[8])
    roster.enter(guests[9])  # no new alarm: one who comes and goes is not a crowd
    assert [guest.hurried for guest in guests] == [1] * 9 + [0]
    assert not roster.full
    for guest in guests[:3]:
        roster.leave(guest)
    assert not roster.busy


def test_a_full_roster_is_full() -> None:
    roster = Roster(1)
    guest = Guest()
    roster.enter(guest)
    assert roster.full
    roster.leave(guest)
    roster.leave(guest)
    assert len(roster) == 0


def test_draining_asks_all() -> None:
    roster = Roster(10)
    guests = [Guest(), Guest()]
    for guest in guests:
        roster.enter(guest)
    roster.drain()
    assert roster.draining
    assert [guest.drained for guest in guests] == [1, 1]


def test_there_are_no_more_places_than_files() -> None:
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        assert places(10, 10) == 10
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(1000, files), most))
        assert places(10**9, 1) < most
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, most))
