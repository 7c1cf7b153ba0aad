"""Files that are read again once they change; with something wrong in them, what was holds."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Generic, TypeVar

import trio
from msgspec import Struct

from elemta.files.reading import TooLargeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from elemta.threads import InThread

T = TypeVar("T")
V = TypeVar("V")


class Stamp(Struct, frozen=True):
    """What tells a file from the one that it was, and who may read it from who might."""

    changed: int
    number: int
    size: int
    mode: int


#: Of several files; None where there is none.
Stamps = tuple[Stamp | None, ...]


def stamps_of(paths: Iterable[Path | None]) -> Stamps:
    """Differ once one of the files is another; None where there is none. Blocks."""
    found: list[Stamp | None] = []
    for path in paths:
        try:
            told = path.stat() if path is not None else None
        except OSError:
            told = None
        found.append(told and Stamp(told.st_mtime_ns, told.st_ino, told.st_size, told.st_mode))
    return tuple(found)


class NothingReadError(Exception):
    """Nothing was read yet; the message says why."""


class BeingWrittenError(Exception):
    """What is in a file is not all that it is to be; the message says how that is known."""


class Watched(Generic[T]):
    """What is in some files.

    They are looked at before they are read: what changes meanwhile is read again. What is wrong in
    them is no better until they change; but a disk that failed, or a file that was out of reach, is
    asked again at each look.

    Args:
        files: all of them; those that are None are none.
        read: what is in them; blocks. It may raise `BeingWrittenError`: they are read again at the
            next look, and nobody is told.
        wrong: what `read` raises if there is something wrong in them, beside OSError.
        renewed: is told, in the thread that has read it, what there is in place of what was there
            before, and what was wrong until now; empty: nothing.
        refused: is told, in the same way, what is wrong: once, until the files or that change.

    Attributes:
        problem: why what lies there by now is not what holds; empty: it is.
    """

    def __init__(
        self,
        files: Iterable[Path | None],
        read: Callable[[], T],
        *,
        wrong: tuple[type[Exception], ...] = (ValueError,),
        renewed: Callable[[T, str], None] = lambda _content, _problem: None,
        refused: Callable[[Exception], None] = lambda _error: None,
    ) -> None:
        self.problem = ""
        self._files = tuple(files)
        self._read = read
        self._wrong: tuple[type[Exception], ...] = (OSError, *wrong)
        self._renewed = renewed
        self._refused = refused
        #: What was read, and nothing else.
        self._content: list[T] = []
        #: What was looked at last, right or wrong; None: it is to be read in any case.
        self._stamps: Stamps | None = None
        self._told: tuple[Stamps, str] | None = None
        self._old = False
        #: Held by the thread that reads, which goes on when nobody waits any more.
        self._reading = threading.Lock()
        self._looked_at = -math.inf
        self._looked = trio.Event()
        self._looked.set()

    @property
    def content(self) -> T:
        """What holds.

        Raises:
            NothingReadError: nothing was read yet.
        """
        if not self._content:
            raise NothingReadError(self.problem or "it is being read for the first time")
        return self._content[0]

    def content_or(self, nothing: V) -> T | V:
        """What holds; `nothing` if nothing was read yet."""
        return self._content[0] if self._content else nothing

    def begin(self) -> T:
        """Read the files, and tell nobody; blocks.

        Raises:
            Exception: what `read` raises.
        """
        with self._reading:
            stamps = stamps_of(self._files)
            content = self._read()
            self._take(content, stamps)
            return content

    def look(self, *, wait: bool = False) -> None:
        """Read the files if they have changed; blocks.

        Args:
            wait: for another thread that reads just now. Else this one does nothing then: files
                are not read faster by two.
        """
        if not self._reading.acquire(blocking=wait):
            return
        try:
            self._look()
        finally:
            self._reading.release()

    def _look(self) -> None:
        stamps, self._old = stamps_of(self._files), False
        if stamps == self._stamps:
            return
        try:
            content = self._read()
        except BeingWrittenError as error:
            if not self._content:
                self.problem = str(error)
        except self._wrong as error:
            self.problem = str(error)
            self._stamps = None if _is_of_disk(error) else stamps
            if (told := (stamps, self.problem)) != self._told:
                self._told = told
                self._refused(error)
        else:
            problem = self.problem
            self._take(content, stamps)
            self._renewed(content, problem)

    def _take(self, content: T, stamps: Stamps) -> None:
        self._content, self._stamps = [content], stamps
        self.problem, self._told = "", None

    def glance(self) -> None:
        """See whether the files are others by now, and leave it to others to read them.

        This blocks no longer than to ask a disk for what it knows of them.
        """
        self._old = stamps_of(self._files) != self._stamps

    @property
    def old(self) -> bool:
        """Whether it was seen that the files are others, and nobody has looked since."""
        return self._old

    async def fresh(self, every: float, in_thread: InThread, *, patience: float = math.inf) -> None:
        """Look, if that is due. Who comes while somebody looks has what was read before, if any.

        Args:
            every: seconds between two looks.
            in_thread: runs what blocks.
            patience: seconds that the disk gets, before what was read goes on being believed.
        """
        now = trio.current_time()
        if now - self._looked_at >= every and not self._reading.locked():
            self._looked_at, self._looked = now, trio.Event()
            try:
                with trio.move_on_after(patience):
                    await in_thread(self.look)
            finally:
                self._looked.set()
        elif not self._content:
            await self._looked.wait()

    async def run(self, every: float, in_thread: InThread) -> None:
        """Look time and again, until cancelled; the arguments are those of `fresh`."""
        while True:
            await trio.sleep(every)
            await in_thread(self.look)


def _is_of_disk(error: Exception) -> bool:
    """Whether nothing is known of what is in the files; who says so in words of his own, chains."""
    return any(
        isinstance(each, OSError) and not isinstance(each, TooLargeError)
        for each in (error, error.__cause__)
    )
