"""What a sender is told of its message: delivery status notifications (RFC 3464, RFC 6533).

Three parts (RFC 6522): one for people, one for programs, and the header of the message. All of it
is 7-bit, whatever the message was, so that it gets through everywhere; only a sender whose address
is not ASCII makes a report need SMTPUTF8.

What remote servers said is shown word for word, and so is a part of a stranger's message: nothing
in either can become a line, a field or a part of its own.
"""

from __future__ import annotations

import enum
import re
from binascii import b2a_qp
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec import Struct

from elemta.message.header import split
from elemta.message.trace import ALLOWED, date, fold, harmless, path
from elemta.protocol import Mailbox, OriginalRecipient, Reply

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: Octets of the message's header that are sent back.
MOST_HEADER: Final = 50_000
#: Characters of one Diagnostic-Code, and of one reply as people see it: servers may talk for long.
_MOST_WORDS: Final = 8_000

_NO_ATOM: Final = re.compile(r"[^A-Za-z0-9-]")


class Action(enum.Enum):
    """What was done for a recipient (RFC 3464 §2.3.3)."""

    FAILED = "failed"
    DELAYED = "delayed"
    DELIVERED = "delivered"
    RELAYED = "relayed"


class FailedRecipient(Struct, frozen=True, kw_only=True):
    """One recipient that a report is about.

    Attributes:
        address: as we tried it.
        orcpt: what the sender calls this recipient (RFC 3461 §4.2).
        reply: the last one, of the remote server or of our own making. If it is a 4xx though the
            message failed, we have tried for as long as we may.
        remote: whether `reply` is the remote's own words.
        host: who was spoken to, ``name[address]:port``; empty if nobody was reached.
        attempted: when, in seconds since the epoch, or None.
    """

    address: Mailbox
    orcpt: OriginalRecipient | None = None
    reply: Reply
    remote: bool = False
    host: str = ""
    attempted: float | None = None


class _Words(NamedTuple):
    subject: str
    opening: str


_WORDS: Final = {
    Action.FAILED: _Words(
        "Your message could not be delivered",
        "Your message could not be delivered to the recipients listed here.\n"
        "Nothing more will be tried: if it still matters, please send it again.",
    ),
    Action.DELAYED: _Words(
        "Your message is delayed",
        "Your message could not be delivered yet to the recipients listed here.\n"
        "It is tried again by itself: you need not do anything.",
    ),
    Action.DELIVERED: _Words(
        "Your message was delivered",
        "Your message was delivered to the recipients listed here, as you asked to be told.",
    ),
    Action.RELAYED: _Words(
        "Your message was passed on",
        "Your message was passed on to a server that may not tell you what becomes of it.",
    ),
}


def failure_report(
    *,
    hostname: str,
    report_id: str,
    sender: Mailbox,
    recipients: Sequence[FailedRecipient],
    header: bytes,
    message_id: str,
    arrived: float,
    now: float,
    envid: str | None = None,
    action: Action = Action.FAILED,
) -> bytes:
    """Write a report, of a failure unless `action` says otherwise.

    Args:
        hostname: our own.
        report_id: the id of the report in our queue; not to be guessed, since it makes the
            boundary between the parts.
        sender: of the message: who gets the report. Never the null sender (RFC 5321 §4.5.5).
        recipients: at least one, all with the same fate.
        header: of the message; what goes beyond `MOST_HEADER`, or beyond its end, is cut off.
        message_id: the id of the message in our queue.
        arrived: when the message came in, in seconds since the epoch.
        now: likewise.
        envid: ENVID of the message (RFC 3461 §4.4).
        action: what was done for the recipients.

    Returns:
        A whole message, each line ended by CRLF and of at most 998 octets.
    """
    hostname = harmless(hostname)
    parts = (
        _part(
            "text/plain; charset=utf-8",
            _for_people(hostname, recipients, message_id, arrived, action),
        ),
        _part(
            "message/delivery-status",
            _for_programs(hostname, recipients, message_id, arrived, envid, action),
        ),
        _part("text/rfc822-headers", _shortened(header)),
    )
    boundary = f"=_{harmless(report_id)}".encode("ascii")
    while any(boundary in part for part in parts):
        boundary += b"="
    top = (
        f"From: Mail Delivery System <MAILER-DAEMON@{hostname}>\r\n"
        f"To: <{path(sender)}>\r\n"
        f"Subject: {_WORDS[action].subject}\r\n"
        f"Date: {date(now)}\r\n"
        f"Message-ID: <{harmless(report_id)}@{hostname}>\r\n"
        "Auto-Submitted: auto-replied\r\n"
        "MIME-Version: 1.0\r\n"
        "Content-Type: multipart/report; report-type=delivery-status;\r\n"
    )
    return b"".join(
        (
            top.encode("utf-8", "replace"),
            b'\tboundary="%b"\r\n\r\n' % boundary,
            *(b"--%b\r\n%b" % (boundary, part) for part in parts),
            b"--%b--\r\n" % boundary,
        )
    )


