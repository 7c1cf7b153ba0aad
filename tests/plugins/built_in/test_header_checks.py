from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elemta.config import ConfigError
from elemta.message import HeaderScanner
from elemta.plugins import (
    CONTINUE,
    AddHeader,
    Allowed,
    Continue,
    Defer,
    Discard,
    Quarantine,
    Reject,
    Tag,
    Verdict,
)
from elemta.plugins.built_in.decoding import decoded
from elemta.plugins.built_in.header_checks import HeaderChecks
from elemta.testing import FakeContent, a_session, a_transaction, some_tools
from tests.plugins.built_in.refused_once import ADDRESSES, MESSAGES

GOOD = "From: ann@sender.example\r\nDate: Sat, 28 Nov 2026 12:00:00 +0000\r\n"


def plugin(*rules: object, **settings: object) -> HeaderChecks:
    made = HeaderChecks.configured({"rules": list(rules), **settings}, "settings")
    made.tools = some_tools("header-checks")
    return made


def header(text: str) -> HeaderScanner:
    scanner = HeaderScanner()
    scanner.feed(text.encode() + b"\r\n")
    assert scanner.done
    return scanner


async def judged(made: HeaderChecks, text: str) -> Verdict:
    return await made.on_header(a_transaction(), header(text))


@pytest.mark.parametrize(
    ("rule", "fields", "holds"),
    [
        ({"header": "X-Spam"}, "x-spam: yes\r\n", True),
        ({"header": "X-Spam"}, "", False),
        ({"header": "X-Spam", "absent": True}, "", True),
        ({"header": "X-Spam", "absent": True}, "X-Spam : \r\n", False),
        ({"header": "subject", "matches": r"\bloan\b"}, "Subject: A LOAN\r\n", True),
        ({"header": "subject", "matches": r"\bloan\b", "case": True}, "Subject: LOAN\r\n", False),
        ({"header": "subject", "matches": "^a loan$"}, "Subject: a\r\n\tloan\r\n", False),
        ({"header": "subject", "matches": "^a.loan$"}, "Subject: a\r\n\tloan\r\n", True),
        ({"header": "subject", "matches": "loan", "absent": True}, "Subject: x\r\n", True),
        ({"header": "subject", "matches": "loan", "absent": True}, "Subject: loan\r\n", False),
        ({"header": "received", "matches": "evil"}, "Received: a\r\nReceived: evil\r\n", True),
        ({"header": "subject", "matches": "^café"}, "Subject: =?utf-8?q?caf=C3=A9?=\r\n", True),
        ({"header": "subject", "matches": "café"}, "Subject: café\r\n", True),
        (
            {"header": "subject", "matches": "=[?]utf", "raw": True},
            "Subject: =?utf-8?q?caf=C3=A9?=\r\n",
            True,
        ),
    ],
)
async def test_a_rule_holds_or_not(rule: dict[str, object], fields: str, holds: bool) -> None:
    verdict = await judged(plugin({**rule, "action": "reject", "text": "no"}), GOOD + fields)
    assert isinstance(verdict, Reject) is holds
    if isinstance(verdict, Reject):
        assert str(verdict.reply) == "550 5.6.0 no"


async def test_each_action_does_what_it_says() -> None:
    there = GOOD + "X-Bulk: yes\r\n"
    rule = {"header": "x-bulk", "tag": "bulk"}
    assert isinstance(await judged(plugin({**rule, "action": "defer"}), there), Defer)
    assert isinstance(await judged(plugin({**rule, "action": "discard"}), there), Discard)
    held = await judged(plugin({**rule, "action": "quarantine"}), there)
    assert isinstance(held, Quarantine)
    assert held.changes == (Tag("bulk"),)
    tagged = await judged(plugin({**rule, "action": "tag"}), there)
    assert isinstance(tagged, Continue)
    assert tagged.changes == (Tag("bulk"),)
    added = await judged(plugin({**rule, "add": {"X-Class": "bulk"}}), there)
    assert isinstance(added, Continue)
    assert added.changes == (AddHeader("X-Class", "bulk"),)


async def test_rules_are_looked_at_in_order_until_one_decides() -> None:
    made = plugin(
        {"header": "x-a", "add": {"X-Found": "a"}},
        {"header": "x-b", "action": "quarantine", "tag": "b"},
        {"header": "x-c", "action": "tag", "tag": "b"},
        {"header": "x-d", "action": "reject"},
        {"header": "x-e", "add": {"X-Found": "e"}},
    )
    verdict = await judged(made, GOOD + "X-A: 1\r\nX-B: 1\r\nX-C: 1\r\nX-E: 1\r\n")
    assert isinstance(verdict, Quarantine)
    changes = (AddHeader("X-Found", "a"), Tag("b"), AddHeader("X-Found", "e"))
    assert verdict.changes == changes
    assert verdict.reason == "x-b"
    assert isinstance(await judged(made, GOOD + "X-B: 1\r\nX-D: 1\r\n"), Reject)


