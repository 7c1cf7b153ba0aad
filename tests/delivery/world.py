"""A small world to deliver mail in: DNS, a network in memory, hosts that do as they are told."""

from __future__ import annotations

import errno
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio
import trio.testing
from msgspec import Struct
from msgspec.structs import replace

from elemta.config import Config, load
from elemta.delivery.routing import Router
from elemta.delivery.worker import Delivery
from elemta.net.dialogues import Dialogues
from elemta.net.memory import memory_transport_pair
from elemta.net.tls import TlsError, start_tls
from elemta.protocol import Mailbox, MailParams, RcptParams
from elemta.queue import (
    Addressee,
    Envelope,
    Filter,
    RetryPolicy,
    StoreReader,
    Timeline,
    open_queue,
)
from tests.delivery.zone import Zone
from tests.net.certificates import server_context

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
    from pathlib import Path

    from elemta.delivery.hosts import Candidate
    from elemta.net.memory import MemoryTransport
    from elemta.net.transport import Transport
    from elemta.queue import Message, MessageId, Queue, State
    from elemta.queue.store import Store
    from elemta.queue.writer import Applies

#: When virtual time begins, seconds since the epoch.
EPOCH: Final = 1_800_000_000.0

CONFIG: Final = """
hostname: mx.us.example
listeners: [{name: mx, address: "203.0.113.25:25"}]
domains:
  - {name: us.example, mailboxes: ["*"]}
routes:
  - {match: routed.example, via: ["smtp://192.0.2.101:2600", "smtp://192.0.2.102:2601"]}
"""

ANN: Final = Mailbox("ann", "sender.example")
BODY: Final = b"Subject: hi\r\nFrom: ann@sender.example\r\n\r\nhello\r\n.dot\r\n"


class Stored(Struct):
    """A body as the queue hands it out; a large one has its octets only in pieces."""

    content: bytes
    large: bool = False
    piece: int = 5

    @property
    def size(self) -> int:
        return len(self.content)

    @property
    def octets(self) -> bytes | None:
        return None if self.large else self.content

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        piece = self.piece if self.large else 65_536
        for start in range(0, len(self.content), piece):
            await trio.lowlevel.checkpoint()
            yield self.content[start : start + piece]


class Taken(Struct, frozen=True):
    """A message that a host has taken."""

    sender: str
    recipients: tuple[str, ...]
    content: bytes


class Host:
    """A mail host. It takes everything, but where it was told otherwise.

    Attributes:
        says: replies by step: ``greeting``, ``EHLO``, ``MAIL``, ``RCPT``, ``RCPT bob@b.example``,
            ``DATA``, ``.``, or for LMTP ``. bob@b.example``; behind ``TLS `` what it says once
            that has begun. None hangs up; an empty reply is never given.
        down: what connecting to it raises.
        delay: seconds before each reply.
        recipients: that it takes in one transaction.
        takes_silently: it takes messages before it answers, whatever the answer is.
        idle: seconds after which it hangs up on who says nothing.
        tls: how it encrypts, after a 220 to ``STARTTLS``; None: it only says so.
        secret: the version and cipher of the last session that was encrypted.
    """

    def __init__(self, **says: str | None) -> None:
        self.says: dict[str, str | None] = {
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
            **says,
        }
        self.down: Exception | None = None
        self.delay = 0.0
        self.recipients = 1000
        self.takes_silently = False
        self.idle = 3600.0
        self.tls: ssl.SSLContext | None = server_context()
        self.secret = ""
        self.taken: list[Taken] = []
        self.dialled = 0
        self.sessions = 0
        self.heard: list[str] = []

    async def serve(self, transport: Transport) -> None:
        self.sessions += 1
        try:
            await _Talk(self, transport).run()
        except (trio.BrokenResourceError, trio.TooSlowError, _HangUpError):
            pass
        finally:
            transport.close()


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
                await self._say(verb)
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
        taken = Taken(self._sender, tuple(self._recipients), whole)
        if self._lmtp:
            await self._answer_each(taken)
            return
        if self._host.takes_silently:
            self._host.taken.append(taken)
        if await self._say(".") and not self._host.takes_silently:
            self._host.taken.append(taken)

    async def _answer_each(self, taken: Taken) -> None:
        """An answer for each recipient (RFC 2033 §4.2)."""
        had = [each for each in taken.recipients if await self._say(f". {each}", ".")]
        if had:
            self._host.taken.append(replace(taken, recipients=tuple(had)))

    async def _encrypt(self) -> None:
        if not await self._say("STARTTLS"):
            return
        if self._host.tls is None:
            await self._transport.receive()
            await self._transport.send_all(b"500 5.5.2 what?\r\n")
        else:
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


