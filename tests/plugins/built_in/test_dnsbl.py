from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from typing_extensions import override

from elemta.config import ConfigError
from elemta.plugins import CONTINUE, Allowed, Continue, Defer, Quarantine, Reject, Tag
from elemta.plugins.built_in.answers import Answers
from elemta.plugins.built_in.dnsbl import Dnsbl, Listed
from elemta.testing import FakeClock, FakeDns, a_session, a_transaction, mailbox, some_tools

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trio.testing import MockClock

    from elemta.net.dns import Absent, Failed, Found, Kind
    from elemta.plugins import Verdict

BOB = mailbox("bob@us.example")
BLACK = {"zone": "black.example"}
WHITE = {"zone": "white.example", "weight": -2, "answers": {"127.0.*.1-3": -3}}
#: 192.0.2.1, the client of `a_session`.
LISTED = "1.2.0.192.black.example"


def plugin(dns: FakeDns, *zones: Mapping[str, object], **settings: object) -> Dnsbl:
    made = Dnsbl.configured({"zones": [dict(each) for each in zones], **settings}, "settings")
    made.tools = some_tools("dnsbl", dns=dns)
    return made


async def at_rcpt(made: Dnsbl, address: str = "192.0.2.1") -> Verdict:
    return await made.on_rcpt(a_transaction(a_session(address)), BOB)


async def test_who_is_listed_is_refused_when_it_names_a_recipient() -> None:
    dns = FakeDns({(LISTED, "A"): ["127.0.0.2"]})
    dns.text(LISTED, "seen sending\r\nspam")
    text = "blocked, see https://black.example/{address}"
    made = plugin(dns, {**BLACK, "text": text})
    session = a_session()
    assert await made.on_connect(session) is CONTINUE
    first = await made.on_rcpt(a_transaction(session), BOB)
    assert isinstance(first, Reject)
    assert str(first.reply) == "550 5.7.1 blocked, see https://black.example/192.0.2.1"
    assert "127.0.0.2 (seen sending" in first.note
    assert first.note.isprintable()
    assert await made.on_rcpt(a_transaction(session), BOB) == first
    assert dns.asked == [(LISTED, "A"), (LISTED, "TXT")], "once a session"
    found = session.results.first(Listed)
    assert found is not None
    assert (found.score, [each.zone for each in found.zones]) == (1, ["black.example"])
    assert str(found).startswith("score 1; 192.0.2.1 in black.example: 127.0.0.2")


async def test_the_postmaster_can_be_reached() -> None:
    made = plugin(FakeDns({(LISTED, "A"): ["127.0.0.2"]}), BLACK)
    assert await made.on_rcpt(a_transaction(), mailbox("Postmaster@us.example")) is CONTINUE
    held = plugin(FakeDns({(LISTED, "A"): ["127.0.0.2"]}), BLACK, reject_at=None, quarantine_at=1)
    assert await held.on_data(a_transaction(recipients=["postmaster@us.example"])) is CONTINUE
    assert isinstance(await held.on_data(a_transaction()), Quarantine)


async def test_clients_can_be_refused_at_once() -> None:
    made = plugin(FakeDns({(LISTED, "A"): ["127.0.0.2"]}), BLACK, when="connect")
    assert isinstance(await made.on_connect(a_session()), Reject)
    assert await made.on_connect(a_session("192.0.2.9")) is CONTINUE
    assert await made.on_connect(a_session(trusted=True)) is CONTINUE


async def test_ipv6_is_asked_by_nibbles() -> None:
    nibbles = "1." + "0." * 23 + "8.b.d.0.1.0.0.2"
    dns = FakeDns({(f"{nibbles}.black.example", "A"): ["127.0.0.2"]})
    assert isinstance(await at_rcpt(plugin(dns, BLACK), "2001:db8::1"), Reject)
    mapped = FakeDns({(LISTED, "A"): ["127.0.0.2"]})
    assert isinstance(await at_rcpt(plugin(mapped, BLACK), "::ffff:192.0.2.1"), Reject)


