"""What ten plugins cost that do nothing: ``python -m bench.plugins``.

Two daemons run side by side, one node each, one with the plugins; bursts of messages go to them by
turns, so that a slow moment of the machine meets both. The ratio is that of each pair of bursts,
and the table has the median of them. ``--before DIR`` has another source tree take part, without
plugins: what a change costs those who have none. ``--memory`` measures sessions alone, without
daemon, network and disk: the CPU time of one thread.
"""

from __future__ import annotations

import contextlib
import os
import socket
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio
from msgspec import Struct, field

from bench import elemta, load, peers, sessions
from bench.spool import spool
from bench.turns import load_average, options
from elemta import log

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.peers import Running

_HERE: Final = Path(__file__).parent.parent
#: Plugins of the chain.
COUNT: Final = 10

_CONFIGURATION = """
hostname: elemta.example
data_dir: {folder}/data
listeners:
  - name: bench
    address: ["127.0.0.1:{port}"]
    messages: 1000000000
    connections_per_client: 2000
relay:
  networks: ["127.0.0.0/8"]
routes:
  # Where somebody listens and says nothing: what is accepted for it stays in the queue.
  - {{match: "*", via: ["smtp://127.0.0.1:{mute}"]}}
queue:
  disk_reserve: 1 MiB
plugins: {plugins}
log: {{format: json, level: info}}
"""


class Variant(Struct):
    """One way to run Elemta, and what came of it.

    Attributes:
        tree: its source.
        plugins: empty ones.
        speeds: messages a second of each burst.
        cpu: milliseconds a message of each burst.
    """

    name: str
    tree: Path
    plugins: int = 0
    speeds: list[float] = field(default_factory=list[float])
    cpu: list[float] = field(default_factory=list[float])


@contextlib.contextmanager
def served(variant: Variant, folder: Path) -> Iterator[Running]:
    """A daemon."""
    port = load.free_port()
    with socket.create_server(("127.0.0.1", 0)) as mute:
        entries = ", ".join(["{name: bench.empty:Empty}"] * variant.plugins)
        file = folder / "elemta.yaml"
        file.write_text(
            _CONFIGURATION.format(
                folder=folder, port=port, mute=mute.getsockname()[1], plugins=f"[{entries}]"
            )
        )
        # The tree comes first on the path, so that it is the one that is run.
        under = ["env", f"--chdir={variant.tree}", f"PYTHONPATH={variant.tree}"]
        with peers.running([*under, *elemta.serve(file)], port, 0, folder / "elemta.log") as server:
            yield server


def measure(
    variants: Sequence[Variant], folder: Path, turns: int, messages: int, *, keep: bool
) -> None:
    """Send bursts to all of them by turns."""
    with contextlib.ExitStack() as running:
        servers: list[Running] = []
        for number, variant in enumerate(variants):
            own = folder / f"variant-{number}"
            peers.clear(own)
            servers.append(running.enter_context(served(variant, own)))
            load.Load(count=300).send(servers[-1].accept)
        for turn in range(turns):
            pairs = list(zip(variants, servers, strict=True))
            for variant, server in pairs if turn % 2 else reversed(pairs):
                cpu = server.cpu_seconds()
                seconds = load.Load(count=messages, keep=keep).send(server.accept)
                variant.speeds.append(messages / seconds)
                variant.cpu.append((server.cpu_seconds() - cpu) * 1000 / messages)


def table(variants: Sequence[Variant]) -> str:
    """A Markdown table; ratios are those to the first variant."""
    first = variants[0]
    lines = ["| | msg/s | ratio | CPU per message (ms) | ratio |", "|---|---|---|---|---|"]
    for each in variants:
        cells = [
            f"{statistics.median(each.speeds):,.0f}",
            _ratio(each.speeds, first.speeds),
            f"{statistics.median(each.cpu):.3f}",
            _ratio(each.cpu, first.cpu),
        ]
        lines.append(f"| {each.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _ratio(these: Sequence[float], those: Sequence[float]) -> str:
    """The median of the pairs' ratios, and the half of them that lies in the middle."""
    if these is those:
        return ""
    ratios = [one / other for one, other in zip(these, those, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:.3f} ({low:.3f}–{high:.3f})"


def in_memory(batches: int) -> None:
    """Print what a session costs with and without the chain, the least and the median."""
    with Path(os.devnull).open("w") as nowhere:
        log.configure("json", stream=nowhere)
        took = trio.run(sessions.measure, (0, COUNT), batches)
    for count, each in took.items():
        microseconds = [1e6 * one for one in sorted(each)]
        print(
            f"{count} empty plugins: {microseconds[0]:.0f} µs of CPU a message at the least, "
            f"median {statistics.median(microseconds):.0f}"
        )
    plain, chained = (statistics.median(took[count]) for count in (0, COUNT))
    print(f"the chain: {1e6 * (min(took[COUNT]) - min(took[0])):.0f} µs at the least, ", end="")
    print(f"median {1e6 * (chained - plain):.0f}")


def main() -> None:
    """Print the table."""
    parser = options("bench.plugins", __doc__)
    parser.set_defaults(spool="folder")  # both variants wait for the same disk
    parser.add_argument("--turns", type=int, default=20, help="bursts for each")
    parser.add_argument("--messages", type=int, default=1000, help="of a burst")
    parser.add_argument("--keep", action="store_true", help="many messages a connection")
    parser.add_argument("--before", type=Path, help="another source tree, which takes part")
    parser.add_argument("--memory", action="store_true", help="sessions alone, in memory")
    given = parser.parse_args()
    if given.memory:
        in_memory(50 * given.turns)
        return
    variants = [Variant("no plugins", _HERE), Variant(f"{COUNT} empty plugins", _HERE, COUNT)]
    if given.before is not None:
        variants.insert(0, Variant("before", given.before.resolve()))
    work: Path = given.work.resolve()
    with spool(work, image=given.spool == "image") as place:
        measure(variants, place.folder, given.turns, given.messages, keep=given.keep)
    print(table(variants))
    print(f"\n{load_average()}")


if __name__ == "__main__":
    main()
