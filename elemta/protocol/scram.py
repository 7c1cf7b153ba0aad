"""SCRAM-SHA-256 and SCRAM-SHA-256-PLUS, the server's side (RFC 5802, RFC 7677).

A client proves that it knows a password, and we prove that we know it, and nobody says it. With
-PLUS both also prove that they are the two ends of one TLS connection (RFC 5929).
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Final

from msgspec import Struct
from typing_extensions import override

from elemta.protocol.sasl import (
    MAX_WORD,
    Needs,
    Proof,
    Simple,
    Step,
    Verifier,
    decode_base64,
    encode_base64,
)
from elemta.protocol.saslprep import read_saslname

_HASH: Final = "sha256"
#: Octets of a message of a client that are too many: a name of `MAX_WORD` octets of which each is
#: written as three, twice, and a nonce.
_LONGEST: Final = 6 * MAX_WORD + 1100
#: The GS2 header, and what SASL has of the rest (RFC 5802 §7). An extension that we must know
#: (``m=``) stands where no name is, so it is refused.
_FIRST: Final = re.compile(
    r"((?:n|y|p=([A-Za-z0-9.-]+)),(?:a=([^,\0]+))?,)"
    r"(n=([^,\0]+),r=([!-+\--~]{1,1024})(?:,[A-Za-z]=[^,\0]+)*)"
)
_FINAL: Final = re.compile(
    r"(c=([A-Za-z0-9+/=]+),r=([!-+\--~]+)(?:,[A-Za-z]=[^,\0]+)*),p=([A-Za-z0-9+/=]+)"
)


class Binding(Struct, frozen=True):
    """What a client and we must see alike, if nobody is between us.

    Attributes:
        kind: of RFC 5929, such as ``tls-server-end-point``.
        octets: what it is.
    """

    kind: str
    octets: bytes


class Scram(Simple):
    """One exchange.

    Args:
        nonce: ours: printable ASCII without commas, of at least 128 bits that nobody can guess.
        binding: of this connection; None: there is none, or none is asked for.
        plus: this is SCRAM-SHA-256-PLUS: `binding` is there, and the client has to know it.
        offered: SCRAM-SHA-256-PLUS was offered: a client that could bind, and did not hear of that,
            has somebody in the middle (RFC 5802 §6).
    """

    def __init__(
        self,
        nonce: str,
        binding: Binding | None = None,
        *,
        plus: bool = False,
        offered: bool = False,
    ) -> None:
        self._nonce = nonce
        self._binding = binding
        self._plus = plus
        self._offered = offered
        # What has come so far.
        self._header = ""
        self._bare = ""
        self._server_first = ""
        self._user = ""
        self._acting_as = ""
        self._fault = ""
        self._verifier: Verifier | None = None
        self._proved = False

    def respond(self, response: bytes | None) -> Step:
        """See `Mechanism`."""
        if response is None:
            return b""
        if self._proved:
            if response:
                raise ValueError("nothing is left to be said")
            return Proof(self._user, self._acting_as)
        if len(response) > _LONGEST:
            raise ValueError("a SCRAM message that is too long")
        text = response.decode()  # a UnicodeDecodeError is a ValueError
        return self._first(text) if self._verifier is None else self._final(text, self._verifier)

    def _first(self, text: str) -> Needs:
        if (found := _FIRST.fullmatch(text)) is None:
            raise ValueError("no client-first-message")
        self._header, kind, acting_as, self._bare, user, nonce = found.groups()
        if (kind is not None) is not self._plus:
            raise ValueError("a channel is bound with -PLUS, and not without")
        if kind is not None and (self._binding is None or kind != self._binding.kind):
            self._fault = "unsupported channel binding"
        elif self._offered and self._header.startswith("y"):
            self._fault = "downgraded"
        self._user = read_saslname(user)
        self._acting_as = read_saslname(acting_as) if acting_as else ""
        if len(self._user.encode()) > MAX_WORD or len(self._acting_as.encode()) > MAX_WORD:
            raise ValueError(f"a word of more than {MAX_WORD} octets")
        self._nonce = nonce + self._nonce
        return Needs(self._user)

    @override
    def give(self, verifier: Verifier) -> bytes:
        """See `Mechanism`."""
        self._verifier = verifier
        salt = encode_base64(verifier.salt).decode()
        self._server_first = f"r={self._nonce},s={salt},i={verifier.iterations}"
        return self._server_first.encode()

    def _final(self, text: str, verifier: Verifier) -> Step:
        if (found := _FINAL.fullmatch(text)) is None:
            raise ValueError("no client-final-message")
        without_proof, bound, nonce, proof = found.groups()
        octets = decode_base64(proof.encode())
        if octets is None or len(octets) != hashlib.sha256().digest_size:
            raise ValueError("a proof that is none")
        if nonce != self._nonce:
            raise ValueError("the nonce of another exchange")
        said = ",".join((self._bare, self._server_first, without_proof)).encode()
        signature = hmac.digest(verifier.stored_key, said, _HASH)
        client_key = bytes(a ^ b for a, b in zip(octets, signature, strict=True))
        right = hmac.compare_digest(hashlib.sha256(client_key).digest(), verifier.stored_key)
        fault = self._fault
        if not fault and not self._is_bound(bound):
            fault = "wrong channel binding"
        if not right:
            fault = fault or "wrong proof"
        if fault:
            # That the client hears no more of it than our answer to AUTH, the RFC allows (§7).
            return Proof(self._user, self._acting_as, fault)
        self._proved = True
        return b"v=" + encode_base64(hmac.digest(verifier.server_key, said, _HASH))

    def _is_bound(self, bound: str) -> bool:
        """Whether the client saw its GS2 header arrive as it was, on this very connection."""
        wanted = self._header.encode()
        if self._plus:
            assert self._binding is not None, "without one there is a fault already"
            wanted += self._binding.octets
        found = decode_base64(bound.encode())
        return found is not None and hmac.compare_digest(found, wanted)
