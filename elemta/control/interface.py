"""What can be asked of a running server, however it is asked.

Rules of this file:

- Nothing here knows how a question came in: the socket serves this interface, and so may others.
- A `Control` belongs to one operator. What it does is done in that name.
- Every action can be run dry: it then says what it would have been done to, and does nothing.
- What may be large is an async generator: use `contextlib.aclosing`, and it holds nothing back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

from msgspec import Struct

from elemta.queue import Missed, QueueEvent, Stats
from elemta.supervision import Part

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
    from elemta.queue import (
        Action,
        Destination,
        Filter,
        Finding,
        Message,
        MessageId,
        Suspension,
        Tally,
        Timeline,
    )

#: What an open subscription tells.
Happening: TypeAlias = QueueEvent | Missed


class ControlError(Exception):
    """It was not done; the message is for who asked.

    Attributes:
        place: what of the question is wrong, e.g. ``filter.older_than``; empty if none of it is.
    """

    def __init__(self, text: str, place: str = "") -> None:
        super().__init__(text)
        self.place = place


class RequestError(ControlError):
    """What was asked makes no sense."""


class UnknownError(ControlError):
    """There is no such thing, or it is no longer known."""


class ForbiddenError(ControlError):
    """Who asks may not do it."""


class UnavailableError(ControlError):
    """It cannot be done just now: the disk, or the server, is in trouble."""


class ListenerStatus(Struct, frozen=True, kw_only=True):
    """A listener.

    Attributes:
        addresses: where clients find it.
        connections: that clients hold just now.
    """

    name: str
    kind: str
    addresses: tuple[str, ...]
    connections: int


class Status(Struct, frozen=True, kw_only=True):
    """How a server is.

    Attributes:
        started_at, asked_at: seconds since the epoch.
        stopping: it takes no more mail, and ends when what is on its way is done.
        troubles: what is wrong, a line each; none: all is well.
        sessions: of clients, and how many there may be.
        deliveries: that may be under way at a time.
        files: descriptors that the process may open; -1: no limit.
        in_memory: messages.
        queue: what is on disk; None if that cannot be read.
        counts: how much happened since the start, by the names of events; and reports that were
            written, by kind.
        parts: that are kept running, and how that goes.
        event: the number of the last one: who asks for those since then misses none.
        api: where the server is found over HTTP.
    """

    version: str
    hostname: str
    pid: int
    started_at: float
    asked_at: float
    stopping: bool
    troubles: tuple[str, ...]
    listeners: tuple[ListenerStatus, ...]
    sessions: int
    places: int
    deliveries: int
    files: int
    in_memory: int
    queue: Stats | None
    counts: dict[str, int]
    parts: tuple[Part, ...]
    event: int = 0
    api: tuple[str, ...] = ()


class Saved(Struct, frozen=True, kw_only=True):
    """A copy of the queue.

    Attributes:
        target: the folder that it is in.
    """

    target: str


class Control(Protocol):
    """A running server, as one operator steers it.

    Raises:
        RequestError: a filter, scope or path makes no sense; nothing was done.
        UnavailableError: the disk is in trouble. What a long action has done so far stays done.
    """

    async def status(self) -> Status:
        """How the server is."""
        ...

    async def search(
        self,
        filter: Filter,  # noqa: A002 # the word of people
        *,
        limit: int = 100,
        after: MessageId | None = None,
        newest: bool = False,
    ) -> list[Message]:
        """Messages with a recipient that is meant.

        Args:
            filter: who is meant.
            limit: so many at most.
            after: those behind this one: where the last page ended. It may be gone.
            newest: these first; else the oldest.
        """
        ...

    async def timeline(self, id: MessageId) -> Timeline:  # noqa: A002 # the word of people
        """What happened to a message.

        Raises:
            UnknownError: there is none of this id, or it is no longer remembered.
        """
        ...

    def raw(self, id: MessageId) -> AsyncGenerator[bytes]:  # noqa: A002 # the word of people
        """The content of a message that is not finished, in pieces.

        Raises:
            UnknownError: there is none of this id, or its content is gone as it is finished.
        """
        ...

    async def stats(self) -> Stats:
        """How full the queue is."""
        ...

    async def destinations(self) -> list[Destination]:
        """Where mail stands ready to go, or cannot go just now."""
        ...

    async def count(self, filter: Filter) -> Tally:  # noqa: A002 # the word of people
        """How much is meant."""
        ...

    async def act(
        self,
        action: Action,
        filter: Filter,  # noqa: A002 # the word of people
        *,
        reason: str = "",
        dry_run: bool = False,
    ) -> Tally:
        """Do something to all who are meant. Each message at once, all of them one by one.

        Args:
            action: what to do.
            filter: to whom. No condition means all that are not finished.
            reason: for people; stands in the timeline.
            dry_run: count only.
        """
        ...

    async def suspend(
        self, scope: str, *, reason: str = "", until: float | None = None, dry_run: bool = False
    ) -> Tally | None:
        """Send nothing to a scope: ``all``, ``destination:LANE`` or ``domain:NAME``.

        Args:
            scope: where to.
            reason: for people.
            until: seconds since the epoch; None: until `resume`.
            dry_run: count what waits there, and do nothing.

        Returns:
            What a dry run counts.
        """
        ...

    async def resume(self, scope: str, *, dry_run: bool = False) -> Tally | None:
        """End a suspension.

        Returns:
            What a dry run counts.

        Raises:
            UnknownError: nothing of this scope is suspended.
        """
        ...

    async def suspensions(self) -> list[Suspension]:
        """What is suspended."""
        ...

    def events(self, since: int | None = None) -> AsyncGenerator[Happening]:
        """What happens from now on, or after the event of number `since`; never ends by itself."""
        ...

    async def reload(self, *, dry_run: bool = False) -> tuple[Change, ...]:
        """Read the configuration again, and take over what can change while mail flows.

        Returns:
            What differs from the running one.

        Raises:
            ConfigError: there is a mistake in it; nothing has changed.
        """
        ...

    async def check(self) -> list[Finding]:
        """What is wrong with the store's files. Takes a while where there is much."""
        ...

    async def backup(self, target: Path) -> Saved:
        """Copy the queue as it is at one moment into a new folder, while mail flows.

        Args:
            target: absolute, as the server sees it; must not exist.
        """
        ...

    async def sessions(self) -> list[SessionStatus]:
        """Who is connected now, in and out, the oldest first."""
        ...

    async def transcripts(self, id: MessageId) -> list[Transcript]:  # noqa: A002 # the word of people
        """What was said about a message, the oldest first; of as many conversations as are kept."""
        ...

    def trace(self, filter: TraceFilter) -> AsyncGenerator[Spoken | Missed]:  # noqa: A002 # the word of people
        """What is said from now on; never ends by itself."""
        ...

    async def failures(self, *, limit: int = 100) -> list[QueueEvent]:
        """The last attempts that failed, for now or for good, the newest first."""
        ...

    async def log(self, *, level: str = "debug", limit: int = 100) -> list[LogEntry]:
        """The last events of the log, the newest last.

        Args:
            level: of at least this level.
            limit: so many at most.
        """
        ...

    def follow(self, *, level: str = "debug") -> AsyncGenerator[LogEntry | Missed]:
        """The log from now on; never ends by itself."""
        ...

    async def log_level(self, level: str | None = None) -> str:
        """The least that is logged; a `level` sets it, until the next reload or start."""
        ...

    async def statistics(self, scale: Scale) -> Statistics:
        """How much happened, step by step."""
        ...

    async def configuration(self) -> Configuration:
        """What runs, secrets masked."""
        ...

    async def plugins(self) -> list[PluginStatus]:
        """All plugins of the configuration, in the order in which they are asked."""
        ...

    async def switch_plugin(self, name: str, *, enabled: bool) -> None:
        """Ask a plugin, or do not, from the next session on until the next reload or start.

        Raises:
            UnknownError: there is none of this name.
        """
        ...

    async def explain(self, hypothesis: Hypothesis) -> Explanation:
        """What would become of a message; nothing is changed, and nobody is told."""
        ...

    async def why(self, id: MessageId) -> Explanation:  # noqa: A002 # the word of people
        """Why a message is where it is, and when it goes on.

        Raises:
            UnknownError: there is none of this id, or it is no longer remembered.
        """
        ...

    async def submit(self, submission: Submission) -> Submitted:
        """Take a message in, as if who asks had logged in and sent it by SMTP.

        Raises:
            RequestError: it is refused; the place is e.g. ``recipients[1]``.
            UnavailableError: not now.
        """
        ...

    async def metrics(self) -> list[Metric]:
        """All that Prometheus is told."""
        ...
