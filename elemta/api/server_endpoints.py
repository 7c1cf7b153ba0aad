"""The server: how it is, what it did, what it would do, and how it is set up."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

import msgspec
from msgspec import Meta, Struct, field

from elemta.api.endpoint import Asked, Endpoint, Nothing, endpoint
from elemta.api.problem import Fault
from elemta.api.reading import refused
from elemta.api.schema import Change, Failure, Status, change_of, failure_of, status_of
from elemta.api.visit import Scope
from elemta.api.words import Address, Level, Needle, Sender, Size, mailbox, reverse_path
from elemta.control.facts import (
    Configuration,
    Explanation,
    Hypothesis,
    LogEntry,
    PluginStatus,
    Scale,
    SessionStatus,
    Statistics,
    asked_in_order,
)
from elemta.queue import Deferred, Expired, Failed

if TYPE_CHECKING:
    from elemta.control.interface import Control

#: Entries of a list at most.
Many: TypeAlias = Annotated[int, Meta(ge=1, le=1000)]


class Period(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far to look back.

    Attributes:
        scale: an hour by minutes, a day by hours, a week or a month by days.
    """

    scale: Scale = Scale.HOUR


class Some(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many.

    Attributes:
        limit: entries at most.
    """

    limit: Many = 100


class Levelled(Some, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which, and how many.

    Attributes:
        level: of at least this level.
    """

    level: Level = "debug"


class Question(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A message that may come, or not.

    Attributes:
        to: its recipient.
        from: its sender; none, or ``<>``: the null sender.
        client: the IP address that it comes from.
        helo: what the client calls itself.
        login: who is logged in.
        listener: where it comes in; none: the first, or with a login the first that lets people
            log in.
        size: octets.
    """

    to: Address
    from_: Sender | None = field(default=None, name="from")
    client: Needle = "127.0.0.1"
    helo: Needle = "localhost"
    login: Needle | None = None
    listener: Needle | None = None
    size: Size = 0


class Failures(Struct, frozen=True):
    """Attempts that failed.

    Attributes:
        errors: the newest first.
    """

    errors: list[Failure]


class Sessions(Struct, frozen=True):
    """Who is connected.

    Attributes:
        sessions: in and out, the oldest first.
    """

    sessions: list[SessionStatus]


class Entries(Struct, frozen=True):
    """What was logged.

    Attributes:
        entries: the newest last.
    """

    entries: list[LogEntry]


class LogLevel(Struct, frozen=True, forbid_unknown_fields=True):
    """The least that is logged.

    Attributes:
        level: of these.
    """

    level: Level


class Changes(Struct, frozen=True):
    """What differs from what runs.

    Attributes:
        changes: a value each.
    """

    changes: list[Change]


class Plugins(Struct, frozen=True):
    """All plugins of the configuration.

    Attributes:
        plugins: in the order in which they are asked.
        order: by hook, in the order in which hooks are asked: the names of those plugins that are,
            first to last. Those that inspect are asked side by side.
    """

    plugins: list[PluginStatus]
    order: dict[str, list[str]]


class Switch(Struct, frozen=True, forbid_unknown_fields=True):
    """Whether a plugin is asked.

    Attributes:
        enabled: it is.
    """

    enabled: bool


@endpoint(
    "GET",
    "/v1/status",
    scope=Scope.READ,
    query=Nothing,
    body=Nothing,
    answer=Status,
    tag="server",
)
async def status(asked: Asked[Nothing, Nothing]) -> Status:
    """How the server is."""
    return status_of(await asked.control.status())


@endpoint(
    "GET",
    "/v1/statistics",
    scope=Scope.READ,
    query=Period,
    body=Nothing,
    answer=Statistics,
    tag="server",
)
async def statistics(asked: Asked[Period, Nothing]) -> Statistics:
    """How much happened, step by step."""
    return await asked.control.statistics(asked.query.scale)


@endpoint(
    "GET",
    "/v1/errors",
    scope=Scope.READ,
    query=Some,
    body=Nothing,
    answer=Failures,
    tag="server",
)
async def errors(asked: Asked[Some, Nothing]) -> Failures:
    """The last attempts that failed, for now or for good."""
    found = await asked.control.failures(limit=asked.query.limit)
    kinds = (Deferred, Failed, Expired)
    return Failures([failure_of(each) for each in found if isinstance(each, kinds)])


@endpoint(
    "GET",
    "/v1/sessions",
    scope=Scope.READ,
    query=Nothing,
    body=Nothing,
    answer=Sessions,
    tag="server",
)
async def sessions(asked: Asked[Nothing, Nothing]) -> Sessions:
    """Who is connected now, in and out."""
    return Sessions(await asked.control.sessions())


@endpoint(
    "GET",
    "/v1/explain",
    scope=Scope.READ,
    query=Question,
    body=Nothing,
    answer=Explanation,
    tag="server",
    costly=True,
)
async def explain(asked: Asked[Question, Nothing]) -> Explanation:
    """What would become of a message.

    Each decision is taken by the same code as for a real one; nothing is changed, and nobody is
    told.
    """
    query = asked.query
    try:
        client = ip_address(query.client)
    except ValueError:
        raise refused(Fault("client", "expected an IP address")) from None
    return await asked.control.explain(
        Hypothesis(
            recipient=mailbox(query.to, "to"),
            sender=reverse_path(query.from_, "from"),
            client=str(client),
            helo=query.helo,
            login=query.login,
            listener=query.listener,
            size=query.size,
        )
    )


@endpoint(
    "GET",
    "/v1/logs",
    scope=Scope.READ,
    query=Levelled,
    body=Nothing,
    answer=Entries,
    tag="logs",
)
async def logs(asked: Asked[Levelled, Nothing]) -> Entries:
    """The last events of the log."""
    query = asked.query
    return Entries(await asked.control.log(level=query.level, limit=query.limit))


@endpoint(
    "GET",
    "/v1/logs/level",
    scope=Scope.READ,
    query=Nothing,
    body=Nothing,
    answer=LogLevel,
    tag="logs",
)
async def log_level(asked: Asked[Nothing, Nothing]) -> LogLevel:
    """The least that is logged."""
    return _level(await asked.control.log_level())


@endpoint(
    "PUT",
    "/v1/logs/level",
    scope=Scope.ADMIN,
    query=Nothing,
    body=LogLevel,
    answer=LogLevel,
    tag="logs",
)
async def set_log_level(asked: Asked[Nothing, LogLevel]) -> LogLevel:
    """Log more, or less.

    It holds until the next reload or start.
    """
    return _level(await asked.control.log_level(asked.body.level))


@endpoint(
    "GET",
    "/v1/configuration",
    scope=Scope.READ,
    query=Nothing,
    body=Nothing,
    answer=Configuration,
    tag="configuration",
)
async def configuration(asked: Asked[Nothing, Nothing]) -> Configuration:
    """What runs, secrets masked, defaults filled in."""
    return await asked.control.configuration()


@endpoint(
    "POST",
    "/v1/configuration/check",
    scope=Scope.ADMIN,
    query=Nothing,
    body=Nothing,
    answer=Changes,
    tag="configuration",
)
async def check(asked: Asked[Nothing, Nothing]) -> Changes:
    """Read the configuration file again, and say what a reload would change.

    A mistake in it is a problem with a fault for each.
    """
    asked.promise_no_change()
    return Changes([change_of(each) for each in await asked.control.reload(dry_run=True)])


@endpoint(
    "POST",
    "/v1/configuration/reload",
    scope=Scope.ADMIN,
    query=Nothing,
    body=Nothing,
    answer=Changes,
    tag="configuration",
)
async def reload(asked: Asked[Nothing, Nothing]) -> Changes:
    """Read the configuration file again, and take over what can change while mail flows.

    A mistake in it is a problem with a fault for each, and nothing has changed.
    """
    return Changes([change_of(each) for each in await asked.control.reload()])


@endpoint(
    "GET",
    "/v1/plugins",
    scope=Scope.READ,
    query=Nothing,
    body=Nothing,
    answer=Plugins,
    tag="plugins",
)
async def plugins(asked: Asked[Nothing, Nothing]) -> Plugins:
    """All plugins of the configuration, and whether they are asked."""
    return await _plugins(asked.control)


@endpoint(
    "PUT",
    "/v1/plugins/{name}",
    scope=Scope.ADMIN,
    query=Nothing,
    body=Switch,
    answer=Plugins,
    tag="plugins",
)
async def switch_plugin(asked: Asked[Nothing, Switch]) -> Plugins:
    """Ask a plugin, or do not.

    It holds from the next session on, until the next reload or start.
    """
    await asked.control.switch_plugin(asked.path["name"], enabled=asked.body.enabled)
    return await _plugins(asked.control)


async def _plugins(control: Control) -> Plugins:
    found = await control.plugins()
    return Plugins(found, asked_in_order(found))


def _level(word: str) -> LogLevel:
    return msgspec.convert({"level": word}, LogLevel)


ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    status,
    statistics,
    errors,
    sessions,
    explain,
    logs,
    log_level,
    set_log_level,
    configuration,
    check,
    reload,
    plugins,
    switch_plugin,
)
