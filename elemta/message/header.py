"""Finds the header of a message and its fields, and leaves every other octet alone.

Only CRLF ends a line here: what else a peer may have sent is the business of
`elemta.protocol`'s framing, which lets nothing else through.
"""

from __future__ import annotations

import enum
import re
from typing import Final

#: A header ends at the first line that has nothing in it (RFC 5322 §2.1).
_END: Final = b"\r\n\r\n"
#: What unfolding takes away (RFC 5322 §2.2.3).
_FOLD: Final = re.compile(rb"\r\n(?=[ \t])")
#: Where a field ends.
_FIELD_END: Final = re.compile(rb"\r\n(?![ \t])")
_NAME: Final = re.compile(rb"[!-9;-~]+")


class HeaderFault(enum.Enum):
    """Why a header must be refused. The first that holds is told."""

    TOO_LONG = "header has too many octets"
    TOO_MANY_LINES = "header has too many lines"


class HeaderScanner:
    """Collects the header of a message while the message streams by.

    How the stream was cut never shows in what it finds, and what it keeps is bounded. A message
    that is nothing but a header has no line that ends it; what is said of it here is right once
    all of it was fed, though `done` stays false.

    Args:
        max_octets: of the header, without the empty line that ends it.
        max_lines: likewise.

    Attributes:
        done: the end of the header was seen, or it has too many octets. Ask nothing before that
            (or the end of the message): each answer would cost a search of all that is held.
    """

    __slots__ = ("_fields", "_held", "_hops", "_max_lines", "_max_octets", "_too_long", "done")

    def __init__(self, max_octets: int = 128 * 1024, max_lines: int = 1000) -> None:
        self.done = False
        self._max_octets = max_octets
        self._max_lines = max_lines
        #: Begins with a CRLF of our own, as if there were a line before the first.
        self._held = bytearray(b"\r\n")
        self._too_long = False
        self._hops: int | None = None
        self._fields: list[tuple[bytes, bytes]] | None = None

    def feed(self, octets: bytes) -> None:
        """Take the next octets of the message; ignored when `done`."""
        if self.done:
            return
        held = self._held
        seen = len(held)
        held += octets
        end = held.find(_END, max(0, seen - 3))
        # If the end is not here, it is not before the last three octets either.
        size = end if end >= 0 else len(held) - 3
        if size > self._max_octets:
            self._too_long = self.done = True
            del held[2 + self._max_octets :]
        elif end >= 0:
            self.done = True
            del held[end + 2 :]
        self._hops = self._fields = None

    @property
    def fault(self) -> HeaderFault | None:
        """Why the message must be refused, or None."""
        if self._too_long:
            return HeaderFault.TOO_LONG
        if self._held.count(b"\r\n") - 1 > self._max_lines:
            return HeaderFault.TOO_MANY_LINES
        return None

    @property
    def hops(self) -> int:
        """How many Received fields there are: how many servers had the message before us."""
        if self._hops is None:
            # Nearly every header is counted without being parsed, which would take 20 times as
            # long. Only what is odd, such as "Received :", is looked at closely.
            lower = self._held.lower()
            self._hops = lower.count(b"\r\nreceived:")
            others = lower.count(b"\r\nreceived") - self._hops
            if others and others != lower.count(b"\r\nreceived-"):
                self._hops = sum(name == b"received" for name, _ in self.fields)
        return self._hops

    @property
    def header(self) -> bytes:
        """The header as it came, each line with its CRLF; cut off if it has too many octets."""
        return bytes(self._held[2:])

    @property
    def fields(self) -> list[tuple[bytes, bytes]]:
        """Names in lower case, and values unfolded, without the spaces round them.

        Lines that are no fields are passed over.
        """
        if self._fields is None:
            self._fields = [
                (name, line.partition(b":")[2].strip(b" \t"))
                for line in _FOLD.sub(b"", bytes(self._held)).split(b"\r\n")
                if (name := _name(line))
            ]
        return self._fields

    def named(self, name: bytes) -> list[bytes]:
        """The values of all fields with this name (lower case), as in `fields`, from the top.

        The others are not parsed, which takes a tenth of the time where there are few.
        """
        if self._fields is not None:
            return [value for each, value in self._fields if each == name]
        held = self._held
        lower, begin = held.lower(), b"\r\n" + name
        found: list[bytes] = []
        place = lower.find(begin)
        while place >= 0:
            end = _FIELD_END.search(held, place + 2)
            line = bytes(held[place + 2 : end.start() if end else len(held)])
            line = _FOLD.sub(b"", line)
            if _name(line) == name:
                found.append(line.partition(b":")[2].strip(b" \t"))
            place = lower.find(begin, place + 2)
        return found

    def first(self, name: bytes) -> bytes | None:
        """The value of the first field with this name (lower case), unfolded, or None."""
        return next(iter(self.named(name)), None)

    def has(self, name: bytes) -> bool:
        """Whether there is a field with this name (lower case)."""
        return bool(self.named(name))

    def values(self, name: str) -> list[str]:
        """The values of all fields with this name (in any case) as text, unfolded.

        Octets that are no UTF-8 (RFC 6532) are replaced.
        """
        return [value.decode("utf-8", "replace") for value in self.named(name.lower().encode())]


def split(content: bytes) -> tuple[bytes, bytes]:
    """Cut a message into its header and the rest, which begins with the empty line, if any."""
    if content.startswith(b"\r\n"):
        return b"", content
    end = content.find(_END)
    return (content, b"") if end < 0 else (content[: end + 2], content[end + 2 :])


def without(header: bytes, *names: bytes) -> bytes:
    """The header without the fields of these names (lower case), every other octet as it was."""
    kept: list[bytes] = []
    dropping = False
    for line in header.split(b"\r\n"):
        if not line.startswith((b" ", b"\t")):
            dropping = _name(line) in names
        if not dropping:
            kept.append(line)
    return b"\r\n".join(kept)


def _name(line: bytes) -> bytes:
    """The name of the field that begins in this line, in lower case; empty if none does."""
    name, colon, _ = line.partition(b":")
    # Spaces before the colon are obsolete, but must be read (RFC 5322 §4.5).
    name = name.rstrip(b" \t")
    return name.lower() if colon and _NAME.fullmatch(name) else b""
