"""``/metrics``: what Prometheus is told, in the format that it asks for.

The rules of this file:

- There is an answer within `PATIENCE`, or none: whoever asks has a patience of its own.
- Who asks all the time costs nothing: what is known is told again for `FRESH`.
- What is written takes a thread: hundreds of lines are formatted, and mail must not wait for that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import choose_encoder
from quart import Response, request

from elemta.api.arrival import visit_of
from elemta.api.failing import unavailable
from elemta.api.traffic import Traffic
from elemta.api.visit import Scope
from elemta.control.interface import ControlError
from elemta.control.measuring import told
from elemta.metrics.collecting import registry_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from quart import Quart

    from elemta.api.site import Site
    from elemta.control.facts import Metric

#: Seconds that the server gets to tell.
PATIENCE: Final = 5.0
#: Seconds for which it is believed.
FRESH: Final = 1.0
#: In whose name it is asked.
WHO: Final = "metrics"


def add_metrics(app: Quart, site: Site, *, open: bool = True) -> None:  # noqa: A002 # as `Endpoint.open`
    """Give the application ``/metrics``, and count what it is asked.

    Args:
        app: answers.
        site: the server.
        open: nobody is asked who they are; else a token that may read is needed.
    """
    exposition = Exposition(site, Traffic(app))

    async def metrics() -> Response:
        if not open:
            (await site.access.identify(visit_of(request))).check(Scope.READ)
        content, media_type = await exposition.told(request.headers.get("Accept", ""))
        return Response(content, content_type=media_type, headers={"Cache-Control": "no-store"})

    app.add_url_rule("/metrics", "metrics", metrics, methods=["GET"])


class Exposition:
    """Asks the server once for all who want to know.

    Args:
        site: the server.
        traffic: what the API itself counts.
    """

    def __init__(self, site: Site, traffic: Traffic) -> None:
        self._site = site
        self._registry = registry_of(traffic.readings)
        self._asking = trio.Lock()
        self._at = -FRESH
        self._metrics: list[Metric] = []
        self._written: dict[str, bytes] = {}

    async def told(self, accept: str) -> tuple[bytes, str]:
        """All metrics as they are, or were a moment ago, and the format's media type.

        Args:
            accept: what formats are wanted, as HTTP has it.

        Raises:
            Problem: 503, the server does not tell in time.
        """
        encode, media_type = choose_encoder(accept)
        async with self._asking:
            if trio.current_time() - self._at >= FRESH:
                self._metrics = await self._ask()
                self._written.clear()
                self._at = trio.current_time()
            if media_type not in self._written:
                collected = _Collected(self._metrics)
                self._written[media_type] = await trio.to_thread.run_sync(encode, collected)
            return self._written[media_type], media_type

    async def _ask(self) -> list[Metric]:
        try:
            with trio.fail_after(PATIENCE):
                metrics = await self._site.steered_by(WHO).metrics()
        except (trio.TooSlowError, ControlError):
            raise unavailable("the server cannot say how it is") from None
        return [*metrics, *told(self._registry.collect())]


class _Collected:
    """Metrics, as prometheus-client wants to collect them."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Family]:
        for metric in self._metrics:
            family = Family(metric.name, metric.about, metric.kind)
            for each in metric.samples:
                family.add_sample(each.name, each.labels, each.value)
            yield family
