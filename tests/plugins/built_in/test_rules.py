from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from elemta.config import ConfigError
from elemta.plugins import (
    CONTINUE,
    AddHeader,
    Continue,
    Prioritise,
    RemoveHeader,
    Tag,
)
from elemta.plugins.built_in.rules import Rules
from elemta.queue import Priority
from elemta.testing import a_session, a_transaction, some_tools
from tests.dialogue import Server

if TYPE_CHECKING:
    import trio
    from trio.testing import MockClock

    from elemta.plugins import Change, Transaction


def plugin(*rules: object) -> Rules:
    made = Rules.configured({"rules": list(rules)}, "settings")
    made.tools = some_tools("rules")
    return made


async def changes(made: Rules, transaction: Transaction) -> tuple[Change, ...]:
    verdict = await made.on_data(transaction)
    assert isinstance(verdict, Continue)
    return verdict.changes


@pytest.mark.parametrize(
    ("match", "holds"),
    [
        ({}, True),
        ({"listeners": ["mx", "api"]}, True),
        ({"listeners": ["submission"]}, False),
        ({"networks": ["192.0.2.0/24"]}, True),
        ({"networks": ["198.51.100.0/24", "2001:db8::/32"]}, False),
        ({"senders": ["ann@sender.example"]}, True),
        ({"senders": ["*.example"]}, True),
        ({"senders": ["<>", "other.example"]}, False),
        ({"recipients": ["bob@us.example"]}, True),
        ({"recipients": ["carol@us.example"]}, True),
        ({"recipients": ["dave@us.example"]}, False),
        ({"trusted": True}, False),
        ({"trusted": False}, True),
        ({"senders": ["sender.example"], "recipients": ["other.example"]}, False),
    ],
)
async def test_a_rule_is_for_what_it_matches(match: object, holds: bool) -> None:
    transaction = a_transaction(recipients=["bob@us.example", "carol@us.example"])
    found = await changes(plugin({"match": match, "tags": ["seen"]}), transaction)
    assert bool(found) is holds


async def test_a_socket_is_in_no_network() -> None:
    made = plugin({"match": {"networks": ["0.0.0.0/0", "::/0"]}, "tags": ["seen"]})
    assert await made.on_data(a_transaction(a_session(""))) is CONTINUE
    assert await made.on_data(a_transaction(a_session("::ffff:192.0.2.1"))) != CONTINUE


async def test_a_rule_does_all_that_it_says() -> None:
    rule = {
        "remove": ["X-Old"],
        "add": {"X-New": "ä value"},
        "tags": ["a", "b"],
        "priority": "high",
    }
    assert await changes(plugin(rule), a_transaction()) == (
        RemoveHeader("X-Old"),
        AddHeader("X-New", "ä value"),
        Tag("a"),
        Tag("b"),
        Prioritise(Priority.HIGH),
    )


async def test_all_rules_that_match_are_followed_up_to_the_last() -> None:
    made = plugin(
        {"tags": ["a"]},
        {"match": {"senders": ["vip.example"]}, "tags": ["vip"], "last": True},
        {"tags": ["b"]},
    )
    assert await changes(made, a_transaction()) == (Tag("a"), Tag("b"))
    vip = a_transaction(sender="x@vip.example")
    assert await changes(made, vip) == (Tag("a"), Tag("vip"))


async def test_mail_gets_its_field_and_its_tag(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    made = plugin({"add": {"X-Class": "bulk"}, "tags": ["bulk"], "priority": "low"})
    server = Server(made)
    nursery.start_soon(server.run)
    await server.play(r"""
        S: 220 ...
        C: EHLO client.example
        S: 250 ...
        C: MAIL FROM:<ann@sender.example>
        C: RCPT TO:<alice@here.example>
        C: DATA
        S: 250 ...
        S: 250 ...
        S: 354 ...
        O: Subject: x\r\n\r\nHi\r\n.\r\n
        S: 250 ...
    """)
    (kept,) = server.queue.kept
    assert kept.content.startswith(b"X-Class: bulk\r\n")
    assert (kept.envelope.tags, kept.envelope.priority) == (("bulk",), Priority.LOW)


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ({}, "does nothing"),
        ({"tags": ["two words"]}, "must be a word"),
        ({"add": {"X-A": "a\nb"}}, "a line end"),
        ({"remove": ["X A"]}, "no name of a field"),
        ({"priority": "urgent"}, "expected"),
        ({"tags": ["a"], "match": {"senders": ["@x"]}}, "expected an address"),
        ({"tags": ["a"], "match": {"networks": ["x"]}}, "expected a network"),
    ],
)
def test_a_mistake_is_told_with_its_place(rule: object, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Rules.configured({"rules": [rule]}, "plugins[0].settings")
    assert problem in str(caught.value)
    assert "plugins[0].settings.rules[0]" in str(caught.value)
