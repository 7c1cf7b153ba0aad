"""Passwords and names of users as they are compared, however somebody's keyboard writes them.

The same at all places: where a password is set, and wherever one is taken. RFC 8265, by its
profiles OpaqueString (passwords) and UsernameCaseMapped (names). Code points that are not assigned
are let be: which these are depends on the version of Python, and a password has to outlive that.
"""

from __future__ import annotations

import unicodedata
from typing import Final

#: Octets of a password. More, and hashing it would be work that anybody can ask for.
LONGEST_PASSWORD: Final = 1024
#: Letters of a name.
LONGEST_NAME: Final = 255


def prepare_password(text: str) -> str:
    """A password as it is hashed (RFC 8265 §4.2.2): all spaces are U+0020, and NFC.

    Raises:
        ValueError: it is empty, too long, or has control characters in it; what it is is not said.
    """
    plain = text.isascii() and text.isprintable()  # as nearly always: a look at each letter less
    if not plain:
        spaced = "".join(" " if unicodedata.category(each) == "Zs" else each for each in text)
        text = unicodedata.normalize("NFC", spaced)
    if not text:
        raise ValueError("a password must not be empty")
    if not plain and any(unicodedata.category(each) in ("Cc", "Cs") for each in text):
        raise ValueError("a password has no control characters")
    if len(text.encode()) > LONGEST_PASSWORD:
        raise ValueError(f"a password has at most {LONGEST_PASSWORD} octets")
    return text


def prepare_name(text: str) -> str:
    """A user's name as it is looked up (RFC 8265 §3.3.2): in small letters, and NFKC.

    The profile has NFC, and what is wide made narrow; but SASLprep (RFC 4013), which names of
    clients have gone through, has NFKC: so a name is the same before and after that.

    Raises:
        ValueError: that is no name: empty, too long, with spaces or what cannot be printed.
    """
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).lower())
    if not 0 < len(text) <= LONGEST_NAME:
        raise ValueError(f"a name has 1 to {LONGEST_NAME} letters")
    # What can be printed has one space in it at most, after NFKC: all others become that one.
    if not text.isprintable() or " " in text:
        raise ValueError("a name has neither spaces nor what cannot be printed")
    return text
