"""Files are read as far as they may be, and a pipe in the place of one holds nobody up. All blocks.

What is asked of a file is asked of the one that is read.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from io import BufferedReader
    from pathlib import Path


class Read(Struct, frozen=True):
    """A file that was read.

    Attributes:
        octets: all that is in it.
        mode: who may do what with it, as `os.stat` says it.
    """

    octets: bytes
    mode: int


class TooLargeError(OSError):
    """A file has more octets than it may have."""


def open_file(path: Path) -> BufferedReader:
    """Open a file to be read.

    Raises:
        OSError: as `read_file`.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise OSError(f"{path} is no file")


def read_file(path: Path, most: int) -> Read:
    """What is in a file.

    Args:
        path: of the file.
        most: octets that it may have.

    Raises:
        TooLargeError: it has more.
        OSError: it cannot be read, or is no file; there is no `errno` where it is not the system
            that says so.
    """
    with open_file(path) as file:
        mode = os.fstat(file.fileno()).st_mode
        octets = file.read(most + 1)
    if len(octets) > most:
        raise TooLargeError(f"{path} has more than {most} octets")
    return Read(octets, mode)


def read_private(path: Path, most: int) -> bytes:
    """What is in a file with a secret, which its group may read, and nobody beyond.

    Args:
        path: of the file.
        most: octets that it may have.

    Raises:
        OSError: as `read_file`, or others may read or write it.
    """
    read = read_file(path, most)
    if read.mode & stat.S_IRWXO:
        raise OSError(f"others may read or write {path}: take that away (chmod o= {path})")
    return read.octets
