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

from elemta.config import AddressPattern, WebAddress
from elemta.plugins import Granted
from elemta.plugins.built_in.elsewhere import (
    AskedOverNetwork,
    AsksOverNetwork,
    DownError,
    Said,
    web_address,
)

if TYPE_CHECKING:
    from elemta.plugins import Session, Verdict
    from elemta.protocol import Credentials

#: Octets of an answer that are too many.
_ANSWER: Final = 256 * 1024
_FIELDS: Final = [(b"Content-Type", b"application/json")]


class Answer(Struct, frozen=True):
    """What 200 brings. What else is in it is passed over."""

    login: str | None = None
    addresses: list[str] = []


# Made before any thread asks: two that decode the first of a kind at once end the process.
_answer: Final = msgspec.json.Decoder(Answer)


class Settings(AskedOverNetwork, frozen=True, kw_only=True):
    """The ``settings`` of ``users-http``."""

    #: Where the service is: ``https://HOST/PATH``; ``http://`` only for one on this machine.
    url: str
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
        return web_address("url", self.url)


class UsersHttp(AsksOverNetwork[Settings]):
    """Asks a service of your own over HTTP who somebody is."""

    name = "users-http"

    def __init__(self, settings: Settings) -> None:
        self._address = settings.address
        super().__init__(settings, encrypted=self._address.secure, secret_file=settings.token_file)
        self._fields = _FIELDS

    @override
    def _prove_by(self, secret: str) -> None:
        if not secret.isascii() or " " in secret:
            raise ValueError(f"{self.settings.token_file}: expected a token, and nothing else")
        self._fields = [*_FIELDS, (b"Authorization", b"Bearer " + secret.encode())]

    @override
    async def on_authenticate(
        self, session: Session, credentials: Credentials
    ) -> Granted | Verdict:
        async def ask(name: str, password: str, _: list[str]) -> Said:
            told = {
                "user": name,
                "password": password,
                "client": session.address,
                "listener": session.listener,
            }
            return await self._ask(name, msgspec.json.encode(told))

        return await self._elsewhere.judge(session, credentials, ask)

    async def _ask(self, name: str, body: bytes) -> Said:
        answer = await self._post(self._address, self._fields, body, most=_ANSWER)
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
