from __future__ import annotations

import pytest

from elemta.mailauth import Iprev, check_iprev
from elemta.net.dns import DnsResolver
from elemta.testing import FakeDns


async def check(dns: FakeDns, address: str = "192.0.2.1") -> Iprev:
    return await check_iprev(address, resolver=DnsResolver(backend=dns))


REVERSE = "1.2.0.192.in-addr.arpa"


async def test_a_name_that_leads_back_passes() -> None:
    dns = FakeDns()
    dns.add(REVERSE, "PTR", "Other.example.", "Host.Example.")
    dns.add("host.example", "A", "198.51.100.1", "192.0.2.1")
    assert await check(dns) == Iprev("pass", "192.0.2.1", "host.example")
    assert str(await check(dns)) == "iprev=pass (host.example) policy.iprev=192.0.2.1"
    assert (await check(dns, "::ffff:192.0.2.1")).result == "pass"


async def test_a_claim_that_does_not_hold_fails() -> None:
    dns = FakeDns()
    dns.add(REVERSE, "PTR", "host.example.")
    dns.add("host.example", "A", "198.51.100.1")
    found = await check(dns)
    assert (found.result, found.name) == ("fail", "")


async def test_ip6() -> None:
    dns = FakeDns()
    name = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"
    dns.add(name, "PTR", "six.example.")
    dns.add("six.example", "AAAA", "2001:db8::1")
    assert str(await check(dns, "2001:db8::1")) == (
        'iprev=pass (six.example) policy.iprev="2001:db8::1"'
    )


@pytest.mark.parametrize(("failing", "result"), [("", "permerror"), (REVERSE, "temperror")])
async def test_no_name_is_told_from_no_answer(failing: str, result: str) -> None:
    dns = FakeDns()
    dns.failing.add(failing)
    assert (await check(dns)).result == result


async def test_a_name_that_nobody_can_resolve_is_no_fail() -> None:
    dns = FakeDns()
    dns.add(REVERSE, "PTR", "one.example.", "two.example.")
    dns.failing.add("two.example")
    assert (await check(dns)).result == "temperror"


async def test_of_many_names_ten_are_looked_at() -> None:
    dns = FakeDns()
    dns.add(REVERSE, "PTR", *(f"h{number}.example." for number in range(100)))
    dns.add("h50.example", "A", "192.0.2.1")
    assert (await check(dns)).result == "fail"
    assert len(dns.asked) == 11


async def test_what_is_no_address_has_none() -> None:
    assert (await check(FakeDns(), "")).result == "permerror"
