"""A queue and delivery alone, in a world of a few hosts (`elemta.testing.hosts`) and their DNS."""

from __future__ import annotations

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
from elemta.plugins import Chain
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
from elemta.testing import on_virtual_time as on_virtual_time
from elemta.testing.hosts import Host as SomeHost
from elemta.testing.hosts import Internet
from tests.delivery.zone import Zone
from tests.net.certificates import server_context

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable
    from pathlib import Path

    from elemta.delivery.tables import Asked
    from elemta.plugins import Choice
    from elemta.queue import Destined, Message, MessageId, Queue, State
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


class Host(SomeHost):
    """A mail host that can encrypt."""

    def __init__(self, **says: str | None) -> None:
        super().__init__(**says)
        self.tls = server_context()


class Net(Internet):
    """Such hosts, by address."""

    def __init__(self, nursery: trio.Nursery) -> None:
        super().__init__(nursery, Host)


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


@asynccontextmanager
async def world(
    path: Path,
    *,
    config: Config | None = None,
    policy: RetryPolicy | None = None,
    clock: Callable[[], float] = wall_clock,
    tcp: bool = False,
    disk: Callable[[Store], Applies] = lambda store: store,
    plugins: Callable[[], Chain] = Chain,
    choose: Callable[[Destined], Choice] | None = None,
    maps: Asked | None = None,
) -> AsyncIterator[World]:
    """A world in which delivery runs; `tcp`: and dials by the machine's own network."""
    config = replace(load(CONFIG) if config is None else config, data_dir=path)
    router = Router(config, maps=maps)
    router.choose = choose
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
            plugins=plugins,
        )
        nursery.start_soon(delivery.run)
        yield World(path, queue, delivery, net, zone, dialogues)
        nursery.cancel_scope.cancel()
