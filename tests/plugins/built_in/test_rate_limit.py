from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from elemta.config import ConfigError
from elemta.plugins import CONTINUE, Allowed, Chain, Defer, Loaded, Reject
from elemta.plugins.built_in.rate_limit import RateLimit
from elemta.testing import (
    FakeClock,
    FakeContent,
    a_session,
    a_transaction,
    mailbox,
    some_tools,
)
from tests.dialogue import TRUSTED, Server

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    import trio
    from trio.testing import MockClock

    from elemta.plugins import Session, Transaction, Verdict

SMALL = FakeContent(b"Subject: x\r\n\r\n" + b"y" * 986)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@asynccontextmanager
async def living(
    folder: Path, clock: FakeClock, *rules: dict[str, object], **settings: object
) -> AsyncGenerator[RateLimit]:
    plugin = RateLimit.configured({"rules": [*rules], **settings}, "settings")
    plugin.tools = some_tools("rate-limit", folder=folder, clock=clock)
    try:
        await plugin.start()
        yield plugin
    finally:
        await plugin.stop()


def rule(of: str, limit: str, per: str = "network", **more: object) -> dict[str, object]:
    return {"of": of, "per": per, "limit": limit, **more}


async def send(plugin: RateLimit, transaction: Transaction, *recipients: str) -> Verdict:
    """Go through a message as a session does; returns the first objection."""
    chain = Chain([Loaded(plugin)])
    if (found := await chain.on_mail(transaction)).reply is not None:
        return found
    for each in recipients or ("bob@us.example",):
        if (found := await chain.on_rcpt(transaction, mailbox(each))).reply is not None:
            return found
        transaction.recipients.append(mailbox(each))
    if (found := await chain.on_data(transaction)).reply is not None:
        return found
    return await chain.on_message(transaction, SMALL)


def letter(
    address: str = "192.0.2.1",
    sender: str = "ann@sender.example",
    session: Session | None = None,
) -> Transaction:
    return a_transaction(session or a_session(address), sender=sender, recipients=())


def passes(verdict: Verdict) -> bool:
    return verdict.reply is None


async def test_connections_of_a_network_are_limited(tmp_path: Path, clock: FakeClock) -> None:
    async with living(tmp_path, clock, rule("connections", "3/1 min")) as plugin:
        for _ in range(3):
            assert await plugin.on_connect(a_session()) is CONTINUE
        verdict = await plugin.on_connect(a_session())
        assert verdict == Defer(
            (7, 0),
            "too many connections, try again later",
            note="3/1 min connections per network",
        )
        assert await plugin.on_connect(a_session("192.0.2.2")) is CONTINUE
        clock.advance(20)
        assert await plugin.on_connect(a_session()) is CONTINUE
        counts = plugin.tools.meters.rate_limits
        assert counts == {"requests": 6, "connections_hit": 1}


@pytest.mark.parametrize(
    ("per", "other"),
    [
        ("network", letter("192.0.2.2")),
        ("sender", letter(sender="bea@sender.example")),
        ("sender_domain", letter(sender="ann@other.example")),
    ],
)
async def test_messages_are_limited_for_each(
    per: str, other: Transaction, tmp_path: Path, clock: FakeClock
) -> None:
    async with living(tmp_path, clock, rule("messages", "2/1 h", per)) as plugin:
        for _ in range(2):
            assert passes(await send(plugin, letter()))
        verdict = await send(plugin, letter())
        assert str(verdict.reply) == "451 4.7.0 too much mail, try again later"
        assert passes(await send(plugin, other))
        clock.advance(1800)
        assert passes(await send(plugin, letter()))
        assert plugin.tools.meters.rate_limits["messages_hit"] == 1


async def test_one_login_is_limited_from_wherever_it_comes(
    tmp_path: Path, clock: FakeClock
) -> None:
    async with living(tmp_path, clock, rule("messages", "2/1 h", "login")) as plugin:

        def of(login: str | None, address: str) -> Transaction:
            session = a_session(address, trusted=True)
            session.login = login
            return letter(session=session)

        assert passes(await send(plugin, of("ann", "192.0.2.1")))
        assert passes(await send(plugin, of("ann", "192.0.2.2")))
        assert not passes(await send(plugin, of("ann", "192.0.2.3")))
        assert passes(await send(plugin, of("bob", "192.0.2.3")))
        for _ in range(3):
            assert passes(await send(plugin, of(None, "192.0.2.3")))


