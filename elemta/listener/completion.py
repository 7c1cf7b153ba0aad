"""What a message lacks that somebody's program hands in (RFC 6409 §8), and what it must not have.

What is done is a change like a plugin's: it stands in the message's timeline, and plugins that are
asked later, as one that signs, see it. Nothing else is changed: no address is rewritten.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from elemta.message import date
from elemta.plugins import BY_LISTENER, AddHeader, RemoveHeader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from elemta.message import HeaderScanner
    from elemta.plugins import Transaction
    from elemta.plugins.changes import Change

#: They name whom nobody else may learn of (RFC 5322 §3.6.3, §3.6.6).
_SECRET: Final = ("Bcc", "Resent-Bcc")


def complete(transaction: Transaction, header: HeaderScanner, *, hostname: str, now: float) -> None:
    """Have a message that is submitted made whole.

    Args:
        transaction: whose it is.
        header: all of it.
        hostname: ours.
        now: seconds since the epoch.
    """
    for change in _changes(transaction, header, hostname, now):
        transaction.change(BY_LISTENER, change)


def _changes(
    transaction: Transaction, header: HeaderScanner, hostname: str, now: float
) -> Iterator[Change]:
    if not header.has(b"date"):
        yield AddHeader("Date", date(now), top=False)
    if not header.has(b"message-id"):
        yield AddHeader("Message-ID", f"<{transaction.id}@{hostname}>", top=False)
    for name in _SECRET:
        if header.has(name.lower().encode()):
            yield RemoveHeader(name)
