from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from elemta.config import ConfigError, Network
from elemta.ledger import FILE
from elemta.plugins import CONTINUE, Allowed, Defer, Verdict
from elemta.plugins.built_in.greylisting import Greylisting, Settings
from elemta.testing import FakeClock, FakeDns, a_session, a_transaction, mailbox, some_tools
from elemta.units import Seconds
from tests.dialogue import TRUSTED, Server

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from trio.testing import MockClock

    from elemta.plugins import Session, Transaction

DAY = 86400
BOB = mailbox("bob@us.example")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@asynccontextmanager
async def living(
    folder: Path,
    clock: FakeClock,
    settings: Settings | None = None,
    dns: FakeDns | None = None,
) -> AsyncGenerator[Greylisting]:
    plugin = Greylisting(settings or Settings())
    plugin.tools = some_tools("greylisting", folder=folder, clock=clock, dns=dns)
    try:
        await plugin.start()
        yield plugin
    finally:
        await plugin.stop()


def letter(
    address: str = "192.0.2.1",
    sender: str = "ann@sender.example",
    session: Session | None = None,
) -> Transaction:
    return a_transaction(session or a_session(address), sender=sender, recipients=())


async def come(
    plugin: Greylisting, address: str = "192.0.2.1", sender: str = "ann@sender.example"
) -> Verdict:
    return await plugin.on_greylist(letter(address, sender), BOB)


def passes(verdict: Verdict) -> bool:
    return verdict.reply is None


async def test_a_stranger_waits_once(tmp_path: Path, clock: FakeClock) -> None:
    async with living(tmp_path, clock) as plugin:
        verdict = await come(plugin)
        assert verdict == Defer((7, 1), "greylisted, try again in 300 seconds", note="greylisted")
        assert str(verdict.reply) == "451 4.7.1 greylisted, try again in 300 seconds"
        clock.advance(240.5)
        again = await come(plugin, "192.0.2.200")  # of the same site
        assert isinstance(again, Defer)
        assert again.text == "greylisted, try again in 60 seconds"
        clock.advance(60)
        assert passes(await come(plugin))
        assert await come(plugin) is CONTINUE
        counts = plugin.tools.meters.greylisting
        assert counts == {"greylisted": 1, "early": 1, "passed": 1, "known": 1}


async def test_what_it_knows_survives_a_restart(tmp_path: Path, clock: FakeClock) -> None:
    async with living(tmp_path, clock) as plugin:
        await come(plugin)
        await come(plugin, "198.51.100.1")
        clock.advance(300)
        assert passes(await come(plugin))
        for number in range(5):
            await come(plugin, "203.0.113.1", sender=f"{'x' * (number + 1)}@x.example")
        clock.advance(300)
        for number in range(5):
            await come(plugin, "203.0.113.1", sender=f"{'x' * (number + 1)}@x.example")
    clock.advance(DAY / 12)
    async with living(tmp_path, clock) as plugin:
        assert await come(plugin) is CONTINUE
        assert passes(await come(plugin, "198.51.100.1")), "its first attempt was before"
        assert await come(plugin, "203.0.113.1", sender="new@y.example") is CONTINUE
        meters = plugin.tools.meters
        assert meters.greylisting == {"known": 1, "passed": 1, "whitelisted": 1}
    assert meters.greylisted == {"waiting": 0, "passed": 7}
    assert meters.greylisting_clients == 1


async def test_a_plugin_after_a_reload_knows_what_the_one_before_it_still_learns(
    tmp_path: Path, clock: FakeClock
) -> None:
    async with living(tmp_path, clock) as before:
        after = Greylisting(Settings(delay=Seconds(60)))
        after.tools = before.tools
        await after.start()
        assert not passes(await come(before))
        clock.advance(60)
        assert passes(await come(after))
        assert await come(before) is CONTINUE
        await after.stop()
        assert await come(before) is CONTINUE
    async with living(tmp_path, clock) as plugin:
        assert await come(plugin) is CONTINUE


async def test_a_file_that_cannot_be_read_only_makes_it_forget(
    tmp_path: Path, clock: FakeClock
) -> None:
    (tmp_path / FILE).write_bytes(b"garbage" * 1000)
    async with living(tmp_path, clock) as plugin:
        assert not passes(await come(plugin))
    async with living(tmp_path, clock) as plugin:
        clock.advance(300)
        assert passes(await come(plugin))


