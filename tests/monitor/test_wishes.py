from __future__ import annotations

from typing import TYPE_CHECKING

from elemta.cli.monitor.wishes import PAGE, Flush, Mode, Quit, Resume, Suspend, Wish, Wishes
from tests.monitor.world import destination

if TYPE_CHECKING:
    from elemta.queue import Destination

PLACES = [destination(f"mx:{number:02}.example") for number in range(30)]


def press(wishes: Wishes, *keys: str, places: list[Destination] = PLACES) -> Wish | None:
    """What the last of these keys comes to."""
    wish = None
    for key in keys:
        wish = wishes.press(key, places)
    return wish


def test_keys_move_in_the_list_and_stay_within_it() -> None:
    wishes = Wishes()
    assert wishes.position(PLACES) == 0
    for keys, place in (
        (("down", "j"), 2), (("up",), 1), (("k", "k", "k"), 0), (("page down",), PAGE),
        (("end",), 29), (("down",), 29), (("page up",), 29 - PAGE), (("home",), 0),
    ):  # fmt: skip
        press(wishes, *keys)
        assert wishes.position(PLACES) == place, keys


def test_the_selected_one_stays_selected_when_the_list_is_sorted_anew() -> None:
    wishes = Wishes()
    press(wishes, "down", "down")
    assert wishes.position(PLACES[::-1]) == 27
    assert wishes.position(PLACES[5:]) == 0


def test_a_deed_is_done_only_when_it_is_confirmed() -> None:
    for key, deed in (("s", Suspend("mx:01.example")), ("f", Flush("mx:01.example"))):
        wishes = Wishes()
        assert press(wishes, "down", key) is None
        assert wishes.mode is Mode.CONFIRMING
        assert "mx:01.example" in wishes.question()
        assert press(wishes, "n") is None
        assert wishes.said == "nothing was done"
        assert press(wishes, key, "y") == deed
        assert wishes.mode is Mode.LOOKING
        assert wishes.question() == ""


def test_what_was_asked_about_is_what_is_done_wherever_it_has_moved() -> None:
    wishes = Wishes()
    press(wishes, "down", "s")
    assert press(wishes, "y", places=PLACES[::-1]) == Suspend("mx:01.example")


def test_a_resumption_is_of_the_scope_that_stops_a_destination() -> None:
    places = [destination("a", suspended="domain:x"), destination("b")]
    wishes = Wishes()
    assert press(wishes, "r", places=places) is None
    assert wishes.question() == "send to domain:x again?"
    assert press(wishes, "y", places=places) == Resume("domain:x")
    press(wishes, "down", "r", places=places)
    assert (wishes.mode, wishes.said) == (Mode.LOOKING, "b is not suspended")


def test_with_no_destination_there_is_nothing_to_be_done() -> None:
    wishes = Wishes()
    assert press(wishes, "down", "s", "y", places=[]) is None
    assert wishes.mode is Mode.LOOKING


def test_a_filter_is_typed_changed_and_given_up() -> None:
    wishes = Wishes()
    press(wishes, "/", *"boq", "backspace", "b", "up", "enter")
    assert (wishes.filter, wishes.mode) == ("bob", Mode.LOOKING)
    press(wishes, "/", "x", "escape")
    assert wishes.filter == "bob"
    press(wishes, "escape")
    assert wishes.filter == ""
    assert press(wishes, "/", "q") is None  # a letter here
    assert wishes.typed == "q"


def test_the_rest_is_a_key_each() -> None:
    wishes = Wishes()
    press(wishes, "p")
    assert wishes.paused
    press(wishes, " ", "h")
    assert (wishes.paused, wishes.mode) == (False, Mode.HELP)
    assert press(wishes, "q") is None  # any key ends the help
    assert wishes.mode is Mode.LOOKING
    assert press(wishes, "x") is None
    assert press(wishes, "q") == Quit()