async def test_recipients_that_are_too_many_are_put_off_and_the_others_are_not(
    tmp_path: Path, clock: FakeClock
) -> None:
    async with living(tmp_path, clock, rule("recipients", "3/1 h")) as plugin:
        one = letter()
        verdict = await send(plugin, one, *(f"r{number}@us.example" for number in range(4)))
        assert str(verdict.reply) == "452 4.5.3 too many recipients, try again later"
        assert await plugin.on_data(one) is CONTINUE
        verdict = await send(plugin, letter(), "r4@us.example")
        assert str(verdict.reply) == "451 4.7.0 too many recipients, try again later"
        clock.advance(3600)
        assert passes(await send(plugin, letter(), "a@us.example", "b@us.example", "c@us.example"))
        assert plugin.tools.meters.rate_limits["recipients_hit"] == 2


@pytest.mark.parametrize("of", ["messages", "recipients"])
async def test_what_one_domain_gets_is_limited_and_others_get_theirs(
    of: str, tmp_path: Path, clock: FakeClock
) -> None:
    async with living(tmp_path, clock, rule(of, "2/1 h", "recipient_domain")) as plugin:
        for number in range(2):
            one = letter(f"192.0.2.{number}")
            assert passes(await send(plugin, one, "bob@us.example", "carol@them.example"))
        verdict = await send(plugin, letter("192.0.2.3"), "bob@other.example", "dan@US.example")
        assert isinstance(verdict, Defer)
        assert passes(await send(plugin, letter("192.0.2.3"), "bob@other.example"))


async def test_a_message_to_five_of_a_domain_is_five_recipients_of_it(
    tmp_path: Path, clock: FakeClock
) -> None:
    async with living(tmp_path, clock, rule("recipients", "5/1 h", "recipient_domain")) as plugin:
        five = [f"r{number}@us.example" for number in range(5)]
        assert passes(await send(plugin, letter(), *five, "x@them.example"))
        assert not passes(await send(plugin, letter(), "r6@us.example"))
        assert passes(await send(plugin, letter(), "y@them.example"))


async def test_octets_that_are_too_many_make_later_messages_wait(
    tmp_path: Path, clock: FakeClock
) -> None:
    rules = rule("octets", "1 KiB/1 h"), rule("octets", "1 MiB/1 h", "recipient_domain")
    async with living(tmp_path, clock, *rules) as plugin:
        assert passes(await send(plugin, letter()))
        assert passes(await send(plugin, letter())), "24 octets are left"
        verdict = await send(plugin, letter())
        assert str(verdict.reply) == "451 4.7.0 too much mail, try again later"
        assert plugin.tools.meters.rate_limits["volume_hit"] == 1
        clock.advance(3600)
        assert passes(await send(plugin, letter()))


async def test_octets_for_one_domain_are_limited(tmp_path: Path, clock: FakeClock) -> None:
    async with living(tmp_path, clock, rule("octets", "1000 B/1 h", "recipient_domain")) as plugin:
        assert passes(await send(plugin, letter()))
        verdict = await send(plugin, letter("192.0.2.2"))
        assert str(verdict.reply) == "451 4.7.0 too much mail for this domain, try again later"
        assert passes(await send(plugin, letter("192.0.2.2"), "x@them.example"))


async def test_reports_have_no_sender_to_be_limited(tmp_path: Path, clock: FakeClock) -> None:
    rules = rule("messages", "1/1 h", "sender"), rule("messages", "1/1 h", "sender_domain")
    async with living(tmp_path, clock, *rules) as plugin:
        for _ in range(3):
            assert passes(await send(plugin, letter(sender="")))


async def test_a_rule_can_refuse_for_good(tmp_path: Path, clock: FakeClock) -> None:
    async with living(tmp_path, clock, rule("messages", "1/1 d", action="reject")) as plugin:
        await send(plugin, letter())
        assert await send(plugin, letter()) == Reject(
            (7, 0), "too much mail", note="1/1 d messages per network"
        )


