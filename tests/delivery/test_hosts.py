from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from elemta.config import HostPort, Network
from elemta.delivery.hosts import Candidate, Hosts, Plan
from elemta.delivery.routes import ByMx, Terms, ToHosts
from elemta.protocol import Outcome, Reply
from tests.delivery.zone import Zone

if TYPE_CHECKING:
    from collections.abc import Sequence

OWN = {("203.0.113.25", 25)}
A, B, C, D = ("198.51.100.1", "198.51.100.2", "198.51.100.3", "198.51.100.4")
A6, B6 = ("2001:db8::1", "2001:db8::2")


def hosts(zone: Zone, *, allowed: Sequence[str] = (), seed: int = 1) -> Hosts:
    return Hosts(
        zone,
        hostname="mx.us.example",
        is_own=lambda address, port: (address, port) in OWN,
        allowed=[Network.parse(text) for text in allowed],
        random=random.Random(seed),
    )


async def plan(zone: Zone, domain: str = "example.net", *, allowed: Sequence[str] = ()) -> Plan:
    return await hosts(zone, allowed=allowed).plan(ByMx(domain))


def addresses(found: Plan) -> list[str]:
    assert isinstance(found, tuple), found
    return [candidate.address for candidate in found]


def refused(found: Plan) -> tuple[Outcome, str | None]:
    assert isinstance(found, Reply), found
    return found.outcome, found.enhanced


async def test_the_mx_of_the_domain_is_really_asked_for() -> None:
    # Fault 1 of the original: there was no MX delivery at all.
    zone = Zone()
    zone.mx_records["example.net"] = [(20, "backup.example."), (10, "MX.example.")]
    zone.hosts |= {"mx.example": [A], "backup.example": [B]}
    found = await plan(zone)
    assert found == (Candidate("mx.example", A, 25), Candidate("backup.example", B, 25))
    assert [str(one) for one in found] == [
        "mx.example[198.51.100.1]:25",
        "backup.example[198.51.100.2]:25",
    ]
    assert zone.asked[0] == "example.net"


async def test_equals_share_the_load() -> None:
    zone = Zone()
    zone.mx_records["example.net"] = [(10, "a.example"), (10, "b.example"), (20, "c.example")]
    zone.hosts |= {"a.example": [A], "b.example": [B], "c.example": [C]}
    by_chance = hosts(zone)
    first: Counter[str] = Counter()
    for _ in range(400):
        found = addresses(await by_chance.plan(ByMx("example.net")))
        assert found[2] == C
        first[found[0]] += 1
    assert set(first) == {A, B}
    assert min(first.values()) > 150


async def test_without_an_mx_the_domain_itself_is_the_host() -> None:
    zone = Zone()
    zone.hosts["example.net"] = [A, A6]
    assert await plan(zone) == (Candidate("example.net", A, 25), Candidate("example.net", A6, 25))


async def test_both_families_are_tried_however_many_addresses_one_has() -> None:
    zone = Zone()
    zone.mx_records["example.net"] = [(10, "mx.example")]
    zone.hosts["mx.example"] = [A, B, C, D, "198.51.100.5", "198.51.100.6", A6]
    found = addresses(await plan(zone))
    assert len(found) == 5
    assert found[1] == A6


async def test_a_host_with_many_addresses_does_not_hide_the_next() -> None:
    zone = Zone()
    zone.mx_records["example.net"] = [(10, "big.example"), (20, "backup.example")]
    zone.hosts |= {"big.example": [A, B, C, D, A6, B6], "backup.example": ["198.51.100.99"]}
    found = addresses(await plan(zone))
    assert len(found) == 3
    assert found[2] == "198.51.100.99"


async def test_a_plan_has_five_addresses_at_most() -> None:
    zone = Zone()
    zone.mx_records["example.net"] = [(n, f"mx{n}.example") for n in range(30)]
    zone.hosts |= {f"mx{n}.example": [f"198.51.100.{n + 1}"] for n in range(30)}
    assert addresses(await plan(zone)) == [f"198.51.100.{n + 1}" for n in range(5)]
    assert len(zone.asked) <= 11


@pytest.mark.parametrize("null", ["", "."])
async def test_a_null_mx_is_permanent(null: str) -> None:
    zone = Zone()
    zone.mx_records["example.net"] = [(0, null)]
    found = await plan(zone)
    assert isinstance(found, Reply)
    assert (found.code, found.enhanced) == (556, "5.1.10")


async def test_a_null_mx_beside_a_real_one_is_no_null_mx() -> None:
    zone = Zone()
    zone.mx_records["example.net"] = [(0, "."), (10, "mx.example")]
    zone.hosts["mx.example"] = [A]
    assert addresses(await plan(zone)) == [A]


async def test_a_domain_that_does_not_exist_is_permanent() -> None:
    assert refused(await plan(Zone())) == (Outcome.FAILED, "5.1.2")


