from __future__ import annotations

import math

from elemta.queue import Message, Recipient, State
from elemta.queue.entry import Entry
from elemta.queue.ids import IdSource
from elemta.queue.schema import Phase
from elemta.queue.window import AHEAD, NO_KEY, Cursors, Window
from tests.queue.mail import address

new_id = IdSource(lambda: 1000.0)
ALL = Cursors(NO_KEY, (math.inf, NO_KEY))


def entry(*dues: float, phase: Phase = Phase.SCATTERED) -> Entry:
    recipients = [
        Recipient(number=i, address=address("a@x"), state=State.DEFERRED, due=due)
        for i, due in enumerate(dues)
    ]
    return Entry(
        Message(
            id=new_id(), sender=None, recipients=recipients, received_at=0, expires_at=1e9, size=1
        ),
        phase,
    )


def loaded() -> Window:
    """A window that has seen all that is on disk."""
    window = Window(limit=4)
    window.begin_load()
    window.end_load(ALL)
    return window


def test_a_new_window_wants_everything() -> None:
    window = Window()
    assert window.wants(0.0)
    assert window.next_load() == -math.inf
    assert window.begin_load() == Cursors(-1, (-math.inf, -1))


def test_one_load_at_a_time() -> None:
    window = Window()
    window.begin_load()
    assert not window.wants(0.0)
    assert window.next_load() == math.inf


def test_a_load_that_failed_is_done_again_from_where_it_began() -> None:
    window = Window()
    begin = window.begin_load()
    window.end_load(begin)
    assert window.begin_load() == begin


def test_when_all_is_in_memory_nothing_is_wanted() -> None:
    window = loaded()
    assert not window.wants(1e12)
    assert window.next_load() == math.inf


def test_what_goes_back_to_disk_is_wanted_shortly_before_it_is_due() -> None:
    window = loaded()
    far = entry(1000.0, 500.0)
    window.add(far)
    window.spill(far)
    assert window.entries == {}
    assert window.next_load() == 500.0 - AHEAD
    assert not window.wants(500.0 - AHEAD - 1)
    assert window.wants(500.0 - AHEAD)
    assert window.begin_load().due == (500.0, far.key - 1)


def test_what_nothing_is_tried_of_is_not_wanted_again() -> None:
    window = loaded()
    held = entry(0.0)
    held.message.recipients[0].state = State.HELD
    window.spill(held)
    assert not window.wants(1e12)


def test_new_mail_that_is_to_be_found_is_wanted_at_once() -> None:
    window = loaded()
    new = entry(0.0, phase=Phase.WHOLE)
    assert window.searched
    assert not window.finds(new.key)
    window.find(new.key)
    assert not window.searched
    assert window.finds(new.key)
    assert window.wants(0.0)
    assert window.begin_load().key == new.key - 1
    assert not window.finds(new.key)
    assert not window.searched


def test_what_is_spilled_during_a_load_is_not_lost() -> None:
    window = Window(limit=4)
    window.begin_load()
    late, far = entry(0.0, phase=Phase.WHOLE), entry(50.0)
    window.find(late.key)
    window.spill(far)
    window.end_load(ALL)
    assert window.begin_load() == Cursors(late.key - 1, (50.0, far.key - 1))


def test_a_full_window_is_searched_on_for_lanes_in_which_little_stands() -> None:
    window = Window(limit=4)
    first, second = entry(1.0, 1.0, 1.0), entry(1.0)
    window.add(first)
    assert not window.full
    window.add(second)
    assert window.full
    assert not window.overfull
    assert window.wants(0.0)
    window.add(entry(1.0, 1.0, 1.0, 1.0))
    assert window.overfull
    assert window.excess == 2
    assert not window.wants(0.0)
    assert window.next_load() == math.inf
    window.forget(first)
    window.forget(first)  # is no longer there
    assert not window.overfull
    window.forget(second)
    assert window.full


def test_when_lanes_are_others_everything_is_loaded_again() -> None:
    window = loaded()
    window.restart()
    assert window.begin_load() == Cursors(-1, (-math.inf, -1))


def test_a_message_rests_when_nobody_has_to_do_with_it() -> None:
    resting = entry(1000.0)
    assert resting.resting
    resting.writes = 1  # a read of the store would show it as it was before
    assert not resting.resting
    resting.writes, resting.works = 0, 1
    assert not resting.resting
