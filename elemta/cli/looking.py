"""Looks at the queue, whether the server runs or not."""

from __future__ import annotations

import sys
import time
from contextlib import aclosing
from typing import TYPE_CHECKING

import click

from elemta.cli import codes
from elemta.cli.inspection import fullness, history, line, story
from elemta.cli.reaching import look
from elemta.cli.terminal import counted, printable, say, say_json
from elemta.control import plain

if TYPE_CHECKING:
    from collections.abc import Iterable

    from elemta.cli.choice import Chosen
    from elemta.cli.reaching import Looks
    from elemta.config import Config


def show_list(config: Config, chosen: Chosen, *, limit: int, newest: bool, as_json: bool) -> int:
    """Print a line for each message that is meant; returns the exit code."""
    meant = chosen.filter()

    async def run(server: Looks) -> int:
        found = await server.search(meant, limit=limit, newest=newest)
        if as_json:
            say_json([plain.message(each) for each in found])
            return 0
        now = time.time()
        _say_all(line(message, now) for message in found)
        if not found:
            say("nothing of that kind" if chosen.anything else "nothing waits")
        elif len(found) == limit:
            say(f"… and perhaps more: these are the first {limit} (--limit)")
        return 0

    return look(config, run)


def show_message(config: Config, id_: str, *, by_time: bool, as_json: bool) -> int:
    """Print all that is known of one message; returns the exit code."""

    async def run(server: Looks) -> int:
        timeline = await server.timeline(id_)
        if as_json:
            say_json(plain.timeline(timeline))
        else:
            _say_all((history if by_time else story)(timeline, time.time()))
        return 0

    return look(config, run)


def show_content(config: Config, id_: str) -> int:
    """Write the content of a message; returns the exit code.

    Octet for octet, but for a terminal, which what a peer said must not control.
    """
    for_people = sys.stdout.isatty()

    async def run(server: Looks) -> int:
        async with aclosing(server.raw(id_)) as pieces:
            rest = b""
            async for piece in pieces:
                if not for_people:
                    click.echo(piece, nl=False)
                    continue
                *lines, rest = (rest + piece).split(b"\r\n")
                _say_all(each.decode(errors="backslashreplace") for each in lines)
            if rest:
                say(rest.decode(errors="backslashreplace"))
        return 0

    return look(config, run)


def show_stats(config: Config, *, as_json: bool) -> int:
    """Print how many wait, and for how long; returns the exit code."""

    async def run(server: Looks) -> int:
        stats = await server.stats()
        if as_json:
            say_json(plain.stats(stats))
        else:
            _say_all(fullness(stats, time.time()))
        return 0

    return look(config, run)


def show_findings(config: Config, *, as_json: bool) -> int:
    """Print what is wrong with the queue's files; returns the exit code."""

    async def run(server: Looks) -> int:
        found = await server.check()
        if as_json:
            say_json([{"where": each.where, "what": each.what} for each in found])
        else:
            _say_all(f"{each.where}: {each.what}" for each in found)
            say(counted(len(found), "finding") if found else "the queue is whole")
        return codes.DAMAGED if found else 0

    return look(config, run)


def _say_all(lines: Iterable[str]) -> None:
    for each in lines:
        click.echo(printable(each))
