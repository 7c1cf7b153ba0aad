from __future__ import annotations

import pytest

from elemta.message import date, delivered_to, fold, received, return_path
from elemta.protocol import Mailbox

NOW = 1_800_000_000
BOB = Mailbox("bob", "example.net")


def field(
    *,
    helo: str = "relay.example.com",
    address: str = "192.0.2.1",
    rdns: str | None = "relay.example.com",
    by: str = "mx.example.net",
    protocol: str = "ESMTP",
    id: str = "01ARZ3NDEKTSV4RRFFQ69G5FAV",  # noqa: A002 # the word of people
    recipient: Mailbox | None = BOB,
    tls: str | None = None,
) -> str:
    return received(
        helo=helo,
        address=address,
        rdns=rdns,
        by=by,
        protocol=protocol,
        id=id,
        recipient=recipient,
        tls=tls,
        time=NOW,
    ).decode()


def test_a_received_field_says_who_gave_the_message_to_whom() -> None:
    assert field() == (
        "Received: from relay.example.com (relay.example.com [192.0.2.1])\r\n"
        "\tby mx.example.net with ESMTP\r\n"
        "\tid 01ARZ3NDEKTSV4RRFFQ69G5FAV for <bob@example.net>;\r\n"
        "\tFri, 15 Jan 2027 08:00:00 +0000\r\n"
    )


def test_a_received_field_of_tls_and_ipv6() -> None:
    assert field(
        helo="[IPv6:2001:db8::1]",
        address="2001:db8::1",
        rdns=None,
        protocol="ESMTPSA",
        tls="TLSv1.3 TLS_AES_256_GCM_SHA384",
        recipient=None,
    ) == (
        "Received: from [IPv6:2001:db8::1] ([IPv6:2001:db8::1])\r\n"
        "\tby mx.example.net with ESMTPSA (TLSv1.3 TLS_AES_256_GCM_SHA384)\r\n"
        "\tid 01ARZ3NDEKTSV4RRFFQ69G5FAV;\r\n"
        "\tFri, 15 Jan 2027 08:00:00 +0000\r\n"
    )


def test_a_cipher_that_is_too_long_for_a_line_has_one_of_its_own() -> None:
    tls = "version=TLSv1.3 cipher=TLS_AES_256_GCM_SHA384"
    assert f"\r\n\tby mx.example.net with ESMTPSA\r\n\t({tls})\r\n\tid " in field(
        protocol="ESMTPSA", tls=tls
    )


def test_a_message_of_our_own_has_no_address() -> None:
    assert field(helo="", address="").startswith("Received: from unknown\r\n\tby ")


# Original fault 18: who else got the message is nobody's business, so there is one name or none.
def test_without_a_recipient_nobody_is_named() -> None:
    assert "for" not in field(recipient=None)


@pytest.mark.parametrize("name", ["helo", "address", "rdns", "by", "protocol", "id", "tls"])
@pytest.mark.parametrize(
    "value", ["a\r\nBcc: eve@example.org", "x) (y", "a\\", 'a"b', "\0", "ä", "\udc80", "a;b", "[a"]
)
def test_no_value_can_break_out(name: str, value: str) -> None:
    text = field(**{name: value})
    lines = text.removesuffix("\r\n").split("\r\n")
    assert all(line.startswith(("\t", " ")) for line in lines[1:])
    assert text.count("(") == text.count(")") <= 2
    assert text.count("[") == text.count("]") == 1
    assert text.count(";") == 1
    assert text.isascii()
    assert text.replace("\r\n", "").replace("\t", "").isprintable()
    assert not {"\\", '"'} & set(text)


