from __future__ import annotations

import resource
import sqlite3
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypeVar

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from typing_extensions import override

from elemta.ledger import Book, Row
from elemta.ledger.ledger import BATCH, EVERY, FILE, PRUNING, SELDOM, Ledger
from elemta.plugins.remembering import Remembering
from elemta.testing import FakeClock, some_tools
from elemta.testing.stand_ins import EPOCH

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from trio.testing import MockClock

    from elemta.plugins import Tools

T = TypeVar("T")


class Visit(Row, array_like=True):
    count: int = 1


def visits(most: int = 1000) -> Book[Visit]:
    return Book(Visit, most)


@asynccontextmanager
async def opened(
    tools: Tools, book: Book[Visit] | None = None
) -> AsyncGenerator[tuple[Ledger, Book[Visit]]]:
    ledger = tools.shared.of(Ledger)
    await ledger.open(tools)
    try:
        yield ledger, await ledger.book("visits", book or visits())
    finally:
        await ledger.close()


async def test_what_was_known_is_known_after_a_restart(tmp_path: Path) -> None:
    clock = FakeClock()
    async with opened(some_tools(folder=tmp_path, clock=clock)) as (_, book):
        book.put(b"a", Visit(clock.now + 10, 3))
        book.put(b"b", Visit(clock.now + 100))
        book.put(b"c", Visit(clock.now + 100))
        book.drop(b"c")
        book.drop(b"never there")
    clock.advance(10)
    async with opened(some_tools(folder=tmp_path, clock=clock)) as (_, book):
        assert book.rows == {b"b": Visit(clock.now + 90)}
        book.put(b"b", Visit(clock.now + 50, 2))
    async with opened(some_tools(folder=tmp_path, clock=clock)) as (_, book):
        assert book.get(b"b") == Visit(clock.now + 50, 2)
        assert book.get(b"a") is None


