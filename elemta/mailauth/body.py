"""The body of a message as signatures see it (RFC 6376 §3.4.3 and §3.4.4), and its digests.

Takes time in proportion to the body, whatever is in it: a run of a million spaces costs dkimpy's
expressions a million times a million steps.
"""

from __future__ import annotations

import hashlib
from typing import Literal, TypeAlias

Canonical: TypeAlias = Literal[b"simple", b"relaxed"]


class Body:
    """A body, and what was made of it: several signatures mostly want the same.

    Args:
        octets: what is behind the empty line. Only CRLF ends a line.
    """

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self._made: dict[Canonical, bytes] = {}
        self._digests: dict[Canonical, bytes] = {}

    def made(self, canonical: Canonical) -> bytes:
        """The body in a canonical form."""
        found = self._made.get(canonical)
        if found is None:
            made = relaxed(self._octets) if canonical == b"relaxed" else simple(self._octets)
            found = self._made[canonical] = made
        return found

    def digest(self, canonical: Canonical) -> bytes:
        """The SHA-256 of that."""
        found = self._digests.get(canonical)
        if found is None:
            found = self._digests[canonical] = hashlib.sha256(self.made(canonical)).digest()
        return found


def simple(body: bytes) -> bytes:
    """One CRLF at the end, and no empty line before it (RFC 6376 §3.4.3)."""
    return _without_empty_lines(body) + b"\r\n"


def relaxed(body: bytes) -> bytes:
    """The same, and spaces neither at the end of a line nor two in a row; empty if it is empty."""
    if b"\t" in body:
        body = body.replace(b"\t", b" ")
    while b"  " in body:
        body = body.replace(b"  ", b" ")  # each time of half as many
    body = _without_empty_lines(body.replace(b" \r\n", b"\r\n"))
    return body + b"\r\n" if body else b""


def _without_empty_lines(body: bytes) -> bytes:
    """All but the CRLFs at the end."""
    kept = body.rstrip(b"\r\n")
    end = body[len(kept) :]
    if len(end) == 2 * end.count(b"\r\n"):
        return kept
    # A bare CR or LF, which no client may send.
    while end.endswith(b"\r\n"):
        end = end[:-2]
    return kept + end
