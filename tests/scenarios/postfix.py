"""A real Postfix of our own, its configuration, queue and mail in a folder of the scenario."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

from bench.postfix import SERVICES
from tests.scenarios import ports

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MAIN = """
compatibility_level = 3.6
myhostname = postfix.example
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = loopback-only
inet_protocols = ipv4
smtpd_peername_lookup = no
alias_maps =
alias_database =
local_recipient_maps =
queue_directory = {folder}/queue
data_directory = {folder}/data
maillog_file_prefixes = {folder}
maillog_file = {folder}/mail.log
relayhost = [127.0.0.1]:{next_hop}
smtp_dns_support_level = disabled
smtp_tls_security_level = none
smtpd_tls_security_level = none
smtpd_recipient_restrictions = permit_mynetworks, reject
smtpd_relay_restrictions = permit_mynetworks, reject
queue_minfree = 0
virtual_mailbox_domains = postfix.example
virtual_mailbox_base = {folder}/mail
virtual_mailbox_maps = static:box/
virtual_minimum_uid = 1
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
{settings}"""
_MASTER = """
127.0.0.1:{port} inet n - n - - smtpd
virtual unix - n n - - virtual
{more}{services}"""


class Postfix:
    """A Postfix that runs.

    Attributes:
        port: where it takes mail: for ``…@postfix.example`` into its own Maildir, else it relays.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = ports.free_port()

    def mail(self) -> list[bytes]:
        """What it delivered to its own Maildir, lines ended by LF."""
        new = self.folder / "mail" / "box" / "new"
        return [path.read_bytes() for path in sorted(new.iterdir())] if new.exists() else []

    def log(self) -> str:
        path = self.folder / "mail.log"
        return path.read_text(errors="replace") if path.exists() else ""


@contextlib.contextmanager
def postfix(
    folder: Path, next_hop: int, *, settings: str = "", services: str = ""
) -> Iterator[Postfix]:
    """Run Postfix; what is not its own it relays to 127.0.0.1:`next_hop`. Root only.

    Args:
        folder: made for it.
        next_hop: a port.
        settings: more of main.cf.
        services: more of master.cf.
    """
    folder.mkdir()
    instance = Postfix(folder)
    for name in ("etc", "queue", "data", "mail"):
        (folder / name).mkdir()
    owner = pwd.getpwnam("postfix")
    os.chown(folder / "data", owner.pw_uid, owner.pw_gid)
    os.chown(folder / "mail", owner.pw_uid, owner.pw_gid)
    (folder / "etc" / "main.cf").write_text(
        _MAIN.format(
            folder=folder,
            next_hop=next_hop,
            uid=owner.pw_uid,
            gid=owner.pw_gid,
            settings=settings,
        )
    )
    (folder / "etc" / "master.cf").write_text(
        _MASTER.format(port=instance.port, more=services, services=SERVICES)
    )
    program = shutil.which("postfix", path="/usr/sbin")
    assert program
    with (folder / "output").open("wb") as output:
        server = subprocess.Popen(
            [program, "-c", str(folder / "etc"), "start-fg"],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        ports.eventually(lambda: ports.greets(instance.port), what="Postfix's greeting")
        yield instance
    finally:
        _stop(program, folder, server)


def _stop(program: str, folder: Path, server: subprocess.Popen[bytes]) -> None:
    subprocess.run(
        [program, "-c", str(folder / "etc"), "abort"],
        capture_output=True, check=False, timeout=60.0,
    )  # fmt: skip
    try:
        server.wait(10.0)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
