"""What plugins have in common which ask somebody else who a user is: a database, a directory.

So many are asked at a time, each has a deadline, what was right is remembered for some minutes, and
who cannot be asked defers: nobody is told that his password is wrong because a server is down.

Those that ask over a network read files first: whom to believe, and what proves to him who we are.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeAlias, TypeVar

import trio
from msgspec import Meta, Struct
from typing_extensions import override

from elemta.config import ConfigError, Mistake, Table, WebAddress
from elemta.files import read_private, stamps_of
from elemta.log import logger
from elemta.login import Remembered, prepare_name, prepare_password
from elemta.net.http import HttpError, connected, post_all
from elemta.net.tls import client_context
from elemta.plugins import CONTINUE, Defer, Granted, PluginWith, Reject, Verdict
from elemta.protocol import parse_mailbox
from elemta.units import Seconds

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Sequence

    from elemta.files import Stamps
    from elemta.net.http import HttpAnswer
    from elemta.plugins import Session, Tools
    from elemta.protocol import Credentials

log = logger(__name__)

T = TypeVar("T")
A = TypeVar("A", bound="AskedOverNetwork")

#: What somebody else says of a user: who he is, that his password is another, or nothing.
Said: TypeAlias = "Granted | Literal['wrong', 'unknown']"

#: Asks; see `Elsewhere.judge`.
Asks: TypeAlias = "Callable[[str, str, list[str]], Awaitable[Said]]"

#: Octets of a file that has nothing but a secret in it.
_SECRET: Final = 8192

#: Seconds between two looks at whether who has logged in is still there.
LOOKING: Final = 60.0

LATER: Final = Defer((7, 0), "try again later", note="who users are cannot be asked")
WRONG: Final = Reject((7, 8), "authentication failed", note="the password is wrong")


class DownError(Exception):
    """Somebody else cannot be asked just now, or answers what is none; the message says why."""


class Asked(Table, frozen=True, kw_only=True):
    """Settings that such plugins have in common."""

    #: For how long it is remembered that a password was right; ``0 s``: it is asked each time.
    remember: Seconds = Seconds(300)
    #: How long one question may take.
    timeout: Seconds = Seconds(10)
    #: Questions at a time; others wait.
    connections: Annotated[int, Meta(ge=1, le=256)] = 8

    def check(self) -> None:
        """See that these can be.

        Raises:
            ValueError: they cannot.
        """
        if not 0 < self.timeout <= 60:
            raise ValueError("`timeout` must be more than 0 s, and at most 60 s")


class AskedOverNetwork(Asked, frozen=True, kw_only=True):
    """Settings of those that ask over a network."""

    #: Certificates of those that vouch for the server's (PEM); else those of the system.
    authorities: Path | None = None


class Seen(Struct):
    """What was known of a user when a client logged in.

    Attributes:
        plugin: who has let it in.
        name: what it called itself.
        proofs: what tells his password from others; none: nothing does.
        at: when that was looked at last (Trio time).
    """

    plugin: str = ""
    login: str = ""
    name: str = ""
    proofs: frozenset[str] = frozenset()
    at: float = 0.0


class Elsewhere:
    """Asks.

    Args:
        settings: of the plugin.
        tools: of the plugin.
    """

    def __init__(self, settings: Asked, tools: Tools) -> None:
        self._timeout = float(settings.timeout)
        self._tools = tools
        self._asking = trio.CapacityLimiter(settings.connections)
        self._sure: Remembered[tuple[Granted, frozenset[str]]] = Remembered(
            settings.remember, trio.current_time
        )

    async def judge(
        self, session: Session, credentials: Credentials, ask: Asks
    ) -> Granted | Verdict:
        """What a plugin answers to `Plugin.on_authenticate`.

        Args:
            session: the client's.
            credentials: what it has said.
            ask: asks about a name and a password, both prepared, neither empty; what tells that
                password from others is added to what it gets besides, if anything does.
        """
        try:
            name = prepare_name(credentials.user)
            password = prepare_password(credentials.password)
        except ValueError:
            return CONTINUE  # nobody is called so, or has such a password
        if (known := self._sure.recall(name, password)) is not None:
            self._tools.count("remembered")
            granted, proofs = known
            self.note(session, name, granted.login, proofs)
            return granted
        found: list[str] = []
        said = await self.within(lambda: ask(name, password, found))
        if said == "down":
            return LATER
        if said == "unknown":
            self._tools.count("unknown")
            return CONTINUE
        if said == "wrong":
            self._tools.count("wrong")
            return WRONG
        self._tools.count("granted")
        proofs = frozenset(found)
        self._sure.keep((said, proofs), name, password)
        self.note(session, name, said.login, proofs)
        return said

    async def find(
        self, user: str, ask: Callable[[str], Awaitable[T | None]]
    ) -> T | Literal["down"] | None:
        """Ask about a name alone; None: nobody is called so, or has what is asked for.

        Args:
            user: as a client has said it.
            ask: asks about it, prepared.
        """
        try:
            name = prepare_name(user)
        except ValueError:
            return None
        return await self.within(lambda: ask(name))

    def note(self, session: Session, name: str, login: str, proofs: frozenset[str]) -> None:
        """Remember by what a client has logged in, or is about to: see `Seen`."""
        seen = session.kept.of(Seen)
        seen.plugin, seen.login, seen.name = self._tools.name, login, name
        seen.proofs, seen.at = proofs, trio.current_time()

    async def holds(
        self, session: Session, look: Callable[[str], Awaitable[frozenset[str] | None]]
    ) -> Verdict:
        """What a plugin answers to `Plugin.on_account`.

        Args:
            session: of who has logged in.
            look: finds what tells the passwords of a name from others, by now; None: nobody is
                called so any more.
        """
        seen = session.kept.of(Seen)
        now = trio.current_time()
        if (
            seen.plugin != self._tools.name
            or seen.login != session.login
            or now - seen.at < LOOKING
        ):
            return CONTINUE
        seen.at = now
        found = await self.find(seen.name, look)
        if found == "down":
            return CONTINUE  # who cannot be asked sends nobody away
        if found is None:
            return Reject((7, 13), "the login is over", note="is not there any more")
        if seen.proofs and not seen.proofs & found:
            return Reject((7, 13), "the login is over", note="has another password by now")
        return CONTINUE

    async def within(self, ask: Callable[[], Awaitable[T]]) -> T | Literal["down"]:
        """Ask, in its turn and in time."""
        try:
            with trio.fail_after(self._timeout):
                async with self._asking:
                    return await ask()
        except trio.TooSlowError:
            self._down("no answer in time")
        except DownError as error:
            self._down(str(error))
        return "down"

    def _down(self, why: str) -> None:
        self._tools.count("down")
        log.warning("users.not_asked", plugin=self._tools.name, error=why)


class AsksOverNetwork(PluginWith[A]):
    """Asks over a network.

    Args:
        settings: of the plugin.
        encrypted: whether in TLS.
        secret_file: the file that has what proves who we are, and nothing else.
    """

    def __init__(self, settings: A, *, encrypted: bool, secret_file: Path | None) -> None:
        super().__init__(settings)
        self._encrypted = encrypted
        self._secret_file = secret_file
        self._stamps: Stamps = ()
        #: What TLS demands of the server; None: it is asked in clear.
        self._context: ssl.SSLContext | None = None

    @override
    def examine(self, where: str) -> None:
        try:
            self._open()
        except (OSError, ValueError) as error:
            raise ConfigError(Mistake(where, str(error))) from None

    @override
    def outdated(self) -> bool:
        return self._looked() != self._stamps

    @override
    async def start(self) -> None:
        self._elsewhere = Elsewhere(self.settings, self.tools)
        await self.tools.in_thread(self._open)

    def _looked(self) -> Stamps:
        return stamps_of((self.settings.authorities, self._secret_file))

    def _open(self) -> None:
        """Read the files that there are.

        Raises:
            OSError: one cannot be read.
            ValueError: one has not what it should have.
        """
        self._stamps = self._looked()
        if self._encrypted:
            authorities = self.settings.authorities
            self._context = client_context(verified=True, authorities=authorities)
        if self._secret_file is not None:
            self._prove_by(read_secret(self._secret_file))

    def _prove_by(self, secret: str) -> None:
        """Say from now on by this who we are.

        Raises:
            ValueError: it is nothing that could be said.
        """
        raise NotImplementedError

    async def _post(
        self, address: WebAddress, fields: Sequence[tuple[bytes, bytes]], body: bytes, *, most: int
    ) -> HttpAnswer:
        """Ask by HTTP.

        Args:
            address: where.
            fields: of the question, beside those that every one has.
            body: of the question.
            most: octets of an answer that are too many.

        Raises:
            DownError: there is no answer, or too much of it.
        """
        every = [(b"Host", address.named.encode()), (b"Accept", b"application/json")]
        try:
            async with connected(address, self.tools.connect, self._context) as stream:
                return await post_all(stream, address.target, [*every, *fields], body, most=most)
        except HttpError as error:
            raise DownError(str(error)) from error


def web_address(key: str, text: str) -> WebAddress:
    """Where secrets go by HTTP.

    Args:
        key: by which the settings have it.
        text: what stands there.

    Raises:
        ValueError: it is none, or they would go over a network in clear.
    """
    try:
        found = WebAddress.parse(text)
    except ValueError as error:
        raise ValueError(f"`{key}`: {error}") from None
    if not found.keeps_secrets:
        raise ValueError(f"`{key}`: secrets go to another machine by https:// only")
    return found


def is_mailbox(text: str) -> bool:
    """Whether it is one address: no pattern, as users may often write what is said of them."""
    try:
        parse_mailbox(text)
    except ValueError:
        return False
    return True


def read_secret(path: Path) -> str:
    """What a file has that has nothing but a secret in it.

    Raises:
        OSError: as `read_private`.
        ValueError: it has not one line of text.
    """
    text = read_private(path, _SECRET).decode("utf-8", "replace").rstrip("\r\n")
    if not text or not text.isprintable():
        raise ValueError(f"{path}: expected a secret on one line, and nothing else")
    return text
