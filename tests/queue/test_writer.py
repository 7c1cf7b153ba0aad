from __future__ import annotations

import sqlite3
import threading
from typing import TYPE_CHECKING

import pytest
import trio
from typing_extensions import override

from elemta.queue import StoreUnavailable
from elemta.queue.operation import Call, Operation
from elemta.queue.writer import GROUP, PAUSES, InlineWriter, ThreadWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from elemta.queue.writer import Writer


class Note(Operation):
    """Writes its text, unless it is poison."""

    def __init__(self, text: str, *, keep: bool = False, urgent: bool = True) -> None:
        super().__init__()
        self.text = text
        self.keep = keep
        self.urgent = urgent


class Chained(Note):
    """Asks for another write as soon as it is durable."""

    def __init__(self, text: str, then: Callable[[], None]) -> None:
        super().__init__(text)
        self._then = then

    @override
    def written(self) -> None:
        self._then()


class Paper:
    """Takes notes. Can be full, can be made to wait, and does not like poison."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self.full = False
        self.tries = 0
        self.gate = threading.Event()
        self.gate.set()

    def apply(self, operations: Sequence[Operation]) -> None:
        self.gate.wait()
        self.tries += 1
        texts = [each.text if isinstance(each, Note) else "probe" for each in operations]
        if self.full:
            raise sqlite3.OperationalError("database or disk is full")
        if "poison" in texts:
            raise sqlite3.IntegrityError("UNIQUE constraint failed")
        self.groups.append(texts)

    @property
    def texts(self) -> list[str]:
        return [text for group in self.groups for text in group if text != "probe"]


class Pauses:
    """What lets time pass for a writer: in each pause comes what the test says, if anything."""

    def __init__(self, *come: Operation | None) -> None:
        self._come = list(come)
        self.writer: Writer | None = None

    def __call__(self, seconds: float) -> None:
        comes = self._come.pop(0) if self._come else None
        if comes is not None and self.writer is not None:
            self.writer.submit(comes)


def gathering(paper: Paper, *come: Operation | None) -> ThreadWriter:
    pauses = Pauses(*come)
    pauses.writer = writer = ThreadWriter(paper, pause=pauses)
    return writer


async def until(true: Callable[[], bool]) -> None:
    """Wait for the writer's thread."""
    with trio.fail_after(60):
        while not true():  # noqa: ASYNC110 # a thread makes it true
            await trio.sleep(0.001)


async def test_all_that_waits_becomes_one_transaction() -> None:
    paper = Paper()
    writer = ThreadWriter(paper, gather=0.0)
    paper.gate.clear()
    notes = [Note(str(number)) for number in range(10)]
    async with trio.open_nursery() as nursery:
        for note in notes:
            writer.submit(note)
            nursery.start_soon(note.wait)
        paper.gate.set()
    await writer.close()
    assert paper.texts == [str(number) for number in range(10)]
    assert len(paper.groups) <= 2


async def test_a_commit_that_gathers_takes_what_comes_meanwhile() -> None:
    paper = Paper()
    second = Note("2")
    writer = gathering(paper, second)
    writer.submit(Note("1"))
    await second.wait()
    await writer.close()
    assert paper.groups == [["1", "2"]]


async def test_a_commit_waits_for_as_many_as_met_last_time() -> None:
    paper = Paper()
    second, late = Note("2"), Note("4")
    writer = gathering(paper, second, None, None, late)
    writer.submit(Note("1"))
    await second.wait()
    writer.submit(Note("3"))  # and then there is a pause in which nobody comes
    await late.wait()
    await writer.close()
    assert paper.groups == [["1", "2"], ["3", "4"]]


async def test_a_commit_does_not_gather_for_ever() -> None:
    paper = Paper()
    notes = [Note(str(number)) for number in range(PAUSES + 9)]
    writer = gathering(paper, *notes[1:])  # one in each pause
    writer.submit(notes[0])
    await notes[0].wait()
    assert paper.groups == [[str(number) for number in range(PAUSES + 1)]]
    await writer.close()


