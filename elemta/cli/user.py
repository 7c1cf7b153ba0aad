"""The commands of ``elemta user``: arguments to calls.

What a command needs is imported when it runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

import click

from elemta.cli.options import as_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from elemta.cli.users import Place

P = ParamSpec("P")
T = TypeVar("T")

_password_stdin = click.option(
    "--password-stdin", "from_stdin", is_flag=True, help="The password is the first line of stdin."
)


def _at_file(command: Callable[P, T]) -> Callable[P, T]:
    """Give a command the options that say which file of users; it gets that as `place`."""
    file = click.option(
        "--file",
        "place",
        metavar="FILE",
        type=click.Path(path_type=Path),
        callback=_place,
        help="The file of users; else that of the plugin users-file in the configuration.",
    )
    config = click.option(
        "-c",
        "--config",
        "path",
        metavar="FILE",
        type=click.Path(path_type=Path),
        is_eager=True,  # it is known before the file is looked for
        expose_value=False,
        callback=_note_config,
        help="The configuration; else $ELEMTA_CONFIG or /etc/elemta/elemta.yaml.",
    )
    return file(config(command))


_CONFIG: Final = "elemta.users.config"


def _note_config(ctx: click.Context, param: click.Parameter, value: Path | None) -> None:
    ctx.meta[_CONFIG] = value


def _place(ctx: click.Context, param: click.Parameter, value: Path | None) -> Place:
    from elemta.cli.users import find

    return find(ctx.meta.get(_CONFIG), value)


@click.group()
def user() -> None:
    """Who may log in: the users of the plugin users-file, which reads them by itself."""


@user.command()
@click.argument("name", metavar="NAME")
@click.option(
    "--address",
    "addresses",
    metavar="PATTERN",
    multiple=True,
    help="What he may send as beside NAME: bob@example.org, @example.org, @*.example.org or *.",
)
@click.option("--no-password", is_flag=True, help="He logs in by app passwords only.")
@_password_stdin
@_at_file
@as_json
def add(
    place: Place,
    name: str,
    addresses: tuple[str, ...],
    *,
    no_password: bool,
    from_stdin: bool,
    as_json: bool,
) -> None:
    """Add a user; the password is asked for."""
    from elemta.cli.users import add as run

    if no_password and from_stdin:
        raise click.UsageError("--no-password has no password to read")
    raise SystemExit(
        run(
            place,
            name,
            addresses,
            from_stdin=from_stdin,
            no_password=no_password,
            as_json=as_json,
        )
    )


@user.command()
@click.argument("name", metavar="NAME")
@_password_stdin
@_at_file
@as_json
def passwd(place: Place, name: str, *, from_stdin: bool, as_json: bool) -> None:
    """Give a user another password; app passwords stay as they are."""
    from elemta.cli.users import passwd as run

    raise SystemExit(run(place, name, from_stdin=from_stdin, as_json=as_json))


@user.command("list")
@_at_file
@as_json
def list_(place: Place, *, as_json: bool) -> None:
    """All users, but for their secrets."""
    from elemta.cli.users import show

    raise SystemExit(show(place, as_json=as_json))


@user.command()
@click.argument("name", metavar="NAME")
@_at_file
@as_json
def remove(place: Place, name: str, *, as_json: bool) -> None:
    """Remove a user with his app passwords; the server knows within a second."""
    from elemta.cli.users import remove as run

    raise SystemExit(run(place, name, as_json=as_json))


@user.command()
@click.argument("name", metavar="NAME")
@_at_file
@as_json
def disable(place: Place, name: str, *, as_json: bool) -> None:
    """Let a user not log in any more, whatever he comes with."""
    from elemta.cli.users import switch as run

    raise SystemExit(run(place, name, disabled=True, as_json=as_json))


@user.command()
@click.argument("name", metavar="NAME")
@_at_file
@as_json
def enable(place: Place, name: str, *, as_json: bool) -> None:
    """Let a user log in again."""
    from elemta.cli.users import switch as run

    raise SystemExit(run(place, name, disabled=False, as_json=as_json))


@user.group()
def app() -> None:
    """App passwords: one for each program, which can be taken away alone."""


@app.command("add")
@click.argument("name", metavar="NAME")
@click.argument("app_name", metavar="APP")
@_at_file
@as_json
def add_app(place: Place, name: str, app_name: str, *, as_json: bool) -> None:
    """Make an app password, and print it; nobody can see it again."""
    from elemta.cli.users import add_app as run

    raise SystemExit(run(place, name, app_name, as_json=as_json))


@app.command("list")
@click.argument("name", metavar="NAME")
@_at_file
@as_json
def list_apps(place: Place, name: str, *, as_json: bool) -> None:
    """A user's app passwords, and when each was used last."""
    from elemta.cli.users import show_apps as run

    raise SystemExit(run(place, name, as_json=as_json))


@app.command("remove")
@click.argument("name", metavar="NAME")
@click.argument("app_name", metavar="APP")
@_at_file
@as_json
def remove_app(place: Place, name: str, app_name: str, *, as_json: bool) -> None:
    """Take an app password away; the server knows within a second."""
    from elemta.cli.users import remove_app as run

    raise SystemExit(run(place, name, app_name, as_json=as_json))
