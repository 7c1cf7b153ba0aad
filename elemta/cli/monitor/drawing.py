"""How the monitor looks: lines of a screen of whatever size, made of what is known and wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.cells import cell_len
from rich.text import Text

from elemta.cli.monitor.wishes import Mode, Wishes
from elemta.cli.screens import destination_state
from elemta.cli.terminal import clock, counted, printable, span
from elemta.queue import State

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from elemta.cli.monitor.model import Model, Rate
    from elemta.control.interface import Status
    from elemta.queue import Destination

#: From nothing to the most.
BARS: Final = " ▁▂▃▄▅▆▇█"
PLAIN_BARS: Final = " .:-=+*#%"
#: Columns of the names of rates, and of the numbers of the depth beside them.
_NAME: Final = 10
_DEPTH: Final = 24
#: Lines that are there whatever happens: two of the server, four of rates, two of headings, the
#: last, and two that are empty.
_FIXED: Final = 11
_STATES: Final = (State.READY, State.DEFERRED, State.HELD)
_KEYS: Final = "↑↓ choose  s suspend  r resume  f flush  / filter  p pause  h help  q quit"
HELP: Final = (
    "up, down, page up, page down   choose a destination",
    "s                              send nothing to it, until it is resumed",
    "r                              end the suspension that stops it",
    "f                              try all that waits for it, now",
    "                               each is asked about first: y does it",
    "/                              show only events with a text in them; ESC: all",
    "p, space                       let events stand still, or go on",
    "h, ?                           this; any key ends it",
    "q, Ctrl-C                      quit",
)


def screen(
    model: Model, wishes: Wishes, events: Sequence[str], size: tuple[int, int], *, bars: str = BARS
) -> list[Text]:
    """All lines of the screen.

    Args:
        model: what is known.
        wishes: what is wanted.
        events: as lines, the newest last.
        size: columns and lines.
        bars: signs to draw rates with.
    """
    width, height = size
    lines = [*_server(model), *_rates(model, width, bars), Text()]
    if wishes.mode is Mode.HELP:
        lines += [Text(line) for line in HELP]
    else:
        room = max(0, height - _FIXED)
        shown = min(len(model.destinations), max(1, room // 2)) if room else 0
        lines += _destinations(model, wishes, shown, width)
        lines += [Text(), *_events(model, wishes, events, max(0, height - len(lines) - 3))]
    last = _last(wishes)
    lines = lines[: height - 1]
    lines += [Text() for _ in range(height - 1 - len(lines))]
    lines.append(last)
    for line in lines:
        line.truncate(width)
    return lines


def report(model: Model, width: int, *, bars: str = BARS) -> list[Text]:
    """What there is to see without events and keys, however long; lines are as long as they are."""
    found = _destinations(model, Wishes(), len(model.destinations), width, chosen=False)
    return [*_server(model), *_rates(model, width, bars), Text(), *found]


def events_room(height: int) -> int:
    """How many events can be shown at most."""
    return max(0, height - _FIXED)


def _server(model: Model) -> Iterable[Text]:
    status = model.status
    if status is None:
        yield Text("elemta", style="bold")
    else:
        up = span(status.asked_at - status.started_at)
        head = Text(f"elemta {status.version}  ", style="bold")
        head.append(f"{printable(status.hostname)}  up {up}  {clock(status.asked_at)}")
        yield head
    yield _health(model, status)


def _health(model: Model, status: Status | None) -> Text:
    if (trouble := model.trouble) is not None:
        why, left = trouble
        told = f"DISCONNECTED, next try in {left:.0f} s: {printable(why)}"
        return Text(told, style="bold reverse red")
    if status is None or not model.hears:
        return Text("connecting …")
    clients = f"{status.sessions} of {counted(status.places, 'client')}"
    if status.stopping:
        return Text(f"stopping; {clients}", style="bold yellow")
    if status.troubles:
        return Text(f"! {printable('; '.join(status.troubles))}", style="bold red")
    if model.suspended:
        told = printable(", ".join(model.suspended))
        return Text.assemble((f"suspended: {told}", "yellow"), f"; {clients}")
    return Text.assemble(("all is well", "green"), f"; {clients}")


def _rates(model: Model, width: int, bars: str) -> Iterable[Text]:
    """A line for each rate, with what waits beside it."""
    room = max(0, width - _NAME - 9 - _DEPTH - 4)
    most = max((look for rate in model.rates.values() for look in _seen(rate, room)), default=0.0)
    depth = list(_depth(model.status))
    styles = {"in": "cyan", "delivered": "green", "deferred": "yellow", "failed": "red"}
    for (name, rate), waits in zip(model.rates.items(), depth, strict=True):
        line = Text(f"{name:{_NAME}}{_number(rate.now):>7}/s ")
        line.append(f"{_spark(rate, room, most, bars):>{room}}" if room else "", styles[name])
        line.append(f"  {waits}")
        yield line


def _depth(status: Status | None) -> Iterable[str]:
    queue = None if status is None else status.queue
    if queue is None or status is None:
        yield from ("", "", "", "")
        return
    for state in _STATES:
        yield f"{state.value:10}{queue.recipients.get(state, 0):>12}"
    oldest = "-" if queue.oldest is None else span(status.asked_at - queue.oldest)
    yield f"{'oldest':10}{oldest:>12}"


def _seen(rate: Rate, room: int) -> list[float]:
    """The looks that there is room for."""
    return list(rate.looks)[-room:] if room else []


def _spark(rate: Rate, room: int, most: float, bars: str) -> str:
    if not most:
        return ""
    top = len(bars) - 1
    return "".join(
        bars[0] if not look else bars[max(1, round(look / most * top))]
        for look in _seen(rate, room)
    )


def _number(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 100 or rate == int(rate) else f"{rate:.1f}"


def _destinations(
    model: Model, wishes: Wishes, shown: int, width: int, *, chosen: bool = True
) -> Iterable[Text]:
    name_room = max(12, min(40, width // 3))
    heading = f"{'DESTINATION':{name_room}} {'READY':>7} {'ON DISK':>8} {'AT WORK':>8}  STATE"
    yield Text(heading, style="bold")
    found = model.destinations
    at = wishes.position(found)
    first = min(max(0, at - shown + 1), max(0, len(found) - shown))
    now = 0.0 if model.status is None else model.status.asked_at
    for number, each in enumerate(found[first : first + shown], first):
        line = _destination(each, name_room, now)
        if chosen and number == at:
            line.stylize("reverse")
        yield line
    if not found:
        yield Text("nothing waits, and nothing is under way", style="dim")


def _destination(each: Destination, room: int, now: float) -> Text:
    name = printable(each.name)
    name = name if cell_len(name) <= room else name[: room - 1] + "…"
    line = Text(f"{name:{room}} {each.ready:>7} {each.on_disk:>8} {each.workers:>8}  ")
    style = "yellow" if each.suspended or each.parked_until is not None else ""
    line.append(printable(destination_state(each, now)), style)
    return line


def _events(model: Model, wishes: Wishes, events: Sequence[str], room: int) -> Iterable[Text]:
    heading = Text("EVENTS", style="bold")
    if wishes.filter:
        heading.append(f"  with {printable(wishes.filter)!r}")
    if wishes.paused:
        heading.append("  standing still", "yellow")
    if model.missed:
        heading.append(f"  {counted(model.missed, 'event')} missed", "yellow")
    yield heading
    for line in events[-room:] if room else ():
        yield Text(printable(line))


def _last(wishes: Wishes) -> Text:
    match wishes.mode:
        case Mode.CONFIRMING:
            return Text(f"{printable(wishes.question())} (y/n)", style="bold reverse")
        case Mode.FILTERING:
            return Text(f"/{printable(wishes.typed)}▏", style="bold")
        case _:
            return Text(printable(wishes.said), "bold") if wishes.said else Text(_KEYS, "dim")
