"""A map in a file of text, as postmasters have had them for decades.

::

    # A comment.
    bob@example.org   bob@example.net, "carol s"@example.com
    postmaster:       bob
        carol

The rules of this file:

- A key is followed by spaces or by a colon (as in ``/etc/aliases``). A line that begins with a
  space goes on with the one before it.
- What changes is read again, in a thread, a second later at most. If it has a mistake, the log
  names the line, and what was read before holds on.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Final

import trio

from elemta.log import logger
from elemta.maps.source import MapDownError, parts_of, values_of
from elemta.protocol import domain_to_ascii, parse_mailbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from elemta.maps.source import InThread

log = logger(__name__)

#: Seconds between two looks at whether the file has changed.
PAUSE: Final = 1.0
#: Octets of a file that are too many: it stands in memory as a whole.
MOST: Final = 256 * 2**20

_READING: Final = "it is being read for the first time"
_OLD: Final = "it has changed, and is to be read again"

Content = dict[str, tuple[str, ...]]
#: By which a file is known to be the same: time of change, size, inode.
Stamp = tuple[int, int, int]


class LineError(ValueError):
    """A line that is not understood.

    Attributes:
        number: from 1.
    """

    def __init__(self, number: int, problem: str) -> None:
        super().__init__(f"line {number}: {problem}")
        self.number = number


class File:
    """See `Source`. A key that is an address is found by its local part alone, too.

    Args:
        path: of the file.
        in_thread: reads it.
        clock: seconds from anywhere, for threads too.
    """

    def __init__(
        self, path: Path, in_thread: InThread, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._path = path
        self._in_thread = in_thread
        self._clock = clock
        self._content: Content | None = None
        self._stamp: Stamp | None = None
        self._problem = _READING
        self._looked_at = -PAUSE
        self._looked = trio.Event()
        #: When it was seen last whether the file is another by now, and that it is.
        self._glanced_at = clock()
        self._old = False
        #: Held by the thread that reads, which goes on when nobody waits any more.
        self._reading = threading.Lock()

    async def find(self, key: str, *, exact: bool = False) -> tuple[str, ...] | None:
        """See `Source`."""
        now = trio.current_time()
        if now - self._looked_at >= PAUSE and not self._reading.locked():
            self._looked_at, self._looked = now, trio.Event()
            try:
                await self._in_thread(self._look)
            finally:
                self._looked.set()
        elif self._content is None:
            await self._looked.wait()
        # Else who comes while somebody looks has what was read before.
        if self._content is None:
            raise MapDownError(self._problem)
        found = self._content.get(key)
        if found is None and not exact and "@" in key:
            found = self._content.get(parts_of(key)[0] or key)
        return found

    def known(self, key: str) -> tuple[str, ...] | None:
        """The same by what stands in memory, an address by itself alone. Waits for nothing.

        Raises:
            MapDownError: what stands there may be old, or nothing does yet.
        """
        content, now = self._content, self._clock()
        if content is None or self._old:
            raise MapDownError(self._problem or _OLD)
        if now - self._glanced_at >= PAUSE:  # the loop has microseconds for that, once a second
            self._glanced_at = now
            try:
                self._old = _stamp(self._path.stat()) != self._stamp
            except OSError:
                self._old = True
            if self._old:
                raise MapDownError(_OLD)
        return content.get(key)

    def close(self) -> None:
        """See `Source`: nothing is open."""

    def _look(self) -> None:
        """In a thread: what it has read counts, though whoever wanted it may have given up.

        Else a file that takes longer to read than clients wait would never be read.
        """
        if not self._reading.acquire(blocking=False):
            return
        try:
            self._read()
        except OSError as error:
            self._stamp = None
            self._refuse(error.strerror or str(error))
        except ValueError as error:
            self._refuse(str(error))
        finally:
            self._old = False
            self._reading.release()

    def _read(self) -> None:
        """Read the file, if it is not what it was.

        Raises:
            OSError: it cannot be read.
            ValueError: it is too large, no UTF-8, or has a line that is not understood.
        """
        with self._path.open("rb") as file:
            stamp = _stamp(os.fstat(file.fileno()))
            if stamp == self._stamp:
                return
            octets = file.read(MOST + 1)
        self._stamp = stamp  # also of a wrong one: it is no better until it changes
        content = _understood(octets)
        if self._problem not in ("", _READING):
            log.info("map.readable", file=str(self._path), keys=len(content))
        self._content, self._problem = content, ""

    def _refuse(self, why: str) -> None:
        problem = f"{self._path}: {why}"
        if problem != self._problem:
            log.error(
                "map.unreadable", file=str(self._path), problem=problem,
                holds="what was read before" if self._content is not None else "nothing",
            )  # fmt: skip
        self._problem = problem


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_mtime_ns, status.st_size, status.st_ino


def look_at(path: Path) -> None:
    """Read a file as a map would, for who wants to know beforehand.

    Raises:
        OSError: it cannot be read.
        ValueError: it is too large, no UTF-8, or has a line that is not understood.
    """
    with path.open("rb") as file:
        _understood(file.read(MOST + 1))


def _understood(octets: bytes) -> Content:
    if len(octets) > MOST:
        raise ValueError(f"more than {MOST} octets")
    return content_of(octets.decode("utf-8"))


def content_of(text: str) -> Content:
    """Keys and their values.

    Raises:
        LineError: a line is not understood, or has a key that another has.
    """
    content: Content = {}
    for number, line in _logical(text):
        key, rest = _cut(line)
        values = values_of(rest)
        if not values:
            raise LineError(number, f"expected a key and its values, not {line.strip()!r}")
        if values[0].startswith((":include:", "|", "/")):
            raise LineError(number, f"files and programs get no mail by a map: {values[0]!r}")
        try:
            key = key_of(key)
        except ValueError as error:
            raise LineError(number, f"{key!r} is no key: {error}") from None
        if key in content:
            raise LineError(number, f"{key!r} is there already")
        content[key] = values
    return content


def _logical(text: str) -> Iterator[tuple[int, str]]:
    """Lines that say something, with those that go on with them, and where they begin."""
    begun, line = 0, ""
    for number, each in enumerate(text.split("\n"), 1):  # as editors count them
        if not each.strip() or each.lstrip().startswith("#"):
            continue
        if each[0].isspace():
            if not begun:
                raise LineError(number, "it goes on with a line that is not there")
            line += each
            continue
        if begun:
            yield begun, line
        begun, line = number, each
    if begun:
        yield begun, line


def _cut(line: str) -> tuple[str, str]:
    """The key, which ends at a space or at a colon before one, and the rest."""
    quoted = False
    for place, sign in enumerate(line):
        if sign == '"':
            quoted = not quoted
        elif not quoted:
            if sign.isspace():
                return line[:place], line[place:].lstrip().removeprefix(":")
            if sign == ":" and not line[place + 1 : place + 2].strip():
                return line[:place], line[place + 1 :]
    return line, ""


def key_of(text: str) -> str:
    """The form in which keys are compared: lower case, A-labels, quoted where that is needed.

    Raises:
        ValueError: it is no address.
    """
    if "@" not in text:
        return text.strip('"').lower()
    if text.startswith("@"):
        return f"@{domain_to_ascii(text[1:])}"
    mailbox = parse_mailbox(text)
    local_part = str(type(mailbox)(mailbox.local_part.lower(), "x")).removesuffix("@x")
    domain = mailbox.domain
    return f"{local_part}@{domain if domain.startswith('[') else domain_to_ascii(domain)}"
