"""Maps behind HTTP: one question a key, and whoever answers decides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import msgspec

from elemta.config import WebAddress
from elemta.maps.source import MapDownError, parts_of, values_of
from elemta.net.http import HttpError, connected, get
from elemta.net.tls import client_context

if TYPE_CHECKING:
    import ssl

    from elemta.net.services import Connects
    from elemta.threads import InThread

_LISTED: Final = msgspec.json.Decoder(list[str] | str)
#: Octets of an answer that are too many.
MOST: Final = 2**20


class Http:
    """See `Source`: 200 with a list in JSON, or with text; 404 means that it is not there.

    Args:
        url: ``{key}``, ``{local_part}`` and ``{domain}`` in it are replaced; without any of them
            the key comes at its end.
        connect: to the server.
        in_thread: reads whom the system trusts.
    """

    def __init__(self, url: str, connect: Connects, in_thread: InThread) -> None:
        self._address = address = WebAddress.parse(url)
        target = address.target
        self._target = target if "{" in target else f"{target}{{key}}"
        self._tls: ssl.SSLContext | None = None
        self._connect = connect
        self._in_thread = in_thread

    async def find(self, key: str, *, exact: bool = False) -> tuple[str, ...] | None:
        """See `Source`."""
        local_part, domain = parts_of(key)
        target = self._target
        for name, value in (("key", key), ("local_part", local_part), ("domain", domain)):
            target = target.replace(f"{{{name}}}", quote(value, safe=""))
        address = self._address
        if address.secure and self._tls is None:  # it takes 0.1 s: not while we are configured
            self._tls = await self._in_thread(lambda: client_context(verified=True))
        fields = [(b"Host", address.named.encode()), (b"Accept", b"application/json, text/plain")]
        try:
            async with connected(address, self._connect, self._tls) as stream:
                answer = await get(stream, target, fields, most=MOST)
        except HttpError as error:
            raise MapDownError(str(error)) from error
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise MapDownError(f"the server answers {answer.status}")
        return _read(answer.body)

    def close(self) -> None:
        """See `Source`: a connection serves one question."""


def _read(body: bytes) -> tuple[str, ...] | None:
    """The values: a list of strings, one string, or text with commas or lines between them."""
    try:
        if body.lstrip()[:1] in (b"[", b'"'):
            found = _LISTED.decode(body)
            values = (found,) if isinstance(found, str) else tuple(found)
        else:
            values = values_of(body.decode("utf-8").replace("\n", ","))
    except ValueError as error:
        raise MapDownError(f"an answer that is not understood: {error}") from error
    return values or None
