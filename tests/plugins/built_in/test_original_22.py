"""Fault 22 of the original: its SPF, DKIM, DMARC and ARC plugins returned constants.

Each of them is shown mail that differs in one thing, and must say that it does; and all of them
together judge a session's mail.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from elemta.mailauth import Arc, DkimSignature, Dmarc, Spf
from elemta.plugins.built_in.arc import ArcPlugin
from elemta.plugins.built_in.arc import Settings as ArcSettings
from elemta.plugins.built_in.authentication_results import AuthenticationResults
from elemta.plugins.built_in.authentication_results import Settings as FieldSettings
from elemta.plugins.built_in.dkim import DkimPlugin
from elemta.plugins.built_in.dkim import Settings as DkimSettings
from elemta.plugins.built_in.dmarc import DmarcPlugin
from elemta.plugins.built_in.dmarc import Settings as DmarcSettings
from elemta.plugins.built_in.iprev import IprevPlugin
from elemta.plugins.built_in.spf import Settings as SpfSettings
from elemta.plugins.built_in.spf import SpfPlugin
from elemta.testing import FakeContent, FakeDns, a_session, a_transaction, some_tools
from tests.dialogue import Server
from tests.mailauth.signing import MESSAGE, publish, rsa_key, sealed, signed

if TYPE_CHECKING:
    import trio

    from elemta.plugins import Plugin


def names() -> FakeDns:
    dns = FakeDns()
    dns.text("sender.example", "v=spf1 ip4:192.0.2.1 -all")
    dns.text("_dmarc.sender.example", "v=DMARC1; p=reject")
    dns.add("1.2.0.192.in-addr.arpa", "PTR", "host.sender.example.")
    dns.add("host.sender.example", "A", "192.0.2.1")
    publish(dns, rsa_key()[1])
    publish(dns, rsa_key()[1], "list.example")
    return dns


def plugins(dns: FakeDns) -> list[Plugin]:
    made: list[Plugin] = [
        IprevPlugin(),
        SpfPlugin(SpfSettings()),
        DkimPlugin(DkimSettings()),
        ArcPlugin(ArcSettings()),
        DmarcPlugin(DmarcSettings()),
        AuthenticationResults(FieldSettings()),
    ]
    for each in made:
        each.tools = some_tools(each.name, dns=dns)
    return made


@pytest.mark.parametrize(("address", "result"), [("192.0.2.1", "pass"), ("198.51.100.66", "fail")])
async def test_spf_depends_on_the_client(address: str, result: str) -> None:
    plugin, transaction = plugins(names())[1], a_transaction(a_session(address))
    await plugin.on_inspect(transaction, FakeContent(MESSAGE))
    assert [each.result for each in transaction.results.of(Spf)] == [result]


@pytest.mark.parametrize(
    ("message", "result"),
    [
        (MESSAGE, "none"),
        (signed(), "pass"),
        (signed().replace(b"noon", b"one"), "fail"),
        (signed(domain="unknown.example"), "permerror"),
    ],
)
async def test_dkim_depends_on_the_message(message: bytes, result: str) -> None:
    plugin, transaction = plugins(names())[2], a_transaction()
    await plugin.on_inspect(transaction, FakeContent(message))
    assert [each.result for each in transaction.results.of(DkimSignature)] == [result]


@pytest.mark.parametrize(
    ("message", "result"),
    [
        (MESSAGE, "none"),
        (sealed(MESSAGE), "pass"),
        (sealed(MESSAGE).replace(b"noon", b"one"), "fail"),
        (sealed(MESSAGE).replace(b"arc=none", b"arc=pass"), "fail"),
        (sealed(MESSAGE, domain="unknown.example"), "fail"),
    ],
)
async def test_arc_does_not_always_pass(message: bytes, result: str) -> None:
    plugin, transaction = plugins(names())[3], a_transaction()
    await plugin.on_inspect(transaction, FakeContent(message))
    assert [each.result for each in transaction.results.of(Arc)] == [result]


@pytest.mark.parametrize(
    ("address", "message", "result"),
    [
        ("192.0.2.1", MESSAGE, "pass"),
        ("198.51.100.66", MESSAGE, "fail"),
        ("198.51.100.66", signed(), "pass"),
        ("198.51.100.66", MESSAGE.replace(b"ann@sender", b"ann@other"), "none"),
    ],
)
async def test_dmarc_depends_on_both(address: str, message: bytes, result: str) -> None:
    plugin, transaction = plugins(names())[4], a_transaction(a_session(address))
    await plugin.on_message(transaction, FakeContent(message))
    assert [each.result for each in transaction.results.of(Dmarc)] == [result]


async def test_all_of_them_judge_what_a_session_brings(nursery: trio.Nursery) -> None:
    dns = names()
    server = Server(*plugins(dns))
    nursery.start_soon(server.run)
    await server.play("S: 220 ...\nC: EHLO host.sender.example\nS: 250 ...")
    for message, answer in (
        (MESSAGE, "250 ..."),
        (signed().replace(b"sender.example>", b"bank.example>"), "250 ..."),
        (MESSAGE.replace(b"ann@sender.example", b"ann@x.sender.example"), "250 ..."),
    ):
        await server.play(
            "C: MAIL FROM:<ann@sender.example>\nC: RCPT TO:<alice@here.example>\nC: DATA\n"
            "S: 250 ...\nS: 250 ...\nS: 354 ..."
        )
        await server.client.send_all(
            b"Authentication-Results: mx.us.example; dmarc=pass\r\n" + message + b".\r\n"
        )
        await server.expect(answer)
    first, second, third = (each.content.partition(b"\r\n\r\n")[0] for each in server.queue.kept)
    assert first.count(b"Authentication-Results:") == 1
    assert b"dmarc=pass (p=reject)" in first
    assert b"iprev=pass (host.sender.example)" in first
    assert b"spf=pass smtp.mailfrom=sender.example" in first
    assert b"dkim=none" in first
    assert b"dkim=fail" in second
    assert b"dmarc=none" in second
    assert b"dmarc=pass" in third
    notes = {str(each.reason) for each in server.queue.kept[0].envelope.notes}
    assert "spf=pass smtp.mailfrom=sender.example" in notes
    assert "dmarc=pass (p=reject) header.from=sender.example" in notes


async def test_what_a_domain_does_not_want_is_refused_in_the_session(
    nursery: trio.Nursery,
) -> None:
    server = Server(*plugins(names()), client="203.0.113.9")
    nursery.start_soon(server.run)
    await server.play(
        "S: 220 ...\nC: EHLO evil.example\nS: 250 ...\n"
        "C: MAIL FROM:<x@evil.example>\nC: RCPT TO:<alice@here.example>\nC: DATA\n"
        "S: 250 ...\nS: 250 ...\nS: 354 ..."
    )
    await server.client.send_all(MESSAGE + b".\r\n")
    await server.expect(
        "550 5.7.1 the DMARC policy of sender.example does not let you send this message"
    )
    assert server.queue.kept == []
