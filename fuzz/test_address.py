"""Every address that there can be, and some that there cannot."""

from __future__ import annotations

import re
import unicodedata
from email.headerregistry import Address
from typing import Final

import hypothesis.strategies as st
import idna
from hypothesis import assume, example, given

from elemta.protocol import Mailbox, domain_to_ascii, parse_domain, parse_mailbox
from fuzz.profiles import examples
from fuzz.strategies import NEARLY, UTF8_DOMAINS, addresses

TOO_MUCH: Final = 254


@given(text=addresses())
@examples(400)
def test_a_valid_address_is_read_and_said_as_it_is_meant(text: str) -> None:
    assume(len(text.encode()) <= TOO_MUCH and len(text.rpartition("@")[0].encode()) <= 64)
    mailbox = parse_mailbox(text)
    local, _, domain = text.rpartition("@")
    meant = re.sub(r"\\(.)", r"\1", local[1:-1]) if local.startswith('"') else local
    assert mailbox.local_part == meant
    if not domain.startswith("["):
        assert mailbox.domain == unicodedata.normalize("NFC", domain.lower())
    assert mailbox.is_ascii == (meant + mailbox.domain).isascii()
    assert parse_mailbox(str(mailbox)) == mailbox


@given(text=addresses(smtputf8=False))
@examples(150)
def test_the_standard_library_reads_what_we_say(text: str) -> None:
    try:
        mailbox = parse_mailbox(text, smtputf8=False)
    except ValueError:  # too long
        assert len(text) > 64
        return
    assume(not mailbox.domain.startswith("["))
    other = Address(addr_spec=str(mailbox))
    assert (other.username, other.domain) == (mailbox.local_part, mailbox.domain)


@given(text=NEARLY, smtputf8=st.booleans())
@example(text="a@b@c", smtputf8=True)
@example(text='"a@b"@c', smtputf8=True)
@example(text="a@[IPv6:fe80::1%eth0]", smtputf8=True)
@example(text="a\u202e@b", smtputf8=True)
@example(text="a@x。例え", smtputf8=True)
@examples(800)
def test_what_is_read_is_safe_to_say(text: str, smtputf8: bool) -> None:
    try:
        mailbox = parse_mailbox(text, smtputf8=smtputf8)
    except ValueError:
        return
    wire = str(mailbox)
    assert wire.isprintable()
    assert smtputf8 or wire.isascii()
    assert len(wire.encode()) <= TOO_MUCH
    assert not mailbox.domain.strip("[").startswith((".", "-"))
    assert not re.search(r"[\s@<>%\"\\]", mailbox.domain)
    assert text.startswith('"') or text.count("@") == 1
    if not wire.startswith('"'):
        assert wire.count("@") == 1
        assert not re.search(r"[\s<>\"\\,;()]|\.\.|^\.|\.@", wire)
    assert parse_mailbox(wire) == mailbox


@given(domain=UTF8_DOMAINS)
@examples(200)
def test_a_domain_has_one_form_for_the_dns(domain: str) -> None:
    parsed = parse_domain(domain.upper())
    in_dns = domain_to_ascii(parsed)
    assert in_dns.isascii()
    assert domain_to_ascii(in_dns) == in_dns
    for label, in_dns_label in zip(parsed.split("."), in_dns.split("."), strict=True):
        assert in_dns_label == (label if label.isascii() else idna.encode(label).decode())


@given(text=NEARLY)
@example(text="a" * 64)
@example(text=".".join(["ü" * 50] * 5))
@examples(300)
def test_a_domain_is_read_or_refused(text: str) -> None:
    for read in (parse_domain, domain_to_ascii):
        try:
            domain = read(text)
        except ValueError:
            continue
        assert read(domain) == domain
        assert max(len(label) for label in domain_to_labels(domain)) <= 63
        assert Mailbox("x", domain) == parse_mailbox(f"x@{domain}")


def domain_to_labels(domain: str) -> list[str]:
    return [domain] if domain.startswith("[") else domain.split(".")
