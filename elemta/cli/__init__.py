"""The `elemta` command: arguments to calls, results to exit codes.

What a command needs is imported when it runs, so that ``elemta version`` does not wait for Trio.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import click
from typing_extensions import override

from elemta import __version__

if TYPE_CHECKING:
    from elemta.config import Config

#: Exit codes, as sysexits.h has them.
USAGE: Final = 64
MISCONFIGURED: Final = 78

#: Where the configuration is looked for, if nobody says.
CONFIG: Final = Path("/etc/elemta/elemta.yaml")
#: The sandbox's data directory, below the current one.
SANDBOX: Final = Path("elemta-data")


class _Commands(click.Group):
    """Commands in the order in which people need them, and other names that they go by."""

    ALIASES: Final = {"server": "serve"}

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order in which they were added."""
        return list(self.commands)

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Find a command by one of its names."""
        return super().get_command(ctx, self.ALIASES.get(cmd_name, cmd_name))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Elemta, a mail transfer agent."""


_config_option = click.option(
    "-c",
    "--config",
    "path",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The configuration; else $ELEMTA_CONFIG, /etc/elemta/elemta.yaml, or the sandbox.",
)
_sandbox_option = click.option(
    "--sandbox",
    is_flag=True,
    help="No configuration: take mail on 127.0.0.1:2525, keep all of it in ./elemta-data.",
)
_json_option = click.option("--json", "as_json", is_flag=True, help="For programs.")


@main.command()
@_config_option
@_sandbox_option
@click.option("--port", type=click.IntRange(0, 65535), help="Another port for the sandbox.")
@click.option("--allow-root", is_flag=True, help="Stay root, if started as root without `user`.")
def serve(path: Path | None, *, sandbox: bool, port: int | None, allow_root: bool) -> None:
    """Run the mail server until SIGTERM or Ctrl-C; SIGHUP reloads the configuration."""
    from elemta.cli.serving import serve as run

    config, found = configuration(path, sandbox=sandbox, port=port)
    raise SystemExit(run(config, found, allow_root=allow_root))


@main.command()
@_config_option
def check(path: Path | None) -> None:
    """Say whether the configuration is right, and if not, where and what was expected."""
    from elemta.cli.summary import summary

    config, found = configuration(path, sandbox=False, port=None)
    if config.plugins:
        from elemta.config import ConfigError, locate
        from elemta.plugins import load

        try:
            load(config.plugins)
        except ConfigError as error:
            misconfigured(locate(error, found) if found else error)
    click.echo("\n".join(summary(config, found)))


@main.command()
@click.option("--to", "recipients", metavar="ADDRESS", multiple=True, required=True)
@click.option("--from", "sender", metavar="ADDRESS", help="Who sends it; '' is the null sender.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(1, 65535), default=2525, show_default=True)
@click.option("--lmtp", is_flag=True, help="Speak LMTP.")
@click.option("--subject", metavar="TEXT", help="Of a message that is made here.")
@click.option("--text", metavar="TEXT", help="Of a message that is made here.")
@click.option(
    "--file",
    "source",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    help="A whole message, header and all; - or nothing is standard input.",
)
@click.option("-v", "--verbose", is_flag=True, help="Show the conversation.")
def send(
    recipients: tuple[str, ...],
    sender: str | None,
    host: str,
    port: int,
    subject: str | None,
    text: str | None,
    source: Path | None,
    *,
    lmtp: bool,
    verbose: bool,
) -> None:
    """Hand in a message by SMTP, and print the server's answer."""
    from elemta.cli.sending import compose, hand_in, mailbox

    if source is not None and (subject is not None or text is not None):
        raise click.UsageError("--file is a whole message: --subject and --text make another")
    try:
        to = [mailbox(each, "--to") for each in recipients]
        from_ = None if sender == "" else mailbox(sender, "--from")
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if subject is not None or text is not None:
        content = compose(from_, to, subject or "", text or "")
    elif source is None or str(source) == "-":
        content = sys.stdin.buffer.read()
    else:
        content = source.read_bytes()
    raise SystemExit(hand_in(content, from_, to, host=host, port=port, lmtp=lmtp, verbose=verbose))


@main.group()
def queue() -> None:
    """Look at the queue, whether the server runs or not."""


@queue.command("list")
@_config_option
@_sandbox_option
@click.option("--state", type=click.Choice(["ready", "deferred", "held"]), help="Only these.")
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True)
@_json_option
def queue_list(
    path: Path | None, state: str | None, limit: int, *, sandbox: bool, as_json: bool
) -> None:
    """One line a message that waits."""
    from elemta.cli.inspection import show_list

    config, _ = configuration(path, sandbox=sandbox, port=None)
    raise SystemExit(show_list(config, state=state, limit=limit, as_json=as_json))


@queue.command("show")
@click.argument("id_", metavar="ID")
@_config_option
@_sandbox_option
@_json_option
def queue_show(id_: str, path: Path | None, *, sandbox: bool, as_json: bool) -> None:
    """One message: its recipients, and every attempt. Finished ones too."""
    from elemta.cli.inspection import show_message

    config, _ = configuration(path, sandbox=sandbox, port=None)
    raise SystemExit(show_message(config, id_, as_json=as_json))


@queue.command("stats")
@_config_option
@_sandbox_option
@_json_option
def queue_stats(path: Path | None, *, sandbox: bool, as_json: bool) -> None:
    """How many wait, and for how long."""
    from elemta.cli.inspection import show_stats

    config, _ = configuration(path, sandbox=sandbox, port=None)
    raise SystemExit(show_stats(config, as_json=as_json))


@main.command()
def version() -> None:
    """Say which version this is."""
    click.echo(f"elemta {__version__}")


def configuration(
    path: Path | None, *, sandbox: bool, port: int | None
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
        if port is None:
            return config.sandbox(SANDBOX.resolve()), None
        return config.sandbox(SANDBOX.resolve(), f"127.0.0.1:{port}"), None
    if port is not None:
        raise click.UsageError("--port is for the sandbox; the configuration has `listeners`")
    try:
        return config.read(path), path
    except config.ConfigError as error:
        misconfigured(error)


def misconfigured(error: Exception) -> NoReturn:
    """Say what is wrong with the configuration, and end the process."""
    click.echo(str(error), err=True)
    raise SystemExit(MISCONFIGURED)
