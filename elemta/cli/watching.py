"""The command ``elemta monitor``: arguments to calls.

What it needs is imported when it runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from elemta.cli.options import at_server

if TYPE_CHECKING:
    from elemta.config import Config


@click.command()
@click.option("--filter", "wanted", metavar="TEXT", help="Show only events that have this in them.")
@click.option("--once", is_flag=True, help="Print one screen.")
@click.option("--json", "as_json", is_flag=True, help="Print events, a line each, for programs.")
@click.option("--type", "types", metavar="EVENT", multiple=True, help="With --json: only these.")
@click.option("--domain", metavar="NAME", help="With --json: about recipients of this domain.")
@click.option("--id", "id_", metavar="ID", help="With --json: about this message.")
@click.option(
    "--since", type=click.IntRange(0), metavar="NUMBER", help="With --json: after this event."
)
@at_server
def monitor(
    config: Config,
    wanted: str | None,
    types: tuple[str, ...],
    domain: str | None,
    id_: str | None,
    since: int | None,
    *,
    once: bool,
    as_json: bool,
) -> None:
    """Watch the server, live, and steer its destinations by keys; q ends it."""
    if as_json and (once or wanted is not None):
        raise click.UsageError("--json has --type, --domain, --id and --since")
    if as_json:
        from elemta.cli.monitor.stream import choice_of, stream

        raise SystemExit(stream(config, choice_of(types, domain, id_), since))
    if types or domain or id_ or since is not None:
        raise click.UsageError("--type, --domain, --id and --since are for --json")
    from elemta.cli.monitor.desk import run

    raise SystemExit(run(config, once=once, wanted=wanted or ""))
