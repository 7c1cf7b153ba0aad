"""What SASL mechanisms say, as challenges and responses (RFC 4422, RFC 4954).

Nobody's word is checked here: a mechanism ends with `Credentials`, and whether they are right is
somebody else's to say. Base64 is of the wire: the engines take it off and put it on.
"""

from __future__ import annotations

import binascii
from typing import Final, Protocol

from msgspec import Struct
from typing_extensions import override

from elemta.protocol.reply import Reply

#: Octets of a name or a password (RFC 4616 §2).
MAX_WORD: Final = 255


class Credentials(Struct, frozen=True):
    """Who somebody claims to be, and the password that shall prove it.

    Attributes:
        user: who the password belongs to.
        acting_as: who to act as, if not the user (an authorization identity); else empty.
    """

    user: str
    password: str
    acting_as: str = ""

    @override
    def __repr__(self) -> str:
        """Without the password: what is shown may be logged."""
        return f"Credentials({self.user!r}, ..., {self.acting_as!r})"


class Token(Struct, frozen=True):
    """Who somebody claims to be, and what somebody else has given him to prove it (RFC 6750).

    Attributes:
        user: who he says he is; empty: the token alone says it (RFC 7628 §3.1).
        token: opaque to us: letters, digits and ``-._~+/=``.
    """

    user: str
    token: str

    @override
    def __repr__(self) -> str:
        """Without the token: what is shown may be logged."""
        return f"Token({self.user!r}, ...)"


class Mechanism(Protocol):
    """One exchange, as the server sees it."""

    def respond(self, response: bytes | None) -> bytes | Credentials:
        """Take the client's response; None is the lack of an initial one.

        Returns:
            The next challenge, or what the exchange came to.

        Raises:
            ValueError: no client of this mechanism says so.
        """
        ...


class Plain:
    """PLAIN (RFC 4616): everything in one response."""

    def respond(self, response: bytes | None) -> bytes | Credentials:
        """See `Mechanism.respond`."""
        if response is None:
            return b""
        words = response.split(b"\0")
        if len(words) != 3:
            raise ValueError("PLAIN has three words")
        acting_as, user, password = map(_word, words)
        if not user or not password:
            raise ValueError("an empty user or password")
        return Credentials(user, password, acting_as)


class Login:
    """LOGIN (draft-murchison-sasl-login): one word a response."""

    def __init__(self) -> None:
        self._user: str | None = None

    def respond(self, response: bytes | None) -> bytes | Credentials:
        """See `Mechanism.respond`."""
        if response is None:
            return b"Username:"
        word = _word(response)
        if not word:
            raise ValueError("an empty user or password")
        if self._user is None:
            self._user = word
            return b"Password:"
        return Credentials(self._user, word)


#: What can be offered, by name.
MECHANISMS: Final[dict[str, type[Plain | Login]]] = {"PLAIN": Plain, "LOGIN": Login}


def plain_response(credentials: Credentials) -> bytes:
    """What a client says in PLAIN; it may be said as the initial response."""
    words = (credentials.acting_as, credentials.user, credentials.password)
    return b"\0".join(word.encode() for word in words)


def login_responses(credentials: Credentials) -> tuple[bytes, bytes]:
    """What a client says to the two challenges of LOGIN, whatever they are."""
    return credentials.user.encode(), credentials.password.encode()


def challenge(octets: bytes) -> Reply:
    """The reply that asks for a response (RFC 4954 §4)."""
    return Reply(334, None, (encode_base64(octets).decode("ascii"),))


def encode_base64(octets: bytes) -> bytes:
    """As a line of the wire carries them (RFC 4648 §4)."""
    return binascii.b2a_base64(octets, newline=False)


def decode_base64(text: bytes) -> bytes | None:
    """Take base64 off; None if it is none: foreign octets, bad padding (RFC 4954 §4)."""
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        return None


def _word(octets: bytes) -> str:
    if len(octets) > MAX_WORD:
        raise ValueError(f"a word of more than {MAX_WORD} octets")
    word = octets.decode()  # a UnicodeDecodeError is a ValueError
    if "\0" in word:
        raise ValueError("a NUL in a word")
    return word
