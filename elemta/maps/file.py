"""A map in a file of text, as postmasters have had them for decades.

::

    # A comment.
    bob@example.org   bob@example.net, "carol s"@example.com
    postmaster:       bob
        carol

The rules of this file:

- A key is followed by spaces or by a colon (as in ``/etc/aliases``). A line that begins with a
  space goes on with the one before it.
- What changes is read again, in a thread, once it has been left alone for a moment. If it has a
  mistake, the log names the line, and what was read before holds on.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final

from elemta.files import BeingWrittenError, NothingReadError, Watched, open_file
from elemta.log import logger
from elemta.maps.lines import RetiredError, read_content
from elemta.maps.source import MapDownError, parts_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from elemta.maps.lines import Content
    from elemta.threads import InThread

log = logger(__name__)

#: Seconds between two looks at whether the file has changed.
PAUSE: Final = 1.0
#: Seconds for which a file that has changed must have been left alone, so that no half of it
#: counts: of a mailbox that is not in it yet, senders would hear that it does not exist.
SETTLED: Final = 2.0

_OLD: Final = "it has changed, and is to be read again"


class File:
    """See `Source`. A key that is an address is found by its local part alone, too.

    Args:
        path: of the file.
        in_thread: reads it.
        clock: seconds from anywhere, for threads too.
        wall: seconds since the epoch, as the file's disk has them.
    """

    def __init__(
        self,
        path: Path,
        in_thread: InThread,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        self._in_thread = in_thread
        self._clock = clock
        self._wall = wall
        #: What is to be forgotten once there is something in its place.
        self._before: Content | None = None
        self._file: Watched[Content] = Watched(
            (path,), self._read, renewed=self._hear_renewed, refused=self._hear_refused
        )
        #: When it was seen last whether the file is another by now.
        self._glanced_at = clock()

    async def find(self, key: str, *, exact: bool = False) -> tuple[str, ...] | None:
        """See `Source`."""
        await self._file.fresh(PAUSE, self._in_thread)
        found = self._get(key)
        if found is None and not exact and "@" in key:
            found = self._get(parts_of(key)[0] or key)
        return found

    def known(self, key: str) -> tuple[str, ...] | None:
        """The same by what stands in memory, an address by itself alone. Waits for nothing.

        Raises:
            MapDownError: what stands there may be old, or nothing does yet.
        """
        now = self._clock()
        if now - self._glanced_at >= PAUSE and not self._file.old:
            self._glanced_at = now
            self._file.glance()  # the loop has microseconds for that, once a second
        if self._file.old:
            raise MapDownError(self._file.problem or _OLD)
        return self._get(key)

    def close(self) -> None:
        """See `Source`: nothing is open."""

    def _get(self, key: str) -> tuple[str, ...] | None:
        while True:
            try:
                return self._file.content.get(key)
            except RetiredError:  # there is another already
                continue
            except NothingReadError as error:
                raise MapDownError(str(error)) from None

    def _read(self) -> Content:
        self._before = self._file.content_or(None)
        try:
            with open_file(self._path) as file:
                began = os.fstat(file.fileno())
                self._mistrust(began)
                content = read_content(file, _Resting())
                ended = os.fstat(file.fileno())
        except OSError as error:
            raise ValueError(f"{self._path}: {error.strerror or error}") from error
        except ValueError as error:
            raise ValueError(f"{self._path}: {error}") from error
        if (began.st_mtime_ns, began.st_size) != (ended.st_mtime_ns, ended.st_size):
            raise BeingWrittenError("it is being written just now")
        return content

    def _mistrust(self, status: os.stat_result) -> None:
        """Leave what was read before in its place where the file may not be whole."""
        if self._before is None:
            return
        if abs(self._wall() - status.st_mtime) < SETTLED:
            raise BeingWrittenError("it was changed a moment ago")
        if not status.st_size:
            raise ValueError("it is empty by now; if that is meant, give it a comment")

    def _hear_renewed(self, content: Content, problem: str) -> None:
        if problem:
            log.info("map.readable", file=str(self._path), keys=len(content))
        before, self._before = self._before, None
        if before is not None:
            before.retire(_Resting())

    def _hear_refused(self, error: Exception) -> None:
        holds = "what was read before" if self._file.content_or(None) else "nothing"
        log.error("map.unreadable", file=str(self._path), problem=str(error), holds=holds)


def look_at(path: Path) -> None:
    """Read a file as a map would, for who wants to know beforehand.

    Raises:
        OSError: it cannot be read.
        ValueError: it is too large, no UTF-8, or has a line that is not understood.
    """
    with open_file(path) as file:
        read_content(file, _go_on)


def _go_on() -> None:
    """Nobody else wants a turn."""


class _Resting:
    """Lets whoever else computes have as much time as we take."""

    def __init__(self) -> None:
        self._since = time.perf_counter()

    def __call__(self) -> None:
        time.sleep(time.perf_counter() - self._since)
        self._since = time.perf_counter()
