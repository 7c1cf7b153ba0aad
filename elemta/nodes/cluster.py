"""All nodes of a server as one: `Control`, asked of each node and put together.

The rules of this file:

- What is looked at is what those nodes have that run; what is changed is changed on all or, if one
  of them cannot be reached, on none. A node that goes away in between is told of.
- A message is in one node: of a question about one, the first answer is the answer.
- Events have numbers of their own here, since each node counts for itself. Nobody listens to the
  nodes until somebody has listened here, as each event then costs a node time.
"""

from __future__ import annotations

import math
from collections import Counter
from contextlib import AsyncExitStack, aclosing, suppress
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

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
from elemta.log import logger
from elemta.nodes import merging
from elemta.nodes.measuring import Measuring
from elemta.nodes.place import chosen
from elemta.nodes.streams import PAUSE, Streams, of_node
from elemta.queue import Destination, EventBus, Missed, Reschedule, Stats, Tally

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
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
    from elemta.nodes.running import Running
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

log = logger(__name__)

#: Reaches one node, to steer it in somebody's name. Raises ControlError if it cannot be reached.
Reach: TypeAlias = "Callable[[str], AbstractAsyncContextManager[Control]]"

T = TypeVar("T")

#: Events that a watcher may be behind.
_BEHIND: Final = 10_000
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


