"""Reports, read back by the standard library: another hand than the one that wrote them."""

from __future__ import annotations

import email
import email.policy
from email.message import EmailMessage, Message
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest

from elemta.message import Action, RecipientStatus, write_report
from elemta.protocol import Mailbox, OriginalRecipient, Reply, reply

if TYPE_CHECKING:
    from collections.abc import Sequence

NOW = 1_800_000_000
ALICE = Mailbox("alice", "example.org")
BOB = RecipientStatus(
    address=Mailbox("bob", "example.net"),
    orcpt=OriginalRecipient("rfc822", "robert@example.com"),
    reply=reply(550, 1, 1, "no such user", "see https://example.net/(help)"),
    remote=True,
    host="mx.example.net[192.0.2.1]:25",
    attempted=NOW,
)
CAROL = RecipientStatus(
    address=Mailbox("carol", "example.com"),
    reply=Reply(451, None, ("no mail exchanger answered",)),
)
HEADER = b"From: alice@example.org\r\nSubject: hello\r\n"


class Parts(NamedTuple):
    top: EmailMessage
    people: str
    statuses: list[Message]
    header: bytes


def report(
    *recipients: RecipientStatus,
    header: bytes = HEADER,
    to: Mailbox = ALICE,
    report_id: str = "01REPORT",
    envid: str | None = None,
    action: Action = Action.FAILED,
    whole: bool = False,
    of_a_report: bool = False,
) -> bytes:
    octets = write_report(
        hostname="mx.example.org",
        report_id=report_id,
        to=to,
        recipients=recipients or (BOB, CAROL),
        content=header,
        whole=whole,
        message_id="01MESSAGE",
        arrived=NOW - 3600,
        now=NOW,
        envid=envid,
        action=action,
        of_a_report=of_a_report,
    )
    assert octets.endswith(b"\r\n")
    assert octets.count(b"\r\n") == octets.count(b"\r") == octets.count(b"\n")
    assert b"\0" not in octets
    assert all(len(line) <= 998 for line in octets.split(b"\r\n"))
    return octets


def parts_of(octets: bytes) -> tuple[EmailMessage, EmailMessage, EmailMessage, EmailMessage]:
    top = email.message_from_bytes(octets, policy=email.policy.SMTP)
    assert isinstance(top, EmailMessage)
    assert top.get_content_type() == "multipart/report"
    assert top.defects == []
    people, statuses, returned = top.get_payload()
    assert people.get_content_type() == "text/plain"
    # The type of the second part is that of the report (RFC 6522 §3).
    assert f"message/{top.get_param('report-type')}" == statuses.get_content_type()
    return top, people, statuses, returned


def read(octets: bytes) -> Parts:
    top, people, statuses, header = parts_of(octets)
    assert octets.isascii()
    assert statuses.get_content_type() == "message/delivery-status"
    assert header.get_content_type() == "text/rfc822-headers"
    return Parts(
        top,
        people.get_content().replace("\r\n", "\n"),
        list(statuses.get_payload()),
        header.get_payload(decode=True),
    )


def statuses_of(*recipients: RecipientStatus, action: Action = Action.FAILED) -> Sequence[Message]:
    return read(report(*recipients, action=action)).statuses[1:]


def test_a_report_is_no_mail_to_answer_to() -> None:
    top = read(report()).top
    assert top["From"] == "Mail Delivery System <MAILER-DAEMON@mx.example.org>"
    assert top["To"] == "alice@example.org"
    assert top["Subject"] == "Your message could not be delivered"
    assert top["Message-ID"] == "<01REPORT@mx.example.org>"
    assert top["Date"] == "Fri, 15 Jan 2027 08:00:00 +0000"
    assert top["Auto-Submitted"] == "auto-replied"
    assert top["MIME-Version"] == "1.0"