async def test_a_group_has_a_limit() -> None:
    paper = Paper()
    paper.gate.clear()
    writer = ThreadWriter(paper)
    for number in range(GROUP * 2 + 10):
        writer.submit(Note(str(number)))
    paper.gate.set()
    await writer.close()
    assert max(map(len, paper.groups)) == GROUP
    assert len(paper.texts) == GROUP * 2 + 10


async def test_what_nobody_waits_for_waits_for_what_somebody_waits_for() -> None:
    paper = Paper()
    writer = ThreadWriter(paper, gather=0.0, linger=300.0)
    with trio.fail_after(60):
        for text in ("lazy", "lazy too"):
            writer.submit(Note(text, urgent=False))
            await trio.sleep(0.02)
        assert paper.groups == []
        urgent = Note("urgent")
        writer.submit(urgent)
        await urgent.wait()
        assert paper.groups == [["lazy", "lazy too", "urgent"]]
        writer.submit(Note("last", urgent=False))
        await writer.close()
    assert paper.texts[-1] == "last"


async def test_what_nobody_waits_for_does_not_wait_for_ever() -> None:
    paper = Paper()
    writer = ThreadWriter(paper, linger=0.01)
    writer.submit(Note("lazy", urgent=False))
    await until(lambda: paper.texts == ["lazy"])
    await writer.close()


async def test_closing_writes_what_was_submitted() -> None:
    paper = Paper()
    writer = ThreadWriter(paper)
    notes = [Note("1"), Note("2", urgent=False)]
    for note in notes:
        writer.submit(note)
    await writer.close()
    assert paper.texts == ["1", "2"]
    for note in notes:
        await note.wait()


def make(kind: str, paper: Paper) -> Writer:
    return InlineWriter(paper) if kind == "inline" else ThreadWriter(paper)


@pytest.mark.parametrize("kind", ["inline", "thread"])
async def test_a_full_disk_is_told_to_each_who_waits(kind: str) -> None:
    paper = Paper()
    writer = make(kind, paper)
    paper.full = True
    errors: list[StoreUnavailable] = []
    for note in (Note("1"), Note("2")):
        writer.submit(note)
        with pytest.raises(StoreUnavailable, match="disk is full") as raised:
            await note.wait()
        errors.append(raised.value)
        assert isinstance(raised.value.__cause__, sqlite3.OperationalError)
    assert errors[0] is not errors[1]
    assert writer.trouble == "database or disk is full"
    paper.full = False
    await writer.close()


@pytest.mark.parametrize("kind", ["inline", "thread"])
async def test_a_probe_finds_that_the_disk_is_well_again(kind: str) -> None:
    paper = Paper()
    writer = make(kind, paper)
    paper.full = True
    note = Note("1")
    writer.submit(note)
    with pytest.raises(StoreUnavailable):
        await note.wait()
    writer.retry()
    assert writer.trouble is not None
    paper.full = False
    writer.retry()
    await until(lambda: writer.trouble is None)
    assert paper.groups == [["probe"]]
    writer.retry()
    assert paper.groups == [["probe"]]
    await writer.close()


@pytest.mark.parametrize("kind", ["inline", "thread"])
async def test_what_must_be_kept_is_written_when_the_disk_is_well_again(kind: str) -> None:
    paper = Paper()
    writer = make(kind, paper)
    paper.full = True
    kept, other = Note("kept", keep=True), Note("other")
    writer.submit(kept)
    writer.submit(other)
    with pytest.raises(StoreUnavailable):
        await other.wait()
    paper.full = False
    writer.retry()
    await kept.wait()
    assert paper.texts == ["kept"]
    assert writer.trouble is None
    await writer.close()


@pytest.mark.parametrize("kind", ["inline", "thread"])
async def test_what_cannot_be_kept_at_the_end_is_not_waited_for(kind: str) -> None:
    paper = Paper()
    writer = make(kind, paper)
    paper.full = True
    writer.submit(Note("kept", keep=True))
    await until(lambda: paper.tries > 0)
    with trio.fail_after(60):
        await writer.close()
    assert paper.texts == []


