"""`elemta.login.patterns`, and the grammar of patterns that it reads."""

import pytest

from elemta.config import AddressPattern
from elemta.login import owns
from elemta.protocol import parse_mailbox


@pytest.mark.parametrize(
    ("pattern", "own", "foreign"),
    [
        ("bob@example.org", ["bob@example.org", "BOB@Example.ORG"], ["bobby@example.org"]),
        ("Bob@example.org", ["bob@example.org"], ["bob@sub.example.org", "bob@example.net"]),
        ("@example.org", ["x@example.org", '"a b"@example.org'], ["x@sub.example.org"]),
        ("@*.example.org", ["x@a.example.org", "x@b.a.example.org"], ["x@example.org"]),
        ("@*.example.org", [], ["x@badexample.org"]),
        ("*", ["x@example.org", "x@[192.0.2.1]"], []),
        ("@bücher.example", ["x@xn--bcher-kva.example", "x@BÜCHER.example"], ["x@bucher.example"]),
        ("@xn--bcher-kva.example", ["x@bücher.example"], []),
        ("jürgen@example.org", ["JÜRGEN@example.org"], ["jurgen@example.org"]),
        ("x@[192.0.2.1]", ["x@[192.0.2.1]"], ["x@[192.0.2.2]"]),
        ('"a b"@example.org', ['"A b"@example.org'], ["ab@example.org"]),
    ],
)
def test_a_pattern_means_some_addresses_and_no_others(
    pattern: str, own: list[str], foreign: list[str]
) -> None:
    assert [each for each in own if not owns([pattern], parse_mailbox(each))] == []
    assert [each for each in foreign if owns([pattern], parse_mailbox(each))] == []


def test_any_of_several_will_do_and_none_gives_nothing() -> None:
    ann = parse_mailbox("ann@example.org")
    assert owns(["@example.net", "ann@example.org"], ann)
    assert not owns([], ann)


@pytest.mark.parametrize(
    "text",
    ["", "bob", "example.org", "@", "@*", "@*.", "*@example.org@x", "@a b", "**", "@*.[192.0.2.1]"],
)
def test_what_is_no_pattern_is_told_and_gives_nobody_anything(text: str) -> None:
    with pytest.raises(ValueError, match="expected ADDRESS, @DOMAIN") as caught:
        AddressPattern.parse(text)
    assert repr(text) in str(caught.value)
    assert not owns([text], parse_mailbox("bob@example.org"))


@pytest.mark.parametrize("text", ["bob@example.org", "@example.org", "@*.example.org", "*"])
def test_it_is_written_as_it_is_read(text: str) -> None:
    assert str(AddressPattern.parse(text)) == text
