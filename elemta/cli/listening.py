"""Shows who is connected, what is said, and what is logged."""

from __future__ import annotations

import time
from contextlib import aclosing
from typing import TYPE_CHECKING

from elemta import log as logs
from elemta.cli import codes
from elemta.cli.reaching import steer
from elemta.cli.terminal import clock, counted, say, say_json, size, span
from elemta.control import plain
from elemta.queue import Missed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from elemta.config import Config
    from elemta.control.facts import LogEntry, SessionStatus, Spoken, TraceFilter, Transcript
    from elemta.control.interface import Control


def show_sessions(config: Config, *, as_json: bool) -> int:
    """Print a line for each conversation that goes on; returns the exit code."""

    async def run(server: Control) -> int:
        found = await server.sessions()
        if as_json:
            say_json([plain.session(each) for each in found])
        else:
            for line in session_lines(found, time.time()):
                say(line)
        return 0

    return steer(config, run)


def show_transcripts(config: Config, id_: str, *, as_json: bool) -> int:
    """Print what was said about a message; returns the exit code."""

    async def run(server: Control) -> int:
        found = await server.transcripts(id_.upper())
        if as_json:
            say_json([plain.transcript(each) for each in found])
        else:
            for line in transcript_lines(found):
                say(line)
        return 0 if found else codes.NOT_FOUND

    return steer(config, run)


def trace(config: Config, meant: TraceFilter, *, as_json: bool) -> int:
    """Print each line that is said, until interrupted."""

    async def run(server: Control) -> int:
        async with aclosing(server.trace(meant)) as lines:
            async for line in lines:
                if as_json:
                    say_json(plain.spoken(line), indent=0)
                else:
                    say(spoken_line(line))
        return 0

    return steer(config, run)


def show_log(config: Config, *, level: str, limit: int, follow: bool, as_json: bool) -> int:
    """Print the last events of the log, and what comes then until interrupted, if so asked."""

    def show(entry: LogEntry | Missed) -> None:
        if as_json:
            say_json(plain.entry(entry), indent=0)
        else:
            for line in entry_lines(entry):
                say(line)

    async def run(server: Control) -> int:
        for entry in await server.log(level=level, limit=limit):
            show(entry)
        if follow:
            async with aclosing(server.follow(level=level)) as entries:
                async for each in entries:
                    show(each)
        return 0

    return steer(config, run)


def set_log_level(config: Config, level: str) -> int:
    """Log from another level on; returns the exit code."""

    async def run(server: Control) -> int:
        now = await server.log_level(level)
        say(f"logged from {now} on, until the next reload or start")
        return 0

    return steer(config, run)


def session_lines(found: Sequence[SessionStatus], now: float) -> Iterator[str]:
    """Conversations, a line each, and one below it for the message that is under way."""
    if not found:
        yield "nobody is connected"
        return
    places = max(len("PLACE"), *(len(each.place) for each in found))
    peers = max(len("PEER"), *(len(each.peer) for each in found))
    yield (
        f"{'ID':12}  WAY  {'PLACE':{places}}  {'PEER':{peers}}  {'STATE':10}  "
        f"{'SINCE':>5}  MAIL  NAME"
    )
    for each in found:
        told = f"{each.name or '-'}{' (' + each.tls + ')' if each.tls else ''}"
        login = f" as {each.login}" if each.login else ""
        yield (
            f"{each.id:12}  {each.direction:3}  {each.place:{places}}  {each.peer:{peers}}  "
            f"{each.state:10}  {span(now - each.since):>5}  {each.messages:>4}  {told}{login}"
        )
        if each.message is not None:
            yield (
                f"  {each.message} from <{each.sender or ''}> to "
                f"{counted(each.recipients, 'recipient')}, {size(each.octets)} so far"
            )


def transcript_lines(found: Sequence[Transcript]) -> Iterator[str]:
    """Conversations, a line for each line that was said."""
    if not found:
        yield "nothing is remembered of what was said about it"
    for number, each in enumerate(found):
        if number:
            yield ""
        way = "from" if each.direction == "in" else "to"
        end = "goes on" if each.ended is None else f"took {each.ended - each.began:.1f}s"
        yield f"{each.id} {way} {each.peer} ({each.place}), {clock(each.began)}, {end}"
        if each.cut:
            yield f"  … {counted(each.cut, 'line')} before are forgotten"
        for said in each.said:
            yield f"  {said.at - each.began:7.3f} {said.speaker}: {said.text}"


def spoken_line(line: Spoken | Missed) -> str:
    """What was said, by whom to whom."""
    if isinstance(line, Missed):
        return f"({counted(line.count, 'line')} missed)"
    when = time.strftime("%H:%M:%S", time.localtime(line.at))
    way = "<" if line.direction == "in" else ">"
    return f"{when} {line.session} {way} {line.place} {line.peer} {line.speaker}: {line.text}"


def entry_lines(entry: LogEntry | Missed) -> list[str]:
    """An event as the log has it on a terminal."""
    if isinstance(entry, Missed):
        return [f"({counted(entry.count, 'event')} missed)"]
    return logs.console(entry.at, entry.level, entry.event, entry.fields).splitlines()
