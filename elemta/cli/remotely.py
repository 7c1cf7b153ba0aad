"""The options that say that a server is elsewhere, and reached by its API."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from elemta.control.remote import Remote

P = ParamSpec("P")
T = TypeVar("T")

_API: Final = "elemta.api"
_TOKEN: Final = "elemta.token"  # noqa: S105 # the name of an option
_TOKEN_FILE: Final = "elemta.token_file"  # noqa: S105 # as above
_CA: Final = "elemta.ca"
_REMOTE: Final = "elemta.remote"


def remote_options(command: Callable[P, T]) -> Callable[P, T]:
    """Give a command the options that say which server it is for, if that is not on this machine.

    The command itself gets nothing of it: `chosen` knows.
    """
    for option in (
        click.option(
            "--ca",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="With --api: an authority that is trusted beside the system's, PEM.",
            is_eager=True,
            expose_value=False,
            callback=_keep(_CA),
        ),
        click.option(
            "--token-file",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="With --api: where the token stands; - is standard input.",
            is_eager=True,
            expose_value=False,
            callback=_keep(_TOKEN_FILE),
        ),
        click.option(
            "--token",
            metavar="TOKEN",
            help=(
                "With --api: the token; else $ELEMTA_TOKEN. Others on this machine see what stands"
                " on a command line: rather use --token-file."
            ),
            is_eager=True,
            expose_value=False,
            callback=_keep(_TOKEN),
        ),
        click.option(
            "--api",
            metavar="URL",
            help="Another server: http(s)://HOST:PORT of its API; else $ELEMTA_API.",
            is_eager=True,
            expose_value=False,
            callback=_keep(_API),
        ),
    ):
        command = option(command)
    return command


def _keep(key: str) -> Callable[[click.Context, click.Parameter, object], None]:
    def keep(ctx: click.Context, param: click.Parameter, value: object) -> None:
        ctx.meta[key] = value

    return keep


def choose(ctx: click.Context, *, elsewhere: bool) -> bool:
    """Find out whether another server is meant.

    Args:
        ctx: of the command.
        elsewhere: something else says which server: a configuration, or the sandbox.

    Returns:
        Whether it is; `chosen` has it then.

    Raises:
        click.UsageError: two servers are meant, or nobody can tell which one, or who we are.
    """
    url: str | None = ctx.meta[_API]
    if url is not None and elsewhere:
        raise click.UsageError("--api is another server than --config and --sandbox say")
    if url is None and not elsewhere:
        url = os.environ.get("ELEMTA_API")
    if not url:
        for key, option in ((_TOKEN, "--token"), (_TOKEN_FILE, "--token-file"), (_CA, "--ca")):
            if ctx.meta[key] is not None:
                raise click.UsageError(f"{option} is for a server that --api names")
        return False
    from elemta.control.remote import remote  # a websocket is dear to import

    try:
        found = remote(url, _token(ctx), ctx.meta[_CA])
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if found.exposed:
        click.echo(f"elemta: {found} is not encrypted, so others may read the token", err=True)
    ctx.meta[_REMOTE] = found
    return True


def chosen() -> Remote | None:
    """The server elsewhere that the running command is for; None: it is this machine's."""
    ctx = click.get_current_context(silent=True)
    return None if ctx is None else ctx.meta.get(_REMOTE)


def _token(ctx: click.Context) -> str:
    file: Path | None = ctx.meta[_TOKEN_FILE]
    token: str | None = ctx.meta[_TOKEN]
    if file is not None and token is not None:
        raise click.UsageError("--token and --token-file are two tokens")
    if file is not None:
        try:
            text = sys.stdin.read() if str(file) == "-" else file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise click.UsageError(f"--token-file: {error}") from None
        token = text.strip()
    token = token or os.environ.get("ELEMTA_TOKEN")
    if not token:
        raise click.UsageError("--api takes a token: say --token-file, or set $ELEMTA_TOKEN")
    return token
