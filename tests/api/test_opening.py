"""The API as the server opens it: on real sockets of this machine, with real certificates."""

from __future__ import annotations

import io
import json
import socket
import ssl
from contextlib import closing
from typing import TYPE_CHECKING

import msgspec
import pytest
import trio
import trio.testing
import trustme

from elemta import log
from elemta.api import tokens
from elemta.api.certificate import ApiCertificate
from elemta.api.opening import Api, open_api
from elemta.api.tokens import TokenFile
from elemta.config import Config, ConfigError, load, sandbox
from elemta.listener.sockets import BindError
from elemta.net.certificates import LOOK
from elemta.privileges import StartError
from elemta.supervision import Supervision
from tests.api.fakes import at_once
from tests.control.fake import FakeControl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def settings(folder: Path, **api: object) -> Config:
    """A configuration whose API is on a free port."""
    text = json.dumps(
        {
            "hostname": "mx.example.org",
            "data_dir": str(folder),
            "listeners": [{"name": "mx", "address": "127.0.0.1:0"}],
            "api": {"address": "127.0.0.1:0", **api},
        }
    )
    return load(text)


def opened(config: Config) -> Api:
    api = open_api(config)
    assert api is not None
    return api


@pytest.fixture
def logged() -> Iterator[Callable[[], str]]:
    stream = io.StringIO()
    log.configure("json", "info", stream)

    def text() -> str:
        log.flush()
        return stream.getvalue()

    yield text
    log.configure("console", "warning")


