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
        problem = f"{certificate} and {key} are no certificate and its key, both PEM: {why(error)}"
        raise CertificateError(problem) from error


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
