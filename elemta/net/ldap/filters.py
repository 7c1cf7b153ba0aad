"""Search filters, from their text (RFC 4515) to what a server is sent (RFC 4511 §4.5.1.7). No I/O.

What a stranger says goes into a filter by `escaped` only, so it can be nothing but a value.
"""

from __future__ import annotations

import re
from typing import Final

from elemta.net.ldap import ber

#: How deep a filter may be.
_DEEPEST: Final = 20
_AND, _OR, _NOT = 0xA0, 0xA1, 0xA2
_EQUAL, _SUBSTRINGS, _PRESENT = 0xA3, 0xA4, 0x87
_COMPARED: Final = {"=": _EQUAL, ">=": 0xA5, "<=": 0xA6, "~=": 0xA8}
_INITIAL, _ANY, _FINAL = 0x80, 0x81, 0x82
_ITEM: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9.;-]*)(>=|<=|~=|=)([^()\x00]*)")
_ESCAPED: Final = re.compile(rb"\\([0-9A-Fa-f]{2})")
_SPECIAL: Final = re.compile(rb"[\x00-\x1f()*\\\x7f-\xff]")


def escaped(value: str) -> str:
    """A value as it stands in a filter (RFC 4515 §3): whatever it is, it is but a value."""
    told = _SPECIAL.sub(lambda found: b"\\%02x" % ord(found[0]), value.encode("utf-8", "replace"))
    return told.decode("ascii")


def compile_filter(text: str) -> bytes:
    """A filter as it is sent.

    Raises:
        ValueError: it is none, or one of a kind that we have not (``:=``).
    """
    found, end = _filter(text, 0, 0)
    if end != len(text):
        raise ValueError(f"expected the end of the filter, not {text[end:]!r}")
    return found


def _filter(text: str, at: int, depth: int) -> tuple[bytes, int]:
    if depth > _DEEPEST:
        raise ValueError(f"a filter of more than {_DEEPEST} levels")
    if text[at : at + 1] != "(":
        raise ValueError(
            f"expected ( in the filter, not {repr(text[at:]) if text[at:] else 'its end'}"
        )
    sign = text[at + 1 : at + 2]
    if sign in ("&", "|", "!") and sign:
        inner: list[bytes] = []
        at += 2
        while text[at : at + 1] == "(":
            one, at = _filter(text, at, depth + 1)
            inner.append(one)
        if not inner or (sign == "!" and len(inner) != 1):
            raise ValueError(f"({sign} has not as many filters in it as it must")
        told = ber.encode({"&": _AND, "|": _OR, "!": _NOT}[sign], *inner)
    else:
        if (found := _ITEM.match(text, at + 1)) is None:
            raise ValueError(f"expected ATTRIBUTE=VALUE in the filter, not {text[at + 1 :]!r}")
        told, at = _item(found[1], found[2], found[3]), found.end()
    if text[at : at + 1] != ")":
        raise ValueError(
            f"expected ) in the filter, not {repr(text[at:]) if text[at:] else 'its end'}"
        )
    return told, at + 1


def _item(attribute: str, sign: str, value: str) -> bytes:
    if sign != "=" or "*" not in value:
        return ber.encode(_COMPARED[sign], ber.text(attribute), ber.text(_value(value)))
    if value == "*":
        return ber.text(attribute, _PRESENT)
    first, *middle, last = value.split("*")
    parts = [
        *([ber.text(_value(first), _INITIAL)] if first else []),
        *(ber.text(_value(each), _ANY) for each in middle if each),
        *([ber.text(_value(last), _FINAL)] if last else []),
    ]
    return ber.encode(_SUBSTRINGS, ber.text(attribute), ber.encode(ber.SEQUENCE, *parts))


def _value(text: str) -> bytes:
    if "*" in text:
        raise ValueError(f"a * can stand behind = only; in a value it is \\2a: {text!r}")
    octets = text.encode()
    if octets.count(b"\\") != len(_ESCAPED.findall(octets)):
        raise ValueError(f"expected two digits behind each \\ in {text!r}")
    return _ESCAPED.sub(lambda found: bytes((int(found[1], 16),)), octets)