async def test_whoever_is_trusted_is_left_alone_unless_a_rule_says_otherwise(
    tmp_path: Path, clock: FakeClock
) -> None:
    rules = rule("messages", "1/1 h"), rule("messages", "3/1 h", also_trusted=True)
    trusted, vouched = a_session(trusted=True), a_session("192.0.2.2")
    vouched.results.add(Allowed("dnswl"), "dnswl")
    async with living(tmp_path, clock, *rules) as plugin:
        for session in (trusted, vouched):
            for _ in range(3):
                assert passes(await send(plugin, letter(session=session)))
            assert not passes(await send(plugin, letter(session=session)))
        assert plugin.tools.meters.rate_limits["whitelist_hits"] > 0


async def test_all_rules_hold_and_what_one_turns_down_costs_nothing_of_another(
    tmp_path: Path, clock: FakeClock
) -> None:
    rules = rule("connections", "2/1 min"), rule("connections", "3/1 h")
    async with living(tmp_path, clock, *rules) as plugin:
        found = [passes(await plugin.on_connect(a_session())) for _ in range(10)]
        assert found == [True, True] + [False] * 8
        clock.advance(60)
        found = [passes(await plugin.on_connect(a_session())) for _ in range(3)]
        assert found == [True, False, False]


async def test_what_was_counted_survives_a_restart(tmp_path: Path, clock: FakeClock) -> None:
    rules = rule("messages", "2/1 h"), rule("connections", "2/1 h")
    async with living(tmp_path, clock, *rules) as plugin:
        await plugin.on_connect(a_session())
        await send(plugin, letter())
        await send(plugin, letter())
    async with living(tmp_path, clock, *rules) as plugin:
        assert not passes(await send(plugin, letter()))
        assert passes(await plugin.on_connect(a_session()))
        assert not passes(await plugin.on_connect(a_session()))
        clock.advance(1800)
        assert passes(await send(plugin, letter()))


async def test_who_invents_senders_makes_it_forget_nobody_who_sends_much(
    tmp_path: Path, clock: FakeClock
) -> None:
    async with living(tmp_path, clock, rule("messages", "10/1 h", "sender"), keys=1000) as plugin:
        for _ in range(10):
            await plugin.on_data(letter(sender="busy@sender.example"))
        one = letter()
        for number in range(20_000):
            one.sender = mailbox(f"{number}.{'x' * 50}@invented.example")
            await plugin.on_data(one)
        (held,) = plugin._held
        assert len(held.book.rows) <= 1000
        assert max(map(len, held.book.rows)) <= 40
        assert not passes(await plugin.on_data(letter(sender="busy@sender.example")))


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({}, "the key `rules` is missing"),
        ({"rules": []}, "at least 1"),
        ({"rules": [rule("messages", "100")]}, "rules.0.: limit: expected a number, / and a time"),
        ({"rules": [rule("octets", "100/1 h")]}, "rules.0.: limit: expected a number and one of B"),
        ({"rules": [rule("octets", "0 B/1 h")]}, "more than no octets"),
        ({"rules": [rule("octets", "1 MiB")]}, "rules.0."),
        ({"rules": [rule("connections", "1/1 h", "sender")]}, "nothing is known but the network"),
        ({"rules": [rule("mails", "1/1 h")]}, "rules.0..of: expected connections or messages"),
        ({"rules": [rule("messages", "1/1 h")] * 2}, "is there twice"),
    ],
)
def test_a_mistake_in_the_settings_is_told(settings: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        RateLimit.configured(settings, "settings")


async def test_clients_hear_it(
    tmp_path: Path, clock: FakeClock, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    rules = rule("connections", "2/1 h"), rule("messages", "1/1 h")
    async with living(tmp_path, clock, *rules) as plugin:
        for client, dialogue in (
            (
                "192.0.2.1",
                """
                S: 220 ...
                C: EHLO client.example
                C: MAIL FROM:<a@b.example>
                C: RCPT TO:<alice@here.example>
                C: DATA
                S: 250 ...
                S: 250 ...
                S: 250 ...
                S: 354 ...
                C: .
                S: 250 ...
                C: MAIL FROM:<a@b.example>
                S: 451 4.7.0 too much mail, try again later
                C: QUIT
                S: 221 ...
                """,
            ),
            ("192.0.2.1", "S: 220 ...\nC: QUIT\nS: 221 ..."),
            ("192.0.2.1", "S: 421 4.7.0 too many connections, try again later\nE:"),
            (TRUSTED, "S: 220 ...\nC: QUIT\nS: 221 ..."),
        ):
            server = Server(plugin, client=client)
            nursery.start_soon(server.run)
            await server.play(dialogue)
