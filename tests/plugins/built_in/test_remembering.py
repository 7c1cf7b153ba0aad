"""The plugins that remember, in a whole server: from the file, past a reload and a restart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from elemta.testing import running

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("virtual_time")

CONFIG = """
hostname: mx.us.example
listeners: [{name: mx, address: "203.0.113.25:25"}]
domains: [{name: us.example, mailboxes: [bob, carol]}]
relay: {networks: [10.0.0.0/8]}
plugins:
"""
GREYLISTING = (
    CONFIG + "  - {name: greylisting, settings: {delay: 5 min, window: 1 h, lifetime: 4 h}}\n"
)


async def test_a_stranger_is_let_in_after_a_restart_and_a_reload(tmp_path: Path) -> None:
    async with running(GREYLISTING, folder=tmp_path) as elemta:
        reply = await elemta.send("ann@x.example", "bob@us.example")
        assert str(reply) == "451 4.7.1 greylisted, try again in 300 seconds"
        assert (await elemta.send("ann@x.example", "bob@us.example", client="10.0.0.1")).code == 250
        await elemta.advance(minutes=2)
    async with running(GREYLISTING, folder=tmp_path) as elemta:
        reply = await elemta.send("ann@x.example", "bob@us.example")
        assert str(reply) == "451 4.7.1 greylisted, try again in 180 seconds"
        await elemta.reload(GREYLISTING.replace("5 min", "3 min"))
        reply = await elemta.send("ann@x.example", "bob@us.example")
        assert str(reply) == "451 4.7.1 greylisted, try again in 60 seconds"
        await elemta.advance(minutes=1)
        assert (await elemta.send("ann@x.example", "bob@us.example")).code == 250
        await elemta.advance(hours=3)
        assert (await elemta.send("ann@x.example", "bob@us.example")).code == 250
        await elemta.advance(hours=5)
        assert (await elemta.send("ann@x.example", "bob@us.example")).code == 451


async def test_one_recipient_that_waits_leaves_the_others_theirs() -> None:
    async with running(GREYLISTING) as elemta:
        await elemta.send("ann@x.example", "bob@us.example")
        await elemta.advance(minutes=5)
        assert (
            await elemta.send("ann@x.example", ["bob@us.example", "carol@us.example"])
        ).code == 250
        (taken,) = elemta.delivered
        assert taken.recipients == ("bob@us.example",)


async def test_limits_hold_over_connections(tmp_path: Path) -> None:
    rules = "{of: messages, limit: 2/1 h}, {of: recipients, per: recipient_domain, limit: 9/1 h}"
    text = CONFIG + f"  - {{name: rate-limit, settings: {{rules: [{rules}]}}}}\n"
    async with running(text, folder=tmp_path) as elemta:
        for _ in range(2):
            assert (await elemta.send("ann@x.example", "bob@us.example")).code == 250
        reply = await elemta.send("ann@x.example", "bob@us.example")
        assert str(reply) == "451 4.7.0 too much mail, try again later"
        await elemta.advance(minutes=30)
        assert (await elemta.send("ann@x.example", "bob@us.example")).code == 250
        assert elemta.counts("rate-limit").objected == 1


async def test_who_guesses_names_is_greeted_no_more() -> None:
    text = CONFIG + "  - {name: harvest-guard, settings: {unknown: 3/1 h}}\n"
    async with running(text) as elemta:
        for name in ("w", "x", "y", "z"):
            await elemta.send("ann@x.example", f"{name}@us.example")
        reply = await elemta.send("ann@x.example", "bob@us.example")
        assert str(reply) == "421 4.7.0 too many unknown recipients, try again later"
        await elemta.advance(hours=1)
        assert (await elemta.send("ann@x.example", "bob@us.example")).code == 250


async def test_who_speaks_before_it_is_greeted_is_refused() -> None:
    async with running(CONFIG + "  - {name: early-talker}\n") as elemta:
        async with elemta.client(early=b"EHLO client.example\r\n") as client:
            assert client.greeting.code == 554
        began = elemta.clock()
        assert (await elemta.send("ann@x.example", "bob@us.example")).code == 250
        assert elemta.clock() - began == pytest.approx(3)
        assert (await elemta.send("ann@x.example", "bob@us.example")).code == 250
        assert elemta.clock() - began == pytest.approx(3)
