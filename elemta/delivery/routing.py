"""Where a recipient's mail goes. Pure: the configuration decides, nothing is asked of anybody.

1. A domain of ours goes where its ``deliver`` says.
2. Any other goes where the first entry of ``routes`` that matches says.
3. What matches nothing goes to the domain's own mail exchangers.

A route is decided afresh at each attempt and never stored: a mended configuration frees stuck mail.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final, TypeAlias

from msgspec import Struct

from elemta.config import HostPort, Maildir
from elemta.protocol import domain_to_ascii

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from elemta.config import Config, Target
    from elemta.protocol import Mailbox

#: Domains whose route is remembered.
REMEMBERED: Final = 50_000


class LocalMaildir(Struct, frozen=True):
    """Into a Maildir of this machine."""

    @property
    def lane(self) -> str:
        """What the queue calls this destination."""
        return "maildir"


class ToHosts(Struct, frozen=True):
    """To one of some named hosts, in order: the next is tried where one does not answer.

    Attributes:
        hosts: names or IP addresses without brackets; never asked for their MX.
    """

    hosts: tuple[HostPort, ...]

    @property
    def lane(self) -> str:
        """What the queue calls this destination, e.g. ``smtp:[192.0.2.1]:25,b.example:25``."""
        return "smtp:" + ",".join(map(_lane_host, self.hosts))


class ByMx(Struct, frozen=True):
    """To the mail exchangers of a domain (RFC 5321 §5.1).

    Attributes:
        domain: lower case, A-labels; or an address literal with its brackets; or empty for a bare
            ``postmaster`` where no domain is ours: nobody can be asked for its MX.
    """

    domain: str

    @property
    def lane(self) -> str:
        """What the queue calls this destination, e.g. ``mx:example.net``."""
        return f"mx:{self.domain}"


Route: TypeAlias = LocalMaildir | ToHosts | ByMx


class Router:
    """Answers by domain, and remembers its answers.

    Args:
        config: says it all.
        remembered: domains whose route is remembered; beyond it all are found anew.
    """

    def __init__(self, config: Config, *, remembered: int = REMEMBERED) -> None:
        own = [(_ascii(domain.name), _route([domain.target])) for domain in config.domains]
        #: The home of a bare ``postmaster`` (RFC 5321 §4.5.1).
        self._home = own[0][0] if own else ""
        self._own: Final = dict(own)
        self._routes: Final[dict[str, tuple[int, Route]]] = {}
        for rank, entry in enumerate(config.routes):
            self._routes.setdefault(_ascii(entry.match), (rank, _route(entry.targets)))
        self._known: Final[dict[str, tuple[Route, str]]] = {}
        self._remembered = remembered

    def route(self, mailbox: Mailbox) -> Route:
        """Where to deliver mail for a mailbox."""
        return (self._known.get(mailbox.domain) or self._find(mailbox.domain))[0]

    def lane(self, mailbox: Mailbox) -> str:
        """The name of that destination: what has the same lane may share a connection."""
        return (self._known.get(mailbox.domain) or self._find(mailbox.domain))[1]

    def _find(self, domain: str) -> tuple[Route, str]:
        route = self._decide(_ascii(domain) or self._home)
        if len(self._known) >= self._remembered:
            self._known.clear()
        found = self._known[domain] = (route, route.lane)
        return found

    def _decide(self, domain: str) -> Route:
        if (own := self._own.get(domain)) is not None:
            return own
        matching = [
            self._routes[pattern] for pattern in _patterns(domain) if pattern in self._routes
        ]
        if matching:
            return min(matching, key=_rank)[1]
        return ByMx(domain)


def _rank(entry: tuple[int, Route]) -> int:
    return entry[0]


def _patterns(domain: str) -> Iterator[str]:
    """Whatever ``match`` may say of a domain: as many as it has labels, however many routes."""
    yield domain
    yield "*"
    if domain.startswith("["):
        return
    while (dot := domain.find(".")) >= 0:
        domain = domain[dot + 1 :]
        yield f"*.{domain}"


def _route(targets: Iterable[Target]) -> Route:
    """What ``via`` or ``deliver`` lead to; no configuration has a Maildir beside others."""
    hosts: list[HostPort] = []
    for target in targets:
        if isinstance(target, Maildir):
            return LocalMaildir()
        hosts.append(HostPort(target.host, target.port))
    return ToHosts(tuple(hosts))


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
    try:
        ipaddress.ip_address(host.host)
    except ValueError:
        return f"{host.host}:{host.port}"
    return f"[{host.host}]:{host.port}"
