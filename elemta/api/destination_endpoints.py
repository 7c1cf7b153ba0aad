"""Where mail goes, and what of that is stopped."""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

from msgspec import Meta, Struct, field

from elemta.api.endpoint import Asked, Endpoint, Nothing, endpoint
from elemta.api.patterns import SCOPE
from elemta.api.problem import Fault
from elemta.api.reading import refused
from elemta.api.schema import Suspension, Tally, suspension_of, tally_of
from elemta.api.visit import Scope
from elemta.api.words import Age, Moment, Needle, Text
from elemta.queue import Destination, Filter, Retry
from elemta.queue import Tally as Sum

#: What can be suspended.
ScopeText: TypeAlias = Annotated[str, Meta(max_length=1000, pattern=SCOPE)]


class Destinations(Struct, frozen=True):
    """Where mail goes.

    Attributes:
        destinations: where mail stands ready to go, or cannot go just now.
    """

    destinations: list[Destination]


class Suspensions(Struct, frozen=True):
    """What is suspended.

    Attributes:
        suspensions: each scope.
    """

    suspensions: list[Suspension]


class Suspend(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be suspended.

    Attributes:
        scope: ``all``, ``destination:LANE`` or ``domain:NAME``.
        reason: for people.
        for: seconds until it ends by itself. Neither this nor `until`: until it is resumed.
        until: when it ends by itself, seconds since the epoch.
        dry_run: count what waits there, and do nothing.
    """

    scope: ScopeText
    reason: Text = ""
    for_: Age | None = field(default=None, name="for")
    until: Moment | None = None
    dry_run: bool = False


class Resume(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is no longer to be suspended.

    Attributes:
        scope: as it was suspended.
        dry_run: count what waits there, and do nothing.
    """

    scope: ScopeText
    dry_run: bool = False


class Flush(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be tried now.

    Attributes:
        destination: a lane's name, as in the list of destinations.
        reason: for people.
        dry_run: count, and do nothing.
    """

    destination: Needle
    reason: Text = ""
    dry_run: bool = False


class Scoped(Struct, frozen=True, kw_only=True):
    """What was done to a scope, or would be.

    Attributes:
        scope: which.
        dry_run: nothing was done.
        tally: what waits there, of a dry run.
    """

    scope: str
    dry_run: bool
    tally: Tally | None


@endpoint(
    "GET",
    "/v1/destinations",
    scope=Scope.READ,
    query=Nothing,
    body=Nothing,
    answer=Destinations,
    tag="destinations",
)
async def destinations(asked: Asked[Nothing, Nothing]) -> Destinations:
    """Where mail stands ready to go, or cannot go just now."""
    return Destinations(await asked.control.destinations())


@endpoint(
    "GET",
    "/v1/suspensions",
    scope=Scope.READ,
    query=Nothing,
    body=Nothing,
    answer=Suspensions,
    tag="destinations",
)
async def suspensions(asked: Asked[Nothing, Nothing]) -> Suspensions:
    """What is suspended."""
    return Suspensions([suspension_of(each) for each in await asked.control.suspensions()])


def _scoped(wanted: Suspend | Resume, done: Sum | None) -> Scoped:
    return Scoped(
        scope=wanted.scope,
        dry_run=wanted.dry_run,
        tally=None if done is None else tally_of(done, dry_run=True),
    )


@endpoint(
    "POST",
    "/v1/destinations/suspend",
    scope=Scope.OPERATE,
    query=Nothing,
    body=Suspend,
    answer=Scoped,
    tag="destinations",
    example=Suspend(scope="domain:example.net", reason="maintenance", for_=3600),
)
async def suspend(asked: Asked[Nothing, Suspend]) -> Scoped:
    """Send nothing to a scope.

    Mail is still taken for it, and given up when its time is over.
    """
    wanted = asked.body
    until = wanted.until
    if wanted.for_ is not None:
        if until is not None:
            raise refused(Fault("until", "say either `for` or `until`"))
        until = asked.site.clock() + wanted.for_
    done = await asked.control.suspend(
        wanted.scope, reason=wanted.reason, until=until, dry_run=wanted.dry_run
    )
    return _scoped(wanted, done)


@endpoint(
    "POST",
    "/v1/destinations/resume",
    scope=Scope.OPERATE,
    query=Nothing,
    body=Resume,
    answer=Scoped,
    tag="destinations",
    problems=(404,),
    example=Resume(scope="domain:example.net"),
)
async def resume(asked: Asked[Nothing, Resume]) -> Scoped:
    """End a suspension."""
    wanted = asked.body
    done = await asked.control.resume(wanted.scope, dry_run=wanted.dry_run)
    return _scoped(wanted, done)


@endpoint(
    "POST",
    "/v1/destinations/flush",
    scope=Scope.OPERATE,
    query=Nothing,
    body=Flush,
    answer=Tally,
    tag="destinations",
    example=Flush(destination="mx:example.net"),
    costly=True,
)
async def flush(asked: Asked[Nothing, Flush]) -> Tally:
    """Try now whatever waits for a destination.

    Nothing is deleted.
    """
    wanted = asked.body
    done = await asked.control.act(
        Retry(),
        Filter(destination=wanted.destination),
        reason=wanted.reason,
        dry_run=wanted.dry_run,
    )
    return tally_of(done, dry_run=wanted.dry_run)


ENDPOINTS: Final[tuple[Endpoint, ...]] = (destinations, suspensions, suspend, resume, flush)
