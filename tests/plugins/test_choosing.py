from __future__ import annotations

import json
from typing import TYPE_CHECKING, ClassVar

import pytest
import trio
from typing_extensions import override

from elemta.plugins import (
    CONTINUE,
    Chain,
    Choosing,
    Chosen,
    Defer,
    Loaded,
    Plugin,
    Undecided,
    Verdict,
)
from elemta.plugins.choosing import PAUSE, QUIET
from elemta.protocol import Mailbox
from elemta.queue import Addressee

if TYPE_CHECKING:
    import io
    from collections.abc import Mapping, Sequence

    from trio.testing import MockClock

    from elemta.queue import Destined

BOB = Addressee(address=Mailbox("bob", "b.example"))


class Routes(Plugin):
    """Answers whatever it is told to: what is an exception is raised."""

    name = "routes"

    def __init__(self, answer: object) -> None:
        self.answer = answer
        self.asked = 0

    @override
    def on_route(self, recipient: Destined) -> Sequence[str] | None:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer  # type: ignore[return-value] # what an author might do


class Careless(Routes):
    on_error: ClassVar[Verdict | Mapping[str, Verdict]] = {"on_route": CONTINUE}


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def choosing(*plugins: Plugin, on_failure: str | None = None) -> tuple[Choosing, list[Loaded]]:
    loaded = [Loaded(each, on_failure=on_failure) for each in plugins]
    made = Choosing(Clock())
    made.chain = Chain(loaded)
    return made, loaded


def test_the_first_that_knows_says_where_it_goes() -> None:
    first, second, third = Routes(None), Routes(["smtp://192.0.2.1:25"]), Routes(["maildir"])
    choose, loaded = choosing(first, second, third)
    assert choose(BOB) == Chosen("routes", ("smtp://192.0.2.1:25",))
    assert [first.asked, second.asked, third.asked] == [1, 1, 0]
    assert [each.counts.asked for each in loaded] == [1, 1, 0]


def test_if_none_knows_it_is_for_the_configuration_to_say() -> None:
    choose, _ = choosing(Routes(None), Routes(None))
    assert choose(BOB) is None
    assert Choosing()(BOB) is None


@pytest.mark.parametrize(
    "answer",
    [
        ValueError("a bug"),
        "smtp://192.0.2.1:25",
        [],
        ["nowhere"],
        ["discard"],
        ["pipe:/bin/true"],
        ["plugin:other"],
        ["maildir", "smtp://192.0.2.1:25"],
        [25],
        25,
    ],
)
def test_what_is_no_answer_leaves_it_undecided(answer: object) -> None:
    last = Routes(["smtp://192.0.2.1:25"])
    choose, loaded = choosing(Routes(answer), last)
    assert choose(BOB) == Undecided("routes")
    assert last.asked == 0
    assert loaded[0].counts.failed == 1


@pytest.mark.parametrize(
    ("kind", "on_failure", "waits"),
    [
        (Routes, None, True),
        (Routes, "defer", True),
        (Routes, "reject", True),
        (Routes, "quarantine", True),
        (Routes, "continue", False),
        (Careless, None, False),
        (Careless, "defer", True),
    ],
)
def test_a_failure_counts_for_nothing_only_if_somebody_wants_that(
    kind: type[Routes], on_failure: str | None, waits: bool
) -> None:
    choose, _ = choosing(kind(ValueError("a bug")), on_failure=on_failure)
    assert choose(BOB) == (Undecided("routes") if waits else None)


def test_a_failure_is_logged_once_a_minute_with_how_many_were_not(lines: io.StringIO) -> None:
    clock = Clock()
    choose = Choosing(clock)
    loaded = Loaded(Routes(ValueError("a bug")))
    choose.chain = Chain([loaded])
    for _ in range(1000):
        choose(BOB)
    clock.now += QUIET
    choose(BOB)
    logged = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert [(each["plugin"], each["hook"], each["unsaid"]) for each in logged] == [
        ("routes", "on_route", 0),
        ("routes", "on_route", 999),
    ]
    assert "a bug" in logged[0]["error"]
    assert loaded.counts.failed == 1001


async def test_what_waits_is_sorted_anew_when_plugins_say_other_things_but_not_too_often(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    choose, _ = choosing(Routes(None))
    sorted_at: list[float] = []
    begin = trio.current_time()
    nursery.start_soon(choose.run, lambda: sorted_at.append(trio.current_time() - begin))
    await trio.sleep(1)
    assert sorted_at == []
    for _ in range(5):
        choose.changed()
        await trio.sleep(1)
    await trio.sleep(100)
    assert sorted_at == [pytest.approx(1), pytest.approx(1 + PAUSE)]
    choose.chain = Chain([Loaded(Defers())])
    choose.changed()
    await trio.sleep(100)
    assert len(sorted_at) == 2  # nobody routes any more


class Defers(Plugin):
    name = "defers"

    @override
    async def on_connect(self, session: object) -> Verdict:
        return Defer((7, 1), "no")
