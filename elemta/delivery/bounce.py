"""Who is told that a message could not be delivered (RFC 5321 §6.1, RFC 3461 §5.2).

The rules of this file:

- A message from the null sender is a report itself: nobody is told of its failure (§4.5.5).
- Who said NOTIFY without FAILURE, or NOTIFY=NEVER, is not told (RFC 3461 §4.1).
- One report tells of all recipients that failed together, and returns the header alone, whatever
  RET says: a body that was not wanted there is not wanted here, and may not even be the sender's.
"""

from __future__ import annotations

from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Final

from elemta.message import FailedRecipient, failure_report, split
from elemta.protocol import MailParams, Notify
from elemta.queue import Addressee, Envelope, Report, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from elemta.delivery.transaction import StoredBody
    from elemta.queue import Attempt, Message, Recipient

#: Octets of a message that are searched for its header.
MAX_HEADER: Final = 50_000


def wants_report(message: Message, recipient: Recipient) -> bool:
    """Whether somebody is to be told if this recipient fails."""
    notify = recipient.params.notify
    return message.sender is not None and (not notify or Notify.FAILURE in notify)


async def report_failure(
    message: Message,
    failed: Iterable[tuple[Recipient, Attempt]],
    body: StoredBody | None,
    *,
    hostname: str,
    report_id: str,
    now: float,
) -> Report | None:
    """What to tell the sender.

    Args:
        message: the one that failed.
        failed: recipients that failed or expired, and how; it may be that none wants a report.
        body: of the message; None if it cannot be read: the report goes out without its header.
        hostname: ours.
        report_id: unique, and not to be guessed.
        now: seconds since the epoch.

    Returns:
        None if nobody is to be told.
    """
    told = [
        _told(recipient, attempt)
        for recipient, attempt in failed
        if wants_report(message, recipient)
    ]
    if message.sender is None or not told:
        return None
    content = failure_report(
        hostname=hostname,
        report_id=report_id,
        sender=message.sender,
        recipients=told,
        header=await _header(body) if body is not None else b"",
        message_id=message.id,
        arrived=message.received_at,
        now=now,
        envid=message.params.envid,
    )
    return Report(
        envelope=Envelope(
            sender=None,
            params=MailParams(smtputf8=not message.sender.is_ascii),
            recipients=(Addressee(address=message.sender),),
        ),
        content=content,
    )


def _told(recipient: Recipient, attempt: Attempt) -> FailedRecipient:
    return FailedRecipient(
        address=recipient.address,
        orcpt=recipient.params.orcpt,
        reply=attempt.reply,
        remote=attempt.remote,
        host=attempt.host,
        attempted=attempt.ended,
    )


async def _header(body: StoredBody) -> bytes:
    """The message's header; its beginning, if it is very long."""
    if body.octets is not None:
        return split(body.octets[:MAX_HEADER])[0]
    begin = b""
    with suppress(StoreUnavailable):  # a report without a header is better than none
        async with aclosing(body.chunks()) as chunks:
            async for chunk in chunks:
                begin += chunk
                if len(begin) >= MAX_HEADER or b"\r\n\r\n" in begin:
                    break
    return split(begin[:MAX_HEADER])[0]
