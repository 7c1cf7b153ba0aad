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


def ask(*arguments: str, told: str = "") -> None:
    """Give it a command.

    Args:
        arguments: of the command.
        told: what it reads.

    Raises:
        MissingError: it fails.
    """
    done = subprocess.run(
        [sys.executable, "-m", "elemta", *arguments],
        input=told, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise load.MissingError(f"elemta {arguments[0]}: {(done.stdout + done.stderr)[-500:]}")


def serve(file: Path) -> list[str]:
    """The command that runs it by this configuration, as whoever runs the bench."""
    as_root = ["--allow-root"] if os.geteuid() == 0 else []
    return [sys.executable, "-m", "elemta", "serve", "--config", str(file), *as_root]


@contextlib.contextmanager
def running(
    file: Path, accept: int, mute: int, *, relay: int = 0, under: Sequence[str] = ()
) -> Iterator[peers.Running]:
    """Run it by this configuration until the block ends, its log beside that.

    Args:
        file: the configuration.
        accept: see `peers.Running`.
        mute: a port where somebody is to listen and say nothing.
        relay: see `peers.Running`.
        under: a tracer.
    """
    log = file.with_name("elemta.log")
    with (
        socket.create_server(("127.0.0.1", mute)),
        peers.running([*under, *serve(file)], accept, relay, log) as server,
    ):
        yield server


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
        ask("check", "--config", str(spool / "elemta.yaml"))

    def run(
        self, spool: Path, *, under: Sequence[str] = ()
    ) -> contextlib.AbstractContextManager[peers.Running]:
        accept = self._accept
        return running(spool / "elemta.yaml", accept, self._mute, relay=accept, under=under)

    def requeue(self, spool: Path) -> None:
        """Nothing to do: it waits already."""
