"""Where a recipient's mail goes. Pure: whom it asks, it is given.

1. What an operator or a plugin chose hosts for goes there, on the terms of its domain.
2. Where a plugin says when it is asked, it goes, on these terms, too.
3. A domain of ours goes where its ``deliver`` says.
4. Any other goes where, and as, the first entry of ``routes`` that matches says.
5. What matches nothing goes to the domain's own mail exchangers.

A route is decided afresh at each attempt and never stored: a mended configuration frees stuck mail.
"""

from __future__ import annotations

import ipaddress
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from elemta.config import (
    Discard,
    HostPort,
    LmtpHost,
    LmtpSocket,
    Login,
    Maildir,
    Pipe,
    Smarthost,
    Storage,
    TlsPolicy,
    chosen_targets,
)
from elemta.delivery.destinations import Destinations
from elemta.delivery.senders import Senders
from elemta.plugins import Undecided
from elemta.protocol import domain_to_ascii

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from elemta.config import Config, Target
    from elemta.config import Route as Entry
    from elemta.plugins import Choice
    from elemta.protocol import ReversePath
    from elemta.queue import Destined, LaneLimits, RetryPolicy

#: Domains whose route is remembered.
REMEMBERED: Final = 50_000


class Terms(Struct, frozen=True, kw_only=True):
    """How we meet the hosts of a route, where that differs from how we meet all others.

    Attributes:
        hello_name: what we call ourselves.
        source: our own addresses to connect from, at most one of each family; none: whichever
            the kernel takes.
        tls: whether to encrypt.
        server_name: what a host is asked for, and its certificate must name; ``domain``: that
            must lie in the domain whose mail it takes; None: its own name.
        authorities: a file with those whose certificates are trusted; None: the system's.
        certificate: a file with ours, if hosts want one; `key` is the file of its private key.
        login: who we are to them; None: nobody.
    """

    hello_name: str | None = None
    source: tuple[str, ...] = ()
    tls: TlsPolicy | None = None
    server_name: str | None = None
    authorities: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    login: Login | None = None

    @property
    def lane(self) -> str:
        """What stands behind the name of a lane for it; empty for what is usual."""
        if self is USUAL:
            return ""
        told = {
            "hello": self.hello_name,
            "source": ",".join(self.source),
            "tls": self.tls,
            "name": self.server_name,
            "authorities": self.authorities,
            "certificate": self.certificate,
            "login": self.login and self.login.user,
        }
        return "".join(f";{name}={value}" for name, value in told.items() if value)

    @property
    def elsewhere(self) -> Terms:
        """The same for hosts that the route does not name: who we are is not for them to know."""
        if self.login is None and self.server_name is None and self.certificate is None:
            return self
        return replace(self, login=None, server_name=None, certificate=None, key=None)


USUAL: Final = Terms()


class LocalMaildir(Struct, frozen=True):
    """Into a Maildir of this machine."""

    @property
    def lane(self) -> str:
        """What the queue calls this destination."""
        return "maildir"


class Nowhere(Struct, frozen=True):
    """To nobody."""

    @property
    def lane(self) -> str:
        """What the queue calls this destination."""
        return "discard"


class ToProgram(Struct, frozen=True):
    """To the standard input of a program."""

    pipe: Pipe

    @property
    def lane(self) -> str:
        """What the queue calls this destination: the command line, placeholders and all."""
        return str(self.pipe)


class ToStorage(Struct, frozen=True):
    """Into the mailbox back end that a plugin is."""

    plugin: str

    @property
    def lane(self) -> str:
        """What the queue calls this destination."""
        return f"plugin:{self.plugin}"


class ToHosts(Struct, frozen=True):
    """To one of some named hosts, in order: the next is tried where one does not answer.

    Attributes:
        hosts: names or IP addresses without brackets, never asked for their MX; or, with port 0,
            paths of Unix sockets, which begin with a slash.
        lmtp: speak LMTP (RFC 2033): they deliver finally.
        implicit: those of them that are talked to in TLS from the first octet (RFC 8314 §3).
    """

    hosts: tuple[HostPort, ...]
    lmtp: bool = False
    terms: Terms = USUAL
    implicit: frozenset[HostPort] = frozenset()

    @property
    def lane(self) -> str:
        """What the queue calls this destination, e.g. ``smtp:[192.0.2.1]:25,b.example:25``."""
        marks = ("/tls" if each in self.implicit else "" for each in self.hosts)
        hosts = ",".join(map("".join, zip(map(_lane_host, self.hosts), marks, strict=True)))
        return f"{'lmtp' if self.lmtp else 'smtp'}:{hosts}{self.terms.lane}"


