"""The command: `python -m bench` measures all servers in turn and prints one table."""

from __future__ import annotations

import argparse
import datetime as dt
import os
import platform
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bench import load, measures, peers
from bench.elemta import Elemta
from bench.measures import Numbers, Place
from bench.opensmtpd import OpenSmtpd
from bench.postfix import Postfix
from bench.spool import Spool, spool
from bench.table import table

if TYPE_CHECKING:
    from types import FrameType

_RESULTS = Path(__file__).parent / "results"


def main() -> int:
    """Run the bench; 0 if every server that was asked for could be measured."""
    options = _arguments()
    signal.signal(signal.SIGTERM, _interrupt)  # so that nothing is left running then, either
    work: Path = options.work.resolve()
    servers: list[peers.Peer] = [Elemta(), Postfix(), OpenSmtpd(work / "packages")]
    servers = [server for server in servers if server.name.lower() in options.servers]
    wanted = [m for m in (*measures.EVERY_ROUND, *measures.ONCE) if m.__name__ in options.measures]
    results: dict[str, dict[str, list[float]]] = {server.name: {} for server in servers}
    missing: dict[str, str] = {}
    with spool(work, image=options.spool == "image") as place:
        print(f"{_machine()}; spools: {place.kind}", file=sys.stderr)
        ceiling = _ceiling()
        for round_number in range(1 if options.quick else options.repeat):
            for measure in wanted:
                if measure in measures.ONCE and round_number:
                    continue
                for server in servers:
                    if server.name in missing:
                        continue
                    try:
                        numbers = _measure(measure, server, place, quick=options.quick)
                    except load.MissingError as error:
                        missing[server.name] = str(error)
                        print(f"{server.name}: left out: {error}", file=sys.stderr)
                        continue
                    for key, value in numbers.items():
                        results[server.name].setdefault(key, []).append(value)
                    said = ", ".join(f"{key} {value:.2f}" for key, value in numbers.items())
                    print(f"{round_number + 1} {server.name}: {said}", file=sys.stderr)
    _report(work, results, missing, ceiling, place.kind)
    return 1 if missing else 0


def _arguments() -> argparse.Namespace:
    names = [m.__name__ for m in (*measures.EVERY_ROUND, *measures.ONCE)]
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short repetition")
    parser.add_argument("--repeat", type=int, default=3, help="interleaved repetitions (3)")
    parser.add_argument("--work", type=Path, default=_RESULTS, help="folder for spools and results")
    parser.add_argument(
        "--spool",
        choices=("image", "folder"),
        default="image" if os.geteuid() == 0 else "folder",
        help="spools in an ext4 image made for the run (root; the default then), or as it is",
    )
    parser.add_argument(
        "--servers", nargs="+", default=["elemta", "postfix", "opensmtpd"], metavar="NAME"
    )
    parser.add_argument("--measures", nargs="+", default=names, choices=names, metavar="NAME")
    return parser.parse_args()


def _measure(
    measure: measures.Measure, server: peers.Peer, place: Spool, *, quick: bool
) -> Numbers:
    scale = measures.QUICK if quick else measures.Scale()
    with load.sink() as sink:
        try:
            return measure(server, Place(place, sink, scale))
        finally:
            peers.clear(place.folder / server.name.lower())


def _ceiling() -> float:
    """What the load generator can do: messages a second into a sink that keeps nothing."""
    with load.sink() as sink:
        return 8000 / load.Load(count=8000).send(sink.port)


def _report(
    work: Path,
    results: dict[str, dict[str, list[float]]],
    missing: dict[str, str],
    ceiling: float,
    kind: str,
) -> None:
    lines = [
        table(results),
        "",
        "Medians (least–most). Load: smtp-source, 20 sessions, to a sink that keeps nothing: "
        f"{ceiling:,.0f} msg/s.",
        f"{_machine()}; spools: {kind}.",
        *(f"{name} was left out: {why}" for name, why in missing.items()),
    ]
    text = "\n".join(lines)
    print(text)
    stem = dt.datetime.now(dt.UTC).strftime("%Y%m%d-%H%M%S")
    (work / f"{stem}.md").write_text(text + "\n")
    (work / f"{stem}.json").write_bytes(
        msgspec.json.format(
            msgspec.json.encode({"results": results, "ceiling": ceiling, "machine": _machine()})
        )
    )


def _machine() -> str:
    return (
        f"{os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}, "
        f"load {os.getloadavg()[0]:.1f} at the time"
    )


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
