"""The load: Postfix's `smtp-source` sends, its `smtp-sink` takes."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SESSIONS = 20


class MissingError(Exception):
    """A program that the bench needs is not installed; the text says which package has it."""


class Load(Struct, frozen=True, kw_only=True):
    """One burst of messages.

    Attributes:
        size: octets of each message's body.
        keep: send all messages of a session on one connection.
    """

    count: int
    size: int = 4096
    sessions: int = SESSIONS
    keep: bool = False
    recipient: str = "somebody@far.example"

    def send(self, port: int) -> float:
        """Send it all to 127.0.0.1:`port`; returns seconds. Raises if one was not accepted."""
        command = [
            program("smtp-source"), "-4", "-M", "client.example", "-f", "bench@client.example",
            "-t", self.recipient, "-s", str(self.sessions), "-m", str(self.count),
            "-l", str(self.size), *(["-d"] if self.keep else []), f"127.0.0.1:{port}",
        ]  # fmt: skip
        begun = time.perf_counter()
        result = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        seconds = time.perf_counter() - begun
        if result.returncode or "fatal" in result.stderr:
            raise RuntimeError(f"{' '.join(command)}: {result.stderr.strip()}")
        return seconds


def shares(count: int, parts: int) -> list[int]:
    """`count` in so many parts, as equal as can be."""
    return [count * (part + 1) // parts - count * part // parts for part in range(parts)]


def send_all(bursts: Sequence[Load], port: int) -> None:
    """Send several bursts, `SESSIONS` at a time, each by a program of its own.

    `smtp-source` knows one recipient domain each time it runs.
    """
    with ThreadPoolExecutor(SESSIONS) as pool:
        for _ in pool.map(lambda burst: burst.send(port), bursts):
            pass


class Sink:
    """A running `smtp-sink`, which counts."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.port = port
        self._process = process
        self._counted = threading.Condition()
        self._messages = 0
        self._last = 0.0
        self._thread = threading.Thread(target=self._count, daemon=True)
        self._thread.start()

    @property
    def messages(self) -> int:
        return self._messages

    def wait_for(self, messages: int, timeout: float) -> float:
        """Wait until it has taken `messages` in all; returns when (`perf_counter`) the last came.

        Raises:
            TimeoutError: `timeout` seconds passed.
        """
        with self._counted:
            if not self._counted.wait_for(lambda: self._messages >= messages, timeout):
                raise TimeoutError(f"the sink took {self._messages} of {messages} messages")
            return self._last

    def ended(self) -> None:
        """Wait until all is counted that the program said before it ended."""
        self._thread.join(10.0)

    def _count(self) -> None:
        # Counters come as "sess=1 quit=0 mesg=17\r", one after each event.
        stream = self._process.stdout
        assert stream is not None
        rest = b""
        while octets := stream.read1(65536):  # type: ignore[attr-defined] # a pipe's reader has it
            lines, _, rest = (rest + octets).rpartition(b"\r")
            if found := re.findall(rb"mesg=(\d+)", lines):
                with self._counted:
                    if int(found[-1]) > self._messages:
                        self._messages = int(found[-1])
                        self._last = time.perf_counter()
                        self._counted.notify_all()


@contextlib.contextmanager
def sink() -> Iterator[Sink]:
    """An `smtp-sink` on a free port."""
    port = free_port()
    process = subprocess.Popen(
        [program("smtp-sink"), "-4", "-c", "-m", "1000", "-h", "sink.example",
         *(["-u", "nobody"] if os.geteuid() == 0 else []), f"127.0.0.1:{port}", "1000"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for_greeting(port)
        counter = Sink(process, port)
        try:
            yield counter
        finally:
            process.kill()
            counter.ended()
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on just now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def wait_for_greeting(port: int, timeout: float = 60.0) -> float:
    """Connect until 127.0.0.1:`port` says 220; returns when (`perf_counter`)."""
    deadline = time.perf_counter() + timeout
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=timeout) as client:
                if client.recv(512).startswith(b"220"):
                    arrived = time.perf_counter()
                    client.sendall(b"QUIT\r\n")
                    client.recv(512)
                    return arrived
        except OSError:
            pass
        if time.perf_counter() > deadline:
            raise TimeoutError(f"no greeting on port {port} within {timeout:.0f} s")
        time.sleep(0.005)  # a server that starts tells nobody when it is ready


@contextlib.contextmanager
def idle_connections(port: int, count: int) -> Iterator[None]:
    """`count` connections that have said EHLO and now say nothing."""
    with contextlib.ExitStack() as clients:
        for _ in range(count):
            client = clients.enter_context(socket.create_connection(("127.0.0.1", port), 60.0))
            expect(client, b"220")
            client.sendall(b"EHLO client.example\r\n")
            expect(client, b"250")
        yield


def expect(client: socket.socket, code: bytes) -> None:
    """Read one whole reply, of one or more lines, and insist on its code."""
    reply = b""
    while not re.search(rb"(?:^|\n)\d{3}(?: [^\n]*)?\r\n$", reply):
        octets = client.recv(4096)
        if not octets:
            raise RuntimeError(f"the server hung up after {reply!r}")
        reply += octets
    if not reply.startswith(code):
        raise RuntimeError(f"expected {code!r}, not {reply!r}")


def program(name: str) -> str:
    """Where a program is.

    Raises:
        MissingError: it is not installed.
    """
    found = shutil.which(name, path="/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/bin")
    if found is None:
        package = {"smtp-source": "postfix", "smtp-sink": "postfix"}.get(name, name)
        raise MissingError(f"{name} is missing: apt-get install {package}")
    return found
