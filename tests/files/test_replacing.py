from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from elemta.files import like_folder, make_file, replace_file, sync_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WRITERS = [replace_file, make_file]


class Disk:
    """Remembers in which order what was synced, and fails if it is to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[str] = []
        self.fails = ""
        self._sync, self._replace, self._link = os.fsync, os.replace, os.link
        monkeypatch.setattr(os, "fsync", self._fsync)
        monkeypatch.setattr(os, "replace", lambda one, other: self._do("name", one, other))
        monkeypatch.setattr(os, "link", lambda one, other: self._do("link", one, other))

    def _fsync(self, descriptor: int) -> None:
        what = "folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file"
        self._may_fail(what)
        self._sync(descriptor)

    def _do(self, what: str, one: str, other: Path) -> None:
        self._may_fail(what)
        (self._replace if what == "name" else self._link)(one, other)

    def _may_fail(self, what: str) -> None:
        if what == self.fails:
            raise OSError(5, "the disk")
        self.done.append(what)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.mark.parametrize("write", WRITERS)
def test_a_new_file_is_for_its_owner_alone_and_nothing_else_is_left(
    tmp_path: Path, write: Callable[[Path, bytes], None]
) -> None:
    write(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "file").stat().st_nlink == 1
    assert os.listdir(tmp_path) == ["file"]


def test_what_is_in_it_is_on_the_disk_before_it_has_its_name_and_then_the_name(
    tmp_path: Path, disk: Disk
) -> None:
    replace_file(tmp_path / "one", b"1")
    make_file(tmp_path / "two", b"2")
    assert disk.done == ["file", "name", "folder", "file", "link", "folder"]


def test_what_is_of_no_weight_waits_for_no_disk(tmp_path: Path, disk: Disk) -> None:
    replace_file(tmp_path / "file", b"1", durable=False)
    assert disk.done == ["name"]


def test_one_that_is_there_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a long one")
    with path.open("rb") as before:
        replace_file(path, b"new")
        assert before.read() == b"a long one"
    assert path.read_bytes() == b"new"


def test_nobodys_place_is_taken_by_one_that_is_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        make_file(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("fails", ["file", "name"])
def test_a_disk_that_fails_leaves_what_was_there(tmp_path: Path, disk: Disk, fails: str) -> None:
    (tmp_path / "file").write_bytes(b"old")
    disk.fails = fails
    with pytest.raises(OSError, match="the disk"):
        replace_file(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("write", WRITERS)
def test_whose_it_is_is_said_while_it_is_empty_and_may_fail(
    tmp_path: Path, write: Callable[[Path, bytes, Callable[[int], None]], None]
) -> None:
    def own(descriptor: int) -> None:
        assert os.fstat(descriptor).st_size == 0
        os.fchmod(descriptor, 0o640)

    def fail(descriptor: int) -> None:
        raise PermissionError

    with pytest.raises(PermissionError):
        write(tmp_path / "file", b"new", fail)
    assert os.listdir(tmp_path) == []
    write(tmp_path / "file", b"new", own)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("root", [True, False])
def test_what_root_writes_is_whose_the_folder_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: bool
) -> None:
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "geteuid", lambda: 0 if root else 1000)
    monkeypatch.setattr(os, "fchown", lambda _, user, group: given.append((user, group)))
    replace_file(tmp_path / "file", b"1", like_folder(tmp_path))
    owner = tmp_path.stat()
    assert given == ([(owner.st_uid, owner.st_gid)] if root else [])


def test_a_folder_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        sync_folder(tmp_path / "file")
