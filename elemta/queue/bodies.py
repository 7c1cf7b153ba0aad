"""The contents of messages: rows of the database, or files beside it if they are large."""

from __future__ import annotations

import contextlib
import itertools
import os
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from elemta.files import sync_folder
from elemta.queue.errors import StoreUnavailable
from elemta.queue.ids import parse_id
from elemta.queue.schema import INLINE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator
    from pathlib import Path

    from elemta.queue.model import Message, MessageId
    from elemta.threads import InThread

T = TypeVar("T")


#: Octets in the pieces that a large body is read in.
PIECE: Final = 64 * 1024
#: Octets that one trip to a thread reads; a trip costs what copying this much does.
TRIP: Final = 512 * 1024
#: What the name of a copy ends with that takes the place of its file.
_COPY: Final = ".new"
_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class BodyFiles:
    """The folder of large bodies, a file each, called as its message. All calls block."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def create(self, id: MessageId) -> BodyFile:  # noqa: A002 # the word of people
        """Begin a file.

        Raises:
            OSError: the disk.
        """
        return BodyFile(self._folder / id)

    def path(self, id: MessageId) -> Path:  # noqa: A002 # the word of people
        """Where the body of this message is, if it is large."""
        return self._folder / id

    def remove(self, id: MessageId) -> None:  # noqa: A002 # the word of people
        """Remove a file if it is there. If the disk does not let us, the next start will try."""
        with contextlib.suppress(OSError):
            (self._folder / id).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what a crash has left of `BodyFile.replace_head`: nobody knows it, or wants it.

        Raises:
            OSError: the folder cannot be read.
        """
        for path in self._folder.glob(f"*{_COPY}"):
            if parse_id(path.stem) == path.stem:
                with contextlib.suppress(OSError):
                    path.unlink()

    def ids(self) -> list[MessageId]:
        """Whose bodies are here, wanted or not."""
        with os.scandir(self._folder) as entries:
            return [entry.name for entry in entries if parse_id(entry.name) == entry.name]


class BodyFile:
    """A body on its way to disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, _FLAGS, 0o600)

    def write(self, pieces: list[bytes]) -> None:
        """Append.

        Raises:
            OSError: the disk.
        """
        for piece in pieces:
            _write(self._file, piece)

    def read(self, start: int, size: int) -> bytes:
        """Some of what was written, from its octet `start`; less only at the end.

        Raises:
            OSError: the disk.
        """
        found = bytearray()
        while len(found) < size and (
            piece := os.pread(self._file, size - len(found), start + len(found))
        ):
            found += piece
        return bytes(found)

    def replace_head(self, size: int, head: bytes) -> None:
        """Put `head` in place of the first `size` octets. Costs a copy, and no sync.

        Raises:
            OSError: the disk. The file is as it was, or to be removed.
        """
        other = self._path.with_name(f"{self._path.name}{_COPY}")
        copy = os.open(other, _FLAGS, 0o600)
        try:
            _write(copy, head)
            os.lseek(self._file, size, os.SEEK_SET)
            while piece := os.read(self._file, TRIP):
                _write(copy, piece)
            other.replace(self._path)
        except BaseException:
            os.close(copy)
            with contextlib.suppress(OSError):
                other.unlink(missing_ok=True)
            raise
        self._file, former = copy, self._file
        os.close(former)

    def sync(self) -> None:
        """Make file and name durable, and close.

        Raises:
            OSError: the disk. The file is to be removed then.
        """
        os.fsync(self._file)
        self.close()
        sync_folder(self._path.parent)

    def close(self) -> None:
        """Close; may be called twice."""
        if self._file >= 0:
            file, self._file = self._file, -1
            os.close(file)


class StoredBody:
    """The content of a message, as it came in.

    Attributes:
        size: octets.
        octets: all of it, unless it is large.
    """

    def __init__(
        self,
        message: Message,
        octets: bytes | None,
        files: BodyFiles,
        in_thread: InThread,
    ) -> None:
        self.size = message.size
        self.octets = octets
        self._id = message.id
        self._files = files
        self._in_thread = in_thread

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The content from its beginning, in pieces of at most 64 KiB; may be asked again.

        Raises:
            StoreUnavailable: it cannot be read just now.
        """
        if self.octets is not None:
            for start in range(0, self.size, PIECE):
                await trio.lowlevel.checkpoint()
                yield self.octets[start : start + PIECE]
            return
        pieces = _pieces(self._files.path(self._id))
        try:
            while trip := await self._in_thread(lambda: _trip(pieces)):
                for piece in trip:
                    yield piece
        except OSError as error:
            raise StoreUnavailable(f"cannot read the body: {error}") from error
        finally:
            pieces.close()


def is_large(size: int) -> bool:
    """Whether a body of so many octets is a file of its own."""
    return size > INLINE


def _write(file: int, octets: bytes) -> None:
    view = memoryview(octets)
    while view:
        view = view[os.write(file, view) :]


def _pieces(path: Path) -> Generator[bytes, None, None]:
    with path.open("rb", buffering=0) as file:
        while piece := file.read(PIECE):
            yield piece


def _trip(pieces: Generator[bytes, None, None]) -> list[bytes]:
    return list(itertools.islice(pieces, TRIP // PIECE))
