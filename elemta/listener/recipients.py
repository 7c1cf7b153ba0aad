"""Who may be written to, by whom, and who that is: mailboxes, aliases, relaying.

Nothing is relayed unless the configuration says so: by the client's network, by its login, or by
the domain it writes to. What a local part looks like (``user%other.example``, ``other!user``,
``"user@other.example"``) never gives permission.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from elemta.listener.expansion import (
    NO_SUCH_MAILBOX,
    Expansion,
    OwnDomain,
    addressees,
    ascii_domain,
)
from elemta.protocol import Mailbox, Notify, Reply, reply
from elemta.queue import Addressee

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elemta.config import Config, Network
    from elemta.listener.expansion import Led
    from elemta.protocol import RcptParams

#: Clients whose permission is remembered; beyond it all are forgotten and found anew.
REMEMBERED: Final = 10_000

RELAY_DENIED: Final = reply(550, 7, 1, "relay access denied")

#: Left to themselves, other servers take these for routes (RFC 5321 appendix F.2).
_ROUTING: Final = ("%", "!", "@")


class Recipients:
    """Decides from the configuration alone."""

    def __init__(self, config: Config) -> None:
        domains = [OwnDomain(domain) for domain in config.domains]
        self._own: Final = {own.name: own for own in domains}
        #: The home of a bare ``postmaster`` (RFC 5321 §4.5.1).
        self._home = config.domains[0].name if domains else config.hostname
        self._relay: Final = config.relay
        self._trusted: dict[str, Network | None] = {}

    def trusts(self, client: str) -> bool:
        """Whether an IP address may send to any domain; never so where there is none."""
        return self.network(client) is not None

    def network(self, client: str) -> Network | None:
        """Which of ``relay.networks`` lets an IP address send to any domain; None: none does."""
        if client in self._trusted:
            return self._trusted[client]
        if len(self._trusted) >= REMEMBERED:
            self._trusted.clear()
        known = self._trusted[client] = self._find_network(client)
        return known

    def is_ours(self, mailbox: Mailbox) -> bool:
        """Whether mail for a mailbox is delivered here, so that nobody needs leave to send it."""
        return not mailbox.domain or self._find(mailbox.domain) is not None

    def permission(self, mailbox: Mailbox, *, client: str, login: str | None = None) -> str:
        """Why somebody may send to a domain that is not ours; empty if they may not.

        Args:
            mailbox: as the client names it.
            client: its IP address; empty if it has none.
            login: who is logged in, or None.

        Returns:
            What gives leave: ``login``, ``relay.networks`` or ``relay.domains``.
        """
        if login is not None:
            return "login"
        if self.trusts(client):
            return "relay.networks"
        if self.relayed(mailbox.domain) is None:
            return ""
        return "" if any(mark in mailbox.local_part for mark in _ROUTING) else "relay.domains"

    def decide(
        self, mailbox: Mailbox, *, client: str, login: str | None = None
    ) -> tuple[Addressee, ...] | Reply:
        """Who gets mail for `mailbox`, or why nobody does.

        Args:
            mailbox: as the client names it.
            client: its IP address; empty if it has none.
            login: who is logged in, or None.
        """
        if not mailbox.domain:
            mailbox = Mailbox(mailbox.local_part, self._home)
            if (own := self._find(mailbox.domain)) is None:
                return (Addressee(address=mailbox),)
        elif (own := self._find(mailbox.domain)) is None:
            if not self.permission(mailbox, client=client, login=login):
                return RELAY_DENIED
            return (Addressee(address=mailbox),)
        local_part = mailbox.local_part.lower()
        if own.listed and local_part not in own.aliases:
            return (Addressee(address=mailbox),) if own.has(local_part) else NO_SUCH_MAILBOX
        led = self._led(mailbox)
        return led if isinstance(led, Reply) else addressees(led, mailbox)

    async def owner_of(self, mailbox: Mailbox) -> Mailbox | None:
        """Whose an address is: the one mailbox of ours that mail for it comes to.

        Args:
            mailbox: as somebody writes it: an alias, a sub-address, what a catch-all catches.

        Returns:
            The mailbox, in lower case, with the A-labels of its domain, without a tag. None: the
            address is not ours, leads nowhere, abroad, or to several.
        """
        if not mailbox.domain:
            mailbox = Mailbox(mailbox.local_part, self._home)
        if self._find(mailbox.domain) is None:
            return None
        led = self._led(mailbox)
        return led[0].owner if not isinstance(led, Reply) and len(led) == 1 else None

    def _led(self, mailbox: Mailbox) -> tuple[Led, ...] | Reply:
        """Whom an address of ours leads to, or why to nobody."""
        steps = Expansion(self._find).expand(mailbox)
        try:
            next(steps)
        except StopIteration as end:
            led: tuple[Led, ...] | Reply = end.value
            return led
        raise AssertionError("there is no map to ask")

    def _find(self, domain: str) -> OwnDomain | None:
        if (own := self._own.get(domain)) is not None or domain.isascii():
            return own
        return self._own.get(ascii_domain(domain))

    def relayed(self, domain: str) -> str | None:
        """Which of ``relay.domains`` lets anybody send to a domain; None: none does."""
        pattern = self._relay.pattern
        found = pattern(domain)
        return found if found is not None or domain.isascii() else pattern(ascii_domain(domain))

    def _find_network(self, client: str) -> Network | None:
        if not client:
            return None
        address = ipaddress.ip_address(client)
        return next((each for each in self._relay.networks if address in each), None)


def told(addressees: Sequence[Addressee], params: RcptParams) -> Sequence[Addressee]:
    """Those that one RCPT TO leads to, with its parameters (RFC 3461 §5.2.7).

    A sender that asked to be told of success is told of one: of an alias that stands for several,
    the first has that wish alone. Failures and delays of any are told.
    """
    notify = params.notify
    if not notify and params.orcpt is None:
        return addressees
    others = params
    if Notify.SUCCESS in notify:
        left = notify - {Notify.SUCCESS} or frozenset({Notify.NEVER})
        others = replace(params, notify=left)
    return [replace(each, params=others if n else params) for n, each in enumerate(addressees)]
