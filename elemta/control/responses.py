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

#: Hands an answer to the client; returns when there is room for more.
Give: TypeAlias = "Callable[[Answer], Awaitable[None]]"


async def respond(request: Question, control: Control, give: Give) -> None:
    """Do what is asked, and give all answers but the last, which says how it ended.

    Raises:
        As `Control`, and `give`.
    """
    match request:
        case wire.AskStatus():
            await give(wire.Told(status=await control.status()))
        case wire.Search(filter=filter_, limit=limit, after=after):
            for message in await control.search(filter_, limit=limit, after=after):
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