def test_people_read_what_the_server_said_word_for_word() -> None:
    assert read(report()).people == (
        "This is the mail system of mx.example.org.\n"
        "\n"
        "Your message could not be delivered to the recipients listed here.\n"
        "Nothing more will be tried: if it still matters, please send it again.\n"
        "\n"
        "<bob@example.net>\n"
        "    mx.example.net[192.0.2.1]:25 said:\n"
        "        550 5.1.1 no such user\n"
        "        550 5.1.1 see https://example.net/(help)\n"
        "\n"
        "<carol@example.com>\n"
        "    We have tried for as long as we may. The last time:\n"
        "        451 no mail exchanger answered\n"
        "\n"
        "The message came in on Fri, 15 Jan 2027 07:00:00 +0000\n"
        "and is known here as 01MESSAGE.\n"
        "Details for programs, and the header of the message, are attached.\n"
    )


def test_programs_read_fields() -> None:
    message, bob, carol = read(report(envid="QQ314159")).statuses
    assert message.items() == [
        ("Original-Envelope-Id", "QQ314159"),
        ("Reporting-MTA", "dns; mx.example.org"),
        ("X-Elemta-Id", "01MESSAGE"),
        ("Arrival-Date", "Fri, 15 Jan 2027 07:00:00 +0000"),
    ]
    assert [(name, " ".join(value.split())) for name, value in bob.items()] == [
        ("Original-Recipient", "rfc822; robert@example.com"),
        ("Final-Recipient", "rfc822; bob@example.net"),
        ("Action", "failed"),
        ("Status", "5.1.1"),
        ("Remote-MTA", "dns; mx.example.net"),
        ("Diagnostic-Code", "smtp; 550 5.1.1 no such user see https://example.net/(help)"),
        ("Last-Attempt-Date", "Fri, 15 Jan 2027 08:00:00 +0000"),
    ]
    assert carol.items() == [
        ("Final-Recipient", "rfc822; carol@example.com"),
        ("Action", "failed"),
        ("Status", "4.0.0"),
        ("Diagnostic-Code", "X-Elemta; 451 no mail exchanger answered"),
    ]


def test_the_header_comes_back_as_it_was() -> None:
    assert read(report()).header == HEADER + b""
    for header in (b"Subject: h\xc3\xa4\xff\r\nA: b = c \r\n", b"A: " + b"x" * 2000 + b"\r\n"):
        octets = report(header=header)
        assert octets.isascii()
        assert read(octets).header == header


def test_the_body_does_not_come_back() -> None:
    assert read(report(header=HEADER + b"\r\nsecret\r\n")).header == HEADER


def test_of_a_huge_header_whole_lines_come_back() -> None:
    header = b"A: bcdefgh\r\n" * 10_000
    back = read(report(header=header)).header
    assert back == header[: len(back)]
    assert 49_000 < len(back) <= 50_000
    assert back.endswith(b"\r\n")
    assert len(read(report(header=b"x" * 100_000)).header) == 50_000


def test_a_recipient_beyond_ascii_is_told_in_ascii() -> None:
    octets = report(
        RecipientStatus(
            address=Mailbox("b=ö b", "bücher.example"),
            orcpt=OriginalRecipient("utf-8", "ö@bücher.example"),
            reply=reply(553, 6, 7, "нет"),
            remote=True,
            host="mx.bücher.example[192.0.2.1]:25",
        )
    )
    assert octets.isascii()
    parts = read(octets)
    assert '<"b=ö b"@bücher.example>' in parts.people
    assert "553 5.6.7 нет" in parts.people
    status = parts.statuses[1]
    assert status["Original-Recipient"] == r"utf-8; \x{F6}@b\x{FC}cher.example"
    assert status["Final-Recipient"] == r'utf-8; "b\x{3D}\x{F6}\x{20}b"@b\x{FC}cher.example'
    assert status["Remote-MTA"] == r"dns; mx.b\xfccher.example"
    assert status["Diagnostic-Code"] == r"smtp; 553 5.6.7 \u043d\u0435\u0442"


GLOBAL: Final = Mailbox("ä", "bücher.example")
MESSAGE: Final = HEADER + b"\r\nhello\r\n.\r\n"


def raw_part(octets: bytes, number: int) -> bytes:
    """A part as it stands on the wire, its header included."""
    boundary = b"--=_01REPORT"
    return octets.split(boundary)[number].removeprefix(b"\r\n").removesuffix(b"\r\n")


