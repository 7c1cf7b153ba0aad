"""One request to an application, step by step: a client that stops in the middle, or goes away."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from quart.testing.utils import make_test_scope
from quart.wrappers import Response
from werkzeug.datastructures import Headers

if TYPE_CHECKING:
    from quart_trio import QuartTrio


class Call:
    """A request.

    Args:
        path, headers, method, query: of the request.
    """

    def __init__(
        self, path: str, headers: dict[str, str], *, method: str = "POST", query: bytes = b""
    ) -> None:
        self._scope = make_test_scope(
            "http", path, method, Headers(headers), query, "http", "", "1.1", None
        )
        self._tell, self._told = trio.open_memory_channel[dict[str, object]](100)
        self._status = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self.content = b""

    async def run(self, app: QuartTrio) -> None:
        """Until it is answered."""
        await app(self._scope, self._told.receive, self._take)

    def send(self, content: bytes, *, more: bool = True) -> None:
        """A piece of the body."""
        self._tell.send_nowait({"type": "http.request", "body": content, "more_body": more})

    def leave(self) -> None:
        """Go away."""
        self._tell.send_nowait({"type": "http.disconnect"})

    @property
    def response(self) -> Response:
        """What was answered."""
        headers = Headers([(name.decode(), value.decode()) for name, value in self._headers])
        return Response(self.content, self._status, headers)

    async def _take(self, message: dict[str, object]) -> None:
        await trio.lowlevel.checkpoint()
        match message:
            case {"type": "http.response.start", "status": int(status), "headers": headers}:
                self._status, self._headers = status, list(headers)
            case {"type": "http.response.body", "body": bytes(piece)}:
                self.content += piece
            case _:
                raise AssertionError(message)
