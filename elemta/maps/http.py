"""Maps behind HTTP: one question a key, and whoever answers decides."""

from __future__ import annotations

import ssl
from contextlib import aclosing
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlsplit

import msgspec
import trio

from elemta.config import Service
from elemta.maps.source import MapDownError, parts_of, values_of
from elemta.net.http import HttpError, get

if TYPE_CHECKING:
    from elemta.net.services import Connects

_LISTED: Final = msgspec.json.Decoder(list[str] | str)
#: Octets of an answer that are too many.
MOST: Final = 2**20


class Http:
    """See `Source`: 200 with a list in JSON, or with text; 404 means that it is not there.

    Args:
        url: ``{key}``, ``{local_part}`` and ``{domain}`` in it are replaced; without any of them
            the key comes at its end.
        connect: to the server.
    """

    def __init__(self, url: str, connect: Connects) -> None:
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        host = parts.hostname or ""
        self._service = Service.parse(f"{_bracketed(host)}:{parts.port or (443 if secure else 80)}")
        self._host = parts.netloc.encode()
        self._name = host
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._target = target if "{" in target else f"{target}{{key}}"
        self._tls = ssl.create_default_context() if secure else None
        self._connect = connect

    async def find(self, key: str) -> tuple[str, ...] | None:
        """See `Source`."""
        local_part, domain = parts_of(key)
        target = self._target
        for name, value in (("key", key), ("local_part", local_part), ("domain", domain)):
            target = target.replace(f"{{{name}}}", quote(value, safe=""))
        fields = [(b"Host", self._host), (b"Accept", b"application/json, text/plain")]
        try:
            async with aclosing(await self._open()) as stream:
                answer = await get(stream, target, fields, most=MOST)
        except (OSError, HttpError, trio.BrokenResourceError) as error:
            why = error.__cause__ or error  # TLS tells only there what was wrong
            raise MapDownError(str(why) or type(why).__name__) from error
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise MapDownError(f"the server answers {answer.status}")
        return _read(answer.body)

    def close(self) -> None:
        """See `Source`: a connection serves one question."""

    async def _open(self) -> trio.abc.Stream:
        stream = await self._connect(self._service)
        if self._tls is None:
            return stream
        secure = trio.SSLStream(
            stream, self._tls, server_hostname=self._name, https_compatible=True
        )
        try:
            await secure.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(secure)
            raise
        return secure


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


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
