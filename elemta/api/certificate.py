"""What the API shows to those who want to be sure that it is us."""

from __future__ import annotations

import ssl
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from elemta.api.threads import in_thread
from elemta.config import ConfigError, Mistake
from elemta.log import logger

if TYPE_CHECKING:
    from elemta.api.threads import InThread
    from elemta.config import Api as Table

log = logger(__name__)

#: Seconds between two looks whether there is a new certificate.
LOOK: Final = 60.0


def context(table: Table) -> ssl.SSLContext:
    """What is shown to clients.

    Raises:
        ConfigError: as `load`.
    """
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.minimum_version = ssl.TLSVersion.TLSv1_2
    tls.set_alpn_protocols(["http/1.1"])
    load(table, tls)
    return tls


async def renew(table: Table, tls: ssl.SSLContext, in_thread: InThread = in_thread) -> None:
    """Show a new certificate once there is one, until cancelled. One that is wrong is not shown.

    Args:
        table: where they are.
        tls: what is shown to clients.
        in_thread: where the disk is waited for.
    """
    disk = trio.CapacityLimiter(1)
    before = await in_thread(partial(stamps, table), disk)
    while True:
        await trio.sleep(LOOK)
        now = await in_thread(partial(stamps, table), disk)
        if now == before:
            continue
        before = now
        try:
            # Elsewhere first: OpenSSL would keep a certificate whose key it then refuses.
            await in_thread(partial(context, table), disk)
            await in_thread(partial(load, table, tls), disk)
        except ConfigError as error:
            log.warning("api.certificate_refused", error=str(error))
        else:
            log.info("api.certificate_renewed")


def load(table: Table, tls: ssl.SSLContext) -> None:
    """Read the certificate and its key; who comes from now on is shown them.

    Raises:
        ConfigError: one of them cannot be read, is something else, or they do not fit together.
    """
    certificate, key = table.certificate, table.key
    assert certificate is not None, "nobody asks for TLS without one"
    assert key is not None, "the configuration has both or neither"
    for place, path in (("api.certificate", certificate), ("api.key", key)):
        try:
            path.open("rb").close()
        except OSError as error:
            problem = f"{path} cannot be read: {error.strerror or error}"
            raise ConfigError(Mistake(place, problem)) from error
    try:
        # A key that wants a password must not make us ask for one on a terminal.
        tls.load_cert_chain(certificate, key, password=lambda: "")
    except (ssl.SSLError, ValueError, OSError) as error:
        problem = f"{certificate} and {key} are no certificate and its key, both PEM: {_why(error)}"
        raise ConfigError(Mistake("api.certificate", problem)) from error


def stamps(table: Table) -> list[tuple[int, int, int] | None]:
    """Differ once one of the files is another."""
    found: list[tuple[int, int, int] | None] = []
    for path in (table.certificate, table.key):
        try:
            stat = path.stat() if path is not None else None
        except OSError:
            stat = None
        found.append(stat and (stat.st_mtime_ns, stat.st_ino, stat.st_size))
    return found


def _why(error: Exception) -> str:
    reason: str | None = getattr(error, "reason", None)
    return reason.lower().replace("_", " ") if reason else str(error)
