"""What a client calls itself (RFC 5321 §4.1.1.1): forged, no name, or a name of nobody.

By default only forgeries are refused: a name of ours, by somebody who is not one of us. A name that
merely does not verify must not cost anybody his mail (RFC 5321 §4.1.4), so it gets a tag.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final

import trio
from msgspec import field
from typing_extensions import override

from elemta.config import Network, Table
from elemta.net.dns import DnsTemporaryError, Kind, NoRecordsError, NoSuchDomainError
from elemta.plugins.built_in.actions import (
    Action,
    Objection,
    Objects,
    check_tag,
    check_text,
)
from elemta.plugins.built_in.entries import Names, name_of
from elemta.plugins.scene import ip_of
from elemta.units import Seconds

if TYPE_CHECKING:
    from elemta.config import IPAddress
    from elemta.plugins import Session, Transaction


#: How long `timeout` may be: the plugin as a whole has 30 s for an answer, and then defers.
LONGEST: Final = Seconds(10)
#: Names of one session that are looked up: a client may say EHLO as often as it likes.
_MOST_NAMES: Final = 5


class Settings(Table, frozen=True, kw_only=True):
    """The ``settings`` of ``helo-checks``."""

    #: It calls itself as this server (`hostname`), or by one of `names`.
    own_name: Action = "reject"
    #: It calls itself by a domain whose mail is delivered here.
    own_domain: Action = "reject"
    #: It gives one of `addresses` as its own.
    own_address: Action = "reject"
    #: It gives an IP address without brackets.
    bare_address: Action = "tag"
    #: It gives an IP address in brackets from which it does not come.
    other_address: Action = "tag"
    #: It gives a name without a dot, such as ``localhost``.
    short_name: Action = "tag"
    #: It gives a name that has neither an address nor a mail exchanger. Asks the DNS, unless
    #: ``none``.
    unresolved: Action = "none"
    #: More names of this server, such as those of its other interfaces; ``*.DOMAIN`` is all below
    #: one, and wants care: your other servers may send mail, too.
    names: list[str] = field(default_factory=list[str])
    #: The addresses of this server, as the world sees them.
    addresses: list[Network] = field(default_factory=list[Network])
    #: What a refused client is told.
    text: str = "EHLO with a name of your own"
    #: A word by which operators find it.
    tag: str = "helo"
    #: How long the DNS may take; a name of which nobody can say anything is taken as it is.
    timeout: Seconds = Seconds(10)

    def __post_init__(self) -> None:
        check_text("text", self.text)
        check_tag("tag", self.tag)
        Names(self.names)
        if not 0 < self.timeout <= LONGEST:
            raise ValueError(f"`timeout` must be more than 0 s, and at most {LONGEST.written}")


class _Known:
    """What the DNS said of a name, by the name."""

    def __init__(self) -> None:
        self.exists: dict[str, bool] = {}


class HeloChecks(Objects[Settings]):
    """Refuses clients that call themselves by our name, and marks those that give none."""

    name = "helo-checks"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._names = Names(settings.names)

    @override
    async def _judge(self, transaction: Transaction) -> list[Objection]:
        session = transaction.session
        address = session.ip
        if transaction.exempt or address is None or self._is_here(address):
            return []
        literal = _literal(session.helo)
        if literal is None:
            found = await self._judge_name(session)
        else:
            found = self._judge_address(literal, session)
        return [each for each in found if each.action != "none"]

    async def _judge_name(self, session: Session) -> list[Objection]:
        settings, name = self.settings, name_of(session.helo)
        address = _address(name)
        if address is not None:
            bare = self._objection(settings.bare_address, f"{name} is no name")
            return [bare, *self._judge_own(address)]
        found: list[Objection] = []
        if name == name_of(self.tools.hostname) or self._names.find(name) is not None:
            found.append(self._objection(settings.own_name, f"{name} is a name of ours"))
        elif self.tools.ours(name):
            found.append(self._objection(settings.own_domain, f"{name} is a domain of ours"))
        if "." not in name:
            found.append(self._objection(settings.short_name, f"{name} is no full name"))
        if settings.unresolved != "none" and not await self._exists(name, session):
            found.append(self._objection(settings.unresolved, f"{name} leads nowhere"))
        return found

    def _judge_address(self, literal: IPAddress, session: Session) -> list[Objection]:
        if literal == session.ip:
            return []
        told = f"{literal} is not where it comes from"
        other = self._objection(self.settings.other_address, told)
        return [other, *self._judge_own(literal)]

    def _is_here(self, address: IPAddress) -> bool:
        """Whether it is this machine, whose programs may use its name."""
        return address.is_loopback or any(address in each for each in self.settings.addresses)

    def _judge_own(self, address: IPAddress) -> list[Objection]:
        if not any(address in each for each in self.settings.addresses):
            return []
        return [self._objection(self.settings.own_address, f"{address} is an address of ours")]

    def _objection(self, action: Action, note: str) -> Objection:
        return Objection(action, self.settings.text, f"HELO: {note}", self.settings.tag)

    async def _exists(self, name: str, session: Session) -> bool:
        """Whether a name has an address or a mail exchanger, as far as anybody can say."""
        known = session.kept.of(_Known).exists
        if name not in known:
            if len(known) >= _MOST_NAMES:
                return True
            with trio.move_on_after(self.settings.timeout) as scope:
                known[name] = await self._resolves(name)
            if scope.cancelled_caught:
                self.tools.count("unknown")
                known[name] = True
        return known[name]

    async def _resolves(self, name: str) -> bool:
        for kind in (Kind.A, Kind.AAAA, Kind.MX):
            try:
                await self.tools.resolver.records(name, kind)
            except NoSuchDomainError:
                return False
            except NoRecordsError:
                continue
            except DnsTemporaryError:
                self.tools.count("unknown")
            return True
        return False


def _literal(helo: str) -> IPAddress | None:
    """The address of an address literal (RFC 5321 §4.1.3); None: it is none."""
    if not (helo.startswith("[") and helo.endswith("]")):
        return None
    inner = helo[1:-1]
    return _address(inner[5:] if inner[:5].lower() == "ipv6:" else inner)


def _address(text: str) -> IPAddress | None:
    try:
        return ip_of(str(ipaddress.ip_address(text)))
    except ValueError:
        return None
