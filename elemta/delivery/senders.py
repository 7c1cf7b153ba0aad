"""Whose mail a route is for: the envelope senders that it names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from elemta.config import NULL_SENDER, AddressPattern
from elemta.protocol import Mailbox

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from elemta.protocol import ReversePath

#: Senders of whom it is remembered whether they are meant: to find out takes 20 µs, and a queue is
#: sorted by it.
REMEMBERED: Final = 10_000


class Senders:
    """Some senders.

    Asked also from a thread that searches the queue, so it keeps nothing but what may be lost.

    Args:
        written: as ``senders`` of a route has them.
        delimiters: what stands before a tag, by those domains of ours that have tags.
    """

    def __init__(self, written: Sequence[str], delimiters: Mapping[str, str]) -> None:
        self._null = NULL_SENDER in written
        self._patterns = [AddressPattern.parse(each) for each in written if each != NULL_SENDER]
        self._delimiters = delimiters
        self._known: Final[dict[Mailbox, bool]] = {}

    def __contains__(self, sender: ReversePath) -> bool:
        if sender is None:
            return self._null
        found = self._known.get(sender)
        if found is None:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            found = self._known[sender] = self._means(sender) or self._means(self._bare(sender))
        return found

    def _means(self, sender: Mailbox) -> bool:
        return any(sender in pattern for pattern in self._patterns)

    def _bare(self, sender: Mailbox) -> Mailbox:
        """Who it is without the tag of a sub-address of ours."""
        delimiter = self._delimiters.get(sender.domain.lower())
        if delimiter is None:
            return sender
        bare = sender.local_part.partition(delimiter)[0]
        return Mailbox(bare, sender.domain) if bare else sender
