"""Who may be written to, by whom, and who that is: mailboxes, aliases, relaying.

Nothing is relayed unless the configuration says so: by the client's network, by its login, or by
the domain it writes to. What a local part looks like (``user%other.example``, ``other!user``,
``"user@other.example"``) never gives permission.
"""

from __future__ import annotations

import ipaddress
import time
from typing import TYPE_CHECKING, Final

import trio
from msgspec.structs import replace

from elemta.listener.expansion import (
    NO_SUCH_MAILBOX,
    Expansion,
    Led,
    OwnDomain,
    addressees,
    is_route,
)
from elemta.maps import MapDownError, Maps, domain_keys
from elemta.message import is_rewritten
from elemta.protocol import Mailbox, Notify, Reply, comparable_domain, reply
from elemta.queue import Addressee

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from elemta.config import Config, Network
    from elemta.listener.expansion import Tell
    from elemta.message import Srs
    from elemta.protocol import RcptParams

#: Clients whose permission is remembered; beyond it all are forgotten and found anew.
REMEMBERED: Final = 10_000

#: Seconds that all look-ups for one address may take: no client waits for a thousand slow ones.
PATIENCE: Final = 60.0

#: Whether somebody is there, nobody can say just now (RFC 3463 §3.5: X.4.3).
MAP_DOWN: Final = reply(451, 4, 3, "who that is cannot be found out just now")
RELAY_DENIED: Final = reply(550, 7, 1, "relay access denied")


