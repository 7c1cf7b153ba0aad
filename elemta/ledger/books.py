"""What a plugin remembers, in memory: rows by key, each with a time when it means nothing any more.

A book has so many rows at most, and those go first whose time would be over first. What has changed
is noted for whoever writes it down (`elemta.ledger`).
"""

from __future__ import annotations

import math
from contextlib import suppress
from hashlib import blake2b
from itertools import islice
from typing import TYPE_CHECKING, Final, Generic, TypeAlias, TypeVar

import msgspec
from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

#: Octets of a key that is kept as it is; of a longer one a hash is.
LONGEST: Final = 40


class Row(Struct, array_like=True):
    """Base of what a book has of one key.

    Attributes:
        until: when it means nothing any more, seconds since the epoch. Of too many rows those go
            first that would go first anyway.
    """

    until: float


R = TypeVar("R", bound=Row)
#: What a row is that two nodes have changed at once: told what it was before (None: it was not
#: there), what it is here, and what it is there.
Joins: TypeAlias = "Callable[[R | None, R, R], R]"


def short(*words: str) -> bytes:
    """A key of bounded length: a client can choose names as long as it likes."""
    key = "\n".join(words).encode("utf-8", "surrogatepass")
    return key if len(key) <= LONGEST else blake2b(key, digest_size=16).digest()


def _nothing() -> None:
    """Nobody wants to know."""


def _longer(before: R | None, here: R, there: R) -> R:
    """Of two rows the one that means something for longer."""
    return here if here.until >= there.until else there


class Book(Generic[R]):
    """Rows by key, of one kind. Belongs to the loop.

    Args:
        kind: of rows.
        most: how many there may be.
        joined: what becomes of a row that two nodes have changed at once, if they have the book in
            common; None: the one holds that means something for longer.

    Attributes:
        changed, stir: see `Pages`.
        rows: all of them; to be read only.
        crowded: how many were dropped to make room for others.
    """

    def __init__(self, kind: type[R], most: int, joined: Joins[R] | None = None) -> None:
        self.changed: set[bytes] = set()
        self.stir: Callable[[], None] = _nothing
        self.rows: dict[bytes, R] = {}
        self.crowded = 0
        self._most = most
        self._decoder = msgspec.msgpack.Decoder(kind)
        self._joined: Joins[R] = _longer if joined is None else joined

    def get(self, key: bytes) -> R | None:
        """What is known."""
        return self.rows.get(key)

    def put(self, key: bytes, row: R) -> None:
        """A new row, or one that has changed. What is in it is never changed in place."""
        self._set(key, row)
        self._change(key)

    def _set(self, key: bytes, row: R) -> None:
        before = self.rows.get(key)
        if before is None:
            if len(self.rows) >= self._most:
                self._make_room()
            self.entered(row)
        elif before is not row:
            self.left(before)
            self.entered(row)
        self.rows[key] = row

    def drop(self, key: bytes) -> None:
        """A row that means nothing any more; it need not be there."""
        if self._remove(key) is not None:
            self._change(key)

    def _remove(self, key: bytes) -> R | None:
        row = self.rows.pop(key, None)
        if row is not None:
            self.left(row)
        return row

    def entered(self, row: R) -> None:
        """For books that keep count of what is in them: a row came."""

    def left(self, row: R) -> None:
        """See `entered`: it went, for whatever reason."""

    def expired(self, row: R) -> None:
        """For books that want to know: a row's time was over."""

    def _change(self, key: bytes) -> None:
        changed = self.changed
        if not changed:
            self.stir()
        changed.add(key)
        if len(changed) > 2 * self._most:
            # The disk fails, or is slow. What it has too much goes when its time is over.
            changed.intersection_update(self.rows)

    def _make_room(self) -> None:
        """Drop those that would go first: about a sixteenth, so that it is seldom done.

        Some 10 ms for 100,000 rows; sorting them all would take ten times as long.
        """
        rows = self.rows
        step = max(1, len(rows) // 1000)
        sample = sorted(row.until for row in islice(rows.values(), 0, None, step))
        edge = sample[len(sample) // 16]
        going = (key for key, row in rows.items() if row.until <= edge)
        for key in list(islice(going, max(1, len(rows) // 8))):
            self.drop(key)
            self.crowded += 1

    # For the ledger.

    @property
    def most(self) -> int:
        """See `Pages`."""
        return self._most

    def snapshot(self, keys: Iterable[bytes]) -> list[tuple[bytes, Row | None]]:
        """See `Pages`."""
        return [(key, self.rows.get(key)) for key in keys]

    def fill(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """See `Pages`."""
        for key, octets in rows:
            with suppress(msgspec.DecodeError):
                row = self.rows[key] = self._decoder.decode(octets)
                self.entered(row)

    def hear(self, key: bytes, told: bytes | None, now: float) -> None:
        """See `Pages`."""
        if told is not None:
            with suppress(msgspec.DecodeError):
                self._set(key, self._decoder.decode(told))
            return
        row = self._remove(key)
        if row is not None and row.until <= now:
            self.expired(row)

    def join(self, key: bytes, before: bytes | None, told: bytes | None) -> None:
        """See `Pages`."""
        if told is None:
            return  # dropped there, but changed here since: it is needed
        here = self.rows.get(key)
        with suppress(msgspec.DecodeError):
            there = self._decoder.decode(told)
            if here is not None:
                was = None if before is None else self._decoder.decode(before)
                there = self._joined(was, here, there)
            self._set(key, there)

    def prune(self, now: float) -> float:
        """See `Pages`."""
        over = [(key, row) for key, row in self.rows.items() if row.until <= now]
        for key, row in over:
            self.drop(key)
            self.expired(row)
        return min((row.until for row in self.rows.values()), default=math.inf)

    def resize(self, most: int) -> None:
        """See `Pages`."""
        if most == self._most:
            return
        self._most = most
        self.stir()  # others have to know, if they have it in common
        while len(self.rows) > most:
            self._make_room()
