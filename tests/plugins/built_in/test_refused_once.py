"""What a filter of words refused goes through all checks, as they are by default."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from elemta.plugins.built_in.allow_deny import AllowDeny
from elemta.plugins.built_in.dnsbl import Dnsbl
from elemta.plugins.built_in.fcrdns import Fcrdns
from elemta.plugins.built_in.header_checks import HeaderChecks
from elemta.plugins.built_in.helo_checks import HeloChecks
from elemta.testing import FakeDns, some_tools
from tests.dialogue import Server
from tests.plugins.built_in.refused_once import ADDRESSES, MESSAGES

if TYPE_CHECKING:
    import trio
    from trio.testing import MockClock

    from elemta.plugins import Plugin


def checks() -> list[Plugin]:
    dns = FakeDns({("1.2.0.192.in-addr.arpa", "PTR"): ["client.example."]})
    dns.add("client.example", "A", "192.0.2.1")
    made: list[Plugin] = [
        AllowDeny.configured({}, ""),
        HeloChecks.configured({}, ""),
        Fcrdns.configured({}, ""),
        Dnsbl.configured({"zones": [{"zone": "black.example"}]}, ""),
        HeaderChecks.configured({}, ""),
    ]
    for each in made:
        each.tools = some_tools(each.name, dns=dns)
    return made


async def take(server: Server, sender: str, recipient: str, content: bytes = b"") -> None:
    """Send one message, and expect that it is taken."""
    utf8 = "" if sender.isascii() else " SMTPUTF8 BODY=8BITMIME"
    await server.client.send_all(f"MAIL FROM:<{sender}>{utf8}\r\n".encode())
    await server.expect("250 ...")
    await server.client.send_all(
        f"RCPT TO:<{recipient}> NOTIFY=FAILURE ORCPT=rfc822;bob@any.example\r\nDATA\r\n".encode()
    )
    await server.expect("250 ...")
    await server.expect("354 ...")
    content = content or b"Subject: x\r\n\r\nHi\r\n"
    await server.client.send_all(content + b".\r\n")
    await server.expect("250 ...")


async def test_each_address_may_send(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    server = Server(*checks())
    nursery.start_soon(server.run)
    await server.play("""
        S: 220 ...
        C: EHLO client.example
        S: 250 ...
    """)
    for address in ADDRESSES:
        await take(server, address, "bob@any.example")
    assert [each.envelope.tags for each in server.queue.kept] == [()] * len(ADDRESSES)


async def test_each_address_may_be_written_to(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = Server(*checks())
    nursery.start_soon(server.run)
    await server.play("""
        S: 220 ...
        C: EHLO client.example
        S: 250 ...
    """)
    local_parts = {each.rpartition("@")[0] for each in ADDRESSES if each.isascii()}
    recipients = [*(f"{each}@any.example" for each in sorted(local_parts)), "postmaster"]
    for recipient in recipients:
        await take(server, "", recipient)
    assert len(server.queue.kept) == len(recipients)


@pytest.mark.parametrize("message", MESSAGES)
async def test_each_message_is_taken_as_it_is(
    message: str, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = Server(*checks())
    nursery.start_soon(server.run)
    await server.play("""
        S: 220 ...
        C: EHLO client.example
        S: 250 ...
    """)
    content = message.replace("\n", "\r\n").encode()
    await take(server, "ann@sender.example", "bob@any.example", content)
    (kept,) = server.queue.kept
    assert kept.content.endswith(content)
    assert kept.envelope.holder is None
    assert kept.envelope.tags == ()
