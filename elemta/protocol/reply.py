"""Replies: what a server says back (RFC 5321 §4.2, RFC 3463)."""

from __future__ import annotations

import enum
from typing import Final, TypeAlias

from msgspec import Struct

from elemta.protocol.errors import LocalProtocolError

#: Octets in one reply line that we write, CRLF included (RFC 5321 §4.5.3.1.5).
MAX_LINE: Final = 512

#: Subject and detail of an enhanced status code (RFC 3463 §2), e.g. ``(1, 1)`` of 5.1.1.
Status: TypeAlias = tuple[int, int]


class Outcome(enum.Enum):
    """What a reply does to the conversation; the first digit of its code."""

    DONE = 2
    MORE = 3
    RETRY = 4
    FAILED = 5


class Reply(Struct, frozen=True):
    """One server reply, possibly of several lines.

    The class digit of the enhanced status code is not stored: it is the first digit of `code`
    (RFC 3463 §2), so ``550 4.1.1`` cannot be written.

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
            if len(line) > MAX_LINE - 16:
                raise LocalProtocolError(f"reply line of {len(line)} octets")

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

    def __str__(self) -> str:
        """As a log shows it: ``550 5.1.1 no such user``."""
        mark = f" {self.enhanced}" if self.status is not None else ""
        return f"{self.code}{mark} {self.text}"

    def __bytes__(self) -> bytes:
        """The wire form, CRLF included."""
        mark = "" if self.status is None else f"{self.enhanced} "
        *body, last = self.lines
        wire = "".join(f"{self.code}-{mark}{line}\r\n" for line in body)
        return f"{wire}{self.code} {mark}{last}\r\n".encode()


def reply(code: int, subject: int, detail: int, *lines: str) -> Reply:
    """Shorthand for the common case: ``reply(250, 1, 0, "sender OK")``."""
    return Reply(code, (subject, detail), lines)
