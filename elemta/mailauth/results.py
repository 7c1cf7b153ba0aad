"""Authentication-Results (RFC 8601): written, read, and told from forged ones.

What is written here was chosen by whoever sent the message: a domain, a selector, why a record
makes no sense. So each of it is made harmless first.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from elemta.protocol import domain_to_ascii

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

#: The field's name, in lower case.
FIELD: Final = "authentication-results"

#: Characters of a value, and of a comment, that we write.
_LONGEST: Final = 255
_LONGEST_COMMENT: Final = 120
#: What needs no quotes: a token of RFC 2045 §5.1, or an address.
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`{|}~0-9A-Za-z-]{1,255}")
_ADDRESS: Final = re.compile(
    r"[!#$%&'*+.^_`{|}~/0-9A-Za-z-]{0,64}@[0-9A-Za-z](?:[0-9A-Za-z.-]{0,253})"
)
#: Also what makes a result: many look for ``dmarc=pass`` anywhere in the field, and read no quotes.
_HARMFUL: Final = re.compile(r"[^ -:<>-~]")
_HARMFUL_COMMENT: Final = re.compile(r"[^ \w.:,+/@\[\]'-]", re.ASCII)

#: Octets of a field that is worth reading; longer ones are taken to claim anything.
_LONGEST_FIELD: Final = 64 * 1024
_SPACE: Final = frozenset(" \t\r\n")
#: What some readers take for the end of a name, or for no part of it (RFC 2045 §5.1).
_NO_PART_OF_A_NAME: Final = re.compile(r'[()<>@,;:\\"/\[\]?=\ufffd]')


def value(text: str) -> str:
    """A value of a property, quoted where that is needed (RFC 8601 §2.2)."""
    text = text[:_LONGEST]
    if _TOKEN.fullmatch(text) or _ADDRESS.fullmatch(text):
        return text
    plain = _HARMFUL.sub("?", text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{plain}"'


def comment(text: str, ours: str = "") -> str:
    """A comment with a space before it; empty if there is nothing to say.

    Args:
        text: whoever sent the message may have chosen it.
        ours: words of our own that stand before it as they are.
    """
    said = " ".join(filter(None, (ours, _HARMFUL_COMMENT.sub("?", text))))
    return f" ({said[:_LONGEST_COMMENT]})" if said else ""


def write_results(authserv_id: str, results: Iterable[str]) -> str:
    """The value of a whole field.

    Args:
        authserv_id: who says it (RFC 8601 §2.5).
        results: each in the form ``method=result property=value``, as `str` of ours has it.
    """
    return "; ".join([value(authserv_id), *(list(results) or ["none"])])


class Stated(Struct, frozen=True):
    """One result that a field states.

    Attributes:
        method, result: in lower case.
        properties: by name, e.g. ``header.from``, in lower case; values as they stand.
    """

    method: str
    result: str
    properties: dict[str, str]


class Field(Struct, frozen=True):
    """What a field states.

    Attributes:
        authserv_id: who says it, in lower case.
        version: of the field; 1 is the one that there is.
    """

    authserv_id: str
    version: str
    stated: tuple[Stated, ...]


def parse_results(field: bytes) -> Field:
    """Read the value of a field, folded or not.

    Raises:
        ValueError: it has no authserv-id that could be read. Of results, what cannot be read is
            passed over.
    """
    if len(field) > _LONGEST_FIELD:
        raise ValueError("too long")
    head, *parts = _cut(field.decode("utf-8", "replace"))
    match head:
        case [name]:
            version = "1"
        case [name, version] if version.isdecimal():
            pass
        case _:
            raise ValueError("no authserv-id")
    name = name.removeprefix('"')
    if not name or not name.isprintable() or _NO_PART_OF_A_NAME.search(name):
        raise ValueError("no authserv-id")
    stated = [each for part in parts if (each := _stated(part)) is not None]
    return Field(_ascii(name), version, tuple(stated))


def _ascii(name: str) -> str:
    """In lower case; a domain by its A-labels, as it is the same one (RFC 8601 §5).

    So is one in letters that only look otherwise, such as wide ones (RFC 5895 §2).
    """
    name = unicodedata.normalize("NFKC", name).replace("\u3002", ".")
    try:
        return domain_to_ascii(name)
    except ValueError:
        return name.lower()


def is_forged(field: bytes, ours: Collection[str]) -> bool:
    """Whether a field must go that came from outside (RFC 8601 §5).

    That is one that says it is of ours; one of a version that nobody knows; and one that we cannot
    read, since somebody who reads it otherwise might find our name in it.

    Args:
        field: its value, folded or not.
        ours: our authserv-ids, in lower case.
    """
    try:
        found = parse_results(field)
    except ValueError:
        return True
    return found.authserv_id.removesuffix(".") in ours or found.version.lstrip("0") != "1"


def _stated(words: list[str]) -> Stated | None:
    """One result: ``method/version = result reason=… ptype.property=value …``."""
    pairs: list[tuple[str, str]] = []
    for place, word in enumerate(words):
        if word == "=" and 0 < place < len(words) - 1:
            name = words[place - 1]
            if place >= 3 and words[place - 2] == "/":
                name = words[place - 3]
            pairs.append((name.lower(), words[place + 1].removeprefix('"')))
    if not pairs:
        return None
    (method, result), *properties = pairs
    return Stated(method, result.lower(), dict(reversed(properties)))


def _cut(text: str) -> list[list[str]]:
    """Cut at semicolons; in words, comments left out. One that was quoted has a quote before it.

    Raises:
        ValueError: a quote or a comment does not end.
    """
    parts: list[list[str]] = [[]]
    place, size = 0, len(text)
    while place < size:
        char = text[place]
        if char in _SPACE:
            place += 1
        elif char == "(":
            place = _behind_comment(text, place)
        elif char == '"':
            word, place = _quoted(text, place)
            parts[-1].append(f'"{word}')
        elif char == ";":
            parts.append([])
            place += 1
        elif char in "=/":
            parts[-1].append(char)
            place += 1
        else:
            begin = place
            while place < size and text[place] not in ' \t\r\n("=;/':
                place += 1
            parts[-1].append(text[begin:place])
    return parts


def _behind_comment(text: str, place: int) -> int:
    depth = 0
    while place < len(text):
        char = text[place]
        place += 2 if char == "\\" else 1
        depth += (char == "(") - (char == ")")
        if not depth:
            return place
    raise ValueError("a comment that does not end")


def _quoted(text: str, place: int) -> tuple[str, int]:
    word: list[str] = []
    place += 1
    while place < len(text):
        char = text[place]
        if char == '"':
            return "".join(word), place + 1
        if char == "\\":
            place += 1
            char = text[place : place + 1]
        word.append(char)
        place += 1
    raise ValueError("a quoted string that does not end")
