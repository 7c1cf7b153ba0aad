"""The application: every endpoint, and what holds for all of them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Protocol

from quart.routing import QuartRule
from quart_trio import QuartTrio
from typing_extensions import override
from werkzeug.exceptions import BadHost, HTTPException

from elemta.api import (
    action_endpoints,
    destination_endpoints,
    inbox,
    login,
    message_endpoints,
    queue_endpoints,
    server_endpoints,
    submission_endpoints,
)
from elemta.api.beside import BESIDE
from elemta.api.dispatch import MAX_MESSAGE, Dispatch, refusal
from elemta.api.failing import problem_of
from elemta.api.former import add_former
from elemta.api.live import add_live
from elemta.api.openapi import described
from elemta.api.pages import add_pages
from elemta.api.problem import Problem
from elemta.log import logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, Scope
    from quart import Response
    from quart.wrappers.base import BaseRequestWebsocket
    from werkzeug.routing import MapAdapter

    from elemta.api.endpoint import Endpoint
    from elemta.api.site import Site

log = logger(__name__)

_BEYOND_ASCII: Final = re.compile(rb"[^!-~]")

#: All of them. Whoever makes a module of endpoints adds it here.
ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    *queue_endpoints.ENDPOINTS,
    *action_endpoints.ENDPOINTS,
    *message_endpoints.ENDPOINTS,
    *submission_endpoints.ENDPOINTS,
    *destination_endpoints.ENDPOINTS,
    *server_endpoints.ENDPOINTS,
    *login.ENDPOINTS,
    *inbox.ENDPOINTS,
)


class _Route(QuartRule):
    """A rule by which requests are found, and no URL is made.

    To make some, werkzeug compiles two functions for each rule: four fifths of what it takes to
    make the application.
    """

    @override
    def _compile_builder(self, append_unknown: bool = True) -> Callable[[], tuple[str, str]]:
        return _no_url


def _no_url(*_: object) -> tuple[str, str]:
    raise NotImplementedError("nothing here asks for the URL of an endpoint")


class Application(QuartTrio):
    """Quart, but that it logs as we do, and answers whatever is asked."""

    url_rule_class: type[QuartRule] = _Route  # type: ignore[mutable-override] # as Quart itself has it

    @override
    async def __call__(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        """Answer a request."""
        if scope["type"] != "lifespan":
            # Quart decodes it before there is a request that could be refused, and fails.
            escaped = _BEYOND_ASCII.sub(_escape, scope["query_string"])
            scope["query_string"] = escaped
        await super().__call__(scope, receive, send)

    @override
    def create_url_adapter(self, request: BaseRequestWebsocket | None) -> MapAdapter | None:
        """Find routes by their paths, though ``Host`` be no name at all, such as ``a..b``."""
        try:
            return super().create_url_adapter(request)
        except BadHost:
            assert request is not None, "it is whose host is bad"
            return self.url_map.bind(
                "localhost",
                url_scheme=request.scheme,
                default_method=request.method,
                path_info=request.path,
            )

    @override
    def log_exception(self, exception_info: object) -> None:
        """What failed outside of an endpoint: a websocket, or a page."""
        log.exception("api.failed")  # noqa: LOG004 # Quart calls this where it handles one


def create_app(site: Site, endpoints: Iterable[Endpoint] = ENDPOINTS) -> QuartTrio:
    """The API of a server.

    Args:
        site: the server.
        endpoints: that it has.
    """
    app = Application("elemta.api", static_folder=None, template_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_MESSAGE
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    # A path has one spelling, and no redirect tells which: a client that posts would lose its body.
    app.url_map.merge_slashes = False
    app.register_error_handler(Problem, _refuse)
    app.register_error_handler(HTTPException, _refuse)
    app.after_request(_guard)
    dispatch = Dispatch(site)
    listed = tuple(endpoints)
    for endpoint in (*listed, described(listed, BESIDE)):
        rule = endpoint.path.replace("{", "<").replace("}", ">")
        app.add_url_rule(rule, endpoint.name, _view(dispatch, endpoint), methods=[endpoint.method])
    add_pages(app, site)
    add_live(app, site)
    add_former(app)
    return app


class _View(Protocol):
    def __call__(self, **path: str) -> Awaitable[Response]: ...


def _view(dispatch: Dispatch, endpoint: Endpoint) -> _View:
    async def view(**path: str) -> Response:
        return await dispatch.answer(endpoint, path)

    return view


def _escape(found: re.Match[bytes]) -> bytes:
    return b"%%%02X" % ord(found[0])


async def _refuse(error: Exception) -> Response:
    return refusal(problem_of(error))


async def _guard(response: Response) -> Response:
    """What must hold for every answer; a page that knows better has said so."""
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    return response
