"""How names of users are made comparable: SASLprep (RFC 4013), a profile of stringprep (RFC 3454).

RFC 5802 §5.1 and RFC 4616 §2 ask for it. Its successor (RFC 8265) leaves most names as they are; so
to prepare a name that a client of either kind has prepared changes nothing, but for what looks
alike (full-width letters, ligatures), which is what this is for.
"""

from __future__ import annotations

import stringprep as tables
import unicodedata
from typing import Final

#: What no name has (RFC 4013 §2.3): other spaces, controls, what is private, no characters, halves
#: of characters, what is not for plain text, what has no use or harms.
_PROHIBITED: Final = (
    *(tables.in_table_c12, tables.in_table_c21_c22, tables.in_table_c3, tables.in_table_c4),
    *(tables.in_table_c5, tables.in_table_c6, tables.in_table_c7, tables.in_table_c8),
    tables.in_table_c9,
)


def prepare(name: str) -> str:
    """A name as it is compared with others. Characters younger than stringprep may be in it.

    Raises:
        ValueError: no name has that in it, or nothing is left of it.
    """
    if name.isascii() and name.isprintable():  # as nearly all are
        if not name:
            raise ValueError("an empty name")
        return name
    mapped = "".join(
        " " if tables.in_table_c12(letter) else letter
        for letter in name
        if not tables.in_table_b1(letter)
    )
    prepared = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)
    if not prepared:
        raise ValueError("an empty name")
    if any(prohibited(letter) for letter in prepared for prohibited in _PROHIBITED):
        raise ValueError("a character that no name has")
    # Right-to-left letters begin and end a name, or are not in it (RFC 3454 §6).
    if any(tables.in_table_d1(letter) for letter in prepared):
        ends = tables.in_table_d1(prepared[0]) and tables.in_table_d1(prepared[-1])
        if not ends or any(tables.in_table_d2(letter) for letter in prepared):
            raise ValueError("left-to-right and right-to-left letters in one name")
    return prepared


def read_saslname(text: str) -> str:
    """A name as SCRAM and OAUTHBEARER write it (RFC 5802 §7), prepared.

    Raises:
        ValueError: it is none.
    """
    if "=" in text:
        first, *others = text.split("=")
        if any(each[:2] not in ("2C", "3D") for each in others):
            raise ValueError("a name with = that stands for nothing")
        text = first + "".join(("," if each[0] == "2" else "=") + each[2:] for each in others)
    if "\0" in text:
        raise ValueError("a NUL in a name")
    return prepare(text)
