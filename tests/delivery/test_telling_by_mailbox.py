"""What is told where a Maildir is at one end; in real time, since virtual time sees no threads."""

from __future__ import annotations

import time
from email import message_from_bytes
from email.policy import default
from typing import TYPE_CHECKING

import trio

from elemta.config import load
from elemta.protocol import Notify, RcptParams
from tests.delivery.world import CONFIG, to, world

if TYPE_CHECKING:
    from pathlib import Path

    from tests.delivery.world import World

ONE, HOME = "198.51.100.1", "198.51.100.2"


async def all_done(here: World) -> None:
    """Wait until nothing is left to deliver."""
    with trio.fail_after(60), here.queue.events.subscribe(since=0) as events:
        while here.messages():
            await anext(events)


async def test_delivery_to_a_mailbox_is_told_to_who_asked(tmp_path: Path) -> None:
    async with world(tmp_path, clock=time.time) as here:
        here.domain("sender.example", ("mx.sender.example", HOME))
        home = here.net.host(HOME)
        asked = RcptParams(notify=frozenset({Notify.SUCCESS}))
        await here.send(to("bob@us.example", asked), "cid@us.example")
        await all_done(here)
        [report] = home.taken
        assert b"Action: delivered\r\n" in report.content
        assert b"cid" not in report.content


async def test_a_report_that_nobody_takes_is_told_to_our_postmaster(tmp_path: Path) -> None:
    config = load(f"{CONFIG}queue: {{double_bounces: postmaster}}")
    async with world(tmp_path, config=config, clock=time.time) as here:
        here.domain("b.example", ("mx.b.example", ONE))
        here.domain("sender.example", ("mx.sender.example", HOME))
        here.net.host(ONE, RCPT="550 5.1.1 no such user")
        here.net.host(HOME, RCPT="550 5.7.1 no reports please")
        await here.send("bob@b.example")
        await all_done(here)
        [file] = (tmp_path / "mail/us.example/postmaster/new").iterdir()
        content = file.read_bytes()
        told = message_from_bytes(content, policy=default)
        assert told["Subject"] == "A report could not be delivered"
        assert b"550 5.7.1 no reports please" in content
        assert b"Subject: Your message could not be delivered" in content
        assert here.delivery.reporter.counts.double_bounced == 1