def _for_people(
    hostname: str,
    recipients: Sequence[FailedRecipient],
    message_id: str,
    arrived: float,
    action: Action,
) -> bytes:
    lines = [f"This is the mail system of {hostname}.", "", *_WORDS[action].opening.split("\n"), ""]
    for each in recipients:
        lines += [f"<{_visible(path(each.address))}>", *_told(each, action), ""]
    lines += [
        f"The message came in on {date(arrived)}",
        f"and is known here as {harmless(message_id)}.",
        "Details for programs, and the header of the message, are attached.",
        "",
    ]
    return "\r\n".join(lines).encode()


def _told(recipient: FailedRecipient, action: Action) -> Iterator[str]:
    """What one recipient's server, or we ourselves, had to say."""
    reply = recipient.reply
    if action is Action.FAILED and reply.code // 100 == 4:
        yield "    We have tried for as long as we may. The last time:"
    if recipient.remote:
        yield f"    {_visible(recipient.host) or 'The remote server'} said:"
    elif recipient.host:
        yield f"    We spoke to {_visible(recipient.host)}:"
    mark = "" if reply.enhanced is None else f" {reply.enhanced}"
    left = _MOST_WORDS
    for line in reply.lines:
        yield f"        {reply.code}{mark} {_visible(line[:left])}"
        left = max(0, left - len(line))


def _for_programs(
    hostname: str,
    recipients: Sequence[FailedRecipient],
    message_id: str,
    arrived: float,
    envid: str | None,
    action: Action,
) -> bytes:
    fields = [
        fold("Reporting-MTA", f"dns; {hostname}"),
        fold("X-Elemta-Id", harmless(message_id)),
        fold("Arrival-Date", date(arrived)),
    ]
    if envid is not None:
        fields.insert(0, fold("Original-Envelope-Id", _shown(envid)))
    for each in recipients:
        fields += [b"\r\n", *_status(each, action)]
    return b"".join(fields)


def _status(recipient: FailedRecipient, action: Action) -> Iterator[bytes]:
    """The fields of one recipient (RFC 3464 §2.3)."""
    reply = recipient.reply
    if (orcpt := recipient.orcpt) is not None:
        kind = _NO_ATOM.sub("", orcpt.address_type[:40]) or "unknown"
        yield fold("Original-Recipient", f"{kind}; {_escaped(orcpt.address)}")
    kind = "rfc822" if recipient.address.is_ascii else "utf-8"
    yield fold("Final-Recipient", f"{kind}; {_escaped(path(recipient.address))}")
    yield fold("Action", action.value)
    yield fold("Status", reply.enhanced or f"{reply.code // 100}.0.0")
    if recipient.host:
        name, _, rest = recipient.host.partition("[")
        yield fold("Remote-MTA", f"dns; {_shown(name) or '[' + _shown(rest)}")
    kind = "smtp" if recipient.remote else "X-Elemta"
    yield fold("Diagnostic-Code", f"{kind}; {_shown(str(reply)[:_MOST_WORDS])}")
    if recipient.attempted is not None:
        yield fold("Last-Attempt-Date", date(recipient.attempted))


def _part(kind: str, octets: bytes) -> bytes:
    """One body part, from its header to its last CRLF."""
    encoding = "7bit"
    if not _is_7bit(octets):
        octets, encoding = _quoted(octets), "quoted-printable"
    head = f"Content-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
    return b"%b%b\r\n" % (head.encode("ascii"), octets)


def _shortened(content: bytes) -> bytes:
    """The header alone, in whole lines if that can be."""
    header, _ = split(content)
    if len(header) <= MOST_HEADER:
        return header
    end = header.rfind(b"\r\n", 0, MOST_HEADER)
    return header[:MOST_HEADER] if end < 0 else header[: end + 2]


def _is_7bit(octets: bytes) -> bool:
    """Whether it may stand in a message as it is (RFC 2045 §2.7)."""
    return (
        octets.isascii()
        and b"\0" not in octets
        and octets.count(b"\r\n") == octets.count(b"\r") == octets.count(b"\n")
        and max(map(len, octets.split(b"\r\n"))) <= ALLOWED
    )


def _quoted(octets: bytes) -> bytes:
    """Quoted-printable (RFC 2045 §6.7); only CRLF stays a line end."""
    # Without istext each LF that comes out is one of b2a_qp's own, behind the "=" that folds.
    lines = (b2a_qp(line, istext=False) for line in octets.split(b"\r\n"))
    return b"\r\n".join(line.replace(b"\n", b"\r\n") for line in lines)


def _visible(text: str) -> str:
    """Text with escapes in place of all that people cannot see."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def _shown(text: str) -> str:
    """Text with escapes in place of all that is not printable ASCII."""
    return _visible(text).encode("ascii", "backslashreplace").decode("ascii")


def _escaped(address: str) -> str:
    r"""An address in 7-bit: as it is, or with ``\x{…}`` (utf-8-addr-xtext, RFC 6533 §3)."""
    if address.isascii():
        return _shown(address)
    return "".join(
        each if "!" <= each <= "~" and each not in "\\+=" else f"\\x{{{ord(each):02X}}}"
        for each in address
    )
