"""Routes of the original program: each leads to what it is now, or says what there is instead.

Rules of this file:

- What means the same is redirected, so that scripts go on; 308 keeps the method and the body.
- What meant something else than it said (its ``flush`` deleted), took another body, or did nothing
  at all is gone, and its problem names what to ask instead.
- Nobody is asked who they are: nothing is told but where to ask.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlencode

from msgspec import Struct
from quart import Response, request

from elemta.api.arrival import query_of
from elemta.api.problem import Problem

if TYPE_CHECKING:
    from quart_trio import QuartTrio


class Former(Struct, frozen=True, kw_only=True):
    """What became of a route.

    Attributes:
        methods: of HTTP; ``WEBSOCKET`` for a websocket.
        path: with names of one segment each in braces.
        now: the path that it is redirected to, with the same names; None: it is gone.
        query: what its parameters are called now; others are left out.
        instead: what to ask instead of one that is gone.
        why: it is gone.
    """

    methods: tuple[str, ...]
    path: str
    now: str | None = None
    query: dict[str, str] = {}
    instead: str = ""
    why: str = ""


_VIEWS: Final = ("active", "deferred", "hold", "failed")
_DELETED: Final = "it deleted all that it named"

FORMER: Final = (
    Former(methods=("GET",), path="/dashboard", now="/"),
    Former(methods=("GET",), path="/api/queue", now="/v1/queue/messages"),
    Former(methods=("GET",), path="/api/queue/stats", now="/v1/queue"),
    *(
        Former(methods=("GET",), path=f"/api/queue/{view}", now=f"/v1/queue/messages?view={view}")
        for view in _VIEWS
    ),
    Former(methods=("GET", "DELETE"), path="/api/queue/message/{id}", now="/v1/messages/{id}"),
    *(
        Former(
            methods=("POST",),
            path=f"/api/queue/{view}/flush",
            instead="POST /v1/queue/retry to try mail now, POST /v1/queue/delete to delete it",
            why=_DELETED,
        )
        for view in (*_VIEWS, "all")
    ),
    Former(methods=("GET",), path="/api/logs", now="/v1/logs", query={"tail": "limit"}),
    Former(
        methods=("GET",),
        path="/api/logs/messages",
        instead="GET /v1/events, filtered by `type`, or GET /v1/logs",
        why="what happens to messages is told as events",
    ),
    Former(methods=("GET",), path="/api/logging/level", now="/v1/logs/level"),
    Former(methods=("PUT",), path="/api/logging/level", now="/v1/logs/level"),
    Former(
        methods=("POST",),
        path="/api/logging/level",
        instead="PUT /v1/logs/level",
        why="what sets a value is a PUT",
    ),
    Former(methods=("GET",), path="/api/health", now="/health"),
    Former(
        methods=("GET",),
        path="/api/stats/delivery",
        now="/v1/statistics",
        query={"timeScale": "scale"},
    ),
    Former(methods=("GET",), path="/api/config", now="/v1/configuration"),
    Former(
        methods=("PUT",),
        path="/api/config",
        instead="POST /v1/configuration/check and POST /v1/configuration/reload when it is edited",
        why="it changed nothing",
    ),
    Former(
        methods=("POST",),
        path="/api/config/restart",
        instead="POST /v1/configuration/reload",
        why="it restarted nothing",
    ),
    Former(methods=("GET",), path="/api/config/plugins", now="/v1/plugins"),
    Former(methods=("GET",), path="/api/plugins", now="/v1/plugins"),
    Former(methods=("PUT",), path="/api/config/plugins/{name}", now="/v1/plugins/{name}"),
    Former(
        methods=("POST",),
        path="/api/send-test",
        instead="POST /v1/messages",
        why="a message is made of other keys",
    ),
    Former(
        methods=("GET", "WEBSOCKET"),
        path="/api/logs/ws",
        instead="the websocket /v1/logs/live",
        why="it was documented only",
    ),
    Former(
        methods=("GET", "WEBSOCKET"),
        path="/api/queue/ws",
        instead="the websocket /v1/events",
        why="it was documented only",
    ),
    Former(
        methods=("POST",),
        path="/auth/login",
        instead="POST /v1/login with a token",
        why="there are no names and passwords",
    ),
    Former(methods=("POST",), path="/auth/logout", now="/v1/logout"),
    Former(
        methods=("GET",),
        path="/auth/logout",
        instead="POST /v1/logout",
        why="what changes something is no GET",
    ),
    Former(methods=("GET",), path="/auth/me", now="/v1/me"),
    Former(methods=("GET",), path="/auth/apikeys", now="/v1/tokens"),
    Former(
        methods=("POST",),
        path="/auth/apikeys",
        instead="POST /v1/tokens",
        why="a token has scopes, not permissions",
    ),
    Former(methods=("DELETE",), path="/auth/apikeys/{id}", now="/v1/tokens/{id}"),
    Former(
        methods=("GET", "PUT"),
        path="/auth/apikeys/{id}",
        instead="GET /v1/tokens; make a new one by POST /v1/tokens",
        why="a token does not change",
    ),
    Former(
        methods=("POST",),
        path="/auth/apikeys/{id}/revoke",
        instead="DELETE /v1/tokens/{id}",
        why="to revoke a token is to delete it",
    ),
    *(
        Former(
            methods=("GET", "POST"),
            path=path,
            instead="GET /metrics and GET /v1/status",
            why="nothing of the process is open to be read",
        )
        for path in ("/debug/pprof/", "/debug/pprof/{name}")
    ),
)


def add_former(app: QuartTrio) -> None:
    """Add the routes of the original program."""
    for number, each in enumerate(FORMER):
        rule = re.sub(r"{(\w+)}", r"<\1>", each.path)
        route = _Route(each)
        name = f"former_{number}"
        methods = [method for method in each.methods if method != "WEBSOCKET"]
        app.add_url_rule(rule, name, route.by_http, methods=methods)
        if "WEBSOCKET" in each.methods:
            app.add_websocket(rule, f"{name}_websocket", route.by_websocket)


class _Route:
    """Where a route of the original leads."""

    def __init__(self, former: Former) -> None:
        self._former = former

    async def by_http(self, **path: str) -> Response:
        """Redirect, or say what there is instead."""
        former = self._former
        if former.now is None:
            raise self._gone()
        asked = dict(query_of(request))
        place = former.now.format_map({name: quote(value, "") for name, value in path.items()})
        if former.path == "/api/queue/message/{id}" and asked.get("format") == "raw":
            place += "/raw"
        kept = {new: asked[old] for old, new in former.query.items() if old in asked}
        if kept:
            place += f"?{urlencode(kept)}"
        return Response(
            b"", HTTPStatus.PERMANENT_REDIRECT, headers={"Location": place}, mimetype="text/plain"
        )

    async def by_websocket(self) -> None:
        """Say what there is instead."""
        raise self._gone()

    def _gone(self) -> Problem:
        former = self._former
        return Problem(HTTPStatus.GONE, f"{former.why}; ask {former.instead}")
