from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
import trio
import trio.testing

from elemta.api import health
from elemta.api.app import create_app
from elemta.api.health import add_health
from elemta.control.interface import Status, UnavailableError
from tests.api.fakes import site_of
from tests.control.fake import FakeControl

if TYPE_CHECKING:
    from quart.typing import TestClientProtocol

WELL = Status(
    version="1",
    hostname="mx.example.org",
    pid=1,
    started_at=1.0,
    asked_at=2.0,
    stopping=False,
    troubles=(),
    listeners=(),
    sessions=0,
    places=0,
    deliveries=0,
    files=0,
    in_memory=0,
    queue=None,
    counts={},
    parts=(),
)


class Patient(FakeControl):
    """Says how it is, if it does not hang.

    Attributes:
        asked: how often it was.
    """

    def __init__(self, status: Status = WELL) -> None:
        super().__init__()
        self.now = status
        self.trouble: Exception | None = None
        self.hangs = False
        self.asked = 0

    async def status(self) -> Status:
        await trio.lowlevel.checkpoint()
        self.asked += 1
        if self.hangs:
            await trio.sleep_forever()
        if self.trouble is not None:
            raise self.trouble
        return self.now


def client_of(control: FakeControl) -> TestClientProtocol:
    site = site_of(control)
    app = create_app(site)
    add_health(app, site)
    return app.test_client()


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready"])
async def test_a_server_that_is_well_says_so_to_anybody(
    path: str, autojump_clock: trio.testing.MockClock
) -> None:
    client = client_of(Patient())
    response = await client.get(path)
    assert response.status_code == 200
    assert await response.get_json() == {"status": "ok", "reasons": []}
    assert (await client.head(path)).status_code == 200


@pytest.mark.parametrize(
    ("trouble", "told"),
    [
        (
            "no mail is taken, as the queue cannot be written: disk I/O error",
            "no mail is taken, as the queue cannot be written",
        ),
        ("delivery failed: ValueError: bob@example.org", "delivery failed"),
        ("node 2: nobody listens at /var/lib/elemta", "node 2: nobody listens at …"),
        (
            "node 1: delivery failed: ValueError: bob@example.org",
            "node 1: delivery failed",
        ),
        (
            "no mail is taken, as the disk of /srv/a b is nearly full",
            "no mail is taken, as the disk of … b is nearly full",
        ),
    ],
)
async def test_what_is_wrong_is_told_and_no_more_than_that(
    trouble: str, told: str, autojump_clock: trio.testing.MockClock
) -> None:
    control = Patient(msgspec.structs.replace(WELL, troubles=(trouble,)))
    client = client_of(control)
    for path in ("/health", "/health/ready"):
        response = await client.get(path)
        assert response.status_code == 503
        assert await response.get_json() == {"status": "unavailable", "reasons": [told]}
        assert (await client.head(path)).status_code == 503
    assert (await client.get("/health/live")).status_code == 200


async def test_a_server_that_stops_is_not_ready(autojump_clock: trio.testing.MockClock) -> None:
    client = client_of(Patient(msgspec.structs.replace(WELL, stopping=True)))
    response = await client.get("/health")
    assert response.status_code == 503
    assert (await response.get_json())["reasons"] == ["the server is stopping"]


async def test_a_disk_that_hangs_is_told_within_a_moment(
    autojump_clock: trio.testing.MockClock,
) -> None:
    control = Patient()
    control.hangs = True
    client = client_of(control)
    response = await client.get("/health")
    assert trio.current_time() == pytest.approx(health.PATIENCE)
    assert response.status_code == 503
    assert (await client.get("/health/live")).status_code == 200
    control.hangs = False
    await trio.sleep(health.FRESH)
    assert (await client.get("/health")).status_code == 200


async def test_a_server_that_cannot_say_how_it_is_is_not_ready(
    autojump_clock: trio.testing.MockClock,
) -> None:
    control = Patient()
    control.trouble = UnavailableError("the queue cannot be read: bob@example.org")
    response = await client_of(control).get("/health")
    assert (await response.get_json())["reasons"] == ["the server cannot say how it is"]


async def test_who_asks_all_the_time_costs_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    control = Patient()
    client = client_of(control)
    for _ in range(20):
        await client.get("/health")
    assert control.asked == 1
