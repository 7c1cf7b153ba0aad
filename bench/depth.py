"""What a very full queue costs: ``python -m bench.depth [--count 1000000] [--folder DIR]``.

The queue is filled by its own store, past SMTP: half of it new, half of it deferred with times that
are spread over the next four hours, all in domains that take turns. Then the daemon is started on
it (no domain has a name server that answers, so everything stays), and the command line is asked.
Last, the queue alone hands out messages, and what is handed out is settled as delivered.

Postfix is not measured: its queue is a file a message, and filling it by SMTP takes as long as the
rest of the bench. `start_up` of the other bench compares the two with 100,000 messages.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import socket
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from bench import elemta, load, peers, processes
from elemta.protocol import Mailbox, reply
from elemta.queue import Attempt, Message, Origin, Recipient, Result, RetryPolicy, State, open_queue
from elemta.queue.change import Insert
from elemta.queue.entry import Entry
from elemta.queue.ids import IdSource
from elemta.queue.schema import Phase
from elemta.queue.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from elemta.protocol import ReversePath
    from elemta.queue import Claim, Destined, Queue

BATCH: Final = 5000
SIZE: Final = 1024
FIRST: Final = 1000
#: Seconds that the daemon is at work before its memory is read.
SETTLE: Final = 15.0

_CONFIGURATION = """
hostname: elemta.example
data_dir: {folder}/data
listeners:
  - {{name: bench, address: "127.0.0.1:{port}"}}
queue:
  disk_reserve: 1 MiB
dns:
  nameservers: ["127.0.0.1:{silent}"]
log: {{format: json, level: warning}}
"""
_BUSY: Final = reply(451, 4, 1, "cannot connect")
_TAKEN: Final = reply(250, 2, 0, "queued as 4XyZ1234567")


def lane(recipient: Destined, _sender: ReversePath) -> str:
    """Each domain is a destination."""
    return f"mx:{recipient.address.domain}"


def fill(folder: Path, count: int, domains: int) -> None:
    """Put so many messages into a queue that nobody has open."""
    store = Store(folder)
    try:
        content = (b"Subject: deep\r\n\r\n" + b"x" * 70 + b"\r\n").ljust(SIZE - 2, b"y") + b"\r\n"
        chance = random.Random(1)
        new_id = IdSource(time.time, store.last_key)
        for begin in range(0, count, BATCH):
            batch = [
                Insert(_entry(number, domains, new_id, chance), content, lambda _: None)
                for number in range(begin, min(begin + BATCH, count))
            ]
            store.apply(batch)
    finally:
        store.close()


def _entry(number: int, domains: int, new_id: IdSource, chance: random.Random) -> Entry:
    now, deferred = time.time(), number % 2 == 1
    address = Mailbox(f"user{number}", f"d{number // 2 % domains}.far.example")
    recipient = Recipient(number=0, address=address, due=now)
    if deferred:
        recipient = Recipient(
            number=0, address=address, state=State.DEFERRED, attempts=3, last=_BUSY,
            due=now + chance.uniform(60, 4 * 3600),
        )  # fmt: skip
    message = Message(
        id=new_id(), sender=Mailbox("sender", "client.example"), recipients=[recipient],
        received_at=now, expires_at=now + 5 * 86400, size=SIZE, hops=1,
        origin=Origin(address="192.0.2.1", helo="client.example", session="01J", listener="mx"),
    )  # fmt: skip
    return Entry(message, Phase.SCATTERED if deferred else Phase.WHOLE)


def start_and_ask(folder: Path) -> None:
    """Start the daemon on the full queue; print what that and the command line take."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        port = load.free_port()
        file = folder / "elemta.yaml"
        file.write_text(
            _CONFIGURATION.format(folder=folder, port=port, silent=silent.getsockname()[1])
        )
        command = [sys.executable, "-m", "elemta"]
        with peers.running(elemta.serve(file), port, 0, folder / "elemta.log") as server:
            say("start until the first 220", f"{server.started:.2f} s")
            say("memory just then", f"{server.memory() / 2**20:.0f} MiB")
            count = ["delete", "--domain", "d7.far.example", "--dry-run"]
            ask("beside the daemon", command, file, count)
            time.sleep(SETTLE)  # no event ends it: what it does in this time is measured
            say(f"memory {SETTLE:.0f} s later", f"{server.memory() / 2**20:.0f} MiB")
            begun = processes.cpu_seconds(server.pid)
            time.sleep(SETTLE)  # no event ends it: what it does in this time is measured
            cpu = processes.cpu_seconds(server.pid) - begun
            say("CPU while nothing can be delivered", f"{cpu / SETTLE * 100:.0f} % of a core")
        ask("with the daemon down", command, file)


