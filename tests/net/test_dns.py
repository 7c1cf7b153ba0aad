"""The resolver against a nameserver on loopback: what is on the wire."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from elemta.net.dns import (
    MX,
    Absent,
    DnsResolver,
    DnsTemporaryError,
    Failed,
    Found,
    Kind,
    Nameservers,
    NoRecordsError,
    NoSuchDomainError,
    nameserver,
)
from tests.net.nameserver import nameserver as running_nameserver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.net.nameserver import Nameserver


@pytest.fixture
async def server() -> AsyncIterator[Nameserver]:
    async with running_nameserver() as server:
        yield server


async def test_mail_exchangers_come_best_first(server: Nameserver) -> None:
    server.add("example.net", "MX", "20 B.mx.example.net.", "10 a.mx.example.net.", "10 0.example.")
    assert await DnsResolver([server.address]).mx("Example.NET.") == [
        MX(10, "0.example"),
        MX(10, "a.mx.example.net"),
        MX(20, "b.mx.example.net"),
    ]
    assert server.asked == [("example.net", "MX", "udp")]


async def test_a_null_mx_has_no_host(server: Nameserver) -> None:
    server.add("example.net", "MX", "0 .")
    assert await DnsResolver([server.address]).mx("example.net") == [MX(0, "")]


async def test_addresses_are_both_kinds_ipv6_first(server: Nameserver) -> None:
    server.add("mx.example.net", "A", "192.0.2.1", "192.0.2.2")
    server.add("mx.example.net", "AAAA", "2001:db8::1")
    found = await DnsResolver([server.address]).addresses("mx.example.net")
    assert found[0] == "2001:db8::1"
    assert sorted(found[1:]) == ["192.0.2.1", "192.0.2.2"]


@pytest.mark.parametrize(("kind", "address"), [("A", "192.0.2.1"), ("AAAA", "2001:db8::1")])
async def test_one_kind_of_address_is_enough(server: Nameserver, kind: str, address: str) -> None:
    server.add("mx.example.net", kind, address)
    assert await DnsResolver([server.address]).addresses("mx.example.net") == [address]


async def test_a_name_that_does_not_exist_is_told_from_one_without_records(
    server: Nameserver,
) -> None:
    server.add("example.net", "TXT", '"v=spf1 -all"')
    resolver = DnsResolver([server.address])
    with pytest.raises(NoRecordsError, match=r"example\.net has no MX"):
        await resolver.mx("example.net")
    with pytest.raises(NoRecordsError):
        await resolver.addresses("example.net")
    with pytest.raises(NoSuchDomainError, match=r"nowhere\.example does not exist"):
        await resolver.mx("nowhere.example")
    with pytest.raises(NoSuchDomainError):
        await resolver.addresses("nowhere.example")


@pytest.mark.parametrize("name", ["a..example", "x" * 64 + ".example", "y." * 130, "\\999.example"])
async def test_a_name_that_cannot_be_does_not_exist(server: Nameserver, name: str) -> None:
    with pytest.raises(NoSuchDomainError):
        await DnsResolver([server.address]).mx(name)
    assert server.asked == []


@pytest.mark.parametrize("trouble", ["broken", "lame", "silent", "upward"])
async def test_trouble_is_temporary(server: Nameserver, trouble: str) -> None:
    getattr(server, trouble).add("example.net")
    resolver = DnsResolver([server.address], timeout=0.5)
    with pytest.raises(DnsTemporaryError, match=r"cannot find MX records of example\.net: "):
        await resolver.mx("example.net")
    with pytest.raises(DnsTemporaryError):
        await resolver.addresses("example.net")
    word = "timed_out" if trouble == "silent" else "failed"
    assert resolver.answers == {word: 3}


async def test_a_nameserver_that_is_down_is_temporary() -> None:
    with pytest.raises(DnsTemporaryError):
        await DnsResolver(["127.0.0.1:1"], timeout=0.2).mx("example.net")


async def test_a_second_nameserver_is_asked_when_the_first_refuses(server: Nameserver) -> None:
    async with running_nameserver() as lame:
        lame.lame.add("example.net")
        server.add("example.net", "MX", "10 mx.example.net.")
        resolver = DnsResolver([lame.address, server.address])
        assert await resolver.mx("example.net") == [MX(10, "mx.example.net")]


async def test_a_long_answer_comes_by_tcp(server: Nameserver) -> None:
    server.long.add("example.net")
    server.add("example.net", "MX", *(f"10 mx{number}.example.net." for number in range(100)))
    assert len(await DnsResolver([server.address]).mx("example.net")) == 100
    assert server.asked == [("example.net", "MX", "udp"), ("example.net", "MX", "tcp")]


async def test_the_size_of_answers_is_announced(server: Nameserver) -> None:
    server.add("example.net", "MX", "10 mx.example.net.")
    await DnsResolver([server.address]).mx("example.net")
    assert server.payloads == [1232]


async def test_a_question_can_be_cancelled(server: Nameserver) -> None:
    server.silent.add("example.net")
    with trio.move_on_after(0.05) as scope:
        await DnsResolver([server.address]).mx("example.net")
    assert scope.cancelled_caught


@pytest.mark.parametrize("follows", [True, False])
async def test_aliases_are_followed_by_the_server_or_by_us(
    server: Nameserver, *, follows: bool
) -> None:
    server.follows_aliases = follows
    server.add("www.example.net", "CNAME", "web.example.net.", ttl=100)
    server.add("web.example.net", "CNAME", "host.example.net.", ttl=50)
    server.add("host.example.net", "A", "192.0.2.1", ttl=200)
    answer = await Nameservers([server.address]).ask("www.example.net", Kind.A)
    assert answer == Found(("192.0.2.1",), ttl=50)


@pytest.mark.parametrize("follows", [True, False])
async def test_an_alias_to_nothing_is_nothing(server: Nameserver, *, follows: bool) -> None:
    server.follows_aliases = follows
    server.add("www.example.net", "CNAME", "web.example.net.")
    server.add("web.example.net", "TXT", '"x"')
    resolver = DnsResolver([server.address])
    with pytest.raises(NoRecordsError):
        await resolver.addresses("www.example.net")
    server.add("gone.example.net", "CNAME", "nowhere.example.net.")
    with pytest.raises(NoSuchDomainError):
        await resolver.addresses("gone.example.net")


@pytest.mark.parametrize("follows", [True, False])
async def test_aliases_in_a_circle_are_temporary(server: Nameserver, *, follows: bool) -> None:
    server.follows_aliases = follows
    server.add("a.example", "CNAME", "b.example.")
    server.add("b.example", "CNAME", "a.example.")
    if follows:  # a server that really follows gives up by itself
        server.broken.add("a.example")
    with pytest.raises(DnsTemporaryError):
        await DnsResolver([server.address], timeout=0.5).mx("a.example")


async def test_how_long_nothing_holds_is_the_minimum_of_the_zone(server: Nameserver) -> None:
    server.add("example.net", "TXT", '"x"')
    asking = Nameservers([server.address])
    assert await asking.ask("example.net", Kind.MX) == Absent(domain=False, ttl=120)
    assert await asking.ask("nowhere.example", Kind.MX) == Absent(domain=True, ttl=120)


async def test_without_a_minimum_nothing_is_remembered_for_long(server: Nameserver) -> None:
    server.says_soa = False
    answer = await Nameservers([server.address]).ask("nowhere.example", Kind.MX)
    assert isinstance(answer, Absent)
    assert 0 < answer.lifetime <= 300


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("127.0.0.1", "Do53:127.0.0.1@53"),
        ("127.0.0.1:5353", "Do53:127.0.0.1@5353"),
        ("::1", "Do53:::1@53"),
        ("[::1]", "Do53:::1@53"),
        ("[::1]:5353", "Do53:::1@5353"),
    ],
)
def test_a_nameserver_is_an_address_and_perhaps_a_port(text: str, shown: str) -> None:
    assert str(nameserver(text)) == shown


@pytest.mark.parametrize(
    "text", ["", "localhost", "localhost:53", "127.0.0.1:0", "127.0.0.1:65536", "1.2.3.4:x", "::1]"]
)
def test_what_is_no_nameserver_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        DnsResolver([text])


async def test_without_nameservers_those_of_the_host_are_asked(tmp_path: Path) -> None:
    resolv_conf = tmp_path / "resolv.conf"
    resolv_conf.write_text("search example.com\nnameserver 127.0.0.1\n")
    backend = Nameservers(resolv_conf=str(resolv_conf), timeout=0.2)
    assert isinstance(await backend.ask("example.net", Kind.MX), Failed)


def test_a_host_without_nameservers_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no nameservers in "):
        Nameservers(resolv_conf=str(tmp_path / "missing"))
