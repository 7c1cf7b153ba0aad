"""Where a line ends, and where a message ends.

Every size limit and every smuggling defence of the engine is in this file. All of it is linear in
the octets it is fed, however the peer cuts them up, and what comes out does not depend on the cuts.

`Dots` (DATA) and `Counted` (BDAT) know where a message ends; both hand what is in it to one
`Checks`, so that neither way in is laxer than the other.
"""

from __future__ import annotations

import enum
from typing import Final

_FINAL_DOT: Final = b"\r\n.\r\n"
#: What may be the beginning of it, the longest first.
_PARTS: Final = (b"\r\n.\r", b"\r\n.", b"\r\n", b"\r", b"")


class Fault(enum.Enum):
    """Why content must be refused, though it was read to its end. The first that holds is told."""

    BARE_NEWLINE = "bare CR or LF in content (RFC 5321 §2.3.8)"
    #: Servers that leave NULs out find the end of a message in CRLF NUL "." CRLF, and what was
    #: content is commands to them. Nobody can stuff that dot: it does not begin its line.
    LEADING_NUL = "line that begins with a NUL (RFC 5321 §4.5.2)"
    LINE_TOO_LONG = "line over 1000 octets (RFC 5321 §4.5.3.1.6)"
    TOO_BIG = "message over the size limit (RFC 1870)"


class BareNewline(enum.Enum):
    """What becomes of a CR or LF in content that is not part of a CRLF."""

    #: The message is refused.
    REJECT = "reject"
    #: It becomes a CRLF. It never ends the message, nor does it make a dot end it.
    NORMALIZE = "normalize"


