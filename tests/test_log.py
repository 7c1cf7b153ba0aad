from __future__ import annotations

import io
import json
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from typing_extensions import override

from elemta import log as logs
from elemta.log import logger

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    logs.configure("json", "info", stream)
    yield stream
    logs.configure("console", "warning")


def entries(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_a_line_of_json(stream: io.StringIO) -> None:
    logger("elemta.queue").info("message.queued", id="01J", size=4096, login=None, tls=True)
    (entry,) = entries(stream)
    stamp = entry.pop("time")
    assert isinstance(stamp, str)
    assert stamp.endswith("Z")
    assert entry == {
        "level": "info",
        "event": "message.queued",
        "logger": "elemta.queue",
        "id": "01J",
        "size": 4096,
        "login": None,
        "tls": True,
    }


def test_a_bound_field_stands_on_each_line(stream: io.StringIO) -> None:
    log = logger("x").bind(session="s1").bind(peer="192.0.2.1")
    log.info("one")
    log.error("two", session="s2")
    assert [(e["event"], e["session"], e["peer"]) for e in entries(stream)] == [
        ("one", "s1", "192.0.2.1"),
        ("two", "s2", "192.0.2.1"),
    ]


def test_what_is_below_the_level_is_not_written(stream: io.StringIO) -> None:
    log = logger("x")
    log.debug("no")
    logs.configure("json", "error", stream)
    log.info("no")
    log.warning("no")
    log.error("yes")
    logs.configure("json", "debug", stream)
    log.debug("yes")
    assert [entry["event"] for entry in entries(stream)] == ["yes", "yes"]


HOSTILE = "\r\n250 ok\x1b[2J\x7f\x9b\u2028\udc80é"


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_field_can_forge_a_line_or_move_the_cursor(stream: io.StringIO, form: str) -> None:
    logs.configure("json" if form == "json" else "console", "info", stream)
    logger("x").info("client.said", text=HOSTILE)
    text = stream.getvalue()
    assert text.endswith("\n")
    assert text[:-1].isprintable()
    assert "é" in text


def test_json_gives_back_what_was_said(stream: io.StringIO) -> None:
    logger("x").info("client.said", text='\r\n\x7f\x9b\u2028 \\ " é')
    assert entries(stream)[0]["text"] == '\r\n\x7f\x9b\u2028 \\ " é'


def test_the_console_quotes_what_would_be_read_wrongly(stream: io.StringIO) -> None:
    logs.configure("console", "info", stream)
    logger("x").info("e", a="plain", b="two words", c="", d='a"b=c', e=None, f=1.5)
    line = stream.getvalue().split(" ", 1)[1]
    assert line == 'info    e a=plain b="two words" c="" d="a\\"b=c" e=- f=1.5\n'


def test_an_exception_brings_its_traceback(stream: io.StringIO) -> None:
    def fail() -> None:
        raise KeyError("a\nb")

    for form in ("json", "console"):
        logs.configure("json" if form == "json" else "console", "info", stream)
        try:
            fail()
        except KeyError:
            logger("x").exception("session.failed", session="s1")
    machine, *people = stream.getvalue().splitlines()
    assert "KeyError" in json.loads(machine)["traceback"]
    assert people[0].endswith("error   session.failed session=s1")
    assert people[-1] == "    KeyError: 'a\\nb'"


def test_auto_is_json_unless_somebody_looks() -> None:
    stream = io.StringIO()
    logs.configure("auto", "info", stream)
    logger("x").info("e")
    assert entries(stream)[0]["event"] == "e"

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    logs.configure("auto", "info", stream)
    logger("x").info("e")
    assert stream.getvalue().endswith("info    e\n")
    logs.configure("console", "warning")


def test_standard_error_is_where_it_goes_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("console", "info")
    logger("x").info("e")
    assert capsys.readouterr().err.endswith("info    e\n")
    logs.configure("console", "warning")
    assert sys.stderr is not None


async def test_lines_are_gathered_while_the_task_runs(
    stream: io.StringIO, autojump_clock: trio.testing.MockClock
) -> None:
    log = logger("x")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(logs.run)
        await trio.testing.wait_all_tasks_blocked()
        log.info("one")
        log.info("two")
        assert stream.getvalue() == ""
        await trio.sleep(2 * logs.INTERVAL)
        assert [entry["event"] for entry in entries(stream)] == ["one", "two"]
        log.info("three")
        log.warning("four")
        assert [entry["event"] for entry in entries(stream)][2:] == ["three", "four"]
        log.info("five", text="x" * logs.BATCH)
        assert len(entries(stream)) == 5
        log.info("six")
        nursery.cancel_scope.cancel()
    assert len(entries(stream)) == 6
    log.info("seven")
    assert len(entries(stream)) == 7


def test_threads_do_not_cut_each_others_lines(stream: io.StringIO) -> None:
    def write(name: str) -> None:
        log = logger(name)
        for number in range(200):
            log.info("e", number=number, text="x" * 100)

    threads = [threading.Thread(target=write, args=(f"t{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = entries(stream)
    assert sorted((str(e["logger"]), int(str(e["number"]))) for e in found) == sorted(
        (f"t{n}", number) for n in range(4) for number in range(200)
    )


def test_a_reader_that_is_gone_stops_nothing() -> None:
    class Gone(io.StringIO):
        def write(self, text: str, /) -> int:
            raise BrokenPipeError

    logs.configure("json", "info", Gone())
    logger("x").info("e")
    logs.flush()
    logs.configure("console", "warning")


class Writes(io.StringIO):
    """Remembers each write."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []

    @override
    def write(self, text: str, /) -> int:
        self.writes.append(text)
        return super().write(text)


async def test_of_several_processes_each_writes_whole_lines_that_say_which_it_is(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    stream = Writes()
    logs.configure("json", "info", stream)
    logs.identify(node=2)
    try:
        nursery.start_soon(logs.run)
        await trio.testing.wait_all_tasks_blocked()
        for number in range(100):
            logger("elemta.test").info("x", number=number, text="ü" * 50)
        await trio.sleep(1)
    finally:
        logs.identify()
        logs.configure("console", "warning")
    assert len(stream.writes) > 1
    assert all(each.endswith("\n") and len(each.encode()) <= 4096 for each in stream.writes)
    lines = [json.loads(line) for line in "".join(stream.writes).splitlines()]
    assert [(line["node"], line["number"]) for line in lines] == [(2, n) for n in range(100)]


def test_what_was_written_is_remembered_and_what_was_not_is_not(stream: io.StringIO) -> None:
    log = logger("x")
    log.debug("below")
    log.info("kept", size=1)
    (entry,) = logs.recent(limit=1)
    assert (entry.event, entry.level, entry.logger) == ("kept", 20, "x")
    assert entry.fields == {"size": 1}
    (line,) = entries(stream)
    assert str(line["time"]).startswith(time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(entry.at)))


def test_so_many_are_remembered_and_no_more(stream: io.StringIO) -> None:
    log = logger("x")
    for number in range(logs.KEPT + 5):
        log.info("event", number=number)
    found = logs.recent()
    assert len(found) == logs.KEPT
    assert found[-1].fields == {"number": logs.KEPT + 4}
    assert logs.recent(limit=0) == []


def test_an_event_is_formatted_once_however_many_listen(stream: io.StringIO) -> None:
    heard: list[logs.Entry] = []
    with logs.listening(heard.append), logs.listening(heard.append):
        logger("x").info("one")
    logger("x").info("two")
    assert [each.event for each in heard] == ["one", "one"]
    assert heard[0] is heard[1]
    assert heard[0] in logs.recent()


def test_another_level_holds_until_the_next_configuration(stream: io.StringIO) -> None:
    log = logger("x")
    logs.set_level(logs.Level.DEBUG)
    log.debug("now")
    assert logs.level() is logs.Level.DEBUG
    logs.set_level(None)
    log.debug("no more")
    logs.set_level(logs.Level.ERROR)
    logs.configure("json", "info", stream)
    assert logs.level() is logs.Level.INFO
    assert [entry["event"] for entry in entries(stream)] == ["now"]


def test_which_process_it_was_is_remembered_too(stream: io.StringIO) -> None:
    logs.identify(node=2)
    try:
        logger("x").info("one", size=1)
    finally:
        logs.identify()
    assert logs.recent(limit=1)[0].fields == {"node": 2, "size": 1}
