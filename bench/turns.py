"""What benches have in common: their options, servers that take turns, and the table of it all.

A slow moment of the machine meets each server alike, as they take turns; and one that is not
installed is left out, and named below the table.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from bench import load
from bench.table import table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from bench.table import Row

_RESULTS: Final = Path(__file__).parent / "results"


class Named(Protocol):
    """A server of which something is measured."""

    name: str


S = TypeVar("S", bound=Named)


def options(module: str, about: str | None) -> argparse.ArgumentParser:
    """The options of every bench that starts servers: where their spools lie.

    Args:
        module: what is run, as in ``python -m bench``.
        about: its docstring.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=about)
    parser.add_argument("--work", type=Path, default=_RESULTS, help="folder for spools and results")
    parser.add_argument(
        "--spool",
        choices=("image", "folder"),
        default="image" if os.geteuid() == 0 else "folder",
        help="spools in an ext4 image made for the run, as root, or in a folder as it is",
    )
    return parser


def turns_of(module: str, about: str | None, *servers: str) -> argparse.ArgumentParser:
    """The same, and those of servers that take turns.

    Args:
        module: as for `options`.
        about: likewise.
        servers: the names of all.
    """
    parser = options(module, about)
    parser.add_argument("--quick", action="store_true", help="one short repetition")
    parser.add_argument("--repeat", type=int, default=3, help="interleaved repetitions (3)")
    parser.add_argument("--servers", nargs="+", default=servers, choices=servers, metavar="NAME")
    return parser


def chosen(servers: Iterable[S], given: argparse.Namespace) -> list[S]:
    """Those of the servers that take part."""
    return [server for server in servers if server.name.lower() in given.servers]


def turns(given: argparse.Namespace) -> range:
    """The turns that are wanted."""
    return range(1 if given.quick else given.repeat)


class Measured:
    """What was measured of some servers.

    Attributes:
        results: by server and by what it is, a number for each turn.
        missing: servers that were left out, and why.
    """

    def __init__(self, servers: Iterable[Named]) -> None:
        self.results: dict[str, dict[str, list[float]]] = {each.name: {} for each in servers}
        self.missing: dict[str, str] = {}

    def turn(self, number: int, server: Named, measure: Callable[[], Mapping[str, float]]) -> None:
        """Measure a server that was not left out, and say what came of it.

        Args:
            number: of the turn, from 0.
            server: whose turn it is.
            measure: does so; whatever it raises but `MissingError` ends the run.
        """
        if server.name in self.missing:
            return
        try:
            found = measure()
        except load.MissingError as error:
            self.missing[server.name] = str(error)
            print(f"{server.name}: left out: {error}", file=sys.stderr)
            return
        for key, value in found.items():
            self.results[server.name].setdefault(key, []).append(value)
        said = ", ".join(f"{key} {value:.2f}" for key, value in found.items())
        print(f"{number + 1} {server.name}: {said}", file=sys.stderr)

    def left_out(self) -> list[str]:
        """A sentence for each server that was left out."""
        return [f"{name} was left out: {why}" for name, why in self.missing.items()]

    def report(self, rows: Sequence[Row]) -> int:
        """Print the table; 0 if all could be measured."""
        print(table(self.results, rows))
        print(f"\n{load_average()}", *self.left_out(), sep="\n")
        return 1 if self.missing else 0


def load_average() -> str:
    """How busy the machine was by then."""
    return f"load average at the end: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
