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

import time
from typing import TYPE_CHECKING, Final

from elemta.files import NothingReadError, TooLargeError, Watched, read_file
from elemta.log import logger
from elemta.maps.source import MapDownError, parts_of, values_of
from elemta.protocol import domain_to_ascii, parse_mailbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from elemta.threads import InThread

log = logger(__name__)

#: Seconds between two looks at whether the file has changed.
PAUSE: Final = 1.0
#: Octets of a file that are too many: it stands in memory as a whole.
MOST: Final = 256 * 2**20

_OLD: Final = "it has changed, and is to be read again"

Content = dict[str, tuple[str, ...]]


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
        self._file = Watched(
            (path,), self._read, renewed=self._hear_renewed, refused=self._hear_refused
        )
        #: When it was seen last whether the file is another by now.
        self._glanced_at = clock()

    async def find(self, key: str, *, exact: bool = False) -> tuple[str, ...] | None:
        """See `Source`."""
        await self._file.fresh(PAUSE, self._in_thread)
        content = self._content()
        found = content.get(key)
        if found is None and not exact and "@" in key:
            found = content.get(parts_of(key)[0] or key)
        return found

    def known(self, key: str) -> tuple[str, ...] | None:
        """The same by what stands in memory, an address by itself alone. Waits for nothing.

        Raises:
            MapDownError: what stands there may be old, or nothing does yet.
        """
        content, now = self._content(), self._clock()
        if now - self._glanced_at >= PAUSE and not self._file.old:
            self._glanced_at = now
            self._file.glance()  # the loop has microseconds for that, once a second
        if self._file.old:
            raise MapDownError(self._file.problem or _OLD)
        return content.get(key)

    def close(self) -> None:
        """See `Source`: nothing is open."""

    def _content(self) -> Content:
        try:
            return self._file.content
        except NothingReadError as error:
            raise MapDownError(str(error)) from None

    def _read(self) -> Content:
        try:
            return _read(self._path)
        except OSError as error:
            raise ValueError(f"{self._path}: {error.strerror or error}") from error
        except ValueError as error:
            raise ValueError(f"{self._path}: {error}") from error

    def _hear_renewed(self, content: Content, problem: str) -> None:
        if problem:
            log.info("map.readable", file=str(self._path), keys=len(content))

    def _hear_refused(self, error: Exception) -> None:
        holds = "what was read before" if self._file.content_or({}) else "nothing"
        log.error("map.unreadable", file=str(self._path), problem=str(error), holds=holds)


def look_at(path: Path) -> None:
    """Read a file as a map would, for who wants to know beforehand.

    Raises:
        OSError: it cannot be read.
        ValueError: it is too large, no UTF-8, or has a line that is not understood.
    """
    _read(path)


def _read(path: Path) -> Content:
    try:
        octets = read_file(path, MOST).octets
    except TooLargeError:
        raise ValueError(f"more than {MOST} octets") from None
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
