"""With real processes: small ones, that do what a node does as its first process sees it."""

from __future__ import annotations

import os
import signal
import socket
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from elemta import config
from elemta.control.client import connect
from elemta.listener.sockets import bind
from elemta.nodes import Place, places, run
from elemta.nodes.processes import Node
from elemta.privileges import StartError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

    from elemta.control.interface import Control, Status
    from elemta.supervision import Keeps

#: Says that it is ready, writes down which node it is, and ends when it is asked to.
WILLING = """
import os, signal, socket, sys
def end(*_):
    open(sys.argv[1] + "/ended", "a").write(os.environ["ELEMTA_NODE"] + "\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGHUP, lambda *_: open(sys.argv[1] + "/reloaded", "a").write("x"))
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
    open(sys.argv[1] + "/started", "a").write(os.environ["ELEMTA_NODE"] + "\\n")
    out.sendto(b"READY=1\\nSTATUS=well", os.environ["NOTIFY_SOCKET"])
while True:
    signal.pause()
"""
#: The second node does so too, but not for long the first time.
FRAIL = WILLING.replace(
    "while True:",
    """
first = open(sys.argv[1] + "/started").read().count("2/2") == 1
while os.environ["ELEMTA_NODE"] == "2/2" and first:
    if os.path.exists(sys.argv[1] + "/fall"):
        os._exit(3)
while True:""",
)
#: Says all the time that it lives.
LIVELY = WILLING.replace(
    "    signal.pause()",
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.sendto(b"WATCHDOG=1", os.environ["NOTIFY_SOCKET"])
    time.sleep(0.1)""",
).replace("import os, ", "import os, time, ")
UNWILLING = "import sys; sys.exit(78)"


def settings(folder: Path, nodes: int = 2) -> config.Config:
    text = f"""
hostname: mx.example.org
data_dir: {folder}
nodes: {nodes}
shutdown_grace: 5 s
listeners: [{{name: mx, address: "127.0.0.1:0"}}]
"""
    return config.load(text)


async def until(path: Path, wanted: list[str]) -> None:
    """Processes have no virtual time: look until they have done it."""
    with trio.fail_after(60):
        while await trio.to_thread.run_sync(words, path) != wanted:  # noqa: ASYNC110 # a process writes it
            await trio.sleep(0.01)


def words(path: Path) -> list[str]:
    return sorted(path.read_text().split()) if path.exists() else []


async def serve(folder: Path, program: str, nodes: int = 2, api: FrailApi | None = None) -> None:
    told = settings(folder, nodes)
    command = [sys.executable, "-c", program, str(folder)]
    file = folder / "elemta.yaml"
    await run(told, bind(told), places(told), command=command, file=file, api=api)


async def test_all_nodes_run_and_end_with_the_server(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, tmp_path, WILLING, 3)
        await until(tmp_path / "started", ["1/3", "2/3", "3/3"])
        os.kill(os.getpid(), signal.SIGTERM)
    assert sorted((tmp_path / "ended").read_text().split()) == ["1/3", "2/3", "3/3"]


async def test_a_node_that_ends_is_started_again(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, tmp_path, FRAIL)
        await until(tmp_path / "started", ["1/2", "2/2"])
        (tmp_path / "fall").touch()
        await until(tmp_path / "started", ["1/2", "2/2", "2/2"])
        os.kill(os.getpid(), signal.SIGTERM)
    assert sorted((tmp_path / "ended").read_text().split()) == ["1/2", "2/2"]


async def test_a_server_whose_nodes_cannot_start_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="has ended with code 78"):
        await serve(tmp_path, UNWILLING)


async def test_a_program_that_cannot_be_run_is_told(tmp_path: Path) -> None:
    told = settings(tmp_path)
    missing = tmp_path / "python"
    with pytest.raises(StartError, match=f"cannot be started: {missing}: No such file"):
        await run(
            told, bind(told), places(told), command=[str(missing)], file=tmp_path / "elemta.yaml"
        )


async def test_a_node_that_ends_again_and_again_is_a_trouble_of_the_server(
    tmp_path: Path,
) -> None:
    socket_path = settings(tmp_path).control_socket
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, tmp_path, FRAIL)
        await until(tmp_path / "started", ["1/2", "2/2"])
        (tmp_path / "fall").touch()
        await until(tmp_path / "started", ["1/2", "2/2", "2/2"])
        async with connect(socket_path) as client:
            status = await client.status()
        told = "node 2 was started again 1 times: NodeEndedError: node 2/2 has ended with code 3"
        assert told in status.troubles
        os.kill(os.getpid(), signal.SIGTERM)


class FrailApi:
    """An API that fails, and asks how the server is once it runs again."""

    urls = ("http://127.0.0.1:8025",)

    def __init__(self, started: Path) -> None:
        self._started = started
        self.lives = 0
        self.status: Status | None = None
        self.closed = False

    @asynccontextmanager
    async def serving(
        self, keep: Keeps, steered_by: Callable[[str], Control]
    ) -> AsyncGenerator[None]:
        async def run() -> None:
            self.lives += 1
            if self.lives == 1:
                raise ValueError("a fault of ours")
            self.status = await steered_by("test").status()
            await until(self._started, ["1/2", "2/2"])
            os.kill(os.getpid(), signal.SIGTERM)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep, "api", run)
            yield
            nursery.cancel_scope.cancel()

    def close(self) -> None:
        self.closed = True


async def test_an_api_that_fails_is_told_of_and_ends_no_node(tmp_path: Path) -> None:
    api = FrailApi(tmp_path / "started")
    await serve(tmp_path, WILLING, api=api)
    assert api.closed
    assert api.status is not None
    assert api.status.api == api.urls
    assert "api failed: ValueError: a fault of ours" in api.status.troubles
    assert sorted((tmp_path / "ended").read_text().split()) == ["1/2", "2/2"]


async def test_a_reload_is_for_each_node(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, tmp_path, WILLING)
        await until(tmp_path / "started", ["1/2", "2/2"])
        os.kill(os.getpid(), signal.SIGHUP)
        await until(tmp_path / "reloaded", ["xx"])
        os.kill(os.getpid(), signal.SIGTERM)


async def test_a_node_that_hangs_is_killed_and_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is ready once, and never says again that it lives."""
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, tmp_path, WILLING, 1)
        await until(tmp_path / "started", ["1/1"])
        await until(tmp_path / "started", ["1/1", "1/1"])
        os.kill(os.getpid(), signal.SIGTERM)
    assert (tmp_path / "ended").read_text() == "1/1\n", "the first one was not asked"


async def test_systemd_hears_that_we_live_while_all_nodes_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "systemd"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as plain:
        plain.bind(str(path))
        plain.settimeout(20)
        monkeypatch.setenv("WATCHDOG_USEC", "1000000")
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        heard: set[bytes] = set()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, tmp_path, LIVELY)
            while not {b"READY=1", b"WATCHDOG=1", b"STATUS=node 1, 2: well"} <= heard:
                heard.add(await trio.to_thread.run_sync(plain.recv, 4096))
            os.kill(os.getpid(), signal.SIGTERM)
            while b"STOPPING=1" not in heard:
                heard.add(await trio.to_thread.run_sync(plain.recv, 4096))


async def test_a_node_says_how_it_is(tmp_path: Path) -> None:
    node = Node(Place(2, 2), tmp_path)
    try:
        node.take(b"STATUS=3 queued\nREADY=1\nMAINPID=7")
        assert node.ready
        assert node.status == "3 queued"
    finally:
        node.close()


async def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "nodes").write_text("in the way")
    with pytest.raises(StartError, match="nodes/1/notify cannot be made"):
        Node(Place(1, 1), tmp_path)
