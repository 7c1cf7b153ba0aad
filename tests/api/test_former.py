from __future__ import annotations

import re

import msgspec
import pytest

from elemta.api.app import ENDPOINTS, create_app
from elemta.api.former import FORMER, Former
from elemta.api.problem import Document
from tests.api.fakes import ALL, site_of
from tests.control.fake import FakeControl

#: Every route of the original: its methods and paths, names filled in.
ORIGINAL = [
    "GET /dashboard", "GET /debug/pprof/", "GET /debug/pprof/heap", "POST /auth/login",
    "POST /auth/logout", "GET /auth/logout", "GET /auth/me", "GET /auth/apikeys",
    "POST /auth/apikeys", "GET /auth/apikeys/x", "PUT /auth/apikeys/x", "DELETE /auth/apikeys/x",
    "POST /auth/apikeys/x/revoke", "GET /api/logging/level", "POST /api/logging/level",
    "PUT /api/logging/level", "GET /api/queue", "GET /api/queue/stats", "GET /api/queue/active",
    "GET /api/queue/deferred", "GET /api/queue/hold", "GET /api/queue/failed",
    "GET /api/queue/message/x", "GET /api/queue/message/x?format=raw",
    "DELETE /api/queue/message/x", "POST /api/queue/active/flush", "POST /api/queue/deferred/flush",
    "POST /api/queue/hold/flush", "POST /api/queue/failed/flush", "POST /api/queue/all/flush",
    "GET /api/logs?tail=5", "GET /api/logs/messages?limit=5&event_type=delivery&level=info",
    "GET /api/health", "GET /api/stats/delivery?timeScale=day", "GET /api/config",
    "PUT /api/config", "POST /api/config/restart", "GET /api/config/plugins",
    "PUT /api/config/plugins/x", "POST /api/send-test", "GET /api/plugins", "GET /api/logs/ws",
    "GET /api/queue/ws",
]  # fmt: skip


@pytest.mark.parametrize("asked", ORIGINAL)
async def test_each_route_of_the_original_leads_on(asked: str) -> None:
    method, path = asked.split()
    client = create_app(site_of(FakeControl())).test_client()
    response = await client.open(path, method=method)
    if response.status_code == 410:
        content = await response.get_data(as_text=False)
        detail = msgspec.json.decode(content, type=Document).detail
        assert re.search(r"(GET|POST|PUT|DELETE|websocket) /(v1|metrics)", detail)
        return
    assert response.status_code == 308
    if not response.headers["Location"].startswith("/v1/"):
        return
    body = {"level": "debug"} if path.endswith("level") else {"enabled": True}
    data = msgspec.json.encode(body) if method == "PUT" else None
    headers = ALL | {"Content-Type": "application/json"}
    place = response.headers["Location"]
    followed = await client.open(place, method=method, headers=headers, data=data)
    # It is there, and knows the method and the parameters.
    assert followed.status_code not in (400, 405, 415, 422), place


@pytest.mark.parametrize(
    ("asked", "location"),
    [
        ("/api/queue/message/a%2Fb?format=raw", None),
        ("/api/queue/message/01M8?format=raw", "/v1/messages/01M8/raw"),
        ("/api/queue/message/01%3F8?x=y", "/v1/messages/01%3F8"),
        ("/api/queue/hold?x=y", "/v1/queue/messages?view=hold"),
        ("/api/logs?tail=5%26a%3Db&x=y", "/v1/logs?limit=5%26a%3Db"),
        ("/api/stats/delivery?timeScale=week", "/v1/statistics?scale=week"),
    ],
)
async def test_a_redirect_takes_what_means_the_same(asked: str, location: str | None) -> None:
    response = await create_app(site_of(FakeControl())).test_client().get(asked)
    assert response.headers.get("Location") == location


@pytest.mark.parametrize("former", FORMER, ids=lambda each: each.path)
def test_what_is_named_instead_is_there(former: Former) -> None:
    there = {f"{each.method} {each.path}" for each in ENDPOINTS} | {
        "GET /metrics",
        "GET /v1/events",
    }
    named = re.findall(r"(?:GET|POST|PUT|DELETE) /[\w/{}]+", former.instead)
    assert set(named) <= there
    assert (former.now is None) == bool(former.why) == bool(former.instead)
    if former.now is not None and former.now.startswith("/v1/"):
        assert {f"{method} {former.now.partition('?')[0]}" for method in former.methods} <= there
