"""Keys of the tests' own, and messages signed with them."""

from __future__ import annotations

import base64
import logging
from functools import cache
from typing import TYPE_CHECKING

import dkim
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

if TYPE_CHECKING:
    from elemta.testing import FakeDns

logging.getLogger("dkimpy").addHandler(logging.NullHandler())

MESSAGE = (
    b"From: Ann <ann@sender.example>\r\n"
    b"To: bob@us.example\r\n"
    b"Subject:  the   plan\r\n"
    b"Date: Sat, 28 Nov 2026 12:00:00 +0000\r\n"
    b"Message-ID: <1@sender.example>\r\n"
    b"\r\n"
    b"We  meet \t at noon. \r\n"
    b"\r\n"
    b" Ann\r\n"
    b"\r\n\r\n"
)


@cache
def rsa_key(bits: int = 1024) -> tuple[bytes, str]:
    """A private key, and its record."""
    private = rsa.generate_private_key(65537, bits)
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    public = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return pem, f"v=DKIM1; k=rsa; p={base64.b64encode(public).decode()}"


@cache
def ed25519_key() -> tuple[bytes, str]:
    """A private key, and its record."""
    private = ed25519.Ed25519PrivateKey.generate()
    public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return (
        base64.b64encode(private.private_bytes_raw()),
        f"v=DKIM1; k=ed25519; p={base64.b64encode(public).decode()}",
    )


def signed(
    message: bytes = MESSAGE,
    *,
    domain: str = "sender.example",
    selector: str = "s1",
    key: bytes | None = None,
    algorithm: bytes = b"rsa-sha256",
    canonicalize: tuple[bytes, bytes] = (b"relaxed", b"relaxed"),
    length: bool = False,
    identity: bytes | None = None,
    names: list[bytes] | None = None,
) -> bytes:
    """The message with a DKIM-Signature."""
    field = dkim.sign(  # type: ignore[attr-defined] # no part of what is used outside of tests
        message,
        selector.encode(),
        domain.encode(),
        key or rsa_key()[0],
        signature_algorithm=algorithm,
        canonicalize=canonicalize,
        length=length,
        identity=identity,
        include_headers=names or [b"from", b"to", b"subject", b"date"],
    )
    return bytes(field) + message


def sealed(
    message: bytes,
    *,
    domain: str = "list.example",
    selector: str = "s1",
    results: str = "arc=none",
    names: list[bytes] | None = None,
) -> bytes:
    """The message with one ARC set more."""
    stated = f"Authentication-Results: {domain}; {results}\r\n".encode()
    fields = dkim.arc_sign(  # type: ignore[attr-defined] # as above
        stated + message,
        selector.encode(),
        domain.encode(),
        rsa_key()[0],
        domain.encode(),
        include_headers=names or [b"from", b"to", b"subject", b"date"],
    )
    assert fields
    return b"".join(fields) + message


def publish(
    dns: FakeDns, record: str, domain: str = "sender.example", selector: str = "s1"
) -> None:
    """Put a key record into the DNS."""
    dns.text(f"{selector}._domainkey.{domain}", record)