class ByMx(Struct, frozen=True):
    """To the mail exchangers of a domain (RFC 5321 §5.1).

    Attributes:
        domain: lower case, A-labels; or an address literal with its brackets; or empty for a bare
            ``postmaster`` where no domain is ours: nobody can be asked for its MX.
    """

    domain: str
    terms: Terms = USUAL

    @property
    def lane(self) -> str:
        """What the queue calls this destination, e.g. ``mx:example.net``."""
        return f"mx:{self.domain}{self.terms.lane}"


#: Where somebody else takes over.
Remote: TypeAlias = ToHosts | ByMx
Route: TypeAlias = LocalMaildir | Nowhere | ToProgram | ToStorage | Undecided | Remote

#: A route, its lane, and how patient we are there.
_Way: TypeAlias = "tuple[Route, str, RetryPolicy]"

T = TypeVar("T")
V = TypeVar("V")


class _Entry(NamedTuple):
    """An entry of ``routes``."""

    rank: int
    #: Whose mail it is for; None: anybody's.
    senders: Senders | None
    terms: Terms
    #: None: to the MX of each domain.
    route: Route | None


class _Step(NamedTuple):
    """An entry as it is for one domain."""

    senders: Senders | None
    place: str
    terms: Terms
    route: Route


class Router:
    """Answers by domain, and by what was chosen for a recipient; remembers its answers.

    Args:
        config: says it all.
        remembered: domains whose route is remembered; beyond it all are found anew.

    Attributes:
        choose: what plugins say; it is asked each time. None: nobody is to be asked.
    """

    def __init__(self, config: Config, *, remembered: int = REMEMBERED) -> None:
        self.choose: Callable[[Destined], Choice] | None = None
        own = {
            _ascii(domain.name): (f"domains[{place}]", _route([domain.target], USUAL))
            for place, domain in enumerate(config.domains)
        }
        #: The home of a bare ``postmaster`` (RFC 5321 §4.5.1).
        self._home = next(iter(own), "")
        #: By domain: which entry, and where it leads.
        self._own: Final = own
        delimiters = {
            name.lower(): domain.delimiter
            for domain in config.domains
            if domain.delimiter
            for name in (domain.name, _ascii(domain.name))
        }
        #: By pattern: the entries that are for it, in their order.
        self._routes: Final[dict[str, list[_Entry]]] = {}
        for rank, entry in enumerate(config.routes):
            terms = _terms(entry)
            route = _route(entry.targets, terms) if entry.via else None
            senders = Senders(entry.senders, delimiters) if entry.senders else None
            found = _Entry(rank, senders, terms, route)
            self._routes.setdefault(_ascii(entry.match), []).append(found)
        self._by_sender: Final = any(entry.senders for entry in config.routes)
        #: By domain, where its mail goes, whoever sent it.
        self._known: Final[dict[str, _Way]] = {}
        #: By domain, where that depends on the sender: whose mail goes where, in order; the last
        #: is for all who are left.
        self._parted: Final[dict[str, tuple[tuple[Senders | None, _Way], ...]]] = {}
        self._chosen: Final[dict[tuple[str, tuple[str, ...], str], _Way]] = {}
        self._remembered = remembered
        self._destinations = Destinations(config, _ascii, _patterns)

    def route(self, recipient: Destined, sender: ReversePath) -> Route:
        """Where to deliver a recipient's mail of a sender."""
        return self._way(recipient, sender)[0]

    def entry(self, recipient: Destined, sender: ReversePath) -> str:
        """Who says so, e.g. ``routes[0]`` or ``plugin:NAME``; empty if nobody does.

        Of a recipient that somebody chose hosts for it says whose terms hold, at most.
        """
        if not recipient.via and self.choose is not None:
            chosen = self.choose(recipient)
            if chosen is not None:
                return f"plugin:{chosen.plugin}"
        return self._decide(_ascii(recipient.address.domain) or self._home, sender).place

    def lane(self, recipient: Destined, sender: ReversePath) -> str:
        """The name of that destination: what has the same lane may share a connection."""
        return self._way(recipient, sender)[1]

    def policy(self, recipient: Destined, sender: ReversePath) -> RetryPolicy:
        """How patient the queue is with a recipient's mail of a sender."""
        return self._way(recipient, sender)[2]

    def limits(self, lane: str) -> LaneLimits:
        """What may go to a destination."""
        return self._destinations.limits(lane)

    def _way(self, recipient: Destined, sender: ReversePath) -> _Way:
        domain, via = recipient.address.domain, recipient.via
        if not via and self.choose is not None:
            match self.choose(recipient):
                case None:
                    pass
                case Undecided() as undecided:
                    name, lane = _ascii(domain) or self._home, undecided.lane
                    return undecided, lane, self._destinations.policy(name, lane)
                case chosen:
                    via = chosen.targets
        if not via:
            return self._known.get(domain) or self._find(domain, sender)
        place = ""
        if self._by_sender:
            place = self._decide(_ascii(domain) or self._home, sender).place
        key = (domain, via, place)
        return self._chosen.get(key) or self._find_chosen(key, sender)

    def _find(self, domain: str, sender: ReversePath) -> _Way:
        parted = self._parted.get(domain)
        if parted is None:
            name = _ascii(domain) or self._home
            steps = [*self._steps(name)]
            if len(steps) == 1:
                return self._remember(self._known, domain, self._way_of(name, steps[0].route))
            ways = tuple((step.senders, self._way_of(name, step.route)) for step in steps)
            parted = self._remember(self._parted, domain, ways)
        for senders, way in parted:
            if senders is None or sender in senders:
                return way
        raise AssertionError("the last is for any sender")

    def _find_chosen(self, key: tuple[str, tuple[str, ...], str], sender: ReversePath) -> _Way:
        domain, via, _ = key
        name = _ascii(domain) or self._home
        step = self._decide(name, sender)
        route = step.route
        with suppress(ValueError):  # another version's: then as the configuration says
            route = _route(chosen_targets(via, discard=True), step.terms.elsewhere)
        return self._remember(self._chosen, key, self._way_of(name, route))

    def _remember(self, known: dict[T, V], key: T, found: V) -> V:
        if len(known) >= self._remembered:
            known.clear()
        known[key] = found
        return found

    def _way_of(self, domain: str, route: Route) -> _Way:
        return route, route.lane, self._destinations.policy(domain, route.lane)

    def _decide(self, domain: str, sender: ReversePath) -> _Step:
        """Which entry matches, on which terms, and where it leads."""
        steps = self._steps(domain)
        return next(each for each in steps if each.senders is None or sender in each.senders)

    def _steps(self, domain: str) -> Iterator[_Step]:
        """The entries that are for a domain, in order; the last is for any sender."""
        if (own := self._own.get(domain)) is not None:
            yield _Step(None, own[0], USUAL, own[1])
            return
        found = [self._routes[each] for each in _patterns(domain) if each in self._routes]
        for rank, senders, terms, route in sorted(chain.from_iterable(found), key=_rank):
            here = ByMx(domain, terms) if route is None else route
            yield _Step(senders, f"routes[{rank}]", terms, here)
            if senders is None:
                return
        yield _Step(None, "", USUAL, ByMx(domain))


