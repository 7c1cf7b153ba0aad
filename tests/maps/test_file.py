from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, TypeVar

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from elemta.maps import MapDownError
from elemta.maps.file import File, LineError, content_of
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


def change(path: Path, text: str) -> None:
    path.write_text(text)
    at = path.stat().st_mtime_ns + 10**9
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
    with pytest.raises(MapDownError, match="utf-8"):
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

    def content(text: str) -> dict[str, tuple[str, ...]]:
        begun.set()
        go_on.wait()
        return content_of(text)

    async def in_thread(call: Callable[[], T]) -> T:
        def watched() -> T:
            try:
                return call()
            finally:
                over.set()

        return await trio.to_thread.run_sync(watched, abandon_on_cancel=True)

    monkeypatch.setattr("elemta.maps.file.content_of", content)
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
    path, read = tmp_path / "aliases", list[str]()
    path.write_text("broken\n")

    def content(text: str) -> dict[str, tuple[str, ...]]:
        read.append(text)
        return content_of(text)

    monkeypatch.setattr("elemta.maps.file.content_of", content)
    file = File(path, at_once)
    for _ in range(3):
        with pytest.raises(MapDownError, match="line 1"):
            await file.find("bob")
        await trio.sleep(1)
    assert read == ["broken\n"]


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
