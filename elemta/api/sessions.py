"""Who has logged in with a browser: known by a cookie, and by nothing on disk."""

from __future__ import annotations

import hashlib
import secrets
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from elemta.api.visit import Caller

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds after which a session ends, whoever uses it; and once nobody does.
LIFETIME: Final = 12 * 3600.0
IDLE: Final = 2 * 3600.0
#: Sessions at a time; the one that was used longest ago makes room.
SESSIONS: Final = 500


class Session(Struct, kw_only=True, eq=False):
    """Somebody's browser.

    Attributes:
        caller: who it is.
        csrf: what a page of ours knows, and a page of somebody else's does not.
        token: the id of the token that it was begun with; None: it was a link.
        begun, used: seconds, by the clock of its `Sessions`.
    """

    caller: Caller
    csrf: str
    token: str | None
    begun: float
    used: float


class Sessions:
    """All sessions of a server.

    Args:
        clock: seconds, from any beginning.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        # By the hash of the cookie: how long a look-up takes tells nothing about the cookie.
        self._open: dict[bytes, Session] = {}

    def begin(self, caller: Caller, token: str | None) -> tuple[str, Session]:
        """Let somebody in.

        Returns:
            What their cookie holds, and their session.
        """
        now, secret = self._clock(), secrets.token_urlsafe(32)
        self._forget(now)
        session = Session(
            caller=caller, csrf=secrets.token_urlsafe(32), token=token, begun=now, used=now
        )
        self._open[_key(secret)] = session
        return secret, session

    def find(self, secret: str) -> Session | None:
        """The session of a cookie, which is used by that; None: there is none, or no longer."""
        now, key = self._clock(), _key(secret)
        session = self._open.get(key)
        if session is None:
            return None
        if _over(session, now):
            del self._open[key]
            return None
        session.used = now
        return session

    def end(self, secret: str) -> None:
        """Let them out, if they are in."""
        self._open.pop(_key(secret), None)

    def _forget(self, now: float) -> None:
        for key in [key for key, session in self._open.items() if _over(session, now)]:
            del self._open[key]
        if len(self._open) >= SESSIONS:
            del self._open[min(self._open, key=lambda key: self._open[key].used)]


def _over(session: Session, now: float) -> bool:
    return now - session.begun >= LIFETIME or now - session.used >= IDLE


def _key(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
