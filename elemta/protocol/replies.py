"""Reads a server's replies off a stream (RFC 5321 §4.2), whatever the server makes of them.

What is text is read leniently: any octets, made printable. What is framing is not: a reply that
others could read as two, or two that could be read as one, ends the conversation.
"""

from __future__ import annotations

import base64
import binascii
import re
from functools import lru_cache
from typing import Final

from elemta.protocol.errors import RemoteProtocolError
from elemta.protocol.events import Extensions
from elemta.protocol.reply import Reply, Status

#: Octets of one reply line that we read, CRLF included (RFC 5321 §4.5.3.1.5: at least 512).
MAX_LINE: Final = 4096
#: Lines of one reply that we read.
MAX_LINES: Final = 100
#: Octets of what a server says in one line over and over, and of how many such is remembered what
#: they came to.
_SHORT: Final = 80
_REMEMBERED: Final = 128
#: Letters of one line that we keep: what `Reply` takes.
_KEPT: Final = 496

_ENHANCED: Final = re.compile(r"([245])\.([0-9]{1,3})\.([0-9]{1,3})(?: +|$)")


class Replies:
    """Cuts a stream into replies of bounded length."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._code = b""
        self._texts: list[bytes] = []

    def feed(self, octets: bytes) -> None:
        """Append what the server sent."""
        self._buffer += octets

    @property
    def pending(self) -> bool:
        """Whether there is anything behind the last reply that was taken."""
        return bool(self._buffer or self._texts)

    def next_reply(self) -> tuple[int, list[bytes]] | None:
        """Take the next whole reply: its code and the text of each of its lines.

        Raises:
            RemoteProtocolError: this is no reply, or an endless one.
        """
        buffer = self._buffer
        while (end := buffer.find(b"\n")) >= 0:
            line = bytes(buffer[: end + 1])
            del buffer[: end + 1]
            if len(line) > MAX_LINE:
                raise RemoteProtocolError(f"reply line over {MAX_LINE} octets")
            if line[-2:] != b"\r\n":
                raise RemoteProtocolError("bare LF in a reply")
            code, mark, text = line[:3], line[3:4], line[4:-2]
            if mark == b"\r" and len(line) == 5:
                mark = b" "  # a code and nothing else
            if not (code.isdigit() and b"2" <= code[:1] <= b"5" and mark in (b" ", b"-")):
                raise RemoteProtocolError(f"no reply code: {line[:40]!r}")
            if self._texts and code != self._code:
                raise RemoteProtocolError(f"reply with two codes: {line[:40]!r}")
            self._texts.append(text)
            if mark != b"-":
                texts, self._texts = self._texts, []
                return int(code), texts
            if len(self._texts) == MAX_LINES:
                raise RemoteProtocolError(f"reply of more than {MAX_LINES} lines")
            self._code = code
        if len(buffer) >= MAX_LINE:
            raise RemoteProtocolError(f"reply line over {MAX_LINE} octets")
        return None


def read_reply(code: int, texts: list[bytes]) -> Reply:
    """A reply as a value; an enhanced status code is taken off where it agrees with the code."""
    if len(texts) == 1 and len(texts[0]) <= _SHORT and code != 334:  # a challenge may be secret
        return _short_reply(code, texts[0])
    return _reply(code, texts)


@lru_cache(_REMEMBERED)
def _short_reply(code: int, text: bytes) -> Reply:
    return _reply(code, [text])


def _reply(code: int, texts: list[bytes]) -> Reply:
    status: Status | None = None
    lines: list[str] = []
    for text in texts:
        line = printable(text)
        found = _ENHANCED.match(line)
        if found and int(found[1]) == code // 100:
            status = status or (int(found[2]), int(found[3]))
            line = line[found.end() :]
        lines.append(line)
    return Reply(code, status, tuple(lines))


def printable(text: bytes) -> str:
    """Text that a log, a terminal or a report can show; what they cannot is escaped."""
    line = text.decode("utf-8", "backslashreplace")
    if not line.isprintable():
        line = "".join(
            letter if letter.isprintable() else letter.encode("unicode_escape").decode()
            for letter in line
        )
    return line if len(line) <= _KEPT else line[: _KEPT - 1] + "…"


def read_challenge(texts: list[bytes]) -> bytes:
    """The challenge of a 334.

    Raises:
        RemoteProtocolError: it is not base64.
    """
    try:
        return base64.b64decode(b"".join(texts), validate=True)
    except binascii.Error:
        raise RemoteProtocolError("a challenge that is not base64") from None


def read_extensions(texts: list[bytes]) -> Extensions:
    """What the lines of an answer to EHLO announce, the first of them left out."""
    keywords: dict[str, str] = {}
    for text in texts[1:]:
        # "AUTH=LOGIN" is how the first servers wrote it, and some still do, beside the RFC's.
        line = printable(text).replace("=", " ", text[:5].upper() == b"AUTH=")
        word, _, params = line.partition(" ")
        keyword = word.upper()
        keywords[keyword] = f"{keywords.get(keyword, '')} {params}".strip()
    size = keywords.get("SIZE")
    limits = (item.partition("=") for item in keywords.get("LIMITS", "").split())
    return Extensions(
        pipelining="PIPELINING" in keywords,
        size=None if size is None else int(size) if _is_number(size) else 0,
        eight_bit="8BITMIME" in keywords,
        smtputf8="SMTPUTF8" in keywords,
        enhanced_status_codes="ENHANCEDSTATUSCODES" in keywords,
        dsn="DSN" in keywords,
        chunking="CHUNKING" in keywords,
        starttls="STARTTLS" in keywords,
        mt_priority="MT-PRIORITY" in keywords,
        auth=frozenset(keywords.get("AUTH", "").upper().split()),
        limits={name.upper(): int(value) for name, _, value in limits if _is_number(value)},
        keywords=keywords,
    )


def _is_number(text: str) -> bool:
    """Whether `text` is digits, and few enough to mean something (RFC 1870 §3: at most 20)."""
    return text.isascii() and text.isdigit() and len(text) <= 20