class Recipients:
    """Decides from the configuration, and from maps that it names.

    Args:
        config: of the server.
        maps: those of the configuration; None: it has none.
        srs: knows the senders that were rewritten; None: none were.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        config: Config,
        maps: Maps | None = None,
        srs: Srs | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._maps = maps or Maps({})
        self._srs = srs
        self._clock = clock
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
        return "" if is_route(mailbox.local_part) else "relay.domains"

    async def find(
        self,
        mailbox: Mailbox,
        *,
        client: str,
        login: str | None = None,
        tell: Tell | None = None,
    ) -> tuple[Addressee, ...] | Reply:
        """Who gets mail for `mailbox`, or why nobody does. Waits only where maps are asked.

        Args:
            mailbox: as the client names it.
            client: its IP address; empty if it has none.
            login: who is logged in, or None.
            tell: hears each step that leads somewhere else.
        """
        if tell is None:
            found = self.decide(mailbox, client=client, login=login)
            if found is not None:
                return found
        if not self.is_ours(mailbox):
            relayed = self._relay_to(mailbox, client=client, login=login)
            return await self._relay_by_map(mailbox, tell) if relayed is None else relayed
        named = mailbox = self._with_domain(mailbox)
        if (returned := self._returned(mailbox)) is not None:
            mailbox = returned
            if tell is not None:
                tell(f"{named} stands for the sender {mailbox} (SRS)")
        if self._find(mailbox.domain) is None:
            return addressees((Led(mailbox),), named)
        led = await self._ask(mailbox, tell)
        return led if isinstance(led, Reply) else addressees(led, named)

    def decide(
        self, mailbox: Mailbox, *, client: str, login: str | None = None
    ) -> tuple[Addressee, ...] | Reply | None:
        """The same by the configuration alone; None: a map must be asked, which `find` does.

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
            return self._relay_to(mailbox, client=client, login=login)
        if self._srs is not None and (returned := self._returned(mailbox)) is not None:
            if self._find(returned.domain) is not None:
                return None  # `find` knows the way
            return addressees((Led(returned),), mailbox)
        local_part = mailbox.local_part.lower()
        if own.listed and local_part not in own.aliases:
            return (Addressee(address=mailbox),) if own.has(local_part) else NO_SUCH_MAILBOX
        led = self._led(mailbox)
        return led if led is None or isinstance(led, Reply) else addressees(led, mailbox)

    def _returned(self, mailbox: Mailbox) -> Mailbox | None:
        """The sender that an address of ours stands for, so that a report may come to him.

        Not only reports may: who answers a message by a machine has a sender, too. Only who has
        seen the address knows it, and it leads to one person, for three weeks.
        """
        srs, returned = self._srs, None
        while (
            srs is not None
            and is_rewritten(mailbox.local_part)
            and (own := self._find(mailbox.domain)) is not None
            and own.name == srs.domain
            and (found := srs.original(mailbox, self._clock())) is not None
        ):
            returned = mailbox = found  # a forwarder may have sent it back to us
        return returned

    def _relay_to(
        self, mailbox: Mailbox, *, client: str, login: str | None
    ) -> tuple[Addressee, ...] | Reply | None:
        """A mailbox that is not ours; None: a map must be asked."""
        if self.permission(mailbox, client=client, login=login):
            return (Addressee(address=mailbox),)
        if self._relay.domain_map is None or is_route(mailbox.local_part):
            return RELAY_DENIED
        return None

    async def _relay_by_map(
        self, mailbox: Mailbox, tell: Tell | None
    ) -> tuple[Addressee, ...] | Reply:
        """A mailbox that is not ours, and that only a map can give leave to send to."""
        name = self._relay.domain_map
        assert name is not None, "else nothing was to be asked"
        try:
            with trio.fail_after(PATIENCE):
                for key in domain_keys(comparable_domain(mailbox.domain)):
                    found = await self._maps.get(name, key, exact=True)
                    if tell is not None:
                        there = "is not there" if found is None else "is there"
                        tell(f"the map {name} of relay.domain_map is asked for {key}: {there}")
                    if found is not None:
                        return (Addressee(address=mailbox),)
        except (MapDownError, trio.TooSlowError) as error:
            if tell is not None:
                tell(str(error) or f"the map {name} takes more than {PATIENCE:.0f} s")
            return MAP_DOWN
        return RELAY_DENIED

    def _with_domain(self, mailbox: Mailbox) -> Mailbox:
        """A bare ``postmaster`` has one, too."""
        return mailbox if mailbox.domain else Mailbox(mailbox.local_part, self._home)

    async def owner_of(self, mailbox: Mailbox) -> Mailbox | None:
        """Whose an address is: the one mailbox of ours that mail for it comes to.

        Args:
            mailbox: as somebody writes it: an alias, a sub-address, what a catch-all catches.

        Returns:
            The mailbox, in lower case, with the A-labels of its domain, without a tag. None: the
            address is not ours, leads nowhere, abroad, or to several.

        Raises:
            MapDownError: nobody could say.
        """
        mailbox = self._with_domain(mailbox)
        if self._find(mailbox.domain) is None:
            return None
        led = await self._ask(mailbox)
        if led is MAP_DOWN:
            raise MapDownError(str(led))
        return led[0].owner if not isinstance(led, Reply) and len(led) == 1 else None

    def _led(self, mailbox: Mailbox) -> tuple[Led, ...] | Reply | None:
        """Whom an address of ours leads to, or why to nobody. None: a map must be asked."""
        steps = Expansion(self._find).expand(mailbox)
        try:
            next(steps)
        except StopIteration as end:
            led: tuple[Led, ...] | Reply = end.value
            return led
        return None

    async def _ask(self, mailbox: Mailbox, tell: Tell | None = None) -> tuple[Led, ...] | Reply:
        """The same; each map is asked that must be."""
        steps = Expansion(self._find, tell).expand(mailbox)
        answer: tuple[str, ...] | None = None
        try:
            with trio.fail_after(PATIENCE):
                while True:
                    question = steps.send(answer)
                    answer = await self._maps.get(question.map, question.key)
        except StopIteration as end:
            led: tuple[Led, ...] | Reply = end.value
            return led
        except (MapDownError, trio.TooSlowError) as error:
            if tell is not None:
                tell(str(error) or f"maps take more than {PATIENCE:.0f} s for this one address")
            return MAP_DOWN

    def _find(self, domain: str) -> OwnDomain | None:
        if (own := self._own.get(domain)) is not None or domain.isascii():
            return own
        return self._own.get(comparable_domain(domain))

    def relayed(self, domain: str) -> str | None:
        """Which of ``relay.domains`` lets anybody send to a domain; None: none does."""
        pattern = self._relay.pattern
        found = pattern(domain)
        return (
            found if found is not None or domain.isascii() else pattern(comparable_domain(domain))
        )

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
