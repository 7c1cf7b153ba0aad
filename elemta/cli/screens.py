"""Shows what moves: the server's status, its destinations, and events as they happen."""

from __future__ import annotations

import re
import shutil
import sys
import time
from contextlib import aclosing
from itertools import islice
from typing import TYPE_CHECKING, Final

import click
import trio

from elemta.cli.reaching import steer
from elemta.cli.terminal import clock, counted, printable, say, say_json, span
from elemta.control import plain
from elemta.control.facts import Scale
from elemta.queue import Missed, State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from elemta.config import Config
    from elemta.control.facts import Statistics
    from elemta.control.interface import Control, Happening, Status
    from elemta.control.plain import Value
    from elemta.queue import Destination

#: Kinds of events that statistics show, even if there were none.
_USUAL: Final = ("queued", "delivered", "deferred", "failed", "expired")
#: What is a moment among the words of an event.
_TIMES: Final = ("due", "until")
#: What a terminal takes for "begin at the top" and "nothing below this" (ECMA-48).
_TOP: Final = "\x1b[H"
_END_OF_LINE: Final = "\x1b[K\n"
_NOTHING_BELOW: Final = "\x1b[J"


def show_status(config: Config, *, as_json: bool) -> int:
    """Print how the server is; returns the exit code: 0 if all is well, 1 if not."""

    async def run(server: Control) -> int:
        status = await server.status()
        if as_json:
            say_json(plain.status(status))
        else:
            for line in status_lines(status):
                say(line)
        return 1 if status.troubles else 0

    return steer(config, run)


def show_statistics(config: Config, scale: str, *, as_json: bool) -> int:
    """Print how much happened; returns the exit code."""

    async def run(server: Control) -> int:
        found = await server.statistics(Scale(scale))
        if as_json:
            say_json(plain.statistics(found))
        else:
            for line in statistics_lines(found):
                say(line)
        return 0

    return steer(config, run)


def show_top(config: Config, *, once: bool, interval: float, as_json: bool) -> int:
    """Draw destinations again and again; returns the exit code."""

    async def run(server: Control) -> int:
        while True:
            status, found = await server.status(), await server.destinations()
            found.sort(key=lambda each: (-each.workers, -each.ready - each.on_disk, each.name))
            if as_json:
                say_json([plain.destination(each) for each in found], indent=0 if not once else 2)
            elif once:
                for line in top_lines(status, found):
                    say(line)
            else:
                _draw(top_lines(status, found))
            if once:
                return 0
            await trio.sleep(interval)

    return steer(config, run)


def watch(config: Config, *, since: int | None, as_json: bool) -> int:
    """Print a line for each event, until interrupted."""

    async def run(server: Control) -> int:
        async with aclosing(server.events(since)) as events:
            async for event in events:
                if as_json:
                    say_json(plain.event(event), indent=0)
                else:
                    say(event_line(event))
        return 0

    return steer(config, run)


def _words(name: str) -> str:
    """The name of an event as people read it: ``AttemptStarted`` is "attempt started"."""
    return re.sub(r"(?<!^)(?=[A-Z])", " ", name).lower()


def status_lines(status: Status) -> Iterator[str]:
    """How a server is, on one screen."""
    now = status.asked_at
    state = "stopping" if status.stopping else "running"
    yield f"elemta {status.version}, {status.hostname}, {state}, process {status.pid}"
    yield f"started     {clock(status.started_at)}, {span(now - status.started_at)} ago"
    yield f"health      {'; '.join(status.troubles) or 'all is well'}"
    for listener in status.listeners:
        where = " ".join(listener.addresses)
        clients = counted(listener.connections, "connection")
        yield f"listener    {listener.name} ({listener.kind}) {where}: {clients}"
    for url in status.api:
        yield f"api         {url}"
    yield f"clients     {status.sessions} of {status.places}"
    if (queue := status.queue) is not None:
        told = [
            f"{queue.recipients.get(state, 0)} {state.value}"
            for state in (State.READY, State.DEFERRED, State.HELD)
        ]
        yield f"queue       {counted(queue.messages, 'message')}: {', '.join(told)}"
        yield f"oldest      {span(now - queue.oldest) if queue.oldest is not None else '-'}"
    yield f"in memory   {counted(status.in_memory, 'message')}"
    counts = ", ".join(f"{number} {_words(name)}" for name, number in sorted(status.counts.items()))
    yield f"since then  {counts or 'nothing happened'}"
    files = "no limit" if status.files < 0 else str(status.files)
    yield f"limits      deliveries: {status.deliveries}, files: {files}"
    for part in status.parts:
        if part.restarts or not part.running:
            now_ = "runs again" if part.running else "waits to be started again"
            failure = f", failed with {part.failure}" if part.failure else ""
            yield f"part        {part.name}: {counted(part.restarts, 'restart')}, {now_}{failure}"


