"""What the server itself has to tell its postmaster: a plain message, for people."""

from __future__ import annotations

import textwrap
from base64 import encodebytes
from typing import TYPE_CHECKING, Final

from elemta.message.trace import WANTED, date, fold, harmless, path
from elemta.message.words import encoded

if TYPE_CHECKING:
    from elemta.protocol import Mailbox

#: Characters of a subject and of a text that are told.
LONGEST_SUBJECT: Final = 200
LONGEST_TEXT: Final = 20_000


def write_notice(
    *, hostname: str, notice_id: str, to: Mailbox, subject: str, text: str, now: float
) -> bytes:
    """Write it.

    Args:
        hostname: our own.
        notice_id: its id in our queue.
        to: whom it is for.
        subject: what it is about; it may have words of strangers in it, and be too long.
        text: likewise, in lines; long ones are wrapped.
        now: seconds since the epoch.

    Returns:
        A whole message, each line ended by CRLF; 7-bit but for an address that is not ASCII.
    """
    hostname = harmless(hostname)
    title = " ".join(_visible(subject[:LONGEST_SUBJECT]).split())
    wrapped = [_wrapped(line) for line in text[:LONGEST_TEXT].splitlines()]
    lines = "\n".join(wrapped).split("\n")
    body, encoding = "".join(f"{line}\r\n" for line in lines).encode("utf-8", "replace"), "7bit"
    if not body.isascii():
        # With CRLF for line ends inside, too (RFC 2045 §6.8).
        body, encoding = encodebytes(body).replace(b"\n", b"\r\n"), "base64"
    top = f"From: Mail Delivery System <MAILER-DAEMON@{hostname}>\r\nTo: <{path(to)}>\r\n"
    rest = (
        f"Date: {date(now)}\r\n"
        f"Message-ID: <{harmless(notice_id)}@{hostname}>\r\n"
        "Auto-Submitted: auto-generated\r\n"  # RFC 3834 §5: so no vacation answers it
        "MIME-Version: 1.0\r\n"
        "Content-Type: text/plain; charset=utf-8\r\n"
        f"Content-Transfer-Encoding: {encoding}\r\n\r\n"
    )
    return b"".join((top.encode(), fold("Subject", encoded(title)), rest.encode("ascii"), body))


def _wrapped(line: str) -> str:
    """A line as lines that people can read; what it begins with stays as it is."""
    indent = line[: len(line) - len(line.lstrip(" "))][: WANTED // 2]
    return textwrap.fill(
        _visible(line).strip(),
        WANTED,
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
    )


def _visible(text: str) -> str:
    """The text with spaces for what is no character that people see."""
    return "".join(each if each.isprintable() else " " for each in text)
