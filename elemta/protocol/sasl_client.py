"""What a client says in SASL mechanisms (RFC 4422): who we are, to a server that wants to know.

`sasl` has the other side. Base64 is of the wire: the engine takes it off and puts it on. Nothing
here is random: whoever logs in brings the nonce.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import re
from typing import TYPE_CHECKING, Final, Protocol

from elemta.protocol.sasl import Token, login_responses, plain_response
from elemta.protocol.saslprep import prepare

if TYPE_CHECKING:
    from collections.abc import Container

    from elemta.protocol.sasl import Credentials

#: How often a server may have us hash the password. Less than RFC 7677 §4 asks for would give it
#: away to a thief of what was said; more would keep the loop busy for longer than 0.1 s.
LEAST_ITERATIONS: Final = 4096
MOST_ITERATIONS: Final = 100_000

_SCRAM: Final = "SCRAM-SHA-256"
_PLAIN: Final = "PLAIN"
_LOGIN: Final = "LOGIN"
_XOAUTH2: Final = "XOAUTH2"
_OAUTHBEARER: Final = "OAUTHBEARER"

_HASH: Final = "sha256"
#: What a server may say of a failure (RFC 5802 §7).
_ERROR: Final = re.compile("[a-z-]{1,64}")
#: We bind to no channel, and do not know how to (RFC 5802 §7).
_GS2_HEADER: Final = "n,,"


class Exchange(Protocol):
    """One exchange, as the client sees it."""

    @property
    def name(self) -> str:
        """The mechanism's."""
        ...

    @property
    def initial(self) -> bytes | None:
        """What is said with AUTH at once; None: nothing."""
        ...

    @property
    def proven(self) -> bool:
        """Whether the server may say that we are in: in SCRAM it has to prove itself first."""
        ...

    def respond(self, challenge: bytes) -> bytes:
        """Answer a challenge.

        Raises:
            ValueError: no server of this mechanism, who knows our password, says so. The message
                says what it does, and holds no secret.
        """
        ...


class PlainExchange:
    """PLAIN (RFC 4616): everything at once."""

    def __init__(self, credentials: Credentials) -> None:
        self.name: Final = _PLAIN
        self.initial: Final = plain_response(credentials)
        self.proven: Final = True

    def respond(self, challenge: bytes) -> bytes:
        """See `Exchange.respond`."""
        raise ValueError("asks for more, though it was told everything")


class LoginExchange:
    """LOGIN (draft-murchison-sasl-login): a word for each challenge, whatever it says."""

    def __init__(self, credentials: Credentials) -> None:
        self.name: Final = _LOGIN
        self.initial: Final = None
        self.proven: Final = True
        self._left = [*login_responses(credentials)]

    def respond(self, challenge: bytes) -> bytes:
        """See `Exchange.respond`."""
        if not self._left:
            raise ValueError("asks for more than a name and a password")
        return self._left.pop(0)


