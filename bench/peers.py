"""The servers that are measured: each started on a fresh spool, on ports of the moment."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from bench import load, processes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


#: Domains each of which is a destination of its own, with its own queue and limits: their mail goes
#: to the sink too, but each names a second host of its own behind it, which is never needed.
MANY: Final = tuple(f"many-{number}.example" for number in range(200))
#: The first of those second hosts' ports; nobody listens there.
SPARE_PORT: Final = 700


class Running:
    """A server that runs.

    Attributes:
        accept: the port on which a message is accepted, made durable and then left in the queue.
        relay: the port whose messages go to the sink at once; 0 if it cannot be measured.
        pid: the root of the server's process tree.
        started: seconds from its start to its first greeting.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], accept: int, relay: int, started: float
    ) -> None:
        self.process, self.accept, self.relay, self.started = process, accept, relay, started

    @property
    def pid(self) -> int:
        return self.process.pid

    def cpu_seconds(self) -> float:
        return processes.cpu_seconds(self.pid)

    def memory(self) -> int:
        return processes.memory(self.pid)


class Peer(Protocol):
    """A kind of server."""

    name: str
    #: Whether it delivers; else only what it accepts is measured.
    relays: bool

    def prepare(self, spool: Path, sink_port: int) -> None:
        """Write what it needs into `spool`, an empty folder.

        Raises:
            MissingError: it is not installed.
        """

    def run(
        self, spool: Path, *, under: Sequence[str] = ()
    ) -> contextlib.AbstractContextManager[Running]:
        """Start it on `spool`, under a tracer if given one, until the block ends."""

    def requeue(self, spool: Path) -> None:
        """Make what the accept port took wait for delivery, at a stopped server."""


@contextlib.contextmanager
def running(
    command: Sequence[str], accept: int, relay: int, log: Path, *, patience: float = 180.0
) -> Iterator[Running]:
    """Run a server in a session of its own, and end all of its processes with the block."""
    begun = time.perf_counter()
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        started = load.wait_for_greeting(accept, patience) - begun
        if relay:
            load.wait_for_greeting(relay, patience)
        yield Running(process, accept, relay, started)
    except (TimeoutError, RuntimeError) as error:
        error.add_note("the server's log ends:\n" + log.read_text(errors="replace")[-2000:])
        raise
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a server and all that it started; a tracer ends with what it traces."""
    family = processes.tree(process.pid)
    server = next((pid for pid in family if not _is_tracer(pid)), process.pid)
    with contextlib.suppress(ProcessLookupError):
        os.kill(server, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(10.0)
    for pid in family:
        if pid != process.pid or process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 10.0
    while any(_alive(pid) for pid in family) and time.monotonic() < deadline:
        time.sleep(0.01)  # not our children: nobody tells us when they end


def _is_tracer(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() == "strace"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _alive(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def clear(folder: Path) -> None:
    """Make `folder` an empty folder that every user may pass through."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    folder.chmod(0o755)
