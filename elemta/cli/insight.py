"""The commands that ask a running server about itself: arguments to calls.

What a command needs is imported when it runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from elemta.cli.options import as_json, configured

if TYPE_CHECKING:
    from elemta.config import Config


@click.command("config")
@configured
@as_json
def config_(config: Config, *, as_json: bool) -> None:
    """Show the configuration that the running server runs; secrets are masked."""
    from elemta.cli.answers import show_configuration

    raise SystemExit(show_configuration(config, as_json=as_json))


@click.command()
@click.argument("action", type=click.Choice(["enable", "disable"]), required=False)
@click.argument("name", required=False)
@configured
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
