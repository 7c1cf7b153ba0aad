"""The routes of what is told live, and who may come in."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from quart import Response, request, websocket

from elemta.api.arrival import query_of, visit_of
from elemta.api.live import sse
from elemta.api.live.clients import Clients
from elemta.api.live.staying import while_let_in
from elemta.api.live.steering import steer
from elemta.api.live.streams import OURSELVES, EventStream, LogStream, TraceStream, admitted
from elemta.api.live.websocket import tell
from elemta.api.problem import Problem
from elemta.api.visit import Scope

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from quart.wrappers import Request, Websocket
    from quart_trio import QuartTrio

    from elemta.api.live.batch import Batch
    from elemta.api.live.streams import Stream
    from elemta.api.site import Site

#: Under which name an application keeps who listens.
EXTENSION: Final = "elemta.live"


def add_live(app: QuartTrio, site: Site) -> Clients:
    """Add ``/v1/events``, ``/v1/trace``, ``/v1/logs/live`` and ``/v1/control``.

    What outlives the client who was first runs in the nursery of the application, which is there
    once it was told that it starts up (ASGI's lifespan).

    Returns:
        Who listens.
    """
    control, clients = site.steered_by(OURSELVES), Clients()

    def spawn(run: Callable[[], Awaitable[None]]) -> None:
        app.nursery.start_soon(run)

    streams: dict[str, Stream] = {
        "events": EventStream(control, spawn, site.stopping),
        "trace": TraceStream(control, spawn, site.stopping),
        "logs/live": LogStream(control, spawn, site.stopping),
    }
    for name, stream in streams.items():
        route = _Route(site, stream, clients)
        endpoint = f"live_{name.replace('/', '_')}"
        app.add_websocket(f"/v1/{name}", f"{endpoint}_websocket", route.by_websocket)
        app.add_url_rule(f"/v1/{name}", endpoint, route.by_http, methods=["GET"])

    async def steered() -> None:
        visit = visit_of(websocket)
        caller = await site.access.identify(visit)
        with clients.place():
            await steer(websocket, site, caller, visit)

    app.add_websocket("/v1/control", "live_control", steered)
    app.extensions[EXTENSION] = clients
    return clients


class _Route:
    """Where a stream is listened to."""

    def __init__(self, site: Site, stream: Stream, clients: Clients) -> None:
        self._site = site
        self._stream = stream
        self._clients = clients

    async def by_websocket(self) -> None:
        await tell(websocket, await self._told(websocket))

    async def by_http(self) -> Response:
        accepted = request.accept_mimetypes
        if accepted and not accepted[sse.MEDIA_TYPE]:
            raise Problem(
                HTTPStatus.NOT_ACCEPTABLE,
                f"this is told over a websocket, or as {sse.MEDIA_TYPE}: accept that, or upgrade",
            )
        return await sse.response(await self._told(request))

    async def _told(self, asked: Request | Websocket) -> AsyncGenerator[Batch]:
        """What is told to who asks, if they may know it."""
        access, visit = self._site.access, visit_of(asked)
        (await access.identify(visit)).check(Scope.READ)
        resumed = asked.headers.get("Last-Event-ID")
        told = admitted(self._stream.tell(query_of(asked), resumed), self._clients)
        return while_let_in(told, access, visit)
