from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from elemta.api import tokens
from elemta.api.access import Entrance
from elemta.api.app import ENDPOINTS, create_app
from elemta.api.audit import AuditLog
from elemta.api.guesses import Guesses
from elemta.api.keys import Keys
from elemta.api.sessions import Sessions
from elemta.api.tokens import TokenFile
from elemta.api.visit import Scope
from tests.api.fakes import site_of
from tests.control.fake import FakeControl

if TYPE_CHECKING:
    from pathlib import Path

    from quart import Response
    from quart.typing import TestClientProtocol

#: Where the clock of `site_of` stands.
NOW = 1000.0


class Door:
    """An API with real tokens, and a client of it."""

    def __init__(self, folder: Path) -> None:
        self.file = TokenFile(folder)
        clock = lambda: NOW  # noqa: E731 # it stands
        keys = Keys(self.file, clock)
        entrance = Entrance(keys, Sessions(clock), Guesses(clock))
        self.audit = AuditLog(folder, clock)
        self.app = create_app(site_of(FakeControl(), entrance, self.audit))
        self.client: TestClientProtocol = self.app.test_client()

    def token(self, *scopes: Scope, name: str = "test") -> str:
        _, text = tokens.issue(self.file, name, scopes, now=NOW, expires=None)
        return text

    async def post(
        self, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> Response:
        return await self.client.post(path, json=body or {}, headers=headers or {})

    async def csrf(self) -> dict[str, str]:
        """The header that lets the session of the client change something."""
        me = await (await self.client.get("/v1/me")).get_json()
        return {"X-CSRF-Token": me["csrf"]}


@pytest.fixture
def door(tmp_path: Path) -> Door:
    return Door(tmp_path)


async def test_who_has_no_token_learns_nothing(door: Door) -> None:
    response = await door.client.get("/v1/status")
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="elemta"'
    assert response.content_type == "application/problem+json"


async def test_a_token_logs_a_browser_in(door: Door) -> None:
    token = door.token(Scope.READ)
    response = await door.post("/v1/login", {"token": token})
    assert response.status_code == 200
    cookie = response.headers["Set-Cookie"]
    assert cookie.startswith("elemta_session=")
    assert cookie.endswith("; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict")
    me = await (await door.client.get("/v1/me")).get_json()
    assert me == {"who": "token:test", "scopes": ["read"], "csrf": me["csrf"]}
    assert me == await response.get_json()
    assert (await door.client.get("/v1/status")).status_code == 200


async def test_a_one_time_link_makes_an_admin_once(door: Door) -> None:
    link = tokens.invite(door.file, now=NOW)
    response = await door.post("/v1/login", {"once": link})
    me = await response.get_json()
    assert me["who"] == "link:" + link.split("_")[1]
    assert me["scopes"] == ["admin"]
    response = await door.post("/v1/login", {"once": link})
    assert response.status_code == 401
    assert "this link is not good" in (await response.get_json())["detail"]


@pytest.mark.parametrize("body", [{}, {"token": "a", "once": "b"}, {"token": None}])
async def test_a_login_is_by_one_of_two_ways(door: Door, body: object) -> None:
    response = await door.post("/v1/login", body)
    assert response.status_code == 422
    assert (await response.get_json())["faults"][0]["field"] == "token"


async def test_a_login_with_a_wrong_token_is_refused_and_remembered(door: Door) -> None:
    response = await door.post("/v1/login", {"token": "elemta_" + "a" * 12 + "_" + "b" * 43})
    assert response.status_code == 401
    assert "Set-Cookie" not in response.headers
    (noted,) = door.audit.last(10)
    assert (noted.who, noted.path, noted.status, noted.told) == ("", "/v1/login", 401, "")


async def test_a_change_with_a_cookie_needs_what_only_our_pages_know(door: Door) -> None:
    await door.post("/v1/login", {"token": door.token(Scope.ADMIN)})
    body = {"name": "a", "scopes": ["read"]}
    assert (await door.post("/v1/tokens", body)).status_code == 403
    assert (await door.post("/v1/tokens", body, {"X-CSRF-Token": "x"})).status_code == 403
    right = await door.csrf()
    foreign = {**right, "Origin": "http://evil.example"}
    assert (await door.post("/v1/tokens", body, foreign)).status_code == 403
    assert (await door.post("/v1/tokens", body, right)).status_code == 201


async def test_who_logs_out_is_out(door: Door) -> None:
    await door.post("/v1/login", {"token": door.token(Scope.READ)})
    response = await door.post("/v1/logout", headers=await door.csrf())
    assert response.status_code == 204
    assert "Max-Age=0" in response.headers["Set-Cookie"]
    assert (await door.client.get("/v1/me")).status_code == 401


async def test_tokens_are_made_shown_and_revoked(door: Door) -> None:
    admin = {"Authorization": "Bearer " + door.token(Scope.ADMIN, name="admin")}
    made = await door.post(
        "/v1/tokens", {"name": "ci", "scopes": ["submit", "read"], "expires": NOW + 60}, admin
    )
    assert made.status_code == 201
    token = await made.get_json()
    assert token["scopes"] == ["read", "submit"]
    shown = await (await door.client.get("/v1/tokens", headers=admin)).get_json()
    assert [each["name"] for each in shown["tokens"]] == ["admin", "ci"]
    assert shown["tokens"][0]["used"] == NOW
    assert "hash" not in json.dumps(shown)
    own = {"X-API-Key": token["token"]}
    assert (await door.client.get("/v1/status", headers=own)).status_code == 200
    assert (await door.client.get("/v1/tokens", headers=own)).status_code == 403
    gone = await door.client.delete(f"/v1/tokens/{token['id']}", headers=admin)
    assert gone.status_code == 204
    assert (await door.client.get("/v1/status", headers=own)).status_code == 401
    again = await door.client.delete(f"/v1/tokens/{token['id']}", headers=admin)
    assert again.status_code == 404


async def test_a_session_ends_with_the_token_that_it_was_begun_with(door: Door) -> None:
    await door.post("/v1/login", {"token": door.token(Scope.READ)})
    admin = {"Authorization": "Bearer " + door.token(Scope.ADMIN, name="admin")}
    shown = await (await door.client.get("/v1/tokens", headers=admin)).get_json()
    await door.client.delete(f"/v1/tokens/{shown['tokens'][0]['id']}", headers=admin)
    assert (await door.client.get("/v1/status")).status_code == 401


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"name": "a b", "scopes": ["read"]}, 422, "name"),
        ({"name": "a", "scopes": []}, 422, "scopes"),
        ({"name": "a", "scopes": ["root"]}, 422, "scopes[0]"),
        ({"name": "a", "scopes": ["read"], "expires": NOW}, 422, "expires"),
        ({"name": "admin", "scopes": ["read"]}, 422, "name"),
    ],
)
async def test_a_mistake_in_what_is_wanted_is_told(
    door: Door, body: object, status: int, field: str
) -> None:
    admin = {"Authorization": "Bearer " + door.token(Scope.ADMIN, name="admin")}
    response = await door.post("/v1/tokens", body, admin)
    assert response.status_code == status
    assert (await response.get_json())["faults"][0]["field"] == field


