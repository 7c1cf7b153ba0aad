from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
import time
from typing import TYPE_CHECKING, TypeAlias

import msgspec
import pytest
import trio
import trio.testing

from elemta import daemon, log
from elemta.config import Config, ConfigError, Mistake, load
from elemta.control import client as control
from elemta.ledger import Exchange
from elemta.listener.sockets import bind
from elemta.privileges import StartError
from elemta.queue import SpoolError
from elemta.units import Seconds

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

    from elemta.net.transport import Endpoint

CONFIG = """
hostname: mx.example.org
data_dir: {data}
listeners: [{{name: mx, address: "127.0.0.1:0"}}]
domains: [{{name: example.org, mailboxes: [bob]}}]
"""


@pytest.fixture
def logged() -> Iterator[Callable[[], list[dict[str, object]]]]:
    stream = io.StringIO()
    log.configure("json", "info", stream)

    def entries() -> list[dict[str, object]]:
        log.flush()
        return [json.loads(line) for line in stream.getvalue().splitlines()]

    yield entries
    log.configure("console", "warning")


class Running:
    """A daemon in this process, on a free port."""

    def __init__(self, config: Config, reread: Callable[[], Config] | None = None) -> None:
        self.config = config
        self.reread = reread
        self.ended = trio.Event()

    async def run(
        self, *, task_status: trio.TaskStatus[Endpoint] = trio.TASK_STATUS_IGNORED
    ) -> None:
        # What is changed on reload may set the process's own log; tests read theirs.
        await daemon.run(
            self.config,
            bind(self.config),
            reread=self.reread,
            ready=lambda addresses: task_status.started(addresses[0]),
        )
        self.ended.set()


class Client:
    """Says a line, hears a line."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._heard = b""

    async def hear(self) -> str:
        while b"\r\n" not in self._heard:
            octets = await self._stream.receive_some()
            if not octets:
                return ""
            self._heard += octets
        line, _, self._heard = self._heard.partition(b"\r\n")
        return await self.hear() if line[3:4] == b"-" else line.decode()

    async def say(self, line: str) -> str:
        await self._stream.send_all(line.encode() + b"\r\n")
        return await self.hear()


Connect: TypeAlias = "Callable[[Endpoint], Awaitable[Client]]"


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Connects a client, and hangs up at the end."""
    streams: list[trio.SocketStream] = []

    async def connect(address: Endpoint) -> Client:
        streams.append(await trio.open_tcp_stream(address.host, address.port))
        client = Client(streams[-1])
        assert await client.hear() == "220 mx.example.org ESMTP"
        assert (await client.say("EHLO client.example")).startswith("250 ")
        return client

    yield connect
    for stream in streams:
        stream.socket.close()


async def begin_message(client: Client, recipient: str = "bob@example.org") -> str:
    assert (await client.say("MAIL FROM:<alice@example.net>")).startswith("250 ")
    return await client.say(f"RCPT TO:<{recipient}>")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return load(CONFIG.format(data=tmp_path))


async def until(claim: Callable[[], bool]) -> None:
    """Wait for what another thread or the disk does; the test's own limit is pytest's."""
    with trio.fail_after(60):
        while not claim():  # noqa: ASYNC110 # nobody there could set an event
            await trio.sleep(0.005)


async def test_a_message_gets_through(
    nursery: trio.Nursery, connect: Connect, config: Config, tmp_path: Path
) -> None:
    running = Running(config)
    client = await connect(await nursery.start(running.run))
    assert (await begin_message(client)).startswith("250 ")
    assert (await client.say("DATA")).startswith("354 ")
    assert "queued as" in await client.say("Subject: hello\r\n\r\nhello\r\n.")
    mailbox = tmp_path / "mail" / "example.org" / "bob" / "new"
    await until(lambda: mailbox.is_dir() and any(mailbox.iterdir()))
    (letter,) = mailbox.iterdir()
    assert letter.read_bytes().endswith(b"Subject: hello\r\n\r\nhello\r\n") or (
        letter.read_bytes().endswith(b"Subject: hello\n\nhello\n")
    )
    os.kill(os.getpid(), signal.SIGTERM)
    assert (await client.hear()).startswith("421 4.3.2 ")
    await running.ended.wait()


async def test_sigterm_spares_a_message_on_its_way_in(
    nursery: trio.Nursery, connect: Connect, config: Config, tmp_path: Path
) -> None:
    running = Running(config)
    address = await nursery.start(running.run)
    idle, busy = await connect(address), await connect(address)
    assert (await begin_message(busy)).startswith("250 ")
    assert (await busy.say("DATA")).startswith("354 ")
    os.kill(os.getpid(), signal.SIGTERM)
    assert (await idle.hear()).startswith("421 4.3.2 ")
    assert await idle.hear() == ""
    with pytest.raises(OSError, match="all attempts to connect"):
        await trio.open_tcp_stream(address.host, address.port)
    assert "queued as" in await busy.say("Subject: late\r\n\r\nlate\r\n.")
    assert (await busy.hear()).startswith("421 4.3.2 ")
    await running.ended.wait()


