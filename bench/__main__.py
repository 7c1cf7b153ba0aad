"""The command: `python -m bench` measures all servers in turn and prints one table."""

from __future__ import annotations

import datetime as dt
import os
import platform
import signal
import sys
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from bench import load, measures, peers
from bench.elemta import Elemta
from bench.measures import Numbers, Place
from bench.opensmtpd import OpenSmtpd
from bench.postfix import Postfix
from bench.spool import Spool, spool
from bench.table import table
from bench.turns import Measured, chosen, turns, turns_of

if TYPE_CHECKING:
    import argparse
    from pathlib import Path
    from types import FrameType


def main() -> int:
    """Run the bench; 0 if every server that was asked for could be measured."""
    given = _arguments()
    signal.signal(signal.SIGTERM, _interrupt)  # so that nothing is left running then, either
    work: Path = given.work.resolve()
    of_all: list[peers.Peer] = [Elemta(), Postfix(), OpenSmtpd(work / "packages")]
    wanted = [m for m in (*measures.EVERY_ROUND, *measures.ONCE) if m.__name__ in given.measures]
    measured = Measured(servers := chosen(of_all, given))
    with spool(work, image=given.spool == "image") as place:
        print(f"{_machine()}; spools: {place.kind}", file=sys.stderr)
        ceiling = _ceiling()
        for number in turns(given):
            for measure in wanted:
                if measure in measures.ONCE and number:
                    continue
                for server in servers:
                    one = partial(_measure, measure, server, place, quick=given.quick)
                    measured.turn(number, server, one)
    _report(work, measured, ceiling, place.kind)
    return 1 if measured.missing else 0


def _arguments() -> argparse.Namespace:
    names = [m.__name__ for m in (*measures.EVERY_ROUND, *measures.ONCE)]
    parser = turns_of("bench", __doc__, "elemta", "postfix", "opensmtpd")
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


def _report(work: Path, measured: Measured, ceiling: float, kind: str) -> None:
    lines = [
        table(measured.results),
        "",
        "Medians (least–most). Load: smtp-source, 20 sessions, to a sink that keeps nothing: "
        f"{ceiling:,.0f} msg/s.",
        f"{_machine()}; spools: {kind}.",
        *measured.left_out(),
    ]
    text = "\n".join(lines)
    print(text)
    stem = dt.datetime.now(dt.UTC).strftime("%Y%m%d-%H%M%S")
    (work / f"{stem}.md").write_text(text + "\n")
    told = {"results": measured.results, "ceiling": ceiling, "machine": _machine()}
    (work / f"{stem}.json").write_bytes(msgspec.json.format(msgspec.json.encode(told)))


def _machine() -> str:
    return (
        f"{os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}, "
        f"load {os.getloadavg()[0]:.1f} at the time"
    )


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
