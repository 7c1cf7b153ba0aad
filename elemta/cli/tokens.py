"""Makes, shows and ends tokens, in the file that the server reads; it need not run."""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING

import click
import trio

from elemta import privileges
from elemta.api import tokens
from elemta.api.tokens import TokenFile, TokenFileError
from elemta.api.visit import Scope
from elemta.cli import codes
from elemta.cli.terminal import clock, say, say_json, span
from elemta.config import HostPort
from elemta.control.client import connect
from elemta.control.interface import ControlError
from elemta.privileges import StartError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from elemta.api.tokens import Token
    from elemta.config import Config
    from elemta.control.plain import Value


def create(
    config: Config,
    name: str,
    scopes: Sequence[str],
    expires: float | None,
    *,
    as_json: bool,
) -> int:
    """Make a token; returns the exit code.

    Args:
        config: of the server.
        name: what it is for.
        scopes: what it may do.
        expires: seconds until it ends; None: when it is revoked.
        as_json: answer for programs.
    """
    if not re.fullmatch(tokens.NAME, name):
        raise click.UsageError(
            f"expected a name of letters, digits, dots, dashes and underscores, not {name!r}"
        )

    def run(file: TokenFile) -> int:
        now = time.time()
        until = None if expires is None else now + expires
        token, text = tokens.issue(
            file, name, [Scope(scope) for scope in scopes], now=now, expires=until
        )
        if as_json:
            say_json({**plain(token), "token": text})
        else:
            say(text)
            say(f"{_line(token, now)}; this is the only time that the token is shown", err=True)
        return 0

    return _with_file(config, run, make_folder=True)


def show(config: Config, *, as_json: bool) -> int:
    """Print all tokens; returns the exit code."""

    def run(file: TokenFile) -> int:
        found = file.read().tokens
        if as_json:
            say_json([plain(token) for token in found])
        elif not found:
            say("there are no tokens")
        else:
            now = time.time()
            for token in found:
                say(_line(token, now))
        return 0

    return _with_file(config, run)


def revoke(config: Config, which: str, *, as_json: bool) -> int:
    """End a token; returns the exit code.

    Args:
        config: of the server.
        which: its id, or its name.
        as_json: answer for programs.
    """

    def run(file: TokenFile) -> int:
        named = [token.id for token in file.read().tokens if which in (token.id, token.name)]
        try:
            token = tokens.revoke(file, named[0] if named else which)
        except LookupError as error:
            say(f"elemta: {error.args[0]}", err=True)
            return codes.NOT_FOUND
        if as_json:
            say_json(plain(token))
        else:
            say(f"revoked {token.id} {token.name}")
        return 0

    return _with_file(config, run)


def link(config: Config, *, as_json: bool) -> int:
    """Make a one-time link; returns the exit code."""

    def run(file: TokenFile) -> int:
        found = trio.run(_urls, config)
        if not found:
            say("elemta: the configuration has no `api`, so there is nowhere to log in", err=True)
            return codes.MISCONFIGURED
        url = f"{found[0]}/login#once={tokens.invite(file, now=time.time())}"
        if as_json:
            say_json({"url": url, "expires_in": tokens.LINK_LIFETIME})
        else:
            say(url)
        return 0

    return _with_file(config, run, make_folder=True)


def plain(token: Token) -> dict[str, Value]:
    """A token as JSON has it, without its hash."""
    return {
        "id": token.id,
        "name": token.name,
        "scopes": [scope.value for scope in token.scopes],
        "created": token.created,
        "expires": token.expires,
        "used": token.used,
    }


def _line(token: Token, now: float) -> str:
    if token.expires is None:
        ends = "until it is revoked"
    elif token.good(now):
        ends = f"until {clock(token.expires)}"
    else:
        ends = "expired"
    used = "never used" if token.used is None else f"used {span(now - token.used)} ago"
    scopes = ",".join(scope.value for scope in token.scopes)
    return f"{token.id}  {token.name}  {scopes}  {ends}, {used}"


async def _urls(config: Config) -> tuple[str, ...]:
    """Where the API is, as the server says; if it does not run, as the configuration does."""
    try:
        with trio.move_on_after(2):
            async with connect(config.control_socket) as server:
                return (await server.status()).api
    except ControlError:
        pass
    if config.api is None:
        return ()
    scheme = "http" if config.api.certificate is None else "https"
    return tuple(
        f"{scheme}://{HostPort(each.host or config.hostname, each.port)}"
        for each in config.api.bindings
    )


def _with_file(
    config: Config, run: Callable[[TokenFile], int], *, make_folder: bool = False
) -> int:
    try:
        if make_folder and not config.data_dir.exists():
            # as the server would at its first start
            root = os.geteuid() == 0
            who = privileges.identity(config.user, allow_root=True) if root else None
            privileges.own(config.data_dir, who)
        return run(TokenFile(config.data_dir))
    except ValueError as error:
        say(f"elemta: {error}", err=True)
        return codes.USAGE
    except TokenFileError as error:
        say(f"elemta: {error}", err=True)
        denied = isinstance(error.__cause__, PermissionError)
        return codes.FORBIDDEN if denied else codes.UNREADABLE
    except StartError as error:
        say(f"elemta: {error}", err=True)
        return codes.UNREADABLE
