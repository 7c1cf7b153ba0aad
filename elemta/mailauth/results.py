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
#: A quoted string, and a comment without others in it; each ends.
_QUOTED: Final = r'"(?:[^"\\]++|\\.)*+"'
_COMMENT: Final = r"\((?:[^()\\]++|\\.)*+\)"
_ENDED: Final = re.compile(rf'(?:[^"(]++|{_QUOTED}|{_COMMENT})*+', re.DOTALL)
#: What stands between words, but for comments with others in them.
_BETWEEN: Final = re.compile(rf"(?:[ \t\r\n]++|{_COMMENT})*+", re.DOTALL)
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
    text = _text(field)
    name, version, place = _head(text)
    stated: list[Stated] = []
    while place < len(text):
        words, place = _part(text, place)
        if (each := _stated(words)) is not None:
            stated.append(each)
    return Field(name, version, tuple(stated))


def _text(field: bytes) -> str:
    if len(field) > _LONGEST_FIELD:
        raise ValueError("too long")
    return field.decode("utf-8", "replace")


def _head(text: str) -> tuple[str, str, int]:
    """The authserv-id and the version of a field, and where its results begin."""
    words, place = _part(text, 0, most=2)
    match words:
        case [name]:
            version = "1"
        case [name, version] if version.isdecimal():
            pass
        case _:
            raise ValueError("no authserv-id")
    name = name.removeprefix('"')
    if not name or not name.isprintable() or _NO_PART_OF_A_NAME.search(name):
        raise ValueError("no authserv-id")
    return _ascii(name), version, place


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
        text = _text(field)
        name, version, place = _head(text)
        _check_ends(text, place)
    except ValueError:
        return True
    return name.removesuffix(".") in ours or version.lstrip("0") != "1"


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


def _part(text: str, place: int, most: int | None = None) -> tuple[list[str], int]:
    """One part, up to a semicolon, in words without comments; and the place behind it.

    A word that was quoted has a quote before it.

    Args:
        text: of a field.
        place: where the part begins.
        most: words that it may have.

    Raises:
        ValueError: it has more; or a quote or a comment does not end.
    """
    words: list[str] = []
    size = len(text)
    while place < size:
        char = text[place]
        if char == ";":
            return words, place + 1
        if char in " \t\r\n(":
            place = _behind_space(text, place)
            continue
        if char == '"':
            word, place = _quoted(text, place)
            words.append(f'"{word}')
        elif char in "=/":
            words.append(char)
            place += 1
        else:
            begin = place
            while place < size and text[place] not in ' \t\r\n("=;/':
                place += 1
            words.append(text[begin:place])
        if most is not None and len(words) > most:
            raise ValueError("too many words")
    return words, place


def _check_ends(text: str, place: int) -> None:
    """See that all quotes and comments end from there on, without looking at the rest.

    Strangers may send a header full of such fields, and to take each apart takes long.

    Raises:
        ValueError: one does not.
    """
    size = len(text)
    while place < size:
        found = _ENDED.match(text, place)
        place = place if found is None else found.end()
        if text[place : place + 1] == "(":
            place = _behind_comment(text, place)  # it has others within it, or no end
        elif place < size:
            raise ValueError("a quoted string that does not end")


def _behind_space(text: str, place: int) -> int:
    found = _BETWEEN.match(text, place)
    place = place if found is None else found.end()
    return _behind_comment(text, place) if text[place : place + 1] == "(" else place


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
