"""The commands about plugins: those of the running server, and a new one of your own.

What a command needs is imported when it runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click
from typing_extensions import override

from elemta.cli import codes, insight

#: What `elemta.plugins.KINDS` has.
KINDS: Final = (
    *("connection", "hello", "authentication", "mail", "rcpt", "greylisting", "data", "security"),
    *("queue", "routing", "delivery", "storage"),
)


class _Plugins(click.Group):
    """What is no command of its own is for the running server."""

    @override
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Split the arguments."""
        if args[:1] != ["new"]:
            args = ["list", *(args[1:] if args[:1] == ["list"] else args)]
        return super().parse_args(ctx, args)


@click.group(cls=_Plugins, short_help=insight.plugins.get_short_help_str(60))
def plugins() -> None:
    """Plugins: those of the running server, and new ones."""


@plugins.command()
@click.argument("name")
@click.option(
    "--kind",
    "kinds",
    type=click.Choice(KINDS),
    multiple=True,
    help="What it has something to say about; may be said several times. Else data.",
)
@click.option(
    "--into",
    "folder",
    metavar="FOLDER",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path(),
    help="Where its folder is made; else here.",
)
def new(name: str, kinds: tuple[str, ...], folder: Path) -> None:
    """Write the package of a new plugin into a folder of its name, with tests that pass."""
    from elemta.cli.new_plugin import CannotBeCalledError, write

    try:
        written = write(name, kinds, folder)
    except CannotBeCalledError as error:
        raise click.UsageError(str(error)) from None
    except FileExistsError:
        click.echo(f"{folder / name} is there already; nothing was written", err=True)
        raise SystemExit(codes.USAGE) from None
    except OSError as error:
        click.echo(f"{folder / name} cannot be written: {error.strerror or error}", err=True)
        raise SystemExit(codes.UNREADABLE) from None
    for path in written:
        click.echo(str(path))
    click.echo(f"\nTry it:  cd {folder / name} && pip install -e '.[test]' && pytest")


plugins.add_command(insight.plugins, "list")
