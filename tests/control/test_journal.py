from __future__ import annotations

import io
import threading
from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from elemta import log as logs
from elemta.control import journal
from elemta.control.interface import RequestError
from elemta.queue import Missed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from elemta.control.facts import LogEntry

log = logs.logger("elemta.x")


@pytest.fixture(autouse=True)
def stream() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    logs.configure("json", "info", stream)
    yield stream
    logs.configure("console", "warning")


def test_the_last_events_are_told_the_newest_last() -> None:
    for number in range(5):
        log.info("happened", number=number, odd="\udc80")
    log.warning("warned")
    log.debug("not written")
    found = journal.recent("debug", 3)
    assert [(each.event, each.level) for each in found] == [
        ("happened", "info"), ("happened", "info"), ("warned", "warning"),
    ]  # fmt: skip
    assert found[0].fields == {"number": 3, "odd": "\\udc80"}
    assert found[0].logger == "elemta.x"
    assert [each.event for each in journal.recent("Warning", 1)] == ["warned"]


@pytest.mark.parametrize("level", ["", "loud", "10"])
async def test_a_level_that_is_none_is_refused_by_name(level: str) -> None:
    for ask in (
        lambda: journal.recent(level, 1),
        lambda: journal.log_level(level, "me"),
    ):
        with pytest.raises(RequestError, match="expected one of debug, info") as refused:
            ask()
        assert refused.value.place == "level"
    with pytest.raises(RequestError):
        await anext(journal.follow(level))
    assert journal.log_level(None, "me") == "info"


@pytest.mark.parametrize(("level", "written"), [("debug", 2), ("error", 1)])
def test_who_sets_the_level_is_logged_and_the_next_configuration_ends_it(
    level: str, written: int, stream: io.StringIO
) -> None:
    assert journal.log_level(level, "operator:jane") == level
    assert '"who":"operator:jane"' in stream.getvalue()
    log.debug("seen if it is debug")
    assert len(stream.getvalue().splitlines()) == written
    logs.set_level(None)
    assert journal.log_level(None, "me") == "info"


async def test_the_log_is_followed_from_now_on_from_any_thread(nursery: trio.Nursery) -> None:
    told: list[LogEntry | Missed] = []

    async def listen() -> None:
        async with aclosing(journal.follow("info")) as entries:
            told.extend([await anext(entries) for _ in range(2)])

    log.info("before")
    async with trio.open_nursery() as inner:
        inner.start_soon(listen)
        await wait_all_tasks_blocked()
        log.info("here")
        thread = threading.Thread(target=log.info, args=("in a thread",))
        thread.start()
        await trio.to_thread.run_sync(thread.join)
    log.info("after")
    assert [each.event for each in told if not isinstance(each, Missed)] == ["here", "in a thread"]


async def test_only_what_matters_enough_is_followed_and_who_is_slow_is_told() -> None:
    async with aclosing(journal.follow("warning")) as entries:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(anext, entries)
            await wait_all_tasks_blocked()
            log.info("not meant")
            log.warning("first")
        for _ in range(journal.BEHIND + 7):
            log.error("flood")
        assert await anext(entries) == Missed(7)
