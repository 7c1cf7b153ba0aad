from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from typing_extensions import override

from elemta.config import ConfigError
from elemta.plugins import CONTINUE, Allowed, Continue, Defer, Quarantine, Reject, Tag
from elemta.plugins.built_in.helo_checks import HeloChecks
from elemta.testing import FakeDns, a_session, a_transaction, mailbox, some_tools
from tests.plugins.built_in.refused_once import ADDRESSES

if TYPE_CHECKING:
    from trio.testing import MockClock

    from elemta.net.dns import Absent, Failed, Found, Kind

BOB = mailbox("bob@us.example")


def plugin(dns: FakeDns | None = None, **settings: object) -> HeloChecks:
    made = HeloChecks.configured(dict(settings), "settings")
    made.tools = some_tools("helo-checks", dns=dns)
    return made


async def outcome(made: HeloChecks, helo: str, address: str = "192.0.2.1") -> str:
    """What becomes of a message whose client calls itself so."""
    transaction = a_transaction(a_session(address, helo=helo))
    match await made.on_rcpt(transaction, BOB):
        case Reject():
            return "reject"
        case Defer():
            return "defer"
        case _:
            pass
    match await made.on_data(transaction):
        case Quarantine():
            return "quarantine"
        case Continue(changes=(Tag("helo"),)):
            return "tag"
        case verdict:
            assert verdict is CONTINUE
            return "none"


@pytest.mark.parametrize(
    ("helo", "want"),
    [
        ("client.example", "none"),
        ("a.very.odd_name.example", "none"),
        ("xn--p1ai", "tag"),
        ("mx.us.example", "reject"),
        ("MX.us.example", "reject"),
        ("us.example", "reject"),
        ("mail.us.example", "none"),
        ("alias.example", "reject"),
        ("localhost", "tag"),
        ("192.0.2.1", "tag"),
        ("198.51.100.5", "reject"),
        ("[192.0.2.1]", "none"),
        ("[192.0.2.2]", "tag"),
        ("[198.51.100.5]", "reject"),
        ("[ipv6:2001:db8::1]", "tag"),
        ("[what:is:this]", "tag"),
    ],
)
async def test_only_what_is_forged_is_refused_by_default(helo: str, want: str) -> None:
    made = plugin(names=["alias.example"], addresses=["198.51.100.5/32"])
    assert await outcome(made, helo) == want


@pytest.mark.parametrize("address", ADDRESSES)
async def test_nobody_is_refused_for_his_address(address: str) -> None:
    transaction = a_transaction(sender=address)
    assert await plugin().on_rcpt(transaction, mailbox(address)) is CONTINUE
    assert await plugin().on_data(transaction) is CONTINUE


async def test_an_address_of_ipv6_is_the_same_however_it_is_written() -> None:
    made = plugin()
    assert await outcome(made, "[IPv6:2001:DB8:0::1]", "2001:db8::1") == "none"
    assert await outcome(made, "[192.0.2.1]", "::ffff:192.0.2.1") == "none"


@pytest.mark.parametrize("action", ["reject", "defer", "quarantine", "tag", "none"])
@pytest.mark.parametrize(
    ("check", "helo"),
    [
        ("own_name", "mx.us.example"),
        ("own_domain", "us.example"),
        ("bare_address", "192.0.2.1"),
        ("other_address", "[192.0.2.9]"),
        ("short_name", "localhost"),
        ("unresolved", "nobody.example"),
    ],
)
async def test_each_check_has_an_action(check: str, helo: str, action: str) -> None:
    assert await outcome(plugin(None, **{check: action}), helo) == action


async def test_our_own_may_call_themselves_as_they_like() -> None:
    made = plugin()
    vouched = a_session(helo="mx.us.example")
    vouched.results.add(Allowed("me"))
    for session in (vouched, a_session(helo="mx.us.example", trusted=True)):
        assert await made.on_rcpt(a_transaction(session), BOB) is CONTINUE
        assert await made.on_data(a_transaction(session)) is CONTINUE
    made = plugin(addresses=["198.51.100.5"])
    for address in ("", "127.0.0.1", "::1", "::ffff:127.0.0.1", "198.51.100.5"):
        here = a_session(address, helo="mx.us.example")
        assert await made.on_rcpt(a_transaction(here), BOB) is CONTINUE, address


async def test_a_name_may_be_looked_up() -> None:
    dns = FakeDns({("four.example", "A"): ["192.0.2.1"], ("six.example", "AAAA"): ["2001:db8::1"]})
    dns.add("mail.example", "MX", "10 mx.example.")
    dns.add("text.example", "TXT", '"nothing else"')
    dns.failing.add("broken.example")
    made = plugin(dns, unresolved="reject")
    for helo in ("four.example", "six.example", "mail.example", "broken.example"):
        assert await outcome(made, helo) == "none", helo
    assert made.tools.counts["unknown"] == 1
    for helo in ("text.example", "nowhere.example"):
        assert await outcome(made, helo) == "reject", helo


async def test_who_says_ehlo_often_does_not_make_us_ask_often() -> None:
    dns = FakeDns()
    made = plugin(dns, unresolved="reject")
    session = a_session()
    for number in range(20):
        session.helo = f"n{number}.example"
        for _ in range(3):
            await made.on_rcpt(a_transaction(session), BOB)
    assert len(dns.asked) == 5


class Silent(FakeDns):
    @override
    async def ask(self, name: str, kind: Kind) -> Found | Absent | Failed:
        await trio.sleep_forever()
        raise AssertionError


async def test_a_silent_name_server_does_not_hold_mail_up(autojump_clock: MockClock) -> None:
    made = plugin(Silent(), unresolved="reject", timeout="3 s")
    began = trio.current_time()
    assert await outcome(made, "client.example") == "none"
    assert trio.current_time() - began == pytest.approx(3)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"own_name": "refuse"}, "expected"),
        ({"names": ["two words"]}, "expected a domain"),
        ({"text": ""}, "text of ASCII"),
        ({"tag": ""}, "must be a word"),
        ({"timeout": "0 s"}, "more than 0 s"),
        ({"timeout": "1 min"}, "at most 10 s"),
        ({"addresses": ["192.0.2.1/8"]}, "bits set behind"),
    ],
)
def test_a_mistake_is_told_with_its_place(settings: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        HeloChecks.configured(settings, "plugins[0].settings")
    assert problem in str(caught.value)
    assert "plugins[0].settings" in str(caught.value)
