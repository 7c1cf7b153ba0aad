from __future__ import annotations

from email import message_from_bytes
from email.policy import default
from typing import TYPE_CHECKING

import pytest

from elemta.delivery.bounce import report_failure
from elemta.protocol import Mailbox, MailParams, Notify, OriginalRecipient, RcptParams, reply
from elemta.queue import Attempt, Message, Recipient, Report, Result, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from email.message import EmailMessage

ANN = Mailbox("ann", "sender.example")


class Stored:
    """A body: in memory, in pieces, or on a disk that fails."""

    def __init__(self, content: bytes, *, large: bool = False, broken: bool = False) -> None:
        self.size = len(content)
        self.octets: bytes | None = None if large or broken else content
        self.read = 0
        self._content = content
        self._broken = broken

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        if self._broken:
            raise StoreUnavailable("the disk is gone")
        for start in range(0, self.size, 1000):
            self.read += 1000
            yield self._content[start : start + 1000]


SMALL = Stored(b"Subject: hi\r\nX-Mark: 1\r\n\r\nsecret body\r\n")


async def bounce(
    *recipients: Recipient,
    body: Stored | None = SMALL,
    sender: Mailbox | None = ANN,
    replies: Sequence[int] = (550,),
) -> Report | None:
    message = Message(
        id="01JD0000000000000000000000",
        sender=sender,
        params=MailParams(envid="env-1"),
        recipients=[*recipients],
        received_at=1_800_000_000.0,
        expires_at=1_800_432_000.0,
        size=0,
    )
    failed = [
        (
            recipient,
            Attempt(
                number=recipient.number,
                started=1_800_000_100.0,
                ended=1_800_000_101.0,
                result=Result.FAILED,
                destination="mx:b.example",
                host="mx.b.example[192.0.2.1]:25",
                reply=reply(replies[recipient.number % len(replies)], 1, 1, "unknown user"),
                remote=True,
            ),
        )
        for recipient in recipients
    ]
    return await report_failure(
        message,
        failed,
        body,
        hostname="mx.us.example",
        report_id="01JD0000000000000000000001",
        now=1_800_000_200.0,
    )


def parsed(report: Report | None) -> EmailMessage:
    assert report is not None
    return message_from_bytes(report.content, policy=default)  # type: ignore[return-value]


def to(name: str, number: int = 0, *notify: Notify, orcpt: str | None = None) -> Recipient:
    params = RcptParams(
        notify=frozenset(notify), orcpt=OriginalRecipient("rfc822", orcpt) if orcpt else None
    )
    return Recipient(number=number, address=Mailbox(name, "b.example"), params=params)


async def test_the_sender_is_told_from_nobody() -> None:
    report = await bounce(to("bob", orcpt="robert@b.example"))
    assert report is not None
    assert report.envelope.sender is None
    assert [each.address for each in report.envelope.recipients] == [ANN]
    told = parsed(report)
    assert told["To"] == "ann@sender.example"
    assert told["Auto-Submitted"] == "auto-replied"
    text = report.content.decode()
    assert "Final-Recipient: rfc822; bob@b.example" in text
    assert "Original-Recipient: rfc822; robert@b.example" in text
    assert "Original-Envelope-Id: env-1" in text
    assert "Status: 5.1.1" in text
    assert "X-Mark: 1" in text
    assert "secret body" not in text


async def test_one_report_tells_of_all_that_failed_together() -> None:
    report = await bounce(*(to(f"user{n}", n) for n in range(5)))
    assert report is not None
    assert report.content.count(b"Final-Recipient:") == 5


@pytest.mark.parametrize(
    ("notify", "told"),
    [
        ((), True),
        ((Notify.FAILURE,), True),
        ((Notify.SUCCESS, Notify.FAILURE), True),
        ((Notify.NEVER,), False),
        ((Notify.SUCCESS,), False),
        ((Notify.DELAY,), False),
    ],
    ids=repr,
)
async def test_who_did_not_want_to_be_told_is_not(notify: tuple[Notify, ...], told: bool) -> None:
    assert (await bounce(to("bob", 0, *notify)) is not None) == told


async def test_only_those_are_told_of_whose_sender_wants_it() -> None:
    report = await bounce(to("quiet", 0, Notify.NEVER), to("bob", 1))
    assert report is not None
    assert b"quiet@" not in report.content
    assert b"bob@b.example" in report.content


async def test_the_failure_of_a_report_is_told_to_nobody() -> None:
    assert await bounce(to("bob"), sender=None) is None


async def test_of_a_large_message_only_the_beginning_is_read() -> None:
    body = Stored(b"Subject: large\r\n\r\n" + b"x" * 1_000_000, large=True)
    assert "Subject: large" in str(parsed(await bounce(to("bob"), body=body)))
    assert body.read == 1000
    endless = Stored(b"Subject: large\r\nX: " + b"x" * 1_000_000, large=True)
    report = await bounce(to("bob"), body=endless)
    assert report is not None
    assert endless.read <= 51_000
    assert len(report.content) < 60_000


async def test_a_sender_is_told_though_the_message_cannot_be_read() -> None:
    for body in (Stored(b"x", broken=True), None):
        report = await bounce(to("bob"), body=body)
        assert report is not None
        assert b"Final-Recipient: rfc822; bob@b.example" in report.content


async def test_a_sender_beyond_ascii_needs_smtputf8() -> None:
    report = await bounce(to("bob"), sender=Mailbox("jörg", "sender.example"))
    assert report is not None
    assert report.envelope.params.smtputf8
    plain = await bounce(to("bob"))
    assert plain is not None
    assert not plain.envelope.params.smtputf8
