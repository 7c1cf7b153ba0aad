"""PROXY protocol headers, v1 and v2: what a trusted load balancer says before its client speaks.

Read from peers alone that the configuration names: anybody can say anything. The specification is
HAProxy's ``proxy-protocol.txt``; sections are its own.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import Final, TypeAlias

from msgspec import Struct

from elemta.protocol.events import Wait

#: Octets of a v1 header, CRLF included (§2.1).
MAX_V1: Final = 107
#: Octets of a v2 header behind its fixed part that we read; most is for TLVs, which we skip.
MAX_V2: Final = 4096

_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_FIXED: Final = 16
_V1: Final = b"PROXY "

#: An IP address in its shortest form, and a port.
Address: TypeAlias = tuple[str, int]


class Proxied(Struct, frozen=True):
    """A whole header.

    Attributes:
        source: the client, or None if the proxy speaks for itself (a health check) or does not
            know: then the connection's own address counts.
        destination: where the client had connected to; None as above.
    """

    source: Address | None
    destination: Address | None


class BadHeader(Struct, frozen=True):
    """What came is no header: close without a word.

    Attributes:
        reason: for our log.
    """

    reason: str


class ProxyHeader:
    """Reads one header off the beginning of a stream, in whatever pieces it comes."""

    def __init__(self) -> None:
        self._buffer = b""
        self._result: Proxied | BadHeader | None = None

    @property
    def rest(self) -> bytes:
        """What came behind the header: the client's own first octets."""
        return self._buffer if isinstance(self._result, Proxied) else b""

    def receive_data(self, octets: bytes) -> Proxied | BadHeader | Wait:
        """Take what the peer sent.

        Returns:
            The header or what is wrong, once that is certain; until then `Wait.FOR_DATA`. At most
            a few KiB are kept, for a peer that sends anything else is found out before.
        """
        self._buffer += octets
        if self._result is None:
            try:
                self._result = self._parse()
            except ValueError as error:
                self._result = BadHeader(str(error))
        return self._result or Wait.FOR_DATA

    def receive_eof(self) -> BadHeader:
        """Note that the peer will send no more."""
        return BadHeader("the stream ended within the header")

    def _parse(self) -> Proxied | None:
        octets = self._buffer
        if octets.startswith(_V1):
            return self._parse_v1()
        if octets.startswith(_SIGNATURE):
            return self._parse_v2()
        if not (_V1.startswith(octets) or _SIGNATURE.startswith(octets)):
            raise ValueError("neither v1 nor v2")
        return None

    def _parse_v1(self) -> Proxied | None:
        end = self._buffer.find(b"\r\n", 0, MAX_V1)
        if end < 0:
            if len(self._buffer) >= MAX_V1:
                raise ValueError("a v1 header that is too long")
            return None
        words = self._buffer[:end].decode("ascii").split(" ")
        self._buffer = self._buffer[end + 2 :]
        match words:
            case [_, "UNKNOWN", *_]:
                return Proxied(None, None)
            case [_, "TCP4", source, destination, source_port, destination_port]:
                return Proxied(
                    (str(IPv4Address(source)), _port(source_port)),
                    (str(IPv4Address(destination)), _port(destination_port)),
                )
            case [_, "TCP6", source, destination, source_port, destination_port]:
                return Proxied(
                    (_ipv6(source), _port(source_port)),
                    (_ipv6(destination), _port(destination_port)),
                )
            case _:
                raise ValueError("a malformed v1 header")

    def _parse_v2(self) -> Proxied | None:
        octets = self._buffer
        if len(octets) < _FIXED:
            return None
        command, family = octets[12], octets[13]
        size = int.from_bytes(octets[14:16], "big")
        if command not in (_LOCAL, _PROXY):
            raise ValueError("no command of v2")
        if size > MAX_V2:
            raise ValueError(f"a v2 header of {size} octets")
        if len(octets) < _FIXED + size:
            return None
        block = octets[_FIXED : _FIXED + size]
        self._buffer = octets[_FIXED + size :]
        width = _WIDTHS.get(family)
        if command == _LOCAL or width is None:
            return Proxied(None, None)
        if size < 2 * width + 4:
            raise ValueError("a v2 header that is too short for its addresses")
        ports = block[2 * width : 2 * width + 4]
        return Proxied(
            (_packed(block[:width]), int.from_bytes(ports[:2], "big")),
            (_packed(block[width : 2 * width]), int.from_bytes(ports[2:], "big")),
        )


#: Version and command (§2.2).
_LOCAL: Final = 0x20
_PROXY: Final = 0x21
#: Octets of an address: TCP over IPv4 and IPv6. Of any other family we know nothing (§2.2: the
#: connection's own address counts).
_WIDTHS: Final = {0x11: 4, 0x21: 16}


def _packed(octets: bytes) -> str:
    return str(IPv4Address(octets)) if len(octets) == 4 else _unmapped(IPv6Address(octets))


def _ipv6(text: str) -> str:
    if "%" in text:
        raise ValueError("a zone in an address")
    return _unmapped(IPv6Address(text))


def _unmapped(address: IPv6Address) -> str:
    """An IPv4 client is one, whatever socket it came in by: limits and lists go by it."""
    return str(address.ipv4_mapped or address)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65535):
        raise ValueError("no port")
    return int(text)