async def test_dns_that_does_not_answer_is_temporary() -> None:
    zone = Zone()
    zone.failing.add("example.net")
    assert refused(await plan(zone)) == (Outcome.RETRY, "4.4.3")


async def test_an_mx_whose_address_dns_does_not_tell_is_temporary() -> None:
    zone = Zone()
    zone.mx_records["example.net"] = [(10, "mx.example"), (20, "gone.example")]
    zone.failing.add("mx.example")
    assert refused(await plan(zone)) == (Outcome.RETRY, "4.4.3")
    zone.hosts["gone.example"] = [B]
    assert addresses(await plan(zone)) == [B]


async def test_an_mx_without_an_address_is_temporary() -> None:
    zone = Zone()
    zone.mx_records["example.net"] = [(10, "gone.example")]
    assert refused(await plan(zone)) == (Outcome.RETRY, "4.4.4")


async def test_a_domain_with_neither_mx_nor_address_is_temporary() -> None:
    zone = Zone()
    zone.mx_records["example.net"] = []
    assert refused(await plan(zone)) == (Outcome.RETRY, "4.4.4")


@pytest.mark.parametrize("us", ["mx.us.example", "other-name-of-us.example"])
async def test_hosts_that_are_no_better_than_us_are_left_out(us: str) -> None:
    zone = Zone()
    zone.mx_records["example.net"] = [
        (5, "a.example"),
        (10, "MX.us.example"),
        (10, "b.example"),
        (20, "c.example"),
    ]
    zone.mx_records["example.net"][1] = (10, us)
    zone.hosts |= {"a.example": [A], us: ["203.0.113.25"], "b.example": [B], "c.example": [C]}
    assert addresses(await plan(zone)) == [A]


@pytest.mark.parametrize("us", ["mx.us.example", "other-name-of-us.example"])
async def test_a_domain_whose_best_mx_we_are_loops_back(us: str) -> None:
    zone = Zone()
    zone.mx_records["example.net"] = [(10, us), (20, "backup.example")]
    zone.hosts |= {us: ["203.0.113.25"], "backup.example": [B]}
    assert refused(await plan(zone)) == (Outcome.FAILED, "5.4.6")


INSIDE = [
    "127.0.0.1",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "::1",
    "::",
    "fe80::1",
    "fd00::1",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
]


@pytest.mark.parametrize("address", INSIDE)
async def test_no_mx_leads_inside(address: str) -> None:
    zone = Zone()
    zone.mx_records["example.net"] = [(10, "mx.example"), (20, "backup.example")]
    zone.hosts |= {"mx.example": [address]}
    assert refused(await plan(zone)) == (Outcome.RETRY, "4.4.4")
    zone.hosts |= {"backup.example": [B]}
    assert addresses(await plan(zone)) == [B]
    literal = f"[IPv6:{address}]" if ":" in address else f"[{address}]"
    assert refused(await plan(Zone(), literal)) == (Outcome.RETRY, "4.4.4")


async def test_an_mx_leads_inside_where_the_configuration_allows_it() -> None:
    zone = Zone()
    zone.mx_records["example.net"] = [(10, "mx.example")]
    zone.hosts |= {"mx.example": ["127.0.0.2", "10.0.0.1"]}
    assert addresses(await plan(zone, allowed=["127.0.0.0/8"])) == ["127.0.0.2"]


async def test_an_address_literal_needs_no_dns() -> None:
    zone = Zone()
    assert await plan(zone, "[198.51.100.1]") == (Candidate(A, A, 25),)
    assert addresses(await plan(zone, "[IPv6:2001:db8::1]")) == [A6]
    assert refused(await plan(zone, "[x400:nonsense]")) == (Outcome.FAILED, "5.1.3")
    assert refused(await plan(zone, "[203.0.113.25]")) == (Outcome.FAILED, "5.4.6")
    assert zone.asked == []


async def test_a_configured_host_may_be_anywhere_and_is_not_asked_for_its_mx() -> None:
    zone = Zone()
    zone.mx_records["smart.example"] = [(10, "not-this.example")]
    zone.hosts["smart.example"] = ["10.0.0.1"]
    route = ToHosts(
        (HostPort("127.0.0.1", 2600), HostPort("smart.example", 587), HostPort("::1", 25))
    )
    assert await hosts(zone).plan(route) == (
        Candidate("127.0.0.1", "127.0.0.1", 2600),
        Candidate("smart.example", "10.0.0.1", 587),
        Candidate("::1", "::1", 25),
    )
    assert zone.asked == ["smart.example"]


async def test_nothing_that_is_wrong_with_a_configured_host_is_permanent() -> None:
    zone = Zone()
    zone.failing.add("failing.example")
    for name, status in [
        ("gone.example", "4.4.4"),
        ("failing.example", "4.4.3"),
        ("203.0.113.25", "4.4.6"),
    ]:
        assert refused(await hosts(zone).plan(ToHosts((HostPort(name, 25),)))) == (
            Outcome.RETRY,
            status,
        )


