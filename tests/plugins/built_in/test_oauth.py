from __future__ import annotations

import json
import ssl
from base64 import b64encode
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import pytest
import trio
import trustme
from msgspec.structs import replace

from elemta.config import ConfigError
from elemta.plugins import Defer, Granted, Reject
from elemta.plugins.built_in import oauth
from elemta.plugins.built_in.oauth import OAuth, Settings
from elemta.protocol import Token
from elemta.testing import FakeClock, a_session, some_tools
from elemta.testing.stand_ins import EPOCH
from elemta.units import Seconds
from tests.plugins.built_in.service import FakeService

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

    from elemta.plugins import Verdict

ACTIVE = {"active": True, "scope": "openid mail", "email": "bob@example.org", "sub": "4711"}
BOB = Granted("bob@example.org", ("bob@example.org",))


class Issuer:
    """What an issuer answers, and what it was asked.

    Attributes:
        meanings: by token.
        answer: in place of that.
        tls: what it shows; None: nothing.
    """

    def __init__(self) -> None:
        self.meanings: dict[str, dict[str, object]] = {"abc": {**ACTIVE}}
        self.answer: bytes | None = None
        self.asked: list[str] = []
        self.head = b""
        self.tls: ssl.SSLContext | None = None

    async def __call__(self, stream: trio.abc.Stream) -> None:
        if self.tls is not None:
            stream = trio.SSLStream(stream, self.tls, server_side=True, https_compatible=True)
        octets = b""
        while True:
            head, found, body = octets.partition(b"\r\n\r\n")
            lengths = [line for line in head.split(b"\r\n") if line.startswith(b"Content-Length")]
            if found and len(body) >= int(lengths[0].partition(b":")[2]):
                break
            if not (some := await stream.receive_some()):
                return
            octets += some
        self.head = head
        fields = parse_qs(body.decode())
        (token,) = fields["token"]
        self.asked.append(token)
        answer = json.dumps(self.meanings.get(token, {"active": False})).encode()
        await stream.send_all(
            self.answer
            or b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), answer)
        )


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def service(nursery: trio.Nursery, issuer: Issuer) -> FakeService:
    return FakeService(nursery, issuer)


def settings(tmp_path: Path, **more: object) -> Settings:
    (tmp_path / "secret").touch(0o600)
    (tmp_path / "secret").write_text("pass word\n")
    given: dict[str, object] = {
        "introspection": "http://127.0.0.1:8080/introspect?x=y",
        "client_id": "el:emta",
        "client_secret_file": tmp_path / "secret",
        **more,
    }
    return Settings(**given)  # type: ignore[arg-type]


async def started(tmp_path: Path, service: FakeService, clock: FakeClock, **more: object) -> OAuth:
    plugin = OAuth(settings(tmp_path, **more))
    plugin.tools = some_tools("oauth", connect=service, clock=clock)
    await plugin.start()
    return plugin


async def shown(
    plugin: OAuth, token: str = "abc", user: str = "bob@example.org"
) -> Granted | Verdict:
    return await plugin.on_token(a_session(), Token(user, token))


def is_refused(answer: Granted | Verdict) -> bool:
    return isinstance(answer, Reject)


async def test_a_token_grants_what_its_issuer_says(
    tmp_path: Path, service: FakeService, issuer: Issuer, clock: FakeClock
) -> None:
    plugin = await started(tmp_path, service, clock)
    assert await shown(plugin) == BOB
    assert await shown(plugin, user="") == BOB
    assert await shown(plugin, user="BOB@example.org") == BOB
    lines = issuer.head.split(b"\r\n")
    assert lines[0] == b"POST /introspect?x=y HTTP/1.1"
    assert b"Authorization: Basic " + b64encode(b"el%3Aemta:pass+word") in lines
    assert b"Host: 127.0.0.1:8080" in lines


async def test_nobody_logs_in_as_another(
    tmp_path: Path, service: FakeService, clock: FakeClock
) -> None:
    plugin = await started(tmp_path, service, clock)
    assert is_refused(await shown(plugin, user="ann@example.org"))


