"""Which of a server's nodes a process is, what it gets of the whole, and how it is told.

The rules of this file:

- What the configuration allows the whole server, its nodes share: connections, memory, deliveries.
- What protects others from us they share too: connections to a destination, and its rates.
- A share is rounded up, so that each node can do something; but that of a rate never is.
- What protects us from the connections of one client holds for each node: which one it meets is
  chance, and a client that keeps to the limit must not be sent away for bad luck.
- What is remembered of clients and accounts they have in common, whatever node these meet.
"""

from __future__ import annotations

import hashlib
import os
import socket
from typing import TYPE_CHECKING, Final, Self

import msgspec
import trio
from msgspec import Struct
from typing_extensions import override

from elemta.config import Destination
from elemta.control.place import reachable
from elemta.ledger import Exchange
from elemta.listener.sockets import BoundListener
from elemta.log import logger
from elemta.queue import StoreReader
from elemta.units import Frequency, Octets, Seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from elemta.config import Config

log = logger(__name__)

#: Which node of how many, as ``2/4``.
NODE: Final = "ELEMTA_NODE"
#: The listening sockets: ``NAME=DESCRIPTOR``, with commas between.
SOCKETS: Final = "ELEMTA_SOCKETS"
#: The reading end of a pipe whose other end only the first process holds: it ends with that.
LIFELINE: Final = "ELEMTA_LIFELINE"


class Place(Struct, frozen=True):
    """One node of a server.

    Attributes:
        number: from 1; one above `of` only empties the queue that it has, as there were more once.
        of: how many take mail.
    """

    number: int
    of: int

    @classmethod
    def told(cls, environ: Mapping[str, str]) -> Self | None:
        """Which node this process is to be; None if it is a server by itself.

        Raises:
            ValueError: the environment makes no sense.
        """
        text = environ.get(NODE)
        if text is None:
            return None
        number, _, of = text.partition("/")
        if not (number.isdecimal() and of.isdecimal() and int(number) and int(of)):
            raise ValueError(f"{NODE}={text!r}: expected a node such as 2/4")
        return cls(int(number), int(of))

    @property
    def retired(self) -> bool:
        """Whether it takes no mail any more."""
        return self.number > self.of

    @override
    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def queue(self, data_dir: Path) -> Path:
        """Where its queue lies. The first node's is where a server with one node has it."""
        return data_dir / "queue" if self.number == 1 else self.folder(data_dir) / "queue"

    def folder(self, data_dir: Path) -> Path:
        """Where all else lies that is its own."""
        return data_dir / "nodes" / str(self.number)

    def exchange(self, data_dir: Path, clock: Callable[[], float]) -> Exchange:
        """With the other nodes: what plugins and logins remember, all of them know."""

        async def connect() -> trio.SocketStream:
            with reachable(exchange_socket(data_dir)) as path:
                return await trio.open_unix_socket(path)

        return Exchange(connect, self.queue(data_dir).parent, clock, counts=self.number == 1)


def exchange_socket(data_dir: Path) -> Path:
    """Where nodes tell each other what they remember."""
    return data_dir / "nodes" / "exchange.sock"


def places(config: Config) -> list[Place]:
    """All nodes that a server needs: also those for which there is mail left to send.

    Raises:
        SpoolError, sqlite3.Error: a queue cannot be read.
    """
    found = [Place(number, config.nodes) for number in range(1, config.nodes + 1)]
    for folder in (config.data_dir / "nodes").glob("*/queue"):
        number = folder.parent.name
        if number.isdecimal() and int(number) > config.nodes:
            with StoreReader(folder) as reader:
                if reader.stats().messages:
                    found.append(Place(int(number), config.nodes))
    return found


def chosen(key: str, of: int) -> int:
    """Which of so many nodes a key belongs to, from 0: the same one each time, after a start too.

    With another number of nodes it is another one.
    """
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % of


def folders(data_dir: Path) -> list[Path]:
    """Where the queues of all nodes lie, of those that there were once, too."""
    others = (data_dir / "nodes").glob("*/queue")
    return [data_dir / "queue", *sorted(each for each in others if each.parent.name != "1")]


def share(config: Config, place: Place) -> Config:
    """The configuration of one node."""

    def part(whole: int) -> int:
        return -(-whole // place.of)

    return msgspec.structs.replace(
        config,
        limits=msgspec.structs.replace(
            config.limits,
            connections=part(config.limits.connections),
            memory=Octets(part(config.limits.memory)),
            transcripts=part(config.limits.transcripts),
        ),
        delivery=msgspec.structs.replace(
            config.delivery, max_connections=part(config.delivery.max_connections)
        ),
        # The last entry is for destinations of which the configuration says nothing.
        destinations=[_share(each, place.of) for each in (*config.destinations, _ALL)],
        queue=msgspec.structs.replace(
            config.queue,
            history=msgspec.structs.replace(
                config.queue.history, count=part(config.queue.history.count)
            ),
        ),
        control=msgspec.structs.replace(
            config.control, socket=place.folder(config.data_dir) / "control.sock", group=None
        ),
    )


_ALL: Final = Destination(match="*")


def _share(destination: Destination, of: int) -> Destination:
    return msgspec.structs.replace(
        destination,
        connections=-(-destination.connections // of),
        messages=_slower(destination.messages, of),
        recipients=_slower(destination.recipients, of),
        connections_rate=_slower(destination.connections_rate, of),
    )


def _slower(rate: Frequency | None, of: int) -> Frequency | None:
    """The same for one of several: all together never do more in any such time."""
    if rate is None:
        return None
    if rate.count >= of:
        return Frequency(rate.count // of, rate.seconds)
    return Frequency(1, Seconds(rate.seconds * -(-of // rate.count)))


def environment(place: Place, bound: Sequence[BoundListener], lifeline: int) -> dict[str, str]:
    """How a process is told which node it is, and what it inherits."""
    return {
        NODE: str(place),
        SOCKETS: ",".join(f"{each.table.name}={each.socket.fileno()}" for each in bound),
        LIFELINE: str(lifeline),
    }


def inherited(config: Config, environ: Mapping[str, str]) -> list[BoundListener]:
    """The listening sockets that this process was given, with what the configuration says of each.

    A listener that the configuration has no more is closed, as it will be for all nodes once the
    whole server starts anew.
    """
    tables = {table.name: table for table in config.listeners}
    bound: list[BoundListener] = []
    for each in filter(None, environ.get(SOCKETS, "").split(",")):
        name, _, descriptor = each.rpartition("=")
        os.set_inheritable(int(descriptor), False)
        sock = socket.socket(fileno=int(descriptor))
        if name in tables:
            bound.append(BoundListener(tables[name], sock))
        else:
            log.warning("socket.unused", name=name)
            sock.close()
    return bound
