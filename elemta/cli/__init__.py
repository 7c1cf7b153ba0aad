"""The `elemta` command: arguments to calls, results to exit codes.

What a command needs is imported when it runs, so that ``elemta version`` does not wait for Trio.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from typing_extensions import override

from elemta import __version__
from elemta.cli import codes, insight, plugins, watching
from elemta.cli.cert import cert
from elemta.cli.dkim import dkim
from elemta.cli.options import (
    as_json,
    at_server,
    config_option,
    configuration,
    misconfigured,
    sandbox_option,
)
from elemta.cli.queue import queue
from elemta.cli.token import token
from elemta.cli.user import user

if TYPE_CHECKING:
    from elemta.config import Config


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

    @override
    def invoke(self, ctx: click.Context) -> object:
        """Run a command; one that is called wrongly ends as sysexits.h has it."""
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            raise _MisusedError(error.format_message(), error.ctx) from None


class _MisusedError(click.UsageError):
    exit_code = codes.USAGE


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Elemta, a mail transfer agent."""


@main.command()
@config_option
@sandbox_option
@click.option("--port", type=click.IntRange(0, 65535), help="Another port for the sandbox.")
@click.option("--api-port", type=click.IntRange(0, 65535), help="Another for the sandbox's API.")
@click.option("--allow-root", is_flag=True, help="Stay root, if started as root without `user`.")
def serve(
    path: Path | None, *, sandbox: bool, port: int | None, api_port: int | None, allow_root: bool
) -> None:
    """Run the mail server until SIGTERM or Ctrl-C; SIGHUP reloads the configuration."""
    from elemta.cli.serving import serve as run

    config, found = configuration(path, sandbox=sandbox, port=port, api_port=api_port)
    raise SystemExit(run(config, found, allow_root=allow_root))


@main.command()
@config_option
def check(path: Path | None) -> None:
    """Say whether the configuration is right, and if not, where and what was expected."""
    from elemta.cli.summary import summary, warnings

    config, found = configuration(path, sandbox=False, port=None)
    doubts: list[str] = []
    if config.tls.files and found is not None:  # the sandbox makes its own
        from elemta.config import ConfigError, locate
        from elemta.net.certificates import Certificates

        try:
            for each in Certificates.read(config.tls).known:
                doubts += [f"{each.file}: {doubt}" for doubt in each.doubts(time.time())]
        except ConfigError as error:
            misconfigured(locate(error, found))
    if config.api is not None and config.api.certificate is not None:
        from elemta.api.certificate import ApiCertificate
        from elemta.config import ConfigError, locate

        try:
            ApiCertificate.of(config.api)
        except ConfigError as error:
            misconfigured(locate(error, found) if found else error)
    if config.routes and found is not None:  # those of the sandbox name no files
        from elemta.config import ConfigError, locate
        from elemta.delivery.keyring import Keyring

        try:
            Keyring(config)
        except ConfigError as error:
            misconfigured(locate(error, found))
    # The sandbox makes what its plugins need; where people must log in, a plugin must know them.
    asked = config.plugins or any(each.submission for each in config.listeners)
    if asked and found is not None:
        from elemta.config import ConfigError, locate
        from elemta.plugins import load_for

        try:
            for place, loaded in enumerate(load_for(config)):
                loaded.plugin.examine(f"plugins[{place}].settings")
        except ConfigError as error:
            misconfigured(locate(error, found))
    if config.maps or config.forwarding.srs:
        from elemta.config import ConfigError, Mistake, locate
        from elemta.maps import Maps, look_at, srs_of

        try:
            Maps(config.maps)
            for name, table in config.maps.items():
                if table.file is not None:
                    try:
                        look_at(table.file)
                    except (OSError, ValueError) as error:
                        why = getattr(error, "strerror", None) or error
                        raise ConfigError(
                            Mistake(f"maps.{name}.file", f"{table.file}: {why}")
                        ) from None
            srs_of(config.forwarding)
        except ConfigError as error:
            misconfigured(locate(error, found) if found else error)
    click.echo("\n".join(summary(config, found)))
    for warning in (*warnings(config), *doubts):
        click.echo(f"warning: {warning}", err=True)


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


main.add_command(queue)


@main.command()
@at_server
@as_json
def status(config: Config, *, as_json: bool) -> None:
    """How the running server is, on one screen."""
    from elemta.cli.screens import show_status

    raise SystemExit(show_status(config, as_json=as_json))


@main.command()
@click.option(
    "--scale",
    type=click.Choice(("hour", "day", "week", "month")),
    default="day",
    show_default=True,
    help="The last hour by minutes, day by hours, week or month by days of UTC.",
)
@at_server
@as_json
def statistics(config: Config, scale: str, *, as_json: bool) -> None:
    """How much happened, step by step."""
    from elemta.cli.screens import show_statistics

    raise SystemExit(show_statistics(config, scale, as_json=as_json))


@main.command()
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
@at_server
@as_json
def reload(config: Config, *, dry_run: bool, as_json: bool) -> None:
    """Let the running server read its configuration again, and say what changed."""
    from elemta.cli.steering import reload as run

    raise SystemExit(run(config, dry_run=dry_run, as_json=as_json))


main.add_command(watching.monitor)
main.add_command(insight.explain)
main.add_command(insight.sessions)
main.add_command(insight.trace)
main.add_command(insight.log)
main.add_command(insight.config_)
main.add_command(plugins.plugins)


main.add_command(cert)
main.add_command(token)
main.add_command(user)
main.add_command(dkim)


@main.command()
def version() -> None:
    """Say which version this is."""
    click.echo(f"elemta {__version__}")
