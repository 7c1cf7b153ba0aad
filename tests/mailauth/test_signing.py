from __future__ import annotations

import logging
import re

import dkim
import pytest
from dkim.canonicalization import CanonicalizationPolicy
from hypothesis import given, settings
from hypothesis import strategies as st

from elemta.mailauth import Selection, Signer, Signing, parse_private_key
from elemta.mailauth.body import cut
from elemta.mailauth.signing import relaxed
from tests.mailauth.signing import MESSAGE, ed25519_key, rsa_key

logging.getLogger("dkimpy").addHandler(logging.NullHandler())

RSA = Signer("us.example", "r", parse_private_key(rsa_key()[0]))
ED = Signer("us.example", "e", parse_private_key(ed25519_key()[0]))
RECORDS = {
    b"r._domainkey.us.example.": rsa_key()[1].encode(),
    b"e._domainkey.us.example.": ed25519_key()[1].encode(),
}
NOW = 1_700_000_000.0
#: Dkimpy's.
RELAXED = CanonicalizationPolicy.from_c_value(b"relaxed/relaxed")


def signed(message: bytes, *signers: Signer, expires: float | None = None) -> bytes:
    header, body = cut(message)
    signing, digest = Signing(header), body.measured(b"relaxed").digest
    fields = [signing.field(each, digest, now=NOW, expires=expires) for each in signers]
    return b"".join(f"DKIM-Signature:{each}\r\n".encode() for each in fields) + message


def verifies(message: bytes, place: int = 0) -> bool:
    """What dkimpy says of a signature."""
    found = dkim.DKIM(message)
    return found.verify(place, dnsfunc=lambda name, timeout=5: RECORDS[name])  # type: ignore[attr-defined,no-any-return] # no part of what is used outside of tests


def tags(message: bytes) -> dict[str, str]:
    field = re.sub(r"\r\n[ \t]", " ", message.decode("latin-1")).partition("\r\n")[0]
    pairs = (each.partition("=") for each in field.partition(":")[2].split(";"))
    return {name.strip(): value.strip().replace(" ", "") for name, _, value in pairs}


def test_two_keys_sign_at_once() -> None:
    message = signed(MESSAGE, RSA, ED)
    assert verifies(message)
    assert verifies(message, 1)
    found = tags(message)
    assert found["a"] == "rsa-sha256"
    assert (found["c"], found["d"], found["s"]) == ("relaxed/relaxed", "us.example", "r")
    assert found["t"] == "1700000000"
    assert not {"l", "x", "i"} & found.keys()


def test_a_signature_may_expire() -> None:
    assert tags(signed(MESSAGE, ED, expires=NOW + 3600))["x"] == "1700003600"
    assert verifies(signed(MESSAGE, ED, expires=NOW + 1e9))


def test_what_is_signed_once_more_than_it_is_there_cannot_be_added() -> None:
    names = tags(signed(MESSAGE, ED))["h"].split(":")
    assert (names.count("from"), names.count("subject"), names.count("reply-to")) == (2, 2, 1)
    assert "list-unsubscribe" not in names
    message = signed(MESSAGE, ED)
    for more in (b"Subject: another\r\n", b"Reply-To: eve@evil.example\r\n", b"From: eve@x\r\n"):
        assert not verifies(message.replace(b"From: Ann", more + b"From: Ann"))
    assert verifies(b"Received: from here\r\nX-Spam: no\r\nList-Id: <a.list>\r\n" + message)
    listed = b"List-Unsubscribe: <https://us.example/>\r\nlist-id: <a>\r\n" + MESSAGE
    names = tags(signed(listed, ED))["h"].split(":")
    assert (names.count("list-unsubscribe"), names.count("list-id")) == (2, 2)
    assert verifies(signed(listed, ED))
    # A list may add a Sender; nobody may add another one.
    assert verifies(b"Sender: list@a.example\r\n" + message)
    sent = signed(b"Sender: ann@us.example\r\nReferences: <1@us.example>\r\n" + MESSAGE, ED)
    assert verifies(sent)
    assert not verifies(b"Sender: eve@evil.example\r\n" + sent)
    assert not verifies(b"References: <2@evil.example>\r\n" + sent)


