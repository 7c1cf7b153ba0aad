"""Paths, mailboxes and domains: parsed once, compared rightly (RFC 5321 §2.4, §4.1.2, RFC 6531).

What the RFCs accept is accepted, and underscores in domains besides, which real hosts have.
"""

from __future__ import annotations

import re
import unicodedata
from ipaddress import IPv4Address, IPv6Address
from typing import Final, TypeAlias

import idna
from msgspec import Struct
from typing_extensions import override

# Each name is the RFC's own. No two alternatives begin alike and the inner repetitions are
# possessive, so that matching is linear whatever it is given.
#: Ends in a hyphen that must stay the last of its brackets.
ATEXT: Final = r"A-Za-z0-9!#$%&'*+/=?^_`{|}~-"
DOT_STRING: Final = rf"[{ATEXT}]++(?:\.[{ATEXT}]++)*+"
SUB_DOMAIN: Final = r"[A-Za-z0-9_]++(?:-++[A-Za-z0-9_]++)*+"
DOMAIN: Final = rf"{SUB_DOMAIN}(?:\.{SUB_DOMAIN})*+"
LITERAL: Final = r"\[[!-Z^-~]++\]"
#: RFC 6531 §3.3: beyond ASCII, all that `str.isprintable` lets through. Such classes are written as
#: what is not in them, which is ASCII: one with a range beyond it takes `re` 3 ms to compile.
QUOTED: Final = r'"(?:[^\x00-\x1f"\\\x7f]|\\[ -~])*+"'
_UTF8_ATEXT: Final = r'[^\x00-\x20"(),.:;<>@\[\\\]\x7f]'
UTF8_DOT_STRING: Final = rf"{_UTF8_ATEXT}++(?:\.{_UTF8_ATEXT}++)*+"

_DOMAIN: Final = re.compile(DOMAIN)
_COMMON: Final = re.compile(rf"({DOT_STRING})@({DOMAIN})")
_ANY: Final = re.compile(rf"(?:({UTF8_DOT_STRING})|({QUOTED}))@(.*)", re.DOTALL)
_BARE: Final = re.compile(UTF8_DOT_STRING)
_ESCAPE: Final = re.compile(r"\\(.)")

MAX_LOCAL_PART: Final = 64  #: octets (RFC 5321 §4.5.3.1.1)
MAX_DOMAIN: Final = 255  #: octets (RFC 5321 §4.5.3.1.2)
MAX_MAILBOX: Final = 254  #: octets: a path (RFC 5321 §4.5.3.1.3) less its angle brackets
MAX_LABEL: Final = 63  #: octets (RFC 1035 §2.3.4)
MAX_DNS_NAME: Final = 253  #: octets of a name in the DNS, written with dots (RFC 1035 §2.3.4)


class Mailbox(Struct, frozen=True, order=True):
    r"""Somebody's address. Made by `parse_mailbox` alone, so what is in it is valid.

    Attributes:
        local_part: its meaning, quotes and backslashes taken off: ``"a\ b"@x`` and ``"a b"@x``
            are one mailbox. Case is kept (RFC 5321 §2.4).
        domain: lower case; U-labels in NFC (RFC 6531 §3.7.1); an address literal with its
            brackets, in its shortest form; empty for the bare ``postmaster`` alone (RFC 5321
            §4.1.1.3), whose local part is then lower case.
    """

    local_part: str
    domain: str

    @property
    def is_ascii(self) -> bool:
        """Whether it can be said to a server that does not know SMTPUTF8."""
        return self.local_part.isascii() and self.domain.isascii()

    @override
    def __str__(self) -> str:
        """The form of the wire, quoted where that is needed, without angle brackets."""
        local = self.local_part
        if not _BARE.fullmatch(local):
            local = '"' + local.replace("\\", "\\\\").replace('"', '\\"') + '"'
        return f"{local}@{self.domain}" if self.domain else local


