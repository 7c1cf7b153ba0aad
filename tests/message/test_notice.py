from __future__ import annotations

from email import message_from_bytes
from email.policy import SMTP
from typing import TYPE_CHECKING

import pytest

from elemta.message import write_notice
from elemta.protocol import Mailbox

if TYPE_CHECKING:
    from email.message import EmailMessage

NOW = 1_800_000_000
POSTMASTER = Mailbox("postmaster", "us.example")


def written(
    subject: str = "ann sends too much", text: str = "Look at it.", to: Mailbox = POSTMASTER
) -> bytes:
    return write_notice(
        hostname="mx.us.example", notice_id="NOTICE", to=to, subject=subject, text=text, now=NOW
    )


def read(octets: bytes) -> EmailMessage:
    assert b"\n" not in octets.replace(b"\r\n", b"")
    assert max(map(len, octets.split(b"\r\n"))) <= 78
    return message_from_bytes(octets, policy=SMTP)  # type: ignore[return-value] # by its policy


def test_it_says_who_writes_and_that_it_is_no_letter_to_be_answered() -> None:
    message = read(written(text="Look at it.\n\n  elemta queue list --view hold\n"))
    assert {name: message[name] for name in message} == {
        "From": "Mail Delivery System <MAILER-DAEMON@mx.us.example>",
        "To": "postmaster@us.example",
        "Subject": "ann sends too much",
        "Date": "Fri, 15 Jan 2027 08:00:00 +0000",
        "Message-ID": "<NOTICE@mx.us.example>",
        "Auto-Submitted": "auto-generated",
        "MIME-Version": "1.0",
        "Content-Type": 'text/plain; charset="utf-8"',
        "Content-Transfer-Encoding": "7bit",
    }
    assert message.get_content() == "Look at it.\r\n\r\n  elemta queue list --view hold\r\n"


def test_words_of_strangers_make_no_fields_and_no_lines() -> None:
    message = read(written("a\r\nBcc: x@y.example\x00" + " b" * 250, "c\x1b[31m\x00d"))
    assert message["Bcc"] is None
    assert message["Subject"].startswith("a Bcc: x@y.example b b b")
    assert len(message["Subject"]) < 250
    assert message.get_content() == "c [31m d\r\n"


def test_long_lines_are_wrapped_under_their_beginning() -> None:
    lines = read(written(text="  " + "word " * 40)).get_content().splitlines()
    assert len(lines) == 3
    assert all(line.startswith("  word") for line in lines)


def test_letters_beyond_ascii_arrive() -> None:
    message = read(written("Zu viel von Jürgen", "Jürgen schickt zu viel.\nViel zu viel.\n"))
    assert message["Subject"] == "Zu viel von Jürgen"
    assert message.get_content() == "Jürgen schickt zu viel.\r\nViel zu viel.\r\n"


@pytest.mark.parametrize("text", ["", "\n"])
def test_there_may_be_nothing_more_to_say(text: str) -> None:
    assert read(written(text=text)).get_content().strip() == ""


def test_of_too_much_the_beginning_is_told() -> None:
    assert len(written(text="word " * 100_000)) < 25_000