@pytest.mark.parametrize(
    "address",
    ["", "127.0.0.1", "::1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "fe80::1"],
)
async def test_nobody_is_asked_of_addresses_of_our_own(address: str) -> None:
    dns = FakeDns()
    assert await at_rcpt(plugin(dns, BLACK), address) is CONTINUE
    assert dns.asked == []


async def test_nobody_is_asked_of_those_who_are_exempt() -> None:
    dns = FakeDns({(LISTED, "A"): ["127.0.0.2"]})
    made = plugin(dns, BLACK)
    session = a_session()
    session.results.add(Allowed("me"))
    for each in (session, a_session(trusted=True)):
        assert await made.on_rcpt(a_transaction(each), BOB) is CONTINUE
        assert await made.on_data(a_transaction(each)) is CONTINUE
    transaction = a_transaction()
    transaction.results.add(Allowed("me"))
    assert await made.on_rcpt(transaction, BOB) is CONTINUE
    assert dns.asked == []


async def test_weights_add_up() -> None:
    zones = [{"zone": f"{name}.example", "weight": 1.5} for name in "abc"]
    dns = FakeDns({(f"1.2.0.192.{name}.example", "A"): ["127.0.0.2"] for name in "ab"})
    levels: dict[str, object] = {"defer_at": 3, "quarantine_at": 2, "tag_at": 1}
    verdict = await at_rcpt(plugin(dns, *zones, reject_at=4, **levels))
    assert isinstance(verdict, Defer)
    assert verdict.note.startswith("score 3: ")
    levels["defer_at"] = None
    made = plugin(dns, *zones, reject_at=4, **levels)
    assert await at_rcpt(made) is CONTINUE
    held = await made.on_data(a_transaction())
    assert isinstance(held, Quarantine)
    assert held.changes == (Tag("dnsbl"),)
    levels["quarantine_at"] = None
    tagged = await plugin(dns, *zones, reject_at=4, **levels).on_data(a_transaction())
    assert isinstance(tagged, Continue)
    assert tagged.changes == (Tag("dnsbl"),)


async def test_a_white_list_makes_a_client_allowed() -> None:
    dns = FakeDns({(LISTED, "A"): ["127.0.0.2"], ("1.2.0.192.white.example", "A"): ["127.0.5.2"]})
    made = plugin(dns, BLACK, WHITE)
    session = a_session()
    assert await made.on_rcpt(a_transaction(session), BOB) is CONTINUE
    assert session.exempt
    listed = session.results.first(Listed)
    assert listed is not None
    assert listed.score == -2
    dns.add("7.2.0.192.white.example", "A", "127.0.5.0")  # on the list, but not trusted
    other = a_session("192.0.2.7")
    assert await made.on_rcpt(a_transaction(other), BOB) is CONTINUE
    assert not other.exempt


@pytest.mark.parametrize("answer", ["127.255.255.254", "127.0.0.1", "198.51.100.1", "0.0.0.0"])
async def test_an_error_of_a_list_is_no_listing(
    answer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    made = plugin(FakeDns({(LISTED, "A"): [answer]}), BLACK)
    clock = FakeClock()
    made.tools.clock = clock
    for _ in range(3):
        assert await at_rcpt(made) is CONTINUE
    assert made.tools.counts == {"unknown": 6}
    assert answer in capsys.readouterr().err


async def test_a_list_that_fails_has_nobody_on_it() -> None:
    dns = FakeDns({(LISTED, "A"): ["127.0.0.2"]})
    dns.failing.add("1.2.0.192.broken.example")
    made = plugin(dns, {"zone": "broken.example", "weight": 5}, BLACK, reject_at=2)
    session = a_session()
    assert await made.on_rcpt(a_transaction(session), BOB) is CONTINUE
    found = session.results.first(Listed)
    assert found is not None
    assert found.unknown == ("broken.example",)
    assert "no answer of broken.example" in str(found)
    assert made.tools.counts["unknown"] >= 1


class Slow(FakeDns):
    """Answers each question after a while, and for one zone never."""

    @override
    async def ask(self, name: str, kind: Kind) -> Found | Absent | Failed:
        if "never" in name:
            await trio.sleep_forever()
        await trio.sleep(3)
        return await super().ask(name, kind)


async def test_all_lists_together_have_a_time_limit(autojump_clock: MockClock) -> None:
    zones = [{"zone": f"{name}.example"} for name in ("a", "b", "never")]
    dns = Slow({(f"1.2.0.192.{name}.example", "A"): ["127.0.0.2"] for name in "ab"})
    made = plugin(dns, *zones, reject_at=2, timeout="5 s")
    began = trio.current_time()
    session = a_session()
    verdict = await made.on_rcpt(a_transaction(session), BOB)
    assert trio.current_time() - began == pytest.approx(5)
    assert isinstance(verdict, Reject), "who has answered counts, though its text came too late"
    found = session.results.first(Listed)
    assert found is not None
    assert found.unknown == ("never.example",)


async def test_domains_that_a_client_names_are_looked_up() -> None:
    dns = FakeDns({("sender.example.names.example", "A"): ["127.0.0.4"]})
    zone = {
        "zone": "names.example",
        "of": ["sender", "helo"],
        "answers": {"&4": 1},
        "text": "{name} is listed",
    }
    made = plugin(dns, zone)
    verdict = await made.on_rcpt(a_transaction(), BOB)
    assert isinstance(verdict, Reject)
    assert verdict.text == "sender.example is listed"
    dns.asked.clear()
    for helo in ("[192.0.2.1]", "192.0.2.1", "localhost"):
        for sender in ("", "ann@[192.0.2.7]", "ann@us.example"):
            transaction = a_transaction(a_session(helo=helo), sender=sender)
            assert await made.on_rcpt(transaction, BOB) is CONTINUE
            assert await made.on_rcpt(transaction, BOB) is CONTINUE
    assert dns.asked == []
    same = a_transaction(a_session(helo="xn--bcher-kva.example"), sender="x@bücher.example")
    assert await made.on_rcpt(same, BOB) is CONTINUE
    assert dns.asked == [("xn--bcher-kva.example.names.example", "A")]


async def test_a_name_may_be_as_long_as_names_are() -> None:
    name = ".".join(["a" * 45] * 5)
    dns = FakeDns({(f"{name}.names.example", "A"): ["127.0.0.2"]})
    text = "{name} is blocked, see https://check.names.example/query/domain/{name}"
    made = plugin(dns, {"zone": "names.example", "of": ["helo"], "text": text})
    verdict = await made.on_rcpt(a_transaction(a_session(helo=name)), BOB)
    assert isinstance(verdict, Reject)
    assert verdict.text.startswith(f"{name} is blocked, see https://check.names.example/")
    assert len(bytes(verdict.reply)) <= 512


@pytest.mark.parametrize(
    ("patterns", "answers", "weight", "odd"),
    [
        ({}, ["127.0.0.2"], 7, []),
        ({}, ["127.0.0.1"], None, ["127.0.0.1"]),
        ({}, ["nonsense"], None, ["nonsense"]),
        ({"127.0.0.1": 1}, ["127.0.0.1"], 1, []),
        ({"127.0.0.2": 1, "127.0.0.3-11": 5}, ["127.0.0.2", "127.0.0.11"], 5, []),
        ({"127.0.0.2": 1}, ["127.0.0.3"], None, []),
        ({"127.0.0.0/28": 2}, ["127.0.0.15"], 2, []),
        ({"127.0.0.0/28": 2}, ["127.0.0.16"], None, []),
        ({"127.0.*.1-3": -3, "127.0.*.0": -1}, ["127.0.9.0"], -1, []),
        ({"&4": 1, "&8": 3}, ["127.0.0.12"], 3, []),
        ({"&4": 1}, ["198.51.100.4"], None, ["198.51.100.4"]),
        ({"127.*.*.*": 1}, ["127.255.255.254"], None, ["127.255.255.254"]),
    ],
)
def test_answers_mean_what_the_settings_say(
    patterns: dict[str, float], answers: list[str], weight: float | None, odd: list[str]
) -> None:
    assert Answers(patterns, 7).judge(answers) == (weight, odd)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"zones": []}, "at least one list"),
        ({"zones": [{"zone": "no domain"}]}, "no domain"),
        ({"zones": [{"zone": "[192.0.2.1]"}]}, "must be a domain"),
        ({"zones": [{**BLACK, "answers": {"127.0.0": 1}}]}, "expected an answer such as"),
        ({"zones": [{**BLACK, "answers": {"127.0.0.9-3": 1}}]}, "expected an answer such as"),
        ({"zones": [{**BLACK, "answers": {"&0": 1}}]}, "expected an answer such as"),
        ({"zones": [{**BLACK, "answers": {"127.0.0.1/8": 1}}]}, "expected an answer such as"),
        ({"zones": [{**BLACK, "text": "see {adress}"}]}, "between braces"),
        ({"zones": [{**BLACK, "text": "a\r\nb"}]}, "cannot stand in a reply"),
        ({"zones": [{**BLACK, "text": "x" * 201}]}, "at most 200"),
        ({"zones": [{**BLACK, "of": []}]}, "what is looked up"),
        ({"zones": [{**WHITE, "of": ["helo"]}]}, "can vouch for an"),
        ({"zones": [BLACK], "reject_at": 0}, "must be above 0"),
        ({"zones": [BLACK], "allow_at": 0}, "must be below 0"),
        ({"zones": [BLACK], "timeout": "0 s"}, "more than 0 s"),
        ({"zones": [BLACK], "timeout": "11 s"}, "at most 10 s"),
        ({"zones": [BLACK], "tag": "two words"}, "must be a word"),
    ],
)
def test_a_mistake_is_told_with_its_place(settings: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Dnsbl.configured(settings, "plugins[0].settings")
    assert problem in str(caught.value)
    assert "plugins[0].settings" in str(caught.value)
