"""What senders and the next servers are told, from end to end."""

from __future__ import annotations

from email import message_from_bytes
from email.policy import default
from typing import TYPE_CHECKING, Final

import pytest
import trio
from msgspec.structs import replace

from elemta.protocol import MailParams, Notify, OriginalRecipient, RcptParams, Ret
from elemta.queue import Addressee, Envelope, Priority
from tests.delivery.world import ANN, BODY, on_virtual_time, to, world

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.delivery.world import Host, World

pytestmark = pytest.mark.trio(run=on_virtual_time)

ONE, HOME = "198.51.100.1", "198.51.100.2"
PLAIN: Final = "250-host\r\n250 PIPELINING"
HOUR: Final = 3600.0
TOLD: Final = RcptParams(
    notify=frozenset({Notify.SUCCESS, Notify.FAILURE}),
    orcpt=OriginalRecipient("rfc822", "robert@b.example"),
)


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[World]:
    """A world with an exchanger for b.example, and one for the sender's own domain."""
    async with world(tmp_path) as made:
        made.domain("b.example", ("mx.b.example", ONE))
        made.domain("sender.example", ("mx.sender.example", HOME))
        yield made


def subjects(home: Host) -> list[str]:
    return [str(message_from_bytes(each.content, policy=default)["Subject"]) for each in home.taken]


async def test_fault_23_what_senders_ask_of_reports_is_passed_on(here: World) -> None:
    """The original took the parameters and dropped them."""
    host, home = here.net.host(ONE), here.net.host(HOME)
    await here.send(to("bob@b.example", TOLD), params=MailParams(ret=Ret.HEADERS, envid="env+1"))
    await trio.sleep(1)
    assert host.heard[1:3] == [
        "MAIL FROM:<ann@sender.example> RET=HDRS ENVID=env+2B1",
        "RCPT TO:<bob@b.example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;robert@b.example",
    ]
    assert home.taken == []  # now it is for that server to tell


async def test_fault_23_where_nobody_else_tells_we_do(here: World) -> None:
    here.net.host(ONE, EHLO=PLAIN)
    home = here.net.host(HOME)
    await here.send(to("bob@b.example", TOLD), "cid@b.example")
    await trio.sleep(1)
    [report] = home.taken
    assert b"Action: relayed\r\n" in report.content
    assert b"Original-Recipient: rfc822; robert@b.example" in report.content
    assert b"cid" not in report.content


async def test_a_sender_hears_once_of_a_delay_and_then_of_the_end(here: World) -> None:
    home = here.net.host(HOME)
    here.net.host(ONE, RCPT="451 4.2.0 later")
    await here.send("bob@b.example")
    await trio.sleep(24 * HOUR)
    assert subjects(home) == ["Your message is delayed"]
    await trio.sleep(5 * 24 * HOUR)
    assert subjects(home)[1:] == ["Your message could not be delivered"]
    assert b"We have tried for as long as we may" in home.taken[1].content


async def test_a_priority_is_passed_on_to_who_knows_of_priorities(here: World) -> None:
    host = here.net.host(ONE, EHLO="250-host\r\n250 MT-PRIORITY")
    other = here.net.host("198.51.100.3")
    here.domain("c.example", ("mx.c.example", "198.51.100.3"))
    envelope = Envelope(
        sender=ANN,
        params=MailParams(mt_priority=5),
        priority=Priority.HIGH,
        recipients=(to("bob@b.example"), to("cid@c.example")),
    )
    await here.queue.accept(envelope, BODY)
    await here.queue.accept(replace(envelope, priority=Priority.LOW), BODY)
    await trio.sleep(1)
    said = [line for line in host.heard if line.startswith("MAIL")]
    assert sorted(line.partition("> ")[2] for line in said) == ["MT-PRIORITY=-4", "MT-PRIORITY=5"]
    assert not any("MT-PRIORITY" in line for line in other.heard)


async def test_an_alias_is_all_that_a_sender_sees(here: World) -> None:
    here.net.host(ONE, RCPT="550 5.1.1 <private@b.example> is unknown")
    home = here.net.host(HOME)
    alias = to("sales@us.example").address
    await here.send(Addressee(address=to("private@b.example").address, original=alias))
    await trio.sleep(1)
    [report] = home.taken
    assert b"550 5.1.1 <sales@us.example> is unknown" in report.content
    assert b"b.example" not in report.content
