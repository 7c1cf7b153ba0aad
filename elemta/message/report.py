"""What a sender is told of its message: delivery status notifications (RFC 3464, RFC 6533).

Three parts (RFC 6522): one for people, one for programs, and the message, or its header. All of it
is 7-bit, whatever the message was, so that it gets through everywhere; only a sender whose address
is not ASCII makes a report need SMTPUTF8, and such a report is in UTF-8.

What remote servers said is shown word for word, and so is a part of a stranger's message: nothing
in either can become a line, a field or a part of its own.
"""

from __future__ import annotations

from binascii import b2a_qp
from typing import TYPE_CHECKING, Final, NamedTuple

from elemta.message.header import split
from elemta.message.status import MOST_WORDS, Action, StatusFields, visible
from elemta.message.trace import ALLOWED, date, harmless, path

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from elemta.message.status import RecipientStatus
    from elemta.protocol import Mailbox

#: Octets of the message's header that are sent back.
MOST_HEADER: Final = 50_000


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
    Action.EXPANDED: _Words(
        "Your message was delivered",
        "Your message was delivered to the addresses listed here, as you asked to be told.\n"
        "Each stands for several people; if one of them cannot be reached, you are told.",
    ),
}
_OF_A_REPORT: Final = _Words(
    "A report could not be delivered",
    "A message that has no sender, most likely a report, could not be delivered to the\n"
    "recipients listed here. Nobody else is told: a report is not answered by a report.",
)


def write_report(
    *,
    hostname: str,
    report_id: str,
    to: Mailbox,
    action: Action,
    recipients: Sequence[RecipientStatus],
    content: bytes,
    whole: bool = False,
    message_id: str,
    arrived: float,
    now: float,
    envid: str | None = None,
    of_a_report: bool = False,
) -> bytes:
    """Write a report.

    Args:
        hostname: our own.
        report_id: the id of the report in our queue; not to be guessed, since it makes the
            boundary between the parts.
        to: the sender of the message, never the null one (RFC 5321 §4.5.5).
        action: what was done for the recipients.
        recipients: at least one, all with the same fate.
        content: the message, or at least its header; of that, what goes beyond `MOST_HEADER` is
            cut off.
        whole: `content` is all of the message, and goes back whole. It does not, and its header
            alone does, if it could not stand in the report as it is: 8-bit content would make the
            report undeliverable to hosts without 8BITMIME, and a message within a message may not
            be encoded (RFC 2046 §5.2.1).
        message_id: the id of the message in our queue.
        arrived: when the message came in, in seconds since the epoch.
        now: likewise.
        envid: ENVID of the message (RFC 3461 §4.4).
        of_a_report: the message had no sender, and this goes to a postmaster.

    Returns:
        A whole message, each line ended by CRLF and of at most 998 octets; 7-bit, unless `to`
        needs SMTPUTF8.
    """
    hostname, utf8 = harmless(hostname), not to.is_ascii
    words = _OF_A_REPORT if of_a_report else _WORDS[action]
    fields = StatusFields(
        hostname=hostname,
        message_id=message_id,
        arrived=arrived,
        envid=envid,
        action=action,
        utf8=utf8,
    )
    whole = whole and _is_clean(content) and (utf8 or content.isascii())
    kind = "global-delivery-status" if utf8 else "delivery-status"
    parts = (
        _part("text/plain; charset=utf-8", _for_people(fields, words, recipients, whole=whole)),
        _part(f"message/{kind}", fields.write(recipients), utf8=utf8),
        _returned(content, whole=whole, utf8=utf8),
    )
    boundary = f"=_{harmless(report_id)}".encode("ascii")
    while any(boundary in part for part in parts):
        boundary += b"="
    top = (
        f"From: Mail Delivery System <MAILER-DAEMON@{hostname}>\r\n"
        f"To: <{path(to)}>\r\n"
        f"Subject: {words.subject}\r\n"
        f"Date: {date(now)}\r\n"
        f"Message-ID: <{harmless(report_id)}@{hostname}>\r\n"
        "Auto-Submitted: auto-replied\r\n"
        "MIME-Version: 1.0\r\n"
        f"Content-Type: multipart/report; report-type={kind};\r\n"
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
    fields: StatusFields, words: _Words, recipients: Sequence[RecipientStatus], *, whole: bool
) -> bytes:
    lines = [f"This is the mail system of {fields.hostname}.", "", *words.opening.split("\n"), ""]
    for each in recipients:
        lines += [f"<{visible(path(each.address))}>", *_told(each, fields.action), ""]
    attached = "the message" if whole else "the header of the message"
    lines += [
        f"The message came in on {date(fields.arrived)}",
        f"and is known here as {harmless(fields.message_id)}.",
        f"Details for programs, and {attached}, are attached.",
        "",
    ]
    return "\r\n".join(lines).encode()