async def test_a_bare_postmaster_that_nobody_is_home_for_fails() -> None:
    assert refused(await plan(Zone(), "")) == (Outcome.FAILED, "5.1.2")


async def test_a_route_that_connects_from_addresses_of_ours_reaches_their_kinds_alone() -> None:
    zone = Zone()
    zone.mx_records["example.net"] = [(10, "six.example"), (20, "four.example")]
    zone.hosts |= {"six.example": [A6], "four.example": [A, B6]}
    four, both = ("192.0.2.1",), ("2001:db8::25", "192.0.2.1")
    route = ByMx("example.net", Terms(source=four))
    assert await hosts(zone).plan(route) == (Candidate("four.example", A, 25, "192.0.2.1"),)
    route = ByMx("example.net", Terms(source=both))
    assert await hosts(zone).plan(route) == (
        Candidate("six.example", A6, 25, "2001:db8::25"),
        Candidate("four.example", A, 25, "192.0.2.1"),
        Candidate("four.example", B6, 25, "2001:db8::25"),
    )
    zone.mx_records["example.net"] = [(10, "six.example")]
    assert refused(await hosts(zone).plan(ByMx("example.net", Terms(source=four)))) == (
        Outcome.RETRY,
        "4.4.4",
    )
    literal = ByMx("[198.51.100.1]", Terms(source=four))
    assert await hosts(zone).plan(literal) == (Candidate(A, A, 25, "192.0.2.1"),)


async def test_a_unix_socket_is_found_without_dns_and_has_no_family() -> None:
    zone = Zone()
    route = ToHosts((HostPort("/run/a:b", 0),), lmtp=True, terms=Terms(source=("192.0.2.1",)))
    found = await hosts(zone).plan(route)
    assert isinstance(found, tuple)
    assert [(one.address, one.port, str(one)) for one in found] == [("/run/a:b", 0, "/run/a:b")]
    assert zone.asked == []


async def told(zone: Zone, route: ByMx | ToHosts) -> list[str]:
    lines: list[str] = []
    await hosts(zone).plan(route, lines.append)
    return lines


async def test_what_is_left_out_is_told_and_why() -> None:
    zone = Zone()
    zone.mx_records["example.net"] = [
        *((10, "a.example"), (20, "MX.us.example."), (20, "b.example"), (30, "c.example")),
    ]
    zone.hosts |= {"a.example": [A, B, "10.0.0.1"]}
    # Equals stand in random order.
    assert sorted(await told(zone, ByMx("example.net"))) == [
        "10.0.0.1 of a.example is left out: it is no public address",
        "MX 10 a.example: 10.0.0.1, 198.51.100.1, 198.51.100.2",
        "b.example is left out: it is no nearer than we are",
        "c.example is left out: it is no nearer than we are",
        "mx.us.example is left out: that is ourselves",
    ]


async def test_what_is_left_for_later_is_counted() -> None:
    zone = Zone()
    zone.mx_records["example.net"] = [(n, f"mx{n}.example") for n in range(12)]
    zone.hosts |= {f"mx{n}.example": [f"198.51.100.{n + 1}"] for n in range(12)}
    lines = await told(zone, ByMx("example.net"))
    assert lines[:2] == [
        "mx10.example is left out: 10 others are better",
        "mx11.example is left out: 10 others are better",
    ]
    assert lines[-1] == "5 more are left for later attempts"


async def test_hosts_of_a_route_are_told_with_their_addresses() -> None:
    zone = Zone()
    zone.hosts["relay.example"] = ["203.0.113.25"]
    route = ToHosts((HostPort("relay.example", 25), HostPort("gone.example", 25), HostPort(A, 25)))
    assert await told(zone, route) == [
        "relay.example: 203.0.113.25",
        "gone.example: no address: gone.example",
        "203.0.113.25 of relay.example is left out: we listen there",
    ]


@pytest.mark.parametrize("name", ["localhost", "LocalHost.", "mail.localhost"])
async def test_localhost_is_this_machine_and_no_dns_is_asked(name: str) -> None:
    zone = Zone()
    zone.hosts[name.rstrip(".").lower()] = [A]
    found = await hosts(zone).plan(ToHosts((HostPort(name, 2525),)))
    assert addresses(found) == ["127.0.0.1", "::1"]
    assert zone.asked == []


async def test_an_mx_that_is_localhost_leads_nowhere() -> None:
    zone = Zone()
    zone.mx_records["example.net"] = [(10, "localhost.")]
    assert refused(await plan(zone)) == (Outcome.RETRY, "4.4.4")
    assert zone.asked == ["example.net"]


async def test_localhost_that_is_ourselves_would_loop() -> None:
    found = Hosts(Zone(), hostname="mx.us.example", is_own=lambda address, port: port == 25).plan(
        ToHosts((HostPort("localhost", 25),))
    )
    assert refused(await found) == (Outcome.RETRY, "4.4.6")