async def get(api: Api, path: str, *headers: str) -> bytes:
    """What a client hears."""
    host, port = api.urls[0].rpartition("//")[2].split(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        lines = [f"GET {path} HTTP/1.1", "Host: localhost", "Connection: close", *headers]
        await stream.send_all(("\r\n".join(lines) + "\r\n\r\n").encode())
        heard = b""
        while octets := await stream.receive_some():
            heard += octets
        return heard


def test_there_is_no_api_where_none_is_asked_for(tmp_path: Path) -> None:
    assert open_api(msgspec.structs.replace(settings(tmp_path), api=None)) is None


async def test_it_serves_until_it_is_to_stop(tmp_path: Path) -> None:
    with closing(opened(settings(tmp_path))) as api, trio.fail_after(60):
        async with api.serving(Supervision().keep, FakeControl().steered_by):
            assert (await get(api, "/health/live")).startswith(b"HTTP/1.1 200 ")
            assert (await get(api, "/v1/status")).startswith(b"HTTP/1.1 401 ")
            file = TokenFile(tmp_path)
            _, text = tokens.issue(file, "a", list(tokens.Scope), now=0.0, expires=None)
            heard = await get(api, "/v1/me", f"Authorization: Bearer {text}")
            assert b'"who":"token:a"' in heard


async def test_a_name_that_is_not_ours_is_refused_where_this_machine_alone_can_ask(
    tmp_path: Path,
) -> None:
    config = settings(tmp_path, origins=["https://mail.example.org"])
    with closing(opened(config)) as api, trio.fail_after(60):
        async with api.serving(Supervision().keep, FakeControl().steered_by):
            for host, status in (("evil.example", b"421"), ("mail.example.org", b"200")):
                stream = await trio.open_tcp_stream("127.0.0.1", int(api.urls[0].split(":")[2]))
                async with stream:
                    await stream.send_all(
                        f"GET /health/live HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
                    )
                    assert (await stream.receive_some())[9:12] == status


async def test_an_api_that_fails_is_started_again(
    tmp_path: Path, logged: Callable[[], str]
) -> None:
    supervision = Supervision()
    with closing(opened(settings(tmp_path))) as api, trio.fail_after(60):
        failures = 0
        control = FakeControl()

        async def keep(name: str, run: object) -> None:
            async def fails_once() -> None:
                nonlocal failures
                if not failures:
                    failures += 1
                    raise ValueError("a fault of ours")
                await api.run(control.steered_by)

            await supervision.keep(name, fails_once)

        async with api.serving(keep, control.steered_by):
            assert (await get(api, "/health/live")).startswith(b"HTTP/1.1 200 ")
            (part,) = supervision.parts
            assert (part.name, part.restarts) == ("api", 1)
            assert part.failure == "ValueError: a fault of ours"


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(BindError, match=f"api.address: {address}: Address already in use"):
            open_api(settings(tmp_path, address=["127.0.0.1:0", address]))
        with pytest.raises(BindError, match=r"api\.address: 192\.0\.2\.1:80: Cannot assign"):
            open_api(settings(tmp_path, address="192.0.2.1:80"))


def test_a_sandbox_takes_another_port_if_its_own_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = sandbox(tmp_path, api=f"127.0.0.1:{taken.getsockname()[1]}")
        api = open_api(config, elsewhere=True)
        assert api is not None
        assert api.urls[0].startswith("http://127.0.0.1:")
        api.close()


async def test_the_first_start_has_a_link_and_no_other_does(
    tmp_path: Path, logged: Callable[[], str]
) -> None:
    links: list[str | None] = []
    for _ in range(2):
        with closing(opened(settings(tmp_path))) as api, trio.fail_after(60):
            links.append(api.invite())
            async with api.serving(Supervision().keep, FakeControl().steered_by):
                await get(api, "/health/live")
    first, second = links
    assert first is not None
    assert first.startswith(f"{api.urls[0].rpartition(':')[0]}:")
    assert "/login#once=once_" in first
    assert second is None
    assert "once_" not in logged(), "who may read the log is no admin"


def test_a_sandbox_shows_its_link_at_each_start(tmp_path: Path) -> None:
    with closing(opened(settings(tmp_path))) as api:
        links = {api.invite(always=True) for _ in range(2)}
    assert len(links) == 2


def test_a_link_that_cannot_be_written_down_is_told(tmp_path: Path) -> None:
    complaint = r"nowhere/tokens\.lock: No such file or directory"
    with (
        closing(opened(settings(tmp_path / "nowhere"))) as api,
        pytest.raises(StartError, match=complaint),
    ):
        api.invite()


def test_an_address_of_all_the_machine_is_shown_by_its_name(tmp_path: Path) -> None:
    with closing(opened(settings(tmp_path, address=":0"))) as api:
        assert all(url.startswith("http://mx.example.org:") for url in api.urls)


# Certificates.


class Files:
    """A certificate and its key, as an operator has them."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.certificate = folder / "cert.pem"
        self.key = folder / "key.pem"
        self.issue()

    def issue(self) -> None:
        made = self.authority.issue_cert("localhost", "127.0.0.1")
        made.private_key_pem.write_to_path(self.key)
        self.certificate.write_bytes(b"".join(each.bytes() for each in made.cert_chain_pems))

    def settings(self, folder: Path) -> Config:
        return settings(folder, certificate=str(self.certificate), key=str(self.key))

    async def shown(self, api: Api) -> bytes:
        """The certificate that a client sees."""
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        port = int(api.urls[0].rpartition(":")[2])
        async with await trio.open_ssl_over_tcp_stream(
            "127.0.0.1", port, ssl_context=context, https_compatible=True
        ) as stream:
            await stream.do_handshake()
            der: bytes = stream.getpeercert(binary_form=True)
            return der


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


async def test_a_certificate_makes_it_https(tmp_path: Path, files: Files) -> None:
    with closing(opened(files.settings(tmp_path))) as api, trio.fail_after(60):
        assert api.urls[0].startswith("https://127.0.0.1:")
        async with api.serving(Supervision().keep, FakeControl().steered_by):
            assert await files.shown(api)


class Shown:
    """What a client of a context is shown, on virtual time."""

    def __init__(self, files: Files, context: ssl.SSLContext) -> None:
        self._files = files
        self._context = context

    async def certificate(self) -> bytes:
        ours, theirs = trio.testing.memory_stream_pair()
        trusting = ssl.create_default_context()
        self._files.authority.configure_trust(trusting)
        client = trio.SSLStream(ours, trusting, server_hostname="localhost")
        server = trio.SSLStream(theirs, self._context, server_side=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.do_handshake)
            await client.do_handshake()
        der: bytes = client.getpeercert(binary_form=True)
        return der


async def test_a_new_certificate_is_shown_to_who_comes_then(
    tmp_path: Path,
    files: Files,
    nursery: trio.Nursery,
    autojump_clock: trio.testing.MockClock,
    logged: Callable[[], str],
) -> None:
    ours = ApiCertificate(files.certificate, files.key)
    nursery.start_soon(ours.renew, at_once)
    shown = Shown(files, ours.context)
    first = await shown.certificate()
    await trio.sleep(LOOK + 1)
    assert await shown.certificate() == first
    files.issue()
    await trio.sleep(LOOK)
    second = await shown.certificate()
    assert second != first
    key = files.key.read_bytes()
    files.issue()
    files.key.write_bytes(key)
    await trio.sleep(LOOK)
    assert await shown.certificate() == second
    assert logged().count('"api.certificate_renewed"') == 1
    assert logged().count('"api.certificate_refused"') == 1


@pytest.mark.parametrize(
    ("which", "content", "complaint"),
    [
        ("certificate", None, r"api\.certificate: .*cert\.pem cannot be read: No such file"),
        ("key", None, r"api\.key: .*key\.pem cannot be read: No such file"),
        ("certificate", b"nonsense", r"api\.certificate: .* are no certificate and its key, both"),
        ("key", b"nonsense", r"api\.certificate: .* are no certificate and its key, both PEM: "),
    ],
)
def test_a_certificate_that_is_none_is_told(
    tmp_path: Path, files: Files, which: str, content: bytes | None, complaint: str
) -> None:
    path = files.certificate if which == "certificate" else files.key
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=complaint):
        open_api(files.settings(tmp_path))


def test_a_key_of_another_certificate_is_told(tmp_path: Path, files: Files) -> None:
    before = files.key.read_bytes()
    files.issue()
    files.key.write_bytes(before)
    with pytest.raises(ConfigError, match="is the key of another certificate"):
        open_api(files.settings(tmp_path))
