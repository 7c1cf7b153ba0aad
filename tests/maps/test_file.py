from __future__ import annotations

import contextlib
import io
import itertools
import os
import threading
from typing import TYPE_CHECKING, BinaryIO, Final, TypeVar

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from elemta.maps import MapDownError, lines
from elemta.maps.file import File
from elemta.maps.lines import Content, LineError, RetiredError, read_content
from elemta.maps.source import values_of
from elemta.testing import at_once

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trio.testing import MockClock

T = TypeVar("T")

TEXT = """\
# Who gets what.
Bob@Example.org   bob@example.net, "carol, s"@example.com
postmaster: bob,
    carol
  # not a line
@münchen.example  all

"Eve x"@example.org: eve
bob@[192.0.2.1] bob
"Eve" : x
"""


def rest() -> None:
    pass


def content_of(octets: str | bytes) -> dict[str, tuple[str, ...]]:
    """All that is in a file."""
    octets = octets if isinstance(octets, bytes) else octets.encode("utf-8", "surrogatepass")
    content = read_content(io.BytesIO(octets), rest)
    return {key: content.get(key) or () for shard in content._shards for key in shard}


def test_lines_have_a_key_and_values() -> None:
    assert content_of(TEXT) == {
        "bob@example.org": ("bob@example.net", '"carol, s"@example.com'),
        "postmaster": ("bob", "carol"),
        "@xn--mnchen-3ya.example": ("all",),
        '"eve x"@example.org': ("eve",),
        "bob@[192.0.2.1]": ("bob",),
        "eve": ("x",),
    }


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("bob bob\neve\n", "line 2: expected a key and its values, not 'eve'"),
        ("\n bob\n", "line 2: it goes on with a line that is not there"),
        ("a b\nA: c\n", "line 2: 'a' is there already"),
        ("a@ b\n", "line 1: 'a@' is no key: no domain"),
        ("a |/bin/vacation\n", "line 1: files and programs get no mail by a map: '|/bin/vacation'"),
        ("a: :include:/x\n", "line 1: files and programs get no mail by a map: ':include:/x'"),
    ],
)
def test_a_line_that_is_not_understood_is_named(text: str, problem: str) -> None:
    with pytest.raises(LineError) as caught:
        content_of(text)
    assert str(caught.value) == problem


@given(st.text(alphabet='ab@.:," \\\n\t#|=é', max_size=60))
def test_whatever_stands_there_is_read_or_named(text: str) -> None:
    content, named = {}, 1
    try:
        content = content_of(text)
    except LineError as error:
        named = error.number
    assert 1 <= named <= text.count("\n") + 1
    assert all(content.values())
    for key in content:
        assert key == key.lower()


@pytest.mark.parametrize(
    "text", ['"' * 20_000, "a" * 20_000 + '"\\' * 20_000, "a " + '"\\' * 20_000]
)
def test_reading_takes_linear_time(text: str) -> None:
    with contextlib.suppress(LineError):
        content_of(text)


#: Each change is a second after the last, and all of them are long ago.
SECONDS: Final = itertools.count(1)


def change(path: Path, text: str) -> None:
    path.write_text(text)
    at = (10**9 + next(SECONDS)) * 10**9
    os.utime(path, ns=(at, at))


