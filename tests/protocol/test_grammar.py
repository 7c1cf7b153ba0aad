from __future__ import annotations

import pytest

from elemta.protocol import (
    Auth,
    Body,
    Chunk,
    Hello,
    Help,
    Mail,
    Mailbox,
    MailParams,
    Noop,
    Notify,
    Offer,
    OriginalRecipient,
    Rcpt,
    RcptParams,
    Reply,
    Ret,
    Verify,
)
from elemta.protocol.grammar import Hostile, parse

EVERYTHING = Offer(starttls=True, mechanisms=("PLAIN",), mt_priority=True)
NOTHING = Offer(size=False, eight_bit=False, smtputf8=False, dsn=False, chunking=False)
A_B = Mailbox("a", "b")


def refusal(line: str, offer: Offer = EVERYTHING) -> str:
    refused = parse(line.encode(), offer)
    assert isinstance(refused, Reply)
    return f"{refused.code} {refused.enhanced}"


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("mail from:<a@b>", Mail(A_B, MailParams())),
        ("MAIL FROM: <a@b>", Mail(A_B, MailParams())),
        ("MAIL FROM:<a@b> \t", Mail(A_B, MailParams())),
        ("MAIL FROM:<>", Mail(None, MailParams())),
        ("MAIL FROM:<@x,@y.example:a@b>", Mail(A_B, MailParams())),
        ('MAIL FROM:<"> SIZE=1"@b>', Mail(Mailbox("> SIZE=1", "b"), MailParams())),
        ("MAIL FROM:<a@b> SIZE=0", Mail(A_B, MailParams(size=0))),
        ("MAIL FROM:<a@b>  size=7 ", Mail(A_B, MailParams(size=7))),
        ("MAIL FROM:<a@b>  body=8bitmime", Mail(A_B, MailParams(body=Body.EIGHT_BIT))),
        ("MAIL FROM:<a@b> BODY=7BIT", Mail(A_B, MailParams(body=Body.SEVEN_BIT))),
        ("MAIL FROM:<a@b> RET=hdrs", Mail(A_B, MailParams(ret=Ret.HEADERS))),
        ("MAIL FROM:<a@b> ENVID=a+2Bb=c", Mail(A_B, MailParams(envid="a+b=c"))),
        ("MAIL FROM:<a@b> AUTH=<>", Mail(A_B, MailParams(auth="<>"))),
        ("MAIL FROM:<a@b> AUTH=e+3Dmc2@x", Mail(A_B, MailParams(auth="e=mc2@x"))),
        ("MAIL FROM:<a@b> MT-PRIORITY=9", Mail(A_B, MailParams(mt_priority=9))),
        ("MAIL FROM:<a@b> mt-priority=-9", Mail(A_B, MailParams(mt_priority=-9))),
        ("MAIL FROM:<a@b> MT-PRIORITY=0", Mail(A_B, MailParams(mt_priority=0))),
        ("MAIL FROM:<ü@b> SMTPUTF8", Mail(Mailbox("ü", "b"), MailParams(smtputf8=True))),
        ("RCPT TO:<Postmaster>", Rcpt(Mailbox("postmaster", ""), RcptParams())),
        ("RCPT TO:<a@b> NOTIFY=never", Rcpt(A_B, RcptParams(notify=frozenset({Notify.NEVER})))),
        (
            "RCPT TO:<a@b> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;x+2By@z",
            Rcpt(
                A_B,
                RcptParams(
                    notify=frozenset({Notify.SUCCESS, Notify.DELAY}),
                    orcpt=OriginalRecipient("rfc822", "x+y@z"),
                ),
            ),
        ),
        (
            "RCPT TO:<a@b> ORCPT=UTF-8;\\x{FC}@z",
            Rcpt(A_B, RcptParams(orcpt=OriginalRecipient("utf-8", "ü@z"))),
        ),
        ("EHLO Client.Example", Hello("client.example", extended=True)),
        ("HELO [fe80::1%eth0]", Hello("[fe80::1%eth0]", extended=False)),
        ("EHLO my_pc", Hello("my_pc", extended=True)),
        ("EHLO a.example.", Hello("a.example", extended=True)),
        ("BDAT 10", Chunk(10, last=False)),
        ("bdat 00 last", Chunk(0, last=True)),
        ("VRFY a b", Verify("a b")),
        ("HELP me", Help()),
        ("NOOP whatever", Noop()),
        ("AUTH PLAIN", Auth("PLAIN", None)),
    ],
)
def test_a_command_is_read(line: str, command: object) -> None:
    assert parse(line.encode(), EVERYTHING) == command


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("MAIL", "501 5.5.4"),
        ("MAIL FROM:a@b", "501 5.5.4"),
        ("MAIL TO:<a@b>", "501 5.5.4"),
        ("MAIL FROM:<a@b>SIZE=1", "501 5.5.4"),
        ("MAIL FROM:<a@b", "501 5.5.4"),
        ("MAIL FROM:<a>", "501 5.1.7"),
        ("MAIL FROM:<postmaster>", "501 5.1.7"),
        ("MAIL FROM:<a@b@c>", "501 5.1.7"),
        ("MAIL FROM:<ü@b>", "553 5.6.7"),
        ("MAIL FROM:<> SIZE", "501 5.5.4"),
        ("MAIL FROM:<> SIZE=-1", "501 5.5.4"),
        ("MAIL FROM:<> SIZE=" + "1" * 21, "501 5.5.4"),
        ("MAIL FROM:<> SIZE=1 size=1", "501 5.5.4"),
        ("MAIL FROM:<> BODY=BINARYMIME", "501 5.5.4"),
        ("MAIL FROM:<> RET=ALL", "501 5.5.4"),
        ("MAIL FROM:<> SMTPUTF8=1", "501 5.5.4"),
        ("MAIL FROM:<> ENVID=" + "x" * 101, "501 5.5.4"),
        ("MAIL FROM:<> ENVID=+0D+0A", "501 5.5.4"),
        ("MAIL FROM:<> ENVID=+FC", "501 5.5.4"),
        ("MAIL FROM:<> ENVID=+F", "501 5.5.4"),
        ("MAIL FROM:<> AUTH=x", "501 5.5.4"),
        ("MAIL FROM:<> MT-PRIORITY", "501 5.5.4"),
        ("MAIL FROM:<> MT-PRIORITY=10", "501 5.5.4"),
        ("MAIL FROM:<> MT-PRIORITY=-0", "501 5.5.4"),
        ("MAIL FROM:<> MT-PRIORITY=+1", "501 5.5.4"),
        ("MAIL FROM:<> MT-PRIORITY=urgent", "501 5.5.4"),
        ("MAIL FROM:<> MT-PRIORITY=1 MT-PRIORITY=1", "501 5.5.4"),
        ("MAIL FROM:<> =1", "501 5.5.4"),
        ("MAIL FROM:<> FROB=1", "555 5.5.4"),
        ("MAIL FROM:<> NOTIFY=NEVER", "555 5.5.4"),
        ("RCPT TO:<>", "501 5.1.3"),
        ("RCPT TO:<a>", "501 5.1.3"),
        ("RCPT FROM:<a@b>", "501 5.5.4"),
        ("RCPT TO:<a@b> SIZE=1", "555 5.5.4"),
        ("RCPT TO:<a@b> NOTIFY=NEVER,DELAY", "501 5.5.4"),
        ("RCPT TO:<a@b> NOTIFY=", "501 5.5.4"),
        ("RCPT TO:<a@b> ORCPT=x@y", "501 5.5.4"),
        ("RCPT TO:<a@b> ORCPT=rfc822;" + "x" * 500, "501 5.5.4"),
        ("RCPT TO:<a@b> ORCPT=utf-8;ü@b", "501 5.5.4"),
        ("RCPT TO:<a@b> ORCPT=utf-8;\\x{110000}", "501 5.5.4"),
        ("EHLO", "501 5.5.4"),
        ("EHLO a b", "501 5.5.4"),
        ("EHLO ü", "501 5.5.4"),
        ("EHLO " + "x" * 256, "501 5.5.4"),
        ("STARTTLS now", "501 5.5.4"),
        ("TURN", "502 5.5.1"),
        ("MAILFROM:<a@b>", "500 5.5.1"),
        ("NOOP \x7f", "500 5.5.2"),
    ],
)
def test_what_is_wrong_has_its_code(line: str, code: str) -> None:
    assert refusal(line) == code


