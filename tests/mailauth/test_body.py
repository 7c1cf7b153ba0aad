from __future__ import annotations

import hashlib

import pytest
from dkim.canonicalization import CanonicalizationPolicy
from hypothesis import given, settings
from hypothesis import strategies as st

from elemta.mailauth import body
from elemta.mailauth.body import Measure, cut

#: What matters to canonical forms.
BODIES = st.lists(
    st.sampled_from([b"\r\n", b"\r\n\r\n", b" ", b"\t", b"  \t ", b"a", b"bc", b"\r\n.", b"x" * 9])
).map(b"".join)


def expected(octets: bytes, canonical: bytes) -> Measure:
    policy = CanonicalizationPolicy.from_c_value(b"simple/" + canonical)
    made = policy.canonicalize_body(octets)  # type: ignore[attr-defined] # used in tests alone
    return Measure(len(made), hashlib.sha256(made).digest())


@pytest.mark.parametrize("piece", [1, 3, 1000])
@settings(deadline=None)
@given(BODIES)
def test_bodies_are_as_dkimpy_sees_them(piece: int, octets: bytes) -> None:
    usual, body._PIECE = body._PIECE, piece  # type: ignore[misc] # so that there are many
    try:
        _, found = cut(b"Subject: x\r\n\r\n" + octets)
        assert found.measured(b"simple") == expected(octets, b"simple")
        assert found.measured(b"relaxed") == expected(octets, b"relaxed")
    finally:
        body._PIECE = usual  # type: ignore[misc]


@pytest.mark.parametrize(
    ("message", "header", "octets"),
    [
        (b"A: b\r\n\r\nc\r\n", b"A: b\r\n", b"c\r\n"),
        (b"A: b\r\n", b"A: b\r\n", b""),
        (b"A: b\r\n\r\n", b"A: b\r\n", b""),
        (b"\r\nc\r\n", b"", b"c\r\n"),
        (b"\r\n\r\nc\r\n", b"", b"\r\nc\r\n"),
        (b"", b"", b""),
    ],
)
def test_where_a_message_is_cut(message: bytes, header: bytes, octets: bytes) -> None:
    found, rest = cut(message)
    assert found == header
    assert rest.measured(b"simple") == expected(octets, b"simple")


def test_a_great_many_empty_lines_are_counted() -> None:
    octets = b"a\r\n" + b"\r\n" * 300_000 + b"b"
    assert cut(b"A: b\r\n\r\n" + octets)[1].measured(b"relaxed") == expected(octets, b"relaxed")


@given(BODIES, st.integers(1, 9))
def test_a_body_that_comes_in_pieces_is_the_same(octets: bytes, piece: int) -> None:
    for canonical in (b"simple", b"relaxed"):
        measuring = body.Measuring(canonical)
        for start in range(0, len(octets), piece):
            measuring.feed(octets[start : start + piece])
        assert measuring.measure() == expected(octets, canonical)
