"""A message cut in two, and its body as signatures see it (RFC 6376 §3.4.3 and §3.4.4).

Takes time in proportion to the body, whatever is in it: a run of a million spaces costs dkimpy's
expressions a million times a million steps. And no memory to speak of: nothing is copied whole.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterator

Canonical: TypeAlias = Literal[b"simple", b"relaxed"]

#: Octets that are looked at in one piece, unless a line is longer.
_PIECE: Final = 512 * 1024
_LINE_ENDS: Final = b"\r\n" * 4096


class Measure(Struct, frozen=True):
    """A body in a canonical form.

    Attributes:
        size: its octets.
        digest: its SHA-256.
    """

    size: int
    digest: bytes


class Measuring:
    """Measures a body that comes piece by piece, however it is cut.

    Args:
        canonical: in which form.
    """

    def __init__(self, canonical: Canonical) -> None:
        self._relaxed = canonical == b"relaxed"
        self._digest = hashlib.sha256()
        self._size = 0
        #: Empty lines that count if something stands behind them.
        self._empty = 0
        #: Of the last line, which has not ended yet.
        self._begun: list[bytes] = []

    def feed(self, octets: bytes) -> None:
        """The next octets."""
        if b"\n" in octets:
            if self._begun:
                octets = b"".join([*self._begun, octets])
                self._begun.clear()
            last = octets.rfind(b"\r\n")
            if last >= 0 and last == len(octets) - 2:
                self._take(octets)
                return
            if last >= 0:
                self._take(octets[: last + 2])
                octets = octets[last + 2 :]
        if octets:
            self._begun.append(octets)

    def measure(self) -> Measure:
        """All of it, once it is there."""
        if self._begun:
            self._take(b"".join(self._begun))
            self._begun.clear()
        if self._size or not self._relaxed:
            self._size += 2
            self._digest.update(b"\r\n")
        return Measure(self._size, self._digest.digest())

    def _take(self, lines: bytes) -> None:
        """Whole lines; the last one of all may lack its end."""
        made = _reduced(lines) if self._relaxed else lines
        kept = made.rstrip(b"\r\n")
        ends = made[len(kept) :]
        if len(ends) != 2 * ends.count(b"\r\n"):
            kept, ends = made, b""  # a bare CR or LF, which no client may send
        if kept:
            self._size += 2 * self._empty + len(kept)
            while self._empty > 0:
                self._digest.update(_LINE_ENDS[: 2 * self._empty])
                self._empty -= len(_LINE_ENDS) // 2
            self._digest.update(kept)
            self._empty = 0
        self._empty += len(ends) // 2


class Body:
    """A body, and what was found out about it: several signatures mostly want the same.

    Args:
        message: it is part of. Only CRLF ends a line.
        start: where it begins.
    """

    def __init__(self, message: bytes, start: int) -> None:
        self._message = message
        self._start = start
        self._found: dict[Canonical, Measure] = {}

    @property
    def size(self) -> int:
        """Octets."""
        return len(self._message) - self._start

    def measured(self, canonical: Canonical) -> Measure:
        """The body in a canonical form."""
        found = self._found.get(canonical)
        if found is None:
            found = self._found[canonical] = self._measure(canonical)
        return found

    def _measure(self, canonical: Canonical) -> Measure:
        measuring = Measuring(canonical)
        for piece in self._pieces():
            measuring.feed(piece)
        return measuring.measure()

    def _pieces(self) -> Iterator[bytes]:
        """Whole lines."""
        message, start, size = self._message, self._start, len(self._message)
        while start < size:
            end = start + _PIECE
            if end < size:
                last = message.rfind(b"\r\n", start, end)
                if last < 0:
                    last = message.find(b"\r\n", end - 1)
                end = size if last < 0 else last + 2
            yield message[start:end]
            start = end


def cut(message: bytes) -> tuple[bytes, Body]:
    """The header of a message, each line with its CRLF, and its body."""
    if message.startswith(b"\r\n"):
        return b"", Body(message, 2)
    end = message.find(b"\r\n\r\n")
    if end < 0:
        return message, Body(message, len(message))
    return message[: end + 2], Body(message, end + 4)


def _reduced(lines: bytes) -> bytes:
    """Neither spaces at the end of a line nor two in a row."""
    if b"\t" in lines:
        lines = lines.replace(b"\t", b" ")
    while b"  " in lines:
        lines = lines.replace(b"  ", b" ")  # each time of half as many
    return lines.replace(b" \r\n", b"\r\n")
