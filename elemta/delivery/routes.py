"""Where mail can go, on which terms, and what the queue calls that."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

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
    is_address,
)
from elemta.plugins import Undecided

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elemta.config import Route as Entry
    from elemta.config import Target

#: How lanes begin in which mail waits for what a map says.
UNSAID: Final = "undecided:maps."


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


class Unsaid(Struct, frozen=True):
    """Nowhere yet: a map is to be asked, cannot be, or says nothing that is understood."""

    map: str

    @property
    def lane(self) -> str:
        """What the queue calls this destination, e.g. ``undecided:maps.transport``."""
        return f"{UNSAID}{self.map}"


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
Route: TypeAlias = LocalMaildir | Nowhere | ToProgram | ToStorage | Undecided | Unsaid | Remote


def terms_of(entry: Entry) -> Terms:
    """What an entry of ``routes`` says of its hosts beyond their names."""
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


def route_of(targets: Sequence[Target], terms: Terms) -> Route:
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


def _lane_host(host: HostPort) -> str:
    if not host.port:
        return host.host
    return f"[{host.host}]:{host.port}" if is_address(host.host) else f"{host.host}:{host.port}"
