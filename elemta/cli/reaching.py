"""Reaches the running server; with the server down, what its store says, read only."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import time
from contextlib import ExitStack, aclosing, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import click
import trio

from elemta.cli import codes, remotely
from elemta.cli.terminal import say
from elemta.config import ConfigError
from elemta.control.client import NotRunningError, connect
from elemta.control.interface import (
    ControlError,
    ForbiddenError,
    RequestError,
    UnavailableError,
    UnknownError,
)
from elemta.delivery.routing import Router
from elemta.nodes import folders, in_order, sum_stats
from elemta.queue import SpoolError, StoreReader, StoreUnavailable, check

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
    from pathlib import Path

    from elemta.config import Config
    from elemta.control.interface import Control
    from elemta.queue import Filter, Finding, Message, MessageId, Stats, Timeline

T = TypeVar("T")

_CODES: Final[dict[type[ControlError], int]] = {
    RequestError: codes.USAGE,
    UnknownError: codes.NOT_FOUND,
    UnavailableError: codes.TRY_LATER,
    NotRunningError: codes.UNAVAILABLE,
    ForbiddenError: codes.FORBIDDEN,
}


class Looks(Protocol):
    """The part of `Control` that works with the server down, too."""

    async def search(
        self,
        filter: Filter,  # noqa: A002 # the word of people
        *,
        limit: int = 100,
        after: MessageId | None = None,
        newest: bool = False,
    ) -> list[Message]:
        """See `Control`."""
        ...

    async def timeline(self, id: MessageId) -> Timeline:  # noqa: A002 # the word of people
        """See `Control`."""
        ...

    def raw(self, id: MessageId) -> AsyncGenerator[bytes]:  # noqa: A002 # the word of people
        """See `Control`."""
        ...

    async def stats(self) -> Stats:
        """See `Control`."""
        ...

    async def check(self) -> list[Finding]:
        """See `Control`."""
        ...


def look(config: Config, ask: Callable[[Looks], Awaitable[int]]) -> int:
    """Ask the server, or else its store; returns the exit code that `ask` returns, or why not."""

    async def run() -> int:
        async with _looking(config) as server:
            return await ask(server)

    return running(run)


def steer(config: Config, ask: Callable[[Control], Awaitable[int]]) -> int:
    """Ask the running server; returns the exit code that `ask` returns, or why not."""

    async def run() -> int:
        async with reached(config) as server:
            return await ask(server)

    return running(run)


@asynccontextmanager
async def reached(config: Config) -> AsyncGenerator[Control]:
    """The running server that the command is for: this machine's, or one elsewhere.

    Raises:
        ControlError: it cannot be reached.
    """
    elsewhere = remotely.chosen()
    if elsewhere is None:
        async with connect(config.control_socket) as server:
            yield server
    else:
        from elemta.control import remote  # a websocket is dear to import

        async with remote.connect(elsewhere) as server:
            yield server


@asynccontextmanager
async def _looking(config: Config) -> AsyncGenerator[Looks]:
    if remotely.chosen() is not None:
        async with reached(config) as server:
            yield server
        return
    try:
        async with connect(config.control_socket) as server:
            yield server
            return
    except NotRunningError:
        pass
    with ExitStack() as held:
        readers = {
            folder: held.enter_context(StoreReader(folder)) for folder in folders(config.data_dir)
        }
        yield Stores(config, readers)
    say("elemta: the server is down; its store says this", err=True)


class Stores:
    """The files of a server that is down: a queue for each node. Nothing runs beside these calls.

    Args:
        config: of the server.
        readers: of each queue, by its folder.
    """

    def __init__(self, config: Config, readers: Mapping[Path, StoreReader]) -> None:
        self._readers = readers
        self._router = Router(config)

    async def search(
        self,
        filter: Filter,  # noqa: A002 # the word of people
        *,
        limit: int = 100,
        after: MessageId | None = None,
        newest: bool = False,
    ) -> list[Message]:
        """See `Control`."""
        await trio.lowlevel.checkpoint()
        found = [
            reader.search(
                filter,
                limit=limit,
                after=after,
                newest=newest,
                now=time.time(),
                lane=self._router.lane,
            )
            for reader in self._readers.values()
        ]
        return in_order(found, limit, newest=newest)

    async def timeline(self, id: MessageId) -> Timeline:  # noqa: A002 # the word of people
        """See `Control`."""
        await trio.lowlevel.checkpoint()
        return self._find(id)[0]

    async def raw(self, id: MessageId) -> AsyncGenerator[bytes]:  # noqa: A002 # the word of people
        """See `Control`."""
        await trio.lowlevel.checkpoint()
        timeline, reader = self._find(id)
        if timeline.finished_at is not None:
            raise UnknownError(f"{id} is finished, and its content gone")
        body = await reader.open_body(timeline.message, _in_thread)
        async with aclosing(body.chunks()) as pieces:
            async for piece in pieces:
                yield piece

    async def stats(self) -> Stats:
        """See `Control`."""
        await trio.lowlevel.checkpoint()
        return sum_stats([reader.stats() for reader in self._readers.values()])

    async def check(self) -> list[Finding]:
        """See `Control`."""
        found: list[Finding] = []
        for folder in self._readers:
            found += await trio.to_thread.run_sync(partial(check, folder))
        return found

    def _find(self, id: MessageId) -> tuple[Timeline, StoreReader]:  # noqa: A002 # the word of people
        for reader in self._readers.values():
            if (timeline := reader.timeline(id)) is not None:
                return timeline, reader
        raise UnknownError(f"no message {id!r}, or it is no longer remembered")


async def _in_thread(call: Callable[[], T]) -> T:
    return await trio.to_thread.run_sync(call)


def running(ask: Callable[[], Awaitable[int]]) -> int:
    """Run it; returns the exit code that it returns, or why not, having said so."""
    try:
        return trio.run(ask)
    except ConfigError as error:
        for each in str(error).splitlines():
            say(each, err=True)
        return codes.MISCONFIGURED
    except ControlError as error:
        place = f"{error.place}: " if error.place else ""
        say(f"elemta: {place}{error}", err=True)
        return _CODES.get(type(error), codes.FAULT)
    except BrokenPipeError:  # who reads has enough, as `head` does: no trouble of anybody's
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # for what is flushed at exit
        return 128 + signal.SIGPIPE
    except (SpoolError, StoreUnavailable, sqlite3.Error, OSError) as error:
        say(f"elemta: {error}", err=True)
        return codes.UNREADABLE
    except KeyboardInterrupt:
        click.echo(err=True)
        return 130  # as a shell has it: 128 and the number of SIGINT
