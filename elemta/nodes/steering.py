"""All nodes of a server as one: `Control`, asked of each node and put together.

The rules of this file:

- What is looked at is what those nodes have that run; what is changed is changed on all or, if one
  of them cannot be reached, on none (`Nodes`).
- A message is in one node: of a question about one, the first answer is the answer.
"""

from __future__ import annotations

from collections import Counter
from contextlib import AsyncExitStack, aclosing, suppress
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from elemta.config import ConfigError
from elemta.control import journal
from elemta.control.interface import (
    ControlError,
    RequestError,
    Saved,
    Status,
    UnavailableError,
    UnknownError,
)
from elemta.control.summing import sum_statistics
from elemta.nodes import merging
from elemta.nodes.asking import Nodes
from elemta.nodes.place import chosen
from elemta.nodes.streams import of_node
from elemta.queue import Destination, Missed, Reschedule, Stats, Tally

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from elemta.config import Change
    from elemta.control.facts import (
        Configuration,
        Explanation,
        Hypothesis,
        LogEntry,
        Metric,
        PluginStatus,
        Scale,
        SessionStatus,
        Spoken,
        Statistics,
        Submission,
        Submitted,
        TraceFilter,
        Transcript,
    )
    from elemta.control.interface import Control, Happening
    from elemta.nodes.cluster import Cluster
    from elemta.queue import (
        Action,
        Filter,
        Finding,
        Message,
        MessageId,
        QueueEvent,
        Suspension,
        Timeline,
    )

#: Events that a watcher may be behind.
_BEHIND: Final = 10_000