@pytest.mark.parametrize(
    ("changed", "to"),
    [
        (b"the   plan", b"another plan"),
        (b"at noon", b"at one"),
        (b" Ann\r\n", b"Ann\r\n"),
        (b"bob@", b"eve@"),
    ],
)
def test_what_is_changed_is_found(changed: bytes, to: bytes) -> None:
    message = signed(MESSAGE, ED)
    try:
        assert not verifies(message.replace(changed, to))
    except dkim.ValidationError:  # type: ignore[attr-defined] # of a body
        assert changed in (b"at noon", b" Ann\r\n")


def test_no_line_is_too_long_whatever_is_signed() -> None:
    message = b"To: a@b\r\n" * 90 + b"From: a@us.example\r\n\r\nx\r\n"
    made = signed(message, RSA)
    assert verifies(made)
    assert max(map(len, made.split(b"\r\n"))) < 80


#: Values as nobody should write them, and some do.
WORDS = st.lists(
    st.sampled_from(
        [
            *(b" ", b"  ", b"\t", b"\r\n ", b"\r\n\t", b"a", b"x" * 300, b"\xc3\xa9", b"\xff"),
            *(b";b=", b":", b"=?utf-8?q?x?=", b'"q" ', b"<a@us.example>"),
        ]
    ),
    max_size=8,
).map(b"".join)
NAMES = st.sampled_from(
    [
        *(b"Subject", b"SUBJECT", b"To", b"cc", b"X-Odd", b"List-Id", b"Date", b"Message-ID"),
        *(b"Received", b"DKIM-Signature", b"References", b"Content-Type", b"b"),
    ]
)
FIELDS = st.lists(st.tuples(NAMES, WORDS), max_size=12)
BODIES = st.lists(
    st.sampled_from(
        [b"\r\n", b"\r\n\r\n", b" ", b"\t", b"a", b"bc \t d", b".", b"\xe9", b"From x"]
    ),
    max_size=20,
).map(b"".join)


@settings(deadline=None)
@given(FIELDS, FIELDS, BODIES, st.booleans())
def test_whatever_is_signed_verifies(
    above: list[tuple[bytes, bytes]],
    below: list[tuple[bytes, bytes]],
    body: bytes,
    cut_off: bool,
) -> None:
    fields = [*above, (b"From", b" ann@us.example"), *below]
    # A line of nothing but spaces is one that dkimpy takes for the end of the header, or not.
    header = b"".join(b"%s:%sx\r\n" % each for each in fields)
    header = re.sub(rb"(\r\n[ \t]+)+(?=\r\n)", b"", header)
    message = header if cut_off else header + b"\r\n" + body
    for signer in (RSA, ED):
        assert verifies(signed(message, signer))


#: Octets that mean something to whoever canonicalises, and some that only seem to.
VALUES = st.lists(
    st.sampled_from(
        [
            *(b" ", b"\t", b"\r\n ", b"\r\n\t", b"\r", b"\n", b"\r\n"),
            b"\x0b",
            b"\x0c",
            b"a",
            b"\xff",
        ]
    ),
    max_size=12,
).map(b"".join)


@given(VALUES)
def test_a_value_is_relaxed_as_dkimpy_does_it(value: bytes) -> None:
    assert RELAXED.canonicalize_headers([(b"Name ", value)]) == [(b"name", relaxed(value))]


@given(FIELDS)
def test_the_fields_are_chosen_as_dkimpy_chooses_them(fields: list[tuple[bytes, bytes]]) -> None:
    whole = [(name, value + b"x\r\n") for name, value in fields]
    header = b"".join(b"%s:%s" % each for each in whole)
    signed, names = Selection(("to", "subject", "date", "list-id"), ("to",)).of(header)
    chosen = dkim.select_headers(RELAXED.canonicalize_headers(whole), names)
    assert signed == b"".join(b"%s:%s" % (name, value) for name, value in chosen)
