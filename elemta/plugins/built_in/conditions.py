"""Which messages a rule is for: settings that several plugins share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import field

from elemta.config import Network, Table
from elemta.plugins.built_in.entries import Addresses

if TYPE_CHECKING:
    from elemta.plugins import Transaction


class Match(Table, frozen=True, kw_only=True):
    """``match``: all that is given must hold; of each list one entry must. Empty: all messages."""

    #: Names of listeners; ``api`` is what is handed in by HTTP.
    listeners: list[str] = field(default_factory=list[str])
    #: Networks that clients are in.
    networks: list[Network] = field(default_factory=list[Network])
    #: Senders: an address, a domain, ``*.DOMAIN``, or ``<>`` for the null sender.
    senders: list[str] = field(default_factory=list[str])
    #: Recipients, as the client names them: likewise. One of a message's suffices.
    recipients: list[str] = field(default_factory=list[str])
    #: Whether the client may relay, or has logged in. None: either.
    trusted: bool | None = None

    def __post_init__(self) -> None:
        Condition(self)


class Condition:
    """A `Match`, ready to be asked.

    Raises:
        ValueError: one of its addresses is none.
    """

    def __init__(self, match: Match) -> None:
        self._match = match
        self._senders = Addresses(match.senders)
        self._recipients = Addresses(match.recipients)

    def holds(self, transaction: Transaction) -> bool:
        """Whether a message is meant, as far as its recipients are known by now."""
        match, session = self._match, transaction.session
        if match.listeners and session.listener not in match.listeners:
            return False
        if match.trusted is not None and session.trusted != match.trusted:
            return False
        if match.networks:
            address = session.ip
            if address is None or not any(address in network for network in match.networks):
                return False
        if match.senders and self._senders.find(transaction.sender) is None:
            return False
        return not match.recipients or any(
            self._recipients.find(each) is not None for each in transaction.recipients
        )
