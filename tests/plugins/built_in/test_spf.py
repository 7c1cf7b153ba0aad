from __future__ import annotations

import pytest
import trio

from elemta.mailauth import Spf
from elemta.plugins import CONTINUE, Defer, Reject
from elemta.plugins.built_in.spf import Settings, SpfPlugin, spf_of
from elemta.testing import FakeContent, FakeDns, a_session, a_transaction, some_tools

CONTENT = FakeContent(b"Subject: x\r\n\r\n")


def plugin(dns: FakeDns, settings: Settings | None = None) -> SpfPlugin:
    made = SpfPlugin(settings or Settings())
    made.tools = some_tools("spf", dns=dns)
    return made


def names(record: str) -> FakeDns:
    dns = FakeDns()
    dns.text("sender.example", record)
    return dns


async def test_by_default_it_only_finds_out() -> None:
    spf, transaction = plugin(names("v=spf1 -all")), a_transaction()
    assert await spf.on_mail(transaction) is CONTINUE
    assert transaction.results.told() == []
    assert await spf.on_inspect(transaction, CONTENT) is CONTINUE
    assert transaction.results.told() == [("spf", "spf=fail smtp.mailfrom=sender.example")]
    assert spf.tools.meters.authentication == {("spf", "fail"): 1}


async def test_at_mail_it_can_refuse() -> None:
    dns = names("v=spf1 -all exp=why.sender.example")
    dns.text("why.sender.example", "write from home")
    spf = plugin(dns, Settings(when="mail", fail="reject"))
    verdict = await spf.on_mail(a_transaction())
    assert verdict == Reject(
        (7, 23),
        "the sender's domain does not let you send its mail; it explains: write from home",
        note="spf=fail smtp.mailfrom=sender.example",
    )
    assert await spf.on_inspect(a_transaction(), CONTENT) is CONTINUE


async def test_what_a_domain_explains_cannot_harm_the_reply() -> None:
    dns = names("v=spf1 -all exp=why.sender.example")
    dns.add("why.sender.example", "TXT", r'"a\013\010250 ok"')
    verdict = await plugin(dns, Settings(fail="reject")).on_inspect(a_transaction(), CONTENT)
    assert isinstance(verdict, Reject)
    assert "250 ok" not in verdict.text


async def test_what_nobody_knows_is_put_off_if_wanted() -> None:
    dns = FakeDns()
    dns.failing.add("sender.example")
    assert await plugin(dns).on_inspect(a_transaction(), CONTENT) is CONTINUE
    spf = plugin(dns, Settings(temperror="defer", fail="reject"))
    assert isinstance(await spf.on_inspect(a_transaction(), CONTENT), Defer)


async def test_our_own_people_are_not_looked_at() -> None:
    dns = names("v=spf1 -all")
    spf = plugin(dns, Settings(fail="reject"))
    for session in (a_session(trusted=True), a_session("")):
        assert await spf.on_inspect(a_transaction(session), CONTENT) is CONTINUE
    assert dns.asked == []


async def test_whoever_asks_it_is_asked_once() -> None:
    dns = names("v=spf1 ip4:192.0.2.1 -all")
    tools, transaction = some_tools("greylisting", dns=dns), a_transaction()
    found: list[Spf] = []

    async def ask() -> None:
        found.append(await spf_of(transaction, tools))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ask)
    assert {each.result for each in found} == {"pass"}
    assert len(transaction.results.of(Spf)) == 1
    assert dns.asked == [("sender.example", "TXT")]


@pytest.mark.parametrize(("sender", "domain"), [("x@münchen.example", "xn--mnchen-3ya.example")])
async def test_a_domain_beyond_ascii_is_asked_by_its_labels(sender: str, domain: str) -> None:
    dns = FakeDns()
    dns.text(domain, "v=spf1 +all")
    found = await spf_of(a_transaction(sender=sender), some_tools(dns=dns))
    assert (found.result, found.domain) == ("pass", domain)


async def test_a_quoted_at_is_part_of_the_name() -> None:
    dns = names("v=spf1 exists:%{l}.sender.example -all")
    dns.add("x@other.example.sender.example", "A", "127.0.0.2")
    found = await spf_of(
        a_transaction(sender='"x@other.example"@sender.example'), some_tools(dns=dns)
    )
    assert (found.result, found.domain) == ("pass", "sender.example")
