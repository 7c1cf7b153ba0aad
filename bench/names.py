"""The name server that all servers of a run ask: NSD, as Debian ships it."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Final

from bench import load

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Where it is: what reads resolv.conf knows port 53 alone, so it has an address of its own.
ADDRESS: Final = "127.83.78.83"

_CONFIGURATION = """
server:
    ip-address: {address}@53
    username: ""
    pidfile: ""
    database: ""
    logfile: "{folder}/nsd.log"
    zonesdir: "{folder}"
    zonelistfile: "{folder}/zone.list"
    xfrdfile: "{folder}/xfrd.state"
    server-count: 1
    rrl-ratelimit: 0
remote-control:
    control-enable: no
zone:
    name: "."
    zonefile: "root.zone"
"""
_HEAD = """$ORIGIN .
$TTL 3600
@ IN SOA ns.{zone}. postmaster.{zone}. 1 3600 600 86400 3600
@ IN NS ns.{zone}.
$ORIGIN {zone}.
ns IN A 127.0.0.1
"""


@contextlib.contextmanager
def served(folder: Path, zone: str, records: str) -> Iterator[None]:
    """Know these records of `zone`, and that nothing else exists, as long as the block runs."""
    program = load.program("nsd")
    if os.geteuid() != 0:
        raise load.MissingError("port 53 is for root only")
    folder.mkdir(parents=True)
    # For the whole of the DNS: what is asked about others is answered at once, too.
    (folder / "root.zone").write_text(_HEAD.format(zone=zone) + records)
    (folder / "nsd.conf").write_text(_CONFIGURATION.format(address=ADDRESS, folder=folder))
    with (folder / "output").open("wb") as output:
        server = subprocess.Popen(
            [program, "-d", "-c", str(folder / "nsd.conf")], stdout=output, stderr=output
        )
    try:
        _wait(folder / "nsd.log")
        yield
    finally:
        server.terminate()
        try:
            server.wait(5.0)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _wait(log: Path) -> None:
    question = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x06\x00\x01"  # . SOA
    deadline = time.monotonic() + 10.0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(0.2)
        client.connect((ADDRESS, 53))
        while time.monotonic() < deadline:
            try:
                client.send(question)
                if client.recv(512)[:2] == question[:2]:
                    return
            except OSError:
                time.sleep(0.05)  # nobody is there yet
    said = log.read_text() if log.exists() else ""
    raise RuntimeError(f"the name server does not answer: {said[-1000:]}")
