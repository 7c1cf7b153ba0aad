"""A real clamd, rspamd and OpenDKIM of our own; all that they need in a scenario's folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.scenarios import ports

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: What this clamd takes for malware, and nothing else.
PATTERN: Final = b"elemta-scenario-malware-4f1c"
#: What rspamd takes for a test, and rejects, marks, or gives another subject.
REJECTED, MARKED, RENAMED = (
    letter + b"JS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"
    for letter in (b"X", b"Y", b"Z")
)
#: Whose mail OpenDKIM signs, and where its key would stand in the DNS.
DOMAIN: Final = "signed.example"
SELECTOR: Final = "scenario"

_CLAMD = """
DatabaseDirectory {folder}/signatures
LocalSocket {folder}/clamd.sock
Foreground yes
LogFile {folder}/clamd.log
StreamMaxLength 1M
"""
_OPENDKIM = """
Socket local:{folder}/opendkim.sock
Mode s
Domain {domain}
Selector {selector}
KeyFile {folder}/key.pem
Canonicalization simple/simple
SignHeaders From,To,Subject
InternalHosts 127.0.0.1
RequireSafeKeys no
Syslog no
Background no
"""
# Without its languages, domains and modules it is there at once; its test patterns are enough.
_RSPAMD = """
options {{
  filters = "";
  tempdir = "{folder}";
  url_tld = "{folder}/tld";
  disable_hyperscan = true;
  enable_test_patterns = true;
  dns {{ nameserver = ["127.0.0.1:1:1"]; timeout = 0.1s; retransmits = 1; }}
}}
lang_detection {{ languages = "{folder}/none"; }}
logging {{ type = "console"; level = "info"; }}
worker "normal" {{ bind_socket = "{folder}/rspamd.sock mode=0666"; count = 1; }}
"""


class Process:
    """A server that listens at a Unix socket, running or not."""

    def __init__(self, folder: Path, socket_name: str, *command: str) -> None:
        self.socket = folder / socket_name
        self._log = folder / f"{socket_name}.out"
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        """Start it; `wait` says when it is there."""
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Wait until somebody listens at its socket."""
        ports.eventually(self._listens, what=f"{self._command[0]}: {self._log.read_text()}")

    def stop(self) -> None:
        """End it; nobody is at its socket then."""
        process, self._process = self._process, None
        if process is not None:
            # With its own children, of which rspamd has some.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10.0)

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(str(self.socket)) == 0


class Scanners:
    """A clamd, an rspamd, and an OpenDKIM that signs.

    Attributes:
        record: the TXT record of the key with which it signs.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "signatures").mkdir()
        signature = f"Elemta.Scenario:0:*:{PATTERN.hex()}\n"
        (folder / "signatures" / "scenario.ndb").write_text(signature)
        (folder / "clamd.conf").write_text(_CLAMD.format(folder=folder))
        key = rsa.generate_private_key(65537, 2048)
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
        (folder / "key.pem").write_bytes(pem)
        (folder / "key.pem").chmod(0o600)
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.record = b"v=DKIM1; k=rsa; p=" + b"".join(public.splitlines()[1:-1])
        (folder / "opendkim.conf").write_text(
            _OPENDKIM.format(folder=folder, domain=DOMAIN, selector=SELECTOR)
        )
        (folder / "rspamd.conf").write_text(_RSPAMD.format(folder=folder))
        (folder / "tld").write_text("example\n")
        self.clamd = Process(
            folder, "clamd.sock", _program("clamd"), "-c", str(folder / "clamd.conf")
        )
        self.opendkim = Process(
            folder, "opendkim.sock", _program("opendkim"), "-x", str(folder / "opendkim.conf"), "-f"
        )
        self.rspamd = Process(
            *(folder, "rspamd.sock", _program("rspamd"), "-f", "-i"),
            *("-c", str(folder / "rspamd.conf"), f"--var=DBDIR={folder}", f"--var=RUNDIR={folder}"),
        )

    @property
    def all(self) -> tuple[Process, ...]:
        """Each of them."""
        return self.clamd, self.opendkim, self.rspamd


@contextlib.contextmanager
def scanners(folder: Path) -> Iterator[Scanners]:
    """Run all of them until the block ends."""
    started = Scanners(folder)
    try:
        for each in started.all:
            each.begin()
        for each in started.all:
            each.wait()
        yield started
    finally:
        for each in started.all:
            each.stop()


def _program(name: str) -> str:
    found = shutil.which(name, path="/usr/sbin:/usr/bin")
    assert found
    return found