def ask(when: str, command: list[str], file: Path, *more: list[str]) -> None:
    """Print how long the command line takes to answer."""
    for arguments in (
        ["stats"],
        ["list"],
        ["list", "--view", "deferred"],
        ["list", "--domain", "d7.far.example"],
        *more,
    ):
        begun = time.perf_counter()
        subprocess.run(
            [*command, "queue", *arguments, "--config", str(file)],
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        say(f"queue {' '.join(arguments)}, {when}", f"{time.perf_counter() - begun:.2f} s")


async def hand_out(folder: Path, count: int) -> None:
    """Open the queue, and take and settle messages until so many are done; print how long."""
    begun = time.perf_counter()
    async with open_queue(folder, RetryPolicy(), lane=lane) as queue, trio.open_nursery() as all_:
        say("open", f"{time.perf_counter() - begun:.3f} s")
        taken = Taken(begun, count, all_.cancel_scope)
        while True:
            all_.start_soon(work, await queue.claim(), queue, taken)


class Taken:
    """Counts what was handed out, and ends it when there are enough."""

    def __init__(self, begun: float, count: int, scope: trio.CancelScope) -> None:
        self._begun, self._count, self._scope = begun, count, scope
        self._taken = 0

    def another(self) -> None:
        self._taken += 1
        if self._taken not in (1, FIRST, self._count):
            return
        seconds = time.perf_counter() - self._begun
        say(f"message {self._taken:,} handed out", f"{seconds:.3f} s after the start")
        if self._taken == self._count:
            say("handed out and settled", f"{self._count / seconds:,.0f} msg/s")
            self._scope.cancel()


async def work(claim: Claim, queue: Queue, taken: Taken) -> None:
    """Deliver what is ready in one lane."""
    with claim:
        while (some := claim.take()) is not None:
            with some:
                taken.another()
                now = time.time()
                attempts = [
                    Attempt(
                        number=each.number, started=now, ended=now, result=Result.DELIVERED,
                        destination=claim.lane, reply=_TAKEN, remote=True,
                    )
                    for each in some.recipients
                ]  # fmt: skip
                await trio.lowlevel.checkpoint()
                await queue.settle(some, attempts)
                claim.succeeded()


def say(what: str, value: str) -> None:
    """Print one figure."""
    print(f"{what:62} {value}", flush=True)


@contextlib.contextmanager
def place(folder: Path | None) -> Iterator[Path]:
    """A folder for the queue, gone with the block."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="elemta-depth-") as temporary:
        yield Path(temporary)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.depth", description=__doc__)
    parser.add_argument("--folder", type=Path, help="on the disk to be measured")
    parser.add_argument("--count", type=int, default=1_000_000, help="messages")
    parser.add_argument("--domains", type=int, default=1000)
    parser.add_argument("--hand-out", type=int, default=20_000, help="of them")
    given = parser.parse_args()
    with place(given.folder) as folder:
        spool = folder / "data" / "queue"
        begun = time.perf_counter()
        fill(spool, given.count, given.domains)
        seconds = time.perf_counter() - begun
        say("messages", f"{given.count:,} of {SIZE} octets, {given.domains:,} destinations")
        say("filled", f"in {seconds:.0f} s ({given.count / seconds:,.0f} msg/s)")
        size = sum(path.stat().st_size for path in spool.rglob("*") if path.is_file())
        say("disk", f"{size / 2**20:,.0f} MiB")
        start_and_ask(folder)
        trio.run(partial(hand_out, spool, min(given.hand_out, given.count // 2)))


if __name__ == "__main__":
    main()
