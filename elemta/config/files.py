"""Files that a configuration names: secrets that nobody else may read, and which file is which."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class Stamp(Struct, frozen=True):
    """What tells a file from the one that it was."""

    changed: int
    number: int
    size: int


def stamps_of(paths: Iterable[Path | None]) -> tuple[Stamp | None, ...]:
    """Differ once one of the files is another; None where there is none. Blocks."""
    found: list[Stamp | None] = []
    for path in paths:
        try:
            told = path.stat() if path is not None else None
        except OSError:
            told = None
        found.append(told and Stamp(told.st_mtime_ns, told.st_ino, told.st_size))
    return tuple(found)


def read_private(path: Path, most: int) -> bytes:
    """What is in a file with a secret, which its group may read, and nobody beyond; blocks.

    Args:
        path: of the file.
        most: octets that it may have.

    Raises:
        OSError: it cannot be read, others may read or write it, it is too large, or no file. It
            has no `errno` where it is not the system that says so.
    """
    # A pipe in its place must not hold us up; and what is asked is asked of the file that is read.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise OSError(f"{path} is no file")
        if mode & stat.S_IRWXO:
            raise OSError(f"others may read or write {path}: take that away (chmod o= {path})")
        octets = file.read(most + 1)
    if len(octets) > most:
        raise OSError(f"{path} has more than {most} octets")
    return octets
