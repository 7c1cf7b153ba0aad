from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from typing_extensions import override

from elemta.delivery.notices import MOST, WITHIN, Notices
from elemta.delivery.reports import DOUBLE_BOUNCE
from elemta.plugins import AddHeader, Plugin
from elemta.protocol import Mailbox
from elemta.queue import Addressee, Envelope, MessageId, StoreUnavailable
from elemta.testing import FakeClock, running

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio.testing import MockClock

    from elemta.plugins import Content, Transaction

POSTMASTER = Mailbox("postmaster", "us.example")


class Queue:
    """Remembers what it accepts."""

    def __init__(self) -> None:
        self.taken: list[tuple[Envelope, bytes]] = []
        self.broken = False

    def new_id(self) -> MessageId:
        return f"N{len(self.taken)}"

    async def accept(
        self,
        envelope: Envelope,
        content: bytes,
        id: MessageId | None = None,  # noqa: A002 # the word of people
    ) -> MessageId:
        if self.broken:
            raise StoreUnavailable("the disk is full")
        self.taken.append((envelope, content))
        return id or ""


def notices(queue: Queue, clock: FakeClock, *to: Mailbox) -> Notices:
    found = [Addressee(address=each) for each in to or [POSTMASTER]]
    return Notices(
        queue, hostname=lambda: "mx.us.example", postmaster=lambda: (POSTMASTER, found), clock=clock
    )


async def test_it_goes_from_nobody_to_whom_the_postmaster_is() -> None:
    queue = Queue()
    ann, bea = Mailbox("ann", "us.example"), Mailbox("bea", "us.example")
    assert await notices(queue, FakeClock(), ann, bea).tell("plugin:x", "Look", "At this.")
    [(envelope, content)] = queue.taken
    assert envelope.sender is None
    assert [each.address for each in envelope.recipients] == [ann, bea]
    assert envelope.tags == (DOUBLE_BOUNCE,), "it is not reported to the postmaster, who is it"
    assert not envelope.params.smtputf8
    assert b"To: <postmaster@us.example>\r\nSubject: Look\r\n" in content


async def test_a_flood_of_trouble_is_no_flood_of_mail() -> None:
    queue, clock = Queue(), FakeClock()
    tell = notices(queue, clock).tell
    told = [await tell("plugin:x", f"trouble {number}", "") for number in range(MOST + 5)]
    assert told == [True] * MOST + [False] * 5
    assert await tell("plugin:y", "another one has trouble of its own", "")
    clock.advance(WITHIN)
    assert await tell("plugin:x", "an hour later", "")
    clock.advance(-10 * WITHIN)
    assert await tell("plugin:x", "the clock was set", "")


async def test_a_disk_that_fails_is_no_trouble_of_who_tells() -> None:
    queue = Queue()
    queue.broken = True
    assert not await notices(queue, FakeClock()).tell("plugin:x", "Look", "At this.")


async def test_an_address_that_is_not_ascii_needs_smtputf8() -> None:
    queue = Queue()
    assert await notices(queue, FakeClock(), Mailbox("jürgen", "us.example")).tell("x", "y", "z")
    assert queue.taken[0][0].params.smtputf8


class Tells(Plugin):
    """Has something to tell."""

    name = "tells"
    told = False

    @override
    async def run(self) -> None:
        if not self.told:
            self.told = await self.tools.tell_postmaster("ann sends too much", "Look at it.")
        await trio.sleep_forever()


HEAD = 'hostname: mx.us.example\nlisteners: [{name: mx, address: "203.0.113.25:25"}]\n'


@pytest.mark.parametrize(
    ("domains", "to"),
    [
        ('[{name: us.example, mailboxes: ["*"]}]', "postmaster@us.example"),
        ("[{name: us.example, mailboxes: [ann]}]", "postmaster@us.example"),
        (
            "[{name: us.example, mailboxes: [ann], aliases: {postmaster: [ann@us.example]}}]",
            "ann@us.example",
        ),
    ],
)
async def test_a_plugin_of_a_server_tells_its_postmaster(
    domains: str, to: str, autojump_clock: MockClock
) -> None:
    plugin = Tells()
    async with running(f"{HEAD}domains: {domains}", [plugin]) as elemta:
        await elemta.settled()
        assert plugin.told
        [taken] = elemta.delivered
        assert (taken.sender, taken.recipients) == ("", (to,))
        assert taken.header("subject") == ["ann sends too much"]


class Signs(Plugin):
    """Signs with its name; or takes too long."""

    name = "signs"
    seconds = 0.0

    @override
    async def on_sign(
        self, transaction: Transaction | None, content: Content
    ) -> Sequence[AddHeader]:
        assert transaction is None
        await trio.sleep(self.seconds)
        assert content.header.named(b"from") == [
            b"Mail Delivery System <MAILER-DAEMON@mx.us.example>"
        ]
        return [AddHeader("DKIM-Signature", "d=us.example")]


@pytest.mark.parametrize(("seconds", "there"), [(0.0, ["d=us.example"]), (60.0, [])])
async def test_a_notice_is_signed_unless_that_takes_too_long(
    seconds: float, there: list[str], autojump_clock: MockClock
) -> None:
    signs = Signs()
    signs.seconds = seconds
    domains = '[{name: us.example, mailboxes: ["*"]}]'
    async with running(f"{HEAD}domains: {domains}", [Tells(), signs]) as elemta:
        await trio.sleep(20)
        await elemta.settled()
        [taken] = elemta.delivered
        assert taken.header("subject") == ["ann sends too much"]
        assert taken.header("dkim-signature") == there
