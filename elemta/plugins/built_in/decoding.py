"""What a header field says to people: encoded words (RFC 2047) and UTF-8 (RFC 6532) as text."""

from __future__ import annotations

import re
from email.errors import HeaderParseError
from email.header import decode_header
from typing import Final

#: Encoded words, and others that only spaces keep apart from them: those are one text.
_WORD: Final = r"=\?[^?\s]{1,80}\?[bBqQ]\?[^?\s]*+\?="
_WORDS: Final = re.compile(rf"{_WORD}(?:[ \t]++{_WORD})*+")


def decoded(value: bytes) -> str:
    """A value as a mail program shows it; whatever makes no sense stays as it is."""
    text = value.decode("utf-8", "replace")
    return _WORDS.sub(_decoded, text) if "=?" in text else text


def _decoded(found: re.Match[str]) -> str:
    try:
        return "".join(
            part if isinstance(part, str) else _text(part, charset or "ascii")
            for part, charset in decode_header(found[0])
        )
    except (HeaderParseError, ValueError):
        return found[0]


def _text(octets: bytes, charset: str) -> str:
    try:
        return octets.decode(charset, "replace")
    except (LookupError, ValueError):  # no such charset, or one that is none
        return octets.decode("latin-1")
