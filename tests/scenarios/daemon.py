"""The real daemon, as a process."""

from __future__ import annotations

import json
import os
import signal
import smtplib
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from elemta.queue import StoreReader
from tests.scenarios import ports

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_SOURCE = Path(__file__).parents[2]


class Daemon:
    """An Elemta that is started, killed and looked at.

    It takes mail from loopback for anybody; that for example.org goes into Maildirs. What a
    scenario wants otherwise, it says in `settings`, whose keys replace whole keys of the file.
    """

    def __init__(self, folder: Path, settings: Mapping[str, object] | None = None) -> None:
        self.folder = folder
        self.port = ports.free_port()
        self.data = folder / "data"
        self.config = folder / "elemta.yaml"
        self.log = folder / "elemta.log"
        self.settings: dict[str, object] = {
            "hostname": "mx.example.org",
            "data_dir": str(self.data),
            "listeners": [self.listener()],
            "relay": {"networks": ["127.0.0.0/8"]},
            "domains": [{"name": "example.org", "mailboxes": ["*"]}],
            "queue": {"retry": ["1 s"], "disk_reserve": "1 MiB"},
            "log": {"format": "json", "level": "info"},
            **(settings or {}),
        }
        self.arguments: list[str] = ["--allow-root"] if os.geteuid() == 0 else []
        self.environment: dict[str, str] = {}
        self.process: subprocess.Popen[bytes] | None = None
        self._commands: list[subprocess.Popen[str]] = []

    def listener(self, **keys: object) -> dict[str, object]:
        """The one listener; wider than by default, since all clients here are one address."""
        return {
            "name": "mx",
            "address": f"127.0.0.1:{self.port}",
            "connections_per_client": 200,
            **keys,
        }

    def write_config(self) -> None:
        self.config.write_text(yaml.safe_dump(self.settings, sort_keys=False))

    def start(self, *, wait: bool = True) -> None:
        """Start it; by default wait until it greets."""
        assert self.process is None
        self.write_config()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command("serve", *self.arguments),
                env=self.environment_of_commands(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        if wait:
            ports.eventually(self._ready, what="the daemon's greeting")

    def _ready(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"the daemon ended: {self.process.returncode}\n{self.log_tail()}")
        return ports.greets(self.port)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, within: float = 30.0) -> int:
        """Wait until it ended; returns its exit code."""
        assert self.process is not None
        code = self.process.wait(within)
        self.process = None
        return code

    def terminate(self) -> int:
        """End it as a service manager does; returns its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """End it as a power cut of the process does."""
        if self.process is not None:
            self.process.kill()
            self.wait()

    def command(self, *arguments: str) -> list[str]:
        """A command of `elemta` with this daemon's configuration."""
        return [sys.executable, "-m", "elemta", *arguments, "--config", str(self.config)]

    def ask(self, *arguments: str) -> object:
        """What ``elemta … --json`` answers, the daemon running or not."""
        return json.loads(self.tell(*arguments, "--json"))

    def tell(self, *arguments: str) -> str:
        """What ``elemta …`` prints. Raises subprocess.CalledProcessError unless it ends with 0."""
        process = self.begin(*arguments)
        out, error = process.communicate(timeout=60.0)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, arguments, out, error)
        return out

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        """Begin ``elemta …``, and let it go on by itself."""
        process = subprocess.Popen(
            self.command(*arguments),
            env=self.environment_of_commands(), text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self._commands.append(process)
        return process

    def end_commands(self) -> None:
        """Kill those that a test which failed has left: a later one would be blamed for them."""
        for process in self._commands:
            if process.returncode is None:
                process.kill()
                process.communicate()

    def flush(self) -> None:
        """Have all that waits tried now."""
        self.tell("queue", "flush")

    def waiting(self) -> int:
        """How many messages are not finished: looked up, as a command takes long to start."""
        with StoreReader(self.data / "queue") as reader:
            return reader.stats().messages

    def environment_of_commands(self) -> dict[str, str]:
        """In which its commands run."""
        return {**os.environ, "PYTHONPATH": str(_SOURCE), **self.environment}

    def send(
        self,
        content: bytes,
        recipients: Sequence[str] = ("bob@example.org",),
        sender: str = "alice@example.org",
    ) -> str:
        """Hand in a message; returns its id. Raises what smtplib raises."""
        with smtplib.SMTP("127.0.0.1", self.port, "client.example", timeout=60.0) as client:
            client.ehlo_or_helo_if_needed()
            for code, text in [client.mail(sender), *map(client.rcpt, recipients)]:
                if code != 250:
                    raise smtplib.SMTPResponseException(code, text)
            code, text = client.data(content)
            if code != 250:
                raise smtplib.SMTPDataError(code, text)
            return message_id(text)

    def maildir(self, mailbox: str) -> list[bytes]:
        """What lies in the Maildir of ``local@domain``, lines ended by LF."""
        local, _, domain = mailbox.partition("@")
        new = self.data / "mail" / domain / local / "new"
        if not new.exists():
            return []
        return [path.read_bytes().replace(b"\r\n", b"\n") for path in sorted(new.iterdir())]

    def events(self, name: str | None = None) -> list[dict[str, object]]:
        """The log's lines so far, or those of one event."""
        found = []
        for line in self.log.read_text(errors="replace").splitlines():
            if line.startswith("{") and line.endswith("}"):
                event = json.loads(line)
                if name is None or event.get("event") == name:
                    found.append(event)
        return found

    def log_tail(self, lines: int = 25) -> str:
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def message_id(reply: bytes) -> str:
    """The queue's id in the reply to the end of the content."""
    return reply.split(b"queued as ")[1].split()[0].decode()
