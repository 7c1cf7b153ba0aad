"""A server none of whose tasks run, in a world whose DNS a test writes."""

from __future__ import annotations

import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import msgspec

from elemta.config import load
from elemta.control.facts import Hypothesis
from elemta.delivery.routing import Router
from elemta.delivery.worker import Delivery
from elemta.explaining.hypothesis import explain
from elemta.explaining.waiting import why
from elemta.listener.accept import Listeners
from elemta.listener.reception import House
from elemta.listener.sockets import bind
from elemta.net.reaper import Reaper
from elemta.protocol import parse_mailbox
from elemta.queue import LaneLimits, Reserve, StoreReader, open_queue
from tests.delivery.zone import Zone
from tests.queue.mail import CONTENT, Disks, now

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

    from elemta.config import Config
    from elemta.control.facts import Explanation, Step
    from elemta.delivery.hosts import Candidate
    from elemta.net.transport import Transport
    from elemta.plugins import Chain
    from elemta.queue import Envelope, Queue

CONFIG: Final = """
hostname: mx.us.example
listeners:
  - {name: mx, address: "127.0.0.1:0", message_size: 10 MiB, connections_per_client: 2}
  - {name: lmtp, address: "127.0.0.1:0", kind: lmtp}
relay:
  networks: [198.51.100.0/24]
  domains: ["*.backup.example"]
domains:
  - name: us.example
    mailboxes: [alice, bob]
    aliases:
      team: [alice, carol@far.example]
      all: [alice, bob]
      list: [LIST]
routes:
  - match: routed.example
    via: ["smtp://192.0.2.1:2600", "smtp://relay.example:25"]
    tls: required
  - {match: "*.clear.example", source: ["192.0.2.9"], hello_name: out.us.example, tls: "off"}
  - {match: gone.example, via: [discard]}
  - {match: piped.example, via: ["pipe:/bin/cat {recipient}"]}
  - {match: socket.example, via: ["lmtp:///run/lmtp"]}
  - match: "*.sent.example"
    senders: ["@shop.example", "<>"]
    via: ["smtps://192.0.2.3", "smtp://relay.example:587"]
    server_name: mail.shop.example
    login: {user: shop, password: hush}
queue: {retry: [5 min, 1 h], lifetime: 2 d, delay_warning: 4 h}
""".replace("LIST", ", ".join(f"r{number}@gone.example" for number in range(30)))


async def _no_dialling(candidate: Candidate) -> Transport:
    raise AssertionError(f"{candidate} was called, and nobody should be")


class Scene:
    """What explanations are made of.

    Attributes:
        zone: what DNS knows.
        house, delivery, queue: of the server.
    """

    def __init__(
        self,
        config: Config,
        queue: Queue,
        delivery: Delivery,
        house: House,
        listeners: Listeners,
        zone: Zone,
        reader: StoreReader,
    ) -> None:
        self.config = config
        self.queue = queue
        self.delivery = delivery
        self.house = house
        self.listeners = listeners
        self.zone = zone
        self._reader = reader

    def with_plugins(self, chain: Chain) -> None:
        self.house = msgspec.structs.replace(self.house, plugins=chain)

    async def explain(self, to: str = "alice@us.example", **what: object) -> Explanation:
        sender = what.pop("sender", "ann@far.example")
        asked = Hypothesis(
            recipient=parse_mailbox(to),
            sender=parse_mailbox(sender) if isinstance(sender, str) else None,
            client="192.0.2.77",
        )
        return await explain(
            msgspec.structs.replace(asked, **what),
            config=self.config,
            house=self.house,
            listeners=self.listeners,
            delivery=self.delivery,
            queue=self.queue,
            now=now(),
        )

    async def accept(self, envelope: Envelope) -> str:
        return await self.queue.accept(envelope, CONTENT)

    def why(self, id: str) -> Explanation:  # noqa: A002 # the word of people
        timeline = self._reader.timeline(id)
        assert timeline is not None
        return why(timeline, self.queue, now())


@asynccontextmanager
async def scene(
    folder: Path,
    *,
    full: bool = False,
    disks: Disks | None = None,
    limits: Callable[[str], LaneLimits] = lambda _: LaneLimits(),
) -> AsyncGenerator[Scene]:
    """A server on virtual time.

    Args:
        folder: for its files.
        full: its disk is.
        disks: the disk itself.
        limits: of lanes.
    """
    config = load(CONFIG)
    router, zone, bound = Router(config), Zone(), bind(config)
    reserve = Reserve(octets=2**62 if full else 0, share=1.0 if full else 0, inodes=0)
    try:
        async with open_queue(
            folder / "queue",
            router.policy,
            lane=router.lane,
            limits=limits,
            clock=now,
            inline=True,
            reserve=reserve,
            disk=disks or (lambda store: store),
        ) as queue:
            house = House.of(config, queue=queue, reaper=Reaper(), clock=now)
            delivery = Delivery(
                config,
                router,
                queue,
                zone,
                dial=_no_dialling,
                clock=now,
                random=random.Random(1),
            )
            with StoreReader(folder / "queue") as reader:
                yield Scene(config, queue, delivery, house, Listeners(bound, house), zone, reader)
    finally:
        for each in bound:
            each.socket.close()


def step(found: Explanation, question: str) -> Step:
    """The one step that answers a question."""
    (one,) = [each for each in found.steps if each.question == question]
    return one
