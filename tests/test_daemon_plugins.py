"""A whole server and the lives of its plugins: before mail comes, past a reload, to the end."""

from __future__ import annotations

import os
import signal
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import pytest
import trio
from click.testing import CliRunner
from typing_extensions import override

from elemta import cli, daemon
from elemta.config import Config, ConfigError, Table, load
from elemta.listener.sockets import bind
from elemta.plugins import CONTINUE, Continue, PluginWith, Session, Tag, Transaction, Verdict
from elemta.queue import Filter, StoreReader
from tests.test_daemon import Client, until

if TYPE_CHECKING:
    from pathlib import Path

    from elemta.net.transport import Endpoint

CONFIG = """
hostname: mx.example.org
data_dir: {data}
listeners: [{{name: mx, address: "127.0.0.1:0"}}]
domains: [{{name: example.org, mailboxes: [bob]}}]
"""


class Settings(Table, frozen=True):
    #: How it is called.
    called: str
    #: At what it fails.
    fails: str = ""


class Recorder(PluginWith[Settings]):
    """Writes down what happens to it, and tags what it sees."""

    name = "recorder"
    told: ClassVar[list[str]] = []

    def _tell(self, what: str) -> None:
        self.told.append(f"{self.settings.called} {what}")

    @override
    async def start(self) -> None:
        if self.settings.fails == "raise":
            raise OSError("no such socket")
        if self.settings.fails == "hang":
            if self.settings.called == "slow":
                self._tell("begins")
            await trio.sleep_forever()
        (self.tools.folder / "state").write_text(self.settings.called)
        self._tell("starts")

    @override
    async def stop(self) -> None:
        self._tell("stops")

    @override
    async def on_connect(self, session: Session) -> Verdict:
        self._tell("meets a client")
        return CONTINUE

    @override
    async def on_mail(self, transaction: Transaction) -> Verdict:
        return Continue((Tag(self.settings.called),))

    @override
    async def on_disconnect(self, session: Session) -> None:
        self._tell("parts")


def text(data: Path, called: str, more: str = "") -> str:
    name = f"{__name__}:Recorder"
    return CONFIG.format(data=data) + (
        f'plugins: [{{name: "{name}", settings: {{called: {called}{more}}}, timeout: 0.2 s}}]\n'
    )


@pytest.fixture
def told() -> list[str]:
    Recorder.told.clear()
    return Recorder.told


async def _serve(config: Config, wanted: list[str], task_status: trio.TaskStatus[Endpoint]) -> None:
    await daemon.run(
        config,
        bind(config),
        reread=lambda: load(wanted[-1]),
        ready=lambda addresses: task_status.started(addresses[0]),
    )


async def connect(address: Endpoint, streams: list[trio.SocketStream]) -> Client:
    streams.append(await trio.open_tcp_stream(address.host, address.port))
    client = Client(streams[-1])
    assert (await client.hear()).startswith("220 ")
    assert (await client.say("EHLO client.example")).startswith("250 ")
    return client


async def bring(client: Client) -> str:
    for line, code in (
        ("MAIL FROM:<alice@example.net>", "250"),
        ("RCPT TO:<bob@example.org>", "250"),
        ("DATA", "354"),
    ):
        assert (await client.say(line)).startswith(code)
    answer = await client.say("Subject: x\r\n\r\nx\r\n.")
    assert "queued as" in answer
    return answer.split()[-1]


async def test_plugins_live_as_long_as_somebody_asks_them(tmp_path: Path, told: list[str]) -> None:
    wanted, streams = [text(tmp_path, "old")], list[trio.SocketStream]()
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            run = partial(_serve, load(wanted[0]), wanted)
            address = await nursery.start(lambda task_status: run(task_status=task_status))
            assert told == ["old starts"], "before any client"
            (state,) = (tmp_path / "plugins").rglob("state")
            assert state.read_text() == "old"
            assert state.parent.stat().st_mode & 0o077 == 0
            before = await connect(address, streams)
            assert told == ["old starts", "old meets a client"]
            # One that does not start changes nothing.
            for fails in ("raise", "hang"):
                wanted.append(text(tmp_path, "wrong", f", fails: {fails}"))
                os.kill(os.getpid(), signal.SIGHUP)
                await until(lambda: told[-1] == "wrong stops")
                assert told == ["old starts", "old meets a client", "wrong stops"]
                del told[2:]
            wanted.append(text(tmp_path, "new"))
            os.kill(os.getpid(), signal.SIGHUP)
            await until(lambda: told[2:] == ["new starts"])
            after = await connect(address, streams)
            assert told[2:] == ["new starts", "new meets a client"]
            # Who began with the old one goes on with it, and it with him.
            old, new = await bring(before), await bring(after)
            assert "old stops" not in told
            assert (await before.say("QUIT")).startswith("221 ")
            await until(lambda: told[-1] == "old stops")
            assert told[4:] == ["old parts", "old stops"]
            os.kill(os.getpid(), signal.SIGTERM)
    for each in streams:
        each.socket.close()
    assert told[6:] == ["new parts", "new stops"]
    with StoreReader(tmp_path / "queue") as reader:
        tags = {each.id: each.tags for each in reader.search(Filter(), now=0.0)}
        for id_, tag in ((old, "old"), (new, "new")):
            timeline = reader.timeline(id_)
            assert timeline is not None
            assert timeline.message.tags == (tag,)
            assert tags.get(id_, (tag,)) == (tag,)


async def test_a_server_stops_though_a_plugin_is_about_to_start(
    tmp_path: Path, told: list[str]
) -> None:
    wanted = [text(tmp_path, "old")]
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            run = partial(_serve, load(wanted[0]), wanted)
            await nursery.start(lambda task_status: run(task_status=task_status))
            slow = text(tmp_path, "slow", ", fails: hang").replace("0.2 s", "1 h")
            wanted.append(slow)
            os.kill(os.getpid(), signal.SIGHUP)
            await until(lambda: told[-1] == "slow begins")
            os.kill(os.getpid(), signal.SIGTERM)
    assert sorted(told[2:]) == ["old stops", "slow stops"]


@pytest.mark.parametrize(
    ("fails", "why"),
    [
        ("raise", "OSError: no such socket"),
        ("hang", "TimeoutError: it takes more than 0.2 seconds"),
    ],
)
async def test_a_plugin_that_does_not_start_keeps_the_server_from_starting(
    fails: str, why: str, tmp_path: Path, told: list[str]
) -> None:
    config = load(text(tmp_path, "wrong", f", fails: {fails}"))
    with pytest.raises(ConfigError) as caught:
        await daemon.run(config, bind(config))
    assert str(caught.value) == f"plugins[0]: {__name__}:Recorder cannot start: {why}"
    assert told == ["wrong stops"]


def test_whoever_starts_such_a_server_is_told_the_line(tmp_path: Path, told: list[str]) -> None:
    file = tmp_path / "elemta.yaml"
    file.write_text(text(tmp_path / "data", "wrong", ", fails: raise"))
    done = CliRunner().invoke(cli.main, ["serve", "--config", str(file), "--allow-root"])
    assert done.exit_code == 78
    assert done.stderr.splitlines()[-1] == (
        f"{file}:6:11: plugins[0]: {__name__}:Recorder cannot start: OSError: no such socket"
    )
    # Whether it would start is not for `check` to try.
    assert CliRunner().invoke(cli.main, ["check", "--config", str(file)]).exit_code == 0
    assert told == ["wrong stops"]
