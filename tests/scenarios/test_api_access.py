"""The API as clients meet it: curl, browsers' cookies, websockets, and those who mean harm."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
import trustme
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from elemta.api import tokens
from elemta.api.tokens import TokenFile
from elemta.api.visit import Scope
from tests.scenarios import messages, ports
from tests.scenarios.conftest import needs

if TYPE_CHECKING:
    from pathlib import Path

    from websockets.sync.client import ClientConnection

    from tests.scenarios.conftest import MakeDaemon
    from tests.scenarios.daemon import Daemon

pytestmark = [pytest.mark.scenario, needs("curl")]


class Answer:
    """What curl heard."""

    def __init__(self, heard: bytes) -> None:
        head, _, self.body = heard.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        self.status = int(status.split(" ")[1])
        self.headers = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in lines)
        }

    def json(self) -> dict[str, object]:
        found = json.loads(self.body)
        assert isinstance(found, dict)
        return found

    def text(self, key: str) -> str:
        found = self.json()[key]
        assert isinstance(found, str)
        return found


class Curl:
    """Asks one API."""

    def __init__(self, url: str, *options: str) -> None:
        self.url = url
        self._options = options

    def __call__(
        self, path: str, *options: str, token: str | None = None, body: object = None
    ) -> Answer:
        command = ["curl", "-sS", "-i", "--http1.1", "--max-time", "20", *self._options, *options]
        if token is not None:
            command += ["-H", f"Authorization: Bearer {token}"]
        if body is not None:
            command += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
        done = subprocess.run([*command, self.url + path], capture_output=True, check=True)
        return Answer(done.stdout)


def with_api(make_elemta: MakeDaemon, **settings: object) -> tuple[Daemon, int]:
    """A daemon with an API, not started yet."""
    port = ports.free_port()
    api: dict[str, object] = {"address": f"127.0.0.1:{port}"}
    api.update(settings.pop("api", {}))  # type: ignore[call-overload] # a table
    return make_elemta({"api": api, **settings}), port


def token_of(daemon: Daemon, name: str, *scopes: str) -> str:
    """As ``elemta token create`` does, but for starting a program."""
    wanted = [Scope(scope) for scope in scopes]
    return tokens.issue(TokenFile(daemon.data), name, wanted, now=time.time(), expires=None)[1]


def test_who_may_come_in_and_who_may_not(make_elemta: MakeDaemon) -> None:
    daemon, port = with_api(make_elemta)
    daemon.start()
    curl = Curl(f"http://127.0.0.1:{port}")

    # The original showed all of this to anybody.
    for path in ("status", "queue", "queue/messages", "logs", "configuration", "messages/x/raw"):
        answer = curl(f"/v1/{path}")
        assert answer.status == 401, path
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["www-authenticate"].startswith("Bearer")
    assert curl("/v1/status", token="elemta_" + "a" * 12 + "_" + "b" * 43).status == 401
    assert curl("/v1/status", "-u", "admin:admin").status == 401
    # What nobody will read is refused while it still comes, and that is heard.
    (daemon.folder / "big").write_bytes(b" " * 5_000_000)
    post = ("-H", "Expect:", "--data-binary", f"@{daemon.folder / 'big'}")
    assert curl("/v1/queue/hold", *post).status == 401
    health = curl("/health")
    assert (health.status, health.json()) == (200, {"status": "ok", "reasons": []})
    assert curl("/health/ready", "-I").status == 200

    # A token does what it was given, whatever it is called.
    reader = daemon.tell("token", "create", "not-admin", "--scope", "read").strip()
    assert curl("/v1/status", token=reader).json()["hostname"] == "mx.example.org"
    assert curl("/v1/status", "-H", f"X-API-Key: {reader}").status == 200
    assert curl("/v1/tokens", token=reader).status == 403
    everything = {"filter": {}, "all": True}
    assert curl("/v1/queue/hold", token=reader, body=everything).status == 403
    operator = token_of(daemon, "operator", "operate")
    assert curl("/v1/queue/hold", token=operator, body=everything).status == 200
    assert curl("/v1/status", token=operator).status == 403
    stored = json.loads((daemon.data / "tokens.json").read_text())["tokens"][0]
    assert curl("/v1/status", token=stored["hash"]).status == 401
    daemon.tell("token", "revoke", "not-admin")
    ports.eventually(lambda: curl("/v1/status", token=reader).status == 401, what="the revocation")

    # The link of the first start, and a browser's session.
    invited = re.compile(r"^elemta: to log in, once and within an hour: (.*)$", re.MULTILINE)
    (link,) = invited.findall(daemon.log.read_text())
    url, _, once = link.partition("/login#once=")
    assert url == curl.url
    login = curl("/v1/login", body={"once": once})
    assert login.status == 200
    assert curl("/v1/login", body={"once": once}).status == 401
    cookie = login.headers["set-cookie"]
    assert re.fullmatch(
        r"elemta_session=\S{43}; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict", cookie
    )
    jar = ("-H", "Cookie: " + cookie.partition(";")[0])
    csrf = ("-H", "X-CSRF-Token: " + login.text("csrf"))
    assert curl("/v1/me", *jar).text("csrf") == login.text("csrf")
    wanted = {"name": "made", "scopes": ["read"]}
    assert curl("/v1/tokens", *jar, body=wanted).status == 403
    foreign = ("-H", "Origin: http://evil.example")
    assert curl("/v1/tokens", *jar, *csrf, *foreign, body=wanted).status == 403
    ours = ("-H", f"Origin: {curl.url}")
    made = curl("/v1/tokens", *jar, *csrf, *ours, body=wanted)
    assert made.status == 201
    assert curl("/v1/status", token=made.text("token")).status == 200
    _see_who_may_open_a_websocket(port, made.text("token"), jar[1])
    assert curl("/v1/logout", *jar, *csrf, "-X", "POST").status == 204
    assert curl("/v1/me", *jar).status == 401

    # A name that has come to mean this machine.
    assert curl("/health", "-H", "Host: evil.example").status == 421

    # Who did what, and no secret.
    admin = token_of(daemon, "admin", "admin")
    entries = curl("/v1/audit", token=admin).json()["entries"]
    assert isinstance(entries, list)
    told = [(each["who"], each["path"], each["status"]) for each in entries]
    assert ("token:operator", "/v1/queue/hold", 200) in told
    assert ("token:not-admin", "/v1/queue/hold", 403) in told
    assert any(who.startswith("link:") and path == "/v1/tokens" for who, path, _ in told)
    assert daemon.terminate() == 0
    for path in (daemon.data / "audit.log", daemon.log):
        text = path.read_text()
        secrets = [each.split("_", 2)[2] for each in (reader, operator, admin, made.text("token"))]
        for secret in (*secrets, cookie[15:58]):
            assert secret not in text
        assert "/v1/queue/hold" in text
    assert (daemon.data / "audit.log").stat().st_mode & 0o777 == 0o600

    # Who was let in once is not invited again.
    daemon.start()
    assert len(invited.findall(daemon.log.read_text())) == 1
    assert curl("/v1/status", token=admin).status == 200
    assert curl("/v1/login", body={"once": once}).status == 401


def _see_who_may_open_a_websocket(port: int, token: str, cookie: str) -> None:
    url, page = f"ws://127.0.0.1:{port}/v1/events", f"http://127.0.0.1:{port}"
    by_token = {"Authorization": f"Bearer {token}"}
    name, _, value = cookie.partition(": ")
    by_cookie = {name: value}
    for headers, origin in ((by_token, None), (by_cookie, page)):
        with connect(url, additional_headers=headers, origin=origin) as program:  # type: ignore[arg-type] # a NewType of text
            assert json.loads(program.recv(timeout=10))[0]["type"] == "Hello"
    for headers, origin in (({}, None), (by_cookie, None), (by_cookie, "http://evil.example")):
        with pytest.raises(InvalidStatus) as refused:
            connect(url, additional_headers=headers, origin=origin)  # type: ignore[arg-type] # a NewType of text
        assert refused.value.response.status_code in (401, 403)


def test_no_client_holds_up_the_end_nor_the_mail(make_elemta: MakeDaemon) -> None:
    daemon, port = with_api(make_elemta, routes=[{"match": "*", "via": ["smtp://127.0.0.1:1"]}])
    daemon.start()
    token = token_of(daemon, "all", "admin")
    for _ in range(50):
        daemon.send(messages.numbered("x"), ["bob@far.example", "eve@far.example"])
    with ExitStack() as held:

        def dial() -> socket.socket:
            client = socket.socket()
            # A small window: what is not read is soon all that fits.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", port))
            return held.enter_context(client)

        asking = f"Host: localhost\r\nAuthorization: Bearer {token}\r\n"
        for _ in range(20):  # answers that nobody reads
            listing = f"GET /v1/queue/messages?limit=500 HTTP/1.1\r\n{asking}\r\n"
            dial().sendall(listing.encode() * 50)
        for _ in range(20):  # websockets that nobody reads
            upgrade = (
                f"GET /v1/events?since=0 HTTP/1.1\r\n{asking}Connection: Upgrade\r\n"
                "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            dial().sendall(upgrade.encode())
        for _ in range(20):  # headers, and bodies, that never end
            dial().sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-")
            dial().sendall(
                f"POST /v1/queue/hold HTTP/1.1\r\n{asking}Content-Length: 99\r\n\r\n{{".encode()
            )

        def listens() -> ClientConnection | None:
            try:
                return connect(
                    f"ws://127.0.0.1:{port}/v1/events",
                    additional_headers={"Authorization": f"Bearer {token}"},
                    open_timeout=60,  # a thousand listings that nobody reads are made meanwhile
                )
            except InvalidStatus as error:
                if error.response.status_code != 503:
                    raise
                return None  # it cannot say in time how it is, and is to be asked again

        with ports.eventually(listens, what="a place") as program:
            daemon.send(messages.numbered("y"), ["bob@example.org"])
            ports.eventually(lambda: len(daemon.maildir("bob@example.org")) == 1)
            began = time.monotonic()
            daemon.signal(signal.SIGTERM)
            code = ports.eventually(lambda: _closed(program), what="the goodbye")
        assert daemon.wait(within=20) == 0
        assert time.monotonic() - began < 20, "not as long as its clients like"
        assert code == 1001, "the server goes away (RFC 6455 §7.4.1)"


def _closed(program: object) -> int | None:
    """What a websocket was closed with; None: it is open."""
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import ClientConnection

    assert isinstance(program, ClientConnection)
    try:
        program.recv(timeout=0.2)
    except TimeoutError:
        return None
    except ConnectionClosed:
        return program.close_code
    return None


def test_two_nodes_have_one_api_encrypted(make_elemta: MakeDaemon, place: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(place / "ca.pem")
    made = authority.issue_cert("localhost", "127.0.0.1")
    made.private_key_and_cert_chain_pem.write_to_path(place / "both.pem")
    files = {"certificate": "both.pem", "key": "both.pem"}
    daemon, port = with_api(make_elemta, api=files, nodes=2)
    daemon.start()
    curl = Curl(f"https://127.0.0.1:{port}", "--cacert", str(place / "ca.pem"))
    token = token_of(daemon, "reader", "read")

    ports.eventually(lambda: curl("/health").status == 200, what="both nodes")
    told = curl("/v1/status", token=token).json()
    parts = told["parts"]
    assert isinstance(parts, list)
    names = {part["name"] for part in parts}
    assert "api" in names
    assert {name.partition(":")[0] for name in names} >= {"node 1", "node 2"}
    assert not {"node 1: api", "node 2: api"} & names
    assert f"api         {curl.url}" in daemon.tell("status")
    cookie = curl("/v1/login", body={"token": token}).headers["set-cookie"]
    assert cookie.endswith("; Secure")
    with pytest.raises(subprocess.CalledProcessError):
        Curl(f"http://127.0.0.1:{port}")("/health")

    # A node that is gone is told, within bounds, and without what is nobody's business.
    pid = next(event["pid"] for event in daemon.events("node.started") if event["node"] == 2)
    assert isinstance(pid, int)
    os.kill(pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        ports.eventually(lambda: curl("/health").status == 503, what="the trouble")
        assert time.monotonic() - began < 20
        assert curl("/health/live").status == 200
    finally:
        os.kill(pid, signal.SIGCONT)
    ports.eventually(lambda: curl("/health").status == 200, what="both nodes again")
    began = time.monotonic()
    assert daemon.terminate() == 0
    assert time.monotonic() - began < 20


def test_a_server_whose_api_has_no_place_does_not_start(make_elemta: MakeDaemon) -> None:
    daemon, port = with_api(make_elemta)
    with socket.create_server(("127.0.0.1", port)):
        daemon.start(wait=False)
        assert daemon.wait() == 1
    assert f"elemta: api.address: 127.0.0.1:{port}: Address already in use" in daemon.log_tail()
    daemon.settings["api"] = {"certificate": "none.pem", "key": "none.pem"}
    daemon.start(wait=False)
    assert daemon.wait() == 78
    assert "api.certificate: " in daemon.log_tail()
    assert "none.pem cannot be read: No such file" in daemon.log_tail()
