"""The commands of ``elemta token``: arguments to calls.

What a command needs is imported when it runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from elemta.cli.choice import duration
from elemta.cli.options import as_json, configured

if TYPE_CHECKING:
    from elemta.config import Config

#: What a token may do, and what help says of it.
SCOPES: Final = {
    "read": "look at everything but the content of messages",
    "content": "read messages",
    "operate": "change what waits",
    "submit": "hand in mail",
    "admin": "tokens, plugins, log level, reload; and all of the above",
}
_SCOPE_HELP: Final = "; ".join(f"{scope}: {told}" for scope, told in SCOPES.items()) + "."


@click.group()
def token() -> None:
    """Who may use the API; for whoever may write to the server's data directory."""


@token.command()
@click.argument("name", metavar="NAME")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(list(SCOPES)),
    multiple=True,
    required=True,
    help=f"What it may do, as often as needed. {_SCOPE_HELP}",
)
@click.option("--expires", callback=duration, metavar="30d", help="How long it is good for.")
@configured
@as_json
def create(
    config: Config, name: str, scopes: tuple[str, ...], expires: float | None, *, as_json: bool
) -> None:
    """Make a token, and print it; nobody can see it again."""
    from elemta.cli.tokens import create as run

    raise SystemExit(run(config, name, scopes, expires, as_json=as_json))


@token.command("list")
@configured
@as_json
def list_(config: Config, *, as_json: bool) -> None:
    """All tokens, but for their secrets."""
    from elemta.cli.tokens import show

    raise SystemExit(show(config, as_json=as_json))


@token.command()
@click.argument("id_", metavar="ID")
@configured
@as_json
def revoke(config: Config, id_: str, *, as_json: bool) -> None:
    """End a token, by its id or its name; the server knows within a second."""
    from elemta.cli.tokens import revoke as run

    raise SystemExit(run(config, id_, as_json=as_json))


@token.command()
@configured
@as_json
def link(config: Config, *, as_json: bool) -> None:
    """Print an address that logs a browser in as admin: once, and within an hour."""
    from elemta.cli.tokens import link as run

    raise SystemExit(run(config, as_json=as_json))
