"""Shows the queue: straight from its files, so it works whether the daemon runs or not."""

from __future__ import annotations

import sqlite3
import time
from typing import TYPE_CHECKING, Final, TypeAlias

import click
import msgspec

from elemta.queue import SpoolError, State, StoreReader

if TYPE_CHECKING:
    from collections.abc import Callable

    from elemta.config import Config
    from elemta.protocol import ReversePath
    from elemta.queue import Attempt, Message, Recipient, Stats, Timeline

#: Exit codes, as sysexits.h has them; nothing found is 1, as with grep.
NOT_FOUND: Final = 1
UNREADABLE: Final = 74

#: What JSON is made of.
Value: TypeAlias = "str | int | float | bool | list[Value] | dict[str, Value] | None"


def show_list(config: Config, *, state: str | None, limit: int, as_json: bool) -> int:
    """Print a line for each message that waits; returns the exit code."""

    def show(reader: StoreReader) -> int:
        found = reader.list(State(state) if state else None, limit=limit)
        if as_json:
            _print_json([_message(each) for each in found])
            return 0
        now = time.time()
        for message in found:
            click.echo(_line(message, now))
        if not found:
            click.echo("nothing waits" if state is None else f"nothing is {state}")
        elif len(found) == limit:
            click.echo(f"… and perhaps more: these are the first {limit} (--limit)")
        return 0

    return _reading(config, show)


def show_message(config: Config, id_: str, *, as_json: bool) -> int:
    """Print all that is known of one message; returns the exit code."""

    def show(reader: StoreReader) -> int:
        timeline = reader.timeline(id_)
        if timeline is None:
            click.echo(f"no message {id_!r}, or it is no longer remembered", err=True)
            return NOT_FOUND
        if as_json:
            _print_json(_timeline(timeline))
        else:
            click.echo("\n".join(_story(timeline, time.time())))
        return 0

    return _reading(config, show)


def show_stats(config: Config, *, as_json: bool) -> int:
    """Print how many wait, and for how long; returns the exit code."""

    def show(reader: StoreReader) -> int:
        stats = reader.stats()
        if as_json:
            _print_json(_stats(stats))
            return 0
        click.echo(f"messages    {stats.messages}")
        for state in (State.READY, State.DEFERRED, State.HELD):
            click.echo(f"{state.value:10}  {stats.recipients.get(state, 0)} recipients")
        oldest = _span(time.time() - stats.oldest) if stats.oldest is not None else "-"
        click.echo(f"oldest      {oldest}")
        click.echo(f"history     {stats.history} messages")
        return 0

    return _reading(config, show)


def _reading(config: Config, show: Callable[[StoreReader], int]) -> int:
    try:
        with StoreReader(config.data_dir / "queue") as reader:
            return show(reader)
    except (SpoolError, sqlite3.Error, OSError) as error:
        click.echo(str(error), err=True)
        return UNREADABLE


def _line(message: Message, now: float) -> str:
    """ID, age, size, who to whom, and how it stands with those who wait."""
    waiting = [each for each in message.recipients if not each.state.final]
    first = waiting[0] if waiting else message.recipients[0]
    more = f" +{len(message.recipients) - 1}" if len(message.recipients) > 1 else ""
    last = f"  {first.last}" if first.last is not None else ""
    return (
        f"{message.id}  {_span(now - message.received_at):>6}  {message.size:>9}  "
        f"{first.state.value:8}  {_path(message.sender)} -> {first.address}{more}{last}"
    )


def _story(timeline: Timeline, now: float) -> list[str]:
    message = timeline.message
    origin = message.origin
    lines = [
        f"id          {message.id}",
        f"received    {_clock(message.received_at)}, {_span(now - message.received_at)} ago",
        f"from        {_path(message.sender)}",
        f"size        {message.size}",
    ]
    if origin.address:
        told = f"{origin.address} ({origin.helo}), {origin.protocol}, session {origin.session}"
        lines.append(f"client      {told}")
    if timeline.finished_at is not None:
        lines.append(f"finished    {_clock(timeline.finished_at)}")
    else:
        lines.append(f"expires     {_clock(message.expires_at)}")
    for recipient in message.recipients:
        lines += ["", *_recipient_story(recipient, timeline.attempts, now)]
    return lines


def _recipient_story(recipient: Recipient, attempts: tuple[Attempt, ...], now: float) -> list[str]:
    named = f" (for {recipient.original})" if recipient.original is not None else ""
    next_one = ""
    if recipient.state is State.DEFERRED:
        next_one = f", next in {_span(recipient.due - now)}" if recipient.due > now else ", due"
    lines = [f"{recipient.address}{named}: {recipient.state.value}{next_one}"]
    for attempt in attempts:
        if attempt.number == recipient.number:
            where = attempt.host or attempt.destination
            lines.append(
                f"  {_clock(attempt.ended)}  {attempt.result.value}  {where}: {attempt.reply}"
            )
    return lines


def _message(message: Message) -> dict[str, Value]:
    origin = message.origin
    return {
        "id": message.id,
        "sender": None if message.sender is None else str(message.sender),
        "received_at": message.received_at,
        "expires_at": message.expires_at,
        "size": message.size,
        "priority": message.priority.name.lower(),
        "client": origin.address or None,
        "helo": origin.helo or None,
        "session": origin.session or None,
        "listener": origin.listener or None,
        "tags": list(message.tags),
        "recipients": [
            {
                "address": str(each.address),
                "original": None if each.original is None else str(each.original),
                "state": each.state.value,
                "due": each.due if each.state is State.DEFERRED else None,
                "attempts": each.attempts,
                "last": None if each.last is None else str(each.last),
            }
            for each in message.recipients
        ],
    }


def _timeline(timeline: Timeline) -> dict[str, Value]:
    message = timeline.message
    return {
        **_message(message),
        "finished_at": timeline.finished_at,
        "attempts": [
            {
                "recipient": str(message.recipients[each.number].address),
                "started": each.started,
                "ended": each.ended,
                "result": "expired" if each.expired else each.result.value,
                "destination": each.destination,
                "host": each.host or None,
                "reply": str(each.reply),
                "remote": each.remote,
            }
            for each in timeline.attempts
        ],
    }


def _stats(stats: Stats) -> dict[str, Value]:
    return {
        "messages": stats.messages,
        "recipients": {state.value: stats.recipients.get(state, 0) for state in State},
        "oldest": stats.oldest,
        "history": stats.history,
    }


def _print_json(value: Value) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))


def _path(sender: ReversePath) -> str:
    return "<>" if sender is None else str(sender)


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(at))


def _span(seconds: float) -> str:
    """A duration in its largest unit, cut: ``59s``, ``4min``, ``23h``, ``5d``."""
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{int(seconds // unit)}{name}"
    return f"{max(0, int(seconds))}s"
