"""A real Dovecot of our own that takes LMTP; its configuration and mail in a scenario's folder."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import smtplib
import subprocess
from typing import TYPE_CHECKING, Final

from tests.scenarios import ports

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Octets that ``small`` may keep; for ``bob`` and ``carol`` there is no limit, and nobody else is
#: known.
QUOTA: Final = 20_000

_CONFIGURATION = """
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/dovecot.log
instance_name = elemta-scenario
protocols = lmtp
ssl = no
mail_location = maildir:~/Maildir
first_valid_uid = 1
auth_username_format = %Ln
mail_plugins = quota
# Without this grace of 0 the last message may pass the limit by a tenth.
plugin {{
  quota = count:User quota
  quota_vsizes = yes
  quota_grace = 0
}}
quota_full_tempfail = {full_is_temporary}
passdb {{
  driver = passwd-file
  args = {folder}/users
}}
userdb {{
  driver = passwd-file
  args = {folder}/users
}}
service lmtp {{
  unix_listener lmtp {{
    mode = 0666
  }}
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {port}
  }}
}}
"""


class Dovecot:
    """A Dovecot, running or not.

    Attributes:
        port: where it speaks LMTP; fixed, so that it is found again after a restart.
        socket: the same as a unix socket.
    """

    def __init__(self, folder: Path, *, full_is_temporary: bool = False) -> None:
        folder.mkdir()
        self.folder = folder
        self.port = ports.free_port()
        self.socket = folder / "run" / "lmtp"
        self._process: subprocess.Popen[bytes] | None = None
        self._configuration = folder / "dovecot.conf"
        self._configuration.write_text(
            _CONFIGURATION.format(
                folder=folder,
                port=self.port,
                full_is_temporary="yes" if full_is_temporary else "no",
            )
        )
        owner = pwd.getpwnam("nobody")
        quotas = {"bob": "", "carol": "", "small": f"userdb_quota_rule=*:bytes={QUOTA}"}
        lines = []
        for name, quota in quotas.items():
            home = folder / name
            home.mkdir()
            os.chown(home, owner.pw_uid, owner.pw_gid)
            lines.append(f"{name}:{{PLAIN}}-:{owner.pw_uid}:{owner.pw_gid}::{home}::{quota}\n")
        (folder / "users").write_text("".join(lines))

    def start(self) -> None:
        """Start it, and wait until it greets."""
        assert self._process is None
        with (self.folder / "output").open("ab") as output:
            self._process = subprocess.Popen(
                [program("dovecot"), "-F", "-c", str(self._configuration)],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        ports.eventually(lambda: ports.greets(self.port), what="Dovecot's greeting")

    def stop(self) -> None:
        """End it with all its processes; nobody listens on its port and socket then."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(10.0)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def fill(self, user: str, octets: int) -> None:
        """Bring so much mail into a mailbox, past Elemta."""
        content = b"Subject: filling\r\n\r\n" + b"x" * 70 + b"\r\n"
        content += (b"y" * 70 + b"\r\n") * (octets // 72)
        with smtplib.LMTP("127.0.0.1", self.port, "filler.example") as client:
            client.sendmail("<>", [user], content)

    def empty(self, user: str) -> None:
        """Remove all mail of a mailbox, as its owner would."""
        subprocess.run(
            [program("doveadm"), "-c", str(self._configuration), "expunge", "-u", user,
             "mailbox", "INBOX", "ALL"],
            check=True, capture_output=True, timeout=60.0,
        )  # fmt: skip

    def mail(self, user: str) -> list[bytes]:
        """What it delivered, lines ended by LF, in the order in which it came."""
        new = self.folder / user / "Maildir" / "new"
        return [path.read_bytes() for path in sorted(new.iterdir())] if new.exists() else []

    def log(self) -> str:
        path = self.folder / "dovecot.log"
        return path.read_text(errors="replace") if path.exists() else ""


@contextlib.contextmanager
def dovecot(folder: Path, *, full_is_temporary: bool = False) -> Iterator[Dovecot]:
    """Run Dovecot until the block ends. Root only.

    Args:
        folder: made for it.
        full_is_temporary: what is too much for a mailbox gets 452 and not 552.
    """
    server = Dovecot(folder, full_is_temporary=full_is_temporary)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def program(name: str) -> str:
    found = shutil.which(name, path="/usr/sbin:/usr/bin")
    assert found
    return found
