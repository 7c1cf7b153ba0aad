"""What there is beside endpoints, for who reads the OpenAPI document: health, metrics, streams.

None of it is answered by way of a declaration, as endpoints are; so it is described here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from elemta.api.endpoint import JSON, Nothing
from elemta.api.health import Health
from elemta.api.live.sse import MEDIA_TYPE
from elemta.api.live.streams import EventsQuery, LogQuery
from elemta.api.visit import Scope
from elemta.control.facts import TraceFilter


class Gives(Struct, frozen=True, kw_only=True):
    """An answer.

    Attributes:
        about: when it comes.
        media_type: of its content; empty: it has none.
        schema: of its content; None: it is text.
    """

    about: str
    media_type: str = ""
    schema: type[Struct] | None = None


class Beside(Struct, frozen=True, kw_only=True):
    """A path that is asked by GET, and is no endpoint.

    Attributes:
        tag, summary, about, scope, open, query: as of `elemta.api.endpoint.Endpoint`.
        answers: by their statuses.
        problems: statuses of what can go wrong.
        headers: that may be sent, and what they say.
    """

    path: str
    tag: str
    summary: str
    about: str
    scope: Scope | None = None
    open: bool = False
    query: type[Struct] = Nothing
    answers: Mapping[int, Gives]
    problems: tuple[int, ...] = ()
    headers: Mapping[str, str] = {}


_WELL: Final = {
    200: Gives(about="All is well", media_type=JSON, schema=Health),
    503: Gives(about="Something is not; `reasons` says what", media_type=JSON, schema=Health),
}
_LIVE: Final = """\
A websocket: each frame is a JSON array of what came since the last one. For who cannot speak that,
Server-Sent Events, without an end. A `Hello` comes first, and a `Heartbeat` when nothing else does;
`Missed` says how many were not read in time."""
_UPGRADED: Final = Gives(about="The websocket, if an upgrade to one was asked for")
_TOLD: Final = {
    101: _UPGRADED,
    200: Gives(about="Server-Sent Events, for as long as you listen", media_type=MEDIA_TYPE),
}
_REFUSED: Final = (400, 401, 403, 406, 422, 429, 503)
_RESUMED: Final = "The number of the last event that you know, as `since`; comes before that."


def _stream(path: str, summary: str, query: type[Struct], **headers: str) -> Beside:
    return Beside(
        path=path,
        tag="live",
        summary=summary,
        about=_LIVE,
        scope=Scope.READ,
        query=query,
        answers=_TOLD,
        problems=_REFUSED,
        headers={name.replace("_", "-"): told for name, told in headers.items()},
    )


#: All of it.
BESIDE: Final[tuple[Beside, ...]] = (
    _stream("/v1/events", "What happens in the queue, live", EventsQuery, Last_Event_ID=_RESUMED),
    _stream("/v1/trace", "What is said to clients and to other servers, live", TraceFilter),
    _stream("/v1/logs/live", "The log, live", LogQuery),
    Beside(
        path="/v1/control",
        tag="live",
        summary="The protocol of the control socket, over a websocket",
        about=(
            "One line of JSON a request, as the command line and `elemta monitor` speak it; each"
            " needs the scope of what it asks for."
        ),
        answers={101: _UPGRADED},
        problems=(400, 401, 403, 429, 503),
    ),
    Beside(
        path="/health",
        tag="server",
        summary="Whether all is well",
        about="The same as `/health/ready`.",
        open=True,
        answers=_WELL,
    ),
    Beside(
        path="/health/ready",
        tag="server",
        summary="Whether all is well, for load balancers",
        about="There is an answer within two seconds, whatever has become of the server.",
        open=True,
        answers=_WELL,
    ),
    Beside(
        path="/health/live",
        tag="server",
        summary="Whether the process turns, for who would start it anew",
        about="",
        open=True,
        answers={200: _WELL[200]},
    ),
    Beside(
        path="/metrics",
        tag="server",
        summary="Metrics, for Prometheus",
        about="With `metrics: false` of `api` in the configuration it needs the scope `read`.",
        open=True,
        answers={200: Gives(about="In the format that `Accept` asks for", media_type="text/plain")},
        problems=(503,),
    ),
)
