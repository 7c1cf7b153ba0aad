"""Whether the server is well: for load balancers and orchestrators, who have no token.

The rules of this file:

- There is an answer within `PATIENCE`, whatever has become of disk and nodes.
- What is told is what is wrong, and no more: no address, and nothing that an exception said.
- Who asks all the time costs nothing: what is known is told again for `FRESH`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal

import msgspec
import trio
from msgspec import Struct
from quart import Response

from elemta.control.interface import ControlError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from quart import Quart

    from elemta.api.site import Site

#: Seconds that the server gets to say how it is.
PATIENCE: Final = 2.0
#: Seconds that it is believed for.
FRESH: Final = 1.0
#: In whose name it is asked.
WHO: Final = "health"

#: A node's name, and the words before what an exception has to say.
_REASON: Final = re.compile(r"(?:node \d+: )?[^:]*")
_PATH: Final = re.compile(r"/\S*")


class Health(Struct, frozen=True, kw_only=True):
    """How it is.

    Attributes:
        reasons: why it is not ready.
    """

    status: Literal["ok", "unavailable"]
    reasons: tuple[str, ...] = ()


class Pulse:
    """Asks the server how it is, once for all who want to know.

    Args:
        site: the server.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._asking = trio.Lock()
        self._at = -FRESH
        self._health = Health(status="ok")

    async def feel(self) -> Health:
        """How it is, or was a moment ago."""
        async with self._asking:
            if trio.current_time() - self._at >= FRESH:
                reasons = await self._reasons()
                self._health = Health(status="unavailable" if reasons else "ok", reasons=reasons)
                self._at = trio.current_time()
            return self._health

    async def _reasons(self) -> tuple[str, ...]:
        try:
            with trio.fail_after(PATIENCE):
                status = await self._site.steered_by(WHO).status()
        except trio.TooSlowError:
            return (f"the server does not say within {PATIENCE:.0f} s how it is",)
        except ControlError:
            return ("the server cannot say how it is",)
        troubles = tuple(dict.fromkeys(_told(each) for each in status.troubles))
        return ("the server is stopping", *troubles) if status.stopping else troubles


def add_health(app: Quart, site: Site) -> None:
    """Give the application ``/health``, ``/health/live`` and ``/health/ready``.

    Args:
        app: answers.
        site: the server.
    """
    pulse = Pulse(site)

    async def ready() -> Response:
        return _response(await pulse.feel())

    async def live() -> Response:
        return _response(Health(status="ok"))

    routes: dict[str, Callable[[], Awaitable[Response]]] = {
        "/health": ready,
        "/health/ready": ready,
        "/health/live": live,
    }
    for path, answer in routes.items():
        app.add_url_rule(path, path.strip("/").replace("/", "_"), answer, methods=["GET"])


def _response(health: Health) -> Response:
    return Response(
        msgspec.json.encode(health),
        status=200 if health.status == "ok" else 503,
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )


def _told(trouble: str) -> str:
    found = _REASON.match(trouble)
    return _PATH.sub("…", found[0]).strip() if found is not None else ""
