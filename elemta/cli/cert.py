"""The commands of ``elemta cert``: arguments to calls.

What a command needs is imported when it runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from elemta.cli.options import as_json, configured

if TYPE_CHECKING:
    from elemta.config import Config


@click.group()
def cert() -> None:
    """Certificates that clients are shown: those of the configuration, or of any server."""


@cert.command()
@configured
@as_json
def info(config: Config, *, as_json: bool) -> None:
    """Say what the certificates of the configuration are, as their files are now."""
    from elemta.cli.certificates import show

    raise SystemExit(show(config, as_json=as_json))


@cert.command()
@click.argument("server", metavar="[HOST:PORT]", required=False)
@click.option(
    "--tls",
    type=click.Choice(["starttls", "implicit"]),
    help="How that server encrypts; else implicit on port 465, STARTTLS on all others.",
)
@click.option("--name", metavar="NAME", help="Whom to ask that server for; else HOST.")
@configured
@as_json
def check(
    config: Config, server: str | None, tls: str | None, name: str | None, *, as_json: bool
) -> None:
    """Say what is wrong with the certificates of the configuration, or with that of a server.

    Ends with 0 if nothing is, with 65 if something is, with 69 if the server cannot be asked.
    """
    from elemta.cli.certificates import check_own, check_server
    from elemta.config import host_port

    if server is None:
        if tls is not None or name is not None:
            raise click.UsageError("--tls and --name are for a server: HOST:PORT")
        raise SystemExit(check_own(config, as_json=as_json))
    try:
        place = host_port(server, 25)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if not place.host:
        raise click.UsageError(f"of which host? {server!r} names none")
    implicit = place.port == 465 if tls is None else tls == "implicit"
    raise SystemExit(check_server(place, name or place.host, implicit=implicit, as_json=as_json))
