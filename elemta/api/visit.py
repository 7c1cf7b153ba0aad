"""Who asks something of the API, and what they may do."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final, Protocol

from msgspec import Struct

from elemta.api.problem import Problem

#: The method of a `Visit` that opens a websocket.
WEBSOCKET: Final = "WEBSOCKET"
#: What the audit log has for the status of what was given up, as the client left.
GONE: Final = 499


class Scope(enum.Enum):
    """What a caller may do. ADMIN may do everything; no other scope implies another."""

    #: Look at everything but the content of messages.
    READ = "read"
    #: Read the content of messages.
    CONTENT = "content"
    #: Change what waits: retry, hold, delete, suspend, …
    OPERATE = "operate"
    #: Hand in mail.
    SUBMIT = "submit"
    #: Tokens, plugins, log level, reload; and all of the above.
    ADMIN = "admin"


class Caller(Struct, frozen=True):
    """Somebody who has shown who they are.

    Attributes:
        who: as timelines and the audit log have it, e.g. ``token:monitoring``.
        scopes: as were given.
    """

    who: str
    scopes: frozenset[Scope]

    def may(self, scope: Scope) -> bool:
        """Whether they may do this."""
        return scope in self.scopes or Scope.ADMIN in self.scopes

    def check(self, scope: Scope) -> None:
        """See that they may do this.

        Raises:
            Problem: 403, they may not.
        """
        if not self.may(scope):
            raise Problem(HTTPStatus.FORBIDDEN, f"this needs the scope `{scope.value}`")


class Visit(Struct, frozen=True, kw_only=True):
    """A request, as far as it tells who makes it.

    Attributes:
        method: of HTTP, or `WEBSOCKET`.
        path: without the query.
        client: the IP address that it comes from.
        headers: names of any case.
        cookies: by name.
    """

    method: str
    path: str
    client: str
    headers: Mapping[str, str]
    cookies: Mapping[str, str]


class Access(Protocol):
    """Knows who may come in."""

    async def identify(self, visit: Visit) -> Caller:
        """Who makes a request.

        Raises:
            Problem: 401, nobody that we know; 403, a form of theirs that could be forged (CSRF,
                Origin); 429, too many wrong guesses.
        """
        ...


class Audit(Protocol):
    """Remembers who changed what."""

    def note(self, caller: Caller | None, visit: Visit, status: int, told: str = "") -> None:
        """Write down a change, a look into somebody's mail, or a login, however it ended.

        Args:
            caller: who; None: nobody that we know.
            visit: their request.
            status: the answer's.
            told: what it was about, e.g. the body of the request, cut; no secret.
        """
        ...