class Net:
    """Hosts by address; dialling any other address is refused, or never ends if it is `silent`."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.hosts: dict[str, Host] = {}
        self.dialled: list[str] = []
        self.sources: list[str | None] = []
        self.silent: set[str] = set()

    def host(self, address: str, **says: str | None) -> Host:
        host = self.hosts[address] = Host(**says)
        return host

    async def dial(self, candidate: Candidate) -> MemoryTransport:
        self.dialled.append(candidate.address)
        self.sources.append(candidate.source)
        await trio.lowlevel.checkpoint()
        if candidate.address in self.silent:
            await trio.sleep_forever()
        host = self.hosts.get(candidate.address)
        if host is None:
            raise OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        host.dialled += 1
        if host.down is not None:
            raise host.down
        ours, theirs = memory_transport_pair()
        self._nursery.start_soon(host.serve, theirs)
        return ours


class World:
    """A queue, delivery, and the rest of the world."""

    def __init__(
        self,
        path: Path,
        queue: Queue,
        delivery: Delivery,
        net: Net,
        zone: Zone,
        dialogues: Dialogues,
    ) -> None:
        self.path = path
        self.dialogues = dialogues
        self.queue = queue
        self.delivery = delivery
        self.net = net
        self.zone = zone

    def domain(self, domain: str, *exchangers: tuple[str, str]) -> None:
        """Give a domain its exchangers, the best first: a name and an address each."""
        self.zone.mx_records[domain] = [(10 * n, name) for n, (name, _) in enumerate(exchangers)]
        self.zone.hosts |= {name: [address] for name, address in exchangers}

    async def send(
        self,
        *recipients: str | Addressee,
        sender: Mailbox | None = ANN,
        body: bytes = BODY,
        params: MailParams | None = None,
    ) -> MessageId:
        """Put a message into the queue."""
        envelope = Envelope(
            sender=sender,
            params=params or MailParams(),
            recipients=tuple(to(each) if isinstance(each, str) else each for each in recipients),
        )
        return await self.queue.accept(envelope, body)

    def timeline(self, id: MessageId) -> Timeline:  # noqa: A002 # the word of people
        """What happened to a message so far."""
        with StoreReader(self.path / "queue") as reader:
            found = reader.timeline(id)
        assert found is not None
        return found

    def states(self, id: MessageId) -> list[State]:  # noqa: A002 # the word of people
        """How it stands with the recipients of a message, in their order."""
        return [recipient.state for recipient in self.timeline(id).message.recipients]

    def replies(self, id: MessageId) -> list[str]:  # noqa: A002 # the word of people
        """How the attempts ended, in their order."""
        return [str(attempt.reply) for attempt in self.timeline(id).attempts]

    def messages(self) -> list[Message]:
        """What is in the queue, finished messages left out."""
        with StoreReader(self.path / "queue") as reader:
            return reader.search(Filter(), now=0.0, limit=10_000)


def to(address: str, params: RcptParams | None = None) -> Addressee:
    """A recipient."""
    local, _, domain = address.partition("@")
    return Addressee(address=Mailbox(local, domain), params=params or RcptParams())


def wall_clock() -> float:
    """Virtual time, in seconds since the epoch."""
    return EPOCH + trio.current_time()


def on_virtual_time(
    main: Callable[[], Awaitable[None]],
    *,
    clock: trio.abc.Clock | None,
    instruments: Sequence[trio.abc.Instrument],
) -> None:
    """For ``pytestmark = pytest.mark.trio(run=on_virtual_time)``: time jumps when all sleep."""
    assert clock is None
    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0), instruments=instruments)


@asynccontextmanager
async def world(
    path: Path,
    *,
    config: Config | None = None,
    policy: RetryPolicy | None = None,
    clock: Callable[[], float] = wall_clock,
    tcp: bool = False,
    disk: Callable[[Store], Applies] = lambda store: store,
) -> AsyncIterator[World]:
    """A world in which delivery runs; `tcp`: and dials by the machine's own network."""
    config = replace(load(CONFIG) if config is None else config, data_dir=path)
    router = Router(config)
    zone = Zone()
    async with (
        open_queue(
            path / "queue",
            policy or RetryPolicy(jitter=0.0),
            lane=router.lane,
            limits=router.limits,
            clock=clock,
            inline=True,
            disk=disk,
        ) as queue,
        trio.open_nursery() as nursery,
    ):
        net = Net(nursery)
        dialogues = Dialogues(1000, clock)
        delivery = Delivery(
            config,
            router,
            queue,
            zone,
            dial=None if tcp else net.dial,
            clock=clock,
            dialogues=dialogues,
        )
        nursery.start_soon(delivery.run)
        yield World(path, queue, delivery, net, zone, dialogues)
        nursery.cancel_scope.cancel()