def test_a_sender_beyond_ascii_is_told_in_utf8() -> None:
    mailbox = RecipientStatus(
        address=Mailbox("b=ö b", "bücher.example"),
        orcpt=OriginalRecipient("utf-8", "ö@bücher.example\u200b"),
        reply=reply(553, 6, 7, "нет"),
        remote=True,
        host="mx.bücher.example[192.0.2.1]:25",
    )
    octets = report(mailbox, to=GLOBAL, header="Subject: ß\r\n".encode(), envid="ö")
    assert "\r\nTo: <ä@bücher.example>\r\n".encode() in octets
    top, _, statuses, returned = parts_of(octets)
    assert top.get_param("report-type") == "global-delivery-status"
    assert statuses.get_content_type() == "message/global-delivery-status"
    assert returned.get_content_type() == "message/global-headers"
    assert raw_part(octets, 3).decode() == (
        "Content-Type: message/global-headers\r\n"
        "Content-Transfer-Encoding: 8bit\r\n\r\nSubject: ß\r\n"
    )
    fields = raw_part(octets, 2).decode().replace("\r\n ", " ")
    assert "Content-Transfer-Encoding: 8bit\r\n\r\nOriginal-Envelope-Id: ö\r\n" in fields
    assert "Original-Recipient: utf-8; ö@bücher.example\\x{200B}\r\n" in fields
    assert 'Final-Recipient: utf-8; "b\\x{3D}ö\\x{20}b"@bücher.example\r\n' in fields
    assert "Remote-MTA: dns; mx.bücher.example\r\n" in fields
    assert "Diagnostic-Code: smtp; 553 5.6.7 нет\r\n" in fields


def test_an_ascii_recipient_stays_one_in_a_report_in_utf8() -> None:
    fields = raw_part(report(BOB, to=GLOBAL), 2)
    assert b"Content-Transfer-Encoding: 7bit\r\n" in fields
    assert b"Final-Recipient: rfc822; bob@example.net\r\n" in fields


def test_a_header_that_is_not_utf8_is_quoted_in_any_report() -> None:
    header = b"Subject: \xff\r\n"
    for to in (ALICE, GLOBAL):
        *_, returned = parts_of(report(to=to, header=header))
        assert returned.get_content_type() == "text/rfc822-headers"
        assert returned.get_payload(decode=True) == header


def test_a_message_comes_back_whole_if_its_sender_asked_for_that() -> None:
    octets = report(header=MESSAGE, whole=True)
    assert octets.isascii()
    _, people, _, returned = parts_of(octets)
    assert returned.get_content_type() == "message/rfc822"
    [inner] = returned.get_payload()
    assert inner["Subject"] == "hello"
    assert raw_part(octets, 3).endswith(b"\r\n\r\n" + MESSAGE)
    assert "Details for programs, and the message, are attached." in people.get_content()


@pytest.mark.parametrize(
    "body",
    [b"h\xc3\xa4\r\n", b"nul\0\r\n", b"bare\n", b"x" * 999 + b"\r\n"],
    ids=["8-bit", "NUL", "bare LF", "long line"],
)
def test_of_a_message_that_cannot_stand_in_a_report_the_header_comes_back(body: bytes) -> None:
    parts = read(report(header=HEADER + b"\r\n" + body, whole=True))
    assert parts.header == HEADER
    assert "and the header of the message, are attached" in parts.people


def test_a_report_in_utf8_can_hold_an_8bit_message() -> None:
    for header, kind in (
        ("Subject: ß\r\n".encode(), "message/global"),
        (b"Subject: s\r\n", "message/global"),
        (b"Subject: \xff\r\n", "message/rfc822"),
    ):
        content = header + b"\r\nh\xc3\xa4\r\n"
        octets = report(header=content, whole=True, to=GLOBAL)
        assert raw_part(octets, 3) == (
            f"Content-Type: {kind}\r\nContent-Transfer-Encoding: 8bit\r\n\r\n".encode() + content
        )
        assert parts_of(octets)[3].get_content_type() == kind
    unclean = report(header=HEADER + b"\r\nbare\n", whole=True, to=GLOBAL)
    assert raw_part(unclean, 3).endswith(b"\r\n\r\n" + HEADER)


