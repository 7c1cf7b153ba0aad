"""What routes have hosts proved with: passwords, tokens, certificates of ours, those to be trusted.

All of it is read before anything is delivered by a configuration, so that a file that is missing
is a mistake of the configuration, told with its place, and not of the mail.
"""

from __future__ import annotations

import os
import re
import ssl
from typing import TYPE_CHECKING, Final, TypeAlias

from elemta.config import ConfigError, Mistake
from elemta.files import Watched, read_private
from elemta.log import logger
from elemta.net.tls import client_context
from elemta.protocol import Credentials, Token

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from elemta.config import Config, Login, Route
    from elemta.delivery.routes import Terms

log = logger(__name__)

#: Octets of a password (RFC 4616 §2), and of a file with one, or with a key.
_LONGEST: Final = 255
_FILE: Final = 65536
#: A token, as RFC 6750 §2.1 has it; what is longer does not fit into a command (RFC 4954 §4).
_TOKEN: Final = re.compile(rb"[A-Za-z0-9._~+/-]{1,8192}=*")

#: What a context is made of: whether hosts are verified, and files.
_Making: TypeAlias = "tuple[bool, Path | None, Path | None, Path | None]"


#: Of hosts that prove who they are to those whom the system trusts.
_SYSTEM: Final[_Making] = (True, None, None, None)


class Keyring:
    """The secrets and certificates of one configuration. To make one blocks.

    What the system trusts takes 0.1 s to read, so it is read here, too, and not by the first mail.

    Args:
        config: whose routes say where they lie.

    Raises:
        ConfigError: one of them cannot be read, or others can read it.
    """

    def __init__(self, config: Config | None = None) -> None:
        self._contexts: dict[_Making, ssl.SSLContext] = {}
        self._credentials: dict[Login, Credentials] = {}
        self._tokens: dict[Path, Watched[str]] = {}
        if config is not None:
            everywhere = config.delivery.tls == "verified"
            if everywhere:
                self._context(_SYSTEM)
            found = [
                mistake
                for index, route in enumerate(config.routes)
                for mistake in self._read(route, everywhere, f"routes[{index}]")
            ]
            if found:
                raise ConfigError(*found)

    def context(self, terms: Terms, *, verified: bool) -> ssl.SSLContext:
        """What is demanded of the hosts of a route, and shown to them.

        Args:
            terms: of the route.
            verified: they prove who they are.

        Raises:
            OSError: a file that was read before is not read again; this is another's.
        """
        authorities = terms.authorities if verified else None
        return self._context((verified, authorities, terms.certificate, terms.key))

    def credentials(self, login: Login) -> Credentials | Token:
        """Who we are to the hosts of a route. A token is looked at each time, whether it is new.

        Raises:
            OSError: as `context`.
        """
        if login.token_file is not None:
            return Token(login.user, self._token(login.token_file))
        found = self._credentials.get(login)
        if found is None:
            password = login.password
            if password is None:
                assert login.password_file is not None, "the configuration was checked"
                password = _password(login.password_file)
            found = self._credentials[login] = Credentials(login.user, password)
        return found

    def _token(self, path: Path) -> str:
        watched = self._tokens.get(path)
        if watched is None:
            watched = Watched(
                (path,), lambda: _token(path), refused=lambda error: _complain(path, error)
            )
            watched.begin()
            self._tokens[path] = watched
        # A few lines near us: to ask in a thread takes longer.
        watched.look()
        return watched.content

    def _context(self, making: _Making) -> ssl.SSLContext:
        found = self._contexts.get(making)
        if found is None:
            verified, authorities, certificate, key = making
            found = client_context(
                verified=verified, authorities=authorities, certificate=certificate, key=key
            )
            self._contexts[making] = found
        return found

    def _read(self, route: Route, everywhere: bool, at: str) -> Iterator[Mistake]:
        """Read all that a route names; what is wrong with it."""
        verified = everywhere if route.encryption is None else route.encryption == "verified"
        if verified and route.authorities is None and route.key is None:
            self._context(_SYSTEM)
        if route.authorities is not None:
            try:
                self._context((True, route.authorities, None, None))
            except OSError as error:  # as an ssl.SSLError is
                error.filename = str(route.authorities)  # which OpenSSL does not tell
                yield Mistake(f"{at}.authorities", f"no authorities: {_why(error)}")
                return
        if route.key is not None:
            authorities = route.authorities if verified else None
            try:
                read_private(route.key, _FILE)  # OpenSSL would not mind who else may
                self._context((verified, authorities, route.certificate, route.key))
            except OSError as error:
                yield Mistake(f"{at}.certificate", f"no certificate with its key: {_why(error)}")
        if route.login is not None:
            try:
                self.credentials(route.login)
            except OSError as error:
                token = route.login.token_file is not None
                key, what = ("token_file", "token") if token else ("password_file", "password")
                yield Mistake(f"{at}.login.{key}", f"no {what}: {_why(error)}")


def _password(path: Path) -> str:
    """The first line of a file.

    Raises:
        OSError: it cannot be read, others can read it, or that is no password.
    """
    line = read_private(path, _FILE).partition(b"\n")[0].removesuffix(b"\r")
    try:
        password = line.decode()
    except UnicodeDecodeError:
        raise OSError(f"the first line of {path} is no UTF-8") from None
    if not 0 < len(line) <= _LONGEST or not password.isprintable():
        raise OSError(f"the first line of {path} is no password of 1 to {_LONGEST} octets")
    return password


def _token(path: Path) -> str:
    """The token that is the first line of a file.

    Raises:
        OSError: it cannot be read, others can read it, or that is no token.
    """
    line = read_private(path, _FILE).partition(b"\n")[0].strip()
    if not _TOKEN.fullmatch(line):
        raise OSError(f"the first line of {path} is no token (RFC 6750 §2.1)")
    return line.decode("ascii")


def _complain(path: Path, error: Exception) -> None:
    """What was read before holds on; if it is too old, the hosts say so."""
    log.error("delivery.token_unreadable", file=str(path), problem=str(error))


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLError) or error.errno is None:
        return str(error)
    return f"{error.filename}: {os.strerror(error.errno)}" if error.filename else str(error)
