"""The commands that ask a running server about itself: arguments to calls.

What a command needs is imported when it runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from elemta.cli.choice import octets
from elemta.cli.options import as_json, at_server

if TYPE_CHECKING:
    from elemta.config import Config


@click.command()
@click.argument("id_", metavar="[ID]", required=False)
@click.option("--to", metavar="ADDRESS", help="Whom a message may be for that may come.")
@click.option("--from", "sender", metavar="ADDRESS", help="Who sends it; else the null sender.")
@click.option("--client", metavar="IP", help="Where it comes from; else 127.0.0.1.")
@click.option("--helo", metavar="NAME", help="What the client calls itself.")
@click.option("--login", metavar="NAME", help="Who is logged in; else nobody.")
@click.option("--listener", metavar="NAME", help="Where it comes in; else the first.")
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
    """
    from elemta.cli.answers import show_plugins, switch_plugin

    if action is None:
        raise SystemExit(show_plugins(config, as_json=as_json))
    if name is None:
        raise click.UsageError(f"{action} which? `elemta plugins` lists them")
    raise SystemExit(switch_plugin(config, name, enabled=action == "enable", as_json=as_json))
