from __future__ import annotations

from email import message_from_bytes
from email.policy import default
from itertools import count
from typing import TYPE_CHECKING, Final

import pytest
from msgspec.structs import replace

from elemta.config import load
from elemta.delivery.reports import DOUBLE_BOUNCE, Counts, News, Reporter
from elemta.message import Action
from elemta.protocol import (
    Mailbox,
    MailParams,
    Notify,
    OriginalRecipient,
    RcptParams,
    Reply,
    Ret,
    reply,
)
from elemta.queue import Attempt, Message, Recipient, Report, Result, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from email.message import EmailMessage

ANN: Final = Mailbox("ann", "sender.example")
NOW: Final = 1_800_000_200.0
CONFIG: Final = """
hostname: mx.us.example
listeners: [{name: mx, address: "127.0.0.1:25"}]
"""
FAILED, DELAYED = Action.FAILED, Action.DELAYED
DELIVERED, RELAYED = Action.DELIVERED, Action.RELAYED
NO_SUCH_USER: Final = reply(550, 1, 1, "unknown user")
LATER: Final = reply(450, 2, 0, "later")
TAKEN: Final = reply(250, 0, 0, "taken")
RESULTS: Final = {
    FAILED: Result.FAILED,
    DELAYED: Result.DEFERRED,
    DELIVERED: Result.DELIVERED,
    RELAYED: Result.DELIVERED,
}


class Stored:
    """A body: in memory, in pieces, or on a disk that fails after some of them."""

    def __init__(
        self, content: bytes, *, large: bool = False, broken: bool = False, breaks_at: int = 10**9
    ) -> None:
        self.size = len(content)
        self.octets: bytes | None = None if large or broken else content
        self.read = 0
        self._content = content
        self._breaks_at = 0 if broken else breaks_at

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        for start in range(0, self.size, 1000):
            if start >= self._breaks_at:
                raise StoreUnavailable("the disk is gone")
            self.read += 1000
            yield self._content[start : start + 1000]
        if self._breaks_at == 0:
            raise StoreUnavailable("the disk is gone")


SMALL: Final = Stored(b"Subject: hi\r\nX-Mark: 1\r\n\r\nsecret body\r\n")


def reporter(config: str = CONFIG) -> Reporter:
    numbers = count(1)
    return Reporter(
        load(config), lambda: f"01JD00000000000000000000{next(numbers):02}", lambda: NOW
    )


def to(
    name: str,
    number: int = 0,
    *notify: Notify,
    orcpt: str | None = None,
    alias: str | None = None,
    warned: bool = False,
) -> Recipient:
    return Recipient(
        number=number,
        address=Mailbox(name, "b.example"),
        params=RcptParams(
            notify=frozenset(notify), orcpt=OriginalRecipient("rfc822", orcpt) if orcpt else None
        ),
        original=Mailbox(alias, "us.example") if alias else None,
        warned=warned,
    )


def message(
    *recipients: Recipient,
    sender: Mailbox | None = ANN,
    ret: Ret | None = None,
    size: int = SMALL.size,
    tags: tuple[str, ...] = (),
) -> Message:
    return Message(
        id="01JD000000000000000000000A",
        sender=sender,
        params=MailParams(envid="env-1", ret=ret),
        recipients=[*recipients],
        received_at=1_800_000_000.0,
        expires_at=1_800_432_000.0,
        size=size,
        tags=tags,
    )


def attempt(recipient: Recipient, action: Action, said: Reply) -> Attempt:
    return Attempt(
        number=recipient.number,
        started=1_800_000_100.0,
        ended=1_800_000_101.0,
        result=RESULTS[action],
        destination="mx:b.example",
        host="mx.b.example[192.0.2.1]:25",
        reply=said,
        remote=True,
    )


async def told(
    *recipients: Recipient,
    action: Action = FAILED,
    said: Reply = NO_SUCH_USER,
    body: Stored | None = SMALL,
    sender: Mailbox | None = ANN,
    ret: Ret | None = None,
    by: Reporter | None = None,
    others: tuple[Recipient, ...] = (),
) -> Report | None:
    """The one report of what happened to all these, if there is one."""
    about = message(*recipients, *others, sender=sender, ret=ret, size=body.size if body else 0)
    news = [News(action, each, attempt(each, action, said)) for each in recipients]
    reports = await (by or reporter()).tell(about, news, body)
    assert len(reports) <= 1
    return reports[0] if reports else None


