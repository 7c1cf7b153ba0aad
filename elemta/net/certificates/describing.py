"""What certificates say: whose they are, for how long they are good, what is wrong with them."""

from __future__ import annotations

import hashlib
import ssl
import stat
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

from msgspec import Struct
from typing_extensions import override

from elemta.net.certificates.contexts import CertificateError, load_pair, readable, why

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cryptography import x509

#: Days before its end from which on a certificate is complained of.
SOON: Final = 14
DAY: Final = 86400

#: As people call them (FIPS 186).
_CURVES: Final = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}


class Certificate(Struct, frozen=True, kw_only=True):
    """What is known of one certificate.

    Attributes:
        file: where it is from.
        subject, issuer: as RFC 4514 writes them.
        names: host names in small letters, ``*.example.org`` for all just below one.
        begins, ends: when it is good, seconds since the epoch.
        key: what kind it has, e.g. ``ECDSA P-256``.
        issuers: how many certificates stand behind it in its file.
        end_point: see `Encryption.server_end_point`.
        open_key: everybody on this machine may read its key.
    """

    file: Path
    subject: str
    issuer: str
    names: tuple[str, ...]
    begins: float
    ends: float
    key: str
    issuers: int
    end_point: bytes
    open_key: bool = False

    @property
    def kind(self) -> str:
        """The kind of its key alone: ``ECDSA``, ``RSA``, ``Ed25519``."""
        return self.key.partition(" ")[0]

    @property
    def name(self) -> str:
        """What people call it: its first name."""
        return self.names[0] if self.names else self.subject

    @override
    def __str__(self) -> str:
        """What it is for, and for how long."""
        end = time.strftime("%Y-%m-%d %H:%M", time.gmtime(self.ends))
        return f"{self.name} until {end}"

    def is_good(self, now: float) -> bool:
        """Whether it is good at a time."""
        return self.begins <= now < self.ends

    def days(self, now: float) -> int:
        """Whole days that are left; below 0: it has run out."""
        return int((self.ends - now) // DAY)

    def covers(self, host: str) -> bool:
        """Whether it is for a host (RFC 9525 §6.3)."""
        host = host.lower().rstrip(".")
        return host in self.names or f"*.{host.partition('.')[2]}" in self.names

    def complaint(self, now: float) -> str | None:
        """What is wrong with it, or will be soon; None: nothing."""
        if now < self.begins:
            return "is not good yet"
        days = self.days(now)
        if days < 0:
            return "has run out"
        return f"runs out in {days} days" if days < SOON else None

    def doubts(self, now: float) -> Iterator[str]:
        """What is no mistake, but hardly what anybody wants."""
        if (complaint := self.complaint(now)) is not None:
            yield f"it {complaint}"
        if not self.names:
            yield "it is for no name, and clients look for one among subject alternative names"
        if self.open_key:
            yield "everybody on this machine may read its key"


def examine(certificate: Path, key: Path) -> Certificate:
    """What is known of a certificate whose key this is; blocks.

    Raises:
        CertificateError: as `load_pair`.
    """
    load_pair(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), certificate, key)
    try:
        open_key = bool(key.stat().st_mode & stat.S_IROTH)
    except OSError as error:  # gone since
        raise CertificateError(f"{key} cannot be read: {why(error)}", of_key=True) from error
    return described(certificate, open_key=open_key)


def described(certificate: Path, *, open_key: bool = False) -> Certificate:
    """What a certificate says of itself; blocks.

    Raises:
        CertificateError: it cannot be read, or is none.
    """
    from cryptography import x509

    readable(certificate)
    try:
        first, *issuers = x509.load_pem_x509_certificates(certificate.read_bytes())
        return _described(first, certificate, issuers, open_key=open_key)
    except _strange(OSError) as error:
        raise CertificateError(f"{certificate} is no certificate, PEM: {error}") from error


def described_as_sent(certificate: bytes) -> Certificate:
    """What a certificate says of itself that came over the wire.

    Args:
        certificate: DER.

    Raises:
        ValueError: it is none, or one that cannot be read.
    """
    from cryptography import x509

    try:
        return _described(x509.load_der_x509_certificate(certificate), Path(), [])
    except _strange() as error:
        raise ValueError(str(error)) from error


def misplaced(certificate: Path) -> str | None:
    """What is wrong with the order of the certificates in a file; None: nothing. Blocks.

    Raises:
        CertificateError: as `described`.
    """
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature

    described(certificate)
    chain = x509.load_pem_x509_certificates(certificate.read_bytes())
    for number, (each, behind) in enumerate(pairwise(chain), 1):
        try:
            each.verify_directly_issued_by(behind)
        except _strange(TypeError, InvalidSignature):
            return f"certificate {number} is not issued by the one behind it"
    return None


def subject_of(certificate: bytes) -> str:
    """The subject of a client's (DER).

    Empty, if it has none that can be read: then it is good, and nobody's.
    """
    from cryptography import x509

    try:
        return x509.load_der_x509_certificate(certificate).subject.rfc4514_string()
    except _strange():
        return ""


def _described(
    first: x509.Certificate,
    file: Path,
    issuers: Sequence[x509.Certificate],
    *,
    open_key: bool = False,
) -> Certificate:
    return Certificate(
        file=file,
        subject=first.subject.rfc4514_string(),
        issuer=first.issuer.rfc4514_string(),
        names=_names(first),
        begins=first.not_valid_before_utc.timestamp(),
        ends=first.not_valid_after_utc.timestamp(),
        key=_kind(first),
        issuers=len(issuers),
        end_point=_end_point(first),
        open_key=open_key,
    )


def _strange(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """What `cryptography` raises when it is asked what certificates say that OpenSSL takes.

    Not all of it is a ValueError: extensions that are there twice, keys of curves that it lacks.
    """
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm

    return (
        ValueError, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension,
        x509.UnsupportedGeneralNameType, *others,
    )  # fmt: skip


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    """Who it is for; its common name only where it names nobody (RFC 6125 §6.4.4)."""
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        common = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        return tuple(str(each.value).lower() for each in common)
    return tuple(name.lower() for name in names.value.get_values_for_type(x509.DNSName))


def _kind(certificate: x509.Certificate) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    match certificate.public_key():
        case rsa.RSAPublicKey() as key:
            return f"RSA {key.key_size}"
        case ec.EllipticCurvePublicKey() as key:
            return f"ECDSA {_CURVES.get(key.curve.name, key.curve.name)}"
        case ed25519.Ed25519PublicKey():
            return "Ed25519"
        case key:
            return type(key).__name__


def _end_point(certificate: x509.Certificate) -> bytes:
    """The hash that logins can be bound to (RFC 5929 §4.1)."""
    from cryptography.hazmat.primitives.serialization import Encoding

    algorithm = certificate.signature_hash_algorithm
    if algorithm is None:  # Ed25519: what to hash by is not defined
        return b""
    name = "sha256" if algorithm.name in ("md5", "sha1") else algorithm.name
    return hashlib.new(name, certificate.public_bytes(Encoding.DER)).digest()
