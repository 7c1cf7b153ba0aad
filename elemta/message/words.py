"""Text beyond ASCII in a field of a message that must not have any (RFC 2047)."""

from __future__ import annotations

import re
from base64 import b64encode
from typing import Final

#: Characters of one encoded word (RFC 2047 §2), and of what it says: the rest names the charset.
LONGEST: Final = 75
#: How much longer than its octets a text may become, so that people can read some of it.
READABLE: Final = 2.5
_ROOM: Final = LONGEST - len("=?utf-8?q??=")
_SPACES: Final = re.compile(r"( +)")
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f]")
#: Octets that stand for themselves wherever an encoded word may be (§5).
_PLAIN: Final = frozenset(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!*+-/")


def encoded(text: str) -> str:
    """The text in ASCII: words that are not ASCII become encoded words, and the others stay.

    Decoding gives the text back, except that control characters become spaces.

    Args:
        text: what people read. In a structured field, such as one with addresses, an encoded word
            may stand in a phrase or a comment alone: there it is for the author to encode.
    """
    if text.isascii():
        return text
    pieces = _SPACES.split(_CONTROLS.sub(" ", text))
    told: list[str] = []
    run: list[str] = []  # words that are not ASCII, and what is between them: one encoded text
    for place in range(0, len(pieces), 2):
        gap, word = pieces[place - 1] if place else "", pieces[place]
        if word.isascii():
            told += [*_words(run), gap, word]
            run = []
        elif run:
            run += [gap, word]
        else:
            told.append(gap)
            run = [word]
    return "".join([*told, *_words(run)])


def _words(run: list[str]) -> list[str]:
    """One text as encoded words, each whole in itself; none if there is no text."""
    if not run:
        return []
    characters = [each.encode("utf-8", "replace") for each in "".join(run)]
    quoted = [_quoted(each) for each in characters]
    size = sum(map(len, characters))
    if sum(map(len, quoted)) <= READABLE * size:
        return [" ".join(f"=?utf-8?q?{each}?=" for each in _gathered(quoted, _ROOM))]
    octets = _gathered([each.decode("latin-1") for each in characters], _ROOM // 4 * 3)
    return [
        " ".join(f"=?utf-8?b?{b64encode(each.encode('latin-1')).decode()}?=" for each in octets)
    ]


def _quoted(octets: bytes) -> str:
    return "".join(
        chr(each) if each in _PLAIN else "_" if each == 0x20 else f"={each:02X}" for each in octets
    )


def _gathered(parts: list[str], most: int) -> list[str]:
    """The parts, as many of them together as fit."""
    found = [""]
    for part in parts:
        if len(found[-1]) + len(part) > most:
            found.append("")
        found[-1] += part
    return found
