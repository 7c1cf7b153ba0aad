"""Maildirs: ``ROOT/DOMAIN/LOCAL/{tmp,new,cur}``, a file a message.

The rules of this file:

- What `deliver` calls written is durable: the file is synced, then renamed into ``new``, then
  ``new`` is synced; a directory is synced up to the root when it is first used by this process.
- Many letters share one call into a thread, and its syncs: 32 at a time went four times as fast to
  an idle disk as one by one (5,000 a second for 1,200, at a third of the CPU).
- A letter's file name comes from the message's id and the recipient's number alone. Delivered
  again, after a crash before the queue knew of it, it replaces the first one, unless a reader has
  moved that on to ``cur`` in the meantime.
- Lines end in LF, as the Maildir convention has it; dots are not stuffed.
"""

from __future__ import annotations

import errno
import os
from contextlib import aclosing, contextmanager, suppress
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import trio
from msgspec import Struct

from elemta.delivery.lines import UnixLines
from elemta.delivery.replies import made
from elemta.delivery.transaction import StoredBody
from elemta.message import delivered_to, return_path
from elemta.protocol import Mailbox, domain_to_ascii
from elemta.queue import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from pathlib import Path

    from elemta.protocol import Reply
    from elemta.queue import Message, Recipient

#: Threads that write at a time: the kernel commits for those together that sync together.
THREADS: Final = 4
#: Octets handed to a thread at a time, of a message too large to stand in memory.
PIECE: Final = 2**20
#: Mailboxes that are remembered to exist; beyond it all are looked at anew.
REMEMBERED: Final = 20_000


class Letter(Struct, frozen=True):
    """One message for one recipient.

    Attributes:
        name: of its file: the same each time this message is tried for this recipient.
        head: what stands before the content, LF line ends.
    """

    mailbox: Mailbox
    name: str
    head: bytes
    body: StoredBody


class MaildirStore:
    """All Maildirs under a directory, which only we write to.

    Args:
        root: made when it is first needed.
        hostname: ours; part of each file name, and the domain of mailboxes that have none.
        sync: makes an open file or directory durable; a test's disk may do it badly.
    """

    def __init__(
        self, root: Path, hostname: str, *, sync: Callable[[int], None] = os.fsync
    ) -> None:
        self._root = os.fspath(root)
        self._hostname = hostname
        self._host_mark = hostname.replace("/", "\\057").replace(":", "\\072")
        self._sync = sync
        self._threads = trio.CapacityLimiter(THREADS)
        self._ready: Final[set[str]] = set()

    def letter(self, message: Message, recipient: Recipient, body: StoredBody) -> Letter:
        """What to deliver of a message to one of its recipients."""
        head = return_path(message.sender) + delivered_to(recipient.address, recipient.original)
        return Letter(
            mailbox=recipient.address,
            name=f"{int(message.received_at)}.{message.id}_{recipient.number}.{self._host_mark}",
            head=head.replace(b"\r\n", b"\n"),
            body=body,
        )

    def directory(self, mailbox: Mailbox) -> str:
        """The Maildir of a mailbox. Its local part is not told by case (as people expect)."""
        domain = mailbox.domain or self._hostname
        with suppress(ValueError):  # an address literal
            domain = domain_to_ascii(domain)
        return os.path.join(self._root, _safe(domain), _safe(mailbox.local_part.lower()))

    async def deliver(self, letters: Sequence[Letter]) -> list[OSError | None]:
        """Write letters durably.

        Returns:
            What went wrong, letter by letter; None: it is in the mailbox. Of what went wrong
            nothing is left behind.
        """
        files = [_File(self.directory(letter.mailbox), letter.name) for letter in letters]
        small: list[tuple[_File, Letter, bytes]] = []
        try:
            for file, letter in zip(files, letters, strict=True):
                if (octets := letter.body.octets) is not None:
                    small.append((file, letter, octets))
                    continue
                with file.attempting():
                    await self._stream(file, letter)
            await trio.to_thread.run_sync(self._write_all, small, files, limiter=self._threads)
        except BaseException:
            for file in files:
                file.discard()
            raise
        return [file.error for file in files]

    def _write_all(
        self, small: Sequence[tuple[_File, Letter, bytes]], files: Sequence[_File]
    ) -> None:
        """In a thread: write the small ones, and make all of them durable."""
        for file, letter, octets in small:
            with file.attempting():
                self._open(file)
                file.write(letter.head)
                file.write(octets.replace(b"\r\n", b"\n"))
        for file in files:
            file.start_sync()
        for file in files:
            file.finish(self._sync)
        for new in {file.directory + "/new" for file in files if file.error is None}:
            try:
                self._sync_directory(new)
            except OSError as error:
                for file in files:
                    if file.directory + "/new" == new:
                        file.error = error

    async def _stream(self, file: _File, letter: Letter) -> None:
        """Write a large one, a piece at a time; `_write_all` makes it durable."""
        pending = bytearray(letter.head)
        lines = UnixLines()
        async with aclosing(letter.body.chunks()) as chunks:
            async for chunk in chunks:
                pending += lines.feed(chunk)
                if len(pending) >= PIECE:
                    await self._write_some(file, bytes(pending))
                    pending.clear()
        await self._write_some(file, bytes(pending + lines.end()))

    async def _write_some(self, file: _File, octets: bytes) -> None:
        def write() -> None:
            with file.attempting():
                if not file.open:
                    self._open(file)
                file.write(octets)

        if file.error is None:
            await trio.to_thread.run_sync(write, limiter=self._threads)

    def _open(self, file: _File) -> None:
        self._make(file.directory)
        try:
            file.create()
        except FileNotFoundError:  # somebody took the Maildir away since
            self._ready.discard(file.directory)
            self._make(file.directory)
            file.create()

    def _make(self, directory: str) -> None:
        """Have a Maildir, durably: whoever made it, a crash of the machine shall not undo it."""
        if directory in self._ready:
            return
        above = [self._root, os.path.dirname(directory), directory]
        for path in (*above, *(f"{directory}/{part}" for part in ("tmp", "new", "cur"))):
            os.makedirs(path, mode=0o700, exist_ok=True)
        for path in (*reversed(above), os.path.dirname(self._root)):
            self._sync_directory(path)
        if len(self._ready) >= REMEMBERED:
            self._ready.clear()
        self._ready.add(directory)

    def _sync_directory(self, directory: str) -> None:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._sync(fd)
        finally:
            os.close(fd)


