from __future__ import annotations

import time
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elemta.message import (
    AuthorError,
    HeaderScanner,
    author_domains,
    author_mailboxes,
    hidden_author,
)
from elemta.protocol import domain_to_ascii


@pytest.mark.parametrize(
    ("field", "domains"),
    [
        ("ann@a.example", ["a.example"]),
        ("Ann <ann@A.Example.>", ["a.example"]),
        ("<ann@a.example>", ["a.example"]),
        ('"Ann, <ann@b.example>" <ann@a.example>', ["a.example"]),
        ("ann@b.example <ann@a.example>", ["a.example"]),
        ("Ann (ann@b.example, <x@c.example>) <ann@a.example>", ["a.example"]),
        ("ann@a.example (Ann)", ["a.example"]),
        ("Ann <ann@a.example>, Bob <bob@b.example>, x@a.example", ["a.example", "b.example"]),
        ("Us: ann@a.example, Bob <bob@b.example>;", ["a.example", "b.example"]),
        ("<@r.example,@s.example:ann@a.example>", ["a.example"]),
        ("<ann@a.example> <eve@b.example>", ["a.example", "b.example"]),
        ('"a@b"@a.example', ["a.example"]),
        ("ann@münchen.example", ["xn--mnchen-3ya.example"]),
        ('Ann <"x>y"@a.example>', ["a.example"]),
        (r'<"\"@b.example"@a.example>', ["a.example"]),
        (r'"x@b.example\\"@a.example', ["a.example"]),
    ],
)
def test_whose_message_it_is(field: str, domains: list[str]) -> None:
    assert list(author_domains([field.encode()])) == domains


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [""],
        ["Ann"],
        ["Ann <>"],
        ["Ann <ann>"],
        ["<@a.example>"],
        ["ann@"],
        ["ann@[192.0.2.1]"],
        ["ann@a..example"],
        ["Ann <ann@a.example"],
        ['"Ann <ann@a.example>'],
        ["(Ann ann@a.example"],
        ["Undisclosed:;"],
        ["ann@a.example, bob"],
        ["ann@a.example x@b.example c"],
        # Programs differ in which of the two they show.
        ["eve@b.example ann@a.example"],
        ["eve@b.example@a.example"],
        ["eve@b.example\0@a.example"],
        ["eve@b.example\0 <ann@a.example>"],
        ['"eve@b.example\0" <ann@a.example>'],
        ["<eve@b.example:ann@a.example>"],
        ["<@r.example:eve@b.example:ann@a.example>"],
        ["<@eve@b.example:ann@a.example>"],
        ["<@r.example,eve@b.example,@s.example:ann@a.example>"],
        ['"x"eve@b.example"@"ann@a.example'],
        [", ".join(f"a@d{number}.example" for number in range(11))],
        ["a" * 20_000 + "@a.example"],
    ],
)
def test_what_cannot_be_read_is_nobodys(fields: list[str]) -> None:
    with pytest.raises(AuthorError):
        author_domains([each.encode() for each in fields])


def test_a_field_made_to_take_long_takes_no_time() -> None:
    began = time.process_time()
    for field in (
        b"a@" + b":" * 16_000,
        b"a" * 8_000 + b"@" + b":" * 8_000,
        b"(" * 16_000,
        b"<" * 16_000,
    ):
        with suppress(AuthorError):
            author_domains([field])
    assert time.process_time() - began < 2


@settings(deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=3))
def test_any_octets_have_authors_or_not(fields: list[bytes]) -> None:
    with suppress(AuthorError):
        assert author_domains(fields)


@settings(deadline=None)
@given(st.text(alphabet='a@.<>"\\(),:; ', max_size=40))
def test_any_signs_have_authors_or_not(field: str) -> None:
    with suppress(AuthorError):
        assert author_domains([field.encode()])