async def test_a_client_that_came_back_in_five_sessions_is_trusted(
    tmp_path: Path, clock: FakeClock
) -> None:
    async with living(tmp_path, clock) as plugin:
        session = a_session("203.0.113.1")
        for number in range(6):
            one = letter(session=session, sender=f"{'x' * (number + 1)}@x.example")
            await plugin.on_greylist(one, BOB)
        clock.advance(300)
        for number in range(6):
            one = letter(session=session, sender=f"{'x' * (number + 1)}@x.example")
            assert passes(await plugin.on_greylist(one, BOB))
        assert not passes(await come(plugin, "203.0.113.1", sender="y@x.example")), (
            "one session is one pass"
        )
        for number in range(4):
            sender = f"{'z' * (number + 1)}@x.example"
            assert not passes(await come(plugin, "203.0.113.1", sender=sender))
            clock.advance(300)
            assert passes(await come(plugin, "203.0.113.1", sender=sender))
        assert await come(plugin, "203.0.113.9", sender="new@x.example") is CONTINUE
        assert plugin.tools.meters.greylisting["whitelisted"] == 1


async def test_one_recipient_that_waits_does_not_hurt_others(
    tmp_path: Path, clock: FakeClock
) -> None:
    async with living(tmp_path, clock) as plugin:
        await come(plugin)
        clock.advance(300)
        transaction = letter()
        assert passes(await plugin.on_greylist(transaction, BOB))
        assert not passes(await plugin.on_greylist(transaction, mailbox("carol@us.example")))


async def test_who_tries_again_in_one_session_is_counted_once(
    tmp_path: Path, clock: FakeClock
) -> None:
    async with living(tmp_path, clock) as plugin:
        session = a_session()
        for _ in range(3):
            assert not passes(await plugin.on_greylist(letter(session=session), BOB))
        assert plugin.tools.meters.greylisting == {"greylisted": 1}
        clock.advance(300)
        assert passes(await plugin.on_greylist(letter(session=session), BOB)), "it has waited"


async def test_a_list_is_one_sender_whatever_it_counts_in_its_return_path(
    tmp_path: Path, clock: FakeClock
) -> None:
    async with living(tmp_path, clock) as plugin:
        await come(plugin, sender="bounces+8812-bob=us.example@list.example")
        clock.advance(300)
        assert passes(await come(plugin, sender="bounces+9917-bob=us.example@list.example"))


async def test_reports_wait_as_other_mail_does(tmp_path: Path, clock: FakeClock) -> None:
    async with living(tmp_path, clock) as plugin:
        assert not passes(await come(plugin, sender=""))
        clock.advance(300)
        assert passes(await come(plugin, sender=""))


@pytest.mark.parametrize(
    ("address", "sender", "recipient"),
    [
        ("198.18.0.7", "ann@sender.example", "bob@us.example"),
        ("2001:db8:9::1", "ann@sender.example", "bob@us.example"),
        ("192.0.2.1", "Boss@Partner.example", "bob@us.example"),
        ("192.0.2.1", "x@big.example", "bob@us.example"),
        ("192.0.2.1", "x@eu.big.example", "bob@us.example"),
        ("192.0.2.1", "ann@sender.example", "sales@us.example"),
        ("192.0.2.1", "ann@sender.example", "any@urgent.example"),
        ("", "ann@sender.example", "bob@us.example"),
    ],
)
async def test_lists_spare_networks_senders_and_recipients(
    address: str, sender: str, recipient: str, tmp_path: Path, clock: FakeClock
) -> None:
    settings = Settings(
        networks=(Network.parse("198.18.0.0/15"), Network.parse("2001:db8:9::/48")),
        senders=("boss@partner.example", "big.example", "*.big.example"),
        recipients=("sales@us.example", "urgent.example"),
    )
    async with living(tmp_path, clock, settings) as plugin:
        found = await plugin.on_greylist(letter(address, sender), mailbox(recipient))
        assert found is CONTINUE
        assert plugin.tools.meters.greylisting == {"bypassed": 1}
        assert not passes(await come(plugin, sender="x@partner.example"))


async def test_whoever_somebody_vouches_for_does_not_wait(tmp_path: Path, clock: FakeClock) -> None:
    async with living(tmp_path, clock) as plugin:
        session = a_session()
        session.results.add(Allowed("allow-deny"), "allow-deny")
        assert await plugin.on_greylist(letter(session=session), BOB) is CONTINUE
        trusted = a_session(trusted=True)
        assert await plugin.on_greylist(letter(session=trusted), BOB) is CONTINUE


def big_sender() -> FakeDns:
    dns = FakeDns()
    dns.text("big.example", "v=spf1 ip4:203.0.113.0/24 ip4:198.51.100.0/24 ip4:192.0.2.0/24 -all")
    return dns


