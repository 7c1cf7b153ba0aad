"""What the API shows to those who want to be sure that it is us."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import trio

from elemta.api.threads import in_thread
from elemta.config import ConfigError, Mistake
from elemta.files import Watched
from elemta.log import logger
from elemta.net.certificates import LOOK, CertificateError, load_pair, server_context

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from elemta.api.threads import InThread
    from elemta.config import Api as Table

log = logger(__name__)

T = TypeVar("T")


class ApiCertificate:
    """A certificate and its key, as the configuration names them. To make it blocks.

    Args:
        certificate: its file.
        key: the file of its key.

    Raises:
        ConfigError: one of them cannot be read, is something else, or they do not fit together.

    Attributes:
        context: by which it is shown; it stays the same when there is a new one.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self.context = server_context()
        self.context.set_alpn_protocols(["http/1.1"])
        self._certificate, self._key = certificate, key
        self._files = Watched(
            (certificate, key),
            self._load,
            wrong=(ConfigError,),
            renewed=lambda _, _problem: log.info("api.certificate_renewed"),
            refused=lambda error: log.warning("api.certificate_refused", error=str(error)),
        )
        self._files.begin()

    @classmethod
    def of(cls, table: Table) -> ApiCertificate | None:
        """The one that is configured; None: the API is served in clear.

        Raises:
            ConfigError: as above.
        """
        if table.certificate is None or table.key is None:  # the configuration has both, or neither
            return None
        return cls(table.certificate, table.key)

    async def renew(self, in_thread: InThread = in_thread) -> None:
        """Show a new one once there is one, until cancelled. One that is wrong is not shown.

        Args:
            in_thread: where the disk is waited for.
        """
        disk = trio.CapacityLimiter(1)

        async def by_the_disk(call: Callable[[], T]) -> T:
            return await in_thread(call, disk)

        await self._files.run(LOOK, by_the_disk)

    def _load(self) -> None:
        """Read it; who comes from now on is shown it."""
        try:
            # Elsewhere first: OpenSSL would keep a certificate whose key it then refuses.
            for context in (server_context(), self.context):
                load_pair(context, self._certificate, self._key)
        except CertificateError as error:
            place = "api.key" if error.of_key else "api.certificate"
            raise ConfigError(Mistake(place, str(error))) from error
