"""How the configuration writes places on the network: one grammar, used by all who read it."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Final, Self, TypeAlias

from msgspec import Struct
from typing_extensions import override

IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

SMTP_PORT: Final = 25
DNS_PORT: Final = 53

_HOST_NAME: Final = re.compile(
    r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(?:\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*"
)
_HOST_PORT: Final = re.compile(
    r"(?:\[(?P<literal>[^\[\]]*)\]|(?P<host>[^:\[\]]*))(?::(?P<port>\d{1,5}))?"
)
_SYSTEMD: Final = re.compile(r"systemd:(?P<name>[A-Za-z0-9_.-]{1,255})")


def is_address(host: str) -> bool:
    """Whether it is an IP address and no name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class HostPort(Struct, frozen=True, order=True):
    """Where to listen, or whom to call.

    Attributes:
        host: a host name or an IP address without brackets; empty: every address of the machine.
        port: 0 to 65535; listening on 0 takes any free port.
    """

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether nobody but this machine is there; of a name that is known of ``localhost``."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return is_localhost(self.host)

    @override
    def __str__(self) -> str:
        """As the configuration writes it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def is_localhost(name: str) -> bool:
    """Whether a name means this machine, whatever the DNS would say (RFC 6761 §6.3)."""
    name = name.lower().removesuffix(".")
    return name == "localhost" or name.endswith(".localhost")


class SystemdSocket(Struct, frozen=True):
    """Sockets that systemd opened and passed on under a name (``FileDescriptorName=``)."""

    name: str

    @override
    def __str__(self) -> str:
        """As the configuration writes it."""
        return f"systemd:{self.name}"


#: Where a listener takes mail in.
Binding: TypeAlias = HostPort | SystemdSocket


class Network:
    """An IP network: ``192.0.2.0/24``, ``2001:db8::/32``; a bare address is a network of one."""

    __slots__ = ("_network",)

    def __init__(self, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> None:
        self._network = network

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a network.

        Raises:
            ValueError: no network, or one with bits set behind its prefix.
        """
        try:
            return cls(ipaddress.ip_network(text))
        except ValueError:
            pass
        try:
            loose = ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise ValueError(
                f"expected a network such as 192.0.2.0/24 or 2001:db8::/32, not {text!r}"
            ) from None
        raise ValueError(f"{text} has bits set behind its prefix: did you mean {loose}?")

    def __contains__(self, address: IPAddress) -> bool:
        return address in self._network

    @override
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Network) and self._network == other._network

    @override
    def __hash__(self) -> int:
        return hash(self._network)

    @override
    def __str__(self) -> str:
        return str(self._network)

    @override
    def __repr__(self) -> str:
        return f"Network({str(self._network)!r})"


class Service:
    """A server beside us: ``HOST:PORT``, ``[IPV6]:PORT`` or ``/the/path/of/its.socket``.

    Attributes:
        where: whom to call by TCP, or the path of a Unix socket.
    """

    __slots__ = ("where",)

    def __init__(self, where: HostPort | Path) -> None:
        self.where = where

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what a configuration says of it.

        Raises:
            ValueError: it is neither.
        """
        if text.startswith("/"):
            return cls(Path(text))
        try:
            found = host_port(text)
        except ValueError:
            found = None
        if found is None or not found.host or not found.port:
            problem = f"expected HOST:PORT or the path of a socket, not {text!r}"
            # As milters and others write it.
            kind, _, rest = text.partition(":")
            port, at, host = rest.partition("@")
            if kind in ("unix", "local") and rest.startswith("/"):
                problem += f"; did you mean {rest}?"
            elif kind in ("inet", "inet6") and at and port.isdecimal():
                problem += f"; did you mean {f'[{host}]' if ':' in host else host}:{port}?"
            raise ValueError(problem)
        return cls(found)

    @override
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Service) and self.where == other.where

    @override
    def __hash__(self) -> int:
        return hash(self.where)

    @override
    def __str__(self) -> str:
        return str(self.where)

    @override
    def __repr__(self) -> str:
        return f"Service({str(self.where)!r})"


def host_port(text: str, port: int | None = None) -> HostPort:
    """Read ``HOST:PORT``, ``[IPV6]:PORT`` or ``:PORT``.

    Args:
        text: what is written.
        port: what holds if none is written; None: it must be.

    Raises:
        ValueError: it is none of these.
    """
    found = _HOST_PORT.fullmatch(text)
    if "@" in text:  # a password may stand before it, and what we say is shown to many
        raise ValueError("expected HOST:PORT, [IPV6]:PORT or :PORT, and no user before the host")
    if found is None:
        raise ValueError(f"expected HOST:PORT, [IPV6]:PORT or :PORT, not {text!r}")
    written = found["port"]
    if written is None and port is None:
        raise ValueError(f"expected a port behind the host, as in {text}:25")
    number = int(written) if written is not None else port
    if number is None or number > 65535:
        raise ValueError(f"expected a port from 0 to 65535, not {written}")
    if (literal := found["literal"]) is not None:
        try:
            return HostPort(str(ipaddress.IPv6Address(literal)), number)
        except ValueError:
            raise ValueError(f"expected an IPv6 address in brackets, not {literal!r}") from None
    host: str = found["host"]
    if host and not _is_host(host):
        raise ValueError(f"expected a host name or an IP address, not {host!r}")
    return HostPort(host, number)


def _is_host(text: str) -> bool:
    """Whether it is a host name or an IPv4 address: all digits and dots must be the latter."""
    if text.replace(".", "").isdigit():
        try:
            ipaddress.IPv4Address(text)
        except ValueError:
            return False
        return True
    return len(text) <= 253 and _HOST_NAME.fullmatch(text) is not None


def binding(text: str) -> Binding:
    """Read where to listen: ``HOST:PORT``, ``[IPV6]:PORT``, ``:PORT`` or ``systemd:NAME``.

    Raises:
        ValueError: it is none of these.
    """
    if text.startswith("systemd:"):
        if (found := _SYSTEMD.fullmatch(text)) is None:
            raise ValueError(
                f"expected systemd:NAME, the FileDescriptorName= of a socket, not {text!r}"
            )
        return SystemdSocket(found["name"])
    return host_port(text)


def nameserver(text: str) -> HostPort:
    """Read a DNS server: ``IP``, ``IP:PORT`` or ``[IPV6]:PORT``.

    Raises:
        ValueError: it is none of these.
    """
    try:
        return HostPort(str(ipaddress.ip_address(text)), DNS_PORT)
    except ValueError:
        pass
    found = host_port(text, DNS_PORT)
    if not is_address(found.host) or not found.port:
        raise ValueError(f"expected the IP address of a name server, not {text!r}")
    return found
