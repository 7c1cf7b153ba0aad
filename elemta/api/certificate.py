"""What the API shows to those who want to be sure that it is us."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio

from elemta.api.threads import in_thread
from elemta.config import ConfigError, Mistake
from elemta.files import stamps_of
from elemta.log import logger
from elemta.net.certificates import (
    LOOK,
    CertificateError,
    load_pair,
    server_context,
)

if TYPE_CHECKING:
    import ssl

    from elemta.api.threads import InThread
    from elemta.config import Api as Table

log = logger(__name__)


def context(table: Table) -> ssl.SSLContext:
    """What is shown to clients.

    Raises:
        ConfigError: as `load`.
    """
    tls = server_context()
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
    look = partial(stamps_of, (table.certificate, table.key))
    before = await in_thread(look, disk)
    while True:
        await trio.sleep(LOOK)
        now = await in_thread(look, disk)
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
    try:
        load_pair(tls, certificate, key)
    except CertificateError as error:
        place = "api.key" if error.of_key else "api.certificate"
        raise ConfigError(Mistake(place, str(error))) from error
