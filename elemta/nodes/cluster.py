"""The nodes of a server: how to reach them, and what they tell as one stream of events.

Events have numbers of their own here, since each node counts for itself. Nobody listens to the
nodes until somebody has listened here, as each event then costs a node time.
"""

from __future__ import annotations

import math
from contextlib import aclosing
from itertools import count
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from elemta.control.interface import ControlError
from elemta.log import logger
from elemta.nodes.measuring import Measuring
from elemta.nodes.steering import ClusterControl
from elemta.nodes.streams import PAUSE, Streams
from elemta.queue import EventBus, Missed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from elemta.control.interface import Happening, Status
    from elemta.nodes.asking import Reach
    from elemta.nodes.running import Running

log = logger(__name__)

#: Seconds for which a node is heard from where a status has left it, before anybody listens.
SEEN: Final = 10.0
#: In whose name the first process asks what nobody else has asked for.
OURSELVES: Final = "elemta"


class Cluster:
    """The nodes of a server.

    Args:
        reach: for each node, in their order.
        status: how the first process is; what its nodes add up to is filled in.
        running: what they run, each its share.
        first: what comes before the number of the first event.

    Attributes:
        bus: the events of all nodes, numbered anew.
        wanted: somebody wants to know them.
        streams: of those who listen to something else.
        measuring: asks for metrics.
        next_turn: a number that is another each time, so that all nodes get something to do.
    """

    def __init__(
        self,
        reach: Sequence[Reach],
        status: Callable[[], Status],
        running: Running,
        *,
        first: int = 0,
    ) -> None:
        self.reach = tuple(reach)
        self.status = status
        self.running = running
        self.bus = EventBus(first=first)
        self.wanted = trio.Event()
        self.streams = Streams()
        self.measuring = Measuring(self.reach)
        self.next_turn = count().__next__
        # When each node was started, and its own number of what the bus calls `number`.
        self._seen: dict[int, tuple[float, int]] = {}
        self._seen_at = -math.inf

    @property
    def takers(self) -> tuple[Reach, ...]:
        """The nodes that take mail: others only empty their queues."""
        return self.reach[: self.running.config.nodes]

    async def run(self) -> None:
        """Gather what nodes tell once somebody wants it, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.streams.run)
            await self.wanted.wait()
            for place, reach in enumerate(self.reach):
                nursery.start_soon(self._gather, reach, place)

    def see(self, nodes: Mapping[int, Status]) -> None:
        """Remember which of the nodes' events the number of a status stands for.

        Who looks first and then listens since that number is to miss nothing, though nobody has
        listened to the nodes until then. Who has an older number than what is remembered is told
        that something is missed.

        Args:
            nodes: by their places; those that could be reached.
        """
        if self.wanted.is_set():
            return
        if trio.current_time() - self._seen_at > SEEN:
            for place, (started_at, number) in self._seen.items():
                if (node := nodes.get(place)) is not None:
                    # Nobody knows how many there were before it was started again.
                    same = node.started_at == started_at
                    self.bus.number += node.event - number if same else 1
            self._seen.clear()
            self._seen_at = trio.current_time()
        for place, node in nodes.items():
            self._seen.setdefault(place, (node.started_at, node.event))

    async def _gather(self, reach: Reach, place: int) -> None:
        # In the node's own numbers.
        since = self._seen[place][1] if place in self._seen else None
        while True:
            try:
                async with reach(OURSELVES) as node:
                    if since is None:
                        since = (await node.status()).event
                    async with aclosing(node.events(since)) as events:
                        async for event in events:
                            since = event.last if isinstance(event, Missed) else event.number
                            self._take(event)
            except ControlError as error:  # it is being started again, perhaps
                log.warning("node.unheard", error=str(error))
            await trio.sleep(PAUSE)

    def _take(self, event: Happening) -> None:
        if not isinstance(event, Missed):
            number = self.bus.next()
            self.bus.publish(msgspec.structs.replace(event, number=number))
        elif event.count:
            self.bus.miss(event.count)

    def steered_by(self, who: str) -> ClusterControl:
        """The server, as somebody steers it; `who` as in `elemta.control.node`."""
        return ClusterControl(self, who)
