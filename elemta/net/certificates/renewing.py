"""Certificates that servers show, and those that are shown when their files are others.

What is shown is a value: whoever has it goes on showing it. New files make a new one, so that no
session is dropped when they change, and none is half new; and what is wrong never becomes one.
"""

from __future__ import annotations

import math
import ssl
from typing import TYPE_CHECKING, Final

import trio

from elemta.config import Change, ConfigError, Mistake, Tls
from elemta.files import Watched
from elemta.log import logger
from elemta.net.certificates.choosing import ShownCertificates
from elemta.net.certificates.contexts import CertificateError, trust
from elemta.net.certificates.describing import DAY, examine
from elemta.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from elemta.config import ClientCertificates
    from elemta.net.certificates.describing import Certificate
    from elemta.threads import InThread

log = logger(__name__)

#: Seconds between two looks whether there are new files.
LOOK: Final = 60.0

_NONE: Final[Mapping[ClientCertificates, ShownCertificates]] = {}


class Certificates:
    """What clients of listeners are shown. Made by `read`.

    Args:
        table: what was asked for.
        known: in the order of the table.
        shown: them, by what is demanded of clients.
        files: where they are from; None: nowhere.
    """

    def __init__(
        self,
        table: Tls,
        known: tuple[Certificate, ...] = (),
        shown: Mapping[ClientCertificates, ShownCertificates] = _NONE,
        files: Watched[Certificates] | None = None,
    ) -> None:
        self.table = table
        self.known = known
        self._shown = shown
        self._files = files

    @classmethod
    def read(cls, table: Tls) -> Certificates:
        """Read the files; blocks.

        Raises:
            ConfigError: one of them cannot be read, is something else, or they do not fit together.
        """
        files: Watched[Certificates] = Watched(
            table.files,
            lambda: cls(table, *_read(table), files),
            wrong=(ConfigError,),
            renewed=_hear_renewed,
            refused=_hear_refused,
        )
        return files.begin()

    @property
    def refused(self) -> str:
        """Why what lies there by now is not shown in their place; empty: it is they."""
        return "" if self._files is None else self._files.problem

    def anew(self, table: Tls) -> Certificates:
        """Those that a table asks for by now; blocks.

        Where the table is the same and its files cannot be read, these go on being shown: as
        nobody we may not read them, and that must not keep a configuration from its reload.

        Raises:
            ConfigError: as `read`, for another table.
        """
        if table != self.table:
            return Certificates.read(table)
        return self.newest()

    def newest(self) -> Certificates:
        """Those that the same files have by now: these, if they are the same or no good; blocks.

        What is wrong with them the log has, once for each time that they change.
        """
        if self._files is None:
            return self
        self._files.look(wait=True)
        return self._files.content

    def since(self, before: Certificates) -> Iterator[Change]:
        """Which of the same files have other certificates than before."""
        if self.table == before.table:
            for place, (old, new) in enumerate(zip(before.known, self.known, strict=True)):
                if old != new:
                    yield Change(f"tls.certificates[{place}]", str(old), str(new))

    def complain(self, now: float) -> None:
        """Say in the log which of them are no good, or will not be soon.

        Args:
            now: seconds since the epoch.
        """
        for each in self.known:
            if (complaint := each.complaint(now)) is not None:
                log.warning(
                    "tls.certificate_old",
                    name=each.name,
                    file=str(each.file),
                    problem=f"it {complaint}",
                )
            if each.open_key:
                problem = "everybody on this machine may read its key"
                log.warning("tls.key_open", name=each.name, file=str(each.file), problem=problem)

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self.known)

    def shown(self, demand: ClientCertificates) -> ShownCertificates:
        """What is shown to clients of whom this is demanded; there are certificates."""
        return self._shown[demand]


def _read(
    table: Tls,
) -> tuple[tuple[Certificate, ...], Mapping[ClientCertificates, ShownCertificates]]:
    """Certificates, and they as they are shown, by what is demanded of clients.

    Raises:
        ConfigError: see `Certificates.read`.
    """
    known: list[Certificate] = []
    mistakes: list[Mistake] = []
    for index, each in enumerate(table.certificates):
        place = f"tls.certificates[{index}]"
        try:
            known.append(examine(each.certificate, each.key))
        except CertificateError as error:
            key = "key" if error.of_key else "certificate"
            mistakes.append(Mistake(f"{place}.{key}", str(error)))
    if (authorities := table.client_authorities) is not None:
        try:
            trust(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), authorities)
        except CertificateError as error:
            mistakes.append(Mistake("tls.client_authorities", str(error)))
    if mistakes:
        raise ConfigError(*mistakes)
    demands: tuple[ClientCertificates, ...] = ("off", "asked", "required")
    # For all, since the keys may be out of reach once we are nobody.
    return tuple(known), {
        demand: ShownCertificates(table, known, demand)
        for demand in (demands if authorities else demands[:1])
        if known
    }


def _hear_renewed(found: Certificates, _problem: str) -> None:
    log.info("tls.certificate_renewed", names=" ".join(each.name for each in found.known))


def _hear_refused(error: Exception) -> None:
    log.warning("tls.certificate_refused", error=str(error))


async def renew(
    shown: Callable[[], Certificates],
    show: Callable[[Certificates], None],
    clock: Callable[[], float],
    in_thread: InThread = in_thread,
) -> None:
    """Show new certificates once there are some, and complain of old ones daily; until cancelled.

    Args:
        shown: those that are shown now.
        show: shows others.
        clock: seconds since the epoch.
        in_thread: runs what blocks.
    """
    complained = -math.inf
    while True:
        known = shown()
        if (now := clock()) - complained >= DAY:
            complained = now
            known.complain(now)
        await trio.sleep(LOOK)
        known = shown()
        found = await in_thread(known.newest)
        if found is not known and shown() is known:  # a reload may have been faster
            complained = -math.inf
            show(found)
