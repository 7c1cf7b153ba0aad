from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar

import pytest
import trio

from elemta.files import BeingWrittenError, NothingReadError, Watched, read_file, stamps_of
from elemta.testing import at_once

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trio.testing import MockClock

T = TypeVar("T")

EVERY = 10.0


class Slow:
    """A disk that takes its time, in a thread that goes on when nobody waits any more."""

    def __init__(self, nursery: trio.Nursery, seconds: float) -> None:
        self.seconds = seconds
        self.trips = 0
        self._nursery = nursery

    async def __call__(self, call: Callable[[], T]) -> T:
        self.trips += 1
        done = trio.Event()
        found: list[T] = []

        async def work() -> None:
            await trio.sleep(self.seconds)
            found.append(call())
            done.set()

        self._nursery.start_soon(work)
        await done.wait()
        return found[0]


class Number:
    """A file with a number, and what is told of it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "number"
        self.told: list[object] = []
        self.reads = 0
        self.watched = Watched(
            (self.path, None),
            self._read,
            renewed=lambda content, problem: self.told.append((content, problem)),
            refused=lambda error: self.told.append(str(error)),
        )

    def _read(self) -> int:
        self.reads += 1
        return int(self.path.read_text())

    def write(self, text: str) -> None:
        """Another file of this name, so that it has another stamp however fast that was."""
        new = self.path.with_name("new")
        new.write_text(text)
        new.replace(self.path)


@pytest.fixture
def number(tmp_path: Path) -> Number:
    number = Number(tmp_path)
    number.write("1")
    return number


def test_stamps_differ_if_any_of_several_files_is_another_or_may_be_read_by_others(
    tmp_path: Path,
) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.touch(0o600)
    seen = [stamps_of((one, None, other))]
    assert stamps_of((one, None, other)) == seen[0]
    other.touch()
    seen.append(stamps_of((one, None, other)))
    one.chmod(0o640)
    seen.append(stamps_of((one, None, other)))
    one.unlink()
    seen.append(stamps_of((one, None, other)))
    assert len(set(seen)) == 4


def test_what_has_changed_is_read_again_and_told(number: Number) -> None:
    watched = number.watched
    assert (watched.begin(), watched.content_or(7)) == (1, 1)
    watched.look()
    assert (watched.content, number.reads, number.told) == (1, 1, [])
    number.write("2")
    watched.look()
    watched.look()
    assert (watched.content, number.reads, number.told) == (2, 2, [(2, "")])


def test_who_begins_hears_what_is_wrong(number: Number) -> None:
    number.write("x")
    with pytest.raises(ValueError, match="'x'"):
        number.watched.begin()
    with pytest.raises(NothingReadError, match="being read"):
        _ = number.watched.content
    assert number.watched.content_or(7) == 7
    assert number.told == []


def test_with_a_mistake_what_was_holds_and_that_is_told_once_until_it_changes(
    number: Number,
) -> None:
    watched = number.watched
    watched.begin()
    number.write("x")
    watched.look()
    watched.look()
    assert (watched.content, number.reads) == (1, 2)
    assert "'x'" in watched.problem
    assert len(number.told) == 1
    number.write("x")  # somebody has tried, and wants to hear that it is still wrong
    watched.look()
    assert len(number.told) == 2
    problem = watched.problem
    number.write("2")
    watched.look()
    assert (watched.content, watched.problem, number.told[2:]) == (2, "", [(2, problem)])


def test_a_disk_that_fails_is_asked_again_each_time_and_told_of_once(
    number: Number, tmp_path: Path
) -> None:
    watched = number.watched
    number.path.rename(tmp_path / "gone")
    watched.look()
    watched.look()
    assert number.reads == 2
    assert len(number.told) == 1
    with pytest.raises(NothingReadError, match="No such file"):
        _ = watched.content
    (tmp_path / "gone").rename(number.path)
    watched.look()
    assert watched.content == 1


def test_a_disk_that_fails_in_somebodys_own_words_is_asked_again_too(tmp_path: Path) -> None:
    failing = [OSError("busy")]

    def read() -> str:
        if failing:
            raise ValueError("cannot read it") from failing.pop()
        return "read"

    watched = Watched((), read)
    watched.look()
    assert watched.problem == "cannot read it"
    watched.look()
    assert watched.content == "read"


def test_what_nobody_expects_passes_through_and_is_read_again() -> None:
    failing = [LookupError("a fault of ours")]

    def read() -> str:
        if failing:
            raise failing.pop()
        return "read"

    watched = Watched((), read)
    with pytest.raises(LookupError):
        watched.look()
    watched.look()
    assert watched.content == "read"


def test_what_changes_while_it_is_read_is_read_again(number: Number) -> None:
    texts = ["3", "2"]

    def read() -> int:
        found = int(number.path.read_text())
        if texts:
            number.write(texts.pop())
        return found

    watched = Watched((number.path,), read)
    watched.begin()
    watched.look()
    assert watched.content == 2
    watched.look()
    assert watched.content == 3


async def test_who_asks_looks_now_and_then(number: Number, autojump_clock: MockClock) -> None:
    watched = number.watched
    await watched.fresh(EVERY, at_once)
    assert watched.content == 1
    number.write("2")
    await trio.sleep(EVERY - 1)
    await watched.fresh(EVERY, at_once)
    assert watched.content == 1
    await trio.sleep(1)
    await watched.fresh(EVERY, at_once)
    assert watched.content == 2


async def test_all_wait_for_what_is_read_first_and_for_nothing_later(
    number: Number, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    watched, disk = number.watched, Slow(nursery, 3)

    async def ask(wanted: int, seconds: float) -> None:
        begun = trio.current_time()
        await watched.fresh(EVERY, disk)
        assert (watched.content, trio.current_time() - begun) == (wanted, seconds)

    async with trio.open_nursery() as asking:
        for _ in range(3):
            asking.start_soon(ask, 1, 3)
    assert disk.trips == 1
    number.write("2")
    await trio.sleep(EVERY)
    async with trio.open_nursery() as asking:
        asking.start_soon(ask, 2, 3)
        await trio.sleep(1)
        await ask(1, 0)
    assert disk.trips == 2


async def test_a_slow_disk_is_not_waited_for_and_what_it_says_counts_later(
    number: Number, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    watched, disk = number.watched, Slow(nursery, EVERY * 3)
    watched.begin()
    number.write("2")
    begun = trio.current_time()
    await watched.fresh(EVERY, disk, patience=1)
    assert (watched.content, trio.current_time() - begun) == (1, 1)
    await trio.sleep(EVERY * 3)
    assert watched.content == 2


async def test_before_anything_was_read_a_slow_disk_is_told(
    number: Number, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    disk = Slow(nursery, EVERY * 3)
    for _ in range(2):
        await number.watched.fresh(EVERY, disk, patience=1)
        with pytest.raises(NothingReadError, match="for the first time"):
            _ = number.watched.content


async def test_while_one_thread_reads_no_other_does_unless_it_waits(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    inside: list[int] = []

    def read() -> int:
        inside.append(len(inside))
        watched.look()  # as another thread would, which comes meanwhile
        return len(inside)

    watched = Watched((tmp_path,), read)
    watched.look()
    assert inside == [0]
    assert watched.content == 1
    await watched.fresh(EVERY, at_once)
    watched.look(wait=True)
    assert inside == [0]


async def test_it_can_be_looked_at_all_the_time(
    number: Number, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    number.watched.begin()
    nursery.start_soon(number.watched.run, EVERY, at_once)
    number.write("2")
    await trio.sleep(EVERY - 1)
    assert number.watched.content == 1
    await trio.sleep(2)
    assert number.watched.content == 2
    os.unlink(number.path)
    await trio.sleep(EVERY * 3)
    assert len(number.told) == 2


def test_a_glance_tells_that_the_files_are_others_until_somebody_looks(number: Number) -> None:
    watched = number.watched
    watched.begin()
    watched.glance()
    assert not watched.old
    number.write("2")
    assert not watched.old
    watched.glance()
    assert (watched.old, watched.content) == (True, 1)
    watched.look()
    assert (watched.old, watched.content) == (False, 2)


def test_a_file_that_is_too_large_is_not_read_again_until_it_changes(tmp_path: Path) -> None:
    path, reads = tmp_path / "large", list[int]()
    path.write_text("12")

    def read() -> bytes:
        reads.append(1)
        return read_file(path, 1).octets

    watched = Watched((path,), read)
    watched.look()
    watched.look()
    assert "more than 1 octets" in watched.problem
    assert len(reads) == 1


def test_what_is_being_written_is_left_for_the_next_look_and_nobody_is_told(
    tmp_path: Path,
) -> None:
    (path := tmp_path / "number").write_text("1")
    told: list[object] = []
    writing = True

    def read() -> int:
        if writing:
            raise BeingWrittenError("in the middle of it")
        return int(path.read_text())

    watched = Watched(
        (path,),
        read,
        renewed=lambda *what: told.append(what),
        refused=lambda error: told.append(error),
    )
    watched.look()
    with pytest.raises(NothingReadError, match="in the middle of it"):
        _ = watched.content
    writing = False
    watched.look()
    assert watched.content == 1
    writing = True
    path.write_text("12")
    watched.look()
    assert (watched.content, watched.problem) == (1, "")
    writing = False
    watched.look()
    assert watched.content == 12
    assert told == [(1, "in the middle of it"), (12, "")]
