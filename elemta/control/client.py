"""The running server as the other end of its control socket sees it: `Control`, over the wire."""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
import trio

from elemta.config import ConfigError
from elemta.control import messages as wire
from elemta.control.framing import MAX_ANSWER, Lines, decode_answer, encode
from elemta.control.interface import (
    ControlError,
    ForbiddenError,
    RequestError,
    UnavailableError,
    UnknownError,
)
from elemta.control.place import reachable
from elemta.queue import Missed

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
    from elemta.control.interface import Happening, Saved, Status
    from elemta.queue import (
        Action,
        Destination,
        Filter,
        Finding,
        Message,
        MessageId,
        QueueEvent,
        Stats,
        Suspension,
        Tally,
        Timeline,
    )

#: Seconds for the connection: it is this machine.
PATIENCE: Final = 10.0
#: Octets that are read at a time.
PIECE: Final = 65536

T = TypeVar("T")

_ERRORS: Final[dict[wire.Refusal, type[ControlError]]] = {
    wire.Refusal.REQUEST: RequestError,
    wire.Refusal.UNKNOWN: UnknownError,
    wire.Refusal.UNAVAILABLE: UnavailableError,
    wire.Refusal.FORBIDDEN: ForbiddenError,
}


class NotRunningError(ControlError):
    """Nobody listens at the control socket."""


@asynccontextmanager
async def connect(path: Path) -> AsyncGenerator[Client]:
    """Reach the server whose control socket this is.

    Raises:
        NotRunningError: there is none.
        ForbiddenError: its socket is not for us.
        UnavailableError: it does not answer.
    """
    try:
        with trio.fail_after(PATIENCE), reachable(path) as name:
            stream = await trio.open_unix_socket(name)
    except (FileNotFoundError, ConnectionRefusedError):
        raise NotRunningError(f"the server is down: nobody listens at {path}") from None
    except PermissionError:
        raise ForbiddenError(f"you may not use {path}: become its owner, or root") from None
    except trio.TooSlowError:
        raise UnavailableError(f"the server does not answer at {path}") from None
    except OSError as error:
        raise UnavailableError(f"{path}: {error.strerror or error}") from None
    async with stream:
        yield Client(stream)


