"""Elemta as it runs in production: a node a core, durable, its log at info level in a file."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

from bench import load, peers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_CONFIGURATION = """
hostname: elemta.example
data_dir: {spool}/data
nodes: {nodes}
listeners:
  - name: bench
    address: ["127.0.0.1:{accept}"]
    messages: 1000000000
    connections_per_client: 2000
relay:
  networks: ["127.0.0.0/8"]
routes:
  # Where somebody listens and says nothing: what is accepted for it stays in the queue.
  - {{match: far.example, via: ["smtp://127.0.0.1:{mute}"]}}
{many}
  - {{match: "*", via: ["smtp://127.0.0.1:{sink}"]}}
queue:
  disk_reserve: 1 MiB
log: {{format: json, level: info}}
"""


class Elemta:
    """The Elemta of this source tree, run by the Python that runs the bench."""

    name = "Elemta"
    relays = True

    def __init__(self) -> None:
        self._accept = self._mute = 0

    def prepare(self, spool: Path, sink_port: int) -> None:
        self._accept, self._mute = load.free_port(), load.free_port()
        many = "\n".join(
            f'  - {{match: {domain}, via: ["smtp://127.0.0.1:{sink_port}", "smtp://127.0.0.1:{port}"]}}'
            for port, domain in enumerate(peers.MANY, peers.SPARE_PORT)
        )
        (spool / "elemta.yaml").write_text(
            _CONFIGURATION.format(
                spool=spool,
                nodes=len(os.sched_getaffinity(0)),
                accept=self._accept,
                sink=sink_port,
                mute=self._mute,
                many=many,
            )
        )
        checked = subprocess.run(
            [sys.executable, "-m", "elemta", "check", "--config", str(spool / "elemta.yaml")],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if checked.returncode:
            raise load.MissingError(f"elemta check: {(checked.stdout + checked.stderr)[-500:]}")

    @contextlib.contextmanager
    def run(self, spool: Path, *, under: Sequence[str] = ()) -> Iterator[peers.Running]:
        as_root = ["--allow-root"] if os.geteuid() == 0 else []
        command = [*under, sys.executable, "-m", "elemta", "serve",
                   "--config", str(spool / "elemta.yaml"), *as_root]  # fmt: skip
        with (
            socket.create_server(("127.0.0.1", self._mute)),
            peers.running(command, self._accept, self._accept, spool / "elemta.log") as server,
        ):
            yield server

    def requeue(self, spool: Path) -> None:
        """Nothing to do: it waits already."""