class _File:
    """A file on its way into a Maildir; where it stands, and what went wrong with it.

    Attributes:
        error: once set, nothing more is done, and nothing of the file is left in ``tmp``.
    """

    def __init__(self, directory: str, name: str) -> None:
        self.directory: Final = directory
        self.error: OSError | None = None
        self._tmp: Final = f"{directory}/tmp/{name}"  # noqa: S108 (of the Maildir)
        self._new: Final = f"{directory}/new/{name}"
        self._fd = -1

    @property
    def open(self) -> bool:
        return self._fd >= 0

    def create(self) -> None:
        """Open it in ``tmp``, over what a crash may have left there."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(self._tmp, flags, 0o600)

    def write(self, octets: bytes) -> None:
        """Append; a disk that is full takes a part of it first."""
        view = memoryview(octets)
        while view:
            view = view[os.write(self._fd, view) :]

    def start_sync(self) -> None:
        """Have the disk begin: the first sync then finds all of its companions under way.

        That is what `POSIX_FADV_DONTNEED` does on Linux, for want of `sync_file_range` in Python.
        """
        if self.error is None:
            with suppress(OSError):  # a hint
                os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def finish(self, sync: Callable[[int], None]) -> None:
        """Sync it and move it to ``new``."""
        if self.error is None:
            with self.attempting():
                sync(self._fd)
                os.close(self._fd)
                self._fd = -1
                os.rename(self._tmp, self._new)

    @contextmanager
    def attempting(self) -> Generator[None]:
        """Note what the disk refuses, ours or the queue's, and clear away what was written."""
        try:
            yield
        except OSError as error:
            self.error = error
            self.discard()
        except StoreUnavailable as error:
            self.error = OSError(errno.EIO, str(error))
            self.discard()

    def discard(self) -> None:
        """Leave nothing in ``tmp``."""
        if self.open:
            with suppress(OSError):
                os.close(self._fd)
            self._fd = -1
        with suppress(OSError):
            os.unlink(self._tmp)


def reply_to(error: OSError) -> Reply:
    """What to say of a mailbox that could not be written: never that it is for ever."""
    match error.errno:
        case errno.ENOSPC:
            return made(452, 3, 1, "no space left on the disk of the mailbox")
        case errno.EDQUOT:
            return made(452, 2, 2, "the mailbox is over its quota")
        case _:
            return made(451, 3, 0, f"cannot write the mailbox: {error.strerror or error}")


def _safe(part: str) -> str:
    """A name for a directory: no separator, no way up, nothing hidden, nothing unprintable."""
    quoted = quote(part, safe="+=~@")
    return f"%2E{quoted[1:]}" if quoted.startswith(".") else quoted
