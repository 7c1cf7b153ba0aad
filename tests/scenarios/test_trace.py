"""Who is connected, what is said, and what is logged, as an operator sees it live."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.scenarios import ports
from tests.scenarios.conftest import needs
from tests.scenarios.sink import Sink

if TYPE_CHECKING:
    from tests.scenarios.conftest import MakeDaemon
    from tests.scenarios.daemon import Daemon

pytestmark = pytest.mark.scenario

SECRET = base64.b64encode(b"\0ann\0correct horse").decode()


class Watching:
    """What a command that never ends by itself has told so far, a line of JSON each."""

    def __init__(self, daemon: Daemon, *arguments: str) -> None:
        self.told: list[dict[str, Any]] = []
        self._process = daemon.begin(*arguments, "--json")
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.told.append(json.loads(line))

    def end(self) -> None:
        self._process.terminate()
        self._reader.join(30.0)
        with self._process:
            self._process.wait(30.0)

    def said(self, direction: str) -> list[str]:
        return [
            f"{each['speaker']}: {each['text']}"
            for each in self.told
            if each["direction"] == direction
        ]


def waits(port: int) -> socket.socket:
    """A client that says who it is, tries to log in though nobody asked, and waits."""
    client = socket.create_connection(("127.0.0.1", port), timeout=60.0)
    for said, code in (
        ("", "220"),
        ("EHLO patient.example", "250 "),
        (f"AUTH PLAIN {SECRET}", "502"),
    ):
        client.sendall(f"{said}\r\n".encode() if said else b"")
        answered = b""
        while code.encode() not in answered:
            octets = client.recv(4096)
            assert octets, f"{answered!r}, then it hangs up"
            answered += octets
    return client


@needs("swaks")
@pytest.mark.parametrize("nodes", [1, 2])
def test_what_is_said_is_seen_while_it_is_said(make_elemta: MakeDaemon, nodes: int) -> None:
    with Sink() as sink:
        daemon = make_elemta(
            {
                "nodes": nodes,
                "routes": [{"match": "*", "via": [f"smtp://127.0.0.1:{sink.port}"]}],
                "log": {"format": "json", "level": "debug"},
            }
        )
        daemon.start()
        watching = Watching(daemon, "trace", "--peer", "127.0.0.1")

        def heard() -> set[object]:
            """The nodes of which something was seen: each is listened to on its own."""
            seen = {each["session"] for each in watching.told}
            ended = daemon.events("session.ended")
            return {each.get("node", 1) for each in ended if each["session"] in seen}

        try:
            ports.eventually(
                lambda: ports.greets(daemon.port) and len(heard()) == nodes,
                what="a trace that has begun",
            )
            with waits(daemon.port):
                found = daemon.ask("sessions")
                assert isinstance(found, list)
                (session,) = [each for each in found if each["name"] == "patient.example"]
                assert (session["direction"], session["state"]) == ("in", "ready")
                done = subprocess.run(
                    ["swaks", "--server", f"127.0.0.1:{daemon.port}", "--from", "alice@example.org",
                     "--to", "bob@far.example", "--body", "for nobody else", "--helo", "swaks"],
                    check=True, timeout=60.0, stdout=subprocess.PIPE, text=True,
                )  # fmt: skip
                id_ = done.stdout.split("queued as ")[1].split()[0]
                ports.eventually(
                    lambda: any("octets of content" in each for each in watching.said("out")),
                    what="the conversation with the next host",
                )
        finally:
            watching.end()

        assert "C: RCPT TO:<bob@far.example>" in watching.said("in")
        assert "S: 250 2.1.5 recipient OK" in watching.said("in")
        assert "C: AUTH PLAIN ***" in watching.said("in")
        assert any(each.startswith("C: RCPT TO:<bob@far.example>") for each in watching.said("out"))

        transcripts = daemon.ask("queue", "transcript", id_)
        assert isinstance(transcripts, list)
        inward, outward = transcripts
        assert [inward["direction"], outward["direction"]] == ["in", "out"]
        assert inward["messages"] == outward["messages"] == [id_]
        assert "EHLO swaks" in [each["text"] for each in inward["said"]]

        logged = daemon.tell("log", "--json", "--limit", "1000")
        assert {"daemon.ready", "message.received"} <= {
            json.loads(line)["event"] for line in logged.splitlines()
        }
        for text in (str(transcripts), str(watching.told), logged, daemon.log.read_text()):
            assert SECRET not in text
            assert "for nobody else" not in text


def test_the_level_of_the_log_is_set_and_followed(elemta: Daemon) -> None:
    watching = Watching(elemta, "log", "--follow", "--level", "debug")
    try:
        assert "logged from debug on" in elemta.tell("log", "--set-level", "debug")
        ports.eventually(
            lambda: (
                ports.greets(elemta.port)
                and any(each["event"] == "session.ended" for each in watching.told)
            ),
            what="an event that only debug shows",
        )
    finally:
        watching.end()
    elemta.tell("reload")
    events = [each["event"] for each in watching.told]
    assert "control.log_level" in events
    ended = len(elemta.events("session.ended"))
    assert ports.greets(elemta.port)
    assert len(elemta.events("session.ended")) == ended
