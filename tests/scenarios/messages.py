"""Messages that scenarios send, and what must have become of them."""

from __future__ import annotations

import re
from typing import Final

#: Everything that a careless server changes: dots, eight-bit text, spaces, long and empty lines.
AWKWARD: Final = (
    b"From: Alice <alice@example.org>\r\n"
    b"To: Bob <bob@example.org>\r\n"
    b"Subject: =?utf-8?q?gr=C3=BC=C3=9Fe?=\r\n"
    b"X-Folded: one\r\n\ttwo\r\n   three \r\n"
    b"Message-ID: <awkward@example.org>\r\n"
    b"Date: Thu, 01 Oct 2026 12:00:00 +0000\r\n"
    b"MIME-Version: 1.0\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\n"
    b"Content-Transfer-Encoding: 8bit\r\n"
    b"\r\n"
    b".\r\n..\r\n.hidden\r\n"
    b"\r\n\r\n"
    b"  spaces in front and behind  \r\n\ttab\t\r\n"
    b"gr\xc3\xbc\xc3\x9fe\r\n" + b"x" * 998 + b"\r\n"
    b"From the start of a line\r\n"
    b"QUIT\r\n"
    b"\r\n"
)

#: Fields that a server on the way adds.
_TRACE: Final = re.compile(
    rb"(?:(?:Received|Return-Path|Delivered-To|X-Original-To):[^\n]*\n(?:[ \t][^\n]*\n)*)*"
)


def numbered(scenario_id: str, size: int = 1000) -> bytes:
    """A message that is known by its X-Scenario-Id."""
    head = (
        f"From: <alice@example.org>\r\nTo: <bob@example.org>\r\nSubject: {scenario_id}\r\n"
        f"X-Scenario-Id: {scenario_id}\r\n\r\n"
    ).encode()
    line = f"{scenario_id} ".encode().ljust(76, b"-") + b"\r\n"
    return head + line * max(1, (size - len(head)) // len(line))


def scenario_id(content: bytes) -> str:
    """What `numbered` made the message known by; empty if it was not made by it."""
    found = re.search(rb"^X-Scenario-Id: (\S+)\r?$", content, re.MULTILINE)
    return found[1].decode() if found else ""


def without_trace(content: bytes) -> bytes:
    """The message as it was sent, lines ended by LF: without what servers put before it."""
    content = content.replace(b"\r\n", b"\n")
    found = _TRACE.match(content)
    return content[found.end() :] if found else content


def lines(content: bytes) -> bytes:
    """The message with lines ended by LF."""
    return content.replace(b"\r\n", b"\n")
