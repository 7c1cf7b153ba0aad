"""Asks all nodes for their metrics, and adds to them what the first process says of itself."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from elemta.control.interface import ControlError
from elemta.control.measuring import process_metrics, told
from elemta.metrics.collecting import Reading, process_registry, registry_of
from elemta.nodes.totals import Totals

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elemta.control.facts import Metric
    from elemta.nodes.asking import Reach

#: Seconds that a node gets to answer. Whoever asks us has its own patience, 10 s mostly.
PATIENCE: Final = 3.0


class Measuring:
    """The metrics of a server of several nodes.

    Args:
        reach: for each node, in their order.
    """

    def __init__(self, reach: Sequence[Reach]) -> None:
        self._reach = reach
        self._process = process_registry()
        self._totals = Totals()

    async def metrics(self, who: str) -> list[Metric]:
        """All of them. A node that cannot be reached is one of them, and no error.

        Args:
            who: asks.
        """
        found: list[list[Metric] | None] = [None] * len(self._reach)

        async def ask(number: int, reach: Reach) -> None:
            with trio.move_on_after(PATIENCE):
                try:
                    async with reach(who) as node:
                        found[number] = await node.metrics()
                except ControlError:  # it is being started again, perhaps
                    pass

        async with trio.open_nursery() as nursery:
            for number, reach in enumerate(self._reach):
                nursery.start_soon(ask, number, reach)
        return self._totals.together([await self._own(), *found])

    async def _own(self) -> list[Metric]:
        readings = [Reading("elemta_nodes", len(self._reach)), Reading("elemta_nodes_up", 0)]
        families = registry_of(lambda: readings).collect()
        process = await trio.to_thread.run_sync(partial(process_metrics, self._process))
        return [*told(families), *process]