class Client:
    """A server, as it is steered through a stream. See `Control` for what each call does.

    Asks one thing at a time. A generator that is closed early ends the connection with it.

    Raises:
        UnavailableError: the server went away.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._lines = Lines(MAX_ANSWER)

    async def speak_for(self, who: str) -> None:
        """Steer in another's name from now on.

        Raises:
            RequestError: we may not.
        """
        await self._all(wire.SpeakFor(who=who), wire.Done)

    async def status(self) -> Status:
        """See `Control`."""
        return (await self._one(wire.AskStatus(), wire.Told)).status

    async def search(
        self,
        filter: Filter,  # noqa: A002 # the word of people
        *,
        limit: int = 100,
        after: MessageId | None = None,
        newest: bool = False,
    ) -> list[Message]:
        """See `Control`; of whatever limit."""
        found: list[Message] = []
        while limit > 0:
            ask = wire.Search(
                filter=filter, limit=min(limit, wire.PAGE), after=after, newest=newest
            )
            page = [answer.message for answer in await self._all(ask, wire.Found)]
            found += page
            limit -= ask.limit
            if len(page) < ask.limit:
                break
            after = page[-1].id
        return found

    async def timeline(self, id: MessageId) -> Timeline:  # noqa: A002 # the word of people
        """See `Control`."""
        return (await self._one(wire.AskTimeline(id=id), wire.Story)).timeline

    async def raw(self, id: MessageId) -> AsyncGenerator[bytes]:  # noqa: A002 # the word of people
        """See `Control`."""
        async with aclosing(self._answers(wire.AskRaw(id=id), wire.Piece)) as pieces:
            async for piece in pieces:
                yield piece.content

    async def stats(self) -> Stats:
        """See `Control`."""
        return (await self._one(wire.AskStats(), wire.Fullness)).stats

    async def destinations(self) -> list[Destination]:
        """See `Control`."""
        return (await self._one(wire.AskDestinations(), wire.Destinations)).destinations

    async def count(self, filter: Filter) -> Tally:  # noqa: A002 # the word of people
        """See `Control`."""
        return _there((await self._one(wire.Count(filter=filter), wire.Counted)).tally)

    async def act(
        self,
        action: Action,
        filter: Filter,  # noqa: A002 # the word of people
        *,
        reason: str = "",
        dry_run: bool = False,
    ) -> Tally:
        """See `Control`."""
        ask = wire.Act(action=action, filter=filter, reason=reason, dry_run=dry_run)
        return _there((await self._one(ask, wire.Counted)).tally)

    async def suspend(
        self, scope: str, *, reason: str = "", until: float | None = None, dry_run: bool = False
    ) -> Tally | None:
        """See `Control`."""
        ask = wire.Suspend(scope=scope, reason=reason, until=until, dry_run=dry_run)
        return (await self._one(ask, wire.Counted)).tally

    async def resume(self, scope: str, *, dry_run: bool = False) -> Tally | None:
        """See `Control`."""
        return (await self._one(wire.Resume(scope=scope, dry_run=dry_run), wire.Counted)).tally

    async def suspensions(self) -> list[Suspension]:
        """See `Control`."""
        return (await self._one(wire.AskSuspensions(), wire.Suspensions)).suspensions

    async def events(self, since: int | None = None) -> AsyncGenerator[Happening]:
        """See `Control`."""
        async with aclosing(self._answers(wire.Watch(since=since), wire.Happened)) as events:
            async for answer in events:
                yield answer.event

    async def reload(self, *, dry_run: bool = False) -> tuple[Change, ...]:
        """See `Control`."""
        return (await self._one(wire.Reload(dry_run=dry_run), wire.Changed)).changes

    async def check(self) -> list[Finding]:
        """See `Control`."""
        return (await self._one(wire.Check(), wire.Findings)).findings

    async def backup(self, target: Path) -> Saved:
        """See `Control`."""
        return (await self._one(wire.Backup(target=str(target)), wire.Copied)).saved

    async def sessions(self) -> list[SessionStatus]:
        """See `Control`."""
        return (await self._one(wire.AskSessions(), wire.Sessions)).sessions

    async def transcripts(self, id: MessageId) -> list[Transcript]:  # noqa: A002 # the word of people
        """See `Control`."""
        answers = await self._all(wire.AskTranscripts(id=id), wire.Recorded)
        return [answer.transcript for answer in answers]

    async def trace(self, filter: TraceFilter) -> AsyncGenerator[Spoken | Missed]:  # noqa: A002 # the word of people
        """See `Control`."""
        async with aclosing(self._answers(wire.Trace(filter=filter), wire.Overheard)) as lines:
            async for answer in lines:
                yield answer.line

    async def failures(self, *, limit: int = 100) -> list[QueueEvent]:
        """See `Control`."""
        answers = await self._all(wire.AskFailures(limit=limit), wire.Happened)
        return [answer.event for answer in answers if not isinstance(answer.event, Missed)]

    async def log(self, *, level: str = "debug", limit: int = 100) -> list[LogEntry]:
        """See `Control`."""
        answers = await self._all(wire.AskLog(level=level, limit=limit), wire.Logged)
        return [answer.entry for answer in answers if not isinstance(answer.entry, Missed)]

    async def follow(self, *, level: str = "debug") -> AsyncGenerator[LogEntry | Missed]:
        """See `Control`."""
        async with aclosing(self._answers(wire.Follow(level=level), wire.Logged)) as entries:
            async for answer in entries:
                yield answer.entry

    async def log_level(self, level: str | None = None) -> str:
        """See `Control`."""
        return (await self._one(wire.AskLogLevel(level=level), wire.LogLevel)).level

    async def statistics(self, scale: Scale) -> Statistics:
        """See `Control`."""
        return (await self._one(wire.AskStatistics(scale=scale), wire.Summed)).statistics

    async def configuration(self) -> Configuration:
        """See `Control`."""
        return (await self._one(wire.AskConfiguration(), wire.Configured)).configuration

    async def plugins(self) -> list[PluginStatus]:
        """See `Control`."""
        return (await self._one(wire.AskPlugins(), wire.Plugins)).plugins

    async def switch_plugin(self, name: str, *, enabled: bool) -> None:
        """See `Control`."""
        await self._all(wire.SwitchPlugin(name=name, enabled=enabled), wire.Done)

    async def explain(self, hypothesis: Hypothesis) -> Explanation:
        """See `Control`."""
        ask = wire.Explain(hypothesis=hypothesis)
        return (await self._one(ask, wire.Explained)).explanation

    async def why(self, id: MessageId) -> Explanation:  # noqa: A002 # the word of people
        """See `Control`."""
        return (await self._one(wire.AskWhy(id=id), wire.Explained)).explanation

    async def submit(self, submission: Submission) -> Submitted:
        """See `Control`."""
        return (await self._one(wire.Submit(submission=submission), wire.Taken)).submitted

    async def metrics(self) -> list[Metric]:
        """See `Control`."""
        return (await self._one(wire.AskMetrics(), wire.Measured)).metrics

    async def _one(self, request: wire.Request, kind: type[T]) -> T:
        answers = await self._all(request, kind)
        if len(answers) != 1:
            raise UnavailableError(f"the server gives {len(answers)} answers to one question")
        return answers[0]

    async def _all(self, request: wire.Request, kind: type[T]) -> list[T]:
        async with aclosing(self._answers(request, kind)) as answers:
            return [answer async for answer in answers]

    async def _answers(self, request: wire.Request, kind: type[T]) -> AsyncGenerator[T]:
        """Ask, and give all answers but the last.

        Raises:
            ControlError, ConfigError: what the last one says.
        """
        ended = False
        try:
            await self._stream.send_all(encode(request))
            while True:
                octets = await self._stream.receive_some(PIECE)
                if not octets:
                    raise UnavailableError("the server went away")
                for line in self._lines.receive(bytes(octets)):
                    answer = _decoded(line)
                    if isinstance(answer, wire.Done):
                        ended = True
                        return
                    if isinstance(answer, wire.Refused):
                        ended = True
                        raise _error(answer)
                    if not isinstance(answer, kind):
                        raise UnavailableError(f"the server answers {type(answer).__name__}")
                    yield answer
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise UnavailableError("the server went away") from None
        finally:
            if not ended:  # what else it says belongs to nothing that will be asked
                await trio.aclose_forcefully(self._stream)


def _decoded(line: bytes | None) -> wire.Answer:
    try:
        return decode_answer(line or b"")
    except msgspec.DecodeError:
        raise UnavailableError(
            "the server answers what this command does not know: are they of one version?"
        ) from None


def _error(refused: wire.Refused) -> Exception:
    if refused.why is wire.Refusal.CONFIGURATION:
        return ConfigError(*refused.mistakes, where=refused.file)
    return _ERRORS.get(refused.why, ControlError)(refused.text, refused.place)


def _there(tally: Tally | None) -> Tally:
    if tally is None:
        raise UnavailableError("the server counts nothing")
    return tally
