"""What programs read in a report: the fields of RFC 3464, in 7-bit or in UTF-8 (RFC 6533)."""

from __future__ import annotations

import enum
import re
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from elemta.message.trace import date, fold, harmless, path
from elemta.protocol import Mailbox, OriginalRecipient, Reply

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: Characters of one Diagnostic-Code, and of one reply as people see it: servers may talk for long.
MOST_WORDS: Final = 8_000

_NO_ATOM: Final = re.compile(r"[^A-Za-z0-9-]")


class Action(enum.Enum):
    """What was done for a recipient (RFC 3464 §2.3.3)."""

    FAILED = "failed"
    DELAYED = "delayed"
    DELIVERED = "delivered"
    #: Passed on to a host that knows nothing of reports.
    RELAYED = "relayed"
    #: Delivered to an address that stands for several; some of them may still fail.
    EXPANDED = "expanded"


class RecipientStatus(Struct, frozen=True, kw_only=True):
    """One recipient that a report is about.

    Attributes:
        address: as the sender may know it.
        orcpt: what the sender calls this recipient (RFC 3461 §4.2).
        reply: the last one, of the remote server or of our own making. If it is a 4xx though the
            message failed, we have tried for as long as we may.
        remote: whether `reply` is the remote's own words.
        host: who was spoken to, ``name[address]:port``; empty if nobody was reached.
        attempted: when, in seconds since the epoch, or None.
        retry_until: for how long a delayed one is tried, likewise, or None.
    """

    address: Mailbox
    orcpt: OriginalRecipient | None = None
    reply: Reply
    remote: bool = False
    host: str = ""
    attempted: float | None = None
    retry_until: float | None = None


class StatusFields(Struct, frozen=True, kw_only=True):
    """What the fields of one report are made of.

    Attributes:
        hostname: our own.
        message_id: the id of the message in our queue.
        arrived: when the message came in, in seconds since the epoch.
        envid: ENVID of the message (RFC 3461 §4.4).
        action: what was done for all the recipients.
        utf8: the report is for SMTPUTF8 alone: addresses and words stand in it as they are.
    """

    hostname: str
    message_id: str
    arrived: float
    envid: str | None = None
    action: Action
    utf8: bool = False

    def write(self, recipients: Sequence[RecipientStatus]) -> bytes:
        """The fields of the message, and then those of each recipient."""
        fields = [] if self.envid is None else [self._field("Original-Envelope-Id", self.envid)]
        fields += [
            fold("Reporting-MTA", f"dns; {harmless(self.hostname)}"),
            fold("X-Elemta-Id", harmless(self.message_id)),
            fold("Arrival-Date", date(self.arrived)),
        ]
        for each in recipients:
            fields += [b"\r\n", *self._of(each)]
        return b"".join(fields)

    def _of(self, recipient: RecipientStatus) -> Iterator[bytes]:
        """The fields of one recipient (RFC 3464 §2.3)."""
        reply = recipient.reply
        if (orcpt := recipient.orcpt) is not None:
            kind = _NO_ATOM.sub("", orcpt.address_type[:40]) or "unknown"
            yield fold("Original-Recipient", f"{kind}; {self._address(orcpt.address)}")
        kind = "rfc822" if recipient.address.is_ascii else "utf-8"
        yield fold("Final-Recipient", f"{kind}; {self._address(path(recipient.address))}")
        yield fold("Action", self.action.value)
        yield fold("Status", self._status(reply))
        if recipient.host:
            name, _, rest = recipient.host.partition("[")
            yield self._field("Remote-MTA", name or f"[{rest}", "dns; ")
        kind = "smtp; " if recipient.remote else "X-Elemta; "
        yield self._field("Diagnostic-Code", str(reply)[:MOST_WORDS], kind)
        if recipient.attempted is not None:
            yield fold("Last-Attempt-Date", date(recipient.attempted))
        if recipient.retry_until is not None:
            yield fold("Will-Retry-Until", date(recipient.retry_until))

    def _status(self, reply: Reply) -> str:
        """The enhanced code (RFC 3463); what is only delayed has not failed, whatever was said."""
        subject, detail = reply.status or (0, 0)
        match self.action:
            case Action.FAILED:
                kind = reply.code // 100
            case Action.DELAYED:
                kind = 4
            case _:
                kind = 2
        return f"{kind}.{subject}.{detail}"

    def _field(self, name: str, text: str, kind: str = "") -> bytes:
        return fold(name, kind + (visible(text) if self.utf8 else _shown(text)))

    def _address(self, address: str) -> str:
        r"""An address as it is, or with ``\x{…}`` in place of what cannot stand there.

        In UTF-8 that is utf-8-addr-unitext, else utf-8-addr-xtext (RFC 6533 §3).
        """
        if address.isascii():
            return _shown(address)
        return "".join(each if self._plain(each) else f"\\x{{{ord(each):02X}}}" for each in address)

    def _plain(self, letter: str) -> bool:
        if not letter.isascii():
            return self.utf8 and letter.isprintable()
        return "!" <= letter <= "~" and letter not in "\\+="


def visible(text: str) -> str:
    """Text with escapes in place of all that people cannot see."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def _shown(text: str) -> str:
    """Text with escapes in place of all that is not printable ASCII."""
    return visible(text).encode("ascii", "backslashreplace").decode("ascii")
