"""Users in a directory (LDAP, RFC 4511): found by a search, and proved by a bind as who was found.

One connection a question: first as a service account, or as nobody, to find the one entry that a
name means; then as this one, with the password. What a stranger says is escaped (RFC 4515 §3), and
an empty password, which servers take for the wish to be nobody, is never sent (RFC 4513 §5.1.2).
"""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import trio
from msgspec import field
from typing_extensions import override

from elemta.config import HostPort, Service
from elemta.log import logger
from elemta.net.ldap import LdapClient, LdapError, compile_filter, escaped
from elemta.plugins import Granted
from elemta.plugins.built_in.elsewhere import (
    AskedOverNetwork,
    AsksOverNetwork,
    DownError,
    Said,
    is_mailbox,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from elemta.net.ldap import Entry
    from elemta.plugins import Session, Verdict
    from elemta.protocol import Credentials

log = logger(__name__)

_PORTS: Final = {"ldap": 389, "ldaps": 636}
_USER: Final = "{user}"
#: Attributes by which directories tell when a password was changed: OpenLDAP's, Microsoft's.
_CHANGED: Final = ("pwdChangedTime", "pwdLastSet")
#: Addresses of one user that are looked at.
_ADDRESSES: Final = 1000


class Settings(AskedOverNetwork, frozen=True, kw_only=True):
    """The ``settings`` of ``users-ldap``."""

    #: Where the directory is: ``ldap://HOST[:PORT]``, or ``ldaps://HOST[:PORT]`` with TLS.
    url: str
    #: Where in it users are: a distinguished name.
    base: str
    #: Which entry a user's is; ``{user}`` is what he says, escaped.
    filter: str = "(&(objectClass=inetOrgPerson)(mail={user}))"
    #: Encrypt by StartTLS what goes to ``ldap://``. Off only for a server on this machine.
    start_tls: bool = True
    #: As whom to search; else as nobody.
    bind_dn: str | None = None
    #: The file that has the password of that, and nothing else.
    bind_password_file: Path | None = None
    #: The attribute that a user is called by from now on; else what he said.
    login: str | None = None
    #: Attributes with addresses that he may send as.
    addresses: list[str] = field(default_factory=lambda: ["mail", "mailAlternateAddress"])

    def __post_init__(self) -> None:
        self.check()
        _, host, implicit = self.where()
        if not (implicit or self.start_tls or HostPort(host, 0).is_loopback):
            raise ValueError("`start_tls`: passwords go to another machine in TLS only")
        if _USER not in self.filter:
            raise ValueError("`filter` must have {user} in it")
        compile_filter(self.filter.replace(_USER, "x"))
        if (self.bind_dn is None) != (self.bind_password_file is None):
            raise ValueError("expected both `bind_dn` and `bind_password_file`, or neither")

    def where(self) -> tuple[Service, str, bool]:
        """The server, its name, and whether TLS comes first.

        Raises:
            ValueError: the URL is none.
        """
        found = urlsplit(self.url)
        host = found.hostname or ""
        if (
            found.scheme not in _PORTS
            or not host
            or found.path.strip("/")
            or found.query
            or found.username is not None
        ):
            raise ValueError("expected `url` to be ldap://HOST[:PORT] or ldaps://HOST[:PORT]")
        port = found.port or _PORTS[found.scheme]
        bracketed = f"[{host}]" if ":" in host else host
        return Service.parse(f"{bracketed}:{port}"), host, found.scheme == "ldaps"


class UsersLdap(AsksOverNetwork[Settings]):
    """Knows users from a directory, where each logs in with his own password."""

    name = "users-ldap"

    def __init__(self, settings: Settings) -> None:
        self._service, self._host, self._implicit = settings.where()
        super().__init__(
            settings,
            encrypted=self._implicit or settings.start_tls,
            secret_file=settings.bind_password_file,
        )
        self._attributes = [
            *([settings.login] if settings.login is not None else []),
            *settings.addresses,
            *_CHANGED,
        ]
        self._password: str | None = None

    @override
    def _prove_by(self, secret: str) -> None:
        self._password = secret

    @override
    async def on_authenticate(
        self, session: Session, credentials: Credentials
    ) -> Granted | Verdict:
        return await self._elsewhere.judge(session, credentials, self._ask)

    @override
    async def on_account(self, session: Session) -> Verdict:
        async def look(name: str) -> frozenset[str] | None:
            async with self._asked() as client:
                entry = await self._find(client, name)
            return None if entry is None else frozenset((_changed(entry),))

        return await self._elsewhere.holds(session, look)

    async def _ask(self, name: str, password: str, changed: list[str]) -> Said:
        async with self._asked() as client:
            entry = await self._find(client, name)
            if entry is None:
                return "unknown"
            if not entry.name or not await client.bind(entry.name, password):
                return "wrong"
            changed.append(_changed(entry))
            return self._granted(entry, name)

    @asynccontextmanager
    async def _asked(self) -> AsyncGenerator[LdapClient]:
        """A conversation with the directory.

        Raises:
            DownError: there is none, or it breaks.
        """
        try:
            async with aclosing(await self._connect()) as client:
                yield client
        except (OSError, LdapError, trio.BrokenResourceError) as error:
            raise DownError(str(error) or str(error.__cause__ or "the connection broke")) from error

    async def _connect(self) -> LdapClient:
        stream = await self.tools.connect(self._service)
        if self._implicit and self._context is not None:
            stream = trio.SSLStream(
                stream, self._context, server_hostname=self._host, https_compatible=True
            )
        return LdapClient(stream)

    async def _find(self, client: LdapClient, name: str) -> Entry | None:
        """Whoever is called so.

        Raises:
            DownError: there are several, or the directory does not know us.
        """
        settings = self.settings
        if not self._implicit and self._context is not None:
            await client.start_tls(self._context, self._host)
        if (
            settings.bind_dn is not None
            and self._password is not None
            and not await client.bind(settings.bind_dn, self._password)
        ):
            raise DownError("the directory refuses the password of `bind_dn`")
        wanted = compile_filter(settings.filter.replace(_USER, escaped(name)))
        found = await client.search(
            settings.base, wanted, self._attributes, seconds=max(1, int(settings.timeout))
        )
        if len(found) > 1:
            raise DownError(f"{len(found)} entries are meant by one name")
        return found[0] if found else None

    def _granted(self, entry: Entry, name: str) -> Granted:
        settings = self.settings
        if settings.login is not None:
            values = entry.attributes.get(settings.login.lower(), ())
            if len(values) != 1:
                raise DownError(f"{len(values)} values of {settings.login}, which names him")
            name = values[0]
        addresses = [
            value
            for each in settings.addresses
            for value in entry.attributes.get(each.lower(), ())
            if is_mailbox(value)
        ]
        try:
            return Granted(name, tuple(dict.fromkeys(addresses[:_ADDRESSES])))
        except ValueError as error:
            raise DownError(str(error)) from None


def _changed(entry: Entry) -> str:
    """Differs once his password is another, as far as the directory tells."""
    told = [entry.attributes.get(each.lower(), ()) for each in _CHANGED]
    return f"{entry.name} {told}"
