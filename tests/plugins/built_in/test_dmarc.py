from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from typing_extensions import override

from elemta.config import ConfigError
from elemta.mailauth import Dmarc
from elemta.plugins import CONTINUE, Continue, Defer, Quarantine, Reject, Verdict
from elemta.plugins.built_in.dmarc import DmarcPlugin, Settings
from elemta.testing import FakeContent, FakeDns, a_session, a_transaction, some_tools
from tests.mailauth.signing import MESSAGE, publish, rsa_key, sealed, signed

if TYPE_CHECKING:
    from trio.testing import MockClock

    from elemta.net.dns import Absent, Failed, Found, Kind

FORGED = FakeContent(MESSAGE)


def names(policy: str = "p=reject") -> FakeDns:
    dns = FakeDns()
    if policy:
        dns.text("_dmarc.sender.example", f"v=DMARC1; {policy}")
    publish(dns, rsa_key()[1])
    publish(dns, rsa_key()[1], "list.example")
    return dns


async def judge(
    content: FakeContent,
    dns: FakeDns | None = None,
    *,
    settings: Settings | None = None,
    random: float = 0.5,
) -> tuple[Dmarc, Verdict]:
    plugin = DmarcPlugin(settings or Settings())
    plugin.tools = some_tools("dmarc", dns=dns or names(), random=random)
    await plugin.start()
    transaction = a_transaction(sender="bounces@elsewhere.example")
    verdict = await plugin.on_message(transaction, content)
    found = transaction.results.first(Dmarc)
    assert found is not None
    assert plugin.tools.meters.authentication["dmarc", found.result] == 1
    return found, verdict


@pytest.mark.parametrize(
    ("policy", "random", "expected"),
    [
        ("p=reject", 0.5, Reject),
        ("p=quarantine", 0.5, Quarantine),
        ("p=none", 0.5, Continue),
        ("p=reject; pct=50", 0.49, Reject),
        ("p=reject; pct=50", 0.5, Quarantine),
        ("p=quarantine; pct=50", 0.5, Continue),
        ("p=none; pct=50", 0.5, Continue),
        ("", 0.5, Continue),
    ],
)
async def test_what_the_domain_wants_is_done(
    policy: str, random: float, expected: type[Verdict]
) -> None:
    _, verdict = await judge(FORGED, names(policy), random=random)
    assert isinstance(verdict, expected)


async def test_what_it_says_and_to_whom() -> None:
    found, verdict = await judge(FORGED)
    text = "dmarc=fail (p=reject dis=reject) header.from=sender.example"
    assert str(found) == text
    assert verdict == Reject(
        (7, 1), "the DMARC policy of sender.example does not let you send this message", note=text
    )
    found, verdict = await judge(FORGED, names("p=quarantine"))
    assert verdict == Quarantine(
        "the DMARC policy of sender.example",
        note="dmarc=fail (p=quarantine dis=quarantine) header.from=sender.example",
    )


async def test_what_was_signed_is_taken_though_no_other_plugin_looked() -> None:
    found, verdict = await judge(FakeContent(signed()))
    assert (found.result, verdict) == ("pass", CONTINUE)


async def test_a_switch_lets_it_only_report() -> None:
    settings = Settings(report_only=True)
    found, verdict = await judge(FORGED, settings=settings)
    assert isinstance(verdict, Continue)
    assert str(found) == ("dmarc=fail (p=reject dis=none report only) header.from=sender.example")
    dns = names("")
    dns.failing.add("_dmarc.sender.example")
    found, verdict = await judge(FORGED, dns, settings=settings)
    assert verdict is CONTINUE
    _, verdict = await judge(FakeContent(b"Subject: x\r\n\r\n"), settings=settings)
    assert verdict is CONTINUE


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"sender.example": "none"}, Continue),
        ({"Sender.Example.": "quarantine"}, Quarantine),
        ({"example": "none"}, Continue),
        ({"example": "none", "sender.example": "reject"}, Reject),
        ({"other.example": "none"}, Reject),
    ],
)
async def test_operators_have_the_last_word(
    overrides: dict[str, str], expected: type[Verdict]
) -> None:
    settings = DmarcPlugin.configured({"overrides": overrides}, "here").settings
    _, verdict = await judge(FORGED, settings=settings)
    assert isinstance(verdict, expected)


async def test_an_override_that_is_none_is_a_mistake_of_the_file() -> None:
    with pytest.raises(ConfigError, match=r"here\.overrides"):
        DmarcPlugin.configured({"overrides": {"a.example": "destroy"}}, "here")