async def test_a_second_signal_stops_at_once(
    nursery: trio.Nursery, connect: Connect, config: Config
) -> None:
    running = Running(config)
    client = await connect(await nursery.start(running.run))
    assert (await begin_message(client)).startswith("250 ")
    assert (await client.say("DATA")).startswith("354 ")
    os.kill(os.getpid(), signal.SIGTERM)
    await trio.testing.wait_all_tasks_blocked(0.05)
    assert not running.ended.is_set()
    os.kill(os.getpid(), signal.SIGTERM)
    assert (await client.hear()).startswith("421 4.3.2 ")
    await running.ended.wait()


async def test_a_client_that_never_ends_its_message_does_not_keep_us(
    nursery: trio.Nursery, connect: Connect, config: Config
) -> None:
    ended = trio.Event()
    impatient = msgspec.structs.replace(config, shutdown_grace=Seconds(0.1))

    async def run(*, task_status: trio.TaskStatus[Endpoint]) -> None:
        await daemon.run(
            impatient,
            bind(impatient),
            ready=lambda addresses: task_status.started(addresses[0]),
        )
        ended.set()

    client = await connect(await nursery.start(run))
    assert (await begin_message(client)).startswith("250 ")
    assert (await client.say("DATA")).startswith("354 ")
    os.kill(os.getpid(), signal.SIGTERM)
    assert (await client.hear()).startswith("421 4.3.2 ")
    await ended.wait()


async def test_sighup_takes_the_new_configuration_over_and_tells_what_changed(
    nursery: trio.Nursery,
    connect: Connect,
    config: Config,
    tmp_path: Path,
    logged: Callable[[], list[dict[str, object]]],
) -> None:
    text = CONFIG.format(data=tmp_path).replace("[bob]", "[bob, carol]")
    wanted = load(text + "dns: {timeout: 3 s}\nqueue: {lifetime: 4 d}\n")
    running = Running(config, lambda: wanted)
    address = await nursery.start(running.run)
    before = await connect(address)
    assert (await begin_message(before, "carol@example.org")).startswith("550 5.1.1 ")
    assert (await before.say("RSET")).startswith("250 ")
    reading = logged
    os.kill(os.getpid(), signal.SIGHUP)
    with trio.fail_after(60):
        while True:  # a client that comes after the change meets it
            client = await connect(address)
            taken = (await begin_message(client, "carol@example.org")).startswith("250 ")
            assert (await client.say("RSET")).startswith("250 ")
            if taken:
                break
    assert (await before.say("NOOP")).startswith("250 ")
    told = {
        str(entry["place"]): entry["holds"]
        for entry in reading()
        if entry["event"] == "config.changed"
    }
    assert told == {
        "dns.timeout": "after a restart",
        "domains[example.org].mailboxes": "now",
        "queue.lifetime": "now",
    }
    os.kill(os.getpid(), signal.SIGTERM)
    await running.ended.wait()


async def test_a_configuration_with_a_mistake_changes_nothing(
    nursery: trio.Nursery,
    connect: Connect,
    config: Config,
    logged: Callable[[], list[dict[str, object]]],
) -> None:
    def refuse() -> Config:
        raise ConfigError(Mistake("dns.timeout", "expected more", 7, 3), where="elemta.yaml")

    running = Running(config, refuse)
    address = await nursery.start(running.run)
    client = await connect(address)
    os.kill(os.getpid(), signal.SIGHUP)
    await until(lambda: any(entry["event"] == "config.refused" for entry in logged()))
    (entry,) = (entry for entry in logged() if entry["event"] == "config.refused")
    assert (entry["file"], entry["line"], entry["place"], entry["problem"]) == (
        "elemta.yaml",
        7,
        "dns.timeout",
        "expected more",
    )
    assert (await begin_message(client)).startswith("250 ")
    os.kill(os.getpid(), signal.SIGTERM)
    assert (await client.say("RSET")).startswith("250 ")
    await running.ended.wait()


async def test_the_sandbox_has_nothing_to_read_again(
    nursery: trio.Nursery, config: Config, logged: Callable[[], list[dict[str, object]]]
) -> None:
    running = Running(config)
    await nursery.start(running.run)
    os.kill(os.getpid(), signal.SIGHUP)
    await until(lambda: any(entry["event"] == "config.no_file" for entry in logged()))
    os.kill(os.getpid(), signal.SIGTERM)
    await running.ended.wait()


