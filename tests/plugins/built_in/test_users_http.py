from __future__ import annotations

import json
import ssl
from typing import TYPE_CHECKING

import h11
import pytest
import trio
import trustme

from elemta.config import ConfigError
from elemta.plugins import CONTINUE, Defer, Granted, Reject
from elemta.plugins.built_in.users_http import UsersHttp
from elemta.protocol import Credentials
from elemta.testing import a_session, some_tools
from tests.plugins.built_in.service import FakeService

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

    from elemta.plugins import Verdict


class Web:
    """A service that answers what it is to answer.

    Attributes:
        asked: what it was told last.
        fields: of that.
    """

    def __init__(self) -> None:
        self.status = 200
        self.body = b'{"login": "bob@example.org", "addresses": ["@example.net"], "more": 1}'
        self.asked: object = None
        self.target = b""
        self.fields: dict[bytes, bytes] = {}
        self.context: ssl.SSLContext | None = None

    async def __call__(self, stream: trio.abc.Stream) -> None:
        if self.context is not None:
            stream = trio.SSLStream(stream, self.context, server_side=True, https_compatible=True)
        connection, body = h11.Connection(h11.SERVER), b""
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                connection.receive_data(await stream.receive_some())
            elif isinstance(event, h11.Request):
                self.fields, self.target = dict(event.headers), event.target
                assert event.method == b"POST"
            elif isinstance(event, h11.ConnectionClosed):
                return
            elif isinstance(event, h11.Data):
                body += event.data
        self.asked = json.loads(body)
        size = str(len(self.body)).encode()
        for answer in (
            h11.Response(status_code=self.status, headers=[(b"Content-Length", size)]),
            h11.Data(self.body),
            h11.EndOfMessage(),
        ):
            await stream.send_all(connection.send(answer) or b"")


@pytest.fixture
def web() -> Web:
    return Web()


@pytest.fixture
def service(nursery: trio.Nursery, web: Web) -> FakeService:
    return FakeService(nursery, web)


async def a_plugin(service: FakeService, **settings: object) -> UsersHttp:
    told = {"url": "http://127.0.0.1:8080/login?x=1", **settings}
    plugin = UsersHttp.configured(told, "plugins[0].settings")
    plugin.tools = some_tools("users-http", connect=service)
    await plugin.start()
    return plugin


async def ask(plugin: UsersHttp, password: str = "horse") -> Granted | Verdict:
    return await plugin.on_authenticate(a_session(), Credentials("Bob", password))


async def test_a_service_says_who_somebody_is(service: FakeService, web: Web) -> None:
    plugin = await a_plugin(service)
    assert await ask(plugin) == Granted("bob@example.org", ("@example.net",))
    assert web.asked == {
        "user": "bob",
        "password": "horse",
        "client": "192.0.2.1",
        "listener": "mx",
    }
    assert (web.target, web.fields[b"host"]) == (b"/login?x=1", b"127.0.0.1:8080")
    assert b"authorization" not in web.fields


@pytest.mark.parametrize(
    ("status", "body", "verdict"),
    [
        (200, b"{}", Granted),
        (200, b'{"login": null}', Granted),
        (200, b'{"login": ""}', Defer),
        (200, b'{"addresses": ["nonsense"]}', Defer),
        (200, b"[]", Defer),
        (200, b"", Defer),
        (200, b"x" * 300_000, Defer),
        (401, b"", Reject),
        (403, b"{}", Reject),
        (404, b"", type(CONTINUE)),
        (302, b"", Defer),
        (429, b"", Defer),
        (500, b"", Defer),
    ],
)
async def test_each_answer_means_one_thing(
    service: FakeService, web: Web, status: int, body: bytes, verdict: type[object]
) -> None:
    web.status, web.body = status, body
    assert isinstance(await ask(await a_plugin(service)), verdict)


async def test_what_was_right_is_not_asked_again_for_a_while(
    service: FakeService, web: Web, autojump_clock: MockClock
) -> None:
    plugin = await a_plugin(service)
    for _ in range(3):
        assert isinstance(await ask(plugin), Granted)
    assert service.connections == 1
    web.status = 401
    assert isinstance(await ask(plugin, "house"), Reject)
    await trio.sleep(300)
    assert isinstance(await ask(plugin), Reject)


async def test_a_service_that_is_down_or_deaf_puts_off(
    service: FakeService, autojump_clock: MockClock
) -> None:
    plugin = await a_plugin(service, timeout="5 s")
    service.down = True
    assert isinstance(await ask(plugin), Defer)
    service.down, service.deaf = False, True
    began = trio.current_time()
    assert isinstance(await ask(plugin), Defer)
    assert trio.current_time() - began == 5


async def test_a_password_is_told_to_whom_the_certificate_names_alone(
    service: FakeService, web: Web, tmp_path: Path
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    (tmp_path / "token").write_text("s3cret\n")
    (tmp_path / "token").chmod(0o600)
    told = {
        "url": "https://users.example/login",
        "authorities": str(tmp_path / "ca.pem"),
        "token_file": str(tmp_path / "token"),
    }
    for name, verdict in (("other.example", Defer), ("users.example", Granted)):
        web.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert(name).configure_cert(web.context)
        assert web.asked is None
        assert isinstance(await ask(await a_plugin(service, **told)), verdict)
    assert web.fields[b"authorization"] == b"Bearer s3cret"


@pytest.mark.parametrize(
    "url",
    [
        "http://users.example/",
        "ftp://127.0.0.1/",
        "https://u:p@users.example/",
        "https:///x",
        "https://users.example:x/",
        "https://users.example/a b",
    ],
)
def test_passwords_go_over_no_network_in_clear_and_settings_must_fit(url: str) -> None:
    with pytest.raises(ConfigError, match=r"https:// only|url: expected http"):
        UsersHttp.configured({"url": url}, "plugins[0].settings")


def test_files_are_looked_at_by_check(tmp_path: Path) -> None:
    token = tmp_path / "token"
    plugin = UsersHttp.configured({"url": "https://x/", "token_file": str(token)}, "")
    with pytest.raises(ConfigError, match=r"plugins\[0\]\.settings: .*token"):
        plugin.examine("plugins[0].settings")
    token.write_text("two words")
    token.chmod(0o600)
    with pytest.raises(ConfigError, match="expected a token"):
        plugin.examine("plugins[0].settings")


async def test_another_token_is_shown_from_the_next_reload_on(
    service: FakeService, web: Web, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("one")
    token.chmod(0o600)
    plugin = await a_plugin(service, token_file=str(token))
    assert not plugin.outdated()
    token.write_text("another")
    assert plugin.outdated()
    await plugin.start()
    await ask(plugin)
    assert web.fields[b"authorization"] == b"Bearer another"
    assert not plugin.outdated()