async def test_two_from_fields_are_refused_and_other_twins_marked() -> None:
    twice = await judged(plugin(), GOOD + "from: other@sender.example\r\n")
    assert isinstance(twice, Reject)
    assert twice.text.endswith("2 From fields")
    for nearly in ("From\0: other@sender.example\r\n", "\ufeffFrom: other@sender.example\r\n"):
        assert isinstance(await judged(plugin(), GOOD + nearly), Reject)
    assert isinstance(await judged(plugin(), " X: y\r\n" + GOOD), Reject)
    for name in ("Date", "Subject", "Message-ID", "To"):
        verdict = await judged(plugin(), GOOD + f"{name}: a\r\n{name}: b\r\n")
        assert isinstance(verdict, Continue)
        assert verdict.changes == (Tag("malformed"),)
        assert name.lower() in verdict.note
    assert await judged(plugin(), GOOD + "Received: a\r\nReceived: b\r\n") is CONTINUE
    stern = plugin(missing="defer", several_from="none", repeated="none")
    assert isinstance(await judged(stern, "From: a@b.example\r\n"), Defer)
    assert await judged(stern, GOOD + "From: b\r\nSubject: a\r\nSubject: b\r\n") is CONTINUE


async def test_mail_of_our_own_is_not_looked_at() -> None:
    rule = {"header": "x-a", "action": "reject"}
    fields = header(GOOD + "X-A: 1\r\n")
    vouched = a_transaction()
    vouched.results.add(Allowed("me"))
    for transaction in (vouched, a_transaction(a_session(trusted=True))):
        assert await plugin(rule).on_header(transaction, fields) is CONTINUE
        everybody = plugin(rule, everybody=True)
        assert isinstance(await everybody.on_header(transaction, fields), Reject)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"plain =? text ?=", "plain =? text ?="),
        (b"=?utf-8?b?w6Q=?= =?utf-8?b?w7Y=?= x", "äö x"),
        (b"=?utf-8?b?w?= y", "=?utf-8?b?w?= y"),
        (b"=?no-such-charset?q?=E4?=", "ä"),
        (b"=?zlib?q?=E4?=", "ä"),
        (b"=?idna?q?" + b"a" * 900 + b"?=", None),
        (b"=?utf-8?q?=FF?=", "\N{REPLACEMENT CHARACTER}"),
        (b"\xff\xfe", "\N{REPLACEMENT CHARACTER}" * 2),
        (b"=?utf-8*de?q?a_b?=", "a b"),
    ],
)
def test_fields_are_searched_as_people_see_them(value: bytes, text: str | None) -> None:
    found = decoded(value)
    assert text is None or found == text


@given(st.lists(st.sampled_from(["=?", "?=", "?q?", "?b?", "utf-8", "w6Q", "=", "é", " "])))
def test_whatever_a_field_has_is_some_text(parts: list[str]) -> None:
    decoded("".join(parts).encode())


@given(st.binary(max_size=200))
async def test_no_header_breaks_it(octets: bytes) -> None:
    rules = [{"header": "a", "matches": "x*$", "action": "tag"}, {"header": "b", "action": "tag"}]
    scanner = HeaderScanner()
    scanner.feed(b"A: " + octets + b"\r\nb: =?" + octets + b"?=\r\n\r\n")
    await plugin(*rules).on_header(a_transaction(), scanner)


async def test_no_field_takes_long() -> None:
    rules = [
        {"header": "subject", "matches": each, "action": "reject"} for each in ("(a+)+$", ".*.*=x")
    ]
    made = plugin(*rules)
    began = time.process_time()
    evil = ("a" * 900 + "!", "=?" * 30_000, "=?utf-8?q?" + "?=" * 30_000, "=?a?b?" * 10_000)
    for value in evil:
        scanner = HeaderScanner()
        scanner.feed(f"{GOOD}Subject: {value}\r\n\r\n".encode())
        assert await made.on_header(a_transaction(), scanner) is CONTINUE
    assert time.process_time() - began < 5


@pytest.mark.parametrize("message", MESSAGES)
async def test_nothing_that_is_right_is_refused_by_default(message: str) -> None:
    content = FakeContent(message.replace("\n", "\r\n").encode())
    for address in ADDRESSES:
        transaction = a_transaction(sender=address, recipients=[address])
        assert await plugin().on_header(transaction, content.header) is CONTINUE


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ({"header": "Sub ject", "action": "tag"}, "name of a header field"),
        ({"header": "x", "matches": "(", "action": "tag"}, "missing ): ("),
        ({"header": "x", "matches": r"(a)\1", "action": "tag"}, r"invalid escape sequence: \1"),
        ({"header": "x"}, "nothing follows"),
        ({"header": "x", "action": "bounce"}, "expected"),
        ({"header": "x", "action": "reject", "text": "a\nb"}, "cannot stand in a reply"),
        ({"header": "x", "action": "tag", "tag": "a b"}, "must be a word"),
        ({"header": "x", "add": {"X-A": "a\r\nb"}}, "a line end"),
        ({"header": "x", "add": {"X A": "a"}}, "no name of a field"),
    ],
)
def test_a_mistake_is_told_with_its_place(rule: object, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        HeaderChecks.configured({"rules": [rule]}, "plugins[0].settings")
    assert problem in str(caught.value)
    assert "plugins[0].settings.rules[0]" in str(caught.value)


@pytest.mark.parametrize("settings", [{"octets": 0}, {"fields": 2000}, {"tag": ""}])
def test_limits_have_limits(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        HeaderChecks.configured(settings, "plugins[0].settings")
