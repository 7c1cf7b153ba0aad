"""iprev: whether the name of an address leads back to it (RFC 8601 §3)."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import trio
from msgspec import Struct
from typing_extensions import override

from elemta.mailauth.results import comment, value
from elemta.net.dns import DnsTemporaryError, Kind, NoRecordsError, NoSuchDomainError

if TYPE_CHECKING:
    from elemta.net.dns import Records

IprevResult: TypeAlias = Literal["pass", "fail", "temperror", "permerror"]

#: Names of one address that are looked at (RFC 8601 §3).
NAMES: Final = 10
#: Seconds that all of it may take.
SECONDS: Final = 20.0


class Iprev(Struct, frozen=True):
    """What the DNS says of a client's address.

    Attributes:
        result: ``fail``: none of its names leads back to it; ``permerror``: it has none.
        address: the client's.
        name: the first that leads back; empty if none does.
        reason: why it is an error, for operators.
    """

    result: IprevResult
    address: str
    name: str = ""
    reason: str = ""

    @override
    def __str__(self) -> str:
        """As RFC 8601 §2.7.3 has it."""
        said = comment(self.name or self.reason)
        address = f" policy.iprev={value(self.address)}" if self.address else ""
        return f"iprev={self.result}{said}{address}"


async def check_iprev(address: str, *, resolver: Records, seconds: float = SECONDS) -> Iprev:
    """Whether a name of an address leads back to it. Never raises.

    Args:
        address: the client's; empty if it has none.
        resolver: asks the DNS.
        seconds: for all of it.
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return Iprev("permerror", address, reason="no IP address")
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    with trio.move_on_after(seconds):
        try:
            names = await resolver.names(str(ip))
        except (NoSuchDomainError, NoRecordsError):
            return Iprev("permerror", address, reason="it has no name")
        except DnsTemporaryError:
            return Iprev("temperror", address, reason="nobody could say its name")
        return await _confirmed(address, ip, names[:NAMES], resolver)
    return Iprev("temperror", address, reason=f"no answer in {seconds:g} s")


async def _confirmed(
    address: str,
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address,
    names: list[str],
    resolver: Records,
) -> Iprev:
    kind = Kind.A if ip.version == 4 else Kind.AAAA
    found: dict[str, tuple[str, ...] | None] = {}

    async def ask(name: str) -> None:
        try:
            found[name] = await resolver.records(name, kind)
        except (NoSuchDomainError, NoRecordsError):
            found[name] = ()
        except DnsTemporaryError:
            found[name] = None

    async with trio.open_nursery() as nursery:
        for name in dict.fromkeys(names):
            nursery.start_soon(ask, name)
    for name in names:
        if any(ipaddress.ip_address(each) == ip for each in found[name] or ()):
            return Iprev("pass", address, name)
    if None in found.values():
        return Iprev("temperror", address, reason="nobody could say where its name leads")
    return Iprev("fail", address, reason="no name leads back to it")
