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
    SELECT key FROM (SELECT DISTINCT key FROM %s AND key > :after AND key < :end
                     ORDER BY key LIMIT :limit)
"""
_NEEDLE: Final = """
    SELECT key FROM message WHERE key BETWEEN ? AND ? AND instr(record, ?) ORDER BY key LIMIT ?
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
    """Some of what a filter finds, the oldest first.

    Attributes:
        after: the key after which the next page begins; None if there is none.
    """

    hits: list[Hit]
    after: int | None


def read_page(connection: sqlite3.Connection, condition: Condition, after: int) -> Page:
    """The next messages of which at least one recipient is meant; maybe none, though more follow.

    Args:
        connection: in no transaction.
        condition: who is meant.
        after: the key after which to look.
    """
    connection.execute("BEGIN")  # all that is read now is of one moment
    try:
        keys, after_them = _keys(connection, condition, after)
        found = read_messages(connection, keys)
    finally:
        connection.execute("COMMIT")
    hits = [
        Hit(each.key, each.message, recipients)
        for each in found
        if (recipients := condition.selects(each.message, each.key))
    ]
    return Page(hits, after_them)


def _keys(
    connection: sqlite3.Connection, condition: Condition, after: int
) -> tuple[list[int], int | None]:
    """Keys of what may be meant, and after which to go on; None: nothing is left."""
    after = max(after, condition.first - 1)
    if condition.keys is not None:
        return _cut([key for key in condition.keys if key > after][:LOOK], LOOK)
    if condition.needle is None:
        return _cut(_walk(connection, condition, after, LOOK), LOOK)
    keys, then = _cut(_walk(connection, condition, after, SCAN), SCAN)
    if not keys:
        return [], None
    values = (keys[0], keys[-1], condition.needle, LOOK)
    rows: list[tuple[int]] = connection.execute(_NEEDLE, values).fetchall()
    hits = [key for (key,) in rows]
    return (hits, hits[-1]) if len(hits) == LOOK else (hits, then)


def _cut(keys: list[int], limit: int) -> tuple[list[int], int | None]:
    return keys, keys[-1] if len(keys) == limit else None


def _walk(
    connection: sqlite3.Connection, condition: Condition, after: int, limit: int
) -> list[int]:
    sources = {source for view in condition.views for source in _SOURCES[view]}
    walks = [_WALK % each for each in sorted(sources)]
    rows: list[tuple[int]] = connection.execute(
        " UNION ".join(walks) + " ORDER BY key LIMIT :limit",
        {"after": after, "end": condition.end, "limit": limit},
    ).fetchall()
    return [key for (key,) in rows]
