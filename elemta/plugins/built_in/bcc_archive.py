"""A copy of mail for an archive, of which neither senders nor recipients learn.

The archive stands in the envelope alone, and reports about it are made for nobody (NOTIFY=NEVER,
RFC 3461 §4.1): the sender, who does not know of it, would be told that it failed. What was sent by
the archive or goes there anyway is not copied, so no answer of it can go in circles.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import override

from elemta.config import Table
from elemta.plugins import CONTINUE, AddRecipient, Continue, PluginWith, Transaction, Verdict
from elemta.plugins.built_in.conditions import Condition, Match
from elemta.plugins.built_in.entries import Addresses
from elemta.protocol import parse_mailbox

if TYPE_CHECKING:
    from elemta.plugins import Content


class Settings(Table, frozen=True, kw_only=True):
    """The ``settings`` of ``bcc-archive``."""

    #: The address of the archive.
    to: str
    #: Which messages are copied. Empty: all.
    match: Match = Match()

    def __post_init__(self) -> None:
        try:
            parse_mailbox(self.to)
        except ValueError as error:
            raise ValueError(f"`to` must be an address, not {self.to!r}: {error}") from None


class BccArchive(PluginWith[Settings]):
    """Sends a copy of all mail, or of some, to an archive, and tells nobody."""

    name = "bcc-archive"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._to = parse_mailbox(settings.to)
        self._own = Addresses([settings.to])
        self._condition = Condition(settings.match)

    @override
    async def on_message(self, transaction: Transaction, content: Content) -> Verdict:
        # Last, so that nothing is copied that an earlier step refuses.
        known = [transaction.sender, *transaction.recipients, *transaction.addressees]
        if any(each is not None and self._own.find(each) is not None for each in known):
            return CONTINUE
        if not self._condition.holds(transaction):
            return CONTINUE
        return Continue((AddRecipient(self._to, quiet=True),))
