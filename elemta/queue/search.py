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

#: Where the keys of what may be in a view are found: for each, an index is walked in its order.
_WALK: Final = "SELECT key FROM %s AND key > :after AND key < :end"
_SOURCES: Final = {
    View.ACTIVE: (
        "message WHERE phase = 0",
        "recipient WHERE state = 'ready'",
        "recipient WHERE state = 'deferred' AND due <= :now",
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
        keys = _keys(connection, condition, after)
        found = read_messages(connection, keys)
    finally:
        connection.execute("COMMIT")
    hits = [
        Hit(each.key, each.message, recipients)
        for each in found
        if (recipients := condition.selects(each.message, each.key))
    ]
    return Page(hits, keys[-1] if len(keys) == LOOK else None)


def _keys(connection: sqlite3.Connection, condition: Condition, after: int) -> list[int]:
    after = max(after, condition.first - 1)
    if condition.keys is not None:
        return [key for key in condition.keys if key > after][:LOOK]
    sources = {source for view in condition.views for source in _SOURCES[view]}
    walks = [_WALK % each for each in sorted(sources)]
    rows: list[tuple[int]] = connection.execute(
        " UNION ".join(walks) + " ORDER BY key LIMIT :limit",
        {"after": after, "end": condition.end, "now": condition.now, "limit": LOOK},
    ).fetchall()
    return [key for (key,) in rows]
