"""The commands that ask a running server about itself and who speaks to it: arguments to calls.

What a command needs is imported when it runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import click

from elemta.cli.choice import octets
from elemta.cli.options import as_json, at_server

if TYPE_CHECKING:
    from elemta.config import Config

_LEVEL: Final = click.Choice(["debug", "info", "warning", "error"])


@click.command()
@click.argument("id_", metavar="[ID]", required=False)
@click.option("--to", metavar="ADDRESS", help="Whom a message may be for that may come.")
@click.option("--from", "sender", metavar="ADDRESS", help="Who sends it; else the null sender.")
@click.option("--client", metavar="IP", help="Where it comes from; else 127.0.0.1.")
@click.option("--helo", metavar="NAME", help="What the client calls itself.")
@click.option("--login", metavar="NAME", help="Who is logged in; else nobody.")
@click.option("--listener", metavar="NAME", help="Where it comes in; else the first that fits.")
@click.option("--size", metavar="10MiB", callback=octets, help="How large it is.")
@at_server
@as_json
def explain(
    config: Config,
    id_: str | None,
    to: str | None,
    sender: str | None,
    size: int | None,
    *,
    as_json: bool,
    **client: str | None,
) -> None:
    """Say why a message waits (ID), or what would become of one that may come (--to)."""
    from elemta.cli.answers import explain_message, hypothesis, think_through

    if id_ is None and to is not None:
        asked = hypothesis(to, sender, size or 0, client)
        raise SystemExit(think_through(config, asked, as_json=as_json))
    if id_ is None:
        raise click.UsageError("explain what? The ID of a message, or --to and an address")
    if any(each is not None for each in (to, sender, size, *client.values())):
        raise click.UsageError("of a message that is here the ID says all")
    raise SystemExit(explain_message(config, id_, as_json=as_json))


@click.command("config")
@at_server
@as_json
def config_(config: Config, *, as_json: bool) -> None:
    """Show the configuration that the running server runs; secrets are masked."""
    from elemta.cli.answers import show_configuration

    raise SystemExit(show_configuration(config, as_json=as_json))


@click.command()
@click.argument("action", type=click.Choice(["enable", "disable"]), required=False)
@click.argument("name", required=False)
@at_server
@as_json
def plugins(config: Config, action: str | None, name: str | None, *, as_json: bool) -> None:
    """List the plugins of the running server, or let one be asked or not.

    That holds from the next session on until the next reload or start: for longer, `enabled` in
    the configuration says it.

    `elemta plugins new NAME` writes the package of one of your own.
    """
    from elemta.cli.answers import show_plugins, switch_plugin

    if action is None:
        raise SystemExit(show_plugins(config, as_json=as_json))
    if name is None:
        raise click.UsageError(f"{action} which? `elemta plugins` lists them")
    raise SystemExit(switch_plugin(config, name, enabled=action == "enable", as_json=as_json))


@click.command()
@at_server
@as_json
def sessions(config: Config, *, as_json: bool) -> None:
    """Show who is connected, in and out, and what each is doing."""
    from elemta.cli.listening import show_sessions

    raise SystemExit(show_sessions(config, as_json=as_json))


@click.command()
@click.option("--direction", type=click.Choice(["in", "out"]), help="Only into us, or from us.")
@click.option("--peer", metavar="TEXT", help="Found in the other end's address or name.")
@click.option("--place", metavar="NAME", help="This listener, or this destination.")
@click.option("--session", metavar="ID", help="This conversation.")
@click.option("--address", metavar="TEXT", help="Conversations from the line on that has this.")
@at_server
@as_json
def trace(
    config: Config,
    direction: Literal["in", "out"] | None,
    peer: str | None,
    place: str | None,
    session: str | None,
    address: str | None,
    *,
    as_json: bool,
) -> None:
    """Show what is said, in and out, as it is said; without secrets and content."""
    from elemta.cli.listening import trace as run
    from elemta.control.facts import TraceFilter

    meant = TraceFilter(
        direction=direction, peer=peer, place=place, session=session, address=address
    )
    raise SystemExit(run(config, meant, as_json=as_json))


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until interrupted.")
@click.option("--level", type=_LEVEL, default="debug", help="Of at least this level.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True)
@click.option("--set-level", type=_LEVEL, help="Log from this level on, until the next reload.")
@at_server
@as_json
def log(
    config: Config, level: str, limit: int, set_level: str | None, *, follow: bool, as_json: bool
) -> None:
    """Show the last events of the log, and what comes; or change its level."""
    from elemta.cli.listening import set_log_level, show_log

    if set_level is not None:
        raise SystemExit(set_log_level(config, set_level))
    raise SystemExit(show_log(config, level=level, limit=limit, follow=follow, as_json=as_json))
