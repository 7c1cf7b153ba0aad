"""OpenSMTPD as Debian ships it, accept only: it answers 250 without having synced anything.

Its package conflicts with Postfix's, so it is fetched and unpacked beside the spools. It knows
its paths and users by name, therefore it runs in a mount namespace of its own, where the few
paths it needs point into the spool: nothing of the machine is changed.

It listens with a backlog of 5, so that most connections of the load would wait for TCP to send
its SYN again, a second and more. That is a fault, but not what is measured here: a preloaded
`listen` asks for more.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from bench import load, peers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_CONFIGURATION = """
smtp max-message-size 52428800
smtp limit max-mails 1000000
listen on 127.0.0.1 port {accept} hostname opensmtpd.example
action "relay" relay host smtp://127.0.0.1:9
match from any for any action "relay"
"""

_LISTEN = """
#include <sys/syscall.h>
#include <unistd.h>
int listen(int fd, int backlog) { return syscall(SYS_listen, fd, 1000); }
"""

_PASSWD = """
opensmtpd:x:8801:8801::/var/lib/opensmtpd/empty:/usr/sbin/nologin
opensmtpq:x:8802:8802::/var/lib/opensmtpd/empty:/usr/sbin/nologin
"""
_GROUP = "\nopensmtpd:x:8801:\nopensmtpq:x:8802:\n"


class OpenSmtpd:
    """An OpenSMTPD whose delivery is paused: what it accepts stays in its queue."""

    name = "OpenSMTPD"
    relays = False

    def __init__(self, packages: Path) -> None:
        self._unpacked = packages / "opensmtpd"
        self._accept = 0

    def prepare(self, spool: Path, sink_port: int) -> None:
        if os.geteuid() != 0:
            raise load.MissingError("OpenSMTPD runs as root only")
        if not (self._unpacked / "usr/sbin/smtpd").exists():
            self._unpack()
        if not (self._unpacked / "listen.so").exists():
            subprocess.run(
                [load.program("gcc"), "-shared", "-fPIC", "-O", "-x", "c", "-", "-o",
                 str(self._unpacked / "listen.so")],
                input=_LISTEN, text=True, check=True,
            )  # fmt: skip
        self._accept = load.free_port()
        for folder in ("spool/smtpd", "lib/opensmtpd/empty", "run"):
            (spool / folder).mkdir(parents=True)
            (spool / folder).chmod(0o711)
        (spool / "smtpd.conf").write_text(_CONFIGURATION.format(accept=self._accept))
        # It looks up every client's name, and has no setting against it: the hosts file answers.
        (spool / "resolv.conf").write_text("lookup file\n")
        (spool / "passwd").write_text(Path("/etc/passwd").read_text().rstrip() + _PASSWD)
        (spool / "group").write_text(Path("/etc/group").read_text().rstrip() + _GROUP)

    @contextlib.contextmanager
    def run(self, spool: Path, *, under: Sequence[str] = ()) -> Iterator[peers.Running]:
        server = [str(self._unpacked / "usr/sbin/smtpd"), "-d", "-P", "mta", "-f",
                  str(spool / "smtpd.conf")]  # fmt: skip
        binds = {
            spool / "spool": "/var/spool",
            spool / "lib": "/var/lib",
            spool / "run": "/run",
            spool / "resolv.conf": "/etc/resolv.conf",
            spool / "passwd": "/etc/passwd",
            spool / "group": "/etc/group",
            self._unpacked / "usr/libexec": "/usr/libexec",
        }
        script = " && ".join(
            [f"mount --bind {shlex.quote(str(ours))} {theirs}" for ours, theirs in binds.items()]
            + [
                "exec "
                + shlex.join([*under, "env", f"LD_PRELOAD={self._unpacked}/listen.so", *server])
            ]
        )
        command = ["unshare", "--mount", "sh", "-c", script]
        with peers.running(command, self._accept, 0, spool / "server.log") as running:
            yield running

    def requeue(self, spool: Path) -> None:
        """Nothing to do: it waits already."""

    def _unpack(self) -> None:
        self._unpacked.mkdir(parents=True, exist_ok=True)
        for package in ("opensmtpd", "libevent-2.1-7", "libdb5.3"):
            fetched = subprocess.run(
                ["apt-get", "download", package],
                cwd=self._unpacked, capture_output=True, text=True, check=False,
            )  # fmt: skip
            if fetched.returncode:
                raise load.MissingError(f"apt-get download {package}: {fetched.stderr.strip()}")
        for archive in self._unpacked.glob("*.deb"):
            subprocess.run(["dpkg", "-x", str(archive), str(self._unpacked)], check=True)