#: The return path: None is the null sender of a report (RFC 5321 §4.5.5).
ReversePath: TypeAlias = Mailbox | None

#: The recipient that needs no domain (RFC 5321 §4.1.1.3).
POSTMASTER: Final = Mailbox("postmaster", "")


def parse_mailbox(text: str, *, smtputf8: bool = True) -> Mailbox:
    """Read an address as it stands between angle brackets, without a source route.

    Raises:
        ValueError: it is none, with why. Also if it is not ASCII and `smtputf8` is false.
    """
    common = _COMMON.fullmatch(text)
    # Nothing this short can break any of the limits.
    if common is not None and len(text) <= MAX_LABEL:
        return Mailbox(common[1], common[2].lower())
    if not text.isascii() and not smtputf8:
        raise ValueError("an address beyond ASCII needs SMTPUTF8")
    if not text.isprintable():
        raise ValueError("an unprintable character")
    if len(text.encode()) > MAX_MAILBOX:
        raise ValueError(f"an address of more than {MAX_MAILBOX} octets")
    found = _ANY.fullmatch(text)
    if found is None:
        raise ValueError("no local part, an @ and a domain")
    local, quoted, domain = found.groups()
    if len((local or quoted).encode()) > MAX_LOCAL_PART:
        raise ValueError(f"a local part of more than {MAX_LOCAL_PART} octets")
    return Mailbox(local or _ESCAPE.sub(r"\1", quoted[1:-1]), parse_domain(domain))


def parse_domain(text: str) -> str:
    """Read a domain or an address literal.

    Returns:
        The form that `Mailbox.domain` describes.

    Raises:
        ValueError: it is none, with why.
    """
    if text.startswith("["):
        return _parse_literal(text)
    domain = text.lower()
    if not domain.isascii():
        domain = unicodedata.normalize("NFC", domain)
        domain_to_ascii(domain)
    elif not _DOMAIN.fullmatch(domain):
        raise ValueError("no domain")
    else:
        _check_labels(domain)
    if len(domain.encode()) > MAX_DOMAIN:
        raise ValueError(f"a domain of more than {MAX_DOMAIN} octets")
    return domain


def domain_to_ascii(domain: str) -> str:
    """The form that the DNS and old servers know: U-labels become A-labels (RFC 5891 §4.4).

    Raises:
        ValueError: some label has no such form, the name is too long, or it is an address
            literal.
    """
    if domain.isascii():
        ascii_domain = domain.lower()
    else:
        labels = (
            label if label.isascii() else idna.alabel(label).decode("ascii")
            for label in domain.lower().split(".")
        )
        ascii_domain = ".".join(labels)
    if not _DOMAIN.fullmatch(ascii_domain):
        raise ValueError("no domain")
    if len(ascii_domain) > MAX_DNS_NAME:
        raise ValueError(f"a domain of more than {MAX_DNS_NAME} octets")
    _check_labels(ascii_domain)
    return ascii_domain


def comparable_domain(domain: str) -> str:
    """The one form that domains are compared in; one that has none is compared as it is."""
    try:
        return domain_to_ascii(domain)
    except ValueError:  # an address literal, or no name that the DNS could have
        return domain.lower()


def _check_labels(domain: str) -> None:
    if len(domain) > MAX_LABEL and any(len(label) > MAX_LABEL for label in domain.split(".")):
        raise ValueError(f"a label of more than {MAX_LABEL} octets")


def _parse_literal(text: str) -> str:
    """``[192.0.2.1]`` or ``[IPv6:2001:db8::1]`` (RFC 5321 §4.1.3)."""
    if not text.endswith("]"):
        raise ValueError("an address literal without its bracket")
    inner = text[1:-1]
    if inner[:5].lower() != "ipv6:":
        return f"[{IPv4Address(inner)}]"
    if "%" in inner:
        raise ValueError("a zone means nothing to another host")
    return f"[IPv6:{IPv6Address(inner[5:])}]"
