"""Tokens, as OAUTHBEARER and XOAUTH2 show them: their issuer is asked what they mean (RFC 7662).

What was said of a token is remembered by its hash, until it expires and not for long: a token that
was taken back works for so long. What it grants is for the issuer to say: the claims that name
somebody must be such as nobody can choose for himself.
"""

from __future__ import annotations

import hashlib
import math
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote_plus, urlencode

import msgspec
from msgspec import Struct, field
from typing_extensions import override

from elemta.plugins import Granted, Reject
from elemta.plugins.built_in.elsewhere import (
    LATER,
    AskedOverNetwork,
    AsksOverNetwork,
    DownError,
    is_mailbox,
    web_address,
)

if TYPE_CHECKING:
    from elemta.config import WebAddress
    from elemta.plugins import Session, Verdict
    from elemta.protocol import Token

#: Octets of an answer that are too many.
_ANSWER: Final = 64 * 1024
#: Tokens that are remembered; some 300 octets each.
_MOST: Final = 10_000

_NOT_GOOD: Final = Reject((7, 8), "authentication failed", note="the token is not good")
_ANOTHERS: Final = Reject((7, 8), "authentication failed", note="the token is another's")


class Settings(AskedOverNetwork, frozen=True, kw_only=True):
    """The ``settings`` of ``oauth``."""

    #: Where the issuer says what a token means: an ``https://`` URL; ``http://`` on this machine.
    introspection: str
    #: Who we are to it.
    client_id: str
    #: The file that has our secret, and nothing else.
    client_secret_file: Path
    #: What a token must be for, all of it.
    scopes: list[str] = field(default_factory=list[str])
    #: The claim that somebody is called by from now on: ``username``, ``email``, ``sub``, …
    login: str = "email"
    #: Claims with addresses that he may send as.
    addresses: list[str] = field(default_factory=lambda: ["email"])

    def __post_init__(self) -> None:
        self.check()
        _ = self.address

    @property
    def address(self) -> WebAddress:
        """See `introspection`.

        Raises:
            ValueError: it is none, or a secret would go in clear over a network.
        """
        return web_address("introspection", self.introspection)


class _Meaning(Struct, frozen=True):
    """What an issuer says of a token, of what every one says (RFC 7662 §2.2)."""

    active: bool
    scope: str = ""
    exp: float | None = None
    nbf: float | None = None
    email_verified: bool | str = True


_MEANING: Final = msgspec.json.Decoder(_Meaning)
_CLAIMS: Final = msgspec.json.Decoder(dict[str, object])


class OAuth(AsksOverNetwork[Settings]):
    """Knows users by tokens, which it shows to who has issued them."""

    name = "oauth"

    def __init__(self, settings: Settings) -> None:
        self._address = settings.address
        super().__init__(
            settings, encrypted=self._address.secure, secret_file=settings.client_secret_file
        )
        self._authorization = b""
        #: What tokens grant, by their hashes, and until when; the oldest first.
        self._known: dict[bytes, tuple[float, Granted]] = {}

    @override
    def _prove_by(self, secret: str) -> None:
        # Both are written as in a form first (RFC 6749 §2.3.1).
        both = f"{quote_plus(self.settings.client_id)}:{quote_plus(secret)}"
        self._authorization = b"Basic " + b64encode(both.encode())

    @override
    async def on_token(self, session: Session, token: Token) -> Granted | Verdict:
        key = hashlib.sha256(token.token.encode()).digest()
        now = self.tools.clock()
        until, granted = self._known.get(key, (0.0, None))
        if granted is None or until <= now:
            said = await self._elsewhere.within(lambda: self._ask(key, token.token))
            if said == "down":
                return LATER
            if said is None:
                self.tools.count("wrong")
                return _NOT_GOOD
            granted = said
        if token.user and not _is_meant(token.user, granted):
            self.tools.count("wrong")
            return _ANOTHERS
        self.tools.count("granted")
        return granted

    async def _ask(self, key: bytes, token: str) -> Granted | None:
        """What a token grants; None: nothing."""
        body = urlencode({"token": token, "token_type_hint": "access_token"}).encode()
        fields = [
            (b"Authorization", self._authorization),
            (b"Content-Type", b"application/x-www-form-urlencoded"),
        ]
        answer = await self._post(self._address, fields, body, most=_ANSWER)
        if answer.status != 200:
            raise DownError(f"the issuer answers {answer.status}")
        try:
            meaning, claims = _MEANING.decode(answer.body), _CLAIMS.decode(answer.body)
        except msgspec.MsgspecError as error:
            raise DownError(f"the issuer's answer is none: {error}") from None
        return self._judge(key, meaning, claims)

    def _judge(self, key: bytes, meaning: _Meaning, claims: dict[str, object]) -> Granted | None:
        settings, now = self.settings, self.tools.clock()
        expires = now + settings.remember
        if meaning.exp is not None:
            expires = min(expires, meaning.exp)
        if (
            not meaning.active
            or (meaning.exp is not None and meaning.exp <= now)
            or (meaning.nbf is not None and meaning.nbf > now)
            or not set(settings.scopes) <= set(meaning.scope.split())
        ):
            return None
        if meaning.email_verified not in (True, "true"):
            claims = {name: value for name, value in claims.items() if name != "email"}
        login = claims.get(settings.login)
        if not isinstance(login, str) or login[:1] in ("*", "@"):  # which would be a pattern
            raise DownError(f"the issuer says no {settings.login}, which is to name the user")
        addresses = [
            address for name in settings.addresses for address in _addresses(claims.get(name))
        ]
        try:
            until = math.inf if meaning.exp is None else meaning.exp
            granted = Granted(login, tuple(dict.fromkeys(addresses)), until=until)
        except ValueError as error:
            raise DownError(str(error)) from None
        self._known.pop(key, None)
        if len(self._known) >= _MOST:
            del self._known[next(iter(self._known))]
        self._known[key] = expires, granted
        return granted


def _is_meant(user: str, granted: Granted) -> bool:
    """Whether somebody is called what the client says he is."""
    return user.casefold() in {each.casefold() for each in (granted.login, *granted.addresses)}


def _addresses(claim: object) -> list[str]:
    """What of a claim are addresses: no patterns, as users may choose what stands there."""
    try:
        values = msgspec.convert(claim, list[str] | str)
    except msgspec.ValidationError:
        return []  # it is not there, or something else
    return [each for each in ([values] if isinstance(values, str) else values) if is_mailbox(each)]
