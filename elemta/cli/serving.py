"""Starts the daemon: binds, gives up root, runs, and says in one line why it could not."""

from __future__ import annotations

import codecs
import gc
import os
import shlex
import shutil
import sqlite3
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import dns.asyncbackend
import trio

from elemta import daemon, log, nodes, privileges
from elemta.cli import codes
from elemta.config import SANDBOX_API, ConfigError, locate, read
from elemta.listener.sockets import BindError, bind
from elemta.net.certificates import Certificates, ignore_strange_names
from elemta.nodes import LIFELINE, Place, inherited, places, share
from elemta.privileges import StartError
from elemta.queue import SpoolError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from elemta.api.opening import Api
    from elemta.config import Config
    from elemta.listener.sockets import BoundListener
    from elemta.net.transport import Endpoint

#: Who can log in at the sandbox.
SANDBOX_USER: Final = "you@example.org"

#: Could not start, in a way of which sysexits.h knows nothing.
CANNOT_START: Final = 1

#: Seconds after which a thread that computes gives way to another (Python's own is 0.005). The loop
#: gives way at each call of the kernel, and waits so long for a thread that reads a page of the
#: queue for somebody: with 50 messages a second coming in meanwhile, 99 of 100 were answered in
#: 20 ms instead of 30. Accepting as fast as can be takes neither more nor less of it.
SWITCH: Final = 0.0005


def serve(config: Config, path: Path | None, *, allow_root: bool) -> int:
    """Run the daemon until it is stopped.

    Args:
        config: what to run.
        path: the file that it is from; None: it is the sandbox's.
        allow_root: root may stay root; in the sandbox it always may.

    Returns:
        The exit code.
    """
    log.configure(config.log.format, config.log.level)
    place = Place.told(os.environ)
    if place is not None:  # the first process of a server has started us
        log.identify(node=place.number)
        config = share(config, place)
    try:
        who = privileges.identity(config.user, allow_root=allow_root or path is None)
        privileges.open_files(config.limits.connections, config.delivery.max_connections)
        password = None
        if path is None:
            _have_certificate(config)
            password = _have_user(config)
        # while we may still read keys
        certificates = Certificates.read(config.tls)
        # while we may still open ports below 1024
        bound = bind(config) if place is None else inherited(config, os.environ)
        api = _open_api(config, sandbox=path is None) if place is None else None
        privileges.own(config.data_dir, who)
        if who is not None:
            _load_what_comes_late()
            privileges.drop(who)
            _see_that_keys_stay_readable(config)
        privileges.writable(config.data_dir)
        _spare_the_collector()
        ignore_strange_names()
        sys.setswitchinterval(SWITCH)
        link = api.invite(always=path is None) if api is not None else None
        if link is not None and path is not None:
            click.echo(f"elemta: to log in, once and within an hour: {link}", err=True)
        if path is None:
            invite = partial(_invite, config, link, password)
            run = partial(daemon.run, api=api, ready=invite, certificates=certificates)
            trio.run(partial(run, config, bound))
        elif place is not None:
            trio.run(_node(config, bound, path.absolute(), place, certificates))
        elif len(wanted := places(config)) > 1:
            privileges.runnable(sys.executable)
            command = [sys.executable, *sys.orig_argv[1:]]  # as this process was started
            file = path.absolute()
            trio.run(partial(nodes.run, config, bound, wanted, command=command, file=file, api=api))
        else:
            file = path.absolute()
            run = partial(daemon.run, api=api, reread=partial(read, file), file=str(file))
            trio.run(partial(run, config, bound, certificates=certificates))
    except (StartError, BindError, SpoolError, sqlite3.Error) as error:
        log.flush()
        click.echo(f"elemta: {error}", err=True)
        return CANNOT_START
    except ConfigError as error:  # a plugin does not take its settings
        log.flush()
        click.echo(str(_located(error, path)), err=True)
        return codes.MISCONFIGURED
    except KeyboardInterrupt:  # before the daemon heeds signals
        return CANNOT_START
    except Exception:
        log.logger(__name__).exception("daemon.failed")
        return codes.FAULT
    finally:
        log.flush()
    return 0


def _open_api(config: Config, *, sandbox: bool) -> Api | None:
    """Open the API, if there is to be one. What it takes is not even imported otherwise."""
    if config.api is None:
        return None
    from elemta.api.opening import open_api
    from elemta.api.serve import OF_ALL

    privileges.more_files(OF_ALL)
    if sandbox:  # another one may run, and mail must not stop for that
        own = config.api.address == SANDBOX_API
        return open_api(config, inbox=config.data_dir / "mail", elsewhere=own)
    return open_api(config)