@pytest.mark.parametrize(
    "meaning",
    [
        {"active": False},
        {**ACTIVE, "exp": EPOCH - 1},
        {**ACTIVE, "nbf": EPOCH + 60},
        {**ACTIVE, "scope": "openid"},
        {"active": True, "email": "bob@example.org"},
    ],
)
async def test_a_token_that_is_not_good_is_refused(
    meaning: dict[str, object],
    tmp_path: Path,
    service: FakeService,
    issuer: Issuer,
    clock: FakeClock,
) -> None:
    plugin = await started(tmp_path, service, clock, scopes=["mail"])
    assert await shown(plugin) == BOB
    issuer.meanings["xyz"] = meaning
    assert is_refused(await shown(plugin, "xyz"))


@pytest.mark.parametrize(
    ("more", "meaning", "granted"),
    [
        ({"login": "sub"}, ACTIVE, Granted("4711", ("bob@example.org",))),
        (
            {"login": "username", "addresses": ["email", "aliases"]},
            {**ACTIVE, "username": "bob", "aliases": ["b@example.org", "@example.org", "*"]},
            Granted("bob", ("bob@example.org", "b@example.org")),
        ),
        ({"login": "sub"}, {**ACTIVE, "email_verified": False}, Granted("4711")),
        ({}, {**ACTIVE, "email_verified": "true"}, BOB),
        ({"addresses": ["roles"]}, {**ACTIVE, "roles": [1, 2]}, Granted("bob@example.org")),
    ],
)
async def test_claims_say_who_somebody_is_and_may_send_as(
    more: dict[str, object],
    meaning: dict[str, object],
    granted: Granted,
    tmp_path: Path,
    service: FakeService,
    issuer: Issuer,
    clock: FakeClock,
) -> None:
    plugin = await started(tmp_path, service, clock, **more)
    issuer.meanings["abc"] = meaning
    assert await shown(plugin, user="") == granted


@pytest.mark.parametrize(
    "meaning",
    [
        {"active": True},
        {"active": True, "email": 5},
        {"active": True, "email": "*"},
        {"active": True, "email": "@example.org"},
        {"active": True, "email": "a\nb"},
        {**ACTIVE, "email_verified": False},
        {"active": "yes"},
    ],
)
async def test_an_answer_that_names_nobody_defers(
    meaning: dict[str, object],
    tmp_path: Path,
    service: FakeService,
    issuer: Issuer,
    clock: FakeClock,
) -> None:
    plugin = await started(tmp_path, service, clock)
    issuer.meanings["abc"] = meaning
    assert isinstance(await shown(plugin), Defer)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno",
        b"220 mx.example.org ESMTP\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100000,
    ],
)
async def test_an_issuer_that_does_not_answer_defers(
    answer: bytes, tmp_path: Path, service: FakeService, issuer: Issuer, clock: FakeClock
) -> None:
    plugin = await started(tmp_path, service, clock)
    issuer.answer = answer
    assert isinstance(await shown(plugin), Defer)
    assert plugin.tools.counts["down"] == 1


async def test_an_issuer_that_is_down_or_deaf_defers(
    tmp_path: Path, service: FakeService, clock: FakeClock, autojump_clock: MockClock
) -> None:
    plugin = await started(tmp_path, service, clock)
    service.down = True
    assert isinstance(await shown(plugin), Defer)
    service.down, service.deaf = False, True
    began = trio.current_time()
    assert isinstance(await shown(plugin), Defer)
    assert trio.current_time() - began == pytest.approx(10)


# What is remembered.


async def test_a_token_is_remembered_for_a_while_and_no_longer_than_it_lasts(
    tmp_path: Path, service: FakeService, issuer: Issuer, clock: FakeClock
) -> None:
    plugin = await started(tmp_path, service, clock)
    issuer.meanings["short"] = {**ACTIVE, "exp": clock.now + 30}
    short = replace(BOB, until=clock.now + 30)
    for token in ("abc", "short", "abc", "short"):
        assert await shown(plugin, token) == (short if token == "short" else BOB)
    assert issuer.asked == ["abc", "short"]
    clock.advance(30)
    assert await shown(plugin, "abc") == BOB
    assert is_refused(await shown(plugin, "short"))
    assert issuer.asked == ["abc", "short", "short"]
    clock.advance(300)
    assert await shown(plugin, "abc") == BOB
    assert issuer.asked[3:] == ["abc"]
    # What is refused is asked each time: it may be good by now.
    for _ in range(2):
        assert is_refused(await shown(plugin, "xyz"))
    assert issuer.asked[4:] == ["xyz", "xyz"]