def parsed(report: Report | None) -> EmailMessage:
    assert report is not None
    return message_from_bytes(report.content, policy=default)  # type: ignore[return-value] # that policy's


def returned(report: Report | None) -> EmailMessage:
    """The part with the message, or its header."""
    return parsed(report).get_payload()[2]  # type: ignore[return-value,index] # it has three parts


def text(report: Report | None) -> str:
    assert report is not None
    return report.content.decode()


async def test_the_sender_is_told_from_nobody() -> None:
    report = await told(to("bob", orcpt="robert@b.example"))
    assert report is not None
    assert report.envelope.sender is None
    assert report.envelope.params == MailParams()
    assert [each.address for each in report.envelope.recipients] == [ANN]
    # A report asks for none (RFC 3461 §6.1).
    assert [each.params for each in report.envelope.recipients] == [RcptParams()]
    told_ = parsed(report)
    assert told_["To"] == "ann@sender.example"
    assert told_["Auto-Submitted"] == "auto-replied"
    words = text(report)
    assert "Final-Recipient: rfc822; bob@b.example" in words
    assert "Original-Recipient: rfc822; robert@b.example" in words
    assert "Original-Envelope-Id: env-1" in words
    assert "Status: 5.1.1" in words
    assert "Action: failed" in words
    assert "X-Mark: 1" in words
    assert "secret body" not in words


async def test_one_report_tells_of_all_that_failed_together() -> None:
    report = await told(*(to(f"user{n}", n) for n in range(5)))
    assert text(report).count("Final-Recipient:") == 5


async def test_each_fate_has_a_report_of_its_own() -> None:
    people = [
        to(name, n, Notify.SUCCESS, Notify.FAILURE, Notify.DELAY) for n, name in enumerate("abcd")
    ]
    actions = (FAILED, DELAYED, DELIVERED, RELAYED)
    writer = reporter()
    reports = await writer.tell(
        message(*people),
        [
            News(how, who, attempt(who, how, LATER))
            for who, how in zip(people, actions, strict=True)
        ],
        SMALL,
    )
    assert [parsed(each)["Subject"] for each in reports] == [
        "Your message could not be delivered",
        "Your message is delayed",
        "Your message was delivered",
        "Your message was passed on",
    ]
    assert len({parsed(each)["Message-ID"] for each in reports}) == 4
    assert writer.counts == Counts(failure=1, delay=1, success=1, relayed=1)


EVERYTHING: Final = {FAILED, DELAYED, DELIVERED, RELAYED}


@pytest.mark.parametrize(
    ("notify", "wanted"),
    [
        ((), {FAILED, DELAYED}),
        ((Notify.NEVER,), set[Action]()),
        ((Notify.FAILURE,), {FAILED}),
        ((Notify.DELAY,), {DELAYED}),
        ((Notify.SUCCESS,), {DELIVERED, RELAYED}),
        ((Notify.SUCCESS, Notify.FAILURE, Notify.DELAY), EVERYTHING),
    ],
    ids=["unsaid", "never", "failure", "delay", "success", "all"],
)
async def test_fault_23_senders_are_told_what_notify_asks_for(
    notify: tuple[Notify, ...], wanted: set[Action]
) -> None:
    found = {how for how in EVERYTHING if await told(to("bob", 0, *notify), action=how)}
    assert found == wanted


async def test_only_those_are_told_of_whose_sender_wants_it() -> None:
    report = await told(to("quiet", 0, Notify.NEVER), to("bob", 1))
    assert "quiet@" not in text(report)
    assert "bob@b.example" in text(report)


async def test_a_delay_is_told_with_how_long_we_go_on() -> None:
    bob = to("bob")
    news = News(DELAYED, bob, attempt(bob, DELAYED, LATER), 1_800_432_000.0)
    [report] = await reporter().tell(message(bob), [news], SMALL)
    words = text(report)
    assert "Will-Retry-Until: Wed, 20 Jan 2027 08:00:00 +0000" in words
    assert "Status: 4.2.0" in words


# What comes back.


