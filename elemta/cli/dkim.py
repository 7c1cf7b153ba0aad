"""The commands of ``elemta dkim``: arguments to calls.

What a command needs is imported when it runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from elemta.cli.options import as_json, configured

if TYPE_CHECKING:
    from elemta.config import Config


@click.group()
def dkim() -> None:
    """Keys that sign mail, and what the DNS has of them."""


@dkim.command()
@click.argument("domain", metavar="DOMAIN")
@click.option("--selector", metavar="S", help="Of the key; else one of its kind and this month.")
@click.option("--kind", type=click.Choice(("rsa", "ed25519")), default="rsa", show_default=True)
@click.option(
    "--bits",
    type=click.IntRange(2048, 4096),
    default=2048,
    show_default=True,
    help="Of an RSA key; the record of a longer one is too long for some name servers.",
)
@click.option(
    "--directory",
    metavar="D",
    type=click.Path(path_type=Path),
    default=Path(),
    help="Where its file is written; else here.",
)
@as_json
def generate(
    domain: str, selector: str | None, kind: str, bits: int, directory: Path, *, as_json: bool
) -> None:
    """Make a key, and print its record. A file that is there is never written over."""
    from elemta.cli.signing import generate as run

    raise SystemExit(run(domain, selector, kind, bits, directory, as_json=as_json))


@dkim.command()
@click.argument("domain", metavar="[DOMAIN]", required=False)
@click.option(
    "--key",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Of this key, wherever it is from; else of those of the configuration.",
)
@click.option("--selector", metavar="S", help="Of this key alone; with --key it must be there.")
@configured
@as_json
def record(
    config: Config,
    domain: str | None,
    key: Path | None,
    selector: str | None,
    *,
    as_json: bool,
) -> None:
    """Print the records of keys, as a zone file has them."""
    from elemta.cli.signing import record as run

    raise SystemExit(run(config, domain, key, selector, as_json=as_json))


@dkim.command()
@click.argument("domain", metavar="[DOMAIN]", required=False)
@configured
@as_json
def check(config: Config, domain: str | None, *, as_json: bool) -> None:
    """Ask the DNS for the records of all keys, or of a domain's: are they there and right?

    The exit code is 0 if all are, 1 if one is not, and 75 if the DNS cannot say.
    """
    from elemta.cli.signing import check as run

    raise SystemExit(run(config, domain, as_json=as_json))
