"""What watching costs those who send: ``python -m bench.watching``.

Messages come in at a fixed rate, each by a client of its own, whatever the server does: how long is
it from MAIL to the 250 after the content, alone, while somebody lists a queue of 100,000 messages
page by page for ever, while 200 websockets are told every event, and while both go on? What comes
in goes on to a sink at once. The four take turns, so that a slow minute of the machine meets all.

One node: with several the API has a process of its own, and can hold nothing up.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
from msgspec import Struct, field

from bench import depth, elemta, load, peers
from bench.turns import load_average
from bench.watchers import PAGE, Heard, Listed, Sent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.peers import Running

_CONFIGURATION = """
hostname: elemta.example
data_dir: {folder}/data
listeners:
  - {{name: bench, address: "127.0.0.1:{port}", connections_per_client: 2000}}
relay:
  networks: ["127.0.0.0/8"]
api:
  address: "127.0.0.1:{api}"
routes:
  # Where somebody listens and says nothing: what was there before stays in the queue.
  - {{match: "*.far.example", via: ["smtp://127.0.0.1:{mute}"]}}
  - {{match: "*", via: ["smtp://127.0.0.1:{sink}"]}}
queue:
  disk_reserve: 1 MiB
log: {{format: json, level: info}}
"""

#: What goes on meanwhile: whether somebody lists the queue, and how many listen.
SCENES: Final = {
    "alone": (False, 0),
    "the queue is listed": (True, 0),
    "200 websockets listen": (False, 200),
    "both": (True, 200),
}

#: Seconds in which the server lets go of those who have left: it has places for 256 of one address.
PAUSE: Final = 3.0

Told = TypeVar("Told", Sent, Listed, Heard)


class Place(Struct, frozen=True):
    """Where the server is.

    Attributes:
        url: of its API.
        token: that may read.
    """

    port: int
    url: str
    token: str


class Scene(Struct):
    """What was measured while something went on, in all of its turns.

    Attributes:
        cpu: seconds of the server's.
        lags: how often the server's loop was how late at most, in seconds.
    """

    sent: Sent = field(default_factory=Sent)
    pages: list[float] = field(default_factory=list)
    listed: int = 0
    heard: int = 0
    missed: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    lags: Counter[float] = field(default_factory=Counter)


class Watcher:
    """A process that plays a role of `bench.watchers`."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            raise RuntimeError(f"it did not come up: {process.args!r}")

    def result(self, kind: type[Told], *, wait: bool = False) -> Told:
        """End it, or `wait` until it ends by itself; what it did."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if not wait:
            self._process.stdin.close()
        return msgspec.json.decode(self._process.stdout.read(), type=kind)


@contextlib.contextmanager
def watcher(*arguments: str) -> Iterator[Watcher]:
    """A process that plays a role; ended with the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.watchers", *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield Watcher(process)
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()


def play(name: str, scene: Scene, place: Place, server: Running, mail: Load) -> None:
    """Send while something goes on."""
    lists, listeners = SCENES[name]
    with contextlib.ExitStack() as cast:
        listening = listing = None
        if listeners:
            begin = watcher("listen", place.url, place.token, str(listeners))
            listening = cast.enter_context(begin)
        if lists:
            listing = cast.enter_context(watcher("list", place.url, place.token))
        sending = cast.enter_context(
            watcher("mail", str(place.port), str(mail.rate), str(mail.seconds))
        )
        begun, cpu, before = time.perf_counter(), server.cpu_seconds(), lags(place)
        sent = sending.result(Sent, wait=True)
        scene.seconds += time.perf_counter() - begun
        scene.cpu += server.cpu_seconds() - cpu
        scene.lags += lags(place) - before
        scene.sent.latencies += sent.latencies
        scene.sent.failed += sent.failed
        if listing is not None:
            listed = listing.result(Listed)
            scene.listed += listed.messages
            scene.pages += listed.seconds
        if listening is not None:
            heard = listening.result(Heard)
            scene.heard += heard.events
            scene.missed += heard.missed
    time.sleep(PAUSE)


