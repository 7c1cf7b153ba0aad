"""Servers that speak TLS, with certificates made when they are first wanted."""

from __future__ import annotations

import ssl
import warnings
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

if TYPE_CHECKING:
    from pathlib import Path


@cache
def server_context(name: str = "mx.example", *, tickets: int = 2) -> ssl.SSLContext:
    """A server whose certificate nobody knows the issuer of.

    Args:
        name: in the certificate.
        tickets: that the server sends once the handshake is over, unasked; 2 is what all do.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = tickets
    trustme.CA().issue_cert(name).configure_cert(context)
    return context


def old_server_context() -> ssl.SSLContext:
    """A server that knows nothing newer than TLS 1.1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("old.example").configure_cert(context)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        # Python would rather that nobody did so. That is what the test is about.
        warnings.simplefilter("ignore", DeprecationWarning)
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    return context


class Authority:
    """Issues certificates into files.

    Args:
        folder: where the files are put.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ca = trustme.CA()
        self.file = folder / "authority.pem"
        self._ca.cert_pem.write_to_path(self.file)

    def issue(self, *names: str, file: str = "", **more: object) -> dict[str, str]:
        """A certificate and its key, as an entry of ``tls.certificates``.

        Args:
            names: it is for.
            file: what its files are called; empty: as the first name.
            more: for trustme.
        """
        issued = self._ca.issue_cert(*names, **more)  # type: ignore[arg-type] # whatever it takes
        path = self._folder / (file or names[0].replace("*", "any"))
        certificate, key = path.with_suffix(".crt"), path.with_suffix(".key")
        certificate.write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(key)
        key.chmod(0o600)
        return {"certificate": str(certificate), "key": str(key)}

    def issue_strange(self, name: str, file: str) -> dict[str, str]:
        """One that OpenSSL shows, and that has an extension twice, so that it cannot be read."""
        key = ec.generate_private_key(ec.SECP256R1())
        us = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        began = datetime.now(UTC) - timedelta(days=1)
        built = (
            x509.CertificateBuilder()
            .subject_name(us)
            .issuer_name(us)
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(began)
            .not_valid_after(began + timedelta(days=30))
        )
        for oid in ("1.2.3.444.1", "1.2.3.444.2"):
            extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), b"\x05\x00")
            built = built.add_extension(extension, critical=False)
        octets = built.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
        one, other = (bytes((0x2A, 3, 0x83, 0x3C, last)) for last in (1, 2))
        assert octets.count(other) == 1
        path = self._folder / file
        certificate, private = path.with_suffix(".crt"), path.with_suffix(".key")
        certificate.write_text(ssl.DER_cert_to_PEM_cert(octets.replace(other, one)))
        private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return {"certificate": str(certificate), "key": str(private)}

    def client(self, *names: str) -> ssl.SSLContext:
        """What a client wants who trusts this authority.

        Args:
            names: in the certificate that it shows; none: it shows none.
        """
        context = ssl.create_default_context(cafile=self.file)
        if names:
            self.certify(context, *names)
        return context

    def certify(self, context: ssl.SSLContext, *names: str) -> None:
        """Have somebody show a certificate of this authority."""
        self._ca.issue_cert(*names).configure_cert(context)


@cache
def authority() -> trustme.CA:
    """Somebody whom tests have their clients trust."""
    return trustme.CA()


@cache
def trusted_context(name: str, *, client_wanted: bool = False) -> ssl.SSLContext:
    """A server whose certificate that authority has issued; it may want one of its clients."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert(name).configure_cert(context)
    if client_wanted:
        context.verify_mode = ssl.CERT_REQUIRED
        authority().configure_trust(context)
    return context
