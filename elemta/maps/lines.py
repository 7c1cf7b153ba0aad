"""What stands in a map's file: keys and their values, a line each.

The rules of this file:

- A million lines are read in seconds, beside a loop that mail waits for: of two threads that both
  compute, the other one gets 5 ms at a time. So lines come a few at a time (`SLICE`), with a rest
  between; nothing here takes long at once, also not to grow, or to be thrown away.
- What is kept of a line are two strings, so that no collection of garbage ever looks at them.
- Most lines are plain, and one expression reads them, many at a time. Where there are others, all
  lines beside them are read word by word, and that would read the plain ones to the same (tests
  hold the two together).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from elemta.maps.source import values_of
from elemta.protocol import Mailbox, domain_to_ascii, parse_mailbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import BinaryIO

#: Octets that are read and understood before others get their turn: a millisecond or two.
SLICE: Final = 16 * 1024
#: Octets and keys of a file that are too many: it stands in memory as a whole, and twice while it
#: is read again.
MOST: Final = 256 * 2**20
MOST_KEYS: Final = 3_000_000
#: Octets of a line, with what goes on with it and what is said beside it, that are too many.
LONGEST: Final = 2**20

#: Into how many tables keys are spread: one alone would hold everybody up when it grows.
_SHARDS: Final = 16
#: Keys that are forgotten before others get their turn.
_GIVEN_BACK: Final = 2000

#: Lines with a key in the form in which it is compared, and one value.
_PLAIN: Final = re.compile(
    r"^((?:[a-z0-9+_=-]++(?:\.[a-z0-9+_=-]++)*+@)?[a-z0-9._-]{1,150}+):?[ \t]++"
    r"(?![|/:,])([^\s,\"]++)[ \t\r]*+$",
    re.MULTILINE,
)
#: Octets of a key that is short enough to have no local part of more than 64 (RFC 5321 §4.5.3.1.1).
_SHORT: Final = 65


class LineError(ValueError):
    """A line that is not understood.

    Attributes:
        number: from 1.
    """

    def __init__(self, number: int, problem: str) -> None:
        super().__init__(f"line {number}: {problem}")
        self.number = number


class RetiredError(Exception):
    """This content is none any more: there is another."""


class Content:
    """Keys and what stands behind them. Whoever reads it may be another than who retires it."""

    def __init__(self) -> None:
        self._shards: list[dict[str, str]] = [{} for _ in range(_SHARDS)]
        self._retired = False

    def __len__(self) -> int:
        return sum(map(len, self._shards))

    def get(self, key: str) -> tuple[str, ...] | None:
        """The values of a key; None: it is not there.

        Raises:
            RetiredError: nobody knows any more.
        """
        found = self._shards[hash(key) % _SHARDS].get(key)
        if found is not None:
            return values_of(found)
        if self._retired:  # before anything went, so who looked too late sees this
            raise RetiredError
        return None

    def add(self, pairs: Sequence[tuple[str, str]]) -> int | None:
        """Take keys and their values, with commas between them.

        Returns:
            Which of them is there already; then this is of no use. None: none is.
        """
        parted: list[list[tuple[str, str]]] = [[] for _ in range(_SHARDS)]
        for pair in pairs:
            parted[hash(pair[0]) % _SHARDS].append(pair)
        tables = [dict(some) for some in parted]
        for shard, table, some in zip(self._shards, tables, parted, strict=True):
            if len(table) < len(some) or not shard.keys().isdisjoint(table):
                return self._there(pairs)
        for shard, table in zip(self._shards, tables, strict=True):
            shard.update(table)
        return None

    def _there(self, pairs: Sequence[tuple[str, str]]) -> int:
        seen: set[str] = set()
        for place, (key, _) in enumerate(pairs):
            if key in seen or key in self._shards[hash(key) % _SHARDS]:
                return place
            seen.add(key)
        raise AssertionError("one was there")

    def retire(self, rest: Callable[[], None]) -> None:
        """Give the memory back, a bit at a time."""
        self._retired = True
        for shard in self._shards:
            while shard:
                for _ in range(min(_GIVEN_BACK, len(shard))):
                    shard.popitem()
                rest()


def read_content(file: BinaryIO, rest: Callable[[], None]) -> Content:
    """Keys and their values, of a file from where it stands to its end; blocks.

    Args:
        file: opened.
        rest: called every millisecond or two, for others to have their turn.

    Raises:
        OSError: it cannot be read.
        ValueError: it is too large; or, as a `LineError`, a line is not understood or no UTF-8, or
            it has a key that another has.
    """
    content = Content()
    for number, text in _pieces(file):
        pairs = _plain(text)
        if pairs is not None:
            place = content.add(pairs)
            if place is not None:
                raise LineError(number + place, f"{pairs[place][0]!r} is there already")
        else:
            for begun, line in _logical(enumerate(text.split("\n"), number)):
                key, values = _read(begun, line)
                if content.add([(key, values)]) is not None:
                    raise LineError(begun, f"{key!r} is there already")
        if len(content) > MOST_KEYS:
            raise ValueError(f"more than {MOST_KEYS} keys: a database has room for them")
        rest()
    return content


def _pieces(file: BinaryIO) -> Iterator[tuple[int, str]]:
    """Some lines at a time, and the number of the first; what goes on with a line is beside it."""
    number, octets, held = 1, 0, b""
    while piece := file.read(SLICE):
        octets += len(piece)
        if octets > MOST:
            raise ValueError(f"more than {MOST} octets: a database has room for them")
        held += piece
        # The last line is not whole yet, and the one before it may go on in it.
        end = held.rfind(b"\n", 0, held.rfind(b"\n"))
        while end >= 0 and held[end + 1 : end + 2].strip() in (b"", b"#"):
            end = held.rfind(b"\n", 0, end)
        if end < 0:
            if len(held) > LONGEST:
                raise LineError(number, f"more than {LONGEST} octets that go on with it")
            continue
        whole, held = held[:end], held[end + 1 :]
        yield number, _decoded(whole, number)
        number += whole.count(b"\n") + 1
    if held:
        yield number, _decoded(held, number)


def _plain(text: str) -> Sequence[tuple[str, str]] | None:
    """Keys and values of lines that have nothing special about them; None: some may have."""
    pairs: list[tuple[str, str]] = _PLAIN.findall(text)
    if len(pairs) <= text.count("\n"):
        return None
    keys = [key for key, _ in pairs]
    if len(max(keys, key=len)) > _SHORT:
        return None
    for domain in {key.partition("@")[2] for key in keys if "@" in key}:
        try:
            if _compared(domain) != domain:
                return None
        except ValueError:
            return None
    return pairs


def _decoded(octets: bytes, number: int) -> str:
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError as error:
        number += octets.count(b"\n", 0, error.start)
        raise LineError(number, "it is no utf-8") from None


def _logical(lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Lines that say something, with those that go on with them, and where they begin."""
    begun, line = 0, ""
    for number, each in lines:
        if not each or each.isspace() or each.lstrip().startswith("#"):
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


def _read(number: int, line: str) -> tuple[str, str]:
    """A key and its values, of a line that may be anything.

    Raises:
        LineError: it is not understood.
    """
    key, rest = _cut(line)
    values = values_of(rest)
    if not values:
        raise LineError(number, f"expected a key and its values, not {line.strip()!r}")
    if values[0].startswith((":include:", "|", "/")):
        raise LineError(number, f"files and programs get no mail by a map: {values[0]!r}")
    try:
        return key_of(key), ",".join(values)
    except ValueError as error:
        raise LineError(number, f"{key!r} is no key: {error}") from None


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
        return f"@{_compared(text[1:])}"
    local_part, _, domain = text.rpartition("@")
    if not domain.startswith("["):
        domain = _compared(domain)
    mailbox = parse_mailbox(f"{local_part}@{domain}")
    return str(Mailbox(mailbox.local_part.lower(), mailbox.domain))


#: Of the few domains that a million addresses have: IDNA takes 50 µs.
_compared: Final = lru_cache(maxsize=10_000)(domain_to_ascii)