async def test_fault_23_a_message_comes_back_as_ret_asks_for() -> None:
    whole = returned(await told(to("bob"), ret=Ret.FULL))
    assert whole.get_content_type() == "message/rfc822"
    assert "secret body" in whole.as_string()
    for ret in (Ret.HEADERS, None):
        header = returned(await told(to("bob"), ret=ret))
        assert header.get_content_type() == "text/rfc822-headers"
        assert "secret body" not in header.as_string()


async def test_only_a_failure_returns_a_message_whole() -> None:
    for action in (DELAYED, DELIVERED):
        report = await told(to("bob", 0, *Notify), action=action, said=LATER, ret=Ret.FULL)
        assert returned(report).get_content_type() == "text/rfc822-headers"


async def test_of_a_message_above_return_size_the_header_comes_back() -> None:
    def of(size: int) -> Stored:
        return Stored(b"A: b\r\n\r\n".ljust(size - 2, b"x") + b"\r\n", large=size > 900)

    small = reporter(f"{CONFIG}queue: {{return_size: 800 B}}")
    kinds = [
        returned(await told(to("bob"), ret=Ret.FULL, body=of(size), by=small)).get_content_type()
        for size in (800, 801)
    ]
    assert kinds == ["message/rfc822", "text/rfc822-headers"]


async def test_a_large_message_comes_back_whole_too_if_it_may() -> None:
    body = Stored(b"A: b\r\n\r\n" + b"hello\r\n" * 2000, large=True)
    part = returned(await told(to("bob"), ret=Ret.FULL, body=body))
    assert part.get_content_type() == "message/rfc822"
    assert part.as_string().count("hello") == 2000


async def test_of_a_message_that_cannot_be_read_to_its_end_the_header_comes_back() -> None:
    body = Stored(b"A: b\r\n\r\n" + b"hello\r\n" * 2000, large=True, breaks_at=5000)
    part = returned(await told(to("bob"), ret=Ret.FULL, body=body))
    assert part.get_content_type() == "text/rfc822-headers"
    assert "A: b" in part.as_string()


async def test_of_a_large_message_only_the_beginning_is_read() -> None:
    body = Stored(b"Subject: large\r\n\r\n" + b"x" * 1_000_000, large=True)
    assert "Subject: large" in str(parsed(await told(to("bob"), body=body)))
    assert body.read == 1000
    endless = Stored(b"Subject: large\r\nX: " + b"x" * 1_000_000, large=True)
    report = await told(to("bob"), body=endless)
    assert report is not None
    assert endless.read <= 51_000
    assert len(report.content) < 60_000


async def test_a_sender_is_told_though_the_message_cannot_be_read() -> None:
    for body in (Stored(b"x", broken=True), None):
        for ret in (None, Ret.FULL):
            report = await told(to("bob"), body=body, ret=ret)
            assert "Final-Recipient: rfc822; bob@b.example" in text(report)


async def test_a_sender_beyond_ascii_needs_smtputf8() -> None:
    report = await told(to("bob"), sender=Mailbox("jörg", "sender.example"))
    assert report is not None
    assert report.envelope.params.smtputf8
    assert b"message/global-delivery-status" in report.content
    plain = await told(to("bob"))
    assert plain is not None
    assert not plain.envelope.params.smtputf8


# Aliases.


async def test_where_an_alias_led_is_not_told() -> None:
    said = reply(550, 1, 1, "<BOB@b.example> is unknown", "ask bob@b.example")
    report = await told(to("bob", alias="sales", orcpt="sales@us.example"), said=said)
    words = text(report)
    assert "b.example" not in words.lower()
    assert "550 5.1.1 <sales@us.example> is unknown" in words
    assert "Final-Recipient: rfc822; sales@us.example" in words
    assert "Original-Recipient: rfc822; sales@us.example" in words
    assert "Remote-MTA" not in words


async def test_the_same_fate_of_some_behind_an_alias_is_told_once() -> None:
    behind = [to(name, n, alias="sales") for n, name in enumerate(("bob", "cid"))]
    assert text(await told(*behind)).count("Final-Recipient") == 1


