"""What the scenarios share: the daemon and its real peers, each a process on loopback.

A scenario whose peer is missing is skipped, and says which package has it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pytest

from tests.scenarios.daemon import Daemon
from tests.scenarios.nsd import nsd
from tests.scenarios.postfix import Postfix, postfix

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

#: Makes a daemon with these settings; it is not started yet, and ends with the scenario.
MakeDaemon: TypeAlias = "Callable[..., Daemon]"
#: Starts a name server with these zones; gives its port.
ServeZones: TypeAlias = "Callable[[Mapping[str, str]], int]"
#: Starts a Postfix that relays to this port.
StartPostfix: TypeAlias = "Callable[[int], Postfix]"

# A shell that starts something in the background without job control has it ignore an interrupt,
# and what is started here would inherit that: those who wait for one to end them never would.
signal.signal(signal.SIGINT, signal.default_int_handler)

_PACKAGES = {
    "clamd": "clamav-daemon",
    "nsd": "nsd",
    "postfix": "postfix",
    "smtp-source": "postfix",
    "promtool": "prometheus",
    "testssl": "testssl.sh",
    "mkfs.ext4": "e2fsprogs",
    "/usr/lib/dovecot/lmtp": "dovecot-lmtpd",
    "doveadm": "dovecot-core",
    "dovecot": "dovecot-core",
}


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skip where one of these is not installed."""
    path = "/usr/local/bin:/usr/sbin:/sbin:/usr/bin:/bin"
    missing = [name for name in programs if shutil.which(name, path=path) is None]
    packages = " ".join(sorted({_PACKAGES.get(name, name) for name in missing}))
    return pytest.mark.skipif(
        bool(missing), reason=f"{', '.join(missing)} not installed: apt-get install {packages}"
    )


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can do this")


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user may pass through, unlike pytest's."""
    folder = Path(tempfile.mkdtemp(prefix="elemta-scenario-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def make_elemta(place: Path, request: pytest.FixtureRequest) -> Iterator[MakeDaemon]:
    made: list[Daemon] = []

    def make(settings: Mapping[str, object] | None = None, folder: Path | None = None) -> Daemon:
        made.append(Daemon(folder or place, settings))
        return made[-1]

    yield make
    for daemon in made:
        ended = None if daemon.process is None else daemon.process.poll()
        daemon.kill()
        daemon.end_commands()
        # pytest shows this with a failure only.
        if ended is not None:
            sys.stdout.write(f"--- the daemon had ended by itself, with {ended}\n")
        sys.stdout.write(f"--- the daemon's log ends:\n{daemon.log_tail()}\n")


@pytest.fixture
def elemta(make_elemta: MakeDaemon) -> Daemon:
    """The daemon as most scenarios want it, running."""
    daemon = make_elemta()
    daemon.start()
    return daemon


@pytest.fixture
def serve_zones(place: Path) -> Iterator[ServeZones]:
    with contextlib.ExitStack() as stack:
        yield lambda zones: stack.enter_context(nsd(place / "nsd", zones))


@pytest.fixture
def start_postfix(place: Path) -> Iterator[StartPostfix]:
    with contextlib.ExitStack() as stack:
        yield lambda next_hop: stack.enter_context(postfix(place / "postfix", next_hop))
