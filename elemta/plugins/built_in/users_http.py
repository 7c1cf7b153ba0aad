"""Users behind HTTP: a service of somebody's own is told who says what, and answers.

``POST`` of ``{"user", "password", "client", "listener"}`` as JSON. 200 lets him in, with
``{"login", "addresses"}``; 401 and 403 do not, 404 has nobody of this name; anything else means
that the service cannot say just now.
"""

from __future__ import annotations

import ipaddress
import ssl
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import msgspec
import trio
from msgspec import Struct
from typing_extensions import override

from elemta.config import AddressPattern, ConfigError, Mistake, Service, stamps_of
from elemta.net.http import HttpError, post
from elemta.plugins import Granted, PluginWith
from elemta.plugins.built_in.elsewhere import (
    Asked,
    DownError,
    Elsewhere,
    Said,
    read_secret,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from elemta.config import Stamp
    from elemta.plugins import Session, Verdict
    from elemta.protocol import Credentials

#: Octets of an answer that are too many.
_ANSWER: Final = 256 * 1024


class Answer(Struct, frozen=True):
    """What 200 brings. What else is in it is passed over."""

    login: str | None = None
    addresses: list[str] = []


# Made before any thread asks: two that decode the first of a kind at once end the process.
_answer: Final = msgspec.json.Decoder(Answer)


class Settings(Asked, frozen=True, kw_only=True):
    """The ``settings`` of ``users-http``."""

    #: Where the service is: ``https://HOST/PATH``; ``http://`` only for one on this machine.
    url: str
    #: Certificates of those that vouch for the service's (PEM); else those of the system.
    authorities: Path | None = None
    #: The file with a token that the service wants to see (``Authorization: Bearer``).
    token_file: Path | None = None

    def __post_init__(self) -> None:
        self.check()
        self.where()

    def where(self) -> tuple[Service, str, str, str, bool]:
        """The service, its name, what its ``Host`` is, what is asked for, and whether by TLS.

        Raises:
            ValueError: the URL is none, or passwords would go over a network in clear.
        """
        wrong = ValueError("expected `url` to be https://HOST/PATH, without a user")
        try:
            found = urlsplit(self.url)
            port = found.port
        except ValueError:
            raise wrong from None
        host, secure = found.hostname or "", found.scheme == "https"
        if (
            found.scheme not in ("http", "https")
            or not host
            or "@" in found.netloc
            or not self.url.isascii()
            or not self.url.isprintable()
            or " " in self.url
        ):
            raise wrong
        if not secure and not _is_here(host):
            raise ValueError("`url`: passwords go to another machine by https:// only")
        bracketed = f"[{host}]" if ":" in host else host
        service = Service.parse(f"{bracketed}:{port or (443 if secure else 80)}")
        target = (found.path or "/") + (f"?{found.query}" if found.query else "")
        return service, host, found.netloc, target, secure


class UsersHttp(PluginWith[Settings]):
    """Asks a service of your own over HTTP who somebody is."""

    name = "users-http"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._service, self._host, self._netloc, self._target, self._secure = settings.where()
        self._context: ssl.SSLContext | None = None
        self._files = (settings.authorities, settings.token_file)
        self._stamps: tuple[Stamp | None, ...] = ()
        self._fields = [
            (b"Host", self._netloc.encode()),
            (b"Content-Type", b"application/json"),
            (b"Accept", b"application/json"),
        ]
        self._authorization: list[tuple[bytes, bytes]] = []

    @override
    def examine(self, where: str) -> None:
        try:
            self._open()
        except (OSError, ValueError) as error:
            raise ConfigError(Mistake(where, str(error))) from None

    @override
    def outdated(self) -> bool:
        return stamps_of(self._files) != self._stamps

    @override
    async def start(self) -> None:
        self._elsewhere = Elsewhere(self.settings, self.tools)
        await self.tools.in_thread(self._open)

    def _open(self) -> None:
        """Read the files that there are.

        Raises:
            OSError: one cannot be read.
            ValueError: one has not what it should have.
        """
        self._stamps = stamps_of(self._files)
        if self._secure:
            self._context = ssl.create_default_context(cafile=self.settings.authorities)
            self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        if (path := self.settings.token_file) is not None:
            token = read_secret(path)
            if not token.isascii() or " " in token:
                raise ValueError(f"{path}: expected a token, and nothing else")
            self._authorization = [(b"Authorization", b"Bearer " + token.encode())]

    @override
    async def on_authenticate(
        self, session: Session, credentials: Credentials
    ) -> Granted | Verdict:
        async def ask(name: str, password: str) -> Said:
            told = {
                "user": name,
                "password": password,
                "client": session.address,
                "listener": session.listener,
            }
            return await self._ask(name, msgspec.json.encode(told))

        return await self._elsewhere.judge(credentials, ask)

    async def _ask(self, name: str, body: bytes) -> Said:
        async def pieces() -> AsyncGenerator[bytes]:
            yield body

        try:
            async with aclosing(await self._connect()) as stream, aclosing(pieces()) as told:
                fields = [*self._fields, *self._authorization]
                answer = await post(stream, self._target, fields, len(body), told, most=_ANSWER)
        except (OSError, HttpError, trio.BrokenResourceError) as error:
            raise DownError(str(error) or str(error.__cause__ or "the connection broke")) from error
        match answer.status:
            case 200:
                return _granted(answer.body, name)
            case 401 | 403:
                return "wrong"
            case 404:
                return "unknown"
            case status:
                raise DownError(f"the service answers {status}")

    async def _connect(self) -> trio.abc.Stream:
        stream = await self.tools.connect(self._service)
        if self._context is None:
            return stream
        return trio.SSLStream(
            stream, self._context, server_hostname=self._host, https_compatible=True
        )


def _granted(body: bytes, name: str) -> Granted:
    try:
        found = _answer.decode(body)
        for each in found.addresses:
            AddressPattern.parse(each)
        return Granted(name if found.login is None else found.login, tuple(found.addresses))
    except ValueError as error:  # of JSON, of a pattern, of a name
        raise DownError(f"an answer that is not understood: {error}") from None


def _is_here(host: str) -> bool:
    """Whether what is said to a host stays on this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
