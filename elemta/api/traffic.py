"""What the API itself is asked: counted by the templates of routes, of which there are few."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import trio
from quart import g, request, websocket

from elemta.metrics.collecting import Reading
from elemta.metrics.meters import LATENCY, Distribution

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quart import Quart, Response
    from quart.wrappers import BaseRequestWebsocket


class Traffic:
    """Counts what an application answers.

    Args:
        app: whose requests and websockets are counted from now on.
    """

    def __init__(self, app: Quart) -> None:
        self._requests = Counter[tuple[str, str]]()
        self._seconds = Distribution(LATENCY)
        self._websockets = Counter[str]()
        app.before_request(self._begin)
        app.after_request(self._end)
        app.before_websocket(self._open)
        app.teardown_websocket(self._close)

    def readings(self) -> Iterator[Reading]:
        """What was counted."""
        for labels, count in self._requests.items():
            yield Reading("elemta_api_requests_total", count, labels)
        yield Reading("elemta_api_request_duration_seconds", self._seconds)
        for route, count in self._websockets.items():
            yield Reading("elemta_websocket_subscribers", count, (route,))

    async def _begin(self) -> None:
        g.began = trio.current_time()

    async def _end(self, response: Response) -> Response:
        self._requests[_route(request), f"{response.status_code // 100}xx"] += 1
        began: float = g.get("began", trio.current_time())
        self._seconds.observe(trio.current_time() - began)
        return response

    async def _open(self) -> None:
        g.counted = route = _route(websocket)
        self._websockets[route] += 1

    async def _close(self, _: BaseException | None) -> None:
        """The websocket is over; it may have been before it was counted."""
        route: str | None = g.pop("counted", None)
        if route is not None:
            self._websockets[route] -= 1


def _route(asked: BaseRequestWebsocket) -> str:
    """The template of its route: no path, since whoever asks makes paths up."""
    return asked.url_rule.rule if asked.url_rule is not None else "none"
