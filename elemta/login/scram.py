"""What a server keeps of a password for SCRAM (RFC 5802 §3): enough to tell, not to log in with."""

from __future__ import annotations

import binascii
import hashlib
import hmac
import os
import re
from typing import Final

from msgspec import Struct
from typing_extensions import override

#: The only hash whose mechanisms are offered (RFC 7677).
_HASH: Final = "sha256"
_SCHEME: Final = "SCRAM-SHA-256"
#: Octets of a hash, and of a salt of ours.
DIGEST: Final = 32
SALT: Final = 16
#: How often a password is hashed: for new verifiers, and what is taken of those made elsewhere.
#: RFC 7677 §4 asks for at least 4096; the most bounds what a client is made to compute.
ITERATIONS: Final = 15_000
LEAST_ITERATIONS: Final = 4096
MOST_ITERATIONS: Final = 10_000_000
_LONGEST_SALT: Final = 1024
_FORM: Final = re.compile(_SCHEME + r"\$([0-9]{1,10}):([^:$]+)\$([^:$]+):([^:$]+)")


class ScramVerifier(Struct, frozen=True, kw_only=True):
    """What SCRAM-SHA-256 needs of one user's password.

    Who steals it can try passwords against it, and pretend to be the server, but not log in.

    Attributes:
        iterations: how often the password was hashed.
        salt: what was hashed with it.
        stored_key: ``StoredKey`` of RFC 5802 §3: what a client's proof is held against.
        server_key: ``ServerKey``: what proves to a client that we know its password.

    Raises:
        ValueError: a part has not the size that it must have.
    """

    iterations: int
    salt: bytes
    stored_key: bytes
    server_key: bytes

    def __post_init__(self) -> None:
        if not LEAST_ITERATIONS <= self.iterations <= MOST_ITERATIONS:
            raise ValueError(
                f"a SCRAM verifier has {LEAST_ITERATIONS} to {MOST_ITERATIONS} iterations"
            )
        if not 0 < len(self.salt) <= _LONGEST_SALT:
            raise ValueError(f"a SCRAM verifier has a salt of 1 to {_LONGEST_SALT} octets")
        if len(self.stored_key) != DIGEST or len(self.server_key) != DIGEST:
            raise ValueError(f"a SCRAM verifier has two keys of {DIGEST} octets")

    @classmethod
    def of(
        cls, password: str, *, salt: bytes | None = None, iterations: int = ITERATIONS
    ) -> ScramVerifier:
        """What is kept of a password. Takes some milliseconds: call it in a thread.

        Args:
            password: as its user types it, prepared (RFC 7613) by whoever takes it.
            salt: None: a random one.
            iterations: how often to hash.

        Raises:
            ValueError: as the class.
        """
        salt = os.urandom(SALT) if salt is None else salt
        salted = hashlib.pbkdf2_hmac(_HASH, password.encode(), salt, iterations)
        client_key = hmac.digest(salted, b"Client Key", _HASH)
        return cls(
            iterations=iterations,
            salt=salt,
            stored_key=hashlib.sha256(client_key).digest(),
            server_key=hmac.digest(salted, b"Server Key", _HASH),
        )

    @classmethod
    def parse(cls, text: str) -> ScramVerifier:
        """Read one as PostgreSQL and RFC 5803 write it: ``SCRAM-SHA-256$4096:SALT$STORED:SERVER``.

        Raises:
            ValueError: it is none.
        """
        # What it was is not said: it is a secret, and this may be logged.
        wrong = ValueError(f"expected {_SCHEME}$ITERATIONS:SALT$STORED_KEY:SERVER_KEY")
        if (found := _FORM.fullmatch(text)) is None:
            raise wrong
        try:
            parts = [binascii.a2b_base64(each, strict_mode=True) for each in found.groups()[1:]]
        except binascii.Error:
            raise wrong from None
        salt, stored_key, server_key = parts
        return cls(
            iterations=int(found[1]), salt=salt, stored_key=stored_key, server_key=server_key
        )

    @override
    def __str__(self) -> str:
        """As `parse` reads it."""
        salt, stored_key, server_key = (
            binascii.b2a_base64(each, newline=False).decode()
            for each in (self.salt, self.stored_key, self.server_key)
        )
        return f"{_SCHEME}${self.iterations}:{salt}${stored_key}:{server_key}"

    @override
    def __repr__(self) -> str:
        """Without what is secret: what is shown may be logged."""
        return f"ScramVerifier({self.iterations} iterations)"
