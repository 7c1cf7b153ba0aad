from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import trio

from elemta.mailauth import Arc, check_arc
from elemta.net.dns import Absent, DnsResolver, Failed, Found, Kind
from elemta.testing import FakeDns, at_once
from tests.mailauth.signing import MESSAGE, publish, rsa_key, sealed

if TYPE_CHECKING:
    from trio.testing import MockClock


def names(*domains: str) -> FakeDns:
    dns = FakeDns()
    for domain in domains or ("list.example", "second.example", "third.example"):
        publish(dns, rsa_key()[1], domain)
    return dns


async def check(message: bytes, dns: FakeDns | None = None) -> Arc:
    return await check_arc(message, resolver=DnsResolver(backend=dns or names()), in_thread=at_once)


def chain() -> bytes:
    message = sealed(MESSAGE, results="dmarc=pass header.from=sender.example")
    message = sealed(message, domain="second.example", results="arc=pass")
    return sealed(message, domain="third.example", results="arc=pass")


async def test_a_whole_chain_passes_and_says_who_sealed_what() -> None:
    found = await check(chain())
    assert found.result == "pass"
    assert [each.domain for each in found.seals] == [
        *("third.example", "second.example", "list.example")
    ]
    assert b"dmarc=pass" in found.seals[2].stated
    assert found.seals[2].stated.startswith(b"list.example;")
    assert str(found) == "arc=pass (i=3 sealed by third.example)"


async def test_no_chain_is_none() -> None:
    assert str(await check(MESSAGE)) == "arc=none"


async def test_a_list_may_have_changed_what_was_sent_to_it_but_not_who_got_it_from_there() -> None:
    message = sealed(MESSAGE, results="arc=none").replace(b"noon", b"one")
    assert (await check(message)).result == "fail"
    again = sealed(message, domain="second.example", results="arc=pass")
    # Those who sealed last vouch for what they sent; the first signature need not hold any more.
    assert (await check(again)).result == "pass"
    assert (await check(again.replace(b"one", b"two"))).result == "fail"


@pytest.mark.parametrize(
    ("pattern", "by"),
    [
        (rb"dmarc=pass", b"dmarc=fail"),
        (rb"cv=none", b"cv=pass"),
        (rb"ARC-Seal: i=2;", b"ARC-Seal: i=4;"),
        (rb"ARC-Seal: i=1;.*?\r\n(?=ARC)", b""),
        (rb"ARC-Authentication-Results: i=2;.*?\r\n(?=[A-Z])", b""),
        (rb"ARC-Seal: i=3;", b"ARC-Seal: i=99;"),
        (rb"ARC-Seal: i=3;", b"ARC-Seal: i=x;"),
        (rb"d=second", b"d=other"),
        (rb"ARC-Seal: i=1;", b"ARC-Seal: i=1; h=from;"),
        (rb"ARC-Message-Signature: i=3;", b"ARC-Message-Signature: i=3; l=3;"),
    ],
)
async def test_a_chain_of_which_anything_was_changed_fails(pattern: bytes, by: bytes) -> None:
    broken, count = re.subn(pattern, by, chain(), count=1, flags=re.DOTALL)
    assert count == 1
    found = await check(broken)
    assert found.result == "fail"
    assert found.seals == ()


async def test_a_chain_that_its_last_member_found_broken_fails() -> None:
    message = sealed(MESSAGE, results="arc=none")
    broken = sealed(message.replace(b"noon", b"one"), domain="second.example", results="arc=fail")
    assert (await check(broken)).result == "fail"


async def test_keys_that_nobody_has_and_keys_that_nobody_can_say() -> None:
    assert (await check(chain(), names("list.example", "second.example"))).result == "fail"
    dns = names("list.example", "second.example")
    dns.failing.add("s1._domainkey.third.example")
    assert (await check(chain(), dns)).result == "temperror"


async def test_a_signature_is_found_however_it_was_folded() -> None:
    message = sealed(MESSAGE, results="arc=none")
    for form in (b"ARC-Message-Signature:i=1;", b"ARC-Message-Signature:\r\n\ti=1;"):
        other = message.replace(b"ARC-Message-Signature: i=1;", form)
        assert other != message
        assert (await check(other)).result == "pass"


async def test_from_must_be_signed() -> None:
    # What nobody's software signs: dkimpy's own check is the one that is taken away here.
    class Careless(bytes):
        def lower(self) -> Careless:
            return self

        def __eq__(self, other: object) -> bool:
            return other == b"from" or bytes(self) == other

        __hash__ = bytes.__hash__

    message = sealed(MESSAGE, results="arc=none", names=[Careless(b"subject")])
    assert b"h=subject;" in message
    assert (await check(message)).result == "fail"
    assert (await check(message.replace(b"Ann <", b"Eve <"))).result == "fail"


async def test_fifty_sets_are_the_most() -> None:
    one = sealed(MESSAGE, results="arc=none").partition(b"From:")[0]
    found = await check(one * 51 + MESSAGE)
    assert str(found) == "arc=fail (more than 50 sets)"


async def test_fields_without_a_number_are_no_chain() -> None:
    assert (await check(b"ARC-Seal: x=y\r\n" + MESSAGE)).result == "fail"
    assert (await check(b"ARC-Seal: nonsense\r\n" + MESSAGE)).result == "fail"
    assert (await check(b"ARC-Authentication-Results: i=1; x\r\n" + MESSAGE)).result == "fail"


async def test_a_silent_name_server_costs_no_more_than_its_time(autojump_clock: MockClock) -> None:
    class Silent:
        async def ask(self, name: str, kind: Kind) -> Found | Absent | Failed:
            await trio.sleep_forever()
            raise AssertionError

    found = await check_arc(chain(), resolver=DnsResolver(backend=Silent()), in_thread=at_once)
    assert found.result == "temperror"


async def test_what_an_attacker_wrote_does_not_get_into_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG")
    await check(chain().replace(b"d=second.example", b"d=boo"))
    assert "boo" not in caplog.text
