"""Plugins hear what happens in the queue, and may do something about it.

Each has a subscription and a task of its own, so a slow one holds up neither the queue nor another.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from elemta.log import logger
from elemta.plugins.asking import tell
from elemta.plugins.chain import Chain
from elemta.queue import Bounce, Filter, Hold, Missed, Release, Reprioritise, Reschedule

if TYPE_CHECKING:
    from elemta.plugins.plugin import Plugin
    from elemta.queue import (
        Action,
        MakesReports,
        MessageId,
        Priority,
        Queue,
        QueueEvent,
        Subscription,
    )

log = logger(__name__)

#: Events that may wait for one plugin; of what comes beyond that it misses the oldest.
BUFFER: Final = 1000
#: Events that a plugin which does not wait may get in one turn of the loop.
AT_ONCE: Final = 100


class Watching:
    """Tells the plugins of one chain what happens.

    Args:
        queue: where it happens.
        report: writes to senders whose mail a plugin gives up.
    """

    def __init__(self, queue: Queue, report: MakesReports) -> None:
        self._queue = queue
        self._report = report
        self._chain = Chain()
        self._watched: dict[Plugin, Subscription] = {}
        self._nursery: trio.Nursery | None = None

    def use(self, chain: Chain) -> None:
        """From now on these hear: those who did go on without a gap, and the others hear no more.

        Args:
            chain: its plugins live.
        """
        self._chain = chain
        wanted = [loaded.plugin for loaded in chain.event]
        for plugin in [each for each in self._watched if each not in wanted]:
            self._watched.pop(plugin).close()
        if self._nursery is None:
            return
        for plugin in wanted:
            if plugin not in self._watched:
                subscription = self._queue.events.subscribe(BUFFER)
                self._watched[plugin] = subscription
                self._nursery.start_soon(self._attend, plugin, subscription)

    async def run(self) -> None:
        """Tell them, until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                self.use(self._chain)
                await trio.sleep_forever()
        finally:
            self._nursery = None
            while self._watched:
                self._watched.popitem()[1].close()

    async def _attend(self, plugin: Plugin, subscription: Subscription) -> None:
        """Tell one plugin one thing after the other."""
        async for event in subscription:
            await self._tell(plugin, event)
            for _ in range(AT_ONCE):
                if (more := subscription.take()) is None:
                    break
                await self._tell(plugin, more)

    async def _tell(self, plugin: Plugin, event: QueueEvent | Missed) -> None:
        chain = self._chain
        loaded = next(each for each in chain.event if each.plugin is plugin)
        if isinstance(event, Missed):
            log.warning("plugin.events_missed", plugin=loaded.name, count=event.count)
            loaded.counts.events["missed"] += event.count
            return
        hear = partial(_hear, event, Hand(self._queue, self._report, loaded.name))
        with chain.users:
            await tell((loaded,), "on_event", str(event.number), hear)


async def _hear(event: QueueEvent, hand: Hand, plugin: Plugin) -> None:
    await plugin.on_event(event, hand)


class Hand:
    """What one plugin does with the queue; see `elemta.plugins.Steers`.

    Args:
        queue: where it does so.
        report: writes to senders.
        plugin: what the configuration calls it.
    """

    def __init__(self, queue: Queue, report: MakesReports, plugin: str) -> None:
        self._queue = queue
        self._report = report
        self._who = f"plugin:{plugin}"

    async def hold(self, id: MessageId, reason: str) -> None:  # noqa: A002 # the word of people
        """See `Steers`."""
        await self._act(Hold(), id, reason)

    async def release(
        self,
        id: MessageId,  # noqa: A002
        reason: str = "",
        *,
        own: bool = False,
    ) -> None:
        """See `Steers`."""
        await self._act(Release(), id, reason, owner=self._who if own else None)

    async def reschedule(self, id: MessageId, due: float, reason: str = "") -> None:  # noqa: A002
        """See `Steers`."""
        await self._act(Reschedule(due), id, reason)

    async def reprioritise(
        self,
        id: MessageId,  # noqa: A002
        priority: Priority,
        reason: str = "",
    ) -> None:
        """See `Steers`."""
        await self._act(Reprioritise(priority), id, reason)

    async def bounce(self, id: MessageId, reason: str) -> None:  # noqa: A002
        """See `Steers`."""
        await self._act(Bounce(), id, reason)

    async def _act(
        self,
        action: Action,
        id: MessageId,  # noqa: A002
        reason: str,
        *,
        owner: str | None = None,
    ) -> None:
        which = Filter(ids=(id,), owner=owner)
        await self._queue.act(action, which, who=self._who, reason=reason, report=self._report)