def _told(recipient: RecipientStatus, action: Action) -> Iterator[str]:
    """What one recipient's server, or we ourselves, had to say."""
    reply = recipient.reply
    if action is Action.FAILED and reply.code // 100 == 4:
        yield "    We have tried for as long as we may. The last time:"
    if recipient.remote:
        yield f"    {visible(recipient.host) or 'The remote server'} said:"
    elif recipient.host:
        yield f"    We spoke to {visible(recipient.host)}:"
    mark = "" if reply.enhanced is None else f" {reply.enhanced}"
    left = MOST_WORDS
    for line in reply.lines:
        yield f"        {reply.code}{mark} {visible(line[:left])}"
        left = max(0, left - len(line))
    if recipient.retry_until is not None:
        yield f"    We go on until {date(recipient.retry_until)}."


def _returned(content: bytes, *, whole: bool, utf8: bool) -> bytes:
    """The part with the message, or with its header."""
    header = split(content)[0]
    # The forms of RFC 6533 are for UTF-8 alone; what is neither that nor ASCII is only quoted.
    utf8 = utf8 and _is_utf8(header)
    if whole:
        return _part("message/global" if utf8 else "message/rfc822", content, utf8=True)
    kind = "message/global-headers" if utf8 else "text/rfc822-headers"
    return _part(kind, _shortened(header), utf8=utf8)


def _part(kind: str, octets: bytes, *, utf8: bool = False) -> bytes:
    """One body part, from its header to its last CRLF.

    Args:
        kind: its media type.
        octets: its content.
        utf8: whether octets beyond ASCII may stand there as they are.
    """
    encoding = "7bit" if octets.isascii() else "8bit"
    if not _is_clean(octets) or not (utf8 or octets.isascii()):
        octets, encoding = _quoted(octets), "quoted-printable"
    head = f"Content-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
    return b"%b%b\r\n" % (head.encode("ascii"), octets)


def _shortened(header: bytes) -> bytes:
    """A header, in whole lines if that can be."""
    if len(header) <= MOST_HEADER:
        return header
    end = header.rfind(b"\r\n", 0, MOST_HEADER)
    return header[:MOST_HEADER] if end < 0 else header[: end + 2]


def _is_utf8(octets: bytes) -> bool:
    try:
        octets.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_clean(octets: bytes) -> bool:
    """Whether its lines may stand in a message as they are (RFC 2045 §2.7, §2.8)."""
    return (
        b"\0" not in octets
        and octets.count(b"\r\n") == octets.count(b"\r") == octets.count(b"\n")
        and max(map(len, octets.split(b"\r\n"))) <= ALLOWED
    )


def _quoted(octets: bytes) -> bytes:
    """Quoted-printable (RFC 2045 §6.7); only CRLF stays a line end."""
    # Without istext each LF that comes out is one of b2a_qp's own, behind the "=" that folds.
    lines = (b2a_qp(line, istext=False) for line in octets.split(b"\r\n"))
    return b"\r\n".join(line.replace(b"\n", b"\r\n") for line in lines)