async def test_changes_are_written_while_it_runs(
    tmp_path: Path, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    clock = FakeClock()
    tools = some_tools(folder=tmp_path, clock=clock)
    turns: list[int] = []
    async with opened(tools) as (ledger, book):
        nursery.start_soon(ledger.run, lambda: turns.append(len(book.rows)))
        for number in range(BATCH + 1):
            book.put(b"%d" % number, Visit(clock.now + 1000))
        await trio.sleep(EVERY * 1.5)
        assert on_disk(tmp_path) == len(book.rows) > 800
        book.drop(next(iter(book.rows)))
        await trio.sleep(EVERY * 1.5)
        assert on_disk(tmp_path) == len(book.rows)
        assert len(turns) == 2
        nursery.cancel_scope.cancel()


async def test_what_means_nothing_any_more_goes(
    tmp_path: Path, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    class Told(Book[Visit]):
        over = 0

        @override
        def expired(self, row: Visit) -> None:
            self.over += row.count

    clock = FakeClock()
    book = Told(Visit, 10)
    async with opened(some_tools(folder=tmp_path, clock=clock), book) as (ledger, _):
        nursery.start_soon(ledger.run)
        await trio.testing.wait_all_tasks_blocked()
        book.put(b"a", Visit(clock.now + 59, 7))
        book.put(b"b", Visit(clock.now + 61))
        clock.advance(60)
        await trio.sleep(PRUNING + 2 * EVERY)
        assert set(book.rows) == {b"b"}
        assert book.over == 7
        assert on_disk(tmp_path) == 1
        nursery.cancel_scope.cancel()


async def test_who_has_nothing_to_do_sleeps_for_long(
    tmp_path: Path, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    turns: list[float] = []
    tools = some_tools(folder=tmp_path, clock=lambda: EPOCH + trio.current_time())
    async with opened(tools) as (ledger, book):
        nursery.start_soon(ledger.run, lambda: turns.append(trio.current_time()))
        book.put(b"a", Visit(EPOCH + 10 * 86400))
        await trio.sleep(9 * 86400)
        assert len(turns) < 9 * 24 + 5
        book.put(b"b", Visit(EPOCH + 20 * 86400))
        await trio.sleep(1.5 * EVERY)
        assert on_disk(tmp_path) == 2
        await trio.sleep(86400 + SELDOM)
        assert set(book.rows) == {b"b"}
        nursery.cancel_scope.cancel()


async def test_a_clock_that_is_set_forth_is_noticed(
    tmp_path: Path, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    clock = FakeClock()
    async with opened(some_tools(folder=tmp_path, clock=clock)) as (ledger, book):
        nursery.start_soon(ledger.run)
        book.put(b"a", Visit(clock.now + 30 * 86400))
        await trio.sleep(200)
        clock.advance(31 * 86400)
        await trio.sleep(SELDOM)
        assert not book.rows
        nursery.cancel_scope.cancel()


async def test_a_smaller_bound_holds_for_what_is_on_disk(tmp_path: Path) -> None:
    clock = FakeClock()
    async with opened(some_tools(folder=tmp_path, clock=clock)) as (_, book):
        for number in range(100):
            book.put(b"%d" % number, Visit(clock.now + 1 + number))
    async with opened(some_tools(folder=tmp_path, clock=clock), visits(10)) as (_, book):
        assert sorted(row.until - clock.now for row in book.rows.values()) == [*range(91, 101)]
        assert on_disk(tmp_path) == 10


async def test_entries_of_one_name_share_it_and_the_last_one_closes_it(tmp_path: Path) -> None:
    tools = some_tools(folder=tmp_path)
    now = tools.clock()
    async with opened(tools) as (_, one):
        async with opened(tools, visits(50)) as (_, other):
            assert other is one
            assert one.most == 50
            other.put(b"a", Visit(now + 10))
        one.put(b"b", Visit(now + 10))
    assert on_disk(tmp_path) == 2
    async with opened(tools) as (_, again):
        assert set(again.rows) == {b"a", b"b"}


async def test_closing_what_was_never_opened_does_nothing() -> None:
    await Ledger().close()


@pytest.mark.parametrize(
    "octets", [b"this is no database" * 1000, b"SQLite format 3\0" + b"x" * 9999]
)
async def test_a_file_that_cannot_be_read_is_put_aside(octets: bytes, tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(octets)
    async with opened(some_tools(folder=tmp_path)) as (ledger, book):
        assert not book.rows
        assert not ledger.failure
        book.put(b"a", Visit(some_tools().clock() + 10))
    assert (tmp_path / f"{FILE}.unreadable").read_bytes() == octets
    assert on_disk(tmp_path) == 1


async def test_a_damaged_page_is_found_at_the_start(tmp_path: Path) -> None:
    now = some_tools().clock()
    async with opened(some_tools(folder=tmp_path)) as (_, book):
        for number in range(1000):
            book.put(b"%d" % number, Visit(now + 1000))
    octets = bytearray((tmp_path / FILE).read_bytes())
    octets[8192:16384] = b"\xff" * 8192
    (tmp_path / FILE).write_bytes(octets)
    async with opened(some_tools(folder=tmp_path)) as (_, book):
        assert not book.rows
    assert (tmp_path / f"{FILE}.unreadable").exists()


async def test_a_file_of_a_later_version_is_put_aside(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    async with opened(some_tools(folder=tmp_path)):
        pass
    assert (tmp_path / f"{FILE}.unreadable").exists()


async def test_a_row_that_another_version_wrote_is_passed_over(tmp_path: Path) -> None:
    now = some_tools().clock()
    async with opened(some_tools(folder=tmp_path)) as (_, book):
        book.put(b"a", Visit(now + 10))
        book.put(b"b", Visit(now + 10))
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.execute("UPDATE rows SET row = x'c0' WHERE key = x'61'")
    connection.close()
    async with opened(some_tools(folder=tmp_path)) as (_, book):
        assert set(book.rows) == {b"b"}


async def test_a_file_that_somebody_else_is_just_making_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("CREATE TABLE made (x)")

    def sleep(_seconds: float) -> None:
        if other.in_transaction:
            other.execute("COMMIT")

    monkeypatch.setattr("elemta.ledger.file.sleep", sleep)
    async with opened(some_tools(folder=tmp_path)) as (ledger, _):
        assert not ledger.failure
    other.close()


async def test_a_folder_that_must_not_be_written_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        async with opened(some_tools(folder=tmp_path)):
            pass


async def test_on_a_failing_disk_all_goes_on_in_memory(
    tmp_path: Path, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    clock = FakeClock()
    tools = some_tools(folder=tmp_path, clock=clock)
    async with opened(tools) as (ledger, book):
        nursery.start_soon(ledger.run)
        other = sqlite3.connect(tmp_path / FILE)
        other.execute("ALTER TABLE rows RENAME TO lost")  # so nothing can be written
        book.put(b"a", Visit(clock.now + 10))
        await trio.sleep(EVERY * 1.5)
        assert ledger.failure
        assert set(book.rows) == {b"a"}
        other.execute("ALTER TABLE lost RENAME TO rows")
        other.close()
        await trio.sleep(10)
        assert not ledger.failure
        assert on_disk(tmp_path) == 1
        nursery.cancel_scope.cancel()


async def test_who_is_cancelled_while_it_writes_writes_it_again(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    hanging = False

    async def in_thread(call: Callable[[], T]) -> T:
        if hanging:
            await trio.sleep_forever()
        return call()

    tools = replace(some_tools(folder=tmp_path), in_thread=in_thread)
    async with opened(tools) as (ledger, book):
        hanging = True
        book.put(b"a", Visit(tools.clock() + 10))
        with trio.move_on_after(10 * EVERY):
            await ledger.run()
        assert book.changed == {b"a"}
        hanging = False
    assert on_disk(tmp_path) == 1


async def test_a_full_disk_does_not_keep_it_from_starting(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    tools = some_tools(folder=tmp_path)
    ledger = tools.shared.of(Ledger)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        await ledger.open(tools)
        book = await ledger.book("visits", visits())
        failure = ledger.failure
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert failure
    book.put(b"a", Visit(tools.clock() + 10))
    with trio.move_on_after(1.5 * EVERY):
        await ledger.run()
    assert not ledger.failure
    await ledger.close()
    assert on_disk(tmp_path) == 1


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "put", "drop", "write", "restart", "later"]),
        st.integers(0, 9),
        st.integers(1, 100),
    ),
    max_size=40,
)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(STEPS)
async def test_memory_and_disk_know_the_same_whatever_happens(
    steps: list[tuple[str, int, int]],
) -> None:
    clock, model = FakeClock(), dict[bytes, Visit]()
    with TemporaryDirectory() as folder:
        place = Path(folder)
        tools = some_tools(folder=place, clock=clock)
        ledger, book = await begun(tools)
        for what, number, seconds in steps:
            key = b"%d" % number
            match what:
                case "put":
                    model[key] = Visit(clock.now + seconds, number)
                    book.put(key, Visit(clock.now + seconds, number))
                case "drop":
                    model.pop(key, None)
                    book.drop(key)
                case "later":
                    clock.advance(seconds)
                    book.prune(clock.now)
                case "write":
                    await ledger.write()
                    assert not book.changed
                    assert on_disk(place) >= len(book.rows)
                case _:
                    await ledger.close()
                    ledger, book = await begun(tools)
            model = {key: row for key, row in model.items() if row.until > clock.now}
            assert book.rows == model
        await ledger.close()


async def begun(tools: Tools) -> tuple[Ledger, Book[Visit]]:
    ledger = Ledger()
    await ledger.open(tools)
    return ledger, await ledger.book("visits", visits())


def on_disk(folder: Path) -> int:
    connection = sqlite3.connect(folder / FILE)
    try:
        (count,) = connection.execute("SELECT count(*) FROM rows").fetchone()
    finally:
        connection.close()
    return int(count)


async def test_a_plugin_that_cannot_open_its_books_leaves_the_ledger(tmp_path: Path) -> None:
    class Forgetful(Remembering):
        name = "forgetful"

        @override
        async def remember(self, ledger: Ledger) -> None:
            raise OSError("no such book")

    plugin = Forgetful()
    plugin.tools = some_tools("forgetful", folder=tmp_path)
    with pytest.raises(OSError, match="no such book"):
        await plugin.start()
    await plugin.stop()
    assert plugin.tools.shared.of(Ledger)._file is None
