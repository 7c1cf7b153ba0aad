"""The server is watched live, by clients that are not ours, and in a terminal."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from threading import Timer
from typing import TYPE_CHECKING, Any

import pytest
from websockets.sync.client import connect as websocket_of

from elemta.api import tokens
from elemta.api.tokens import TokenFile
from elemta.api.visit import Scope
from tests.scenarios import ports
from tests.scenarios.conftest import needs
from tests.scenarios.sink import Sink, Step

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.scenarios.conftest import MakeDaemon
    from tests.scenarios.daemon import Daemon

pytestmark = pytest.mark.scenario

MESSAGE = b"Subject: look at me\r\n\r\nhello\r\n"
LIFE = ["Queued", "AttemptStarted", "Delivered", "Finished"]


class Place:
    """A daemon with an API, a token for it, and a sink that defers what is not for example.org."""

    def __init__(self, daemon: Daemon, sink: Sink, port: int) -> None:
        self.daemon = daemon
        self.lane = f"smtp:[127.0.0.1]:{sink.port}"
        self.url = f"http://127.0.0.1:{port}"
        self.token_file = daemon.folder / "token"

    def start(self) -> None:
        self.daemon.start()
        wanted = frozenset({Scope.READ, Scope.OPERATE})
        file = TokenFile(self.daemon.data)
        self.token = tokens.issue(file, "watcher", wanted, now=time.time(), expires=None)[1]
        self.token_file.write_text(self.token)

    @property
    def remotely(self) -> list[str]:
        return ["--api", self.url, "--token-file", str(self.token_file)]

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        """Begin ``elemta …`` with no configuration, as on another machine."""
        return subprocess.Popen(
            [sys.executable, "-m", "elemta", *arguments, *self.remotely],
            env={**self.daemon.environment_of_commands(), "LANG": "C.UTF-8"},
            text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    @contextmanager
    def ending(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """The same, killed after a minute, or when it is no longer wanted."""
        with self.begin(*arguments) as process:
            timer = Timer(60, process.kill)
            timer.start()
            try:
                yield process
            finally:
                timer.cancel()
                process.kill()

    @contextmanager
    def listening(self, query: str = "") -> Iterator[Iterator[dict[str, Any]]]:
        """All events that a foreign websocket client hears, the greeting first."""
        url = f"{self.url.replace('http', 'ws')}/v1/events{query}"
        headers = {"Authorization": f"Bearer {self.token}"}
        with websocket_of(url, additional_headers=headers) as client:
            yield (event for frame in iter(lambda: client.recv(timeout=60), "")
                   for event in json.loads(frame))  # fmt: skip


@pytest.fixture
def watched(make_elemta: MakeDaemon) -> Iterator[Place]:
    port = ports.free_port()
    with Sink() as sink:
        sink.answer(Step.RCPT, "451 4.2.0 the mailbox is busy")
        daemon = make_elemta(
            {
                "api": {"address": f"127.0.0.1:{port}"},
                "routes": [{"match": "*", "via": [f"smtp://127.0.0.1:{sink.port}"]}],
                "queue": {"retry": ["1 h"], "disk_reserve": "1 MiB"},
            }
        )
        place = Place(daemon, sink, port)
        place.start()
        yield place


@needs("curl")
def test_foreign_clients_hear_all_that_happens_and_resume_where_they_were(watched: Place) -> None:
    daemon = watched.daemon
    with watched.listening() as events:
        assert next(events)["type"] == "Hello"
        id_ = daemon.send(MESSAGE)
        told = [next(events) for _ in LIFE]
    assert [each["type"] for each in told] == LIFE
    assert {each["id"] for each in told} == {id_}
    assert told[2]["recipient"] == "bob@example.org"

    later = daemon.send(MESSAGE, ["bob@example.net"])  # nobody listens
    with watched.listening(f"?since={told[-1]['number']}&domain=example.net") as events:
        assert next(events)["number"] == told[-1]["number"]
        queued, started, deferred = (next(events) for _ in range(3))
    assert [each["number"] for each in (queued, started, deferred)] == [
        told[-1]["number"] + step for step in (1, 2, 3)
    ]
    assert (queued["type"], deferred["type"], deferred["id"]) == ("Queued", "Deferred", later)
    assert deferred["reply"] == "451 4.2.0 the mailbox is busy"

    query = f"since={told[0]['number']}&type=Finished&type=Queued"
    with subprocess.Popen(
        ["curl", "-sN", "--max-time", "60", "-H", f"Authorization: Bearer {watched.token}",
         f"{watched.url}/v1/events?{query}"],
        stdout=subprocess.PIPE, text=True,
    ) as curl:  # fmt: skip
        assert curl.stdout is not None
        heard = ""
        while heard.count("data: ") < 3:
            line = curl.stdout.readline()
            assert line, heard
            heard += line
        curl.kill()
    data = [json.loads(line[6:]) for line in heard.splitlines() if line.startswith("data: ")]
    assert [each["type"] for each in data] == ["Hello", "Finished", "Queued"]
    assert f"id: {queued['number']}\n" in heard

    listing = watched.begin("queue", "list", "--json")
    out, error = listing.communicate(timeout=60)
    assert (listing.returncode, error) == (0, "")
    assert [each["id"] for each in json.loads(out)] == [later]

    with watched.listening() as events:  # a websocket must not hold up the end
        next(events)
        began = time.monotonic()
        assert daemon.terminate() == 0
        assert time.monotonic() - began < 20


def test_a_pipe_of_events_outlives_a_restart_and_ends_with_its_reader(watched: Place) -> None:
    daemon = watched.daemon
    ids = [daemon.send(MESSAGE)]
    wanted = ("--since", "0", "--type", "Queued", "--type", "Finished")
    with watched.ending("monitor", "--json", *wanted) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        told = [json.loads(process.stdout.readline()) for _ in range(2)]
        daemon.terminate()
        daemon.start()
        ids.append(daemon.send(MESSAGE))
        told += [json.loads(process.stdout.readline()) for _ in range(3)]
        kinds = [each["type"] for each in told]
        assert kinds == ["Queued", "Finished", "Missed", "Queued", "Finished"]
        assert told[2]["restarted"]
        assert [told[1]["id"], told[4]["id"]] == ids

        process.stdout.close()  # as `head` does
        daemon.send(MESSAGE)
        assert process.wait(timeout=60) == 128 + signal.SIGPIPE
        assert "trying again in 0.5 s\n" in process.stderr.read()


class Terminal:
    """``elemta monitor`` in a terminal of tmux."""

    def __init__(self, place: Place, server: Path) -> None:
        self._tmux = ["tmux", "-S", str(server), "-f", "/dev/null"]
        arguments = [sys.executable, "-m", "elemta", "monitor", *place.remotely]
        command = f"{shlex.join(arguments)}; echo it ended with $?; sleep 60"
        subprocess.run(
            [*self._tmux, "new-session", "-d", "-x", "100", "-y", "30", command],
            env={**place.daemon.environment_of_commands(), "LANG": "C.UTF-8"},
            check=True,
            timeout=60,
        )

    def shown(self) -> str:
        done = self.run("capture-pane", "-p")
        return done.stdout

    def sees(self, text: str) -> None:
        def seen() -> bool:
            self.last = self.shown()
            return text in self.last

        try:
            ports.eventually(seen, what=text)
        except AssertionError:
            raise AssertionError(f"{text!r} is not in\n{self.last}") from None

    def press(self, *keys: str) -> None:
        self.run("send-keys", *keys)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._tmux, *arguments], capture_output=True, text=True, timeout=60, check=True
        )


@needs("tmux")
def test_a_terminal_shows_deliveries_suspends_by_key_and_survives_a_restart(
    watched: Place, place: Path
) -> None:
    daemon = watched.daemon
    terminal = Terminal(watched, place / "tmux")
    try:
        terminal.sees("all is well")
        daemon.send(MESSAGE, ["bob@example.net"])
        id_ = daemon.send(MESSAGE)
        terminal.sees(f"Delivered id={id_}")
        terminal.sees(f"\n{watched.lane} ")  # in the list, not in an event
        terminal.press("End", "s")
        terminal.sees("(y/n)")
        assert f"send nothing to {watched.lane}, until it is resumed? (y/n)" in terminal.last
        terminal.press("y")
        terminal.sees("suspended (destination:")
        (suspended,) = daemon.ask("queue", "suspensions")
        assert suspended["who"] == "token:watcher"

        assert daemon.terminate() == 0
        terminal.sees("DISCONNECTED")
        daemon.start()
        terminal.sees("all is well")
        again = daemon.send(MESSAGE)
        terminal.sees(f"Delivered id={again}")
        terminal.run("resize-window", "-x", "80", "-y", "24")
        terminal.press("k")  # what was said last gives way to the keys
        ports.eventually(lambda: "q quit" in terminal.shown().splitlines()[23], what="24 lines")
        terminal.press("q")
        terminal.sees("it ended with 0")
        assert "DESTINATION" not in terminal.last
    finally:
        terminal.run("kill-server")
