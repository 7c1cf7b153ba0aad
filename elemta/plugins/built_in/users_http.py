"""Users behind HTTP: a service of somebody's own is told who says what, and answers.

``POST`` of ``{"user", "password", "client", "listener"}`` as JSON. 200 lets him in, with
``{"login", "addresses"}``; 401 and 403 do not, 404 has nobody of this name; anything else means
that the service cannot say just now.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct
from typing_extensions import override

from elemta.config import AddressPattern, ConfigError, Mistake, WebAddress, stamps_of
from elemta.net.http import HttpError, connected, post_all
from elemta.net.tls import client_context
from elemta.plugins import Granted, PluginWith
from elemta.plugins.built_in.elsewhere import (
    Asked,
    DownError,
    Elsewhere,
    Said,
    read_secret,
)

if TYPE_CHECKING:
    import ssl

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
        _ = self.address

    @property
    def address(self) -> WebAddress:
        """See `url`.

        Raises:
            ValueError: it is none, or passwords would go over a network in clear.
        """
        try:
            found = WebAddress.parse(self.url)
        except ValueError as error:
            raise ValueError(f"`url`: {error}") from None
        if not found.keeps_secrets:
            raise ValueError("`url`: passwords go to another machine by https:// only")
        return found


class UsersHttp(PluginWith[Settings]):
    """Asks a service of your own over HTTP who somebody is."""

    name = "users-http"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._address = settings.address
        self._context: ssl.SSLContext | None = None
        self._files = (settings.authorities, settings.token_file)
        self._stamps: tuple[Stamp | None, ...] = ()
        self._fields = [
            (b"Host", self._address.named.encode()),
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
        if self._address.secure:
            self._context = client_context(verified=True, authorities=self.settings.authorities)
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
        address, fields = self._address, [*self._fields, *self._authorization]
        try:
            async with connected(address, self.tools.connect, self._context) as stream:
                answer = await post_all(stream, address.target, fields, body, most=_ANSWER)
        except HttpError as error:
            raise DownError(str(error)) from error
        match answer.status:
            case 200:
                return _granted(answer.body, name)
            case 401 | 403:
                return "wrong"
            case 404:
                return "unknown"
            case status:
                raise DownError(f"the service answers {status}")


def _granted(body: bytes, name: str) -> Granted:
    try:
        found = _answer.decode(body)
        for each in found.addresses:
            AddressPattern.parse(each)
        return Granted(name if found.login is None else found.login, tuple(found.addresses))
    except ValueError as error:  # of JSON, of a pattern, of a name
        raise DownError(f"an answer that is not understood: {error}") from None
