"""Services that are asked over HTTP, as configurations name them."""

from __future__ import annotations

from typing import Final, Self
from urllib.parse import urlsplit

from msgspec import Struct

from elemta.config.addresses import HostPort, Service, host_port

_PORTS: Final = {"http": 80, "https": 443}


class WebAddress(Struct, frozen=True):
    """Where something is asked over HTTP.

    Attributes:
        where: the host and its port.
        named: the same as the URL has it, for ``Host``.
        target: path and query.
        secure: in TLS.
    """

    where: HostPort
    named: str
    target: str
    secure: bool

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an URL.

        Raises:
            ValueError: it is none of HTTP, or has a user or a fragment in it.
        """
        wrong = ValueError("expected http://HOST:PORT/PATH or https://HOST/PATH")
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError:
            raise wrong from None
        fits = parts.scheme in _PORTS and parts.hostname and port != 0
        written = text.isascii() and text.isprintable() and not set(" #") & set(text)
        if not (fits and written) or "@" in parts.netloc:
            raise wrong
        try:
            where = host_port(parts.netloc, _PORTS[parts.scheme])
        except ValueError:
            raise wrong from None
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return cls(where, parts.netloc, target, parts.scheme == "https")

    @property
    def service(self) -> Service:
        """To connect to."""
        return Service(self.where)

    @property
    def keeps_secrets(self) -> bool:
        """Whether nobody on the way hears what is said: it is encrypted, or goes nowhere."""
        return self.secure or self.where.is_loopback
