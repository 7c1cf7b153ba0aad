"""The commands of ``elemta queue``: arguments to calls.

What a command needs is imported when it runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

import click
from typing_extensions import override

from elemta.cli.choice import PRIORITIES, Chosen, choosing, duration, from_now, moment
from elemta.cli.options import as_json, at_server

if TYPE_CHECKING:
    from collections.abc import Callable

    from elemta.config import Config

#: What can be done with mail, and what help says of it.
ACTIONS: Final = {
    "retry": "Try it now.",
    "hold": "Do not try it until it is released.",
    "release": "Try what is held, now.",
    "delete": "Give it up, and tell nobody.",
    "bounce": "Give it up, and tell the sender.",
    "flush": "Try it now; all that waits, if nothing else is said.",
    "redirect": "Deliver it to another address.",
    "reroute": "Deliver it by other hosts, now.",
    "reschedule": "Try it at a given time, and not before.",
    "reprioritise": "Let it go sooner or later than others.",
}
_VIA: Final = "smtp(s)://HOST:PORT, lmtp://HOST:PORT, lmtp:///SOCKET or maildir; several: in turn."

P = ParamSpec("P")
T = TypeVar("T")

_ids = click.argument("ids", metavar="[ID]...", nargs=-1)
_id = click.argument("id_", metavar="ID")
_reason = click.option("--reason", metavar="TEXT", default="", help="Why; for people.")
_dry_run = click.option("--dry-run", is_flag=True, help="Count, and do nothing.")


class _InOrder(click.Group):
    """Commands in the order in which they were added."""

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names."""
        return list(self.commands)


@click.group(cls=_InOrder)
def queue() -> None:
    """Look at the queue, and steer it."""


@queue.command("list")
@_ids
@choosing
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True)
@click.option("--newest", is_flag=True, help="The newest first.")
@at_server
@as_json
def list_(
    config: Config, ids: tuple[str, ...], limit: int, *, newest: bool, **options: object
) -> None:
    """One line a message that waits, or that is finished and in --view failed or delivered."""
    from elemta.cli.looking import show_list

    as_json = bool(options.pop("as_json"))
    chosen = Chosen(ids, options)
    raise SystemExit(show_list(config, chosen, limit=limit, newest=newest, as_json=as_json))


@queue.command()
@_id
@at_server
@as_json
def show(config: Config, id_: str, *, as_json: bool) -> None:
    """One message: its recipients, and every attempt. Finished ones too."""
    from elemta.cli.looking import show_message

    raise SystemExit(show_message(config, id_, by_time=False, as_json=as_json))


@queue.command()
@_id
@at_server
@as_json
def transcript(config: Config, id_: str, *, as_json: bool) -> None:
    """What was said about a message, in and out, as far as it is remembered."""
    from elemta.cli.listening import show_transcripts

    raise SystemExit(show_transcripts(config, id_, as_json=as_json))


@queue.command()
@_id
@at_server
@as_json
def timeline(config: Config, id_: str, *, as_json: bool) -> None:
    """What happened to one message, moment by moment. Finished ones too."""
    from elemta.cli.looking import show_message

    raise SystemExit(show_message(config, id_, by_time=True, as_json=as_json))


@queue.command()
@_id
@at_server
def raw(config: Config, id_: str) -> None:
    """The content of a message that waits."""
    from elemta.cli.looking import show_content

    raise SystemExit(show_content(config, id_))


def _with_its_own(word: str, command: Callable[P, T]) -> Callable[P, T]:
    """Give a command the options that it has alone."""
    match word:
        case "redirect":
            return click.option("--to", metavar="ADDRESS", required=True, help="Where to.")(command)
        case "reprioritise":
            priority = click.Choice(PRIORITIES)
            return click.option("--to", type=priority, required=True, help="Which.")(command)
        case "reroute":
            back = click.option("--as-configured", is_flag=True, help="As the configuration says.")
            return click.option("--via", metavar="TARGET", multiple=True, help=_VIA)(back(command))
        case "reschedule":
            span = click.option("--in", "after", callback=from_now, metavar="2h", help="From now.")
            when = "E.g. '2027-01-31 08:00'."
            return click.option("--at", callback=moment, metavar="TIME", help=when)(span(command))
        case _:
            return command


