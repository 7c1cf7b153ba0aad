"""Reaches the running server; with the server down, what its store says, read only."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from contextlib import asynccontextmanager
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
from elemta.queue import SpoolError, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

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
    from elemta.cli.stores import opened  # whom the server answers need not wait for routes and DNS

    with opened(config) as stores:
        yield stores
    say("elemta: the server is down; its store says this", err=True)


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
