from __future__ import annotations

import time

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elemta.api.content import (
    BORDERS,
    FIELDS,
    LONGEST_BODY,
    LOOKED_AT,
    PARTS,
    Attachment,
    view_of,
)

MIXED = b"""\
From: =?utf-8?q?Zo=C3=AB?= <zoe@example.net>
To: bob@example.net,
\tcarol@example.net
Subject: =?iso-8859-1?B?4Q==?= letter
Content-Type: multipart/mixed; boundary="x"

--x
Content-Type: multipart/alternative; boundary="y"

--y
Content-Type: text/plain; charset=iso-8859-1
Content-Transfer-Encoding: quoted-printable

caf=E9
--y
Content-Type: text/html; charset=utf-8

<p>caf\xc3\xa9</p>
--y--
--x
Content-Type: text/plain; name="notes.txt"
Content-Disposition: attachment; filename="notes.txt"

notes
--x
Content-Type: application/pdf; name*=utf-8''caf%C3%A9.pdf
Content-Transfer-Encoding: base64

JVBERg==
--x--
"""


def test_a_message_is_shown_by_its_parts() -> None:
    view = view_of(MIXED)
    assert view.headers == [
        ("From", "Zoë <zoe@example.net>"),
        ("To", "bob@example.net, carol@example.net"),
        ("Subject", "á letter"),
        ("Content-Type", 'multipart/mixed; boundary="x"'),
    ]
    assert view.text == "café"
    assert view.html == "<p>café</p>"
    assert view.attachments == [
        Attachment("notes.txt", "text/plain", 5),
        Attachment("café.pdf", "application/pdf", 4),
    ]
    assert not view.cut


def test_a_message_of_one_part_is_its_text() -> None:
    view = view_of(b"Subject: x\r\n\r\nhello\r\n")
    assert (view.text, view.html, view.attachments) == ("hello\r\n", None, [])


def test_a_message_of_which_there_is_more_is_said_to_be_cut() -> None:
    assert view_of(b"a: b\n\nc", cut=True).cut
    assert view_of(b"a: b\n\n" + b"c" * LOOKED_AT).cut
    assert len(view_of(b"a: b\n\n" + b"c" * LOOKED_AT).text or "") == LONGEST_BODY
    assert view_of(b"a: b\n" * (FIELDS + 1) + b"\n").cut


def test_a_message_of_many_parts_is_shown_in_part() -> None:
    head = b"Content-Type: multipart/mixed; boundary=x\n\n"
    view = view_of(head + b"--x\nContent-Type: image/png\n\n\n" * (PARTS + 1) + b"--x--\n")
    assert len(view.attachments) == PARTS
    assert view.cut
    assert view_of(head + b"--x\n" * (BORDERS + 5)).cut


@pytest.mark.parametrize(
    "content",
    [
        b"".join(
            b"Content-Type: multipart/mixed; boundary=%d\n\n--%d\n" % (n, n) for n in range(5000)
        ),
        b"Content-Type: message/rfc822\n\n" * 20_000,
        b"Content-Type: multipart/mixed; boundary=x\n\n" + b"--x\n" * 200_000,
        b"a:\n" * 300_000,
        b"Content-Type: text/plain; charset=punycode\n\n" + b"a" * 500_000 + b"-" + b"b" * 500_000,
        b"Subject: " + b"=?utf-8?q?a?= " * 70_000,
        b"Content-Type: text/plain" + b"; a=b" * 200_000 + b"\n\nx",
        b'Content-Type: text/plain; a="' + b'\\"' * 400_000 + b"\n\nx",
    ],
    ids=["nested", "messages", "borders", "fields", "punycode", "words", "parameters", "quotes"],
)  # fmt: skip
def test_a_hostile_message_is_shown_soon(content: bytes) -> None:
    began = time.process_time()
    view_of(content)
    assert time.process_time() - began < 3


PIECES = st.sampled_from(
    [
        b"Content-Type: ", b"multipart/mixed", b"message/rfc822", b"text/plain", b"text/html",
        b"; boundary=x", b'; boundary="', b"; charset=", b"utf-8", b"utf-7", b"utf-16", b"hex",
        b"unicode_escape", b"; name*0*=utf-8''%ff", b"; filename*=''", b"\n", b"\r\n", b"\r",
        b"--x", b"--x--", b"=?utf-8?q?=ff?=", b"=?x?b?===?=", b"\xff", b"\x00", b"\xed\xa0\x80",
        b"Content-Transfer-Encoding: ", b"base64", b"quoted-printable", b"x-uuencode", b"7bit",
        b"begin 666 x\n", b"+2AA-", b"Content-Disposition: attachment", b"From: <@", b"=", b":",
        b"(", b'"', b"\\", b"*", b"%", b"'", b"A", b"==", b" ", b"\n\n",
    ]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=300), st.lists(PIECES, max_size=40).map(b"".join)))
def test_no_octets_at_all_make_it_fail(content: bytes) -> None:
    msgspec.json.encode(view_of(content))