async def test_who_reads_is_told_after_those_whose_writes_it_saw() -> None:
    # A load that was submitted before an insert of its group saw the message, and was told first:
    # the message then stood in memory twice, and was delivered twice.
    paper = Paper()
    told: list[str] = []
    writer = gathering(paper, Chained("insert", lambda: told.append("insert")))
    writer.submit(Call(lambda _: None, lambda: told.append("load")))
    await until(lambda: len(told) == 2)
    await writer.close()
    assert paper.groups == [["insert", "probe"]]
    assert told == ["insert", "load"]


async def test_what_must_be_kept_and_is_poison_is_trouble_until_it_is_written() -> None:
    paper = Paper()
    writer = ThreadWriter(paper, gather=0.0)
    kept = Note("poison", keep=True)
    writer.submit(kept)
    good = Note("1")
    writer.submit(good)
    await good.wait()
    await until(lambda: writer.trouble is not None)
    kept.text = "cured"
    await kept.wait()
    assert writer.trouble is None
    await writer.close()


async def test_poison_harms_nobody_else() -> None:
    paper = Paper()
    writer = ThreadWriter(paper, gather=0.02)
    good, poison, also_good = Note("1"), Note("poison"), Note("2")
    for note in (good, poison, also_good):
        writer.submit(note)
    await good.wait()
    await also_good.wait()
    with pytest.raises(StoreUnavailable, match="UNIQUE"):
        await poison.wait()
    assert paper.texts == ["1", "2"]
    assert writer.trouble is None
    await writer.close()


async def test_a_commit_on_its_way_cannot_be_called_back() -> None:
    paper = Paper()
    paper.gate.clear()
    writer = ThreadWriter(paper)
    note = Note("1")
    writer.submit(note)
    with trio.move_on_after(0.01) as scope:
        trio.lowlevel.spawn_system_task(open_later, paper.gate)
        await note.wait()
    assert not scope.cancelled_caught
    assert paper.texts == ["1"]
    await writer.close()


async def open_later(gate: threading.Event) -> None:
    await trio.sleep(0.03)
    gate.set()


async def test_who_need_not_wait_can_be_cancelled_and_it_is_written_even_so() -> None:
    paper = Paper()
    paper.gate.clear()
    writer = ThreadWriter(paper)
    note = Note("1")
    writer.submit(note)
    with trio.move_on_after(0.01) as scope:
        await note.wait(abandonable=True)
    assert scope.cancelled_caught
    paper.gate.set()
    await writer.close()
    assert paper.texts == ["1"]


async def test_the_inline_writer_writes_before_submit_returns() -> None:
    paper = Paper()
    writer = InlineWriter(paper)
    writer.submit(Note("1"))
    assert paper.texts == ["1"]
    await writer.close()


async def test_what_the_inline_writer_has_kept_follows_the_first_that_can_be_written() -> None:
    paper = Paper()
    writer = InlineWriter(paper)
    paper.full = True
    writer.submit(Note("1", keep=True))
    paper.full = False
    writer.submit(Note("2"))
    assert paper.texts == ["2", "1"]
    await writer.close()


async def test_a_write_that_asks_for_a_write_is_finished_first() -> None:
    paper = Paper()
    writer = InlineWriter(paper)
    second = Note("2")
    first = Chained("1", lambda: writer.submit(second))
    writer.submit(first)
    await second.wait()
    assert paper.groups == [["1"], ["2"]]
    await writer.close()


def test_a_thread_whose_trio_is_gone_bothers_nobody() -> None:
    paper = Paper()
    paper.gate.clear()

    async def leave() -> ThreadWriter:
        writer = ThreadWriter(paper)
        writer.submit(Note("1"))
        return writer

    writer = trio.run(leave)
    writer.submit(Note("2"))
    writer._inbox.put(None)  # what `close` says first
    paper.gate.set()
    writer._thread.join(5)
    assert not writer._thread.is_alive()
    assert paper.texts == ["1", "2"]