def _add_action(word: str, told: str) -> None:
    @_ids
    @choosing
    @click.option("--all", "everything", is_flag=True, help="All that waits.")
    @_reason
    @_dry_run
    @click.option("-y", "--yes", is_flag=True, help="Do not ask.")
    @at_server
    @as_json
    def run(
        config: Config,
        ids: tuple[str, ...],
        reason: str,
        to: str | None = None,
        via: tuple[str, ...] = (),
        at: float | None = None,
        after: float | None = None,
        *,
        as_configured: bool = False,
        dry_run: bool,
        yes: bool,
        as_json: bool,
        **options: object,
    ) -> None:
        from elemta.cli.steering import Manner, act, action_of

        manner = Manner(reason=reason, dry_run=dry_run, yes=yes, as_json=as_json)
        if word == "reroute" and bool(via) is as_configured:
            raise click.UsageError("say --via TARGET, or --as-configured")
        if word == "reschedule" and (at is None) is (after is None):
            raise click.UsageError("say --at TIME, or --in SPAN")
        action = action_of(word, to, via=via, at=after if at is None else at)
        raise SystemExit(act(config, word, action, Chosen(ids, options), manner))

    queue.command(word, help=told)(_with_its_own(word, run))


for _word, _told in ACTIONS.items():
    _add_action(_word, _told)


@queue.command()
@click.argument("scope")
@_reason
@click.option("--for", "span", callback=duration, metavar="2h", help="Else until it is resumed.")
@_dry_run
@at_server
@as_json
def suspend(
    config: Config, scope: str, reason: str, span: float | None, *, dry_run: bool, as_json: bool
) -> None:
    """Send nothing to a SCOPE: all, domain:NAME, or destination:LANE as `queue top` shows it."""
    from elemta.cli import steering

    manner = steering.Manner(reason=reason, dry_run=dry_run, yes=True, as_json=as_json)
    raise SystemExit(steering.suspend(config, scope, span, manner))


@queue.command()
@click.argument("scope")
@_dry_run
@at_server
@as_json
def resume(config: Config, scope: str, *, dry_run: bool, as_json: bool) -> None:
    """Send to a SCOPE again, as `queue suspensions` shows it."""
    from elemta.cli import steering

    manner = steering.Manner(reason="", dry_run=dry_run, yes=True, as_json=as_json)
    raise SystemExit(steering.resume(config, scope, manner))


@queue.command()
@at_server
@as_json
def suspensions(config: Config, *, as_json: bool) -> None:
    """What is suspended, by whom, and until when."""
    from elemta.cli.steering import show_suspensions

    raise SystemExit(show_suspensions(config, as_json=as_json))


@queue.command()
@at_server
@as_json
def stats(config: Config, *, as_json: bool) -> None:
    """How many wait, and for how long."""
    from elemta.cli.looking import show_stats

    raise SystemExit(show_stats(config, as_json=as_json))


@queue.command()
@click.option("--once", is_flag=True, help="Print it once.")
@click.option("--interval", callback=duration, default="2s", show_default=True)
@at_server
@as_json
def top(config: Config, interval: float, *, once: bool, as_json: bool) -> None:
    """Destinations, live: what goes there, and what keeps it; Ctrl-C ends it."""
    from elemta.cli.screens import show_top

    raise SystemExit(show_top(config, once=once, interval=interval, as_json=as_json))


@queue.command()
@click.option("--since", type=click.IntRange(0), metavar="NUMBER", help="After this event.")
@at_server
@as_json
def watch(config: Config, since: int | None, *, as_json: bool) -> None:
    """A line for each thing that happens; Ctrl-C ends it."""
    from elemta.cli.screens import watch as run

    raise SystemExit(run(config, since=since, as_json=as_json))


@queue.command()
@at_server
@as_json
def check(config: Config, *, as_json: bool) -> None:
    """Look whether the queue's files are whole."""
    from elemta.cli.looking import show_findings

    raise SystemExit(show_findings(config, as_json=as_json))


@queue.command()
@click.argument("folder", type=click.Path(path_type=Path))
@at_server
@as_json
def backup(config: Config, folder: Path, *, as_json: bool) -> None:
    """Copy the queue, as it is now, to a new FOLDER, which the server must be able to make."""
    from elemta.cli.steering import backup as run

    raise SystemExit(run(config, folder, as_json=as_json))
