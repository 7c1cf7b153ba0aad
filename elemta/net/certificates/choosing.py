"""Several certificates, of which each client is shown the right one, by the name it asks for.

A name may have one for each kind of key: then OpenSSL shows the one that the client can check.
"""

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

    from elemta.config import Certificate as Pair
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
        #: Which are for a name: the first of each kind of key.
        by_name: dict[str, tuple[int, ...]] = {}
        for place, each in enumerate(known):
            for name in each.names:
                others = by_name.get(name, ())
                if all(known[other].kind != each.kind for other in others):
                    by_name[name] = (*others, place)
        usual = by_name[known[0].names[0]] if known[0].names else (0,)
        pairs = table.certificates
        contexts = {
            places: _context(table, [pairs[place] for place in places], demand)
            for places in dict.fromkeys((usual, *by_name.values()))
        }
        self.context = contexts[usual]
        self._by_name = {name: contexts[places] for name, places in by_name.items()}
        self._contexts = contexts  # what an id stands for must live as long
        self._shown = {
            id(context): [known[place] for place in places] for places, context in contexts.items()
        }
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
            server_end_point=self._end_point(self._shown.get(id(tls.context), []), cipher),
        )

    def _end_point(self, shown: Sequence[Certificate], cipher: str) -> bytes:
        """That of the one which the client was shown; empty: that is not known.

        OpenSSL takes the one that the client can check. Of TLS 1.2 the cipher tells which that was;
        in TLS 1.3 the two have nothing to do with each other, and the `ssl` module does not say.
        """
        if len(shown) > 1:
            shown = [each for each in shown if f"-{each.kind}-" in cipher]
        return shown[0].end_point if len(shown) == 1 else b""

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


def _context(table: Tls, pairs: Sequence[Pair], demand: ClientCertificates) -> ssl.SSLContext:
    context = server_context(table.minimum)
    try:
        for each in pairs:
            load_pair(context, each.certificate, each.key)
        context.verify_mode = _DEMANDS[demand]
        if demand != "off" and table.client_authorities is not None:
            trust(context, table.client_authorities)
    except CertificateError as error:  # as it is now; a moment ago it was right
        raise ConfigError(Mistake("tls", str(error))) from error
    return context
