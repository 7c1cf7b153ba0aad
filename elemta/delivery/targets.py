"""Addresses that mail must not be sent to: networks that are not public, and our own listeners."""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING, Final

from elemta.config import SystemdSocket, is_address

if TYPE_CHECKING:
    from collections.abc import Iterable

    from elemta.config import Binding, IPAddress

SMTP_PORT: Final = 25

#: Where an MX has no business to lead: this host, private, link-local, multicast, reserved.
#: Listed here, since what `ipaddress` calls global has changed between versions of Python.
NOT_PUBLIC: Final = tuple(
    ipaddress.ip_network(network)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
        *("172.16.0.0/12", "192.168.0.0/16", "224.0.0.0/4", "240.0.0.0/4"),
        *("::/128", "::1/128", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8"),
    )
)
#: IPv4 addresses in the form of IPv6 ones (RFC 6052).
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


def unwrapped(address: str) -> IPAddress:
    """The IPv4 address within some IPv6 ones: else ``::ffff:127.0.0.1`` would get by."""
    plain = ipaddress.ip_address(address)
    if isinstance(plain, ipaddress.IPv4Address):
        return plain
    if plain in _NAT64:
        return ipaddress.IPv4Address(int(plain) & 0xFFFFFFFF)
    return plain.ipv4_mapped or plain.sixtofour or plain


def is_public(address: str) -> bool:
    """Whether an address may be anybody's on the Internet."""
    plain = unwrapped(address)
    return not any(plain in network for network in NOT_PUBLIC)


class OwnAddresses:
    """Whether an address and port lead back to a listener of ours.

    By port, since another mail server may well run on this machine.
    """

    def __init__(self, bindings: Iterable[Binding]) -> None:
        self._exact: Final[set[tuple[str, int]]] = set()
        #: Ports that we listen on at every address; taken for one: sockets that systemd opened.
        self._ports: Final[set[int]] = set()
        for binding in bindings:
            if isinstance(binding, SystemdSocket):
                self._ports.add(SMTP_PORT)
            elif not is_address(binding.host) or unwrapped(binding.host).is_unspecified:
                self._ports.add(binding.port)
            else:
                self._exact.add((str(unwrapped(binding.host)), binding.port))

    def __call__(self, address: str, port: int) -> bool:
        """Whether it leads back to us."""
        plain = str(unwrapped(address))
        return (plain, port) in self._exact or (port in self._ports and _is_of_this_machine(plain))


def _is_of_this_machine(address: str) -> bool:
    """Whether the kernel lets us bind it: then an interface of this machine has it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True
