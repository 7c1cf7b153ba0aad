"""Who may be written to, by whom, and who that is: mailboxes, aliases, relaying.

Nothing is relayed unless the configuration says so: by the client's network, by its login, or by
the domain it writes to. What a local part looks like (``user%other.example``, ``other!user``,
``"user@other.example"``) never gives permission.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from elemta.log import logger
from elemta.protocol import Mailbox, Notify, Reply, domain_to_ascii, parse_mailbox, reply
from elemta.queue import Addressee

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elemta.config import Config, Domain, Network
    from elemta.protocol import RcptParams

log = logger(__name__)

#: How many aliases may lead from one to the next, and how many recipients one may stand for.
MAX_DEPTH: Final = 100
MAX_EXPANSION: Final = 1000

#: Clients whose permission is remembered; beyond it all are forgotten and found anew.
REMEMBERED: Final = 10_000

NO_SUCH_MAILBOX: Final = reply(550, 1, 1, "no such mailbox")
RELAY_DENIED: Final = reply(550, 7, 1, "relay access denied")
#: Our own mistake: the mail waits with its sender until it is mended.
ALIAS_LOOP: Final = reply(451, 4, 6, "an alias leads back to itself")
ALIAS_TOO_LARGE: Final = reply(451, 4, 6, "an alias leads too far")
ALIAS_BROKEN: Final = reply(451, 3, 5, "an alias leads nowhere")

#: Left to themselves, other servers take these for routes (RFC 5321 appendix F.2).
_ROUTING: Final = ("%", "!", "@")


class Recipients:
    """Decides from the configuration alone."""

    def __init__(self, config: Config) -> None:
        domains = [_OwnDomain(domain) for domain in config.domains]
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
        if local_part not in own.aliases:
            return (Addressee(address=mailbox),) if own.has(local_part) else NO_SUCH_MAILBOX
        return self._expand(mailbox)

    def _find(self, domain: str) -> _OwnDomain | None:
        if (own := self._own.get(domain)) is not None or domain.isascii():
            return own
        return self._own.get(_ascii(domain))

    def relayed(self, domain: str) -> str | None:
        """Which of ``relay.domains`` lets anybody send to a domain; None: none does."""
        pattern = self._relay.pattern
        found = pattern(domain)
        return found if found is not None or domain.isascii() else pattern(_ascii(domain))

    def _find_network(self, client: str) -> Network | None:
        if not client:
            return None
        address = ipaddress.ip_address(client)
        return next((each for each in self._relay.networks if address in each), None)

    def _expand(self, start: Mailbox) -> tuple[Addressee, ...] | Reply:
        """Follow the aliases from one mailbox, breadth first; each recipient is told once."""
        found: dict[Mailbox, Addressee] = {}
        seen: set[tuple[str, str]] = set()
        level = [start]
        for _ in range(MAX_DEPTH):
            ahead: list[Mailbox] = []
            for mailbox in level:
                own = self._find(mailbox.domain)
                local_part = mailbox.local_part.lower()
                if own is None:
                    found[mailbox] = Addressee(address=mailbox, original=start)
                elif local_part in own.aliases:
                    if (own.name, local_part) not in seen:
                        seen.add((own.name, local_part))
                        ahead += own.aliases[local_part]
                    elif own.has(local_part):
                        # `bob: [bob, carol]`: a copy to carol, and the mailbox behind the alias.
                        found[mailbox] = Addressee(address=mailbox, original=start)
                elif own.has(local_part):
                    found[mailbox] = Addressee(address=mailbox, original=start)
                else:
                    log.error("alias.broken", alias=str(start), target=str(mailbox))
                    return ALIAS_BROKEN
            if len(found) + len(ahead) > MAX_EXPANSION:
                log.error("alias.too_large", alias=str(start), most=MAX_EXPANSION)
                return ALIAS_TOO_LARGE
            if not ahead:
                break
            level = ahead
        else:
            log.error("alias.too_deep", alias=str(start), most=MAX_DEPTH)
            return ALIAS_TOO_LARGE
        if not found:
            log.error("alias.loop", alias=str(start))
            return ALIAS_LOOP
        return tuple(found.values())


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


class _OwnDomain:
    """A domain of ours, as it is asked: lower case, aliases parsed.

    Attributes:
        name: lower case, A-labels.
        aliases: the recipients of each alias.
    """

    def __init__(self, domain: Domain) -> None:
        self.name = _ascii(domain.name)
        self.aliases = {
            alias.lower(): tuple(_recipient(text, domain.name) for text in recipients)
            for alias, recipients in domain.aliases.items()
        }
        self._any = "*" in domain.mailboxes
        self._mailboxes = {"postmaster", *(name.lower() for name in domain.mailboxes)}

    def has(self, local_part: str) -> bool:
        """Whether there is such a mailbox (lower case)."""
        return self._any or local_part in self._mailboxes


def _recipient(text: str, domain: str) -> Mailbox:
    return parse_mailbox(text if "@" in text else f"{text}@{domain}")


def _ascii(domain: str) -> str:
    """The one form that domains are compared in; a domain that has none is compared as it is."""
    try:
        return domain_to_ascii(domain).lower()
    except ValueError:
        return domain.lower()
