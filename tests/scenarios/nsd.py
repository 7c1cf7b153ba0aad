"""A real name server (NSD) that knows what a scenario tells it."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
from typing import TYPE_CHECKING

from tests.scenarios import ports

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_CONFIGURATION = """
server:
    ip-address: 127.0.0.1@{port}
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
"""
_ZONE = """
zone:
    name: "{name}"
    zonefile: "{name}.zone"
"""
_HEAD = """$ORIGIN {name}.
$TTL 60
@ IN SOA ns.{name}. postmaster.{name}. 1 3600 600 86400 60
@ IN NS ns.{name}.
ns IN A 127.0.0.1
"""


@contextlib.contextmanager
def nsd(folder: Path, zones: Mapping[str, str]) -> Iterator[int]:
    """Serve these zones, records in master file format by zone name; gives the port."""
    folder.mkdir()
    port = ports.free_port()
    configuration = _CONFIGURATION.format(port=port, folder=folder)
    for name, records in zones.items():
        configuration += _ZONE.format(name=name)
        (folder / f"{name}.zone").write_text(_HEAD.format(name=name) + records)
    (folder / "nsd.conf").write_text(configuration)
    program = shutil.which("nsd", path="/usr/sbin:/usr/bin")
    assert program
    with (folder / "output").open("wb") as output:
        server = subprocess.Popen(
            [program, "-d", "-c", str(folder / "nsd.conf")], stdout=output, stderr=output
        )
    try:
        ports.eventually(lambda: _answers(port), what="NSD's first answer")
        yield port
    finally:
        server.terminate()
        try:
            server.wait(5.0)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _answers(port: int) -> bool:
    question = b"\x12\x34\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x06\x00\x01"  # . SOA
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(0.2)
        try:
            client.connect(("127.0.0.1", port))
            client.send(question)
            return client.recv(512)[:2] == question[:2]
        except OSError:
            return False
