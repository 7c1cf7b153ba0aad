from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elemta.net.ldap import ber, compile_filter, escaped


def equal(attribute: str, value: str | bytes) -> bytes:
    return ber.encode(0xA3, ber.text(attribute), ber.text(value))


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("(uid=bob)", equal("uid", "bob")),
        ("(uid=)", equal("uid", "")),
        ("(cn=J\u00f6rg)", equal("cn", "J\u00f6rg")),
        (r"(cn=a\2ab\28\29\5c\00)", equal("cn", b"a*b()\\\0")),
        ("(objectClass=*)", ber.text("objectClass", 0x87)),
        ("(n>=5)", ber.encode(0xA5, ber.text("n"), ber.text("5"))),
        ("(n<=5)", ber.encode(0xA6, ber.text("n"), ber.text("5"))),
        ("(n~=5)", ber.encode(0xA8, ber.text("n"), ber.text("5"))),
        ("(!(uid=bob))", ber.encode(0xA2, equal("uid", "bob"))),
        (
            "(&(uid=bob)(|(a=1)(b=2)))",
            ber.encode(
                0xA0, equal("uid", "bob"), ber.encode(0xA1, equal("a", "1"), equal("b", "2"))
            ),
        ),
        (
            "(cn=a*b*c)",
            ber.encode(
                0xA4,
                ber.text("cn"),
                ber.encode(
                    ber.SEQUENCE, ber.text("a", 0x80), ber.text("b", 0x81), ber.text("c", 0x82)
                ),
            ),
        ),
        (
            "(cn=*b*)",
            ber.encode(0xA4, ber.text("cn"), ber.encode(ber.SEQUENCE, ber.text("b", 0x81))),
        ),
    ],
)
def test_a_filter_is_sent_as_it_is_meant(text: str, sent: bytes) -> None:
    assert compile_filter(text) == sent


@pytest.mark.parametrize(
    "text",
    [
        "",
        "uid=bob",
        "(uid=bob",
        "(uid=bob))",
        "(uid)",
        "(=bob)",
        "(&)",
        "(!(a=1)(b=2))",
        "(a>=1*)",
        r"(a=\2)",
        r"(a=\zz)",
        "(a:=1)",
        "(!" * 30 + "(a=1)" + ")" * 30,
    ],
)
def test_what_is_no_filter_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|filter|can stand"):
        compile_filter(text)


@given(st.text(max_size=60))
def test_whatever_somebody_says_is_a_value_and_nothing_else(said: str) -> None:
    octets = said.encode("utf-8", "replace")
    assert compile_filter(f"(uid={escaped(said)})") == equal("uid", octets)
