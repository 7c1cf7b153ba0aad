from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest

from elemta.files import TooLargeError, read_file, read_private

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o400, 0o660])
def test_who_is_of_its_group_may_read_a_secret(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"1234")
    path.chmod(mode)
    assert read_private(path, 4) == b"1234"


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o644])
def test_a_secret_that_others_may_read_or_write_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "secret"
    path.touch()
    path.chmod(mode)
    with pytest.raises(OSError, match=f"others may read or write {re.escape(str(path))}"):
        read_private(path, 4)


def test_a_file_that_is_too_large_or_none_is_refused_and_nobody_waits_for_it(
    tmp_path: Path,
) -> None:
    large, pipe = tmp_path / "large", tmp_path / "pipe"
    large.write_bytes(b"12345")
    large.chmod(0o600)
    os.mkfifo(pipe, 0o600)
    for path, problem in ((large, "more than 4 octets"), (pipe, "is no file")):
        with pytest.raises(OSError, match=problem) as caught:
            read_private(path, 4)
        assert caught.value.errno is None
    with pytest.raises(FileNotFoundError):
        read_private(tmp_path / "gone", 4)


def test_any_file_tells_its_mode_and_the_size_that_is_too_large(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"1234")
    path.chmod(0o644)
    read = read_file(path, 4)
    assert (read.octets, read.mode & 0o777) == (b"1234", 0o644)
    with pytest.raises(TooLargeError):
        read_file(path, 3)