def test_long_values_are_folded_and_cut_off() -> None:
    for name in ("helo", "rdns", "by", "protocol", "id", "tls"):
        text = field(**{name: "x" * 100_000})
        assert len(text) < 600
        assert "x" * 255 in text
        assert "x" * 256 not in text
        assert all(len(line) < 300 for line in text.split("\r\n"))
    text = field(helo="a" * 60, rdns="b" * 60)
    assert text == (
        f"Received: from {'a' * 60}\r\n"
        f" ({'b' * 60} [192.0.2.1]) by\r\n"
        " mx.example.net with ESMTP id 01ARZ3NDEKTSV4RRFFQ69G5FAV for\r\n"
        " <bob@example.net>; Fri, 15 Jan 2027 08:00:00 +0000\r\n"
    )


def test_a_recipient_beyond_ascii_is_utf8() -> None:
    assert "for <böb@bücher.example>;" in field(recipient=Mailbox("böb", "bücher.example"))


def test_a_return_path_is_never_folded() -> None:
    assert return_path(None) == b"Return-Path: <>\r\n"
    assert return_path(BOB) == b"Return-Path: <bob@example.net>\r\n"
    assert return_path(Mailbox("a  b", "example.net")) == b'Return-Path: <"a  b"@example.net>\r\n'
    long = Mailbox("x" * 64, ".".join(["y" * 59] * 3))
    assert return_path(long) == f"Return-Path: <{long}>\r\n".encode()


def test_delivered_to_names_the_mailbox() -> None:
    assert delivered_to(BOB) == b"Delivered-To: bob@example.net\r\n"


def test_delivered_to_has_the_address_that_the_client_named_below_it() -> None:
    assert delivered_to(BOB, BOB) == delivered_to(BOB)
    assert delivered_to(BOB, Mailbox("bob+x", "example.net")) == (
        b"Delivered-To: bob@example.net\r\nX-Original-To: bob+x@example.net\r\n"
    )


def test_an_address_cannot_end_a_line() -> None:
    evil = Mailbox("a\r\nBcc: b", "example.net")
    assert delivered_to(evil) == b'Delivered-To: "a??Bcc: b"@example.net\r\n'
    assert len(delivered_to(Mailbox("ä" * 2000, "example.net"))) < 998


@pytest.mark.parametrize(
    ("time", "want"),
    [
        (0, "Thu, 01 Jan 1970 00:00:00 +0000"),
        (NOW, "Fri, 15 Jan 2027 08:00:00 +0000"),
        (NOW + 0.999, "Fri, 15 Jan 2027 08:00:00 +0000"),
        (-0.5, "Wed, 31 Dec 1969 23:59:59 +0000"),
        (1_709_164_800, "Thu, 29 Feb 2024 00:00:00 +0000"),
    ],
)
def test_a_date_is_in_utc(time: float, want: str) -> None:
    assert date(time) == want


def test_a_field_is_folded_where_it_has_spaces() -> None:
    assert fold("A", "b") == b"A: b\r\n"
    assert fold("A", "") == b"A:\r\n"
    words = " ".join(["word"] * 30)
    assert fold("Subject", words) == (
        b"Subject:" + b" word" * 14 + b"\r\n" + b" word" * 15 + b"\r\n word\r\n"
    )


def test_a_long_first_word_stays_beside_the_name() -> None:
    assert fold("A", "x" * 100 + " y") == b"A: " + b"x" * 100 + b"\r\n y\r\n"


def test_a_field_is_never_longer_than_a_line_may_be() -> None:
    lines = fold("A", "\N{PILE OF POO}" * 1000).split(b"\r\n")
    assert all(len(line) <= 998 for line in lines)
    assert b"".join(lines).decode().count("\N{PILE OF POO}") == 1000


def test_spaces_are_kept_and_controls_become_spaces() -> None:
    assert fold("A", "  b   c\r\n\t d ") == b"A: b   c  d\r\n"


@pytest.mark.parametrize("name", ["", "A b", "A:", "A\r\n", "Ä", "a" * 78])
def test_what_is_no_name_is_a_bug(name: str) -> None:
    with pytest.raises(ValueError, match="no name"):
        fold(name, "x")
