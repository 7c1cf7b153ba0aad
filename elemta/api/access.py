"""Who may come in: by a token, or by the cookie of somebody who has logged in.

The rules of this file:

- What a browser sends of itself (a cookie) is believed only from a page of ours: whatever changes
  something needs what such a page alone can know, and a websocket needs to say where it is from.
- What must be known (a token) may come from anywhere.
- Who guesses waits. Who has been right before does not, however many others guess.
"""

from __future__ import annotations

import hmac
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from elemta.api import tokens
from elemta.api.failing import unavailable
from elemta.api.problem import Fault, Problem
from elemta.api.sessions import LIFETIME
from elemta.api.tokens import TokenFileError
from elemta.api.visit import WEBSOCKET, Caller, Scope

if TYPE_CHECKING:
    from collections.abc import Collection

    from elemta.api.guesses import Guesses
    from elemta.api.keys import Keys
    from elemta.api.sessions import Session, Sessions
    from elemta.api.tokens import Token
    from elemta.api.visit import Visit

#: What the cookie of a session is called.
COOKIE: Final = "elemta_session"

#: What changes nothing (RFC 9110 §9.2.1).
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class Entrance:
    """Knows who may come in; see `Access`.

    Args:
        keys: the tokens.
        sessions: who has logged in.
        guesses: who was wrong.
        origins: web origins whose pages are ours, beside those of the very host that is asked.
        secure: all is encrypted, so that the cookie never goes in clear.
    """

    def __init__(
        self,
        keys: Keys,
        sessions: Sessions,
        guesses: Guesses,
        *,
        origins: Collection[str] = (),
        secure: bool = False,
    ) -> None:
        self.keys = keys
        self._sessions = sessions
        self._guesses = guesses
        self._origins = frozenset(origins)
        self._secure = secure

    async def identify(self, visit: Visit) -> Caller:
        """See `Access`."""
        await self.keys.look()
        headers = _lower(visit)
        if visit.method == WEBSOCKET and "origin" in headers:
            self._check_page(headers)
        if (text := _token(headers)) is not None:
            return _caller(await self._token(visit.client, text))
        if COOKIE not in visit.cookies:
            raise _unknown("a token is needed: Authorization: Bearer …, or a login")
        session = self._session(visit)
        if session is None:
            raise _unknown("this session has ended: log in again")
        if visit.method == WEBSOCKET:
            if "origin" not in headers:
                raise Problem(
                    HTTPStatus.FORBIDDEN,
                    "a websocket with a cookie must say which page it is from (Origin);"
                    " programs use a token",
                )
        elif visit.method not in _SAFE:
            self._check_page(headers)
            if not hmac.compare_digest(
                headers.get("x-csrf-token", "").encode(), session.csrf.encode()
            ):
                raise Problem(
                    HTTPStatus.FORBIDDEN,
                    "expected the header X-CSRF-Token with the csrf of /v1/me",
                )
        return session.caller

    async def enter(
        self, visit: Visit, *, token: str | None, once: str | None
    ) -> tuple[str, Session]:
        """Let somebody in who has a token, or a one-time link.

        Returns:
            The cookie to set (RFC 6265 §4.1), and their session.

        Raises:
            Problem: 401, neither is good; 403, a page of somebody else's sent them; 422, not
                exactly one was given; 429, too many wrong guesses; 503, we cannot tell just now.
        """
        self._check_page(_lower(visit))
        if token is not None and once is None:
            await self.keys.look()
            found = await self._token(visit.client, token)
            return self._begin(visit, _caller(found), found.id)
        if once is None or token is not None:
            raise Problem(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                "expected either a token or a one-time link",
                Fault("token", "expected this or `once`"),
            )
        self._check_guesses(visit.client)
        text = tokens.parse(once)
        try:
            if text is None or not await self.keys.redeem(text):
                self._guesses.wrong(visit.client)
                raise _unknown(
                    "this link is not good, or no longer: `elemta token link` makes a new one"
                )
        except TokenFileError:
            raise _trouble() from None
        caller = Caller(who=f"link:{text.id}", scopes=frozenset({Scope.ADMIN}))
        return self._begin(visit, caller, None)

    def leave(self, visit: Visit) -> str:
        """End the session of who makes this request, if there is one.

        Returns:
            The cookie to set, which takes the old one away.
        """
        if (secret := visit.cookies.get(COOKIE)) is not None:
            self._sessions.end(secret)
        return f"{COOKIE}=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict"

    def csrf(self, visit: Visit) -> str | None:
        """What a page needs to know to change something; None: they came in by a token."""
        if _token(_lower(visit)) is not None:
            return None
        session = self._session(visit)
        return session.csrf if session is not None else None

    def _begin(self, visit: Visit, caller: Caller, token: str | None) -> tuple[str, Session]:
        secret, session = self._sessions.begin(caller, token)
        # Behind a proxy that encrypts, the page says that it came encrypted.
        encrypted = self._secure or _lower(visit).get("origin", "").startswith("https://")
        return (
            f"{COOKIE}={secret}; Path=/; Max-Age={LIFETIME:.0f}; HttpOnly; SameSite=Strict"
            + ("; Secure" if encrypted else ""),
            session,
        )

    def _session(self, visit: Visit) -> Session | None:
        session = self._sessions.find(visit.cookies.get(COOKIE, ""))
        if session is None or session.token is None or self.keys.good(session.token) is not None:
            return session
        self.leave(visit)  # the token that it was begun with has ended
        return None

    async def _token(self, client: str, whole: str) -> Token:
        text = tokens.parse(whole)
        if text is not None and (token := self.keys.sure(text, whole)) is not None:
            return token
        self._check_guesses(client)
        try:
            token = await self.keys.verify(text, whole) if text is not None else None
        except TokenFileError:
            raise _trouble() from None
        if token is None:
            self._guesses.wrong(client)
            raise _unknown("this token is not good: wrong, revoked or expired", invalid=True)
        return token

    def _check_guesses(self, client: str) -> None:
        if (wait := self._guesses.wait(client)) > 0:
            raise Problem(
                HTTPStatus.TOO_MANY_REQUESTS,
                "too many wrong tokens: try again later",
                headers={"Retry-After": str(int(wait) + 1)},
            )

    def _check_page(self, headers: dict[str, str]) -> None:
        """See that a request is from a page of ours, as far as a browser says (RFC 6454 §7).

        Programs say nothing, and nobody can make a browser keep silent.
        """
        origin = headers.get("origin")
        if origin in self._origins:
            return
        ours = origin is None or _host(origin) == headers.get("host", "").lower()
        if not ours or headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            raise Problem(
                HTTPStatus.FORBIDDEN,
                "this came from a page of another site; behind a reverse proxy, `origins` of `api`"
                " names where pages are ours",
            )


def _host(origin: str) -> str | None:
    """Host and port of a web origin; None: it has none, as ``null``."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None


def _lower(visit: Visit) -> dict[str, str]:
    return {name.lower(): value for name, value in visit.headers.items()}


def _token(headers: dict[str, str]) -> str | None:
    """The token that a request has; None: it has none."""
    if (given := headers.get("authorization")) is not None:
        scheme, _, text = given.partition(" ")
        if scheme.lower() != "bearer":
            raise _unknown(f"expected Authorization: Bearer …, not {scheme[:20]!r}")
        return text.strip()
    return headers.get("x-api-key")


def _caller(token: Token) -> Caller:
    return Caller(who=f"token:{token.name}", scopes=frozenset(token.scopes))


def _unknown(detail: str, *, invalid: bool = False) -> Problem:
    """Nobody that we know (RFC 6750 §3)."""
    challenge = 'Bearer realm="elemta"' + (', error="invalid_token"' if invalid else "")
    return Problem(HTTPStatus.UNAUTHORIZED, detail, headers={"WWW-Authenticate": challenge})


def _trouble() -> Problem:
    return unavailable("tokens cannot be looked up just now")
