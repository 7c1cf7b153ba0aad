from __future__ import annotations

from elemta.plugins import CONTINUE
from elemta.plugins.built_in.iprev import IprevPlugin, iprev_of
from elemta.testing import FakeContent, FakeDns, a_session, a_transaction, some_tools

CONTENT = FakeContent(b"Subject: x\r\n\r\n")


async def test_it_is_asked_once_a_client_and_each_of_its_messages_has_it() -> None:
    dns = FakeDns()
    dns.add("1.2.0.192.in-addr.arpa", "PTR", "host.example.")
    dns.add("host.example", "A", "192.0.2.1")
    plugin, session = IprevPlugin(), a_session()
    plugin.tools = some_tools("iprev", dns=dns)
    for _ in range(2):
        transaction = a_transaction(session)
        assert await plugin.on_inspect(transaction, CONTENT) is CONTINUE
        told = [("iprev", "iprev=pass (host.example) policy.iprev=192.0.2.1")]
        assert transaction.results.told() == told
    assert (await iprev_of(session, plugin.tools)).name == "host.example"
    assert len(dns.asked) == 2
    assert plugin.tools.meters.authentication == {("iprev", "pass"): 1}


async def test_our_own_people_are_not_looked_at() -> None:
    plugin, dns = IprevPlugin(), FakeDns()
    plugin.tools = some_tools("iprev", dns=dns)
    await plugin.on_inspect(a_transaction(a_session(trusted=True)), CONTENT)
    assert dns.asked == []