def _patterns(domain: str) -> Iterator[str]:
    """Whatever ``match`` may say of a domain: as many as it has labels, however many routes."""
    yield domain
    yield "*"
    if domain.startswith("["):
        return
    while (dot := domain.find(".")) >= 0:
        domain = domain[dot + 1 :]
        yield f"*.{domain}"


def _rank(entry: _Entry) -> int:
    return entry.rank


def _terms(entry: Entry) -> Terms:
    return Terms(
        hello_name=entry.hello_name,
        source=tuple(entry.source),
        tls=entry.encryption,
        server_name=entry.server_name,
        authorities=entry.authorities,
        certificate=entry.certificate,
        key=entry.key,
        login=entry.login,
    )


def _route(targets: Sequence[Target], terms: Terms) -> Route:
    """What ``via`` or ``deliver`` lead to: at least one; only hosts have others beside them."""
    hosts: list[HostPort] = []
    implicit: set[HostPort] = set()
    for target in targets:
        match target:
            case Maildir():
                return LocalMaildir()
            case Discard():
                return Nowhere()
            case Pipe():
                return ToProgram(target)
            case Storage(plugin):
                return ToStorage(plugin)
            case LmtpSocket(path):
                hosts.append(HostPort(path, 0))
            case Smarthost(host, port) | LmtpHost(host, port):
                hosts.append(HostPort(host, port))
                if isinstance(target, Smarthost) and target.implicit:
                    implicit.add(hosts[-1])
    lmtp = not isinstance(targets[0], Smarthost)
    return ToHosts(tuple(hosts), lmtp, terms, frozenset(implicit))


def _ascii(domain: str) -> str:
    """One form for the two spellings of an internationalised domain; ``*.`` stays in front."""
    star, domain = ("*.", domain[2:]) if domain.startswith("*.") else ("", domain)
    if not domain or domain == "*" or domain.startswith("["):
        return star + domain.lower()
    try:
        return star + domain_to_ascii(domain)
    except ValueError:  # no DNS name can be made of it: DNS will say so
        return star + domain.lower()


def _lane_host(host: HostPort) -> str:
    if not host.port:
        return host.host
    try:
        ipaddress.ip_address(host.host)
    except ValueError:
        return f"{host.host}:{host.port}"
    return f"[{host.host}]:{host.port}"
