"""Replies of our own making, for what nobody else has put into words."""

from __future__ import annotations

from typing import Final

from elemta.protocol import Reply, reply

#: Characters of one reply text; the rest is cut off (RFC 5321 §4.5.3.1.5 with room for the codes).
MAX_TEXT: Final = 400


def made(code: int, subject: int, detail: int, text: str) -> Reply:
    """A reply with a text from anywhere: what is not printable ASCII becomes ``?``."""
    plain = text.encode("ascii", "replace").decode("ascii")
    clean = "".join(char if char.isprintable() else "?" for char in plain)
    return reply(code, subject, detail, clean[:MAX_TEXT])
