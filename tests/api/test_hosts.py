from __future__ import annotations

from typing import Never

import pytest
from quart_trio import QuartTrio

from elemta.api.hosts import Hosts


def made() -> QuartTrio:
    app = QuartTrio(__name__)

    @app.get("/metrics")
    async def metrics() -> str:
        return "ours"

    app.asgi_app = Hosts(app.asgi_app, {"mail.example.org"})  # type: ignore[method-assign]
    return app


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8025",
        "LOCALHOST",
        "elemta.localhost:1",
        "127.0.0.1:8025",
        "[::1]:8025",
        "192.0.2.1",
        "mail.example.org",
    ],
)
async def test_a_name_of_ours_is_answered(host: str) -> None:
    response = await made().test_client().get("/metrics", headers={"Host": host})
    assert response.status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "evil:80:80"],
)
async def test_a_name_that_has_come_to_mean_us_is_not(host: str) -> None:
    """DNS rebinding: a page that was loaded from there would read what is ours."""
    response = await made().test_client().get("/metrics", headers={"Host": host})
    assert response.status_code == 421
    assert response.content_type == "application/problem+json"


@pytest.mark.parametrize("host", [b"evil.example", b"[::1"])
async def test_a_websocket_is_not_opened_under_another_name(host: bytes) -> None:
    said: list[object] = []

    async def send(message: object) -> None:
        said.append(message)

    async def receive() -> Never:
        raise AssertionError("nobody asks")

    scope = {"type": "websocket", "headers": [(b"host", host)]}
    await Hosts(QuartTrio(__name__), set())(scope, receive, send)  # type: ignore[arg-type] # all that is looked at
    assert said == [{"type": "websocket.close", "code": 1008, "reason": None}]
