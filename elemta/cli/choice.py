"""Options that say which mail is meant."""

from __future__ import annotations

import re
import time
from datetime import datetime
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

import click

from elemta.units import Octets, Seconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from elemta.queue import Filter

#: What people say for what, where two words are usual.
VIEWS: Final = {
    "active": "active",
    "ready": "active",
    "deferred": "deferred",
    "hold": "hold",
    "held": "hold",
    "failed": "failed",
    "delivered": "delivered",
}
PRIORITIES: Final = ("low", "normal", "high", "critical")
_DECIMAL: Final = {"k": 10**3, "m": 10**6, "g": 10**9}

P = ParamSpec("P")
T = TypeVar("T")


def duration(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """For an option's callback: seconds of ``90s``, ``5min``, ``2h`` or ``5d``."""
    if value is None:
        return None
    try:
        return float(Seconds.parse(value))
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None


def from_now(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """For an option's callback: the time that so much from now is, seconds since the epoch."""
    span = duration(ctx, param, value)
    return None if span is None else time.time() + span


def moment(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """For an option's callback: a time of ISO 8601, of this machine's zone if it names none."""
    if value is None:
        return None
    try:
        return datetime.fromisoformat(value).timestamp()
    except (ValueError, OverflowError, OSError):
        raise click.BadParameter(
            f"expected e.g. 2027-01-31T08:00, not {value!r}", ctx, param
        ) from None


def octets(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """For an option's callback: octets of ``512B``, ``64KiB``, ``1MB`` or ``2GiB``."""
    if value is None:
        return None
    if decimal := re.fullmatch(r"([0-9]{1,15}) ?([kmgKMG])B?", value):
        return int(decimal[1]) * _DECIMAL[decimal[2].lower()]
    try:
        return int(Octets.parse(value))
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None


def _views(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(VIEWS[each] for each in value)


def _priority(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    from elemta.queue import Priority

    return None if value is None else Priority[value.upper()].value


class Chosen:
    """What was said about which mail is meant; `filter` makes a `Filter` of it.

    Attributes:
        everything: ``--all``.
        ids: that were named.
    """

    def __init__(self, ids: tuple[str, ...], options: dict[str, object]) -> None:
        self.ids = ids
        self.everything = bool(options.pop("everything", False))
        self._options = {key: value for key, value in options.items() if value not in (None, ())}

    @property
    def anything(self) -> bool:
        """Whether anything was said at all."""
        return bool(self.ids or self.everything or self._options)

    def filter(self) -> Filter:
        """What is meant.

        Raises:
            click.UsageError: there can be no such id.
        """
        import msgspec

        from elemta.queue import Filter, parse_id

        ids = tuple(parse_id(each) or "" for each in self.ids)
        for said, found in zip(self.ids, ids, strict=True):
            if not found:
                raise click.UsageError(f"{said!r} is not the id of a message")
        return msgspec.convert({**self._options, "ids": ids}, Filter)


#: The options, in the order in which help shows them.
_OPTIONS: Final = (
    click.option(
        "--view",
        "--state",
        "views",
        type=click.Choice(list(VIEWS)),
        multiple=True,
        callback=_views,
        help="In this queue; default: active, deferred and hold.",
    ),
    click.option("--domain", metavar="NAME", help="To this domain; *.example.net for all below."),
    click.option("--sender", metavar="WHO", help="From an address, @domain, or '<>'."),
    click.option("--recipient", metavar="ADDRESS", help="To this address."),
    click.option("--tag", metavar="TAG", help="Messages with this tag."),
    click.option("--older-than", callback=duration, metavar="2h", help="Waiting longer than this."),
    click.option("--younger-than", callback=duration, metavar="2h", help="Not that long."),
    click.option("--larger-than", callback=octets, metavar="1MB", help="Larger messages."),
    click.option("--smaller-than", callback=octets, metavar="1MB", help="Smaller messages."),
    click.option("--error", metavar="TEXT", help="With this in the last reply."),
    click.option("--destination", metavar="LANE", help="As `queue top` shows it."),
    click.option(
        "--priority",
        type=click.Choice(PRIORITIES),
        callback=_priority,
        help="Of this priority.",
    ),
    click.option("--owner", metavar="WHO", help="Held by, e.g. operator:root."),
    click.option("--text", metavar="TEXT", help="In id, addresses, tags or the last reply."),
)


def choosing(command: Callable[P, T]) -> Callable[P, T]:
    """Give a command the options that say which mail is meant."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
