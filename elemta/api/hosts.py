"""Under which names we may be asked for, where this machine alone can ask.

A page of somebody else's, whose name in the DNS comes to mean 127.0.0.1 once it has been loaded,
would be a page of ours to the browser (DNS rebinding). But it cannot change the name that the
browser asks for.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from elemta.api.problem import MEDIA_TYPE, Problem
from elemta.config import is_address

if TYPE_CHECKING:
    from collections.abc import Collection

    from hypercorn.typing import ASGIFramework, ASGIReceiveCallable, ASGISendCallable, Scope


class Hosts:
    """An application that answers only under names that are ours, and the application below it.

    A name of ours is an IP address, ``localhost``, what is below it, and what is given.

    Args:
        app: answers.
        names: in small letters, without ports.
    """

    def __init__(self, app: ASGIFramework, names: Collection[str]) -> None:
        self._app = app
        self._names = frozenset({"localhost", *names})

    async def __call__(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        """See ASGI 3."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        hosts = [value for name, value in scope["headers"] if name.lower() == b"host"]
        if all(self._ours(host.decode("latin-1")) for host in hosts):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": None})
        else:
            problem = Problem(
                HTTPStatus.MISDIRECTED_REQUEST,
                "this server is asked for by a name that is not its own; behind a reverse proxy,"
                " `origins` of `api` names where it is reached",
            )
            await _answer(problem, send)

    def _ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in self._names or name.endswith(".localhost"):
            return True
        return is_address(name)  # a page cannot be at an address that is not its server's


async def _answer(problem: Problem, send: ASGISendCallable) -> None:
    body = problem.encode()
    headers = [
        (b"content-type", MEDIA_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
    ]
    status = problem.status.value
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