@settings(deadline=None)
@given(
    st.one_of(
        st.text(alphabet='a@.<>"\\(),:; ', max_size=40),
        st.lists(
            st.sampled_from(
                ["ann@a.example", "eve@b.example", "<", ">", '"', "(", ")", ",", ":", ";", " ", "x"]
            ),
            max_size=12,
        ).map("".join),
    )
)
def test_nobody_whom_dmarc_takes_for_an_author_is_overlooked(field: str) -> None:
    with suppress(AuthorError):
        found = author_mailboxes(field.encode())
        told = {domain_to_ascii(each.domain) for each in found}
        assert told >= set(author_domains([field.encode()]))


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_octets_name_somebody_or_not(field: bytes) -> None:
    with suppress(AuthorError):
        assert author_mailboxes(field)


@pytest.mark.parametrize(
    "field",
    [
        # Programs show eve in each of these, though it is ann who stands in the brackets.
        "eve@b.example <ann@a.example>",
        "eve @ b.example <ann@a.example>",
        "eve@(x)b.example <ann@a.example>",
        "eve(x)@b.example <ann@a.example>",
        '"eve"@b.example <ann@a.example>',
        r'"\"" eve@b.example <ann@a.example>',
        r'"\"" eve@b.example "\"" <ann@a.example>',
        "eve..x@b.example <ann@a.example>",
        "eve@b.example! <ann@a.example>",
        "eve@b.example\0<ann@a.example>",
        "<ann@a.example> eve @ b.example",
        "<@r.example:eve@b.example:ann@a.example>",
    ],
)
def test_nobody_whom_programs_show_is_overlooked(field: str) -> None:
    try:
        found = [str(each) for each in author_mailboxes(field.encode())]
    except AuthorError:
        return
    assert "eve@b.example" in found


@pytest.mark.parametrize(
    "field",
    [
        "ann@a.example <ann@a.example>",
        "'ann@a.example' <ann@a.example>",
        '"Eve @ home, eve@b.example" <ann@a.example>',
        r'"\"eve@b.example\"" <ann@a.example>',
        "=?utf-8?q?eve=40b=2Eexample?= <ann@a.example>",
        "<@r.example, @s.example:ann@a.example>",
    ],
)
def test_a_name_may_be_what_it_likes_in_quotes(field: str) -> None:
    assert [str(each) for each in author_mailboxes(field.encode())] == ["ann@a.example"]


def test_names_made_to_take_long_take_no_time() -> None:
    began = time.process_time()
    for field in (
        b" " * 15_000 + b"x<a@b.example>",
        b"a@b " * 4_000 + b"<a@b.example>",
        b'"' * 16_000,
        b"<a@b.example>" * 1_200,
    ):
        with suppress(AuthorError):
            author_mailboxes(field)
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (b"From: a@a.example\r\n", ""),
        (b"From: \xff@a.example\r\nSubject: F\0rom: x\r\n", ""),
        (b"X: y\r\n\tFrom\0: b@b.example\r\nFrom: a@a.example\r\n", ""),
        (b" From: b@b.example\r\nFrom: a@a.example\r\n", "a line before the first field"),
        (b"\tx\r\nFrom: a@a.example\r\n", "a line before the first field"),
        (b"Fr\0om: b@b.example\r\nFrom: a@a.example\r\n", "a line is nearly a From field"),
        (b"From: a@a.example\r\n\xef\xbb\xbffrom: b@b\r\n", "a line is nearly a From field"),
    ],
)
def test_who_else_may_be_found_in_a_header(header: bytes, why: str) -> None:
    scanner = HeaderScanner()
    scanner.feed(header + b"\r\n")
    assert hidden_author(scanner) == why


def test_no_endless_field_is_looked_through() -> None:
    long = b"x" * 20_000 + b"@a.example"
    with pytest.raises(AuthorError):
        author_mailboxes(long)
    with pytest.raises(AuthorError):
        author_domains([long])


def test_a_message_has_ten_authors_at_most() -> None:
    many = ", ".join(f"a@{number}.example" for number in range(11)).encode()
    with pytest.raises(AuthorError):
        author_domains([many])
    with pytest.raises(AuthorError):
        author_mailboxes(many)
