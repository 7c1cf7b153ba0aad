"""The plugins of mail authentication together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from typing_extensions import override

from elemta.plugins import Chain, Continue, Loaded
from elemta.testing import FakeContent, FakeDns, a_transaction
from tests.mailauth.signing import MESSAGE, publish, rsa_key, sealed, signed
from tests.plugins.built_in.test_original_22 import names, plugins

if TYPE_CHECKING:
    from trio.testing import MockClock

    from elemta.net.dns import Absent, Failed, Found, Kind


class Slow(FakeDns):
    """Each answer takes three seconds."""

    @override
    async def ask(self, name: str, kind: Kind) -> Found | Absent | Failed:
        await trio.sleep(3)
        return await super().ask(name, kind)


async def test_they_ask_side_by_side_and_nothing_twice(autojump_clock: MockClock) -> None:
    dns = Slow()
    dns.text("sender.example", "v=spf1 ip4:192.0.2.1 -all")
    dns.text("_dmarc.sender.example", "v=DMARC1; p=reject")
    dns.add("1.2.0.192.in-addr.arpa", "PTR", "host.sender.example.")
    publish(dns, rsa_key()[1])
    publish(dns, rsa_key()[1], "list.example")
    publish(dns, rsa_key()[1], "second.example")
    message = sealed(sealed(signed()), domain="second.example", results="arc=pass")
    transaction = a_transaction()

    chain = Chain([Loaded(each) for each in plugins(dns)])
    began = trio.current_time()
    verdict = await chain.on_message(transaction, FakeContent(message))
    # Three for the record, the keys and the name, three for the name's address; then three for the
    # policy.
    assert trio.current_time() - began == pytest.approx(9)
    assert isinstance(verdict, Continue)
    results = sorted(told.partition(" ")[0] for _, told in transaction.results.told())
    assert results == ["arc=pass", "dkim=pass", "dmarc=pass", "iprev=fail", "spf=pass"]
    assert len(dns.asked) == len(set(dns.asked)) == 7


async def test_a_name_server_that_fails_makes_nothing_pass_and_nothing_fail() -> None:
    dns = names()
    dns.failing = {
        *("sender.example", "_dmarc.sender.example", "1.2.0.192.in-addr.arpa"),
        *("s1._domainkey.sender.example", "s1._domainkey.list.example"),
    }
    transaction = a_transaction()
    chain = Chain([Loaded(each) for each in plugins(dns)])
    verdict = await chain.on_message(transaction, FakeContent(sealed(signed(MESSAGE))))
    assert verdict.reply is not None
    assert bytes(verdict.reply).startswith(b"451 4.4.3 ")
    results = sorted(told.partition(" ")[0] for _, told in transaction.results.told())
    methods = ("arc", "dkim", "dmarc", "iprev", "spf")
    assert results == [f"{method}=temperror" for method in methods]
