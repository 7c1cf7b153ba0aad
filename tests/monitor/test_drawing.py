from __future__ import annotations

import pytest
from rich.cells import cell_len

from elemta.cli.monitor.drawing import PLAIN_BARS, report, screen
from elemta.cli.monitor.model import EVENTS, LOOKING, Model
from elemta.cli.monitor.wishes import Wishes
from elemta.queue import Missed
from tests.monitor.world import NOW, delivered, destination, status


def model(places: int = 3) -> Model:
    known = Model(lambda: 0.0)
    known.regain(EVENTS)
    found = [destination(f"mx:{number}.example", ready=places - number) for number in range(places)]
    known.look(status(NOW), [])
    known.look(status(NOW + 1, Queued=50, Delivered=25), [])
    known.look(status(NOW + 2, Queued=60, Delivered=25), found)
    return known


def drawn(
    known: Model, wishes: Wishes | None = None, size: tuple[int, int] = (80, 24), **more: str
) -> list[str]:
    wishes = wishes or Wishes()
    events = known.lines(wishes.filter, 100)
    return [line.plain.rstrip() for line in screen(known, wishes, events, size, **more)]


def test_a_screen_shows_how_the_server_is() -> None:
    known = model()
    known.hear(delivered(1))
    shown = drawn(known)
    assert shown[0].startswith("elemta 1.2  mx.example  up 2h")
    assert shown[1] == "all is well; 3 of 100 clients"
    assert shown[2].split() == ["in", "10/s", "█▂", "ready", "1"]
    assert shown[3].split() == ["delivered", "0/s", "▄", "deferred", "5"]
    assert shown[4].split() == ["deferred", "0/s", "held", "2"]
    assert shown[5].split() == ["failed", "0/s", "oldest", "1min"]
    assert shown[8].split() == ["mx:0.example", "3", "0", "0", "-"]
    assert shown[12] == "EVENTS"
    assert "Delivered id=" in shown[13]
    assert shown[-1].endswith("q quit")


@pytest.mark.parametrize("size", [(80, 24), (200, 60), (100, 12), (40, 24), (20, 5), (1, 1)])
def test_a_screen_has_the_size_of_its_terminal(size: tuple[int, int]) -> None:
    known = model(places=40)
    for number in range(100):
        known.hear(delivered(number, "a 世界 of wide signs " * 5))
    for keys in ((), ("h",), ("s",), ("/",)):
        wishes = Wishes()
        for key in keys:
            wishes.press(key, known.destinations)
        lines = screen(known, wishes, known.lines("", 100), size)
        assert len(lines) == size[1]
        assert max(cell_len(line.plain) for line in lines) <= size[0]


def test_the_newest_events_are_at_the_bottom_and_the_selected_destination_is_in_sight() -> None:
    known, wishes = model(places=40), Wishes()
    for number in range(100):
        known.hear(delivered(number, f"answer-{number}"))
    wishes.press("end", known.destinations)
    lines = screen(known, wishes, known.lines("", 100), (150, 24))
    assert "answer-99" in lines[-2].plain
    chosen = [line for line in lines if line.spans and line.spans[-1].style == "reverse"]
    assert [line.plain.split()[0] for line in chosen] == ["mx:39.example"]


def test_trouble_is_in_the_second_line() -> None:
    known = model()
    known.lose(LOOKING, "the server is down", 4.0)
    assert drawn(known)[1] == "DISCONNECTED, next try in 4 s: the server is down"
    assert drawn(Model(lambda: 0.0))[1] == "connecting …"
    known = model()
    known.look(status(NOW + 3), [], ["all", "domain:x"])
    assert drawn(known)[1] == "suspended: all, domain:x; 3 of 100 clients"


def test_what_a_peer_said_moves_no_cursor() -> None:
    known = model()
    known.look(status(NOW + 3), [destination("mx:x", error="\x1b[2J\x9bH")])
    known.hear(delivered(1, "fine"))
    assert all(line.isprintable() for line in drawn(known))


def test_what_is_wanted_is_shown() -> None:
    known, wishes = model(), Wishes()
    known.hear(Missed(4))
    known.hear(delivered(1))
    for key in ("/", *"delivered", "enter", "p", "s"):
        wishes.press(key, known.destinations)
    shown = drawn(known, wishes, size=(100, 24))
    assert "EVENTS  with 'delivered'  standing still  4 events missed" in shown
    assert shown[-1] == "send nothing to mx:0.example, until it is resumed? (y/n)"


def test_a_terminal_that_knows_no_bars_gets_other_signs() -> None:
    shown = drawn(model(), bars=PLAIN_BARS)
    assert shown[2].split() == ["in", "10/s", "%:", "ready", "1"]


def test_a_report_has_all_destinations_and_nothing_to_press() -> None:
    lines = [line.plain.rstrip() for line in report(model(places=50), 100)]
    assert len(lines) == 8 + 50
    assert lines[-1].startswith("mx:49.example")
    nothing = [line.plain for line in report(model(places=0), 100)]
    assert nothing[-1] == "nothing waits, and nothing is under way"
