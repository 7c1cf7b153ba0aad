"""OAUTHBEARER (RFC 7628) and XOAUTH2 (Google's, which came before it): a client shows a token.

Whoever shows one that is not right is told so by a challenge, and has to answer that before the
exchange is over.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import Final

from typing_extensions import override

from elemta.protocol.sasl import MAX_WORD, Simple, Step, Token, Unproved
from elemta.protocol.saslprep import prepare, read_saslname

#: A token of RFC 6750 §2.1; none at all asks what one would be told (RFC 7628 §4.3).
_AUTH: Final = re.compile(r"(?i:bearer) +([A-Za-z0-9._~+/-]+=*)|")
_HEADER: Final = re.compile(r"[ny],(?:a=([^,\0\1]+))?,")
#: A pair of RFC 7628 §3.1.
_PAIR: Final = re.compile(r"([A-Za-z]+)=([\t\r\n -~]*)")


class _Shown(Simple, ABC):
    """What both have in common.

    Attributes:
        challenge: what is said of a token that is not right.
    """

    challenge: bytes

    def __init__(self) -> None:
        self._refused = False

    def respond(self, response: bytes | None) -> Step:
        """See `Mechanism`."""
        if self._refused:
            return Unproved()  # whatever it says to that
        if response is None:
            return b""
        user, auth = self._read(response.decode())  # a UnicodeDecodeError is a ValueError
        if (found := _AUTH.fullmatch(auth)) is None:
            raise ValueError("no bearer token")
        if len(user.encode()) > MAX_WORD:
            raise ValueError(f"a word of more than {MAX_WORD} octets")
        if found[1] is None:
            return self.refuse()
        return Token(user, found[1])

    @override
    def refuse(self) -> bytes:
        """See `Mechanism`."""
        self._refused = True
        return self.challenge

    @abstractmethod
    def _read(self, text: str) -> tuple[str, str]:
        """Who it is, and what stands at ``auth``."""


class OAuthBearer(_Shown):
    """OAUTHBEARER: ``n,a=USER,^Ahost=…^Aport=…^Aauth=Bearer TOKEN^A^A``."""

    challenge = b'{"status":"invalid_token","schemes":"bearer"}'

    @override
    def _read(self, text: str) -> tuple[str, str]:
        header, *pairs = text.split("\1")
        if len(pairs) < 3 or pairs[-2:] != ["", ""]:
            raise ValueError("no OAUTHBEARER message")
        if (found := _HEADER.fullmatch(header)) is None:
            raise ValueError("no GS2 header")
        user = read_saslname(found[1]) if found[1] else ""
        return user, _pairs(pairs[:-2]).get("auth", "?")


class XOAuth2(_Shown):
    """XOAUTH2: ``user=USER^Aauth=Bearer TOKEN^A^A``."""

    challenge = b'{"status":"401","schemes":"bearer"}'

    @override
    def _read(self, text: str) -> tuple[str, str]:
        user, *pairs = text.split("\1")
        if len(pairs) < 3 or pairs[-2:] != ["", ""] or not user.startswith("user="):
            raise ValueError("no XOAUTH2 message")
        return prepare(user.removeprefix("user=")), _pairs(pairs[:-2]).get("auth", "?")


def _pairs(texts: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        pair = _PAIR.fullmatch(text)
        if pair is None or pair[1] in found:
            raise ValueError("a key without a value, or one that is there twice")
        found[pair[1]] = pair[2]
    return found
