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

    def measured(self, canonical: Canonical) -> Measure:
        """The body in a canonical form."""
        found = self._found.get(canonical)
        if found is None:
            found = self._found[canonical] = self._measure(canonical)
        return found

    def _measure(self, canonical: Canonical) -> Measure:
        digest, size, empty = hashlib.sha256(), 0, 0
        for piece in self._pieces():
            made = _reduced(piece) if canonical == b"relaxed" else piece
            kept = made.rstrip(b"\r\n")
            ends = made[len(kept) :]
            if len(ends) != 2 * ends.count(b"\r\n"):
                kept, ends = made, b""  # a bare CR or LF, which no client may send
            if kept:
                size += 2 * empty + len(kept)
                while empty > 0:
                    digest.update(_LINE_ENDS[: 2 * empty])
                    empty -= len(_LINE_ENDS) // 2
                digest.update(kept)
                empty = 0
            empty += len(ends) // 2
        if size or canonical == b"simple":
            size += 2
            digest.update(b"\r\n")
        return Measure(size, digest.digest())

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