def lags(place: Place) -> Counter[float]:
    """How often its loop was so late, in seconds, since the server's start."""
    with urllib.request.urlopen(f"{place.url}/metrics", timeout=30) as answer:
        text: str = answer.read().decode()
    found = re.findall(r'^elemta_loop_lag_seconds_bucket{le="(.+)"} (.+)$', text, re.MULTILINE)
    counts, below = Counter[float](), 0
    for bound, count in found:
        counts[float(bound)] = int(float(count)) - below
        below = int(float(count))
    return counts


class Load(Struct, frozen=True):
    """What is sent in one turn: messages a second, and for how long."""

    rate: float
    seconds: float


def table(scenes: dict[str, Scene]) -> str:
    """A Markdown table."""
    lines = [
        "| while | messages | MAIL→250, ms: p50 | p99 | most | loop late, p99 | CPU | meanwhile |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, scene in scenes.items():
        took = sorted(scene.sent.latencies)
        cells = [f"{1e3 * each:,.1f}" for each in (_at(took, 50), _at(took, 99), took[-1])]
        failed = f", {scene.sent.failed} not taken" if scene.sent.failed else ""
        lines.append(
            f"| {name} | {len(took):,}{failed} | {' | '.join(cells)} "
            f"| ≤ {1e3 * _late(scene.lags):g} | {scene.cpu / scene.seconds:.0%} "
            f"| {_meanwhile(scene)} |"
        )
    return "\n".join(lines)


def _at(took: list[float], percent: int) -> float:
    return took[min(len(took) - 1, len(took) * percent // 100)]


def _late(lags: Counter[float]) -> float:
    """What the loop was late at most, in 99 of 100 looks."""
    left = lags.total() * 0.99
    for bound in sorted(lags):
        left -= lags[bound]
        if left <= 0:
            return bound
    return 0.0


def _meanwhile(scene: Scene) -> str:
    told: list[str] = []
    if scene.pages:
        pages = sorted(scene.pages)
        told.append(
            f"{scene.listed / scene.seconds:,.0f} messages/s listed, "
            f"a page of {PAGE} in {1e3 * _at(pages, 50):.0f} ms"
        )
    if scene.heard:
        told.append(f"{scene.heard / scene.seconds:,.0f} events/s told, {scene.missed:,} missed")
    return "; ".join(told)


@contextlib.contextmanager
def served(folder: Path) -> Iterator[tuple[Place, Running]]:
    """The daemon on a queue that was filled before, and a sink for what comes in."""
    with (
        load.sink() as sink,
        socket.create_server(("127.0.0.1", 0)) as mute,
    ):
        port, api = load.free_port(), load.free_port()
        file = folder / "elemta.yaml"
        file.write_text(
            _CONFIGURATION.format(
                folder=folder, port=port, api=api, mute=mute.getsockname()[1], sink=sink.port
            )
        )
        command = [sys.executable, "-m", "elemta"]
        where = ["--config", str(file)]
        made = subprocess.run(
            [*command, "token", "create", "bench", "--scope", "read", *where],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        place = Place(port, f"http://127.0.0.1:{api}", made.stdout.split()[-1])
        with peers.running(elemta.serve(file), port, 0, folder / "elemta.log") as server:
            yield place, server


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.watching", description=__doc__)
    parser.add_argument("--folder", type=Path, help="on the disk to be measured")
    parser.add_argument("--count", type=int, default=100_000, help="messages that are listed")
    parser.add_argument("--rate", type=float, default=50, help="messages a second that come in")
    parser.add_argument("--seconds", type=float, default=20, help="of a turn")
    parser.add_argument("--turns", type=int, default=3)
    given = parser.parse_args()
    what = Load(given.rate, given.seconds)
    scenes = {name: Scene() for name in SCENES}
    with depth.place(given.folder) as folder:
        depth.fill(folder / "data" / "queue", given.count, 1000)
        with served(folder) as (place, server):
            play("alone", Scene(), place, server, Load(given.rate, 5))  # to warm it up
            for _ in range(given.turns):
                for name, scene in scenes.items():
                    play(name, scene, place, server, what)
    print(f"{given.rate:g} messages of 4 KB a second, {given.count:,} in the queue")
    print(f"{load_average()}\n")
    print(table(scenes))


if __name__ == "__main__":
    main()
