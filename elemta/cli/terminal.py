"""What is written for people: nothing that a peer said can move a cursor or forge a line."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click
import msgspec

if TYPE_CHECKING:
    from elemta.control.plain import Value


def printable(text: str) -> str:
    """The text with every sign escaped that does not simply stand where it is written."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else _escape(sign) for sign in text)


def say(text: str, *, err: bool = False) -> None:
    """Write one line."""
    click.echo(printable(text), err=err)


def say_json(value: Value, *, indent: int = 2) -> None:
    """Write a value for programs; with no indent it is one line."""
    octets = msgspec.json.encode(value)
    text = (msgspec.json.format(octets, indent=indent) if indent else octets).decode()
    click.echo("\n".join(printable(line) for line in text.split("\n")))


def clock(at: float) -> str:
    """A moment, in the time of this machine."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(at))


def span(seconds: float) -> str:
    """A duration in its largest unit, cut: ``59s``, ``4min``, ``23h``, ``5d``."""
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{int(seconds // unit)}{name}"
    return f"{max(0, int(seconds))}s"


def size(octets: int) -> str:
    """Octets in their largest unit: ``812 B``, ``4.0 KiB``."""
    if octets < 1024:
        return f"{octets} B"
    number, unit = octets / 1024, "KiB"
    for larger in ("MiB", "GiB", "TiB"):
        if number < 1024:
            break
        number, unit = number / 1024, larger
    return f"{number:.1f} {unit}"


def counted(number: int, noun: str) -> str:
    """``1 message``, ``2 messages``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _escape(sign: str) -> str:
    """As JSON has it, so that JSON stays what it is."""
    units = sign.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