def statistics_lines(statistics: Statistics) -> Iterator[str]:
    """A line for each step, a column for each kind of event that there was, or usually is.

    Not that an attempt began, or a message was finished: other columns say how.
    """
    names = [*_USUAL, *sorted(statistics.total.keys() - {*_USUAL, "attemptstarted", "finished"})]
    yield "  ".join([f"{'SINCE':16}", *(f"{name.upper():>9}" for name in names)])
    for bucket in statistics.buckets:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(bucket.start))
        yield _columns(when, names, bucket.counts)
    yield _columns("in all", names, statistics.total)


def _columns(first: str, names: list[str], counts: dict[str, int]) -> str:
    told = (f"{counts.get(name, 0):>{max(9, len(name))}}" for name in names)
    return "  ".join([f"{first:16}", *told])


def top_lines(status: Status, destinations: list[Destination]) -> Iterator[str]:
    """Destinations, a line each."""
    waiting = status.queue.messages if status.queue is not None else status.in_memory
    yield (
        f"{status.hostname}  {counted(waiting, 'message')}, "
        f"{counted(status.sessions, 'client')}, {counted(len(destinations), 'destination')}  "
        f"{clock(status.asked_at)}"
    )
    for trouble in status.troubles:
        yield f"! {trouble}"
    yield ""
    yield f"{'DESTINATION':40} {'READY':>7} {'ON DISK':>8} {'AT WORK':>8} {'WINDOW':>6}  STATE"
    for each in destinations:
        yield (
            f"{each.name:40} {each.ready:>7} {each.on_disk:>8} {each.workers:>8} "
            f"{each.window:>6}  {destination_state(each, status.asked_at)}"
        )


def destination_state(destination: Destination, now: float) -> str:
    """Why nothing goes there just now, if so, and what was said last."""
    found = "-"
    if destination.suspended is not None:
        found = f"suspended ({destination.suspended})"
    elif destination.parked_until is not None:
        left = span(destination.parked_until - now)
        found = f"parked, probed in {left} (no answer {counted(destination.parks, 'time')})"
    elif destination.throttled_until is not None and destination.throttled_until > now:
        found = f"throttled for {span(destination.throttled_until - now)}"
    elif destination.workers:
        found = "sending"
    return f"{found}  {destination.error}".rstrip()


def _draw(lines: Iterator[str]) -> None:
    """Put lines where the last ones were, cut to what the terminal shows."""
    size = shutil.get_terminal_size()
    cut = [printable(line)[: size.columns] for line in islice(lines, size.lines - 1)]
    click.echo(_TOP + "".join(line + _END_OF_LINE for line in cut) + _NOTHING_BELOW, nl=False)
    sys.stdout.flush()


def event_line(event: Happening, *, numbered: bool = True) -> str:
    """What happened, in a line."""
    if isinstance(event, Missed):
        return f"({counted(event.count, 'event')} missed)"
    told = [
        f"{key}={_shown(key, value)}"
        for key, value in plain.event(event).items()
        if _tells(key, value)
    ]
    when = time.strftime("%H:%M:%S", time.localtime(event.at))
    number = f"{event.number} " if numbered else ""
    return f"{when} {number}{type(event).__name__} {' '.join(told)}"


def _tells(key: str, value: Value) -> bool:
    return key not in ("type", "number", "at") and value not in (None, "", [])


def _shown(key: str, value: Value) -> str:
    if isinstance(value, list):
        return ",".join(_shown(key, each) for each in value)
    text = clock(value) if key in _TIMES and isinstance(value, float) else str(value)
    return f'"{text}"' if " " in text else text
