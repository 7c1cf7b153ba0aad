"""What Prometheus is answered."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
from prometheus_client.parser import text_string_to_metric_families as plain_families
from quart import abort, websocket

from elemta.api.app import create_app
from elemta.api.exposition import FRESH, add_metrics
from elemta.control.facts import Metric, Sample
from elemta.control.interface import UnavailableError
from tests.api.fakes import FakeAccess, site_of
from tests.control.fake import FakeControl

if TYPE_CHECKING:
    from quart.wrappers import Response
    from trio.testing import MockClock

MEASURED = [
    Metric(
        name="elemta_connections",
        kind="counter",
        about="Connections.",
        samples=(Sample("elemta_connections_total", 7.0, {"listener": 'm"x\n'}),),
    ),
    Metric(
        name="elemta_commit_operations",
        kind="histogram",
        about="Operations.",
        samples=(
            Sample("elemta_commit_operations_bucket", 1.0, {"le": "1.0"}),
            Sample("elemta_commit_operations_bucket", 3.0, {"le": "+Inf"}),
            Sample("elemta_commit_operations_count", 3.0),
            Sample("elemta_commit_operations_sum", 9.5),
        ),
    ),
    Metric(name="elemta_up", kind="gauge", about="Up.", samples=(Sample("elemta_up", 1.0),)),
]


class World:
    """An application with metrics, and a server that tells them."""

    def __init__(self, *, open: bool = True) -> None:  # noqa: A002 # as `add_metrics` has it
        self.control = FakeControl()
        self.control.measured = list(MEASURED)
        self.access = FakeAccess()
        self.app = create_app(site_of(self.control, self.access), ())
        add_metrics(self.app, site_of(self.control, self.access), open=open)

    async def get(self, **headers: str) -> Response:
        return await self.app.test_client().get("/metrics", headers=headers)

    async def lines(self) -> list[str]:
        """All samples."""
        text = (await (await self.get()).get_data(as_text=True)).splitlines()
        return [line for line in text if not line.startswith("#")]


async def test_metrics_come_in_the_text_format_without_a_token() -> None:
    world = World()
    response = await world.get()
    assert response.status_code == 200
    assert response.content_type.startswith("text/plain; version=0.0.4; charset=utf-8")
    text = await response.get_data(as_text=True)
    families = {each.name: each for each in plain_families(text)}
    (connections,) = families["elemta_connections"].samples
    assert (connections.labels, connections.value) == ({"listener": 'm"x\n'}, 7)
    assert families["elemta_commit_operations"].type == "histogram"
    assert "# HELP elemta_up Up.\n# TYPE elemta_up gauge\nelemta_up 1.0\n" in text
    assert world.access.visits == []


async def test_who_prefers_openmetrics_gets_it() -> None:
    response = await World().get(
        accept="application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
    )
    assert response.content_type.startswith("application/openmetrics-text; version=1.0.0")
    text = await response.get_data(as_text=True)
    assert text.endswith("# EOF\n")
    assert "elemta_commit_operations" in {each.name for each in open_families(text)}


async def test_a_token_that_may_read_is_needed_where_they_are_not_open() -> None:
    world = World(open=False)
    assert (await world.get()).status_code == 401
    assert (await world.get(authorization="Bearer submit")).status_code == 403
    assert (await world.get(authorization="Bearer read")).status_code == 200


async def test_many_who_ask_at_a_time_are_told_the_same(autojump_clock: MockClock) -> None:
    world = World()
    await world.get()
    world.control.measured = []
    assert "elemta_up 1.0" in await world.lines()
    await trio.sleep(FRESH)
    assert "elemta_up 1.0" not in await world.lines()


@pytest.mark.parametrize("trouble", ["slow", "down"])
async def test_a_server_that_does_not_tell_is_unavailable(
    trouble: str, autojump_clock: MockClock
) -> None:
    world = World()
    if trouble == "slow":
        world.control.slow = True
    else:
        world.control.failure = UnavailableError("/var/lib/elemta is on fire")
    response = await world.get()
    assert response.status_code == 503
    assert "fire" not in await response.get_data(as_text=True)
    world.control.slow, world.control.failure = False, None
    assert (await world.get()).status_code == 200


async def test_requests_are_counted_by_the_template_of_their_route(
    autojump_clock: MockClock,
) -> None:
    world = World()

    async def item(name: str) -> str:
        await trio.sleep(3)
        if name == "c":
            abort(404)
        return name

    world.app.add_url_rule("/items/<name>", "item", item, methods=["GET"])
    client = world.app.test_client()
    for name in "abc":
        await client.get(f"/items/{name}")
    await client.get("/nowhere")
    await client.post("/items/a")
    lines = await world.lines()
    assert {line for line in lines if line.startswith("elemta_api_requests")} == {
        'elemta_api_requests_total{route="/items/<name>",status="2xx"} 2.0',
        'elemta_api_requests_total{route="/items/<name>",status="4xx"} 1.0',
        'elemta_api_requests_total{route="none",status="4xx"} 2.0',
    }
    assert "elemta_api_request_duration_seconds_count 5.0" in lines
    (total,) = [line for line in lines if "duration_seconds_sum" in line]
    assert float(total.split()[1]) == pytest.approx(9, abs=0.5)


async def test_websockets_are_counted_while_they_are_open(autojump_clock: MockClock) -> None:
    world = World()

    async def talk() -> None:
        await websocket.accept()
        await websocket.receive()

    world.app.add_websocket("/talk", "talk", talk)
    client = world.app.test_client()

    async def subscribers() -> list[str]:
        await trio.sleep(FRESH)
        return re.findall(r"elemta_websocket_subscribers\{.*", "\n".join(await world.lines()))

    assert await subscribers() == []
    async with client.websocket("/talk") as one, client.websocket("/talk") as two:
        await trio.testing.wait_all_tasks_blocked()
        assert await subscribers() == ['elemta_websocket_subscribers{route="/talk"} 2.0']
        await one.send("bye")
        await two.send("bye")
        await trio.testing.wait_all_tasks_blocked()
        assert await subscribers() == ['elemta_websocket_subscribers{route="/talk"} 0.0']
