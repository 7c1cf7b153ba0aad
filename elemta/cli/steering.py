"""Does something to mail: counts, asks if there is somebody to ask, and says what was done."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click
from msgspec import Struct

from elemta.cli import codes
from elemta.cli.inspection import suspended
from elemta.cli.reaching import steer
from elemta.cli.terminal import counted, say, say_json, size
from elemta.control import plain
from elemta.protocol import parse_mailbox
from elemta.queue import (
    Bounce,
    Delete,
    Hold,
    Priority,
    Redirect,
    Release,
    Reprioritise,
    Reroute,
    Reschedule,
    Retry,
)

if TYPE_CHECKING:
    from pathlib import Path

    from elemta.cli.choice import Chosen
    from elemta.config import Config
    from elemta.control.interface import Control
    from elemta.queue import Action, Tally


class Manner(Struct, frozen=True, kw_only=True):
    """How an action is to be done.

    Attributes:
        reason: for people.
        dry_run: count only.
        yes: do not ask.
        as_json: answer for programs.
    """

    reason: str
    dry_run: bool
    yes: bool
    as_json: bool


def action_of(
    word: str, to: str | None = None, *, via: tuple[str, ...] = (), at: float | None = None
) -> Action:
    """The action of a command.

    Args:
        word: the command.
        to: an address, or a priority.
        via: targets.
        at: seconds since the epoch.

    Raises:
        click.UsageError: its argument is none.
    """
    match word:
        case "redirect":
            try:
                return Redirect(to=parse_mailbox(to or ""))
            except ValueError as error:
                raise click.UsageError(f"--to: {to!r} is no address: {error}") from None
        case "reprioritise":
            return Reprioritise(priority=Priority[str(to).upper()])
        case "reroute":
            return Reroute(via=via)
        case "reschedule":
            return Reschedule(at=at or 0.0)
        case "hold":
            return Hold()
        case "release":
            return Release()
        case "delete":
            return Delete()
        case "bounce":
            return Bounce()
        case _:
            return Retry()


def act(config: Config, word: str, action: Action, chosen: Chosen, manner: Manner) -> int:
    """Do it; returns the exit code."""
    harmless = word == "flush"  # as people know it: try all of it now
    if not (chosen.anything or harmless):
        raise click.UsageError("say which mail: ids, options, or --all")
    meant = chosen.filter()
    ask = not (chosen.ids or manner.yes or manner.dry_run or harmless)
    if ask and not sys.stdin.isatty():
        raise click.UsageError("there is nobody to ask: say --yes, or --dry-run")

    async def run(server: Control) -> int:
        if ask:
            would = await server.act(action, meant, dry_run=True)
            if not would.messages:
                say(_told(word, would, dry_run=True))
                return 0
            if not click.confirm(f"{word} {_amount(would)}?"):
                return codes.NOT_FOUND
        tally = await server.act(action, meant, reason=manner.reason, dry_run=manner.dry_run)
        if manner.as_json:
            say_json(plain.tally(tally, dry_run=manner.dry_run))
        else:
            say(_told(word, tally, dry_run=manner.dry_run))
        return codes.NOT_FOUND if chosen.ids and not tally.messages else 0

    return steer(config, run)


def suspend(config: Config, scope: str, span: float | None, manner: Manner) -> int:
    """Send nothing to a scope; returns the exit code."""

    async def run(server: Control) -> int:
        until = None if span is None else time.time() + span
        tally = await server.suspend(
            scope, reason=manner.reason, until=until, dry_run=manner.dry_run
        )
        _say_scope(f"{scope} is suspended", f"would suspend {scope}", tally, manner)
        return 0

    return steer(config, run)


def resume(config: Config, scope: str, manner: Manner) -> int:
    """End a suspension; returns the exit code."""

    async def run(server: Control) -> int:
        tally = await server.resume(scope, dry_run=manner.dry_run)
        _say_scope(f"{scope} is resumed", f"would resume {scope}", tally, manner)
        return 0

    return steer(config, run)


def show_suspensions(config: Config, *, as_json: bool) -> int:
    """Print what is suspended; returns the exit code."""

    async def run(server: Control) -> int:
        found = await server.suspensions()
        if as_json:
            say_json([plain.suspension(each) for each in found])
            return 0
        for each in found:
            say(suspended(each, time.time()))
        if not found:
            say("nothing is suspended")
        return 0

    return steer(config, run)


def backup(config: Config, target: Path, *, as_json: bool) -> int:
    """Copy the queue; returns the exit code."""
    whole = target.absolute()

    async def run(server: Control) -> int:
        await server.backup(whole)
        if as_json:
            say_json({"target": str(whole)})
        else:
            say(f"a copy of the queue is in {target}")
        return 0

    return steer(config, run)


def reload(config: Config, *, dry_run: bool, as_json: bool) -> int:
    """Let the server read its configuration again, and print what changed."""

    async def run(server: Control) -> int:
        changes = await server.reload(dry_run=dry_run)
        if as_json:
            say_json(
                [
                    {
                        "place": change.place,
                        "before": change.before,
                        "after": change.after,
                        "needs_restart": change.needs_restart,
                    }
                    for change in changes
                ]
            )
            return 0
        for change in changes:
            holds = "  (after a restart)" if change.needs_restart else ""
            say(f"{change.place}: {_value(change.before)} -> {_value(change.after)}{holds}")
        if not changes:
            say("nothing has changed in the configuration")
        return 0

    return steer(config, run)


def _say_scope(done: str, would: str, tally: Tally | None, manner: Manner) -> None:
    if manner.as_json:
        say_json(plain.tally(tally, dry_run=True) if tally is not None else {"dry_run": False})
    elif tally is not None:
        say(f"{would}: {_amount(tally)}")
    else:
        say(done)


def _told(word: str, tally: Tally, *, dry_run: bool) -> str:
    busy = f"; {tally.busy} are being tried just now, and left alone" if tally.busy else ""
    if not tally.messages:
        return f"nothing to {word}{busy}"
    return f"{'would ' if dry_run else ''}{word}: {_amount(tally)}{busy}"


def _amount(tally: Tally) -> str:
    messages, recipients = (
        counted(tally.messages, "message"),
        counted(tally.recipients, "recipient"),
    )
    return f"{messages}, {recipients}, {size(tally.octets)}"


def _value(text: str | None) -> str:
    return "-" if text is None else text or "(a table)"
