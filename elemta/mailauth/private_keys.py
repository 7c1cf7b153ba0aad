"""Private keys that sign, as files have them, and the records by which others know them.

OpenSSL signs: what dkimpy does itself takes 12 ms for RSA-2048 where this takes half of one.
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from msgspec import Struct
from typing_extensions import override

from elemta.mailauth.keys import FEWEST_BITS

if TYPE_CHECKING:
    from pathlib import Path

Kind: TypeAlias = Literal["rsa", "ed25519"]

#: Bits of an RSA key that should sign (RFC 8301 §3.2), and those that all verifiers can take.
GOOD_BITS: Final = 2048
MOST_BITS: Final = 4096
#: Octets of a file that may be a key; one of `MOST_BITS` has 3300.
_LONGEST: Final = 16 * 1024
#: Of an Ed25519 key without any wrapping, as dkimpy's ``dknewkey`` writes it in base64.
_SEED: Final = 32
#: Octets of one string of a TXT record (RFC 1035 §3.3).
_STRING: Final = 255
_SHA256: Final = Prehashed(hashes.SHA256())
_PADDING: Final = PKCS1v15()
#: Who may do something with a file, and is not its owner.
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


class KeyFileError(Exception):
    """A file is no key that could sign; `str` says why, and nothing of what is in it."""


class PrivateKey(Struct, frozen=True, eq=False):
    """A key that signs. It shows itself nowhere.

    Attributes:
        private: in the hands of OpenSSL.
    """

    private: rsa.RSAPrivateKey | Ed25519PrivateKey

    @property
    def kind(self) -> Kind:
        """As ``k=`` has it."""
        return "rsa" if isinstance(self.private, rsa.RSAPrivateKey) else "ed25519"

    @property
    def bits(self) -> int:
        """Its size."""
        return self.private.key_size if isinstance(self.private, rsa.RSAPrivateKey) else 256

    @property
    def slow(self) -> bool:
        """Whether nobody should wait while it signs: 3.4 ms with 4096 bits."""
        return self.bits > GOOD_BITS

    @property
    def public(self) -> bytes:
        """What others know of it, as ``p=`` has it in base64 (RFC 6376 §3.6.1, RFC 8463 §4)."""
        public = self.private.public_key()
        if isinstance(self.private, rsa.RSAPrivateKey):
            return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return public.public_bytes(Encoding.Raw, PublicFormat.Raw)

    @property
    def pem(self) -> bytes:
        """The key itself, to be written to a file (PKCS#8)."""
        return self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def sign(self, digest: bytes) -> bytes:
        """A signature over a SHA-256 digest."""
        if isinstance(self.private, rsa.RSAPrivateKey):
            return self.private.sign(digest, _PADDING, _SHA256)
        return self.private.sign(digest)

    @override
    def __repr__(self) -> str:
        return f"PrivateKey({self.kind}, {self.bits} bits)"


def generate_key(kind: Kind, bits: int = GOOD_BITS) -> PrivateKey:
    """Make a new key.

    Args:
        kind: of which kind.
        bits: of an RSA key.
    """
    if kind == "ed25519":
        return PrivateKey(Ed25519PrivateKey.generate())
    return PrivateKey(rsa.generate_private_key(65537, bits))


def parse_private_key(octets: bytes) -> PrivateKey:
    """The key in a file: RSA in PKCS#8 or PKCS#1, Ed25519 in PKCS#8 or as bare base64.

    Raises:
        KeyFileError: there is none that could sign.
    """
    if b"-----BEGIN" not in octets:
        return _bare(octets)
    if b"-----BEGIN PUBLIC KEY" in octets or b"-----BEGIN CERTIFICATE" in octets:
        raise KeyFileError("the public part of a key, not the private one")
    try:
        found = load_pem_private_key(octets, None)
    except TypeError:
        raise KeyFileError("a key that is encrypted: nobody is there to say its password") from None
    except (ValueError, UnsupportedAlgorithm):
        raise KeyFileError("no key that can be read") from None
    if isinstance(found, Ed25519PrivateKey):
        return PrivateKey(found)
    if not isinstance(found, rsa.RSAPrivateKey):
        raise KeyFileError("a key of a kind that DKIM does not have: it needs RSA or Ed25519")
    if not FEWEST_BITS <= found.key_size <= MOST_BITS:
        problem = f"an RSA key of {found.key_size} bits, where {FEWEST_BITS} to {MOST_BITS} can be"
        raise KeyFileError(f"{problem} verified (RFC 8301 §3.2)")
    return PrivateKey(found)


def _bare(octets: bytes) -> PrivateKey:
    try:
        seed = base64.b64decode(b"".join(octets.split()), validate=True)
    except binascii.Error:
        seed = b""
    if len(seed) != _SEED:
        raise KeyFileError("no key: neither PEM nor the base64 of an Ed25519 key")
    return PrivateKey(Ed25519PrivateKey.from_private_bytes(seed))


def read_private_key(path: Path, *, insecure: bool = False) -> PrivateKey:
    """Read a key from its file.

    Args:
        path: of the file.
        insecure: others than its owner may read it, too.

    Raises:
        KeyFileError: it cannot be read, others can, or it is no key that could sign.
    """
    return parse_private_key(read_key_file(path, insecure=insecure))


def read_key_file(path: Path, *, insecure: bool = False) -> bytes:
    """What is in the file of a key. Arguments and errors are those of `read_private_key`."""
    try:
        # A pipe in its place must not hold us up.
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            mode = os.fstat(file).st_mode
            octets = os.read(file, _LONGEST + 1) if stat.S_ISREG(mode) else b""
        finally:
            os.close(file)
    except PermissionError:
        raise KeyFileError("Permission denied: whom the server runs as must own it") from None
    except OSError as error:
        raise KeyFileError(error.strerror or type(error).__name__) from None
    if not stat.S_ISREG(mode):
        raise KeyFileError("no file")
    if mode & _OTHERS and not insecure:
        told = f"others than its owner may read or write it (mode {stat.S_IMODE(mode):04o})"
        raise KeyFileError(f"{told}: chmod 0600")
    if len(octets) > _LONGEST:
        raise KeyFileError(f"more than {_LONGEST} octets, which is no key")
    return octets


def key_record(key: PrivateKey) -> str:
    """The text of the record by which others know a key (RFC 6376 §3.6.1)."""
    return f"v=DKIM1; k={key.kind}; p={base64.b64encode(key.public).decode('ascii')}"


def zone_entry(name: str, text: str) -> str:
    """A TXT record as a zone file has it, its text cut into strings that the DNS can take.

    Args:
        name: whose record it is.
        text: ASCII, without quotes and backslashes.
    """
    strings = [f'"{text[place : place + _STRING]}"' for place in range(0, len(text), _STRING)]
    if len(strings) == 1:
        return f"{name}. IN TXT {strings[0]}"
    return "\n  ".join([f"{name}. IN TXT (", *strings]) + "\n)"
