"""Which hosts take a domain's mail: candidates in the order in which to try them (RFC 5321 §5.1).

The rules of this file:

- Only what DNS says outright is permanent: the domain does not exist, it says by a null MX that it
  takes no mail (RFC 7505), or its mail comes back to ourselves. All other trouble is temporary.
- Nobody's DNS makes us talk to our own machines: what an MX names and lies in a network that is
  not public is left out. If nothing else is left, that is *temporary* (4.4.4) and not a loop
  (5.4.6): a resolver inside a company that sees other addresses than the world does is the usual
  cause, and it can be mended, by DNS or by a route; a route of the configuration is never refused.
- What the configuration names is ours to mend: nothing that is wrong with it is permanent.
"""

from __future__ import annotations

import ipaddress
from itertools import zip_longest
from random import SystemRandom
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import trio
from msgspec import Struct
from typing_extensions import override

from elemta.config import is_address, is_localhost
from elemta.delivery.replies import made
from elemta.delivery.routes import ByMx
from elemta.delivery.targets import is_public, unwrapped
from elemta.net.dns import DnsTemporaryError, NoRecordsError, NoSuchDomainError
from elemta.protocol import Reply, reply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from random import Random

    from elemta.config import Network
    from elemta.delivery.routes import Remote, Terms, ToHosts
    from elemta.net.dns import MX, Resolver

#: Addresses in one plan; the next attempt makes a new one, in which equals stand in another order.
MAX_ADDRESSES: Final = 5
#: Addresses of one host, if there are several hosts: a dead one must not hide those behind it.
MAX_ADDRESSES_OF_ONE: Final = 2
#: Mail exchangers whose addresses are asked for; the best come first.
MAX_EXCHANGERS: Final = 10

#: Of `localhost`, and of names below it.
LOOPBACK: Final = ("127.0.0.1", "::1")

NULL_MX: Final = reply(556, 1, 10, "the domain accepts no mail")
NO_SUCH_DOMAIN: Final = reply(550, 1, 2, "no such domain")
NO_SUCH_LITERAL: Final = reply(550, 1, 3, "no such kind of address literal")
LOOPS_BACK: Final = reply(554, 4, 6, "mail for this domain loops back to this host")
ROUTE_LOOPS_BACK: Final = reply(451, 4, 6, "the configured route leads back to this host")
NO_ADDRESS: Final = reply(451, 4, 4, "no mail exchanger of the domain has an address")
NO_PUBLIC_ADDRESS: Final = reply(451, 4, 4, "no mail exchanger has a public address")
NO_ADDRESS_OF_SOURCE: Final = reply(
    451, 4, 4, "no host has an address of the kind that the route connects from"
)
NO_ROUTE_ADDRESS: Final = reply(451, 4, 4, "the host of the configured route has no address")


class Candidate(Struct, frozen=True):
    """One address to call.

    Attributes:
        name: the host's, as MX or the configuration has it.
        address: an IP address without brackets; or, with port 0, the path of a Unix socket.
        source: our own address to call from; None: whichever the kernel takes.
        implicit: it is talked to in TLS from the first octet.
    """

    name: str
    address: str
    port: int
    source: str | None = None
    implicit: bool = False

    @override
    def __str__(self) -> str:
        """As logs and timelines show it: ``mx.example[192.0.2.1]:25``, ``/run/lmtp``."""
        return f"{self.name}[{self.address}]:{self.port}" if self.port else self.address


#: Is told, a line each, what there was to choose from and what was left out, and why.
Tell: TypeAlias = "Callable[[str], None]"

#: Whom to call, best first, at least one; or why nobody can be: a 4xx or 5xx of our own making.
Plan: TypeAlias = tuple[Candidate, ...] | Reply


class _Host(NamedTuple):
    """A host that may take the mail, and what became of looking for its addresses."""

    preference: int
    name: str
    port: int
    addresses: tuple[str, ...] = ()
    trouble: DnsTemporaryError | NoRecordsError | NoSuchDomainError | None = None
    implicit: bool = False

    @override
    def __str__(self) -> str:
        """For people: its name, and where it is."""
        where = ", ".join(sorted(self.addresses)) or f"no address: {self.trouble or 'none'}"
        return f"{self.name}: {where}"

    def only(self, permitted: Callable[[str], bool], why: str, tell: Tell) -> _Host:
        """The same without the addresses that are not permitted."""
        kept: list[str] = []
        for address in self.addresses:
            if permitted(address):
                kept.append(address)
            else:
                tell(f"{address} of {self.name} is left out: {why}")
        return self._replace(addresses=tuple(kept))