async def test_a_token_may_be_asked_about_each_time(
    tmp_path: Path, service: FakeService, issuer: Issuer, clock: FakeClock
) -> None:
    plugin = await started(tmp_path, service, clock, remember=Seconds(0))
    for _ in range(2):
        assert await shown(plugin) == BOB
    assert issuer.asked == ["abc", "abc"]


async def test_so_many_tokens_are_remembered_and_no_more(
    tmp_path: Path,
    service: FakeService,
    issuer: Issuer,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(oauth, "_MOST", 2)
    plugin = await started(tmp_path, service, clock)
    for token in ("a", "b", "c"):
        issuer.meanings[token] = ACTIVE
        await shown(plugin, token)
    await shown(plugin, "c")
    await shown(plugin, "a")
    assert issuer.asked == ["a", "b", "c", "a"]


async def test_no_token_is_kept_as_it_is(
    tmp_path: Path, service: FakeService, clock: FakeClock
) -> None:
    plugin = await started(tmp_path, service, clock)
    await shown(plugin)
    assert b"abc" not in plugin._known  # what a thief of memory would find
    assert all(len(each) == 32 for each in plugin._known)


# TLS.


@pytest.mark.parametrize("name", ["localhost", "elsewhere.example"])
async def test_the_issuer_proves_who_it_is(
    name: str, tmp_path: Path, service: FakeService, issuer: Issuer, clock: FakeClock
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    issuer.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(issuer.tls)
    plugin = await started(
        tmp_path,
        service,
        clock,
        introspection="https://localhost/introspect",
        authorities=tmp_path / "ca.pem",
    )
    found = await shown(plugin)
    assert found == BOB if name == "localhost" else isinstance(found, Defer)
    assert bool(issuer.asked) is (name == "localhost"), "no secret goes to somebody else"


# Its settings.


@pytest.mark.parametrize(
    "more",
    [
        {"introspection": "http://login.example.org/introspect"},
        {"introspection": "ftp://127.0.0.1/"},
        {"introspection": "https:///introspect"},
        {"introspection": "https://user:word@login.example.org/"},
        {"client_secret_file": "secret"},
        {"timeout": "0 s"},
    ],
)
def test_what_cannot_be_is_told(more: dict[str, object]) -> None:
    given = {
        "introspection": "https://login.example.org/introspect",
        "client_id": "elemta",
        "client_secret_file": "/etc/elemta/secret",
    }
    OAuth.configured(given, "here")
    with pytest.raises(ConfigError, match="here"):
        OAuth.configured({**given, **more}, "here")


@pytest.mark.parametrize(
    "address", ["http://localhost/x", "http://[::1]:80/x", "http://127.1.2.3/x"]
)
def test_on_this_machine_nothing_need_be_encrypted(address: str, tmp_path: Path) -> None:
    settings(tmp_path, introspection=address)


def test_files_are_looked_at_when_the_configuration_is_checked(tmp_path: Path) -> None:
    plugin = OAuth(settings(tmp_path))
    plugin.examine("plugins[0].settings")
    (tmp_path / "secret").write_text("\n")
    with pytest.raises(ConfigError, match="on one line"):
        plugin.examine("plugins[0].settings")
    (tmp_path / "secret").chmod(0o644)
    with pytest.raises(ConfigError, match="others may read"):
        plugin.examine("plugins[0].settings")
    (tmp_path / "secret").unlink()
    with pytest.raises(ConfigError, match="secret"):
        plugin.examine("plugins[0].settings")


async def test_another_secret_is_taken_on_reload(
    tmp_path: Path, service: FakeService, clock: FakeClock
) -> None:
    plugin = await started(tmp_path, service, clock)
    assert not plugin.outdated()
    (tmp_path / "secret").write_text("another")
    assert plugin.outdated()
