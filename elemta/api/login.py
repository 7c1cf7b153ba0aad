"""Endpoints for who comes in: login and logout, tokens, and the log of who changed what."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Final

from msgspec import Meta, Struct

from elemta.api.access import Entrance
from elemta.api.audit import AuditLog, Noted
from elemta.api.endpoint import Asked, Endpoint, Nothing, endpoint
from elemta.api.failing import unavailable
from elemta.api.problem import Fault, Problem
from elemta.api.reading import refused
from elemta.api.tokens import NAME, Token, TokenFileError
from elemta.api.visit import Scope

#: Lines of the audit log that are told at most.
LINES: Final = 1000


class Login(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How somebody shows who they are: by one of these.

    Attributes:
        token: that was made for them.
        once: what stands behind the ``#once=`` of a one-time link.
    """

    token: str | None = None
    once: str | None = None


class Me(Struct, frozen=True, kw_only=True):
    """Who asks.

    Attributes:
        who: as timelines and the audit log have it.
        scopes: what they may do.
        csrf: what the header X-CSRF-Token must hold where a cookie is to change something; null for
            who came with a token.
    """

    who: str
    scopes: tuple[Scope, ...]
    csrf: str | None


class NewToken(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A token that is wanted.

    Attributes:
        name: what it is for.
        scopes: what it may do.
        expires: when it ends, seconds since the epoch; null: when it is revoked.
    """

    name: Annotated[str, Meta(pattern=f"^{NAME}$")]
    scopes: Annotated[tuple[Scope, ...], Meta(min_length=1)]
    expires: float | None = None


class KnownToken(Struct, frozen=True, kw_only=True):
    """A token, but for its secret.

    Attributes:
        id: by which it is revoked.
        name: what it is for.
        scopes: what it may do.
        created: seconds since the epoch.
        expires: the same; null: when it is revoked.
        used: when it was last used, about; null: never.
    """

    id: str
    name: str
    scopes: tuple[Scope, ...]
    created: float
    expires: float | None
    used: float | None


class MadeToken(KnownToken, frozen=True, kw_only=True):
    """A token that was just made.

    Attributes:
        token: its text, which nobody can see again.
    """

    token: str


class KnownTokens(Struct, frozen=True, kw_only=True):
    """All tokens."""

    tokens: tuple[KnownToken, ...]


class AuditQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much of the audit log is wanted.

    Attributes:
        limit: lines at most.
    """

    limit: Annotated[int, Meta(ge=1, le=LINES)] = 100


class AuditLines(Struct, frozen=True, kw_only=True):
    """The last lines of the audit log, the newest first."""

    entries: tuple[Noted, ...]


@endpoint(
    "POST",
    "/v1/login",
    scope=None,
    open=True,
    query=Nothing,
    body=Login,
    answer=Me,
    tag="access",
    secret=True,
)
async def login(asked: Asked[Nothing, Login]) -> Me:
    """Log a browser in: it is given a cookie.

    A one-time link works once, within an hour, and makes an admin.
    """
    entrance = _entrance(asked.site.access)
    cookie, session = await entrance.enter(
        asked.visit, token=asked.body.token, once=asked.body.once
    )
    asked.arrival.caller = session.caller
    asked.add_header("Set-Cookie", cookie)
    return _me(asked.caller.who, asked.caller.scopes, session.csrf)


@endpoint(
    "POST", "/v1/logout", scope=None, query=Nothing, body=Nothing, answer=Nothing, tag="access"
)
async def logout(asked: Asked[Nothing, Nothing]) -> Nothing:
    """End the session of the cookie."""
    asked.add_header("Set-Cookie", _entrance(asked.site.access).leave(asked.visit))
    return Nothing()


@endpoint("GET", "/v1/me", scope=None, query=Nothing, body=Nothing, answer=Me, tag="access")
async def me(asked: Asked[Nothing, Nothing]) -> Me:
    """Who asks, and what they may do."""
    csrf = _entrance(asked.site.access).csrf(asked.visit)
    return _me(asked.caller.who, asked.caller.scopes, csrf)


@endpoint(
    "GET",
    "/v1/tokens",
    scope=Scope.ADMIN,
    query=Nothing,
    body=Nothing,
    answer=KnownTokens,
    tag="access",
)
async def tokens(asked: Asked[Nothing, Nothing]) -> KnownTokens:
    """All tokens, but for their secrets."""
    try:
        found = await _entrance(asked.site.access).keys.all()
    except TokenFileError as error:
        raise _trouble(error) from error
    return KnownTokens(tokens=tuple(_known(token) for token in found))


@endpoint(
    "POST",
    "/v1/tokens",
    scope=Scope.ADMIN,
    query=Nothing,
    body=NewToken,
    answer=MadeToken,
    tag="access",
    problems=(409,),
    status=201,
)
async def make_token(asked: Asked[Nothing, NewToken]) -> MadeToken:
    """Make a token. Its text stands in this answer, and nowhere else."""
    wanted = asked.body
    if wanted.expires is not None and wanted.expires <= asked.site.clock():
        raise refused(Fault("expires", "expected a time that is to come"))
    keys = _entrance(asked.site.access).keys
    try:
        token, text = await keys.issue(wanted.name, wanted.scopes, wanted.expires)
    except ValueError as error:
        raise refused(Fault("name", str(error))) from None
    except TokenFileError as error:
        raise _trouble(error) from error
    return MadeToken(
        id=token.id,
        name=token.name,
        scopes=token.scopes,
        created=token.created,
        expires=token.expires,
        used=None,
        token=text,
    )


@endpoint(
    "DELETE",
    "/v1/tokens/{id}",
    scope=Scope.ADMIN,
    query=Nothing,
    body=Nothing,
    answer=Nothing,
    tag="access",
)
async def revoke_token(asked: Asked[Nothing, Nothing]) -> Nothing:
    """End a token, and every session that was begun with it."""
    try:
        token = await _entrance(asked.site.access).keys.revoke(asked.path["id"])
    except LookupError as error:
        raise Problem(HTTPStatus.NOT_FOUND, str(error.args[0])) from None
    except TokenFileError as error:
        raise _trouble(error) from error
    asked.tell(f"token:{token.name}")
    return Nothing()


@endpoint(
    "GET",
    "/v1/audit",
    scope=Scope.ADMIN,
    query=AuditQuery,
    body=Nothing,
    answer=AuditLines,
    tag="access",
)
async def audit(asked: Asked[AuditQuery, Nothing]) -> AuditLines:
    """Who changed what, read whose mail, or logged in: the newest first."""
    log = asked.site.audit
    if not isinstance(log, AuditLog):
        raise Problem(HTTPStatus.NOT_IMPLEMENTED, "this server does not remember that")
    return AuditLines(entries=tuple(log.last(asked.query.limit)))


ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    login,
    logout,
    me,
    tokens,
    make_token,
    revoke_token,
    audit,
)


def _entrance(access: object) -> Entrance:
    """What knows who comes in here; a server of another kind may know it from elsewhere."""
    if not isinstance(access, Entrance):
        raise Problem(HTTPStatus.NOT_IMPLEMENTED, "this server is told by others who comes in")
    return access


def _me(who: str, scopes: frozenset[Scope], csrf: str | None) -> Me:
    return Me(who=who, scopes=tuple(scope for scope in Scope if scope in scopes), csrf=csrf)


def _known(token: Token) -> KnownToken:
    return KnownToken(
        id=token.id,
        name=token.name,
        scopes=token.scopes,
        created=token.created,
        expires=token.expires,
        used=token.used,
    )


def _trouble(error: TokenFileError) -> Problem:
    """The disk is in trouble; where, an admin may know."""
    return unavailable(str(error))