def test_who_is_told_of_a_delay_learns_how_long_we_go_on() -> None:
    each = RecipientStatus(
        address=BOB.address, reply=reply(451, 7, 1, "greylisted"), retry_until=NOW + 86400
    )
    delayed = read(report(each, CAROL, action=Action.DELAYED))
    assert "\n    We go on until Sat, 16 Jan 2027 08:00:00 +0000.\n" in delayed.people
    assert delayed.statuses[1]["Will-Retry-Until"] == "Sat, 16 Jan 2027 08:00:00 +0000"
    assert "Will-Retry-Until" not in delayed.statuses[2]


def test_a_5xx_that_is_tried_again_is_a_delay_not_a_failure() -> None:
    [status] = statuses_of(
        RecipientStatus(address=BOB.address, reply=reply(554, 7, 1, "go away")),
        action=Action.DELAYED,
    )
    assert status["Status"] == "4.7.1"
    assert status["Diagnostic-Code"] == "X-Elemta; 554 5.7.1 go away"


def test_a_postmaster_is_told_that_a_report_failed() -> None:
    top, people, statuses, returned = parts_of(report(header=MESSAGE, whole=True, of_a_report=True))
    assert top["Subject"] == "A report could not be delivered"
    assert "a report is not answered by a report" in people.get_content()
    assert list(statuses.get_payload())[1]["Action"] == "failed"
    assert returned.get_content_type() == "message/rfc822"


def test_a_server_that_never_stops_talking_is_cut_short() -> None:
    long = Reply(550, (1, 1), ("x" * 4000,) * 100)
    each = RecipientStatus(address=BOB.address, reply=long, remote=True)
    octets = report(each)
    assert len(octets) < 30_000
    assert "The remote server said:" in read(octets).people


def test_who_was_spoken_to_is_told_though_the_words_are_ours() -> None:
    each = RecipientStatus(
        address=BOB.address, reply=reply(554, 4, 6, "mail loop"), host="[192.0.2.1]:2525"
    )
    assert (
        "    We spoke to [192.0.2.1]:2525:\n        554 5.4.6 mail loop"
        in read(report(each)).people
    )
    assert statuses_of(each)[0]["Remote-MTA"] == "dns; [192.0.2.1]:2525"


@pytest.mark.parametrize(
    ("action", "answer", "status", "subject"),
    [
        (Action.FAILED, reply(550, 1, 1, "no"), "5.1.1", "Your message could not be delivered"),
        (Action.DELAYED, reply(451, 2, 0, "later"), "4.2.0", "Your message is delayed"),
        (Action.DELIVERED, reply(250, 1, 5, "ok"), "2.1.5", "Your message was delivered"),
        (Action.RELAYED, Reply(250, None, ("ok",)), "2.0.0", "Your message was passed on"),
        (Action.EXPANDED, reply(250, 1, 5, "ok"), "2.1.5", "Your message was delivered"),
    ],
)
def test_other_things_than_failures_can_be_told(
    action: Action, answer: Reply, status: str, subject: str
) -> None:
    parts = read(report(RecipientStatus(address=BOB.address, reply=answer), action=action))
    assert parts.top["Subject"] == subject
    assert parts.statuses[1]["Action"] == action.value
    assert parts.statuses[1]["Status"] == status
    assert "as long as we may" not in parts.people


def test_no_message_can_forge_a_part_of_its_report() -> None:
    header = b"Subject: x\r\n--=_01REPORT--\r\n--=_01REPORT=\r\nTo: eve\r\n"
    assert read(report(header=header)).header == header


def test_an_unheard_of_address_type_is_made_harmless() -> None:
    for kind, want in (("x400\r\nBcc", "x400Bcc"), ("ä", "unknown")):
        each = RecipientStatus(
            address=BOB.address, orcpt=OriginalRecipient(kind, "a\r\nb\x1b"), reply=BOB.reply
        )
        assert statuses_of(each)[0]["Original-Recipient"] == rf"{want}; a\r\nb\x1b"
