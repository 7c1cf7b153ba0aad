"""A nameserver on loopback, UDP and TCP, that answers from a table."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import trio
import trio.socket

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

SOA = "ns.example. hostmaster.example. 1 7200 3600 1209600 120"


class Nameserver:
    """Answers each question from `zone`: (name, type) to (TTL, records); the rest is NXDOMAIN.

    A type that a name does not have is NODATA. Names in `broken` get SERVFAIL, in `silent`
    nothing, in `lame` REFUSED, in `upward` the root's name servers; what is `long` is truncated on
    UDP.
    """

    def __init__(self) -> None:
        self.zone: dict[str, dict[str, tuple[int, list[str]]]] = {}
        self.broken: set[str] = set()
        self.silent: set[str] = set()
        self.lame: set[str] = set()
        self.upward: set[str] = set()
        self.long: set[str] = set()
        self.follows_aliases = True
        self.says_soa = True
        self.asked: list[tuple[str, str, str]] = []
        self.payloads: list[int] = []
        self.address = ""

    def add(self, name: str, kind: str, *records: str, ttl: int = 3600) -> None:
        self.zone.setdefault(name, {})[kind] = (ttl, list(records))

    def answer(self, wire: bytes, transport: str) -> bytes | None:
        query = dns.message.from_wire(wire)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True)
        kind = dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, kind, transport))
        self.payloads.append(query.payload if query.edns >= 0 else 512)
        response = dns.message.make_response(query, recursion_available=True)
        if name in self.silent:
            return None
        if name in self.broken:
            response.set_rcode(dns.rcode.SERVFAIL)
        elif name in self.lame:
            response.set_rcode(dns.rcode.REFUSED)
        elif name in self.upward:
            root = dns.rrset.from_text(".", 3600, "IN", "NS", "a.root-servers.net.")
            response.authority.append(root)
        elif name in self.long and transport == "udp":
            response.flags |= dns.flags.TC
        else:
            self._fill(response, name, kind)
        return response.to_wire(max_size=65535)

    def _fill(self, response: dns.message.Message, name: str, kind: str) -> None:
        records = self.zone.get(name)
        while records is not None and "CNAME" in records and kind not in records:
            ttl, (target,) = records["CNAME"]
            response.answer.append(dns.rrset.from_text(f"{name}.", ttl, "IN", "CNAME", target))
            if not self.follows_aliases:
                return
            name = target.removesuffix(".")
            records = self.zone.get(name)
        if records is not None and kind in records:
            ttl, texts = records[kind]
            response.answer.append(dns.rrset.from_text(f"{name}.", ttl, "IN", kind, *texts))
            return
        if records is None:
            response.set_rcode(dns.rcode.NXDOMAIN)
        if self.says_soa:
            response.authority.append(dns.rrset.from_text(".", 3600, "IN", "SOA", SOA))

    async def _serve_udp(self, sock: trio.socket.SocketType) -> None:
        while True:
            wire, client = await sock.recvfrom(65536)
            response = self.answer(wire, "udp")
            if response is not None:
                await sock.sendto(response, client)

    async def _serve_tcp(self, stream: trio.SocketStream) -> None:
        wire = await stream.receive_some(65536)
        response = self.answer(bytes(wire[2:]), "tcp")
        if response is not None:
            await stream.send_all(len(response).to_bytes(2, "big") + response)
        await stream.aclose()


async def _sockets() -> tuple[list[trio.SocketListener], trio.socket.SocketType]:
    """A port that is free for TCP and UDP."""
    while True:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        udp = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)
        try:
            await udp.bind(listeners[0].socket.getsockname())
        except OSError:  # somebody else has that one
            udp.close()
            await listeners[0].aclose()
        else:
            return listeners, udp


@asynccontextmanager
async def nameserver() -> AsyncGenerator[Nameserver]:
    server = Nameserver()
    listeners, udp = await _sockets()
    server.address = f"127.0.0.1:{udp.getsockname()[1]}"
    with udp:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server._serve_udp, udp)
            nursery.start_soon(trio.serve_listeners, server._serve_tcp, listeners)
            yield server
            nursery.cancel_scope.cancel()
