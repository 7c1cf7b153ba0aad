"""What SASL mechanisms say, as challenges and responses (RFC 4422, RFC 4954).

Nobody's word is believed here: a mechanism comes to `Credentials` or a `Token`, and whether they
are right is somebody else's to say; or it `Needs` what is known of somebody, and then comes to a
`Proof`.
Who is asked, and how long that takes, is not for this file: a step is what came, and what is next.
Base64 is of the wire: the engines take it off and put it on.

SCRAM is in `elemta.protocol.scram`, what shows tokens in `elemta.protocol.bearer`.
"""

from __future__ import annotations

import binascii
from typing import Final, Protocol, TypeAlias

from msgspec import Struct
from typing_extensions import override

from elemta.protocol.reply import Reply
from elemta.protocol.saslprep import prepare

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


class Verifier(Protocol):
    """What is kept of somebody's password (RFC 5802 §3)."""

    @property
    def iterations(self) -> int:
        """How often the password was hashed."""
        ...

    @property
    def salt(self) -> bytes:
        """What was hashed with it."""
        ...

    @property
    def stored_key(self) -> bytes:
        """What a client's proof is held against."""
        ...

    @property
    def server_key(self) -> bytes:
        """What proves to the client that we know it."""
        ...


class Needs(Struct, frozen=True):
    """The exchange goes on by `Mechanism.give`, with what is known of somebody.

    Attributes:
        user: who; prepared (RFC 4013).
    """

    user: str


class Proof(Struct, frozen=True):
    """Somebody has proved that he knows a password, or has not.

    Attributes:
        user: whose password; prepared (RFC 4013).
        acting_as: as of `Credentials`.
        fault: what was wrong, in a word for our log; empty: nothing was.
    """

    user: str
    acting_as: str = ""
    fault: str = ""


class Unproved(Struct, frozen=True):
    """The client has heard already why it is not let in, and waits for the answer to AUTH."""


#: What a step of an exchange comes to: the next challenge, what is asked of us, or the end.
Step: TypeAlias = bytes | Needs | Credentials | Token | Proof | Unproved


class Mechanism(Protocol):
    """One exchange, as the server sees it."""

    def respond(self, response: bytes | None) -> Step:
        """Take the client's response; None is the lack of an initial one.

        Raises:
            ValueError: no client of this mechanism says so. The exchange is over.
        """
        ...

    def give(self, verifier: Verifier) -> bytes:
        """Go on from `Needs`; returns the next challenge.

        Args:
            verifier: of the user who was asked for; of one whom nobody knows, something that looks
                like one.
        """
        ...

    def refuse(self) -> bytes | None:
        """The `Token` is not right. Returns what the client is told of it, if it waits for that.

        What it answers comes to `Unproved`. None: the exchange is over.
        """
        ...


class Simple:
    """What mechanisms have in common that only say something."""

    def give(self, verifier: Verifier) -> bytes:
        """See `Mechanism`: nothing was needed."""
        raise NotImplementedError

    def refuse(self) -> bytes | None:
        """See `Mechanism`: nobody waits for more than our answer."""
        return None


class Plain(Simple):
    """PLAIN (RFC 4616): everything in one response."""

    def respond(self, response: bytes | None) -> Step:
        """See `Mechanism`."""
        if response is None:
            return b""
        words = response.split(b"\0")
        if len(words) != 3:
            raise ValueError("PLAIN has three words")
        acting_as, user, password = map(_word, words)
        if not user or not password:
            raise ValueError("an empty user or password")
        return Credentials(prepare(user), password, acting_as and prepare(acting_as))


class Login(Simple):
    """LOGIN (draft-murchison-sasl-login): one word a response."""

    def __init__(self) -> None:
        self._user: str | None = None

    def respond(self, response: bytes | None) -> Step:
        """See `Mechanism`."""
        if response is None:
            return b"Username:"
        word = _word(response)
        if not word:
            raise ValueError("an empty user or password")
        if self._user is None:
            self._user = prepare(word)
            return b"Password:"
        return Credentials(self._user, word)


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