@pytest.mark.parametrize(
    "word", ["SIZE=1", "BODY=7BIT", "SMTPUTF8", "RET=FULL", "ENVID=x", "AUTH=<>", "MT-PRIORITY=1"]
)
def test_what_is_not_offered_is_not_known(word: str) -> None:
    assert refusal(f"MAIL FROM:<> {word}", NOTHING) == "555 5.5.4"


def test_delivery_reports_that_are_not_offered_are_not_known() -> None:
    assert refusal("RCPT TO:<a@b> NOTIFY=NEVER", NOTHING) == "555 5.5.4"
    assert refusal("RCPT TO:<a@b> ORCPT=rfc822;a@b", NOTHING) == "555 5.5.4"


def test_utf8_may_be_said_plainly_within_smtputf8() -> None:
    got = parse("RCPT TO:<ü@b> ORCPT=utf-8;ü@b".encode(), EVERYTHING, smtputf8=True)
    orcpt = OriginalRecipient("utf-8", "ü@b")
    assert got == Rcpt(Mailbox("ü", "b"), RcptParams(orcpt=orcpt))


@pytest.mark.parametrize(
    "line", [b"GET /", b"POST / HTTP/1.1", b"CONNECT x:25 HTTP/1.1", b"\x16\x03"]
)
def test_other_protocols_are_hostile(line: bytes) -> None:
    assert isinstance(hostile := parse(line, EVERYTHING), Hostile)
    assert hostile.reply.code == 554


def test_lmtp_has_a_greeting_of_its_own() -> None:
    assert parse(b"LHLO a", EVERYTHING, lmtp=True) == Hello("a", extended=True)
    for line in (b"EHLO a", b"HELO a"):
        assert isinstance(parse(line, EVERYTHING, lmtp=True), Reply)