@pytest.mark.parametrize("action", [DELIVERED, RELAYED])
async def test_the_success_of_an_alias_for_several_is_an_expansion(action: Action) -> None:
    first, second = to("bob", 0, Notify.SUCCESS, alias="sales"), to("cid", 1, alias="sales")
    writer = reporter()
    words = text(await told(first, others=(second,), action=action, said=TAKEN, by=writer))
    assert "Action: expanded" in words
    assert "Status: 2.0.0" in words
    assert writer.counts == Counts(success=1)
    alone = text(await told(first, others=(to("cid", 1),), action=action, said=TAKEN))
    assert f"Action: {action.value}" in alone


async def test_the_delay_of_an_alias_is_told_once() -> None:
    late = to("bob", 0, alias="sales")
    warned = to("cid", 1, alias="sales", warned=True)
    assert await told(late, others=(warned,), action=DELAYED, said=LATER) is None
    other = to("cid", 1, alias="support", warned=True)
    assert await told(late, others=(other,), action=DELAYED, said=LATER) is not None
    direct = to("dora", 2)
    assert await told(direct, others=(warned,), action=DELAYED, said=LATER) is not None


# Messages from nobody.


async def test_the_failure_of_a_report_is_told_to_nobody() -> None:
    writer = reporter()
    assert await told(to("bob"), sender=None, by=writer) is None
    assert writer.counts == Counts(dropped=1)


async def test_nobody_is_told_of_the_delay_or_success_of_a_report() -> None:
    writer = reporter(f"{CONFIG}queue: {{double_bounces: postmaster}}")
    for action in (DELAYED, DELIVERED, RELAYED):
        assert await told(to("bob", 0, *Notify), sender=None, action=action, by=writer) is None
    assert writer.counts == Counts()


POSTMASTER: Final = f"{CONFIG}queue: {{double_bounces: postmaster}}"


async def test_a_postmaster_can_be_told_of_a_report_that_nobody_takes() -> None:
    writer = reporter(POSTMASTER)
    report = await told(to("bob", alias="sales"), sender=None, by=writer)
    assert report is not None
    assert report.envelope.sender is None
    assert [str(each.address) for each in report.envelope.recipients] == [
        "postmaster@mx.us.example"
    ]
    assert report.envelope.tags == (DOUBLE_BOUNCE,)
    assert parsed(report)["Subject"] == "A report could not be delivered"
    # It is our own postmaster: nothing is hidden, and the report comes back whole.
    assert "Final-Recipient: rfc822; bob@b.example" in text(report)
    assert "secret body" in returned(report).as_string()
    assert writer.counts == Counts(double_bounced=1)


async def test_what_fails_on_its_way_to_the_postmaster_is_dropped() -> None:
    writer = reporter(POSTMASTER)
    bob = to("bob")
    about = message(bob, sender=None, tags=(DOUBLE_BOUNCE,))
    assert await writer.failure(about, [(bob, attempt(bob, FAILED, NO_SUCH_USER))], SMALL) == ()
    assert writer.counts == Counts(dropped=1)


async def test_the_postmaster_is_that_of_the_first_domain() -> None:
    writer = reporter(f"{POSTMASTER}\ndomains: [{{name: us.example}}, {{name: b.example}}]")
    report = await told(to("bob"), sender=None, by=writer)
    assert report is not None
    assert report.envelope.recipients[0].address == Mailbox("postmaster", "us.example")


async def test_a_new_configuration_holds_for_the_next_report() -> None:
    writer = reporter()
    config = load(POSTMASTER)
    writer.configure(replace(config, hostname="other.us.example"))
    report = await told(to("bob"), sender=None, by=writer)
    assert report is not None
    assert report.envelope.recipients[0].address == Mailbox("postmaster", "other.us.example")
    assert "Reporting-MTA: dns; other.us.example" in text(report)


async def test_a_failure_that_somebody_else_decided_is_told_as_well() -> None:
    bob, quiet = to("bob"), to("quiet", 1, Notify.NEVER)
    refused = reply(554, 7, 0, "refused by the postmaster")
    [report] = await reporter().failure(
        message(bob, quiet),
        [(each, attempt(each, FAILED, refused)) for each in (bob, quiet)],
        SMALL,
    )
    assert "554 5.7.0 refused by the postmaster" in text(report)
    assert "quiet" not in text(report)
