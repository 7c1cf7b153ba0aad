"""Opens the API before the server runs: its sockets, its certificate, its tokens."""

from __future__ import annotations

import errno
import ipaddress
import time
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import msgspec
import trio

from elemta.api import serve, tokens
from elemta.api.access import Entrance
from elemta.api.app import create_app
from elemta.api.audit import AuditLog
from elemta.api.certificate import ApiCertificate
from elemta.api.exposition import add_metrics
from elemta.api.guesses import Guesses
from elemta.api.health import add_health
from elemta.api.hosts import Hosts
from elemta.api.keys import Keys
from elemta.api.pages import contents
from elemta.api.sessions import Sessions
from elemta.api.site import Site
from elemta.api.tokens import TokenFile, TokenFileError
from elemta.config import HostPort
from elemta.listener.sockets import BindError, listen
from elemta.log import logger
from elemta.privileges import StartError

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import AsyncGenerator, Callable, Sequence
    from pathlib import Path

    from elemta.config import Api as Table
    from elemta.config import Config
    from elemta.control.interface import Control
    from elemta.supervision import Keeps

log = logger(__name__)

#: Seconds within which all ends, once it was told to stop.
PATIENCE: Final = 3.0


class Api:
    """The API of a server, from its start to its end.

    Args:
        config: of the server.
        sockets: listening.
        shown: to clients; None: they are served in clear.
        inbox: where a sandbox keeps mail; None: it is no sandbox.

    Attributes:
        urls: where it is found.
    """

    def __init__(
        self,
        config: Config,
        table: Table,
        sockets: Sequence[socket.socket],
        shown: ApiCertificate | None,
        inbox: Path | None,
    ) -> None:
        self._tls = tls = None if shown is None else shown.context
        self.urls = tuple(_url(config, sock, tls) for sock in sockets)
        self._table = table
        self._sockets = tuple(sockets)
        self._shown = shown
        self._inbox = inbox
        self._file = TokenFile(config.data_dir)
        self._clock = clock = time.time
        self._keys = Keys(self._file, clock)
        self._access = Entrance(
            self._keys,
            Sessions(clock),
            Guesses(time.monotonic),
            origins=table.origins,
            secure=tls is not None,
        )
        self._audit = AuditLog(config.data_dir, clock)
        self._stopping = trio.Event()

    def invite(self, *, always: bool = False) -> str | None:
        """Make a one-time link, if nobody was ever let in.

        Whoever calls shows it to people, and not by the log: who may read that, with a token, is
        no admin.

        Args:
            always: make one in any case.

        Returns:
            Its address; None: there was a token, or a link, before.

        Raises:
            StartError: it cannot be written down.
        """
        try:
            if not always and self._file.exists():
                return None
            link = tokens.invite(self._file, now=self._clock())
        except TokenFileError as error:
            raise StartError(str(error)) from error
        return f"{self.urls[0]}/login#once={link}"

    async def run(self, steered_by: Callable[[str], Control]) -> None:
        """Serve until it is to stop. May be called again, if it fails.

        Args:
            steered_by: the server, as somebody steers it.

        Raises:
            Exception: a fault of ours.
        """
        site = Site(
            steered_by=steered_by,
            access=self._access,
            audit=self._audit,
            clock=self._clock,
            inbox=self._inbox,
            stopping=self._stopping,
        )
        app = create_app(site)
        add_health(app, site)
        add_metrics(app, site, open=self._table.metrics)
        names = _names(self._table)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keys.run)
            nursery.start_soon(self._audit.run)
            if self._shown is not None:
                nursery.start_soon(self._shown.renew)
            log.info("api.ready", urls=" ".join(self.urls))
            guarded = app if names is None else Hosts(app, names)
            await serve.run(guarded, self._sockets, self._stopping, tls=self._tls)
            nursery.cancel_scope.cancel()

    @asynccontextmanager
    async def serving(
        self, keep: Keeps, steered_by: Callable[[str], Control]
    ) -> AsyncGenerator[None]:
        """Serve as long as the context is open, and then until all is cut off.

        Args:
            keep: runs it as a part of the server: whatever becomes of it, mail goes on.
            steered_by: the server, as somebody steers it.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep, "api", partial(self.run, steered_by))
            yield
            self._stopping.set()
            nursery.cancel_scope.deadline = trio.current_time() + PATIENCE

    def close(self) -> None:
        """Close the sockets."""
        for each in self._sockets:
            each.close()


def open_api(config: Config, *, inbox: Path | None = None, elsewhere: bool = False) -> Api | None:
    """Open the API that the configuration asks for, while we may still do so.

    Args:
        config: of the server.
        inbox: where a sandbox keeps mail; None: it is no sandbox.
        elsewhere: take any free port of this machine, if the one that is wanted is taken.

    Returns:
        It; None: none is asked for.

    Raises:
        BindError: an address is taken, not ours, or not permitted.
        ConfigError: there is something wrong with the certificate.

    Resource handling:
        `close` it.
    """
    if (table := config.api) is None:
        return None
    contents()
    shown = ApiCertificate.of(table)
    try:
        sockets = _bind(table)
    except BindError as error:
        if not elsewhere or not isinstance(error.__cause__, OSError):
            raise
        if error.__cause__.errno != errno.EADDRINUSE:
            raise
        sockets = _bind(msgspec.structs.replace(table, address="127.0.0.1:0"))
    if shown is None and _names(table) is None:
        log.warning("api.in_clear", address=" ".join(map(str, table.bindings)))
    return Api(config, table, sockets, shown, inbox)


def _bind(table: Table) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    for binding in table.bindings:
        try:
            sockets += listen(binding)
        except OSError as error:
            for each in sockets:
                each.close()
            raise BindError(f"api.address: {binding}: {error.strerror or error}") from error
    return sockets


def _url(config: Config, sock: socket.socket, tls: ssl.SSLContext | None) -> str:
    host, port = sock.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = config.hostname
    return f"{'http' if tls is None else 'https'}://{HostPort(host, port)}"


def _names(table: Table) -> set[str] | None:
    """The names that we may be asked for by; None: by any, since others than this machine ask."""
    names = {binding.host.lower() for binding in table.bindings}
    for name in names:
        try:
            if not ipaddress.ip_address(name).is_loopback:
                return None
        except ValueError:
            if name != "localhost":
                return None
    return names | {urlsplit(origin).hostname or "" for origin in table.origins}
