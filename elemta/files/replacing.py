"""Files that are written whole: who reads one sees it as it was, or as it is, also after a crash.

What is new is written under a name that nobody can guess, made anew and for its owner alone (0600):
what lies in the folder may be somebody else's doing, and root may be writing. Only when all of it
is on the disk does it get its name. All of this blocks.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path


def _as_it_is(descriptor: int) -> None:
    """It is ours, and for us alone."""


def replace_file(
    path: Path,
    octets: bytes,
    own: Callable[[int], None] = _as_it_is,
    *,
    durable: bool = True,
) -> None:
    """Put a file there, in the place of one that may be there.

    Args:
        path: of the file.
        octets: all that is in it.
        own: says whose the new file is and who may read it, by its descriptor, while there is
            nothing in it yet.
        durable: wait until it is on the disk.

    Raises:
        OSError: it cannot be written; then what was there is there.
    """
    with _written(path, octets, own, durable=durable) as name:
        os.replace(name, path)
    if durable:
        sync_folder(path.parent)


def make_file(path: Path, octets: bytes, own: Callable[[int], None] = _as_it_is) -> None:
    """Put a file there which is not there yet; durable once this returns.

    Args:
        path: of the file.
        octets: all that is in it.
        own: as for `replace_file`.

    Raises:
        FileExistsError: there is one, and it stays.
        OSError: it cannot be written.
    """
    with _written(path, octets, own, durable=True) as name:
        os.link(name, path)  # unlike a rename, it takes nobody's place
        os.unlink(name)
    sync_folder(path.parent)


@contextmanager
def _written(
    path: Path, octets: bytes, own: Callable[[int], None], *, durable: bool
) -> Generator[str]:
    """A file beside the one that it is to be; gone with the block, if it has the same name then."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as out:
            own(descriptor)
            out.write(octets)
            out.flush()
            if durable:
                os.fsync(descriptor)
        yield name
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise


def like_folder(folder: Path) -> Callable[[int], None]:
    """Let a file be whose the folder is: a server's, though root writes it."""

    def own(descriptor: int) -> None:
        if os.geteuid() == 0:
            owner = folder.stat()
            os.fchown(descriptor, owner.st_uid, owner.st_gid)

    return own


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable.

    Raises:
        OSError: the disk.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
