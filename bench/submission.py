"""Mail that people hand in, with TLS, a login and a DKIM signature: ``python -m bench.submission``.

Twenty programs at a time, each with an account of its own, hand in messages of 4 KB: each with a
connection, a handshake and a login of its own, or all on one; by TLS from the start, or STARTTLS.
Whatever is taken is signed with RSA-2048 and held; that it is, is looked at.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from bench import peers, submitting
from bench.spool import spool
from bench.submitters import Burst
from bench.table import Row
from bench.turns import Measured, chosen, turns, turns_of

if TYPE_CHECKING:
    from pathlib import Path

    from bench.submitting import Submits


ROWS: Final = (
    Row("new", "submission, 4 KB, TLS, AUTH, DKIM: a connection a message (msg/s)", target=2.0),
    Row("new_cpu", "… CPU per message, all processes (ms)", 2, 0.5),
    Row("starttls", "the same by STARTTLS (msg/s)", target=2.0),
    Row("starttls_cpu", "… CPU per message (ms)", 2, 0.5),
    Row("kept", "many messages a connection (msg/s)", target=2.0),
    Row("kept_cpu", "… CPU per message (ms)", 2, 0.5),
    Row("submission_memory", "memory of all processes (MiB)"),
)


class Scale(Struct, frozen=True):
    """How many messages are sent of each kind."""

    warm_up: int = 300
    new: int = 3000
    kept: int = 5000


QUICK: Final = Scale(warm_up=100, new=800, kept=1500)


def measure(server: Submits, folder: Path, scale: Scale) -> dict[str, float]:
    """One run of one server, on an empty spool.

    Raises:
        RuntimeError: something was refused, or not signed.
    """
    peers.clear(folder)
    server.prepare(folder)
    found: dict[str, float] = {}
    with server.run(folder) as running:
        implicit, starttls = server.implicit, running.accept
        # So that passwords are known, and each of the processes runs.
        Burst(port=implicit, count=scale.warm_up).send()
        Burst(port=starttls, count=scale.warm_up, implicit=False).send()
        for name, burst in (
            ("new", Burst(port=implicit, count=scale.new)),
            ("starttls", Burst(port=starttls, count=scale.new, implicit=False)),
            ("kept", Burst(port=implicit, count=scale.kept, keep=True)),
        ):
            cpu = running.cpu_seconds()
            found[name] = burst.count / burst.send()
            found[f"{name}_cpu"] = (running.cpu_seconds() - cpu) * 1000 / burst.count
        found["submission_memory"] = running.memory() / 2**20
    sent = 2 * (scale.warm_up + scale.new) + scale.kept
    signed = _signatures(folder)
    if signed < sent:
        raise RuntimeError(f"{server.name} signed {signed} of {sent}")
    return found


def _signatures(folder: Path) -> int:
    """How many signatures lie in a spool."""
    return sum(
        path.read_bytes().count(b"DKIM-Signature:")
        for path in folder.rglob("*")
        if path.is_file() and not path.is_socket()
    )


def main() -> int:
    """Print the table; 0 if all could be measured."""
    parser = turns_of("bench.submission", __doc__, "elemta", "postfix")
    parser.add_argument(
        "--nodes", type=int, default=len(os.sched_getaffinity(0)), help="of Elemta (one a core)"
    )
    given = parser.parse_args()
    scale = QUICK if given.quick else Scale()
    of_all: list[Submits] = [
        submitting.SubmittingElemta(given.nodes),
        submitting.SubmittingPostfix(),
    ]
    servers = chosen(of_all, given)
    measured = Measured(servers)
    with spool(given.work.resolve(), image=given.spool == "image") as place:
        for number in turns(given):
            for server in servers:
                folder = place.folder / server.name.lower()
                measured.turn(number, server, partial(measure, server, folder, scale))
    return measured.report(ROWS)


if __name__ == "__main__":
    sys.exit(main())
