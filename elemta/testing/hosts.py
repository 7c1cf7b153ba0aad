"""Other people's mail hosts, in memory: they take everything, unless they were told otherwise."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

import trio
from msgspec import Struct
from msgspec.structs import replace

from elemta.message import HeaderScanner
from elemta.net.memory import memory_transport_pair
from elemta.net.tls import TlsError, start_tls
from elemta.net.transport import Endpoint

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from elemta.delivery.hosts import Candidate
    from elemta.net.memory import MemoryTransport
    from elemta.net.transport import Transport

#: What a host says unless it is told otherwise, by step.
SAYS: Final = {
    "greeting": "220 hello",
    "EHLO": "250-host\r\n250-PIPELINING\r\n250-DSN\r\n250-SMTPUTF8\r\n250 8BITMIME",
    "HELO": "250 host",
    "LHLO": "250 host",
    "MAIL": "250 2.1.0 ok",
    "RCPT": "250 2.1.5 ok",
    "DATA": "354 go on",
    ".": "250 2.0.0 taken",
    "RSET": "250 ok",
    "QUIT": "221 bye",
}


class Taken(Struct, frozen=True):
    """A message that somebody has taken from us.

    Attributes:
        sender: empty for the null sender.
        content: as it arrived there: trace fields above, CRLF line ends.
        place: who took it: the address of a host, or ``maildir``.
    """

    sender: str
    recipients: tuple[str, ...]
    content: bytes
    place: str = ""

    def header(self, name: str) -> list[str]:
        """The values of all fields of this name, first to last, unfolded."""
        scanner = HeaderScanner()
        scanner.feed(self.content)
        return scanner.values(name)


class Host:
    """A mail host.

    Args:
        says: replies by step, where they differ from `SAYS`; see there.

    Attributes:
        says: replies by step: ``greeting``, ``EHLO``, ``MAIL``, ``RCPT``, ``RCPT bob@b.example``,
            ``DATA``, ``.``, or for LMTP ``. bob@b.example``, or a whole line; behind ``TLS ``
            what it says once that has begun. None hangs up; an empty reply is never given.
        down: what connecting to it raises.
        delay: seconds before each reply.
        recipients: that it takes in one transaction.
        takes_silently: it takes messages before it answers, whatever the answer is.
        idle: seconds after which it hangs up on who says nothing.
        tls: how it encrypts, after a 220 to ``STARTTLS``; None: it only says so.
        implicit: it encrypts from the first octet (RFC 8314 §3).
        secret: the version and cipher of the last session that was encrypted.
        taken: messages, in order.
        heard: lines, in order.
        place: what `Taken.place` is.
        told: hears of each message that is taken.
    """

    def __init__(self, **says: str | None) -> None:
        self.says: dict[str, str | None] = {**SAYS, **says}
        self.down: Exception | None = None
        self.delay = 0.0
        self.recipients = 1000
        self.takes_silently = False
        self.idle = 3600.0
        self.tls: ssl.SSLContext | None = None
        self.implicit = False
        self.secret = ""
        self.taken: list[Taken] = []
        self.dialled = 0
        self.sessions = 0
        self.heard: list[str] = []
        self.place = ""
        self.told: Callable[[Taken], None] = lambda taken: None

    async def serve(self, transport: Transport) -> None:
        """Speak SMTP or LMTP with one client; closes the transport."""
        self.sessions += 1
        try:
            await _Talk(self, transport).run()
        except (trio.BrokenResourceError, trio.TooSlowError, _HangUpError):
            pass
        finally:
            transport.close()

    def take(self, taken: Taken) -> None:
        """Have a message."""
        self.taken.append(taken)
        self.told(taken)


class _HangUpError(Exception):
    pass


class _Talk:
    def __init__(self, host: Host, transport: Transport) -> None:
        self._host = host
        self._transport = transport
        self._buffer = b""
        self._open = False
        self._lmtp = False
        self._secret = False
        self._sender = ""
        self._recipients: list[str] = []

    async def run(self) -> None:
        if self._host.implicit:
            await self._shake_hands()
        await self._say("greeting")
        while True:
            line = (await self._read(b"\r\n")).decode()
            self._host.heard.append(line)
            verb = line[:4].upper().strip()
            if verb == "MAIL":
                self._sender = line[line.index("<") + 1 : line.index(">")]
                self._recipients = []
                self._open = await self._say("MAIL")
            elif verb in ("RCPT", "DATA") and not self._open:
                await self._transport.send_all(b"503 5.5.1 no MAIL\r\n")
            elif verb == "RCPT":
                await self._rcpt(line[line.index("<") + 1 : line.index(">")])
            elif verb == "DATA":
                await self._data()
            elif verb == "STAR":
                await self._encrypt()
            else:
                self._lmtp = verb == "LHLO"
                await self._say(line, verb)
                if verb == "QUIT":
                    return

    async def _rcpt(self, address: str) -> None:
        if len(self._recipients) >= self._host.recipients:
            await self._transport.send_all(b"452 4.5.3 too many recipients\r\n")
        elif await self._say(f"RCPT {address}", "RCPT"):
            self._recipients.append(address)

    async def _data(self) -> None:
        if not self._recipients:
            await self._transport.send_all(b"554 5.5.1 no valid recipients\r\n")
            return
        self._open = False
        if not await self._say("DATA"):
            return
        content = await self._read(b"\r\n.\r\n")
        lines = (content + b"\r\n").split(b"\r\n")
        whole = b"\r\n".join(line[1:] if line.startswith(b".") else line for line in lines)
        taken = Taken(self._sender, tuple(self._recipients), whole, self._host.place)
        if self._lmtp:
            await self._answer_each(taken)
            return
        if self._host.takes_silently:
            self._host.take(taken)
        if await self._say(".") and not self._host.takes_silently:
            self._host.take(taken)

    async def _answer_each(self, taken: Taken) -> None:
        """An answer for each recipient (RFC 2033 §4.2)."""
        had = [each for each in taken.recipients if await self._say(f". {each}", ".")]
        if had:
            self._host.take(replace(taken, recipients=tuple(had)))

    async def _encrypt(self) -> None:
        if not await self._say("STARTTLS"):
            return
        await self._shake_hands()

    async def _shake_hands(self) -> None:
        if self._host.tls is None:
            await self._transport.receive()
            await self._transport.send_all(b"500 5.5.2 what?\r\n")
            return
        try:
            encrypted = await start_tls(self._transport, self._host.tls, server_side=True)
        except TlsError:
            raise _HangUpError from None
        self._transport = encrypted
        self._secret = True
        self._host.secret = f"{encrypted.version} {encrypted.cipher}"

    async def _say(self, *steps: str) -> bool:
        """Answer as told; whether that was a yes."""
        says = self._host.says
        if self._secret:
            steps = (*(f"TLS {step}" for step in steps), *steps)
        said = next((says[step] for step in steps if step in says), "500 5.5.1 what?")
        await trio.sleep(self._host.delay)
        if said is None:
            raise _HangUpError
        if not said:
            await trio.sleep_forever()
        await self._transport.send_all(f"{said}\r\n".encode())
        if said.startswith("421"):
            raise _HangUpError
        return said[0] in "23"

    async def _read(self, end: bytes) -> bytes:
        while end not in self._buffer:
            octets = b""
            with trio.fail_after(self._host.idle):
                octets = await self._transport.receive()
            if not octets:
                raise _HangUpError
            self._buffer += octets
        read, _, self._buffer = self._buffer.partition(end)
        return read


class Internet:
    """Hosts by address; dialling any other is refused, or never ends if it is `silent`.

    Args:
        nursery: where hosts serve.
        kind: what they are.

    Attributes:
        dialled: whom we have tried to reach, in order.
        sources: our own addresses in these attempts.
        told: hears of each message that one of them takes.
    """

    def __init__(self, nursery: trio.Nursery, kind: type[Host] = Host) -> None:
        self._nursery = nursery
        self._kind = kind
        self.hosts: dict[str, Host] = {}
        self.dialled: list[str] = []
        self.sources: list[str | None] = []
        self.silent: set[str] = set()
        self.told: Callable[[Taken], None] = lambda taken: None

    def host(self, address: str, **says: str | None) -> Host:
        """One more host, or another one at this address."""
        host = self.hosts[address] = self._kind(**says)
        host.place = address
        host.told = lambda taken: self.told(taken)
        return host

    async def dial(self, candidate: Candidate) -> MemoryTransport:
        """See `elemta.delivery.carrier.Dial`."""
        address = candidate.address
        self.dialled.append(address)
        self.sources.append(candidate.source)
        await trio.lowlevel.checkpoint()
        if address in self.silent:
            await trio.sleep_forever()
        host = self.hosts.get(address)
        if host is None:
            raise OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        host.dialled += 1
        if host.down is not None:
            raise host.down
        ours, theirs = memory_transport_pair(server=Endpoint(address, candidate.port))
        self._nursery.start_soon(host.serve, theirs)
        return ours
