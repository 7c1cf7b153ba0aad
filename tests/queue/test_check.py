from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from typing_extensions import override

from elemta.queue import Delete, Filter, Finding, Result, SpoolError, StoreReader, check
from elemta.queue.bodies import BodyFiles
from elemta.queue.check import ON_ITS_WAY, amiss, strays
from elemta.queue.ids import IdSource, key_of
from elemta.queue.reader import connect
from elemta.queue.schema import INLINE
from elemta.queue.store import database
from tests.queue.mail import CONTENT, EPOCH, envelope, hold, settle_next, virtual_queue

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

LARGE = bytes(INLINE + 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "queue"


async def filled(folder: Path) -> dict[str, str]:
    """A queue with a message of each phase, and one with a large body; closed."""
    ids: dict[str, str] = {}
    async with virtual_queue(folder) as queue:
        ids["delivered"] = await queue.accept(envelope("a@x"), CONTENT)
        await settle_next(queue, Result.DEFERRED)
        await settle_next(queue, Result.DELIVERED)
        ids["deleted"] = await queue.accept(envelope("b@x"), CONTENT)
        await queue.act(Delete(), Filter(), who="operator:root")
        ids["scattered"] = await queue.accept(envelope("c@x", "d@x"), CONTENT)
        await hold(queue, ids["scattered"])
        ids["whole"] = await queue.accept(envelope("e@x"), CONTENT)
        ids["large"] = await queue.accept(envelope("f@x"), LARGE)
    return ids


def findings(folder: Path, *statements: str) -> list[tuple[str, str]]:
    """What is found wrong once this was done to the database."""
    with closing(sqlite3.connect(folder / "queue.db", isolation_level=None)) as database:
        for statement in statements:
            database.execute(statement)
    return [(each.where, each.what) for each in check(folder, clock=lambda: EPOCH)]


async def test_a_whole_queue_has_no_findings_open_or_closed(
    folder: Path, autojump_clock: MockClock
) -> None:
    await filled(folder)
    assert check(folder) == []
    async with virtual_queue(folder):
        assert check(folder) == []


async def test_rows_that_belong_to_nobody_are_found(
    folder: Path, autojump_clock: MockClock
) -> None:
    ids = await filled(folder)
    done, whole = key_of(ids["delivered"]), key_of(ids["whole"])
    told = findings(
        folder,
        f"INSERT INTO body VALUES ({done}, 'x'), (1, 'x')",
        f"INSERT INTO recipient SELECT {whole}, number, state, due, standing FROM recipient",
        "INSERT INTO recipient VALUES (2, 0, 'ready', 1.0, x'')",
        "INSERT INTO attempt VALUES (3, 0, 1, x'c1')",
        "INSERT INTO note VALUES (7, 4, x'c1')",
    )
    strange = [f"body {done}", "body 1", f"recipient {whole}", "recipient 2", "attempt 3", "note 4"]
    assert {where for where, what in told if what == NOBODY} == set(strange)
    unreadable = {where for where, what in told if what.startswith("cannot be read")}
    assert unreadable == {"attempt 3", "note 4"}


NOBODY = "belongs to no message that has such rows"


@pytest.mark.parametrize(
    ("which", "statement", "what"),
    [
        ("whole", "UPDATE message SET recipients = 2", "1 recipients, and the row says 2"),
        ("whole", "UPDATE message SET outcome = x'90'", "of phase WHOLE, and has an outcome"),
        ("deleted", "UPDATE message SET outcome = NULL", "of phase FAILED, and has no outcome"),
        ("whole", "UPDATE body SET content = 'short'", "5 octets of body, and there should be 25"),
        ("whole", "DELETE FROM body", "its body is missing"),
        (
            "scattered",
            "DELETE FROM recipient WHERE number = 0 AND key > 0 AND key",
            "2 recipients, and rows for 1",
        ),
        (
            "scattered",
            "UPDATE recipient SET due = 5.0 WHERE number = 0 AND key",
            "recipient 0 is held, and is due",
        ),
        (
            "scattered",
            "UPDATE recipient SET state = 'deferred' WHERE number = 1 AND key",
            "recipient 1 is deferred, and never due",
        ),
        (
            "scattered",
            "UPDATE recipient SET state = 'delivered' WHERE key",
            "nothing is left to try, and it is not finished",
        ),
    ],
)
async def test_what_is_wrong_with_a_message_is_told(
    folder: Path, autojump_clock: MockClock, which: str, statement: str, what: str
) -> None:
    ids = await filled(folder)
    link = " = " if statement.endswith("key") else " WHERE key = "
    assert findings(folder, f"{statement}{link}{key_of(ids[which])}") == [(ids[which], what)]


@pytest.mark.parametrize(
    ("column", "value"), [("record", "x'c1'"), ("phase", "9"), ("outcome", "x'c1'")]
)
async def test_a_message_that_cannot_be_read_is_told_by_its_key(
    folder: Path, autojump_clock: MockClock, column: str, value: str
) -> None:
    ids = await filled(folder)
    key = key_of(ids["deleted"])
    ((where, what),) = findings(folder, f"UPDATE message SET {column} = {value} WHERE key = {key}")
    assert where == f"message {key}"
    assert what.startswith("cannot be read: ")


async def test_a_message_in_the_row_of_another_is_found(
    folder: Path, autojump_clock: MockClock
) -> None:
    ids = await filled(folder)
    large = key_of(ids["large"])
    found = findings(
        folder,
        f"UPDATE message SET record = (SELECT record FROM message WHERE key = {large})"
        f" WHERE key = {key_of(ids['deleted'])}",
    )
    assert (ids["large"], f"stands in the row of another, {key_of(ids['deleted'])}") in found


async def test_bodies_that_are_files_are_looked_at(folder: Path, autojump_clock: MockClock) -> None:
    ids = await filled(folder)
    body = folder / "bodies" / ids["large"]
    body.write_bytes(b"cut")
    assert findings(folder) == [
        (ids["large"], f"3 octets of body, and there should be {len(LARGE)}")
    ]
    body.unlink()
    assert findings(folder) == [(ids["large"], "its body is missing")]


async def test_old_files_of_nobody_are_found_and_new_ones_may_be_on_their_way_in(
    folder: Path, autojump_clock: MockClock
) -> None:
    ids = await filled(folder)
    bodies = folder / "bodies"
    new, old, done = IdSource(lambda: EPOCH)(), IdSource(lambda: EPOCH)(), ids["delivered"]
    for name, age in ((new, 0.0), (old, ON_ITS_WAY + 1), (done, ON_ITS_WAY + 1)):
        (bodies / name).write_bytes(b"left")
        os.utime(bodies / name, (EPOCH - age, EPOCH - age))
    os.utime(bodies / ids["large"], (0.0, 0.0))
    (bodies / "README").write_bytes(b"not ours")
    what = "belongs to no message that waits; the next start removes it"
    wanted = {f"bodies/{old}", f"bodies/{done}"}
    assert {where for where, told in findings(folder) if told == what} == wanted


class Vanishing(BodyFiles):
    """A file that was there a moment ago: its message is finished."""

    @override
    def ids(self) -> list[str]:
        return [IdSource(lambda: EPOCH)()]


async def test_what_goes_while_one_looks_is_no_finding(
    folder: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(folder) as queue:
        await queue.accept(envelope(), LARGE)
        with StoreReader(folder) as reader:
            messages = reader.search(Filter(), now=EPOCH)
        await settle_next(queue, Result.DELIVERED)
        files = Vanishing(folder / "bodies")
        with closing(connect(database(folder))) as connection:
            assert list(amiss(connection, files, messages)) == []
            assert list(strays(connection, files, EPOCH)) == []


async def test_a_damaged_file_is_told_and_read_no_further(
    folder: Path, autojump_clock: MockClock
) -> None:
    await filled(folder)
    path = folder / "queue.db"
    octets = bytearray(path.read_bytes())
    for start in range(8192, len(octets), 8192):
        octets[start + 100 : start + 200] = bytes(100)
        octets[start : start + 8] = b"\xff" * 8
    path.write_bytes(octets)
    found = check(folder)
    assert found
    assert {each.where for each in found} == {"queue.db"}
    assert all(isinstance(each, Finding) for each in found)


def test_where_there_is_no_queue_nothing_can_be_checked(tmp_path: Path) -> None:
    with pytest.raises(SpoolError, match="there is no queue"):
        check(tmp_path)
