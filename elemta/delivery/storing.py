"""Mail that a plugin keeps: its mailboxes are where it ends, as a Maildir would be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elemta.delivery.carrier import Tried, Welcome
from elemta.delivery.local import GOES_ROUND, final
from elemta.delivery.loops import is_in, known_before
from elemta.delivery.replies import made
from elemta.plugins import Accept, Defer, Letter, Reject
from elemta.queue import Result

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elemta.delivery.transaction import StoredBody
    from elemta.plugins import Chain
    from elemta.queue import Recipient, Work


async def to_storage(
    chain: Chain,
    plugin: str,
    work: Work,
    recipients: Sequence[Recipient],
    body: StoredBody,
    tried: dict[int, Tried],
) -> Welcome:
    """Have a plugin keep a message, once for each recipient.

    Args:
        chain: of this moment. If it has no such plugin any more, the mail waits for one.
        plugin: what the configuration calls it.
        work: what is tried.
        recipients: those of it that go there; at least one.
        body: CRLF line ends.
        tried: what becomes of each is noted here by its number, as soon as it is known.

    Returns:
        How the plugin fared: well, if it said yes or no to any.
    """
    welcome = Welcome.TURNED_AWAY
    with chain.users:
        before = await known_before(body)
        for recipient in recipients:
            if is_in(recipient.address, before):
                found = GOES_ROUND
            else:
                letter = Letter(work.message, recipient, body, work.lane)
                found = _tried(await chain.on_store(plugin, letter))
            tried[recipient.number] = found
            if found.result is not Result.DEFERRED:
                welcome = Welcome.HEARD
    return welcome


def _tried(verdict: Accept | Defer | Reject) -> Tried:
    match verdict:
        case Defer() | Reject():
            return final(verdict.reply)
        case Accept(text=text):
            return final(made(250, 0, 0, text or "delivered to the mailbox"))
