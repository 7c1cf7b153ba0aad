"""Events as lines of JSON, for pipes; goes on over restarts of the server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from elemta.cli.monitor.persistence import Follower, persist
from elemta.cli.reaching import reached, running
from elemta.cli.terminal import say, say_json
from elemta.control import plain
from elemta.control.choice import TYPES, EventChoice
from elemta.queue import Missed, parse_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elemta.config import Config
    from elemta.control.interface import Happening


def stream(config: Config, choice: EventChoice, since: int | None) -> int:
    """Print events until interrupted; returns the exit code."""

    def tell(event: Happening) -> None:
        if isinstance(event, Missed) or choice.passes(event):
            say_json(plain.event(event), indent=0)

    async def run() -> int:
        follower = Follower(tell, since=since)
        await persist(lambda: reached(config), follower.follow, _say_lost)
        return 0

    return running(run)


def choice_of(types: Sequence[str], domain: str | None, id_: str | None) -> EventChoice:
    """What options say that is wanted.

    Raises:
        click.UsageError: there is no such thing.
    """
    for each in types:
        if each not in TYPES:
            raise click.UsageError(f"{each!r} is no event; there are {', '.join(sorted(TYPES))}")
    message = None if id_ is None else parse_id(id_)
    if id_ is not None and message is None:
        raise click.UsageError(f"{id_!r} is not the id of a message")
    return EventChoice(
        types=frozenset(types), domain=None if domain is None else domain.lower(), id=message
    )


def _say_lost(why: str, pause: float) -> None:
    say(f"elemta: {why}; trying again in {pause:g} s", err=True)
