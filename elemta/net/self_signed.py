"""A certificate that nobody vouches for: where encryption is tried out, not where it protects."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from elemta.files import replace_file
from elemta.net.certificates import CertificateError, examine

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

#: Days for which one is good. What is older than all but this rest is made anew.
DAYS: Final = 365
_REST: Final = 30 * 86400


def have_self_signed(
    certificate: Path, key: Path, names: Sequence[str], addresses: Sequence[str], now: float
) -> bool:
    """See that there is a certificate that is good for some weeks still; blocks.

    Args:
        certificate: where it lies; its folder is made, for its owner alone.
        key: where its key lies.
        names: host names that it is for.
        addresses: IP addresses that it is for.
        now: seconds since the epoch.

    Returns:
        Whether it was made.

    Raises:
        OSError: it cannot be written.
    """
    try:
        if examine(certificate, key).ends - now > _REST:
            return False
    except CertificateError:
        pass  # there is none yet, or what somebody left half done
    _make(certificate, key, names, addresses, now)
    return True


def _make(
    certificate: Path, key: Path, names: Sequence[str], addresses: Sequence[str], now: float
) -> None:
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
    from cryptography.x509.oid import ExtendedKeyUsageOID

    secret = ec.generate_private_key(ec.SECP256R1())
    us = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0])])
    began = datetime.fromtimestamp(now, UTC) - timedelta(hours=1)  # clocks differ
    made = (
        x509.CertificateBuilder()
        .subject_name(us)
        .issuer_name(us)
        .public_key(secret.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(began)
        .not_valid_after(began + timedelta(days=DAYS))
        .add_extension(
            x509.SubjectAlternativeName(
                [
                    *(x509.DNSName(name) for name in names),
                    *(x509.IPAddress(ipaddress.ip_address(each)) for each in addresses),
                ]
            ),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(secret, hashes.SHA256())
    )
    for folder in {certificate.parent, key.parent}:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    pem = secret.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    # The key first: a key without its certificate is made anew, and so is the other way round.
    replace_file(key, pem)
    replace_file(certificate, made.public_bytes(Encoding.PEM))