class Lines:
    """Cuts a stream into CRLF-ended lines of bounded length."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._skipping = False

    def __len__(self) -> int:
        """Octets that are buffered."""
        return len(self._buffer)

    def feed(self, octets: bytes) -> None:
        """Append what the peer sent."""
        self._buffer += octets

    def take(self, most: int | None = None) -> bytes:
        """Hand over what is buffered, `most` octets of it at most, as content."""
        taken = bytes(self._buffer[:most])
        del self._buffer[:most]
        self._searched = 0
        return taken

    def starts_with(self, prefix: bytes) -> bool:
        """Whether the next line does, in either case, so far as it is here."""
        return not self._skipping and bytes(self._buffer[: len(prefix)]).upper() == prefix

    def next_line(self, max_line: int) -> bytes | Fault | None:
        """The next line without its CRLF; LINE_TOO_LONG for one that was skipped; or None.

        Args:
            max_line: octets, CRLF included, that this line may have.
        """
        end = self._buffer.find(b"\r\n", self._searched)
        if end < 0:
            if len(self._buffer) > max_line:
                self._skipping = True
                del self._buffer[:-1]  # a last CR may be half of a CRLF
            self._searched = max(0, len(self._buffer) - 1)
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        self._searched = 0
        skipped, self._skipping = self._skipping, False
        return Fault.LINE_TOO_LONG if skipped or end + 2 > max_line else line


class Checks:
    """What every message must pass, whichever way it came in.

    A faulty message is still read to its end, so that what follows it is never taken for a
    command, but no more of it is handed on.
    """

    def __init__(
        self, max_size: int, max_line: int = 1000, newline: BareNewline = BareNewline.REJECT
    ) -> None:
        self._held = b""  # a last CR, which may be half of a CRLF
        self._size = 0
        self._line = 0  # octets since the last LF
        self._max_size = max_size
        self._max_line = max_line
        self._newline = newline
        self._faults: set[Fault] = set()

    @property
    def fault(self) -> Fault | None:
        """The gravest fault so far; how the network cut the stream never shows in it."""
        if not self._faults:
            return None
        return next(fault for fault in Fault if fault in self._faults)

    def feed(self, content: bytes) -> bytes:
        """Take some content, dots unstuffed.

        Returns:
            What of it is certain by now; nothing, once there is a fault.
        """
        if self._held:
            content, self._held = self._held + content, b""
        if content.endswith(b"\r"):
            content, self._held = content[:-1], b"\r"
        return self._checked(content)

    def end(self) -> bytes:
        """Take note that there is no more.

        Returns:
            What was held back.
        """
        last, self._held = self._held, b""
        content = self._checked(last)
        if self._line + 2 > self._max_line:
            self._faults.add(Fault.LINE_TOO_LONG)
        return b"" if self._faults else content

    def _checked(self, content: bytes) -> bytes:
        # A CRLF is never cut in two here, so counting finds the bare ones; 8 times as fast as a
        # regular expression.
        pairs = content.count(b"\r\n")
        if not pairs == content.count(b"\n") == content.count(b"\r"):
            if self._newline is BareNewline.REJECT:
                self._faults.add(Fault.BARE_NEWLINE)
            else:
                one_each = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
                content = one_each.replace(b"\n", b"\r\n")
        # Looking for one octet is fast, and nearly all content ends the question there.
        if b"\0" in content and (
            b"\n\0" in content or (not self._line and content.startswith(b"\0"))
        ):
            self._faults.add(Fault.LEADING_NUL)
        self._size += len(content)
        if self._size > self._max_size:
            self._faults.add(Fault.TOO_BIG)
        self._measure_lines(content)
        return b"" if self._faults else content

    def _measure_lines(self, content: bytes) -> None:
        """Jump from one line start to the last that a line of legal length can reach."""
        size, most = len(content), self._max_line
        start, reach = 0, most - self._line
        while True:
            last = content.rfind(b"\n", start, reach)
            if last < 0 and reach <= size:
                self._faults.add(Fault.LINE_TOO_LONG)
                # Too long it is; where the next one starts is still of interest.
                last = content.find(b"\n", reach)
            if last < 0:
                break
            start = last + 1
            reach = start + most
        # How far beyond the limit does not matter: the number stays small, `reach` positive.
        self._line = min(size - reach + most, most)


class Dots:
    """Undoes dot-stuffing and finds the final dot (RFC 5321 §4.5.2).

    Only CRLF "." CRLF ends a message, where the CRLF of the DATA line counts as the first.
    """

    def __init__(self, checks: Checks) -> None:
        self._checks = checks
        self._held = b"\r\n"  # as if the DATA line were the first of the content
        self._virtual = 2  # octets of _held that are not content

    def feed(self, octets: bytes) -> tuple[bytes, bytes | None]:
        """Take what the peer sent.

        Returns:
            The content that is certain by now, and what came after the final dot: None until the
            dot was seen.
        """
        octets = self._held + octets
        rest: bytes | None = None
        # Few pieces have a line that starts with a dot, and searching backwards is fast: this
        # makes framing 1.4 times as fast as looking for the final dot at once.
        dotted = octets.rfind(b"\r\n.") >= 0
        end = octets.find(_FINAL_DOT) if dotted else -1
        if end >= 0:
            cut, rest, self._held = end + 2, octets[end + 5 :], b""
        else:
            # Keep back whatever may yet turn out to be part of the final dot.
            keep = next(part for part in _PARTS if octets.endswith(part))
            cut, self._held = len(octets) - len(keep), keep
        content = octets[:cut]
        if dotted:
            content = content.replace(b"\r\n.", b"\r\n")
        if self._virtual and content:
            content, self._virtual = content[self._virtual :], 0
        clean = self._checks.feed(content)
        if rest is not None:
            clean += self._checks.end()
        return clean, rest


class Counted:
    """The octets of one BDAT chunk (RFC 3030 §2).

    Attributes:
        wanted: octets that are still to come.
        whole: nothing is still to come, and `feed` has said so to the checks.
    """

    def __init__(self, checks: Checks, size: int, *, last: bool) -> None:
        self.wanted = size
        self.whole = False
        self.last = last
        self._checks = checks

    def feed(self, octets: bytes) -> bytes:
        """Take what the peer sent: `wanted` octets of it at most, none if none are wanted.

        Returns:
            The content that is certain by now.
        """
        self.wanted -= len(octets)
        self.whole = not self.wanted
        clean = self._checks.feed(octets)
        if self.last and self.whole:
            clean += self._checks.end()
        return clean