class ClusterControl:
    """All nodes, as one operator steers them. See `Control` for what a call does."""

    def __init__(self, cluster: Cluster, who: str) -> None:
        self._cluster = cluster
        self._who = who

    async def status(self) -> Status:
        """See `Control`. A node that cannot be reached is a trouble."""
        own, troubles = self._cluster.status(), list[str]()
        there: dict[int, Status] = {}
        for place, answer in enumerate(await self._each(_status)):
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
        found = await self._those(
            lambda node: node.search(filter, limit=limit, after=after, newest=newest)
        )
        return merging.in_order(found, limit, newest=newest)

    async def timeline(self, id: MessageId) -> Timeline:  # noqa: A002 # the word of people
        """See `Control`."""
        return merging.one_of(await self._each(lambda node: node.timeline(id)))

    async def raw(self, id: MessageId) -> AsyncGenerator[bytes]:  # noqa: A002 # the word of people
        """See `Control`."""
        number = await self._where(id)
        async with (
            self._cluster.reach[number](self._who) as node,
            aclosing(node.raw(id)) as pieces,
        ):
            async for piece in pieces:
                yield piece

    async def stats(self) -> Stats:
        """See `Control`."""
        return merging.sum_stats(await self._those(_stats_of))

    async def destinations(self) -> list[Destination]:
        """See `Control`."""
        together: dict[str, list[Destination]] = {}
        for found in await self._those(_destinations_of):
            for each in found:
                together.setdefault(each.name, []).append(each)
        return [merging.destination(each) for each in together.values()]

    async def count(self, filter: Filter) -> Tally:  # noqa: A002 # the word of people
        """See `Control`."""
        return merging.sum_tallies(await self._all(lambda node: node.count(filter)))

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
            await self._all(lambda node: node.act(action, filter, dry_run=True))
        return merging.sum_tallies(
            await self._all(lambda node: node.act(action, filter, reason=reason, dry_run=dry_run))
        )

    async def suspend(
        self, scope: str, *, reason: str = "", until: float | None = None, dry_run: bool = False
    ) -> Tally | None:
        """See `Control`."""
        found = await self._all(
            lambda node: node.suspend(scope, reason=reason, until=until, dry_run=dry_run)
        )
        return merging.sum_tallies(each for each in found if each is not None) if dry_run else None

    async def resume(self, scope: str, *, dry_run: bool = False) -> Tally | None:
        """See `Control`."""
        tallies: list[Tally] = []
        unknown: UnknownError | None = None
        known = False
        async with AsyncExitStack() as held:
            for node in await self._reach_all(held):
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
        found = await self._those(_suspensions_of)
        return list({each.scope: each for several in found for each in several}.values())

    async def events(self, since: int | None = None) -> AsyncGenerator[Happening]:
        """See `Control`. Of what was before, the first who asks is told what `Cluster.see` saw."""
        self._cluster.wanted.set()
        with self._cluster.bus.subscribe(_BEHIND, since=since) as subscription:
            async for event in subscription:
                yield event

    async def reload(self, *, dry_run: bool = False) -> tuple[Change, ...]:
        """See `Control`. A mistake is found before any node has changed."""
        changes = await self._all(lambda node: node.reload(dry_run=True))
        if not dry_run:
            changes = await self._all(lambda node: node.reload())
            with suppress(ConfigError):  # changed since: the nodes have what was right
                self._cluster.running.reload()
        return changes[0]

    async def check(self) -> list[Finding]:
        """See `Control`."""
        return [finding for found in await self._all(_check) for finding in found]

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
            for number, node in enumerate(await self._reach_all(held), 1):
                folder = target / "queue"
                if number > 1:
                    folder = target / "nodes" / str(number) / "queue"
                    make = partial(folder.parent.mkdir, mode=0o700, parents=True)
                    await trio.to_thread.run_sync(make)
                await node.backup(folder)
        return Saved(target=str(target))

    async def sessions(self) -> list[SessionStatus]:
        """See `Control`."""
        return merging.sessions(await self._those(_sessions_of))

    async def transcripts(self, id: MessageId) -> list[Transcript]:  # noqa: A002 # the word of people
        """See `Control`."""
        return merging.transcripts(await self._those(lambda node: node.transcripts(id)))

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
            await self._those(lambda node: node.failures(limit=limit)), limit=limit
        )

    async def log(self, *, level: str = "debug", limit: int = 100) -> list[LogEntry]:
        """See `Control`. The first process has a log, too."""
        own = journal.recent(level, limit)
        found = await self._those(lambda node: node.log(level=level, limit=limit))
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
            await self._all(lambda node: node.log_level(level))
        await trio.lowlevel.checkpoint()
        return journal.log_level(level, self._who)

    async def statistics(self, scale: Scale) -> Statistics:
        """See `Control`. Of those nodes that can be reached."""
        return sum_statistics(scale, await self._those(lambda node: node.statistics(scale)))

    async def configuration(self) -> Configuration:
        """See `Control`. That of the whole server: a node has but its share of it."""
        await trio.lowlevel.checkpoint()
        return self._cluster.running.told()

    async def plugins(self) -> list[PluginStatus]:
        """See `Control`."""
        return merging.plugins(await self._those(lambda node: node.plugins()))

    async def switch_plugin(self, name: str, *, enabled: bool) -> None:
        """See `Control`. A node that starts anew does again as the configuration says."""
        await self._all(lambda node: node.switch_plugin(name, enabled=enabled))

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
        return merging.one_of(await self._each(lambda node: node.why(id)))

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

    # Asking.

    async def _each(self, ask: Callable[[Control], Awaitable[T]]) -> list[T | ControlError]:
        """What each node answers, or why it does not; all are asked at once."""
        answers: dict[int, T | ControlError] = {}

        async def one(number: int, reach: Reach) -> None:
            try:
                async with reach(self._who) as node:
                    answers[number] = await ask(node)
            except ControlError as error:
                answers[number] = error

        async with trio.open_nursery() as nursery:
            for number, reach in enumerate(self._cluster.reach):
                nursery.start_soon(one, number, reach)
        return [answers[number] for number in range(len(self._cluster.reach))]

    async def _those(self, ask: Callable[[Control], Awaitable[T]]) -> list[T]:
        """What those nodes answer that can be reached.

        Raises:
            ControlError: none can; or what one of them says is wrong with the question.
        """
        found: list[T] = []
        trouble: ControlError | None = None
        for answer in await self._each(ask):
            if isinstance(answer, RequestError):
                raise answer
            if isinstance(answer, ControlError):
                trouble = answer
            else:
                found.append(answer)
        if trouble is not None and not found:
            raise trouble
        return found

    async def _all(self, ask: Callable[[Control], Awaitable[T]]) -> list[T]:
        """What all nodes answer, one after the other: none is asked unless all are there.

        Raises:
            ControlError: as one of them says.
        """
        async with AsyncExitStack() as held:
            return [await ask(node) for node in await self._reach_all(held)]

    async def _reach_all(self, held: AsyncExitStack) -> list[Control]:
        nodes: list[Control] = []
        for number, reach in enumerate(self._cluster.reach, 1):
            try:
                nodes.append(await held.enter_async_context(reach(self._who)))
            except ControlError as error:
                text = f"node {number} cannot be reached, so nothing was done: {error}"
                raise UnavailableError(text) from error
        return nodes

    async def _where(self, id: MessageId) -> int:  # noqa: A002 # the word of people
        """Which node has a message, from 0."""
        answers = await self._each(lambda node: node.timeline(id))
        return merging.one_of(
            answer if isinstance(answer, ControlError) else number
            for number, answer in enumerate(answers)
        )


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
