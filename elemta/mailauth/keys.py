"""Public keys as domains publish them (RFC 6376 §3.6.1, RFC 8463), and signatures of theirs.

dkimpy's own arithmetic takes five to seven times as long as that of `cryptography`, and holds the
interpreter meanwhile.
"""

from __future__ import annotations

import base64
import binascii
import re
from functools import lru_cache
from typing import Final, Literal, TypeAlias

import dkim
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from dkim.crypto import UnparsableKeyError, parse_public_key
from dkim.util import InvalidTagValueList, parse_tag_value
from msgspec import Struct

#: Why a signature does not pass: a result of RFC 8601 §2.7.1.
NoPass: TypeAlias = Literal["fail", "policy", "neutral", "permerror"]

#: Bits of an RSA key: fewer can be broken (RFC 8301 §3.2), more cost us too much.
FEWEST_BITS: Final = 1024
MOST_BITS: Final = 8192
#: Of the public exponent, which is nearly always 65537.
_MOST_EXPONENT_BITS: Final = 33
#: Octets of a record; a key of `MOST_BITS` has 1400.
_LONGEST: Final = 4096
_SPACES: Final = re.compile(rb"\s+")
_SHA256: Final = Prehashed(hashes.SHA256())


class UnverifiedError(dkim.DKIMException):
    """A signature does not pass.

    Attributes:
        result: in the words of RFC 8601 §2.7.1.
        reason: for operators.
    """

    def __init__(self, result: NoPass, reason: str) -> None:
        super().__init__(reason)
        self.result: NoPass = result
        self.reason = reason


class Key(Struct, frozen=True):
    """A public key.

    Attributes:
        hashes: those that it may be used with; none: any.
        testing: the domain only tries it (``t=y``).
        strict: it is not for subdomains (``t=s``).
    """

    public: RSAPublicKey | Ed25519PublicKey
    hashes: tuple[bytes, ...] = ()
    testing: bool = False
    strict: bool = False

    @property
    def kind(self) -> Literal["rsa", "ed25519"]:
        """As ``k=`` has it."""
        return "rsa" if isinstance(self.public, RSAPublicKey) else "ed25519"

    @property
    def bits(self) -> int:
        """Its size."""
        return self.public.key_size if isinstance(self.public, RSAPublicKey) else 256

    def verifies(self, signature: bytes, digest: bytes) -> bool:
        """Whether a signature is of this key, over a SHA-256 digest."""
        try:
            if isinstance(self.public, RSAPublicKey):
                self.public.verify(signature, digest, PKCS1v15(), _SHA256)
            else:
                self.public.verify(signature, digest)
        except InvalidSignature:
            return False
        return True


@lru_cache(maxsize=1024)  # parsing takes as long as verifying
def key_of(record: bytes) -> Key:
    """The key in a TXT record.

    Raises:
        UnverifiedError: there is none that may be used.
    """
    if len(record) > _LONGEST:
        raise UnverifiedError("permerror", f"a key record of more than {_LONGEST} octets")
    try:
        tags = parse_tag_value(record)
    except InvalidTagValueList:
        raise UnverifiedError("permerror", "no key record") from None
    if tags.get(b"v", b"DKIM1") != b"DKIM1":
        raise UnverifiedError("permerror", "a key record of another version")
    if not {b"*", b"email"} & set(_list(tags.get(b"s", b"*"))):
        raise UnverifiedError("permerror", "the key is not for mail")
    if b"p" not in tags:
        raise UnverifiedError("permerror", "a key record without a key")
    encoded = _SPACES.sub(b"", tags[b"p"])
    if not encoded:
        raise UnverifiedError("permerror", "the key was revoked")
    try:
        octets = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        raise UnverifiedError("permerror", "the key is no base64") from None
    flags = _list(tags.get(b"t", b""))
    return Key(
        _public(tags.get(b"k", b"rsa").lower(), octets),
        _list(tags.get(b"h", b"")),
        b"y" in flags,
        b"s" in flags,
    )


def _public(kind: bytes, octets: bytes) -> RSAPublicKey | Ed25519PublicKey:
    match kind:
        case b"rsa":
            return _rsa(octets)
        case b"ed25519":
            return _ed25519(octets)
        case _:
            raise UnverifiedError("permerror", "a key of an unknown kind")


def _rsa(octets: bytes) -> RSAPublicKey:
    try:
        found = parse_public_key(octets)
    except (UnparsableKeyError, AssertionError, IndexError, TypeError, ValueError):
        raise UnverifiedError("permerror", "no RSA key") from None
    modulus, exponent = found["modulus"], found["publicExponent"]
    bits = modulus.bit_length()
    if bits < FEWEST_BITS:
        raise UnverifiedError("policy", f"a key of {bits} bits is too weak")
    if bits > MOST_BITS or exponent.bit_length() > _MOST_EXPONENT_BITS:
        raise UnverifiedError("policy", f"a key of {bits} bits is too large")
    try:
        return RSAPublicNumbers(exponent, modulus).public_key()
    except ValueError:
        raise UnverifiedError("permerror", "no RSA key") from None


def _ed25519(octets: bytes) -> Ed25519PublicKey:
    try:
        return Ed25519PublicKey.from_public_bytes(octets)
    except ValueError:
        raise UnverifiedError("permerror", "no Ed25519 key") from None


def _list(value: bytes) -> tuple[bytes, ...]:
    return tuple(each for word in value.lower().split(b":") if (each := word.strip()))
