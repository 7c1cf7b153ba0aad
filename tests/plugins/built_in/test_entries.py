from __future__ import annotations

import ipaddress

import pytest

from elemta.plugins.built_in.entries import Addresses, Names, Networks
from elemta.testing import mailbox


def test_the_longest_prefix_is_found() -> None:
    known = Networks(["192.0.2.0/24", "192.0.2.128/25", "192.0.2.7", "2001:db8::/32", "0.0.0.0/0"])
    for address, length in (
        ("192.0.2.7", 32),
        ("192.0.2.8", 24),
        ("192.0.2.200", 25),
        ("198.51.100.1", 0),
        ("2001:db8::1", 32),
        ("2001:db9::1", None),
    ):
        assert known.find(ipaddress.ip_address(address)) == length, address
    assert Networks([]).find(ipaddress.ip_address("192.0.2.1")) is None


def test_names_are_found_exactly_or_below() -> None:
    known = Names(["example.net", "*.example.net", "*.mail.example.net", "Bücher.example"])
    exact, below, deeper = (
        known.find(each) for each in ("Example.NET.", "a.b.example.net", "x.mail.example.net")
    )
    assert exact is not None
    assert below is not None
    assert deeper is not None
    assert below < exact
    assert below < deeper
    assert known.find("xn--bcher-kva.example") is not None
    assert Names(["[IPv6:2001:DB8::1]"]).find("[ipv6:2001:db8::1]") is not None
    for other in ("", "example.org", "notexample.net", "net"):
        assert known.find(other) is None, other


def test_an_address_is_more_than_its_domain() -> None:
    known = Addresses(["Ann@example.net", "example.net", "*.example.org", "<>", "postmaster"])
    ann, bob = (known.find(mailbox(f"{each}@example.net")) for each in ("ann", "bob"))
    assert ann is not None
    assert bob is not None
    assert ann > bob
    assert known.find(None) == ann
    assert known.find(mailbox("x@a.example.org")) is not None
    assert known.find(mailbox("x@example.org")) is None
    assert known.find(mailbox("x@y.example").__class__("postmaster", "")) == ann
    assert Addresses(["example.net"]).find(None) is None


@pytest.mark.parametrize("kind", [Names, Addresses, Networks])
@pytest.mark.parametrize("text", ["two words", "", "*", "a..b", "192.0.2.1/24", "@example.net"])
def test_what_is_no_entry_is_refused(kind: type[Names | Addresses | Networks], text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|did you mean"):
        kind([text])