async def test_a_listed_domain_with_an_spf_pass_does_not_wait(
    tmp_path: Path, clock: FakeClock
) -> None:
    settings = Settings(spf_domains=("big.example", "down.example"))
    dns = big_sender()
    dns.failing.add("down.example")
    async with living(tmp_path, clock, settings, dns) as plugin:
        assert await come(plugin, "203.0.113.9", sender="x@big.example") is CONTINUE
        assert not passes(await come(plugin, "198.18.0.1", sender="x@big.example"))
        assert not passes(await come(plugin, "198.18.0.1", sender="x@down.example"))
        assert not passes(await come(plugin, "203.0.113.9", sender="x@other.example"))


async def test_a_domain_is_learned_from_all_its_networks(tmp_path: Path, clock: FakeClock) -> None:
    settings = Settings(passes=3)
    async with living(tmp_path, clock, settings, big_sender()) as plugin:
        senders = ["ann", "bea", "cid"]
        for address in ("203.0.113.1", "198.51.100.1", "198.51.100.2"):
            sender = f"{senders.pop()}@big.example"
            assert not passes(await come(plugin, address, sender=sender))
            clock.advance(300)
            assert passes(await come(plugin, address, sender=sender))
        assert await come(plugin, "192.0.2.77", sender="new@big.example") is CONTINUE
        assert not passes(await come(plugin, "198.18.0.1", sender="new@big.example"))
    unlearned = Settings(passes=3, learn_domains=False)
    async with living(tmp_path / "other", clock, unlearned, big_sender()) as plugin:
        for address in ("203.0.113.1", "198.51.100.1", "192.0.2.1"):
            await come(plugin, address, sender="x@big.example")
            clock.advance(300)
            assert passes(await come(plugin, address, sender="x@big.example"))
        assert not passes(await come(plugin, "203.0.113.1", sender="new@big.example"))


async def test_nothing_of_the_dns_is_asked_for_strangers(tmp_path: Path, clock: FakeClock) -> None:
    dns = big_sender()
    async with living(tmp_path, clock, None, dns) as plugin:
        for number in range(20):
            await come(plugin, "203.0.113.1", sender=f"{'x' * (1 + number)}@big.example")
        assert dns.asked == []


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"delay": "5 h"}, "window must be longer than delay"),
        ({"lifetime": "1 h"}, "lifetime must be longer than window"),
        ({"senders": ["not an address"]}, "expected a domain"),
        ({"recipients": ["a@@b"]}, "expected an address"),
        ({"spf_domains": ["-"]}, "expected a domain"),
        ({"networks": ["192.0.2.1/24"]}, "did you mean 192.0.2.0/24"),
        ({"delay": 300}, "a number with a unit"),
        ({"passes": -1}, "at least 0"),
    ],
)
def test_a_mistake_in_the_settings_is_told(settings: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as told:
        Greylisting.configured(settings, "plugins[0].settings")
    assert "plugins[0].settings" in str(told.value)


async def test_a_client_hears_it_and_is_let_in_when_it_comes_back(
    tmp_path: Path, clock: FakeClock, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async with living(tmp_path, clock, Settings(delay=Seconds(60))) as plugin:
        for client, answer in (
            ("192.0.2.1", "451 4.7.1 greylisted, try again in 60 seconds"),
            (TRUSTED, "250 2.1.5 recipient OK"),
            ("192.0.2.2", "250 2.1.5 recipient OK"),
        ):
            server = Server(plugin, client=client)
            nursery.start_soon(server.run)
            await server.play(f"""
                S: 220 ...
                C: EHLO client.example
                C: MAIL FROM:<a@b.example>
                C: RCPT TO:<alice@here.example>
                C: QUIT
                S: 250 ...
                S: 250 ...
                S: {answer}
                S: 221 ...
                E:
            """)
            clock.advance(60)


async def test_it_counts_first_attempts_that_nobody_came_back_for(
    tmp_path: Path, clock: FakeClock, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async with living(tmp_path, clock) as plugin:
        nursery.start_soon(plugin.run)
        await come(plugin)
        await come(plugin, "198.51.100.1")
        await trio.sleep(2)
        meters = plugin.tools.meters
        assert meters.greylisted == {"waiting": 2, "passed": 0}
        clock.advance(4 * 3600)
        await trio.sleep(100)
        assert meters.greylisted["waiting"] == 0
        assert meters.greylisting["expired"] == 2
        nursery.cancel_scope.cancel()