class ScramExchange:
    """SCRAM-SHA-256 (RFC 5802, RFC 7677): both prove that they know the password.

    Args:
        credentials: who we are.
        nonce: unguessable, printable ASCII without a comma.
    """

    def __init__(self, credentials: Credentials, nonce: str) -> None:
        self.name: Final = _SCRAM
        self._password = _prepared(credentials.password).encode()
        self._nonce = nonce
        self._first = f"n={_saslname(_prepared(credentials.user))},r={nonce}"
        #: What the server has to say to prove itself, once we have proved ourselves.
        self._signature: bytes | None = None
        self.initial: Final = f"{_GS2_HEADER}{self._first}".encode()
        self.proven = False

    def respond(self, challenge: bytes) -> bytes:
        """See `Exchange.respond`."""
        if self.proven:
            raise ValueError("asks for more than SCRAM has")
        if self._signature is None:
            return self._prove(challenge)
        found = _attributes(challenge)
        if "e" in found:
            why = found["e"] if _ERROR.fullmatch(found["e"]) else "for no known reason"
            raise ValueError(f"says no: {why}")
        if not hmac.compare_digest(_octets(found, "v"), self._signature):
            raise ValueError("does not know our password, or is another")
        self.proven = True
        return b""

    def _prove(self, challenge: bytes) -> bytes:
        found = _attributes(challenge)
        if "m" in found:
            raise ValueError("wants an extension of SCRAM that we do not know")
        nonce, salt, count = found.get("r", ""), _octets(found, "s"), found.get("i", "")
        # Else somebody could have us say again what he has heard before.
        if not nonce.startswith(self._nonce) or len(nonce) == len(self._nonce):
            raise ValueError("answers with a nonce that is not ours")
        iterations = int(count) if count.isascii() and count.isdigit() and len(count) < 10 else 0
        if not LEAST_ITERATIONS <= iterations <= MOST_ITERATIONS:
            raise ValueError(
                f"wants {iterations} iterations, and we do {LEAST_ITERATIONS} to {MOST_ITERATIONS}"
            )
        salted = hashlib.pbkdf2_hmac(_HASH, self._password, salt, iterations)
        client_key = hmac.digest(salted, b"Client Key", _HASH)
        final = f"c={_base64(_GS2_HEADER.encode())},r={nonce}"
        said = b",".join((self._first.encode(), challenge, final.encode()))
        proof = hmac.digest(hashlib.sha256(client_key).digest(), said, _HASH)
        self._signature = hmac.digest(hmac.digest(salted, b"Server Key", _HASH), said, _HASH)
        proof = bytes(one ^ other for one, other in zip(client_key, proof, strict=True))
        return f"{final},p={_base64(proof)}".encode()


class TokenExchange:
    """XOAUTH2 and OAUTHBEARER (RFC 7628): a token, all at once.

    A server that does not take it says why, and wants an answer before it says no.

    Args:
        name: of the mechanism.
        token: what we show, and who we are: letters, digits and marks of ASCII.
    """

    def __init__(self, name: str, token: Token) -> None:
        self.name: Final = name
        self.proven: Final = True
        who = f"user={token.user}\1" if name == _XOAUTH2 else f"n,a={token.user},\1"
        self.initial: Final = f"{who}auth=Bearer {token.token}\1\1".encode()
        self._refused = False

    def respond(self, challenge: bytes) -> bytes:
        """See `Exchange.respond`."""
        if self._refused:
            raise ValueError("asks for more, though it was shown a token")
        self._refused = True
        return b"" if self.name == _XOAUTH2 else b"\1"


def best_exchange(
    offered: Container[str], credentials: Credentials | Token, nonce: str
) -> Exchange | None:
    """The best mechanism of those that a server offers; None: we know none of them.

    Args:
        offered: names in upper case.
        credentials: who we are.
        nonce: as `ScramExchange` takes it.
    """
    if isinstance(credentials, Token):
        # The older one first: those who have both agree on it in every detail.
        for name in (_XOAUTH2, _OAUTHBEARER):
            if name in offered:
                return TokenExchange(name, credentials)
        return None
    if _SCRAM in offered:
        return ScramExchange(credentials, nonce)
    if _PLAIN in offered:
        return PlainExchange(credentials)
    if _LOGIN in offered:
        return LoginExchange(credentials)
    return None


def _attributes(message: bytes) -> dict[str, str]:
    """The attributes of a SCRAM message (RFC 5802 §5)."""
    found: dict[str, str] = {}
    for each in message.decode("utf-8", "replace").split(","):
        name, mark, value = each.partition("=")
        if not mark or len(name) != 1 or name in found:
            raise ValueError("says something that is no SCRAM")
        found[name] = value
    return found


def _octets(found: dict[str, str], name: str) -> bytes:
    try:
        octets = binascii.a2b_base64(found.get(name, ""), strict_mode=True)
    except ValueError:  # letters beyond ASCII, or no base64
        octets = b""
    if not octets:
        raise ValueError(f"says something that is no SCRAM: {name} is missing or no base64")
    return octets


def _base64(octets: bytes) -> str:
    return binascii.b2a_base64(octets, newline=False).decode()


def _prepared(word: str) -> str:
    """As RFC 5802 §5.1 has names and passwords; what cannot be prepared stays as it was written."""
    try:
        return prepare(word)
    except ValueError:
        return word


def _saslname(user: str) -> str:
    return user.replace("=", "=3D").replace(",", "=2C")