async def test_the_audit_log_has_who_changed_what_and_no_secret(door: Door) -> None:
    text = door.token(Scope.ADMIN, name="admin")
    admin = {"Authorization": "Bearer " + text}
    await door.post("/v1/login", {"token": text})
    made = await door.post("/v1/tokens", {"name": "ci", "scopes": ["read"]}, admin)
    token = await made.get_json()
    await door.client.delete(f"/v1/tokens/{token['id']}", headers=admin)
    told = await (await door.client.get("/v1/audit?limit=2", headers=admin)).get_json()
    assert [(each["who"], each["method"], each["status"]) for each in told["entries"]] == [
        ("token:admin", "DELETE", 204),
        ("token:admin", "POST", 201),
    ]
    assert told["entries"][0]["told"] == "token:ci"
    everything = json.dumps([str(each) for each in door.audit.last(100)])
    for secret in (text.split("_", 2)[2], token["token"].split("_", 2)[2]):
        assert secret not in everything


async def test_a_file_that_is_damaged_is_told_to_an_admin(door: Door) -> None:
    admin = {"Authorization": "Bearer " + door.token(Scope.ADMIN)}
    assert (await door.client.get("/v1/tokens", headers=admin)).status_code == 200
    door.file.path.write_text("{")
    body = {"name": "a", "scopes": ["read"]}
    for response in (
        await door.post("/v1/tokens", body, admin),
        await door.client.delete("/v1/tokens/x", headers=admin),
    ):
        assert response.status_code == 503
        assert "tokens.json is damaged" in (await response.get_json())["detail"]


async def test_fault_21_a_name_that_contains_admin_makes_nobody_an_admin(door: Door) -> None:
    """The original made an admin of whoever's name had the word in it."""
    headers = {"Authorization": "Bearer " + door.token(Scope.READ, name="not-admin")}
    assert (await door.client.get("/v1/tokens", headers=headers)).status_code == 403
    assert (await door.client.get("/v1/me", headers=headers)).status_code == 200


async def test_fault_21_a_stored_hash_lets_nobody_in(door: Door) -> None:
    """The original took a hash that it had stored for the password."""
    door.token(Scope.ADMIN)
    (token,) = door.file.read().tokens
    for text in (token.hash, f"elemta_{token.id}_{token.hash}", f"elemta_{token.id}_{'x' * 43}"):
        headers = {"Authorization": f"Bearer {text}"}
        assert (await door.client.get("/v1/status", headers=headers)).status_code == 401
        assert (await door.post("/v1/login", {"token": text})).status_code == 401


async def test_fault_21_nothing_is_told_or_done_without_a_login(door: Door) -> None:
    """The original showed queue, messages, logs and configuration to anybody."""
    for endpoint in ENDPOINTS:
        path = endpoint.path.replace("{id}", "01M82Q28V6DAVJCKE0E9HMK3Q1").replace("{name}", "x")
        for headers in (
            {},
            {"Cookie": "elemta_session=x"},
            {"Authorization": "Basic YWRtaW46YWRtaW4="},
        ):
            if not endpoint.open:
                response = await door.client.open(path, method=endpoint.method, headers=headers)
                assert response.status_code == 401, endpoint.name
                assert response.content_type == "application/problem+json"


async def test_fault_21_nothing_is_told_live_without_a_login(door: Door) -> None:
    for path in ("/v1/events", "/v1/trace", "/v1/logs/live", "/v1/openapi.json"):
        response = await door.client.get(path, headers={"Accept": "text/event-stream, */*"})
        assert response.status_code == 401, path


@pytest.mark.parametrize("path", ["/debug/pprof/", "/debug/vars"])
async def test_fault_21_what_the_processor_does_is_told_to_nobody(door: Door, path: str) -> None:
    """The original had Go's profiler open, without a login."""
    headers = {"Authorization": "Bearer " + door.token(Scope.ADMIN)}
    assert (await door.client.get(path, headers=headers)).status_code in (404, 410)


def test_only_a_login_is_open() -> None:
    assert [each.path for each in ENDPOINTS if each.open] == ["/v1/login"]
