"""What the RFCs say, said a second time and as plainly as can be.

Shares no code with `elemta.protocol` on purpose: an oracle that is the implementation proves
nothing.
"""

from __future__ import annotations

import re
from typing import Final

#: First digits of the replies that a verb can have (RFC 5321 §4.3.2, RFC 4954 §4).
ANSWERS: Final = {"DATA": "345", "AUTH": "2345", "RESPONSE": "2345"}


class Conversation:
    """The order of commands (RFC 5321 §4.1.4, RFC 3030 §2, RFC 4954 §4), as facts."""

    def __init__(
        self,
        greeted: bool = False,
        sender: bool = False,
        recipients: int = 0,
        chunks: int = 0,
        challenged: bool = False,
    ) -> None:
        self.greeted = greeted
        self.sender = sender
        self.recipients = recipients
        self.chunks = chunks
        self.challenged = challenged
        self.logged_in = False

    @property
    def facts(self) -> tuple[bool, bool, int, int, bool]:
        """All there is to know, as far as it matters to the order."""
        some_recipients, some_chunks = min(self.recipients, 1), min(self.chunks, 1)
        return self.greeted, self.sender, some_recipients, some_chunks, self.challenged

    def may(self, verb: str) -> bool:
        """Whether the command is in order."""
        if self.challenged or verb == "RESPONSE":
            return self.challenged and verb == "RESPONSE"
        match verb:
            case "MAIL" | "STARTTLS":
                return self.greeted and not self.sender
            case "AUTH":
                return self.greeted and not self.sender and not self.logged_in
            case "RCPT":
                return self.sender and not self.chunks
            case "DATA":
                return self.recipients > 0 and not self.chunks
            case "BDAT":
                return self.recipients > 0
            case _:
                return True

    def answered(self, verb: str, code: int) -> None:
        """The command got its reply; "." is the end of a message, "BDAT" that of a chunk."""
        good = code < 300
        match verb:
            case "HELLO" if good:
                self.greeted = True
                self._forget()
            case "RSET" if good:
                self._forget()
            case ".":
                self._forget()
            case "BDAT":
                self.chunks += 1
                if not good:
                    self._forget()
            case "MAIL" if good:
                self.sender = True
            case "RCPT" if good:
                self.recipients += 1
            case "AUTH" | "RESPONSE":
                self.challenged = 300 <= code < 400
                self.logged_in = self.logged_in or good
            case _:
                pass

    def _forget(self) -> None:
        self.sender, self.recipients, self.chunks = False, 0, 0


def stuffed(content: bytes) -> bytes:
    """The wire form of a message (RFC 5321 §4.5.2), the final dot included."""
    lines = content.split(b"\r\n")
    body = b"\r\n".join(b"." + line if line.startswith(b".") else line for line in lines)
    return body + (b".\r\n" if not body or body.endswith(b"\r\n") else b"\r\n.\r\n")


def ended(content: bytes) -> bytes:
    """What the receiver of `stuffed(content)` has: the last line is always ended."""
    return content if not content or content.endswith(b"\r\n") else content + b"\r\n"


def normalized(content: bytes) -> bytes:
    """Every bare CR and bare LF made a CRLF."""
    return re.sub(rb"\r\n|\r|\n", b"\r\n", content)


def fault(content: bytes, max_size: int, *, max_line: int = 1000, whole: bool = True) -> str | None:
    """Which rule of framing a message breaks, the gravest first (RFC 5321 §2.3.8, §4.5.3.1).

    What is not `whole` may end in half a CRLF, and its last line may go on.
    """
    if not whole and content.endswith(b"\r"):
        content = content[:-1]
    if re.search(rb"\r(?!\n)|(?<!\r)\n", content):
        return "BARE_NEWLINE"
    if re.search(rb"(?:\A|\r\n)\0", content):
        return "LEADING_NUL"
    *lines, last = content.split(b"\r\n")
    room = 2 if whole else 1
    if any(len(line) + 2 > max_line for line in lines) or len(last) + room > max_line:
        return "LINE_TOO_LONG"
    return "TOO_BIG" if len(content) > max_size else None
