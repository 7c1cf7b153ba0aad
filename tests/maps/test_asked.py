from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from elemta.maps import MapDownError
from tests.maps.sources import DOWN, Answers, Asked

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock


async def test_an_answer_is_remembered_and_so_is_that_there_is_none(
    autojump_clock: MockClock,
) -> None:
    answers = Answers(bob=("carol",))
    asked = Asked(answers)
    for _ in range(2):
        assert await asked.map.get("bob") == ("carol",)
        assert await asked.map.get("eve") is None
    assert answers.asked == ["bob", "eve"]
    await trio.sleep(11)
    await asked.map.get("bob")
    await asked.map.get("eve")
    assert answers.asked == ["bob", "eve", "eve"]
    await trio.sleep(50)
    await asked.map.get("bob")
    assert answers.asked[3:] == ["bob"]
    assert asked.counts == {"found": 2, "absent": 2, "remembered": 3}


async def test_many_who_ask_for_the_same_at_a_time_ask_once(autojump_clock: MockClock) -> None:
    answers = Answers(bob=("carol",))
    answers.seconds = 1
    asked, found = Asked(answers), []

    async def ask() -> None:
        found.append(await asked.map.get("bob"))

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(ask)
    assert found == [("carol",)] * 5
    assert answers.asked == ["bob"]
    assert asked.counts == {"found": 1, "joined": 4}


async def test_who_is_cancelled_leaves_the_question_to_who_waits(
    autojump_clock: MockClock,
) -> None:
    answers = Answers(bob=("carol",))
    answers.seconds = 2
    asked, found = Asked(answers), []

    async def give_up() -> None:
        with trio.move_on_after(1):
            await asked.map.get("bob")

    async def ask() -> None:
        await trio.sleep(0.5)
        found.append(await asked.map.get("bob"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(give_up)
        nursery.start_soon(ask)
    assert found == [("carol",)]
    assert answers.asked == ["bob", "bob"]


async def test_a_map_that_is_down_says_so_and_never_that_nobody_is_there(
    autojump_clock: MockClock, logged: Callable[[], list[str]]
) -> None:
    answers = Answers(bob=("carol",))
    answers.problem = DOWN
    asked = Asked(answers)
    with pytest.raises(MapDownError, match="the map names is down: connection refused"):
        await asked.map.get("bob")
    assert asked.map.problem == "connection refused"
    with pytest.raises(MapDownError):
        await asked.map.get("eve")
    assert answers.asked == ["bob"]  # it is left alone for a moment
    await trio.sleep(60)
    assert asked.map.problem == ""  # nobody has asked since
    with pytest.raises(MapDownError):
        await asked.map.get("eve")
    await trio.sleep(1)
    answers.problem = None
    assert await asked.map.get("bob") == ("carol",)
    assert asked.map.problem == ""
    assert asked.counts == {"down": 3, "found": 1}
    assert logged() == ["map.down", "map.up"]


async def test_a_map_that_does_not_answer_is_down(autojump_clock: MockClock) -> None:
    answers = Answers()
    answers.seconds = 60
    asked, began = Asked(answers, timeout="5 s"), trio.current_time()
    failed = []

    async def ask() -> None:
        with pytest.raises(MapDownError, match="no answer in 5 s"):
            await asked.map.get("bob")
        failed.append(trio.current_time() - began)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        nursery.start_soon(ask)
    assert failed == [pytest.approx(5), pytest.approx(5)]


async def test_a_stale_answer_counts_for_a_while(autojump_clock: MockClock) -> None:
    answers = Answers(bob=("carol",))
    asked = Asked(answers, stale="10 min")
    await asked.map.get("bob")
    await asked.map.get("eve")
    answers.problem = DOWN
    await trio.sleep(120)
    assert await asked.map.get("bob") == ("carol",)
    assert await asked.map.get("eve") is None
    await trio.sleep(600)
    with pytest.raises(MapDownError):
        await asked.map.get("bob")
    assert asked.counts["stale"] == 2


async def test_what_is_remembered_is_bounded(autojump_clock: MockClock) -> None:
    answers = Answers()
    asked = Asked(answers, entries=2)
    for key in ("a", "b", "a", "c", "a", "b"):
        await asked.map.get(key)
    assert answers.asked == ["a", "b", "c", "b"]
    asked.map.forget()
    await asked.map.get("a")
    assert answers.asked[4:] == ["a"]


async def test_a_bug_defers(autojump_clock: MockClock) -> None:
    answers = Answers()
    answers.problem = ZeroDivisionError()
    with pytest.raises(MapDownError, match="it failed: ZeroDivisionError"):
        await Asked(answers).map.get("bob")


async def test_what_is_remembered_is_known_without_waiting(autojump_clock: MockClock) -> None:
    answers = Answers(bob=("carol",))
    asked = Asked(answers, stale="1 h")
    with pytest.raises(MapDownError, match="the map names is to be asked"):
        asked.map.known("bob")
    await asked.map.get("bob", exact=True)
    await asked.map.get("eve", exact=True)
    assert (asked.map.known("bob"), asked.map.known("eve")) == (("carol",), None)
    await trio.sleep(11)
    assert asked.map.known("bob") == ("carol",)
    with pytest.raises(MapDownError):
        asked.map.known("eve")  # it may be there by now
    await trio.sleep(50)
    with pytest.raises(MapDownError):
        asked.map.known("bob")
    # A thread has none of Trio's clocks, and asks for people alone.
    assert await trio.to_thread.run_sync(asked.map.known, "bob") == ("carol",)
    answers.problem = DOWN
    assert await asked.map.get("bob") == ("carol",)
    assert asked.map.known("bob") == ("carol",)  # it is down, and that answer counts still
