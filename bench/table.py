"""The numbers of a run as one table."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from msgspec import Struct


class Row(Struct, frozen=True):
    """A row of the table.

    Attributes:
        key: the number's name.
        digits: behind the point.
        target: what Elemta over Postfix has to be, at least; at most if it is below 1.
    """

    key: str
    title: str
    digits: int = 0
    target: float | None = None


ROWS = (
    Row("accept_4k", "accept, 4 KB, one message a session (msg/s)", target=2.0),
    Row("accept_4k_cpu", "… CPU per message (ms)", 2, 0.5),
    Row("accept_4k_syncs", "… sync calls per 1,000"),
    Row("accept_4k_flushes", "… flushes of the disk per 1,000"),
    Row("accept_kept", "accept, 4 KB, many messages a session (msg/s)", target=2.0),
    Row("accept_kept_cpu", "… CPU per message (ms)", 2, 0.5),
    Row("accept_kept_syncs", "… sync calls per 1,000"),
    Row("accept_kept_flushes", "… flushes of the disk per 1,000"),
    Row("accept_100k", "accept, 100 KB (msg/s)", target=2.0),
    Row("accept_100k_cpu", "… CPU per message (ms)", 2, 0.5),
    Row("accept_100k_flushes", "… flushes of the disk per 1,000"),
    Row("accept_1m", "accept, 1 MB (msg/s)", target=2.0),
    Row("accept_1m_cpu", "… CPU per message (ms)", 2, 0.5),
    Row("accept_1m_flushes", "… flushes of the disk per 1,000"),
    Row("relay", "relay end to end, 4 KB (msg/s)", target=1.5),
    Row("relay_cpu", "… CPU per message (ms)", 2, 0.5),
    Row("relay_syncs", "… sync calls per 1,000"),
    Row("relay_flushes", "… flushes of the disk per 1,000"),
    Row("relay_200", "relay to 200 destinations, 4 KB (msg/s)", target=1.5),
    Row("relay_200_cpu", "… CPU per message (ms)", 2, 0.5),
    Row("relay_200_flushes", "… flushes of the disk per 1,000"),
    Row("memory_idle", "memory per idle connection, of 1,000 (KiB)", 1, 0.1),
    Row("memory_base", "memory without a connection (MiB)", 1),
    Row("start_empty", "start until the first 220, empty queue (s)", 2),
    Row("start_queued", "start until the first 220, 100,000 queued (20,000 if quick) (s)", 2),
    Row("memory_queued", "memory just then (MiB)", 1),
)

#: Server, number, one value a repetition.
Results = Mapping[str, Mapping[str, Sequence[float]]]


def table(results: Results, rows: Sequence[Row] = ROWS) -> str:
    """A Markdown table: median (least–most) of each server, and Elemta over Postfix."""
    names = list(results)
    lines = [
        f"| | {' | '.join(names)} | Elemta / Postfix | target |",
        f"|---|{'---|' * len(names)}---|---|",
    ]
    for row in rows:
        values = [results[name].get(row.key, ()) for name in names]
        if any(values):
            cells = " | ".join(_cell(value, row.digits) for value in values)
            lines.append(f"| {row.title} | {cells} | {_ratio(results, row)} | {_target(row)} |")
    return "\n".join(lines)


def _cell(values: Sequence[float], digits: int) -> str:
    if not values:
        return "–"
    median = f"{statistics.median(values):,.{digits}f}"
    if len(values) == 1:
        return median
    return f"{median} ({min(values):,.{digits}f}–{max(values):,.{digits}f})"


def _ratio(results: Results, row: Row) -> str:
    ours = results.get("Elemta", {}).get(row.key)
    theirs = results.get("Postfix", {}).get(row.key)
    if not ours or not theirs or not statistics.median(theirs):
        return "–"
    ratio = statistics.median(ours) / statistics.median(theirs)
    if row.target is None:
        return f"{ratio:.2f}"
    met = ratio >= row.target if row.target >= 1 else ratio <= row.target
    return f"{ratio:.2f}" if met else f"{ratio:.2f} **missed**"


def _target(row: Row) -> str:
    if row.target is None:
        return ""
    return f"≥ {row.target:g}" if row.target >= 1 else f"≤ {row.target:g}"