class Hosts:
    """Makes plans.

    Args:
        resolver: who asks DNS.
        hostname: our own name: an MX of that name is ourselves.
        is_own: whether an address and port are those of a listener of ours.
        port: where mail exchangers listen.
        allowed: networks that an MX may lie in, although they are not public.
        random: gives the order among equals.
    """

    def __init__(
        self,
        resolver: Resolver,
        *,
        hostname: str,
        is_own: Callable[[str, int], bool],
        port: int = 25,
        allowed: Sequence[Network] = (),
        random: Random | None = None,
    ) -> None:
        self._resolver = resolver
        self._hostname = _plain(hostname)
        self._is_own = is_own
        self._port = port
        self._allowed = tuple(allowed)
        self._random = random or SystemRandom()

    async def plan(self, route: Remote, tell: Tell | None = None) -> Plan:
        """Whom to call for a route, and from where.

        Args:
            route: where to.
            tell: for people who want to know how it was found.
        """
        tell = tell or _to_nobody
        if not isinstance(route, ByMx):
            return await self._plan_hosts(route, tell)
        if route.domain.startswith("["):
            return self._plan_literal(route, tell)
        return await self._plan_mx(route, tell)

    async def _plan_mx(self, route: ByMx, tell: Tell) -> Plan:
        domain = route.domain
        if not domain:  # a bare postmaster, and no domain is ours
            return NO_SUCH_DOMAIN
        try:
            exchangers = self._sorted(await self._resolver.mx(domain))
        except NoSuchDomainError:
            return NO_SUCH_DOMAIN
        except NoRecordsError:
            tell(f"{domain} has no MX, so that its own addresses are asked for")
            exchangers = [_Host(0, _plain(domain), self._port)]  # the implicit MX
        except DnsTemporaryError as error:
            return _dns_trouble(error)
        if not exchangers:
            return NULL_MX
        others = _better_than_us(exchangers, lambda host: host.name == self._hostname, tell)
        for host in others[MAX_EXCHANGERS:]:
            tell(f"{host.name} is left out: {MAX_EXCHANGERS} others are better")
        looked_up = await self._look_up(others[:MAX_EXCHANGERS])
        for host in looked_up:
            tell(f"MX {host.preference} {host}")
        found = _better_than_us(looked_up, self._is_us, tell)
        if not found:
            return LOOPS_BACK
        public = [host.only(self._permitted, "it is no public address", tell) for host in found]
        return self._candidates(public, route.terms, tell) or _why_none(
            found, NO_ADDRESS, NO_PUBLIC_ADDRESS
        )

    async def _plan_hosts(self, route: ToHosts, tell: Tell) -> Plan:
        named = [
            _Host(0, host.host, host.port, implicit=host in route.implicit) for host in route.hosts
        ]
        found = await self._look_up(named)
        for host in found:
            if host.addresses != (host.name,):
                tell(str(host))
        others = [host.only(self._not_us(host.port), "we listen there", tell) for host in found]
        return self._candidates(others, route.terms, tell) or _why_none(
            found, NO_ROUTE_ADDRESS, ROUTE_LOOPS_BACK
        )

    def _plan_literal(self, route: ByMx, tell: Tell) -> Plan:
        """For mail to ``user@[192.0.2.1]``: no DNS is asked (RFC 5321 §4.1.3)."""
        text = route.domain[1:-1]
        try:
            address = str(ipaddress.ip_address(text[5:] if text[:5].lower() == "ipv6:" else text))
        except ValueError:
            return NO_SUCH_LITERAL
        if self._is_own(address, self._port):
            return LOOPS_BACK
        if not self._permitted(address):
            return NO_PUBLIC_ADDRESS
        return self._candidates([_Host(0, address, self._port, (address,))], route.terms, tell)

    def _sorted(self, records: Iterable[MX]) -> list[_Host]:
        """The exchangers, best first, equals in random order; none for a null MX."""
        hosts = [_Host(mx.preference, _plain(mx.host), self._port) for mx in records]
        hosts = [host for host in hosts if host.name]
        self._random.shuffle(hosts)
        return sorted(hosts, key=lambda host: host.preference)

    async def _look_up(self, hosts: Sequence[_Host]) -> list[_Host]:
        """The same with addresses; asked for at once, since any may have to time out."""
        if len(hosts) == 1:
            return [await self._look_up_one(hosts[0])]
        found: dict[int, _Host] = {}

        async def look_up(place: int) -> None:
            found[place] = await self._look_up_one(hosts[place])

        async with trio.open_nursery() as nursery:
            for place in range(len(hosts)):
                nursery.start_soon(look_up, place)
        return [found[place] for place in range(len(hosts))]

    async def _look_up_one(self, host: _Host) -> _Host:
        if not host.port or is_address(host.name):
            return host._replace(addresses=(host.name,))
        if is_localhost(host.name):
            # Whoever answers for the name in the DNS could have our mail (RFC 6761 §6.3).
            return host._replace(addresses=LOOPBACK)
        try:
            addresses = await self._resolver.addresses(host.name)
        except (DnsTemporaryError, NoRecordsError, NoSuchDomainError) as error:
            return host._replace(trouble=error)
        return host._replace(addresses=tuple(self._random.sample(addresses, len(addresses))))

    def _candidates(self, hosts: Sequence[_Host], terms: Terms, tell: Tell) -> Plan:
        """The addresses to call, families taking turns within each host; empty: there are none.

        IPv4 first: who has IPv6 often lacks the reverse name for it that large receivers insist
        on, and what they say then is a 5xx.
        """
        of_one = MAX_ADDRESSES if len(hosts) == 1 else MAX_ADDRESSES_OF_ONE
        source = {":" in address: address for address in terms.source}
        candidates: list[Candidate] = []
        near = 0
        for host in hosts:
            # From one family to the other there is no way; a Unix socket has none.
            reached = host
            if source and host.port:
                why = "the route connects from no address of its kind"
                reached = host.only(lambda address: (":" in address) in source, why, tell)
            old = [address for address in reached.addresses if ":" not in address]
            new = [address for address in reached.addresses if ":" in address]
            turns = [a for pair in zip_longest(old, new) for a in pair if a is not None]
            near += len(turns)
            candidates += [
                Candidate(host.name, a, host.port, source.get(":" in a), host.implicit)
                for a in turns[:of_one]
            ]
        if not candidates and any(host.addresses for host in hosts):
            return NO_ADDRESS_OF_SOURCE
        if (left := near - min(len(candidates), MAX_ADDRESSES)) > 0:
            tell(f"{left} more are left for later attempts")
        return tuple(candidates[:MAX_ADDRESSES])

    def _not_us(self, port: int) -> Callable[[str], bool]:
        return lambda address: not (port and self._is_own(address, port))

    def _is_us(self, host: _Host) -> bool:
        return any(self._is_own(address, host.port) for address in host.addresses)

    def _permitted(self, address: str) -> bool:
        """Whether an MX may lead to an address."""
        return is_public(address) or any(unwrapped(address) in net for net in self._allowed)


def _to_nobody(line: str) -> None:
    pass


def _better_than_us(hosts: list[_Host], is_us: Callable[[_Host], bool], tell: Tell) -> list[_Host]:
    """Those before us in the order of preference: no other is nearer to the goal than we are."""
    own = min((host.preference for host in hosts if is_us(host)), default=None)
    if own is None:
        return hosts
    for host in hosts:
        if host.preference >= own:
            why = "that is ourselves" if is_us(host) else "it is no nearer than we are"
            tell(f"{host.name} is left out: {why}")
    return [host for host in hosts if host.preference < own]


def _why_none(hosts: Iterable[_Host], no_address: Reply, all_refused: Reply) -> Reply:
    """Why none of these hosts can be called: DNS trouble may hide an address, so it comes first."""
    hosts = [*hosts]
    for host in hosts:
        if isinstance(host.trouble, DnsTemporaryError):
            return _dns_trouble(host.trouble)
    return all_refused if any(host.addresses for host in hosts) else no_address


def _dns_trouble(error: DnsTemporaryError) -> Reply:
    return made(451, 4, 3, f"DNS: {error}")


def _plain(name: str) -> str:
    return name.rstrip(".").lower()