def _node(
    config: Config,
    bound: Sequence[BoundListener],
    path: Path,
    place: Place,
    certificates: Certificates,
) -> Callable[[], Awaitable[None]]:
    """What one of several processes runs, as long as the first of them does."""
    return partial(
        daemon.run,
        config,
        bound,
        reread=lambda: share(read(path), place),
        file=str(path),
        queue_dir=place.queue(config.data_dir),
        exchange=place.exchange(config.data_dir, time.time),
        until=partial(trio.lowlevel.wait_readable, int(os.environ[LIFELINE])),
        certificates=certificates,
    )


def _spare_the_collector() -> None:
    """Let the cyclic garbage collector look seldom, and not at what was there from the start.

    A message makes hundreds of objects that are gone with it, without cycles; with thousands of
    messages in memory each full collection walks over all of them. Measured on a noisy machine:
    3 to 10 % of the CPU of a message.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def _load_what_comes_late() -> None:
    """Import what others import at its first use: whom we become may not read where it lies."""
    dns.asyncbackend.get_backend("trio")
    for name in ("idna", "punycode"):
        codecs.lookup(name)


def _have_certificate(sandbox: Config) -> None:
    """Make the sandbox's certificate, unless there is one that is good.

    Raises:
        StartError: it cannot be written.
    """
    from elemta.net.self_signed import have_self_signed

    privileges.own(sandbox.data_dir, None)
    pair = sandbox.tls.certificates[0]
    try:
        have_self_signed(
            *(pair.certificate, pair.key, ["localhost"], ["127.0.0.1", "::1"]), now=time.time()
        )
    except OSError as error:
        problem = f"{pair.certificate} cannot be made: {error.strerror or error}"
        raise StartError(problem) from error


def _have_user(sandbox: Config) -> str | None:
    """Make the sandbox's file of users, with one in it, unless there is a file.

    Returns:
        His password, which is kept nowhere; None: there is a file.

    Raises:
        StartError: it cannot be written.
    """
    from elemta.login import (
        ScramVerifier,
        User,
        UserFile,
        UserFileError,
        hash_password,
        make_app_password,
    )

    path = _users(sandbox)
    if path.exists():
        return None
    password = make_app_password()
    made = User(password=hash_password(password), scram=str(ScramVerifier.of(password)))
    try:
        UserFile(path).change(lambda users: users.update({SANDBOX_USER: made}), make=True)
    except UserFileError as error:
        raise StartError(str(error)) from error
    return password


def _users(sandbox: Config) -> Path:
    return sandbox.data_dir / "users.yaml"


def _see_that_keys_stay_readable(config: Config) -> None:
    """Try whether whom we have become can read what clients are shown, once that is new.

    Raises:
        ConfigError: it cannot, and there are several nodes, each of which has to.
    """
    try:
        Certificates.read(config.tls)
    except ConfigError as error:
        if config.nodes > 1:
            raise
        log.logger(__name__).warning("tls.cannot_be_renewed", error=str(error), user=config.user)


def _located(error: ConfigError, path: Path | None) -> ConfigError:
    """The error with lines, if the file can still be read by whom we have become."""
    try:
        return locate(error, path) if path is not None else error
    except OSError:
        return error


def _invite(
    config: Config, link: str | None, password: str | None, addresses: list[Endpoint]
) -> None:
    """Say what to try in the sandbox, with commands that work as they stand."""
    (host, port), people = addresses[0], addresses[1]
    elemta = _command()
    to = "" if port == 2525 else f" --port {port}"
    directory = _shown(config.data_dir)
    if password is None:
        again = f"{elemta} user passwd {SANDBOX_USER} --file {_shown(_users(config))}"
        secret = f"the password of the first start; another one by\n    {again}"
    else:
        secret = f"password {password}, which is shown this once"
    click.echo(
        f"""\
Elemta's sandbox takes mail on {host}:{port}, keeps all of it in {directory}, and sends none away.
Try, in another terminal:

    cd {shlex.quote(str(Path.cwd()))}
    {elemta} send{to} --to you@example.org --subject "It works" --text "Hello."
    {elemta} queue stats --sandbox
    cat {directory}/mail/example.org/you/new/*

Any mail program will do; {host}:{port} is its server, with STARTTLS if it likes.
Who logs in does at {people}: {SANDBOX_USER}, {secret}
Ctrl-C stops it.
In a browser, once and within an hour: {link}
"""
    )


def _command() -> str:
    """How this command was called, as one would type it."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m elemta"
    on_path = shutil.which(called.name)
    if on_path is not None and Path(on_path).resolve() == called.resolve():
        return called.name
    return shlex.quote(sys.argv[0])


def _shown(directory: Path) -> str:
    """A directory as one would type it."""
    here = Path.cwd()
    near = directory.relative_to(here) if directory.is_relative_to(here) else directory
    return shlex.quote(str(near))