async def test_mail_goes_on_while_the_control_socket_fails_and_it_is_tried_again(
    nursery: trio.Nursery,
    connect: Connect,
    config: Config,
    tmp_path: Path,
    logged: Callable[[], list[dict[str, object]]],
) -> None:
    config.control_socket.write_text("in the way")
    running = Running(config)
    client = await connect(await nursery.start(running.run))
    await until(lambda: any(entry["event"] == "part.failed" for entry in logged()))
    assert (await begin_message(client)).startswith("250 ")
    assert (await client.say("RSET")).startswith("250 ")
    config.control_socket.unlink()
    await until(lambda: any(entry["event"] == "control.ready" for entry in logged()))
    async with control.connect(config.control_socket) as server:
        status = await server.status()
        assert status.sessions == 1
        assert any("something else is there" in trouble for trouble in status.troubles)
        (part,) = (part for part in status.parts if part.name == "control")
        assert (part.running, part.restarts) == (True, 1)
    os.kill(os.getpid(), signal.SIGTERM)
    await running.ended.wait()


async def test_who_steers_is_answered_while_we_stop(
    nursery: trio.Nursery, connect: Connect, config: Config
) -> None:
    running = Running(config)
    client = await connect(await nursery.start(running.run))
    assert (await begin_message(client)).startswith("250 ")
    assert (await client.say("DATA")).startswith("354 ")
    os.kill(os.getpid(), signal.SIGTERM)
    await trio.testing.wait_all_tasks_blocked(0.05)
    async with control.connect(config.control_socket) as server:
        assert (await server.status()).stopping
    assert "queued as" in await client.say("Subject: late\r\n\r\nlate\r\n.")
    await running.ended.wait()
    with pytest.raises(control.NotRunningError):
        async with control.connect(config.control_socket):
            pass


async def test_a_queue_that_is_in_use_is_told_in_one_line(
    nursery: trio.Nursery, config: Config
) -> None:
    running = Running(config)
    await nursery.start(running.run)
    bound = bind(config)
    with pytest.raises(StartError, match=r"the queue in .* cannot be opened: .* in use") as caught:
        await daemon.run(config, bound)
    assert isinstance(caught.value.__cause__, SpoolError)
    assert all(each.socket.fileno() == -1 for each in bound)
    os.kill(os.getpid(), signal.SIGTERM)
    await running.ended.wait()


async def test_a_plugin_that_does_not_exist_stops_the_start(config: Config, tmp_path: Path) -> None:
    text = CONFIG.format(data=tmp_path) + "plugins: [{name: no-such-plugin}]"
    with pytest.raises(ConfigError, match=r"plugins\[0\]"):
        await daemon.run(load(text), bind(config))


async def test_who_cannot_start_says_why_and_where(config: Config, tmp_path: Path) -> None:
    (config.data_dir / "login" / "ledger.sqlite").mkdir(parents=True)
    with pytest.raises(ConfigError, match="data_dir: what is known of wrong passwords: unable"):
        await daemon.run(config, bind(config))


async def test_who_starts_for_a_server_that_has_ended_ends_too(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def connect() -> trio.abc.Stream:
        raise ConnectionRefusedError("nobody listens")

    monkeypatch.setattr("elemta.ledger.exchange.JOINING", 3600.0)
    exchange = Exchange(connect, config.data_dir, time.time)
    with trio.fail_after(60):
        await daemon.run(config, bind(config), until=trio.lowlevel.checkpoint, exchange=exchange)
    await daemon.run(config, bind(config), until=trio.lowlevel.checkpoint)  # nothing is left open


async def test_systemd_is_told_how_we_are(
    nursery: trio.Nursery,
    config: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as service:
        service.bind(str(path))
        service.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        running = Running(config, lambda: config)
        await nursery.start(running.run)
        assert service.recv(100) == b"READY=1"
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert service.recv(100) == b"STATUS=0 queued, 0 active, 0 clients"
        os.kill(os.getpid(), signal.SIGHUP)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert service.recv(100).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
        assert service.recv(100) == b"READY=1"
        os.kill(os.getpid(), signal.SIGTERM)
        await running.ended.wait()
        assert service.recv(100) == b"STOPPING=1"


async def test_the_watchdog_is_fed_once_the_writer_has_answered(
    nursery: trio.Nursery, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "notify"
    heard: list[bytes] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as service:
        service.bind(str(path))
        service.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        monkeypatch.setenv("WATCHDOG_USEC", "100000")

        def fed() -> bool:
            with contextlib.suppress(BlockingIOError):
                heard.append(service.recv(100))
            return heard.count(b"WATCHDOG=1") == 2

        running = Running(config)
        await nursery.start(running.run)
        await until(fed)
        os.kill(os.getpid(), signal.SIGTERM)
        await running.ended.wait()
    assert heard[:2] == [b"READY=1", b"STATUS=0 queued, 0 active, 0 clients"]
