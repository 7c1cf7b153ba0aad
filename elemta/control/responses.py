"""Which call of `Control` a request stands for, and what its results are called on the wire."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, assert_never

from elemta.control import messages as wire

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from elemta.control.interface import Control
    from elemta.control.messages import Answer, Question

#: What is asked of the server, rather than of its queue.
Insight: TypeAlias = (
    wire.AskSessions
    | wire.AskTranscripts
    | wire.Trace
    | wire.AskFailures
    | wire.AskLog
    | wire.Follow
    | wire.AskLogLevel
    | wire.AskStatistics
    | wire.AskConfiguration
    | wire.AskPlugins
    | wire.SwitchPlugin
    | wire.Explain
    | wire.AskWhy
    | wire.Submit
    | wire.AskMetrics
)

#: Hands an answer to the client; returns when there is room for more.
Give: TypeAlias = "Callable[[Answer], Awaitable[None]]"
#: Does what is asked of a server, and gives all answers but the last: `respond`, or what stands
#: before it.
Respond: TypeAlias = "Callable[[Question, Control, Give], Awaitable[None]]"


async def respond(request: Question, control: Control, give: Give) -> None:
    """Do what is asked, and give all answers but the last, which says how it ended.

    Raises:
        As `Control`, and `give`.
    """
    match request:
        case wire.AskStatus():
            await give(wire.Told(status=await control.status()))
        case wire.Search(filter=filter_, limit=limit, after=after, newest=newest):
            found = await control.search(filter_, limit=limit, after=after, newest=newest)
            for message in found:
                await give(wire.Found(message=message))
        case wire.AskTimeline(id=id_):
            await give(wire.Story(timeline=await control.timeline(id_)))
        case wire.AskRaw(id=id_):
            async with aclosing(control.raw(id_)) as pieces:
                async for piece in pieces:
                    await give(wire.Piece(content=piece))
        case wire.AskStats():
            await give(wire.Fullness(stats=await control.stats()))
        case wire.AskDestinations():
            await give(wire.Destinations(destinations=await control.destinations()))
        case wire.AskSuspensions():
            await give(wire.Suspensions(suspensions=await control.suspensions()))
        case wire.Watch(since=since):
            async with aclosing(control.events(since)) as events:
                async for event in events:
                    await give(wire.Happened(event=event))
        case wire.Check():
            await give(wire.Findings(findings=await control.check()))
        case wire.Count(filter=filter_):
            await give(wire.Counted(tally=await control.count(filter_)))
        case wire.Backup(target=target):
            await give(wire.Copied(saved=await control.backup(Path(target))))
        case wire.Act() | wire.Suspend() | wire.Resume() | wire.Reload():
            await give(await _done(request, control))
        case _:
            await _tell(request, control, give)


async def _tell(request: Insight, control: Control, give: Give) -> None:
    """Answer what is asked of the server, rather than of its queue."""
    match request:
        case wire.AskSessions():
            await give(wire.Sessions(sessions=await control.sessions()))
        case wire.AskTranscripts(id=id_):
            for each in await control.transcripts(id_):
                await give(wire.Recorded(transcript=each))
        case wire.Trace(filter=filter_):
            async with aclosing(control.trace(filter_)) as lines:
                async for line in lines:
                    await give(wire.Overheard(line=line))
        case wire.AskFailures(limit=limit):
            for failure in await control.failures(limit=limit):
                await give(wire.Happened(event=failure))
        case wire.AskLog(level=level, limit=limit):
            for entry in await control.log(level=level, limit=limit):
                await give(wire.Logged(entry=entry))
        case wire.Follow(level=level):
            async with aclosing(control.follow(level=level)) as entries:
                async for told in entries:
                    await give(wire.Logged(entry=told))
        case wire.AskLogLevel(level=wanted):
            await give(wire.LogLevel(level=await control.log_level(wanted)))
        case wire.AskStatistics(scale=scale):
            await give(wire.Summed(statistics=await control.statistics(scale)))
        case wire.AskConfiguration():
            await give(wire.Configured(configuration=await control.configuration()))
        case wire.AskPlugins():
            await give(wire.Plugins(plugins=await control.plugins()))
        case wire.SwitchPlugin(name=name, enabled=enabled):
            await control.switch_plugin(name, enabled=enabled)
        case wire.Explain(hypothesis=hypothesis):
            await give(wire.Explained(explanation=await control.explain(hypothesis)))
        case wire.AskWhy(id=id_):
            await give(wire.Explained(explanation=await control.why(id_)))
        case wire.Submit(submission=submission):
            await give(wire.Taken(submitted=await control.submit(submission)))
        case wire.AskMetrics():
            await give(wire.Measured(metrics=await control.metrics()))
        case _:
            assert_never(request)


async def _done(
    request: wire.Act | wire.Suspend | wire.Resume | wire.Reload, control: Control
) -> Answer:
    """Do what changes something."""
    match request:
        case wire.Act():
            return wire.Counted(
                tally=await control.act(
                    request.action,
                    request.filter,
                    reason=request.reason,
                    dry_run=request.dry_run,
                )
            )
        case wire.Suspend():
            tally = await control.suspend(
                request.scope, reason=request.reason, until=request.until, dry_run=request.dry_run
            )
            return wire.Counted(tally=tally)
        case wire.Resume():
            return wire.Counted(tally=await control.resume(request.scope, dry_run=request.dry_run))
        case wire.Reload():
            return wire.Changed(changes=await control.reload(dry_run=request.dry_run))
        case _:
            assert_never(request)
