"""Replies: what a server says back (RFC 5321 §4.2, RFC 3463)."""

from __future__ import annotations

import enum
from typing import Final, TypeAlias

from msgspec import Struct
from typing_extensions import override

from elemta.protocol.errors import LocalProtocolError

#: Octets in one reply line that we write, CRLF included (RFC 5321 §4.5.3.1.5).
MAX_LINE: Final = 512

#: Octets in a line that carries a challenge, CRLF included (RFC 4954 §4).
MAX_CHALLENGE_LINE: Final = 12288

#: Subject and detail of an enhanced status code (RFC 3463 §2), e.g. ``(1, 1)`` of 5.1.1.
Status: TypeAlias = tuple[int, int]


class Outcome(enum.Enum):
    """What a reply does to the conversation; the first digit of its code."""

    DONE = 2
    MORE = 3
    RETRY = 4
    FAILED = 5


class Reply(Struct, frozen=True, dict=True):
    """One server reply, possibly of several lines.

    The class digit of the enhanced status code is not stored: it is the first digit of `code`
    (RFC 3463 §2), so ``550 4.1.1`` cannot be written.

    A remote server's reply may have lines longer than what we may write: only writing fails then.

    Attributes:
        code: three digits, 200 to 599.
        status: subject and detail of the enhanced code; None leaves it out.
        lines: text without code, status or line ends; printable, UTF-8 only where the client
            asked for it (RFC 6531 §3.7.4).

    Raises:
        LocalProtocolError: on a code out of range, or text that would break the framing.
    """

    code: int
    status: Status | None
    lines: tuple[str, ...]

    def __post_init__(self) -> None:
        if not 200 <= self.code <= 599:
            raise LocalProtocolError(f"no such reply code: {self.code}")
        if not self.lines:
            raise LocalProtocolError("a reply has at least one line")
        for line in self.lines:
            if not line.isprintable():
                raise LocalProtocolError(f"unprintable reply text: {line!r}")

    @property
    def outcome(self) -> Outcome:
        """Whether the command is done, wants more, may be retried, or failed."""
        return Outcome(self.code // 100)

    @property
    def enhanced(self) -> str | None:
        """The whole enhanced status code, e.g. ``5.1.1``, or None."""
        if self.status is None:
            return None
        return f"{self.code // 100}.{self.status[0]}.{self.status[1]}"

    @property
    def text(self) -> str:
        """The lines as one, for logs and reports."""
        return " ".join(self.lines)

    @override
    def __str__(self) -> str:
        """As a log shows it: ``550 5.1.1 no such user``."""
        mark = f" {self.enhanced}" if self.status is not None else ""
        return f"{self.code}{mark} {self.text}"

    def __bytes__(self) -> bytes:
        """The wire form, CRLF included.

        Raises:
            LocalProtocolError: a line is longer than a server may write.
        """
        # Most replies are constants, so each is encoded once: 0.2 µs in place of 1.5. (A
        # cached_property takes a lock, and costs more than it saves those that are said once.)
        kept: dict[str, bytes] = vars(self)
        wire = kept.get("wire")
        if wire is None:
            kept["wire"] = wire = self._encoded()
        return wire

    def _encoded(self) -> bytes:
        mark = "" if self.status is None else f"{self.enhanced} "
        lines = self.lines
        if len(lines) == 1:
            octets = f"{self.code} {mark}{lines[0]}\r\n".encode()
            longest = len(octets)
        else:
            *body, last = lines
            wire = [f"{self.code}-{mark}{line}\r\n".encode() for line in body]
            wire.append(f"{self.code} {mark}{last}\r\n".encode())
            longest = max(map(len, wire))
            octets = b"".join(wire)
        limit = MAX_CHALLENGE_LINE if self.code == 334 else MAX_LINE
        if longest > limit:
            raise LocalProtocolError(f"a reply line of {longest} octets; at most {limit} may be")
        return octets


def reply(code: int, subject: int, detail: int, *lines: str) -> Reply:
    """Shorthand for the common case: ``reply(250, 1, 0, "sender OK")``."""
    return Reply(code, (subject, detail), lines)