async def test_a_file_is_read_again_when_it_changes(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    path = tmp_path / "aliases"
    path.write_text("bob: carol\n")
    file = File(path, at_once)
    assert await file.find("bob@example.org") == ("carol",)  # by its local part
    assert await file.find("@example.org") is None
    change(path, "bob: dave\nbob@example.org: eve\n")
    assert await file.find("bob@example.org") == ("carol",)  # looked at a moment ago
    await trio.sleep(1)
    assert await file.find("bob@example.org") == ("eve",)
    assert await file.find("bob@example.net") == ("dave",)


async def test_a_mistake_leaves_what_was_read_before(
    tmp_path: Path, autojump_clock: MockClock, logged: Callable[[], list[str]]
) -> None:
    path = tmp_path / "aliases"
    path.write_text("bob: carol\n")
    file = File(path, at_once)
    await file.find("bob")
    change(path, "bob: dave\nbroken\n")
    for _ in range(3):
        await trio.sleep(1)
        assert await file.find("bob") == ("carol",)
    assert logged() == ["map.unreadable"]
    change(path, "bob: eve\n")
    await trio.sleep(1)
    assert await file.find("bob") == ("eve",)


async def test_a_file_that_was_never_read_is_down(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    path = tmp_path / "aliases"
    file = File(path, at_once)
    with pytest.raises(MapDownError, match="aliases: No such file"):
        await file.find("bob")
    path.write_bytes(b"bob: \xff\n")
    await trio.sleep(1)
    with pytest.raises(MapDownError, match="line 1: it is no utf-8"):
        await file.find("bob")
    path.write_text("bob: carol\n")
    await trio.sleep(1)
    assert await file.find("bob") == ("carol",)


async def test_many_who_come_at_once_have_it_read_once(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    path, reads = tmp_path / "aliases", []
    path.write_text("bob: carol\n")

    async def slowly(call: Callable[[], T]) -> T:
        reads.append(1)
        await trio.sleep(0.5)
        return call()

    file, found = File(path, slowly), []

    async def ask() -> None:
        found.append(await file.find("bob"))

    for _ in range(2):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask)
        await trio.sleep(2)
    assert found == [("carol",)] * 6
    assert len(reads) == 2


async def test_a_file_is_read_that_takes_longer_than_anybody_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "aliases"
    path.write_text("bob: carol\n")
    begun, go_on, over = threading.Event(), threading.Event(), threading.Event()

    def content(file: BinaryIO, rest: Callable[[], None]) -> Content:
        begun.set()
        go_on.wait()
        return read_content(file, rest)

    async def in_thread(call: Callable[[], T]) -> T:
        def watched() -> T:
            try:
                return call()
            finally:
                over.set()

        return await trio.to_thread.run_sync(watched, abandon_on_cancel=True)

    monkeypatch.setattr("elemta.maps.file.read_content", content)
    file = File(path, in_thread)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(file.find, "bob")
        await trio.to_thread.run_sync(begun.wait)
        nursery.cancel_scope.cancel()
    with pytest.raises(MapDownError, match="being read"):  # and does not read it once more
        await file.find("bob")
    go_on.set()
    await trio.to_thread.run_sync(over.wait)
    assert await file.find("bob") == ("carol",)


async def test_a_file_with_a_mistake_is_not_read_again_until_it_changes(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, read = tmp_path / "aliases", list[int]()
    path.write_text("broken\n")

    def content(file: BinaryIO, rest: Callable[[], None]) -> Content:
        read.append(1)
        return read_content(file, rest)

    monkeypatch.setattr("elemta.maps.file.read_content", content)
    file = File(path, at_once)
    for _ in range(3):
        with pytest.raises(MapDownError, match="line 1"):
            await file.find("bob")
        await trio.sleep(1)
    assert read == [1]


async def test_an_address_may_be_asked_for_as_a_whole_alone(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    (path := tmp_path / "map").write_text("localhost  lmtp:///run/lmtp\n")
    file = File(path, at_once)
    assert await file.find("localhost@x.example") == ("lmtp:///run/lmtp",)
    assert await file.find("localhost@x.example", exact=True) is None


async def test_what_stands_in_memory_is_known_without_waiting_until_the_file_is_another(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    now = 0.0
    change(path := tmp_path / "map", "a.example  office\n")
    file = File(path, at_once, lambda: now)
    with pytest.raises(MapDownError, match="read for the first time"):
        file.known("a.example")
    await file.find("a.example")
    assert file.known("a.example") == ("office",)
    assert file.known("b.example") is None
    change(path, "b.example  office\n")
    assert file.known("b.example") is None  # nobody has looked again yet
    now = 1.0
    for _ in range(2):
        with pytest.raises(MapDownError, match="it has changed"):
            file.known("b.example")
    await trio.sleep(1)
    await file.find("b.example")
    assert file.known("b.example") == ("office",)
    path.unlink()
    now = 2.0
    with pytest.raises(MapDownError, match="it has changed"):
        file.known("b.example")


def slowly(text: str) -> dict[str, tuple[str, ...]]:
    """The same, each line read by itself; the oracle."""
    found: dict[str, tuple[str, ...]] = {}
    for number, line in lines._logical(enumerate(text.split("\n"), 1)):
        key, values = lines._read(number, line)
        if key in found:
            raise LineError(number, f"{key!r} is there already")
        found[key] = values_of(values)
    return found


def outcome(
    read: Callable[[str], dict[str, tuple[str, ...]]], text: str
) -> dict[str, tuple[str, ...]] | str:
    try:
        return read(text)
    except LineError as error:
        return str(error)


LINES: Final = st.sampled_from(
    [
        *("bob@a.example  carol", "b.o-b+c@a.example:\tlmtp:///run/x\r", "postmaster: bob"),
        *("a.example office ", "# said", "", "  dave", " # said, too", "Bob@A.Example x"),
        *("bob: x, y", "c: |x", "bob: /x", "a@b..c x", "bob", "a@-b.example x"),
        *(
            f"{'a' * 64}@b.example x",
            f"{'a' * 65}@b.example x",
            '"a b"@c.d x',
            "é@bücher.example y",
        ),
        *("bob :x", "eve::", "a@b@c.example x", "x y z", "@a.example all", "a..b@c.example x"),
    ]
)


@given(st.lists(LINES, max_size=8), st.integers(1, 40), st.booleans())
def test_all_ways_of_reading_come_to_the_same(wanted: list[str], size: int, end: bool) -> None:
    text = "\n".join(wanted) + "\n" * end
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "SLICE", size)
        assert outcome(content_of, text) == outcome(slowly, text)


def test_most_lines_are_plain() -> None:
    text = "bob@example.org  carol\npostmaster: bob\na.example lmtp:///run/x\r"
    assert lines._plain(text) == [
        *(("bob@example.org", "carol"), ("postmaster", "bob"), ("a.example", "lmtp:///run/x")),
    ]
    assert lines._plain("bob@example.org  carol\n# said") is None


@pytest.mark.parametrize(("first", "line"), [(0, 2000), (1990, 2000), (0, 2), (3, 6)])
def test_a_key_that_is_there_twice_is_named_wherever_it_stands(first: int, line: int) -> None:
    many = [f"user{number}@a.example x" for number in range(2500)]
    many.insert(line - 1, many[first])
    with pytest.raises(LineError) as caught:
        content_of("\n".join(many) + "\n")
    assert str(caught.value) == f"line {line}: 'user{first}@a.example' is there already"


def test_pieces_may_end_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = content_of(TEXT)
    for size in range(1, 60):
        monkeypatch.setattr(lines, "SLICE", size)
        assert content_of(TEXT) == whole
        assert content_of(TEXT.rstrip("\n")) == whole
        with pytest.raises(LineError, match="line 3: it is no utf-8"):
            content_of(b"a b\n\nc \xc3\nd e\n")


def test_a_file_has_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "LONGEST", 10)
    monkeypatch.setattr(lines, "SLICE", 4)
    for text in ("a " + "b" * 20, "a b\n c\n d\n e\n f\n g"):
        with pytest.raises(LineError, match="line 1: more than 10"):
            content_of(text)
    monkeypatch.setattr(lines, "MOST_KEYS", 2)
    assert len(content_of("a x\nb x\n")) == 2
    with pytest.raises(ValueError, match="more than 2 keys"):
        content_of("a x\nb x\nc x\n")
    monkeypatch.setattr(lines, "MOST", 6)
    with pytest.raises(ValueError, match="more than 6 octets"):
        content_of("a x\nb x\n")


def test_whoever_reads_a_large_file_rests_often_and_so_does_who_forgets_it() -> None:
    rests: list[int] = []
    octets = b"".join(b"user%d@a.example x\n" % number for number in range(20_000))
    content = read_content(io.BytesIO(octets), lambda: rests.append(len(rests)))
    assert len(rests) > len(octets) // lines.SLICE
    rests.clear()
    content.retire(lambda: rests.append(1))
    assert len(rests) == 16
    with pytest.raises(RetiredError):
        content.get("user1@a.example")


async def test_a_file_that_was_changed_a_moment_ago_is_left_to_who_writes_it(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    change(path := tmp_path / "aliases", "bob: carol\neve: carol\n")
    file = File(path, at_once, wall=lambda: now)
    now = 0.0
    assert await file.find("eve") == ("carol",)
    change(path, "bob: dave\n")  # and eve comes in a second
    now = path.stat().st_mtime + 1.9
    await trio.sleep(1)
    assert await file.find("eve") == ("carol",)
    change(path, "bob: dave\neve: dave\n")
    now = path.stat().st_mtime + 2
    await trio.sleep(1)
    assert await file.find("eve") == ("dave",)


async def test_a_file_that_is_written_while_it_is_read_does_not_count(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(path := tmp_path / "aliases", "bob: carol\n")
    writing = True

    def content(file: BinaryIO, rest: Callable[[], None]) -> Content:
        found = read_content(file, rest)
        if writing:
            change(path, path.read_text() + f"eve{next(SECONDS)}: dave\n")
        return found

    monkeypatch.setattr("elemta.maps.file.read_content", content)
    file = File(path, at_once)
    with pytest.raises(MapDownError, match="it is being written just now"):
        await file.find("bob")
    writing = False
    await trio.sleep(1)
    assert await file.find("bob") == ("carol",)
    writing = True
    change(path, "eve: dave\n")
    await trio.sleep(1)
    assert await file.find("bob") == ("carol",)
    writing = False
    await trio.sleep(1)
    assert await file.find("bob") is None


async def test_a_file_that_is_empty_by_now_is_hardly_meant_to_be(
    tmp_path: Path, autojump_clock: MockClock, logged: Callable[[], list[str]]
) -> None:
    change(path := tmp_path / "aliases", "bob: carol\n")
    file = File(path, at_once)
    await file.find("bob")
    change(path, "")
    for _ in range(3):
        await trio.sleep(1)
        assert await file.find("bob") == ("carol",)
    assert logged() == ["map.unreadable"]
    change(path, "# nobody\n")
    await trio.sleep(1)
    assert await file.find("bob") is None


async def test_who_looks_up_while_the_content_changes_finds_what_is_there_now(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    change(path := tmp_path / "aliases", "bob: carol\n")
    file = File(path, at_once)
    await file.find("bob")
    before = file._file.content
    change(path, "bob: dave\n")
    await trio.sleep(1)
    assert await file.find("bob") == ("dave",)
    with pytest.raises(RetiredError):
        before.get("bob")
