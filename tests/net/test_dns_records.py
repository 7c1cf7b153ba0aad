"""Records as plugins ask for them: any kind, texts put together, names of addresses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dns.rdataclass
import dns.rdatatype
import pytest
from dns.rdtypes.ANY.TXT import TXT
from hypothesis import example, given
from hypothesis import strategies as st

from elemta.net.dns import (
    DnsResolver,
    DnsTemporaryError,
    Kind,
    NoRecordsError,
    NoSuchDomainError,
    text_of,
)
from elemta.testing import FakeDns
from tests.net.nameserver import nameserver as running_nameserver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.net.nameserver import Nameserver


@pytest.fixture
async def server() -> AsyncIterator[Nameserver]:
    async with running_nameserver() as server:
        yield server


@given(st.lists(st.binary(max_size=255), min_size=1, max_size=4))
@example([b'"', b"\\", b'\\"', b"\\065"])
@example([bytes(range(256))[:255]])
@example([b"v=spf1 ", b"-all"])
@example([b""])
def test_a_text_is_its_strings_octet_for_octet(strings: list[bytes]) -> None:
    record = TXT(dns.rdataclass.IN, dns.rdatatype.TXT, strings).to_text()
    assert text_of(record) == b"".join(strings)


@pytest.mark.parametrize(
    ("record", "text"),
    [
        ('"v=DKIM1; p=" "abc"', b"v=DKIM1; p=abc"),
        ('"a\\"b"', b'a"b'),
        ('"\\255\\000"', b"\xff\0"),
        ('"\\256"', b"256"),
        ('"é"', "é".encode()),
        ('""', b""),
        ("", b""),
    ],
)
def test_a_text_is_read_as_a_zone_file_has_it(record: str, text: bytes) -> None:
    assert text_of(record) == text


@given(st.text(st.characters(codec="utf-8"), max_size=300))
def test_whatever_a_name_server_says_is_read_to_its_end(record: str) -> None:
    assert len(text_of(record)) <= len(record.encode())


async def test_texts_come_from_the_wire(server: Nameserver) -> None:
    server.add("example.net", "TXT", '"v=spf1 " "-all"', '"other"')
    resolver = DnsResolver([server.address])
    assert sorted(await resolver.texts("Example.NET.")) == [b"other", b"v=spf1 -all"]


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("192.0.2.7", "7.2.0.192.in-addr.arpa"),
        ("2001:db8::7", "7." + "0." * 23 + "8.b.d.0.1.0.0.2.ip6.arpa"),
        ("fe80::7%eth0", "7." + "0." * 28 + "8.e.f.ip6.arpa"),
    ],
)
async def test_names_are_those_of_the_address_backwards(address: str, name: str) -> None:
    backend = FakeDns({(name, "PTR"): ["Host.Example.NET.", "other.example."]})
    assert await DnsResolver(backend=backend).names(address) == [
        "host.example.net",
        "other.example",
    ]
    assert backend.asked == [(name, "PTR")]


async def test_what_is_no_address_has_no_names() -> None:
    with pytest.raises(ValueError, match="does not appear to be"):
        await DnsResolver(backend=FakeDns()).names("mx.example")


async def test_records_are_there_or_it_is_told_why_not() -> None:
    backend = FakeDns({("example.net", "A"): ["192.0.2.1"]})
    backend.failing.add("broken.example")
    resolver = DnsResolver(backend=backend)
    assert await resolver.records("Example.net.", Kind.A) == ("192.0.2.1",)
    with pytest.raises(NoRecordsError, match=r"example\.net has no TXT records"):
        await resolver.records("example.net", Kind.TXT)
    with pytest.raises(NoSuchDomainError, match=r"gone\.example does not exist"):
        await resolver.texts("gone.example")
    with pytest.raises(DnsTemporaryError):
        await resolver.records("broken.example", Kind.A)


async def test_all_share_one_cache() -> None:
    backend = FakeDns({("example.net", "TXT"): ['"x"']})
    resolver = DnsResolver(backend=backend)
    for _ in range(3):
        await resolver.texts("example.net")
        await resolver.records("EXAMPLE.net.", Kind.TXT)
    assert backend.asked == [("example.net", "TXT")]
