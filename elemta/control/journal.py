"""The log of this process, as facts."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

import trio

from elemta import log as logs
from elemta.control.facts import LogEntry
from elemta.control.interface import RequestError
from elemta.net.feed import Feed, Lost
from elemta.queue import Missed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

log = logs.logger(__name__)

#: Events of the log that a watcher may be behind.
BEHIND: Final = 10_000


def level_of(name: str) -> logs.Level:
    """What a level is called.

    Raises:
        RequestError: nothing.
    """
    try:
        return logs.Level[name.upper()]
    except KeyError:
        expected = ", ".join(logs.LEVELS.values())
        raise RequestError(f"expected one of {expected}", "level") from None


def recent(level: str, limit: int) -> list[LogEntry]:
    """The last events of at least a level, the newest last.

    Raises:
        RequestError: there is no such level.
    """
    return [_entry(each) for each in logs.recent(level_of(level), limit)]


async def follow(level: str) -> AsyncGenerator[LogEntry | Missed]:
    """Events of at least a level from now on. Nothing in here may log: it would be told of that.

    Raises:
        RequestError: there is no such level.
    """
    least = level_of(level)
    feed = Feed[logs.Entry](BEHIND)
    trio_thread, token = threading.get_ident(), trio.lowlevel.current_trio_token()

    def hear(entry: logs.Entry) -> None:
        if entry.level < least:
            return
        if threading.get_ident() == trio_thread:
            feed.put(entry)
        else:
            token.run_sync_soon(feed.put, entry)

    with feed, logs.listening(hear):
        async for heard in feed:
            yield Missed(heard.count) if isinstance(heard, Lost) else _entry(heard)


def log_level(level: str | None, who: str) -> str:
    """The least that is logged; a `level` sets it, and who did that is logged, if anything is.

    Raises:
        RequestError: there is no such level.
    """
    if level is not None:
        before, now = logs.level(), level_of(level)
        logs.set_level(min(before, now))
        log.info("control.log_level", who=who, now=logs.LEVELS[now], before=logs.LEVELS[before])
        logs.set_level(now)
    return logs.LEVELS[logs.level()]


def _entry(entry: logs.Entry) -> LogEntry:
    return LogEntry(
        at=entry.at,
        level=logs.LEVELS[entry.level],
        event=entry.event,
        logger=entry.logger,
        fields={key: logs.whole(value) for key, value in entry.fields.items()},
    )
