"""Puts strangers off once (RFC 6647): who sends mail comes back, who sends spam often does not.

Why a failure lets mail through: what this finds out is a guess, and one that only ever costs time.
Mail that all other checks let through must not wait for it.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Annotated, ClassVar, Final

from msgspec import Meta, Struct, field
from typing_extensions import override

from elemta.config import Network, Table
from elemta.ledger import Book, Row, short
from elemta.net.limits import network
from elemta.plugins import CONTINUE, Continue, Defer, PluginWith, Transaction, Verdict
from elemta.plugins.built_in.entries import Addresses, Names, Networks, name_of
from elemta.plugins.built_in.triplets import Attempts, Passes, Terms, Triplets, triplet
from elemta.plugins.remembering import Remembering
from elemta.units import Seconds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from elemta.ledger import Ledger
    from elemta.plugins import Session
    from elemta.protocol import Mailbox

#: Triplets of one session of which is remembered that they were counted.
_REMEMBERED: Final = 1000

Rows = Annotated[int, Meta(ge=1000, le=10_000_000)]


class Settings(Table, frozen=True):
    """The ``settings`` of ``greylisting``."""

    #: How long a stranger has to wait. Mail servers come back after 5 to 30 minutes anyway.
    delay: Seconds = Seconds(300)
    #: How long a first attempt is remembered: who comes back later is a stranger again.
    window: Seconds = Seconds(4 * 3600)
    #: How long somebody is known, from the last message on; a monthly letter must not be new again.
    lifetime: Seconds = Seconds(36 * 86400)
    #: How often a client must have come back to be put off no more; 0: always each new triplet.
    passes: Annotated[int, Meta(ge=0)] = 5
    #: How much of an address is the client: mail servers of one site stand side by side.
    ipv4_prefix: Annotated[int, Meta(ge=8, le=32)] = 24
    ipv6_prefix: Annotated[int, Meta(ge=16, le=128)] = 64
    #: Clients that are never put off.
    networks: tuple[Network, ...] = ()
    #: Senders that are never put off: ``ann@example.net``, ``example.net``, or ``*.example.net``
    #: for all below it. Anybody can claim to be one; `spf_domains` is better.
    senders: tuple[str, ...] = ()
    #: Recipients whose mail must not wait, written likewise.
    recipients: tuple[str, ...] = ()
    #: Domains whose mail is never put off if SPF says that it is theirs, written likewise. For big
    #: senders, each of whose attempts comes from another network.
    spf_domains: tuple[str, ...] = ()
    #: Whether domains are learned as clients are: whose mail came back so often with an SPF pass
    #: is put off no more, from whatever network it comes with one.
    learn_domains: bool = True
    #: First attempts that are remembered; some 300 octets of memory each.
    attempts: Rows = 100_000
    #: Triplets that came back that are remembered, and as many clients.
    known: Rows = 100_000

    def __post_init__(self) -> None:
        if self.window <= self.delay:
            raise ValueError("window must be longer than delay, or nobody ever passes")
        if self.lifetime <= self.window:
            raise ValueError("lifetime must be longer than window")
        # A mistake in one of them shows here, with its place in the file.
        Addresses(self.senders)
        Addresses(self.recipients)
        Names(self.spf_domains)


class _Seen(Struct):
    """What was counted of a session: who tries twice in one is one who tries."""

    keys: set[bytes] = field(default_factory=set[bytes])
    came_back: bool = False


class Greylisting(Remembering, PluginWith[Settings]):
    """Puts off who was never here before, and lets in who comes back."""

    name = "greylisting"
    on_error: ClassVar[Verdict | Mapping[str, Verdict]] = CONTINUE

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._terms = Terms(settings.delay, settings.window, settings.lifetime, settings.passes)
        self._senders = Addresses(settings.senders)
        self._recipients = Addresses(settings.recipients)
        self._spf_domains = Names(settings.spf_domains)
        self._networks = Networks(map(str, settings.networks))
        self._triplets: Triplets

    @override
    async def remember(self, ledger: Ledger) -> None:
        # In common: who is put off by one node may come back to another.
        known, book = self.settings.known, partial(ledger.book, common=True)
        self._triplets = Triplets(
            await book("attempts", Attempts(self.settings.attempts)),
            await book("passed", Book(Row, known)),
            await book("passes", Book(Passes, known, Passes.joined)),
            await book("clients", Book(Row, known)),
        )
        self._tell()
        self._also = self._tell

    def _tell(self) -> None:
        """What is known, for Prometheus."""
        meters, known = self.tools.meters, self._triplets
        meters.greylisted["waiting"] = len(known.attempts.rows)
        meters.greylisted["passed"] = len(known.passed.rows)
        meters.greylisting_clients = len(known.clients.rows)
        if known.attempts.given_up:
            meters.greylisting["expired"] += known.attempts.given_up
            known.attempts.given_up = 0

    @override
    async def on_greylist(self, transaction: Transaction, recipient: Mailbox) -> Verdict:
        session, settings, counts = (
            transaction.session,
            self.settings,
            self.tools.meters.greylisting,
        )
        if self._spared(transaction, recipient):
            counts["bypassed"] += 1
            return CONTINUE
        now, terms, known = self.tools.clock(), self._terms, self._triplets
        client = network(session.address, settings.ipv4_prefix, settings.ipv6_prefix)
        if known.trusts(short(client), now, terms):
            counts["whitelisted"] += 1
            return CONTINUE
        sender = transaction.sender
        domain = "" if sender is None else name_of(sender.domain)
        if domain:
            listed = self._spf_domains.find(domain) is not None
            if (listed or known.trusts(_domain(domain), now, terms)) and await self._vouched_for(
                transaction
            ):
                counts["bypassed" if listed else "whitelisted"] += 1
                return CONTINUE
        key = triplet(client, sender, recipient)
        finding, left = known.look(key, client, now, terms)
        seen = session.kept.of(_Seen)
        if key not in seen.keys or finding == "passed":
            counts[finding] += 1
            if len(seen.keys) < _REMEMBERED:
                seen.keys.add(key)
        if finding in ("greylisted", "early"):
            wait = math.ceil(left)
            return Defer((7, 1), f"greylisted, try again in {wait} seconds", note=finding)
        if finding == "known":
            return CONTINUE
        if not seen.came_back:
            # Once a session: a message to five strangers is not five messages.
            seen.came_back = True
            known.came_back(short(client), now, terms)
            if domain and settings.learn_domains and await self._vouched_for(transaction):
                known.came_back(_domain(domain), now, terms)
        return Continue(note="came back")

    def _spared(self, transaction: Transaction, recipient: Mailbox) -> bool:
        """Whether nobody needs look at it."""
        session = transaction.session
        if transaction.exempt or not session.address:
            return True
        settings = self.settings
        return (
            (bool(settings.senders) and self._senders.find(transaction.sender) is not None)
            or (bool(settings.recipients) and self._recipients.find(recipient) is not None)
            or (bool(settings.networks) and self._knows_network_of(session))
        )

    def _knows_network_of(self, session: Session) -> bool:
        address = session.ip
        return address is not None and self._networks.find(address) is not None

    async def _vouched_for(self, transaction: Transaction) -> bool:
        """Whether SPF says that this client may send mail of its sender's domain."""
        # Brings a library that who learns no domains need not have loaded.
        from elemta.plugins.built_in.spf import spf_of

        found = await spf_of(transaction, self.tools)
        return found.result == "pass" and found.scope == "mailfrom"


def _domain(name: str) -> bytes:
    """The key of a domain whose mail comes with an SPF pass."""
    return short("spf", name)
