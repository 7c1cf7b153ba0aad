"""Finds messages in the store by a filter, a page at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from elemta.queue.filter import View
from elemta.queue.load import read_messages

if TYPE_CHECKING:
    import sqlite3

    from elemta.queue.filter import Condition
    from elemta.queue.model import Message, Recipient

#: Messages that are looked at for one page: some ten milliseconds.
LOOK: Final = 250
#: Messages of which SQLite alone looks whether they can be meant, where it can tell: as long.
SCAN: Final = 10_000

#: Where the keys of what may be in a view are found: for each, an index is walked in its order.
#: The limit stands in each, as SQLite would walk all of them to the end for one around them.
_WALK: Final = """
    SELECT key FROM (SELECT DISTINCT key FROM %s AND key > :low AND key < :high
                     ORDER BY key %s LIMIT :limit)
"""
_NEEDLE: Final = """
    SELECT key FROM message WHERE key BETWEEN ? AND ? AND instr(record, ?) ORDER BY key %s LIMIT ?
"""
_SOURCES: Final = {
    View.ACTIVE: (
        "message WHERE phase = 0",
        "recipient WHERE state = 'ready'",
        "recipient WHERE state = 'deferred'",  # it may be due
    ),
    View.DEFERRED: ("recipient WHERE state = 'deferred'",),
    View.HOLD: ("recipient WHERE state = 'held'",),
    View.FAILED: (
        "message WHERE phase = 3",
        "recipient WHERE state = 'failed'",
        "recipient WHERE state = 'expired'",
        "recipient WHERE state = 'deleted'",
    ),
    # One who has it, and one who has not, make a message of phase FAILED.
    View.DELIVERED: ("message WHERE phase >= 2", "recipient WHERE state = 'delivered'"),
}


class Hit(NamedTuple):
    """A message, and those of its recipients who are meant."""

    key: int
    message: Message
    recipients: list[Recipient]


class Page(NamedTuple):
    """Some of what a filter finds, in order.

    Attributes:
        after: the key behind which the next page begins; None if there is none.
    """

    hits: list[Hit]
    after: int | None


def read_page(
    connection: sqlite3.Connection, condition: Condition, after: int, *, newest: bool = False
) -> Page:
    """The next messages of which at least one recipient is meant; maybe none, though more follow.

    Args:
        connection: in no transaction.
        condition: who is meant.
        after: the key behind which to look: above it, or below it if the newest go first.
        newest: they do. Indexes are walked backwards then, which costs the same.
    """
    reach = _Reach(condition, after, newest=newest)
    connection.execute("BEGIN")  # all that is read now is of one moment
    try:
        keys, after_them = _keys(connection, condition, reach)
        found = read_messages(connection, keys)
    finally:
        connection.execute("COMMIT")
    hits = [
        Hit(each.key, each.message, recipients)
        for each in (reversed(found) if newest else found)
        if (recipients := condition.selects(each.message, each.key))
    ]
    return Page(hits, after_them)


class _Reach:
    """The keys that are looked at, and in which order.

    Attributes:
        low, high: between these they are.
        order: SQLite's word for it.
    """

    def __init__(self, condition: Condition, after: int, *, newest: bool) -> None:
        self.newest = newest
        self.low, self.high = condition.first - 1, condition.end
        if newest:
            self.high = min(self.high, after)
        else:
            self.low = max(self.low, after)
        self.order = "DESC" if newest else "ASC"


def _keys(
    connection: sqlite3.Connection, condition: Condition, reach: _Reach
) -> tuple[list[int], int | None]:
    """Keys of what may be meant, and behind which to go on; None: nothing is left."""
    if condition.keys is not None:
        named = [key for key in condition.keys if reach.low < key < reach.high]
        return _cut((named[::-1] if reach.newest else named)[:LOOK], LOOK)
    if condition.needle is None:
        return _cut(_walk(connection, condition, reach, LOOK), LOOK)
    keys, then = _cut(_walk(connection, condition, reach, SCAN), SCAN)
    if not keys:
        return [], None
    ends = sorted((keys[0], keys[-1]))
    rows: list[tuple[int]] = connection.execute(
        _NEEDLE % reach.order, (*ends, condition.needle, LOOK)
    ).fetchall()
    hits = [key for (key,) in rows]
    return (hits, hits[-1]) if len(hits) == LOOK else (hits, then)


def _cut(keys: list[int], limit: int) -> tuple[list[int], int | None]:
    return keys, keys[-1] if len(keys) == limit else None


def _walk(
    connection: sqlite3.Connection, condition: Condition, reach: _Reach, limit: int
) -> list[int]:
    sources = {source for view in condition.views for source in _SOURCES[view]}
    walks = [_WALK % (each, reach.order) for each in sorted(sources)]
    rows: list[tuple[int]] = connection.execute(
        " UNION ".join(walks) + f" ORDER BY key {reach.order} LIMIT :limit",
        {"low": reach.low, "high": reach.high, "limit": limit},
    ).fetchall()
    return [key for (key,) in rows]
