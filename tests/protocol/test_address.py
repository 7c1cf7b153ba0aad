from __future__ import annotations

import pytest

from elemta.protocol import Mailbox, comparable_domain, domain_to_ascii, parse_domain, parse_mailbox
from elemta.protocol.address import POSTMASTER


# Refused by the original program (fault 11), or by others.
@pytest.mark.parametrize(
    ("text", "local_part", "domain"),
    [
        ("no-reply@dropbox.com", "no-reply", "dropbox.com"),
        ("selection@example.com", "selection", "example.com"),
        ("o'brien@example.com", "o'brien", "example.com"),
        ("SRS0=Hw=x=a.example=b@c.example", "SRS0=Hw=x=a.example=b", "c.example"),
        ("a@xn--p1ai", "a", "xn--p1ai"),
        ("a@президент.рф", "a", "президент.рф"),
        ("用户@例え.jp", "用户", "例え.jp"),
        ("a@[1.2.3.4]", "a", "[1.2.3.4]"),
        ("a@[ipv6:2001:DB8:0::1]", "a", "[IPv6:2001:db8::1]"),
        ('"a b"@c', "a b", "c"),
        (r'"a\b\"\\"@c', 'ab"\\', "c"),
        ('""@c', "", "c"),
        ('"a@b"@c', "a@b", "c"),
        ("user%host@c", "user%host", "c"),
        ("host!user@c", "host!user", "c"),
        ("a@my_host.example", "a", "my_host.example"),
        ("A@B.Example", "A", "b.example"),
        ("a@mu\u0308nchen.DE", "a", "münchen.de"),
        ("x" * 64 + "@c", "x" * 64, "c"),
        ("a@" + "x" * 63 + ".example", "a", "x" * 63 + ".example"),
    ],
)
def test_an_address_is_accepted(text: str, local_part: str, domain: str) -> None:
    mailbox = parse_mailbox(text)
    assert mailbox == Mailbox(local_part, domain)
    assert parse_mailbox(str(mailbox)) == mailbox


@pytest.mark.parametrize(
    "text",
    [
        *[
            "",
            "a",
            "a@",
            "@b",
            "a@b@c",
            "a b@c",
            "a..b@c",
            ".a@b",
            "a.@b",
            "a@b.",
            "a@.b",
            "a@b..c",
        ],
        *[
            "a@b..c",
            "a@-b",
            "a@b-",
            "a@b_-",
            "a@[1.2.3]",
            "a@[1.2.3.4",
            "a@[300.1.1.1]",
            "a@[IPv6:x]",
        ],
        *["a@[IPv6:fe80::1%eth0]", "a@[tag:x]", "a@[]", '"a"b@c', '"a@c', '"a"b"@c', "a\x00@b"],
        *['"a\r\nb"@c', "a\u202e@b", "a@b\n", "a@☃.example\x85", "a@x。y例え", "a@-ü.example"],
        *["x" * 65 + "@b", "ü" * 33 + "@b", "a@" + "x" * 64, "a@" + "x." * 127 + "xx", "<a@b>"],
        *['"' + "x" * 63 + '"@b', "a@" + ".".join(["ü" * 55] * 4), "a@" + "ü" * 60],
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_mailbox(text)


def test_letters_beyond_ascii_change_nothing_about_the_others() -> None:
    def accepted(text: str) -> bool:
        try:
            parse_mailbox(text)
        except ValueError:
            return False
        return True

    for octet in range(0x80):
        for quote in ("", '"'):
            plain, beyond = (f"{quote}{each}{chr(octet)}a{quote}@b.example" for each in "aü")
            assert accepted(plain) == accepted(beyond), (plain, beyond)


def test_an_address_beyond_ascii_needs_smtputf8() -> None:
    for text in ("ü@b", "a@ü.example"):
        assert not parse_mailbox(text).is_ascii
        with pytest.raises(ValueError, match="SMTPUTF8"):
            parse_mailbox(text, smtputf8=False)
    assert parse_mailbox("a@b", smtputf8=False).is_ascii


def test_an_address_is_quoted_where_that_is_needed() -> None:
    assert str(Mailbox("a.b", "c")) == "a.b@c"
    assert str(Mailbox("a..b", "c")) == '"a..b"@c'
    assert str(Mailbox('a"\\', "c")) == r'"a\"\\"@c'
    assert str(Mailbox("", "c")) == '""@c'
    assert str(Mailbox("用户", "c")) == "用户@c"
    assert str(POSTMASTER) == "postmaster"


def test_quoting_does_not_make_another_mailbox() -> None:
    assert parse_mailbox('"a"@b') == parse_mailbox("a@b") == parse_mailbox(r'"\a"@B')
    assert parse_mailbox("A@b") != parse_mailbox("a@b")


def test_a_domain_of_255_octets_is_as_long_as_can_be() -> None:
    longest = ".".join(["x" * 63] * 4)
    assert parse_domain(longest) == longest
    with pytest.raises(ValueError, match="255"):
        parse_domain(longest + ".x")
    with pytest.raises(ValueError, match="63"):
        parse_domain("x" * 64)
    with pytest.raises(ValueError, match="253"):
        domain_to_ascii(longest)


def test_a_domain_has_a_form_for_the_dns() -> None:
    assert domain_to_ascii("bücher.Example") == "xn--bcher-kva.example"
    assert domain_to_ascii("Example.COM") == "example.com"
    for text in ("[1.2.3.4]", "", "a b", "\u2603\u0085"):
        with pytest.raises(ValueError, match=r"."):
            domain_to_ascii(text)


@pytest.mark.parametrize(
    ("domain", "form"),
    [
        ("Bücher.Example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.EXAMPLE", "xn--bcher-kva.example"),
        ("[IPv6:2001:DB8::1]", "[ipv6:2001:db8::1]"),
        ("No Domain", "no domain"),
    ],
)
def test_domains_are_compared_in_one_form_also_those_that_are_none(domain: str, form: str) -> None:
    assert comparable_domain(domain) == form
