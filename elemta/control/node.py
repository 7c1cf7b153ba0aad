"""`Control` of the server in this process: its queue, its store, and what the daemon lends."""

from __future__ import annotations

import sqlite3
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import msgspec
import trio

from elemta.control import journal, tracing
from elemta.control.checks import (
    check_address,
    check_submission,
    checked_hypothesis,
    checked_reroute,
)
from elemta.control.interface import RequestError, Saved, UnavailableError, UnknownError
from elemta.control.measuring import Stored, free_octets, process_metrics
from elemta.control.summing import SPANS, statistics_of
from elemta.log import logger
from elemta.metrics.collecting import process_registry
from elemta.queue import (
    Filter,
    Redirect,
    Reroute,
    Reschedule,
    SpoolError,
    StoreUnavailable,
    Suspension,
    View,
    backup,
    check,
    parse_id,
    parse_scope,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
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
    from elemta.control.interface import Happening, Status
    from elemta.net.dialogues import Dialogues
    from elemta.queue import (
        Action,
        Destination,
        Finding,
        MakesReports,
        Message,
        MessageId,
        Missed,
        Queue,
        QueueEvent,
        Stats,
        StoreReader,
        Tally,
        Timeline,
    )

log = logger(__name__)

#: Searches of the store at a time, so that threads are left for mail.
READERS: Final = 4
#: Events that a watcher may be behind.
BEHIND: Final = 10_000
#: What waits: what a suspension stops.
_WAITING: Final = (View.ACTIVE, View.DEFERRED)

T = TypeVar("T")


class Server(Protocol):
    """What is lent to those who steer."""

    @property
    def queue(self) -> Queue:
        """Where the mail is."""
        ...

    @property
    def report(self) -> MakesReports:
        """Writes to senders."""
        ...

    @property
    def dialogues(self) -> Dialogues:
        """What is said, in and out."""
        ...

    def status(self) -> Status:
        """How the server is, but for what must be read from the disk."""
        ...

    def metrics(self, stored: Stored) -> list[Metric]:
        """See `Control.metrics`; what takes a thread to find out is given."""
        ...

    async def reload(self, *, dry_run: bool) -> tuple[Change, ...]:
        """See `Control.reload`."""
        ...

    def configuration(self) -> Configuration:
        """See `Control.configuration`."""
        ...

    def plugins(self) -> list[PluginStatus]:
        """See `Control.plugins`."""
        ...

    def switch_plugin(self, name: str, *, enabled: bool) -> None:
        """See `Control.switch_plugin`."""
        ...

    async def explain(self, hypothesis: Hypothesis) -> Explanation:
        """See `Control.explain`."""
        ...

    def why(self, timeline: Timeline) -> Explanation:
        """See `Control.why`: of a message of which this is known on disk."""
        ...

    async def submit(self, submission: Submission, who: str) -> Submitted:
        """See `Control.submit`: what `who` hands in."""
        ...


class Node:
    """The server in this process.

    Args:
        server: what it is made of.
        reader: of its queue's files.
        folder: where these are.
        clock: seconds since the epoch.
    """

    def __init__(
        self, server: Server, reader: StoreReader, folder: Path, clock: Callable[[], float]
    ) -> None:
        self.server = server
        self.reader = reader
        self.folder = folder
        self.clock = clock
        self._reading = trio.CapacityLimiter(READERS)
        self._process = process_registry()

    def steered_by(self, who: str) -> NodeControl:
        """The server, as somebody steers it.

        Args:
            who: e.g. ``operator:root``; stands in timelines and in the log.
        """
        return NodeControl(self, who)

    async def read(self, call: Callable[[], T]) -> T:
        """Read from the store.

        Raises:
            RequestError: what is asked for makes no sense.
            UnavailableError: the disk.
        """
        async with self._reading:
            try:
                return await self.server.queue.in_thread(call, abandonable=True)
            except (sqlite3.Error, SpoolError, OSError) as error:
                raise UnavailableError(f"the queue cannot be read: {error}") from error
            except ValueError as error:
                raise RequestError(str(error), "filter") from None

    async def stored(self) -> Stored:
        """What only the disk and the kernel know.

        Raises:
            UnavailableError: as the queue's folder says nothing at all.
        """
        try:
            stats = await self.read(self.reader.stats)
        except UnavailableError:  # that is a finding, too
            stats = None

        def ask() -> Stored:
            return Stored(stats, free_octets(self.folder), process_metrics(self._process))

        return await self.read(ask)


class NodeControl:
    """The server in this process, as one operator steers it. See `Control` for what a call does."""

    def __init__(self, node: Node, who: str) -> None:
        self._node = node
        self._queue = node.server.queue
        self._who = who

    async def status(self) -> Status:
        """See `Control`. Answers even if the disk does not."""
        status = self._node.server.status()
        try:
            return msgspec.structs.replace(status, queue=await self.stats())
        except UnavailableError as error:
            return msgspec.structs.replace(status, troubles=(*status.troubles, str(error)))

    async def search(
        self,
        filter: Filter,  # noqa: A002 # the word of people
        *,
        limit: int = 100,
        after: MessageId | None = None,
        newest: bool = False,
    ) -> list[Message]:
        """See `Control`. What is found is durable: a moment behind what is under way."""
        if after is not None and (after := parse_id(after)) is None:
            raise RequestError("expected the id of a message", "after")
        pages = self._node.reader.pages(
            filter,
            after=after,
            newest=newest,
            now=self._node.clock(),
            lane=self._queue.lane_of,
        )
        found: list[Message] = []
        # A page at a time: who asked may have left, and the server may want to stop.
        while len(found) < limit:
            page = await self._node.read(partial(next, pages, None))
            if page is None:
                break
            found += page
        return found[:limit]

    async def timeline(self, id: MessageId) -> Timeline:  # noqa: A002 # the word of people
        """See `Control`."""
        found = await self._node.read(partial(self._node.reader.timeline, id))
        if found is None:
            raise UnknownError(f"no message {id!r}, or it is no longer remembered")
        return found

    async def raw(self, id: MessageId) -> AsyncGenerator[bytes]:  # noqa: A002 # the word of people
        """See `Control`. Who read what is logged."""
        timeline = await self.timeline(id)
        if timeline.finished_at is not None:
            raise UnknownError(f"{id} is finished, and its content gone")
        log.info("control.raw", who=self._who, id=timeline.message.id)
        try:
            body = await self._node.reader.open_body(timeline.message, self._queue.in_thread)
            async with aclosing(body.chunks()) as pieces:
                async for piece in pieces:
                    yield piece
        except StoreUnavailable as error:
            raise UnavailableError(str(error)) from error

    async def stats(self) -> Stats:
        """See `Control`."""
        return await self._node.read(self._node.reader.stats)

    async def destinations(self) -> list[Destination]:
        """See `Control`."""
        await trio.lowlevel.checkpoint()
        return list(self._queue.destinations())

    async def count(self, filter: Filter) -> Tally:  # noqa: A002 # the word of people
        """See `Control`."""
        return await _steering(self._queue.count(filter))

    async def act(
        self,
        action: Action,
        filter: Filter,  # noqa: A002 # the word of people
        *,
        reason: str = "",
        dry_run: bool = False,
    ) -> Tally:
        """See `Control`. Who did what is logged, and stands in the timeline of each message."""
        if isinstance(action, Redirect):
            check_address(action.to, "action.to")
        place = ""
        if isinstance(action, Reroute):
            action = checked_reroute(action)
        elif isinstance(action, Reschedule):
            place = "action.at"
        if dry_run:
            return await _steering(self._queue.count(filter, action), place)
        tally = await _steering(
            self._queue.act(
                action,
                filter,
                who=self._who,
                reason=reason,
                report=self._node.server.report,
            ),
            place,
        )
        log.info(
            "control.acted",
            who=self._who,
            action=str(action.__struct_config__.tag),
            filter=msgspec.json.encode(filter).decode(),
            reason=reason,
            messages=tally.messages,
            recipients=tally.recipients,
            busy=tally.busy,
        )
        return tally

    async def suspend(
        self, scope: str, *, reason: str = "", until: float | None = None, dry_run: bool = False
    ) -> Tally | None:
        """See `Control`."""
        scope, now = _scope(scope), self._node.clock()
        if until is not None and until <= now:
            raise RequestError("expected a time that is to come", "until")
        if dry_run:
            return await self.count(_within(scope))
        suspension = Suspension(scope=scope, reason=reason, who=self._who, since=now, until=until)
        await _steering(self._queue.suspend(suspension))
        log.info("control.suspended", who=self._who, scope=scope, reason=reason, until=until)
        return None

    async def resume(self, scope: str, *, dry_run: bool = False) -> Tally | None:
        """See `Control`."""
        scope = _scope(scope)
        if all(each.scope != scope for each in self._queue.suspensions):
            raise UnknownError(f"{scope} is not suspended")
        if dry_run:
            return await self.count(_within(scope))
        await _steering(self._queue.resume(scope))
        log.info("control.resumed", who=self._who, scope=scope)
        return None

    async def suspensions(self) -> list[Suspension]:
        """See `Control`."""
        await trio.lowlevel.checkpoint()
        return list(self._queue.suspensions)

    async def events(self, since: int | None = None) -> AsyncGenerator[Happening]:
        """See `Control`."""
        with self._queue.events.subscribe(BEHIND, since=since) as subscription:
            async for event in subscription:
                yield event

    async def reload(self, *, dry_run: bool = False) -> tuple[Change, ...]:
        """See `Control`."""
        await trio.lowlevel.checkpoint()
        told = await self._node.server.reload(dry_run=dry_run)
        if not dry_run:
            log.info("control.reloaded", who=self._who, changes=len(told))
        return told

    async def check(self) -> list[Finding]:
        """See `Control`."""
        return await self._node.read(partial(check, self._node.folder))

    async def backup(self, target: Path) -> Saved:
        """See `Control`."""
        if not target.is_absolute():
            raise RequestError("expected an absolute path", "target")
        try:
            await self._node.server.queue.in_thread(partial(backup, self._node.folder, target))
        except FileExistsError:
            raise RequestError(f"{target} is there already", "target") from None
        except (sqlite3.Error, SpoolError, StoreUnavailable, OSError) as error:
            raise UnavailableError(f"no copy was made: {error}") from error
        log.info("control.saved", who=self._who, target=str(target))
        return Saved(target=str(target))

    async def sessions(self) -> list[SessionStatus]:
        """See `Control`."""
        await trio.lowlevel.checkpoint()
        return tracing.sessions(self._node.server.dialogues)

    async def transcripts(self, id: MessageId) -> list[Transcript]:  # noqa: A002 # the word of people
        """See `Control`."""
        await trio.lowlevel.checkpoint()
        return tracing.transcripts(self._node.server.dialogues, id)

    def trace(self, filter: TraceFilter) -> AsyncGenerator[Spoken | Missed]:  # noqa: A002 # the word of people
        """See `Control`."""
        return tracing.trace(self._node.server.dialogues, filter)

    async def failures(self, *, limit: int = 100) -> list[QueueEvent]:
        """See `Control`."""
        await trio.lowlevel.checkpoint()
        return self._queue.events.failures(limit)

    async def log(self, *, level: str = "debug", limit: int = 100) -> list[LogEntry]:
        """See `Control`."""
        await trio.lowlevel.checkpoint()
        return journal.recent(level, limit)

    def follow(self, *, level: str = "debug") -> AsyncGenerator[LogEntry | Missed]:
        """See `Control`."""
        return journal.follow(level)

    async def log_level(self, level: str | None = None) -> str:
        """See `Control`. Who set it is logged."""
        await trio.lowlevel.checkpoint()
        return journal.log_level(level, self._who)

    async def statistics(self, scale: Scale) -> Statistics:
        """See `Control`."""
        await trio.lowlevel.checkpoint()
        return statistics_of(scale, self._queue.counting.buckets(*SPANS[scale]))

    async def configuration(self) -> Configuration:
        """See `Control`."""
        await trio.lowlevel.checkpoint()
        return self._node.server.configuration()

    async def plugins(self) -> list[PluginStatus]:
        """See `Control`."""
        await trio.lowlevel.checkpoint()
        return self._node.server.plugins()

    async def switch_plugin(self, name: str, *, enabled: bool) -> None:
        """See `Control`."""
        await trio.lowlevel.checkpoint()
        self._node.server.switch_plugin(name, enabled=enabled)
        log.info("control.plugin_switched", who=self._who, plugin=name, enabled=enabled)

    async def explain(self, hypothesis: Hypothesis) -> Explanation:
        """See `Control`."""
        return await self._node.server.explain(checked_hypothesis(hypothesis))

    async def why(self, id: MessageId) -> Explanation:  # noqa: A002 # the word of people
        """See `Control`."""
        return self._node.server.why(await self.timeline(id))

    async def submit(self, submission: Submission) -> Submitted:
        """See `Control`. Who handed it in stands where the login of an SMTP client would."""
        check_submission(submission, self._node.clock())
        return await self._node.server.submit(submission, self._who)

    async def metrics(self) -> list[Metric]:
        """See `Control`. What the disk does not tell is left out."""
        return self._node.server.metrics(await self._node.stored())


async def _steering(call: Awaitable[T], place: str = "") -> T:
    """What the queue says of what it is asked, in words of `Control`."""
    try:
        return await call
    except StoreUnavailable as error:
        raise UnavailableError(f"the queue cannot be changed just now: {error}") from error
    except ValueError as error:
        raise RequestError(str(error), place) from None


def _scope(text: str) -> str:
    try:
        return parse_scope(text)
    except ValueError as error:
        raise RequestError(str(error), "scope") from None


def _within(scope: str) -> Filter:
    """What waits in a scope."""
    kind, _, name = scope.partition(":")
    match kind:
        case "destination":
            return Filter(views=_WAITING, destination=name)
        case "domain":
            return Filter(views=_WAITING, domain=name)
        case _:
            return Filter(views=_WAITING)
