"""Mail from many domains, signed with keys of the bench's own, and the zone that vouches for it."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Final

import dkim
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Sequence

#: The zone of all senders.
ZONE: Final = "example"
#: Domains that send; each has an SPF record, a DKIM key and a DMARC policy ``p=reject``.
DOMAINS: Final = 120
#: Of twenty messages so many are of each kind; the rest passes SPF and DKIM.
FORGED, FORWARDED, UNSIGNED = 2, 1, 1

_SELECTOR: Final = "bench"
_KEYS: Final = 8
_SIGNED: Final = (b"from", b"to", b"subject", b"date", b"message-id", b"mime-version")
#: Octets of a body, about.
_SIZE: Final = 4096
_HERE: Final = "v=spf1 ip4:127.0.0.0/8 -all"
#: Not -all: policyd-spf would refuse at RCPT what is to be refused by DMARC, on all sides.
_ELSEWHERE: Final = "v=spf1 ip4:192.0.2.1 ~all"


class Letter(Struct, frozen=True):
    """What one domain sends, over and over.

    Attributes:
        sender: of the envelope.
        octets: header and body, with CRLF.
        file: the same as `smtp-source` wants it.
        forged: whether DMARC has it refused.
    """

    sender: str
    octets: bytes
    file: Path
    forged: bool


def letters(folder: Path) -> tuple[list[Letter], str]:
    """One for each domain, with files in `folder`; and the records of `ZONE`."""
    folder.mkdir(parents=True)
    keys = [rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(_KEYS)]
    made: list[Letter] = []
    records: list[str] = []
    for number in range(DOMAINS):
        key, kind = keys[number % _KEYS], number % 20
        forged = kind < FORGED
        elsewhere = kind < FORGED + FORWARDED
        unsigned = FORGED + FORWARDED <= kind < FORGED + FORWARDED + UNSIGNED
        label = f"sender-{number}"
        octets = _message(f"{label}.{ZONE}", number)
        if not unsigned:
            octets = _signed(octets, f"{label}.{ZONE}", key)
        if forged:
            octets += b"P.S. Send it to my new account.\r\n"
        file = folder / f"{label}.eml"
        file.write_bytes(octets.replace(b"\r\n", b"\n"))
        made.append(Letter(f"news@{label}.{ZONE}", octets, file, forged))
        records += _records(label, _ELSEWHERE if elsewhere else _HERE, key)
    return made, "\n".join(records) + "\n"


def shuffled(of: Sequence[Letter], count: int) -> list[Letter]:
    """So many, all domains by turns."""
    return [of[number % len(of)] for number in range(count)]


def _message(domain: str, number: int) -> bytes:
    header = (
        f"From: News <news@{domain}>\r\n"
        "To: Somebody <somebody@far.example>\r\n"
        f"Subject: What happened, part {number}\r\n"
        "Date: Sat, 28 Nov 2026 12:00:00 +0000\r\n"
        f"Message-ID: <{number}@{domain}>\r\n"
        "MIME-Version: 1.0\r\n"
        "Content-Type: text/plain; charset=us-ascii\r\n"
        "\r\n"
    )
    line = f"{number:04} nothing much, at some length: the quick brown fox jumps again\r\n"
    return (header + line * (_SIZE // len(line))).encode()


def _signed(octets: bytes, domain: str, key: rsa.RSAPrivateKey) -> bytes:
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    signature: bytes = dkim.sign(
        octets,
        _SELECTOR.encode(),
        domain.encode(),
        private,
        canonicalize=(b"relaxed", b"relaxed"),
        include_headers=list(_SIGNED),
    )
    return signature + octets


def _records(label: str, spf: str, key: rsa.RSAPrivateKey) -> list[str]:
    public = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    text = f"v=DKIM1; k=rsa; p={base64.b64encode(public).decode()}"
    strings = " ".join(f'"{text[start : start + 200]}"' for start in range(0, len(text), 200))
    return [
        f"{label} IN A 127.0.0.1",
        f"{label} IN MX 10 {label}",
        f'{label} IN TXT "{spf}"',
        f"{_SELECTOR}._domainkey.{label} IN TXT {strings}",
        f'_dmarc.{label} IN TXT "v=DMARC1; p=reject"',
    ]
