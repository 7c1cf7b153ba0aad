"""The streams that there are: what their queries mean, and what they tell."""

from __future__ import annotations

from contextlib import aclosing
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Final, Generic, Protocol, TypeVar

from msgspec import Meta, Struct

from elemta.api.live.hub import Hub
from elemta.api.live.reader import EndedError
from elemta.api.live.source import Conversations, Events, Log
from elemta.api.problem import Fault, Problem
from elemta.api.reading import read_query, refused
from elemta.api.words import Level
from elemta.control.choice import TYPES, EventChoice, Everything
from elemta.control.facts import LogEntry, Spoken, TraceFilter
from elemta.queue import parse_id

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable

    import trio

    from elemta.api.live.batch import Batch
    from elemta.api.live.clients import Clients
    from elemta.api.live.hub import Spawn
    from elemta.api.live.source import Source
    from elemta.control.interface import Control
    from elemta.queue import QueueEvent

#: In whose name the server is listened to: for all clients at once.
OURSELVES: Final = "api"

K = TypeVar("K")
T = TypeVar("T")


class Stream(Protocol):
    """Something that can be listened to."""

    def tell(self, query: Iterable[tuple[str, str]], resumed: str | None) -> AsyncGenerator[Batch]:
        """What a client is told; never ends by itself.

        Args:
            query: its parameters.
            resumed: the header Last-Event-ID, if there is one; it is newer than a query's `since`.

        Raises:
            Problem: the query makes no sense; before anything was told.
            EndedError: the server stops, or has failed.
        """
        ...


class EventsQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``/v1/events`` may be asked.

    Attributes:
        type: names of events.
        domain: of recipients.
        id: of a message.
        since: the number of the last event that the client knows.
    """

    type: tuple[str, ...] = ()
    domain: Annotated[str, Meta(min_length=1, max_length=255)] | None = None
    id: str | None = None
    since: Annotated[int, Meta(ge=0)] | None = None


class LogQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``/v1/logs/live`` may be asked.

    Attributes:
        level: the least that is told.
    """

    level: Level = "debug"


class EventStream:
    """What happens in the queue."""

    def __init__(self, control: Control, spawn: Spawn, stopping: trio.Event) -> None:
        self._hub: Hub[QueueEvent] = Hub(Events(control), spawn, stopping)

    async def tell(
        self, query: Iterable[tuple[str, str]], resumed: str | None
    ) -> AsyncGenerator[Batch]:
        """See `Stream`."""
        asked = read_query(query, EventsQuery)
        since = asked.since if resumed is None else _number(resumed)
        async with aclosing(self._hub.tell(_choice(asked), since)) as told:
            async for batch in told:
                yield batch


class _HubForEach(Generic[K, T]):
    """A hub for each thing that is asked for; what is asked for is chosen by the server itself."""

    def __init__(
        self, source: Callable[[K], Source[T]], spawn: Spawn, stopping: trio.Event
    ) -> None:
        self._source = source
        self._spawn = spawn
        self._stopping = stopping
        self._hubs: dict[K, Hub[T]] = {}

    async def tell(self, asked: K) -> AsyncGenerator[Batch]:
        hub = self._hubs.get(asked)
        if hub is None:
            hub = self._hubs[asked] = Hub(self._source(asked), self._spawn, self._stopping)
        try:
            async with aclosing(hub.tell(Everything())) as told:
                async for batch in told:
                    yield batch
        finally:
            if hub.idle and self._hubs.get(asked) is hub:
                del self._hubs[asked]


class TraceStream:
    """What is said to clients and by them, and to other servers."""

    def __init__(self, control: Control, spawn: Spawn, stopping: trio.Event) -> None:
        self._hubs: _HubForEach[TraceFilter, Spoken] = _HubForEach(
            lambda meant: Conversations(control, meant), spawn, stopping
        )

    async def tell(
        self, query: Iterable[tuple[str, str]], resumed: str | None
    ) -> AsyncGenerator[Batch]:
        """See `Stream`. Lines have no numbers, so none is resumed from."""
        async with aclosing(self._hubs.tell(read_query(query, TraceFilter))) as told:
            async for batch in told:
                yield batch


class LogStream:
    """What is logged."""

    def __init__(self, control: Control, spawn: Spawn, stopping: trio.Event) -> None:
        self._hubs: _HubForEach[str, LogEntry] = _HubForEach(
            lambda level: Log(control, level), spawn, stopping
        )

    async def tell(
        self, query: Iterable[tuple[str, str]], resumed: str | None
    ) -> AsyncGenerator[Batch]:
        """See `Stream`. Entries have no numbers, so none is resumed from."""
        async with aclosing(self._hubs.tell(read_query(query, LogQuery).level)) as told:
            async for batch in told:
                yield batch


async def admitted(told: AsyncGenerator[Batch], clients: Clients) -> AsyncGenerator[Batch]:
    """What a stream tells somebody who is one of the clients meanwhile.

    Raises:
        Problem: 503, there are enough clients; or, before anything was told, the server stops.
        EndedError: as the stream, once something was told.
    """
    with clients.place():
        begun = False
        async with aclosing(told):
            try:
                async for batch in told:
                    begun = True
                    yield batch
            except EndedError as error:
                if begun:
                    raise
                raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from None


def _choice(asked: EventsQuery) -> EventChoice:
    faults = [
        Fault("type", f"there is no event {name[:50]!r}; there are {', '.join(sorted(TYPES))}")
        for name in asked.type
        if name not in TYPES
    ]
    id_ = asked.id
    if id_ is not None and (id_ := parse_id(id_)) is None:
        faults.append(Fault("id", "expected the id of a message"))
    if faults:
        raise refused(*faults)
    domain = None if asked.domain is None else asked.domain.lower()
    return EventChoice(types=frozenset(asked.type), domain=domain, id=id_)


def _number(text: str) -> int:
    """The number in a header Last-Event-ID, which is whatever we sent last."""
    if text.isascii() and text.isdigit() and len(text) < 20:
        return int(text)
    raise refused(Fault("Last-Event-ID", "expected the number of an event"))
