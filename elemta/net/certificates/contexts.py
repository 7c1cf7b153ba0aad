"""What a server needs to speak TLS: what it insists on, and its certificate with the key."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

#: Of TLS 1.2: forward secrecy, and encryption that authenticates (RFC 9325 §4.2). TLS 1.3 has
#: nothing else.
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
_MINIMUM: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}

_CERTIFICATE: Final = b"-----BEGIN CERTIFICATE-----"
#: Of PKCS#8, and of kinds of keys that have a form of their own.
_PRIVATE: Final = b"PRIVATE KEY-----"
#: How a structure begins in DER.
_DER: Final = b"\x30\x82"
#: What OpenSSL says of a key that fits another certificate; the last, if it is of another kind.
_ANOTHERS: Final = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")
#: Octets of a file that are looked at to say what is wrong with it.
_LOOKED_AT: Final = 2**20


class CertificateError(Exception):
    """A certificate or its key is of no use.

    Attributes:
        of_key: it is the key.
    """

    def __init__(self, problem: str, *, of_key: bool = False) -> None:
        super().__init__(problem)
        self.of_key = of_key


def server_context(minimum: str = "1.2") -> ssl.SSLContext:
    """For a server that has yet to load its certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _MINIMUM[minimum]
    context.set_ciphers(_CIPHERS)
    # Compression tells what it compresses (CRIME); nobody needs to negotiate twice (RFC 9325 §3).
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    # OpenSSL would make two tickets, for programs that come back twice at once; each costs a tenth
    # of a handshake, and hardly any program that sends mail keeps one.
    context.num_tickets = 1
    return context


def load_pair(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Show this certificate from now on; blocks.

    Raises:
        CertificateError: a file cannot be read, is something else, or they do not fit together.
    """
    for path in (certificate, key):
        readable(path, of_key=path is key)
    try:
        # A key that wants a password must not make us ask for one on a terminal.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except (ssl.SSLError, ValueError, OSError) as error:
        told = _mixed_up(certificate, key, error)
        problem = f"{certificate} and {key} are no certificate and its key, both PEM: {told}"
        raise CertificateError(problem) from error


def _mixed_up(certificate: Path, key: Path, error: Exception) -> str:
    """What is wrong with a pair, for whoever has to mend it; OpenSSL says ``PEM lib`` of most."""
    try:
        public, private = (path.read_bytes()[:_LOOKED_AT] for path in (certificate, key))
    except OSError:
        return why(error)
    if _CERTIFICATE not in public:
        return _no_pem(certificate, public, "certificate", "x509")
    if _PRIVATE not in private:
        return _no_pem(key, private, "private key", "pkey")
    if b"ENCRYPTED" in private:
        return f"the key has a password: take it off (openssl pkey -in {key} -out NEW)"
    if getattr(error, "reason", None) in _ANOTHERS:
        return f"{key} is the key of another certificate"
    return why(error)


def _no_pem(path: Path, octets: bytes, wanted: str, tool: str) -> str:
    for mark, found in ((_PRIVATE, "a private key"), (_CERTIFICATE, "a certificate")):
        if mark in octets:
            return f"{path} has {found} in it, and no {wanted}"
    if octets.startswith(_DER):
        return f"{path} is no PEM, but DER (openssl {tool} -inform DER -in {path} -out NEW)"
    return f"{path} has no {wanted} in it"


def trust(context: ssl.SSLContext, authorities: Path) -> None:
    """Believe clients whom these authorities vouch for; blocks.

    Raises:
        CertificateError: it cannot be read, or has no certificates.
    """
    readable(authorities)
    try:
        context.load_verify_locations(authorities)
    except (ssl.SSLError, OSError) as error:
        problem = f"{authorities} has no certificates, PEM: {why(error)}"
        raise CertificateError(problem) from error


def readable(path: Path, *, of_key: bool = False) -> None:
    """See that a file can be read, as OpenSSL would not say which one cannot; blocks.

    Raises:
        CertificateError: it cannot.
    """
    try:
        path.open("rb").close()
    except OSError as error:
        problem = f"{path} cannot be read: {error.strerror or error}"
        raise CertificateError(problem, of_key=of_key) from error


def why(error: Exception) -> str:
    """What OpenSSL, or the system, says was wrong."""
    reason: str | None = getattr(error, "reason", None)
    return reason.lower().replace("_", " ") if reason else str(error)