@pytest.mark.parametrize("name", ["a..example", "*.a.example", "@a.example", "a b.example", ""])
async def test_what_is_no_domain_is_a_mistake_of_the_file(name: str) -> None:
    for settings in ({"overrides": {name: "none"}}, {"trusted_arc_sealers": [name]}):
        with pytest.raises(ConfigError, match="expected a domain"):
            DmarcPlugin.configured(settings, "here")


async def test_a_domain_is_written_as_people_write_it() -> None:
    forged = FakeContent(b"From: ann@xn--mnchen-3ya.example\r\n\r\n")
    settings = DmarcPlugin.configured({"overrides": {"München.example": "reject"}}, "here").settings
    _, verdict = await judge(forged, settings=settings)
    assert isinstance(verdict, Reject)


async def test_whoever_is_trusted_may_say_that_it_passed_with_him() -> None:
    stated = "dmarc=pass header.from=sender.example"
    passed_on = FakeContent(sealed(MESSAGE.replace(b"noon", b"one"), results=stated))
    _, verdict = await judge(passed_on)
    assert isinstance(verdict, Reject)
    settings = Settings(trusted_arc_sealers=("List.example",))
    found, verdict = await judge(passed_on, settings=settings)
    assert isinstance(verdict, Continue)
    assert str(found) == (
        "dmarc=fail (p=reject dis=none it passed at list.example) header.from=sender.example"
    )
    _, verdict = await judge(FakeContent(sealed(MESSAGE)), settings=settings)
    assert isinstance(verdict, Reject)


async def test_what_cannot_be_said_now_is_put_off() -> None:
    dns = names("")
    dns.failing.add("_dmarc.sender.example")
    found, verdict = await judge(FORGED, dns)
    assert found.result == "temperror"
    assert isinstance(verdict, Defer)
    found, verdict = await judge(FORGED, dns, settings=Settings(temperror="continue"))
    assert (found.result, verdict) == ("temperror", CONTINUE)


@pytest.mark.parametrize(("policy", "expected"), [("p=reject", Defer), ("p=none", Continue)])
async def test_a_key_that_cannot_be_said_now_only_matters_if_it_would(
    policy: str, expected: type[Verdict]
) -> None:
    dns = FakeDns()
    dns.text("_dmarc.sender.example", f"v=DMARC1; {policy}")
    dns.failing.add("s1._domainkey.sender.example")
    found, verdict = await judge(FakeContent(signed()), dns)
    assert found.result == "temperror"
    assert isinstance(verdict, expected)


async def test_silent_name_servers_cost_less_than_a_plugin_may_take(
    autojump_clock: MockClock,
) -> None:
    class Silent(FakeDns):
        @override
        async def ask(self, name: str, kind: Kind) -> Found | Absent | Failed:
            await trio.sleep(15)
            return await super().ask(name, kind)

    found, verdict = await judge(FakeContent(signed()), Silent())
    assert (found.result, found.wish) == ("temperror", "unknown")
    assert isinstance(verdict, Defer)
    assert trio.current_time() < 30


@pytest.mark.parametrize(
    "header",
    [
        b"Subject: x\r\n",
        b"From: nobody\r\n",
        b"From: <ann@sender.example\r\n",
        b"From: ann@good.example\r\nFrom: ann@sender.example\r\n",
        # What some programs take for a From field, or for another address than others do.
        b"\0From: ann@sender.example\r\nFrom: ann@good.example\r\n",
        b"From: ann@good.example\r\nFrom\0: ann@sender.example\r\n",
        b" From: ann@sender.example\r\nFrom: ann@good.example\r\n",
        b"From: ann@sender.example\0 <ann@good.example>\r\n",
    ],
)
async def test_mail_that_is_of_nobody_in_particular_is_refused(header: bytes) -> None:
    content = FakeContent(header + b"\r\nx\r\n")
    found, verdict = await judge(content)
    assert found.result == "permerror"
    assert isinstance(verdict, Reject)
    _, verdict = await judge(content, settings=Settings(malformed="quarantine"))
    assert isinstance(verdict, Quarantine)
    _, verdict = await judge(content, settings=Settings(malformed="continue"))
    assert verdict is CONTINUE


async def test_of_several_authors_none_may_be_forged() -> None:
    content = FakeContent(b"From: eve@fine.example, ann@sender.example\r\n\r\nx\r\n")
    found, verdict = await judge(content)
    assert found.domain == "sender.example"
    assert isinstance(verdict, Reject)


async def test_our_own_people_are_not_looked_at() -> None:
    plugin = DmarcPlugin(Settings())
    plugin.tools = some_tools("dmarc", dns=names())
    transaction = a_transaction(a_session(trusted=True))
    assert await plugin.on_message(transaction, FORGED) is CONTINUE
    assert transaction.results.told() == []