class ClusterControl:
    """All nodes, as one operator steers them. See `Control` for what a call does."""

    def __init__(self, cluster: Cluster, who: str) -> None:
        self._cluster = cluster
        self._who = who
        self._nodes = Nodes(cluster.reach, who)

    async def status(self) -> Status:
        """See `Control`. A node that cannot be reached is a trouble."""
        own, troubles = self._cluster.status(), list[str]()
        there: dict[int, Status] = {}
        for place, answer in enumerate(await self._nodes.each(_status)):
            if isinstance(answer, ControlError):
                troubles.append(f"node {place + 1}: {answer}")
            else:
                there[place] = answer
                troubles += [f"node {place + 1}: {trouble}" for trouble in answer.troubles]
        self._cluster.see(there)
        found = list(there.values())
        counts = Counter[str]()
        for each in found:
            counts.update(each.counts)
        queues = [each.queue for each in found if each.queue is not None]
        return msgspec.structs.replace(
            own,
            troubles=(*own.troubles, *troubles),
            listeners=merging.listeners(found),
            sessions=sum(each.sessions for each in found),
            places=sum(each.places for each in found),
            deliveries=sum(each.deliveries for each in found),
            in_memory=sum(each.in_memory for each in found),
            queue=merging.sum_stats(queues) if queues else None,
            event=self._cluster.bus.number,
            counts=dict(counts),
            parts=(
                *own.parts,
                *(
                    msgspec.structs.replace(part, name=f"node {place + 1}: {part.name}")
                    for place, each in there.items()
                    for part in each.parts
                ),
            ),
        )

    async def search(
        self,
        filter: Filter,  # noqa: A002 # the word of people
        *,
        limit: int = 100,
        after: MessageId | None = None,
        newest: bool = False,
    ) -> list[Message]:
        """See `Control`."""
        found = await self._nodes.those(
            lambda node: node.search(filter, limit=limit, after=after, newest=newest)
        )
        return merging.in_order(found, limit, newest=newest)

    async def timeline(self, id: MessageId) -> Timeline:  # noqa: A002 # the word of people
        """See `Control`."""
        return merging.one_of(await self._nodes.each(lambda node: node.timeline(id)))

    async def raw(self, id: MessageId) -> AsyncGenerator[bytes]:  # noqa: A002 # the word of people
        """See `Control`."""
        number = await self._nodes.where(id)
        async with (
            self._cluster.reach[number](self._who) as node,
            aclosing(node.raw(id)) as pieces,
        ):
            async for piece in pieces:
                yield piece

    async def stats(self) -> Stats:
        """See `Control`."""
        return merging.sum_stats(await self._nodes.those(_stats_of))

    async def destinations(self) -> list[Destination]:
        """See `Control`."""
        together: dict[str, list[Destination]] = {}
        for found in await self._nodes.those(_destinations_of):
            for each in found:
                together.setdefault(each.name, []).append(each)
        return [merging.destination(each) for each in together.values()]

    async def count(self, filter: Filter) -> Tally:  # noqa: A002 # the word of people
        """See `Control`."""
        return merging.sum_tallies(await self._nodes.all(lambda node: node.count(filter)))

    async def act(
        self,
        action: Action,
        filter: Filter,  # noqa: A002 # the word of people
        *,
        reason: str = "",
        dry_run: bool = False,
    ) -> Tally:
        """See `Control`. A time that is too late for a message of one node is so for all."""
        if isinstance(action, Reschedule) and not dry_run:
            await self._nodes.all(lambda node: node.act(action, filter, dry_run=True))
        return merging.sum_tallies(
            await self._nodes.all(
                lambda node: node.act(action, filter, reason=reason, dry_run=dry_run)
            )
        )

    async def suspend(
        self, scope: str, *, reason: str = "", until: float | None = None, dry_run: bool = False
    ) -> Tally | None:
        """See `Control`."""
        found = await self._nodes.all(
            lambda node: node.suspend(scope, reason=reason, until=until, dry_run=dry_run)
        )
        return merging.sum_tallies(each for each in found if each is not None) if dry_run else None

    async def resume(self, scope: str, *, dry_run: bool = False) -> Tally | None:
        """See `Control`."""
        tallies: list[Tally] = []
        unknown: UnknownError | None = None
        known = False
        async with AsyncExitStack() as held:
            for node in await self._nodes.reach_all(held):
                try:
                    tally = await node.resume(scope, dry_run=dry_run)
                except UnknownError as error:
                    unknown = error
                else:
                    known = True
                    tallies += [tally] if tally is not None else []
        if not known and unknown is not None:
            raise unknown
        return merging.sum_tallies(tallies) if dry_run else None

    async def suspensions(self) -> list[Suspension]:
        """See `Control`."""
        found = await self._nodes.those(_suspensions_of)
        return list({each.scope: each for several in found for each in several}.values())

    async def events(self, since: int | None = None) -> AsyncGenerator[Happening]:
        """See `Control`. Of what was before, the first who asks is told what `Cluster.see` saw."""
        self._cluster.wanted.set()
        with self._cluster.bus.subscribe(_BEHIND, since=since) as subscription:
            async for event in subscription:
                yield event

    async def reload(self, *, dry_run: bool = False) -> tuple[Change, ...]:
        """See `Control`. A mistake is found before any node has changed."""
        changes = await self._nodes.all(lambda node: node.reload(dry_run=True))
        if not dry_run:
            changes = await self._nodes.all(lambda node: node.reload())
            with suppress(ConfigError):  # changed since: the nodes have what was right
                self._cluster.running.reload()
        return changes[0]

    async def check(self) -> list[Finding]:
        """See `Control`."""
        return [finding for found in await self._nodes.all(_check) for finding in found]

    async def backup(self, target: Path) -> Saved:
        """See `Control`. The copy has the folders that the server's `data_dir` has."""
        if not target.is_absolute():
            raise RequestError("expected an absolute path", "target")
        try:
            await trio.to_thread.run_sync(partial(target.mkdir, mode=0o700))
        except FileExistsError:
            raise RequestError(f"{target} is there already", "target") from None
        except OSError as error:
            raise UnavailableError(f"{target}: {error.strerror or error}") from None
        async with AsyncExitStack() as held:
            for number, node in enumerate(await self._nodes.reach_all(held), 1):
                folder = target / "queue"
                if number > 1:
                    folder = target / "nodes" / str(number) / "queue"
                    make = partial(folder.parent.mkdir, mode=0o700, parents=True)
                    await trio.to_thread.run_sync(make)
                await node.backup(folder)
        return Saved(target=str(target))

    async def sessions(self) -> list[SessionStatus]:
        """See `Control`."""
        return merging.sessions(await self._nodes.those(_sessions_of))

    async def transcripts(self, id: MessageId) -> list[Transcript]:  # noqa: A002 # the word of people
        """See `Control`."""
        return merging.transcripts(await self._nodes.those(lambda node: node.transcripts(id)))

    async def trace(self, filter: TraceFilter) -> AsyncGenerator[Spoken | Missed]:  # noqa: A002 # the word of people
        """See `Control`."""
        nodes = [
            of_node(reach, self._who, lambda node: node.trace(filter))
            for reach in self._cluster.reach
        ]
        async with aclosing(self._cluster.streams.merged(nodes)) as told:
            async for each in told:
                yield each

    async def failures(self, *, limit: int = 100) -> list[QueueEvent]:
        """See `Control`. Their numbers are those of the nodes, and so of no use: 0."""
        return merging.failures(
            await self._nodes.those(lambda node: node.failures(limit=limit)), limit=limit
        )

    async def log(self, *, level: str = "debug", limit: int = 100) -> list[LogEntry]:
        """See `Control`. The first process has a log, too."""
        own = journal.recent(level, limit)
        found = await self._nodes.those(lambda node: node.log(level=level, limit=limit))
        return merging.entries([own, *found], limit=limit)

    async def follow(self, *, level: str = "debug") -> AsyncGenerator[LogEntry | Missed]:
        """See `Control`."""
        journal.level_of(level)
        nodes = [
            of_node(reach, self._who, lambda node: node.follow(level=level))
            for reach in self._cluster.reach
        ]
        everybody = [journal.follow(level), *nodes]
        async with aclosing(self._cluster.streams.merged(everybody)) as told:
            async for each in told:
                yield each

    async def log_level(self, level: str | None = None) -> str:
        """See `Control`."""
        if level is not None:
            journal.level_of(level)
            await self._nodes.all(lambda node: node.log_level(level))
        await trio.lowlevel.checkpoint()
        return journal.log_level(level, self._who)

    async def statistics(self, scale: Scale) -> Statistics:
        """See `Control`. Of those nodes that can be reached."""
        return sum_statistics(scale, await self._nodes.those(lambda node: node.statistics(scale)))

    async def configuration(self) -> Configuration:
        """See `Control`. That of the whole server: a node has but its share of it."""
        await trio.lowlevel.checkpoint()
        return self._cluster.running.told()

    async def plugins(self) -> list[PluginStatus]:
        """See `Control`."""
        return merging.plugins(await self._nodes.those(lambda node: node.plugins()))

    async def switch_plugin(self, name: str, *, enabled: bool) -> None:
        """See `Control`. A node that starts anew does again as the configuration says."""
        await self._nodes.all(lambda node: node.switch_plugin(name, enabled=enabled))

    async def explain(self, hypothesis: Hypothesis) -> Explanation:
        """See `Control`. Told by one node; what it says of lanes and clients is its own view."""
        trouble: ControlError = UnavailableError("there is no node")
        for reach in self._cluster.takers:
            try:
                async with reach(self._who) as node:
                    return await node.explain(hypothesis)
            except RequestError:
                raise
            except ControlError as error:
                trouble = error
        raise trouble

    async def why(self, id: MessageId) -> Explanation:  # noqa: A002 # the word of people
        """See `Control`."""
        return merging.one_of(await self._nodes.each(lambda node: node.why(id)))

    async def submit(self, submission: Submission) -> Submitted:
        """See `Control`. Who comes again with a key finds the node that knows it, or none."""
        takers = self._cluster.takers
        if submission.key:
            takers = (takers[chosen(f"{self._who} {submission.key}", len(takers))],)
        else:
            turn = self._cluster.next_turn() % len(takers)
            takers = (*takers[turn:], *takers[:turn])
        trouble: ControlError = UnavailableError("there is no node")
        for reach in takers:
            async with AsyncExitStack() as held:
                try:
                    node = await held.enter_async_context(reach(self._who))
                except ControlError as error:
                    trouble = error
                    continue
                # If it breaks off from here on, it may have the message: no other is asked.
                return await node.submit(submission)
        raise UnavailableError(f"no node can take it: {trouble}")

    async def metrics(self) -> list[Metric]:
        """See `Control`. A node that cannot be reached is one of them."""
        return await self._cluster.measuring.metrics(self._who)


# Functions rather than lambdas, where a type checker cannot see what a lambda's argument is.


async def _status(node: Control) -> Status:
    return await node.status()


async def _stats_of(node: Control) -> Stats:
    return await node.stats()


async def _destinations_of(node: Control) -> list[Destination]:
    return await node.destinations()


async def _sessions_of(node: Control) -> list[SessionStatus]:
    return await node.sessions()


async def _suspensions_of(node: Control) -> list[Suspension]:
    return await node.suspensions()


async def _check(node: Control) -> list[Finding]:
    return await node.check()
