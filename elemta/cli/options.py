"""Options that many commands have: which configuration, and which form of answer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn, ParamSpec, TypeVar

import click

from elemta.cli.codes import MISCONFIGURED
from elemta.cli.remotely import choose, remote_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from elemta.config import Config

P = ParamSpec("P")
T = TypeVar("T")

#: Where the configuration is looked for, if nobody says.
CONFIG: Final = Path("/etc/elemta/elemta.yaml")
#: The sandbox's data directory, below the current one.
SANDBOX: Final = Path("elemta-data")

_CONFIG_HELP: Final = (
    "The configuration; else $ELEMTA_CONFIG, /etc/elemta/elemta.yaml, or the sandbox."
)
_SANDBOX_HELP: Final = (
    "No configuration: take mail on 127.0.0.1:2525, keep all of it in ./elemta-data."
)
_SANDBOX_KEY: Final = "elemta.sandbox"

config_option = click.option(
    "-c",
    "--config",
    "path",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help=_CONFIG_HELP,
)
sandbox_option = click.option("--sandbox", is_flag=True, help=_SANDBOX_HELP)
as_json = click.option("--json", "as_json", is_flag=True, help="For programs.")


def configured(command: Callable[P, T]) -> Callable[P, T]:
    """Give a command the options that say which configuration; it gets that as `config`."""
    return _saying_which(command, _configuration)


def at_server(command: Callable[P, T]) -> Callable[P, T]:
    """Give a command the options that say which running server it is for.

    It gets the configuration of that as `config`, which is of no meaning if the server is
    elsewhere (`elemta.cli.remotely`).
    """
    return _saying_which(remote_options(command), _place)


def _saying_which(
    command: Callable[P, T],
    find: Callable[[click.Context, click.Parameter, Path | None], Config],
) -> Callable[P, T]:
    path = click.option(
        "-c",
        "--config",
        metavar="FILE",
        type=click.Path(path_type=Path),
        callback=find,
        help=_CONFIG_HELP,
    )
    sandbox = click.option(
        "--sandbox",
        is_flag=True,
        is_eager=True,  # it is known before the configuration is looked for
        expose_value=False,
        callback=_note_sandbox,
        help=_SANDBOX_HELP,
    )
    return path(sandbox(command))


def _place(ctx: click.Context, param: click.Parameter, value: Path | None) -> Config:
    sandbox = bool(ctx.meta.get(_SANDBOX_KEY))
    if choose(ctx, elsewhere=sandbox or value is not None):
        sandbox = True  # whatever this machine has is not looked at
    config, _ = configuration(value, sandbox=sandbox, port=None)
    return config


def _note_sandbox(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    ctx.meta[_SANDBOX_KEY] = value


def _configuration(ctx: click.Context, param: click.Parameter, value: Path | None) -> Config:
    config, _ = configuration(value, sandbox=bool(ctx.meta.get(_SANDBOX_KEY)), port=None)
    return config


def configuration(
    path: Path | None, *, sandbox: bool, port: int | None, api_port: int | None = None
) -> tuple[Config, Path | None]:
    """The configuration, and the file that it is from; None is the sandbox's.

    Ends the process if there is a mistake in it.
    """
    from elemta import config

    if sandbox and path is not None:
        raise click.UsageError("--sandbox has no configuration file")
    if path is None and not sandbox:
        if named := os.environ.get("ELEMTA_CONFIG"):
            path = Path(named)
        elif CONFIG.exists():
            path = CONFIG
    if path is None:
        address = config.SANDBOX_ADDRESS if port is None else f"127.0.0.1:{port}"
        api = config.SANDBOX_API if api_port is None else f"127.0.0.1:{api_port}"
        # Another port is asked for where there is another sandbox, which has that of people, too.
        people = config.SANDBOX_SUBMISSION if port is None else "127.0.0.1:0"
        return config.sandbox(SANDBOX.resolve(), address, api, people), None
    if port is not None:
        raise click.UsageError("--port is for the sandbox; the configuration has `listeners`")
    if api_port is not None:
        raise click.UsageError("--api-port is for the sandbox; the configuration has `api`")
    try:
        return config.read(path), path
    except config.ConfigError as error:
        misconfigured(error)


def misconfigured(error: Exception) -> NoReturn:
    """Say what is wrong with the configuration, and end the process."""
    click.echo(str(error), err=True)
    raise SystemExit(MISCONFIGURED)
