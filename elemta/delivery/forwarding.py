"""In whose name mail goes on that an alias leads elsewhere.

The queue keeps the sender as he is, to whom our own reports go. Who is named to the next server is
found at each attempt, and for each recipient: a rewritten sender holds for three weeks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from elemta.protocol import comparable_domain

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from elemta.config import Config
    from elemta.message import Srs
    from elemta.protocol import Mailbox, ReversePath
    from elemta.queue import Message, Recipient


class Forwarding:
    """Says who is named as the sender.

    Args:
        config: knows which domains are ours.
        srs: rewrites; None: senders stay as they are.
    """

    def __init__(self, config: Config, srs: Srs | None) -> None:
        self._own = frozenset(comparable_domain(each.name) for each in config.domains)
        self._srs = srs

    def sender(
        self, sender: ReversePath, address: Mailbox, original: Mailbox | None, now: float
    ) -> ReversePath:
        """Who is named to the server of a recipient.

        Args:
            sender: of the message.
            address: of the recipient.
            original: as the client named it, if that is not the same.
            now: seconds since the epoch.
        """
        srs = self._srs
        if srs is None or sender is None or original is None:
            return sender
        if self._is_ours(sender) or self._is_ours(address) or not self._is_ours(original):
            return sender
        return srs.rewritten(sender, now) or sender

    def parted(
        self, message: Message, recipients: Sequence[Recipient], now: float
    ) -> Iterator[tuple[Message, Sequence[Recipient]]]:
        """The message as it is told to a server, and to which recipients: one transaction each."""
        if self._srs is None:
            yield message, recipients
            return
        groups: dict[ReversePath, list[Recipient]] = {}
        for each in recipients:
            named = self.sender(message.sender, each.address, each.original, now)
            groups.setdefault(named, []).append(each)
        for named, group in groups.items():
            yield message if named == message.sender else replace(message, sender=named), group

    def _is_ours(self, mailbox: Mailbox) -> bool:
        return comparable_domain(mailbox.domain) in self._own
