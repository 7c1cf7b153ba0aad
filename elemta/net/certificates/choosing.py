"""Several certificates, of which each client is shown the right one, by the name it asks for."""

from __future__ import annotations

import ssl
import sys
from typing import TYPE_CHECKING, Final

from elemta.config import ConfigError, Mistake
from elemta.net.certificates.contexts import CertificateError, load_pair, server_context, trust
from elemta.net.certificates.describing import subject_of
from elemta.net.tls import Encryption

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from elemta.config import ClientCertificates, Tls
    from elemta.net.certificates.describing import Certificate

_DEMANDS: Final[dict[ClientCertificates, ssl.VerifyMode]] = {
    "off": ssl.CERT_NONE,
    "asked": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}


class _Asking(ssl.SSLObject):
    """A handshake of ours, which remembers whom the client asked for."""

    asked = ""


class ShownCertificates:
    """Several certificates, of which each client is shown the right one.

    Args:
        table: what was asked for.
        known: its certificates; there is one.
        demand: whether clients show theirs.

    Raises:
        ConfigError: the files have changed meanwhile, for the worse.
    """

    def __init__(
        self, table: Tls, known: Sequence[Certificate], demand: ClientCertificates
    ) -> None:
        self._verified = demand != "off"
        contexts = [
            _context(table, each.certificate, each.key, demand) for each in table.certificates
        ]
        self.context = contexts[0]
        self._by_name: dict[str, ssl.SSLContext] = {}
        self._contexts = contexts  # what an id stands for must live as long
        self._end_points: dict[int, bytes] = {}
        for context, each in zip(contexts, known, strict=True):
            self._end_points[id(context)] = each.end_point
            for name in each.names:
                self._by_name.setdefault(name, context)
        self.context.sslobject_class = _Asking
        self.context.sni_callback = self._choose

    def encryption(self, tls: ssl.SSLObject, version: str, cipher: str) -> Encryption:
        """See `elemta.net.tls.Shown`."""
        client = tls.getpeercert(binary_form=True) if self._verified else None
        return Encryption(
            version=version,
            cipher=cipher,
            server_name=tls.asked if isinstance(tls, _Asking) else "",
            client="" if client is None else subject_of(client),
            server_end_point=self._end_points.get(id(tls.context), b""),
        )

    def _choose(self, tls: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        """Called within the handshake, when the client says whom it wants (RFC 6066 §3)."""
        if name is None:
            return
        name = name.lower().rstrip(".")
        if isinstance(tls, _Asking):
            tls.asked = name
        by_name = self._by_name
        wanted = by_name.get(name) or by_name.get(f"*.{name.partition('.')[2]}")
        if wanted is not None and wanted is not self.context:
            tls.context = wanted


def ignore_strange_names() -> None:
    """Let nobody write into our log by asking for a name beyond ASCII.

    The `ssl` module refuses such a handshake by itself, before it asks us; but it prints a
    traceback to standard error, with what the client wrote, each time. The failure is logged as
    that of any handshake.
    """
    before = sys.unraisablehook

    def hear(told: sys.UnraisableHookArgs) -> None:
        of_name = isinstance(told.exc_value, UnicodeDecodeError)
        if not (of_name and isinstance(told.object, bytes)):
            before(told)

    sys.unraisablehook = hear


def _context(
    table: Tls, certificate: Path, key: Path, demand: ClientCertificates
) -> ssl.SSLContext:
    context = server_context(table.minimum)
    try:
        load_pair(context, certificate, key)
        context.verify_mode = _DEMANDS[demand]
        if demand != "off" and table.client_authorities is not None:
            trust(context, table.client_authorities)
    except CertificateError as error:  # as it is now; a moment ago it was right
        raise ConfigError(Mistake("tls", str(error))) from error
    return context
