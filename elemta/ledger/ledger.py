"""What somebody remembers over restarts: rows in memory, written to a small SQLite file behind it.

The rules of this file:

- No hook waits for a disk: rows are read from memory, where all of them are, and changes are
  written some at a time by a thread. What the last second or two changed may be lost in a crash.
- It is bounded: a book has so many rows, and those that mean least are dropped for new ones.
- A file that cannot be read is put aside, and its owner begins anew: it knows guesses, and mail
  must not wait for them. One that must not be read or written is a mistake of whoever set up the
  machine, and keeps the server from starting. A full or dying disk is neither: all goes on in
  memory, and is written once that works again.

Each node has its own file. What is in it that node alone knows, but for the books that all nodes
have in common: those are kept by the first process (`elemta.ledger.exchange`).
"""

from __future__ import annotations

import math
from itertools import islice
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import msgspec
import trio

from elemta.ledger.file import File
from elemta.log import logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from pathlib import Path

    from elemta.ledger.books import Row
    from elemta.ledger.exchange import Exchange
    from elemta.ledger.file import Line

log = logger(__name__)

#: What the file is called, in its owner's folder.
FILE: Final = "ledger.sqlite"
#: Seconds between two batches, and at most between two when the disk fails.
EVERY: Final = 1.0
PATIENCE: Final = 60.0
#: Seconds between two looks for what means nothing any more, if there may be some; and at most.
PRUNING: Final = 60.0
SELDOM: Final = 3600.0
#: Rows that are written at a time.
BATCH: Final = 5000


T = TypeVar("T")


class Owner(Protocol):
    """Whose ledger it is, and what it works with: `elemta.plugins.Tools` is one."""

    @property
    def name(self) -> str:
        """For the log."""
        ...

    @property
    def folder(self) -> Path:
        """Where the file lies; it is there.

        Raises:
            OSError: it cannot be made.
        """
        ...

    @property
    def clock(self) -> Callable[[], float]:
        """Gives seconds since the epoch."""
        ...

    @property
    def exchange(self) -> Exchange | None:
        """With the other nodes of this server; None: there are none."""
        ...

    def in_thread(self, call: Callable[[], T], /) -> Awaitable[T]:
        """Run what blocks."""
        ...


class Pages(Protocol):
    """What a ledger knows of a book, whatever is in it.

    Attributes:
        changed: keys whose rows the disk does not know, or does not know to be gone.
        stir: called when there are some, after there were none; and when `most` is another.
    """

    changed: set[bytes]
    stir: Callable[[], None]

    @property
    def most(self) -> int:
        """How many rows it has at most."""
        ...

    def snapshot(self, keys: Iterable[bytes]) -> list[tuple[bytes, Row | None]]:
        """What is there of these keys just now."""
        ...

    def fill(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Take in what the disk has. What another version wrote is passed over."""
        ...

    def prune(self, now: float) -> float:
        """Drop what means nothing any more; returns when the next one does, infinity if none."""
        ...

    def resize(self, most: int) -> None:
        """Have another bound from now on."""
        ...

    def hear(self, key: bytes, told: bytes | None, now: float) -> None:
        """Have what another node made of a row that was not changed here.

        Args:
            key: of the row.
            told: it; None: it was dropped.
            now: what was dropped at this time because its own was over has expired.
        """
        ...

    def join(self, key: bytes, before: bytes | None, told: bytes | None) -> None:
        """Have both what another node and what we made of a row.

        Args:
            key: of the row.
            before: what it was before both.
            told: what it is there.
        """
        ...


B = TypeVar("B", bound=Pages)


class Ledger:
    """The books of one owner, and the file behind them.

    All entries of a plugin of one name have one, and so have those before and after a reload, which
    overlap::

        self._ledger = self.tools.shared.of(Ledger)
        await self._ledger.open(self.tools)  # in `start`
        self._seen = await self._ledger.book("seen", Book(Seen, 10_000))
        await self._ledger.run()  # in `run`
        await self._ledger.close()  # in `stop`, also if `start` has failed

    Args:
        encode: makes octets of a row.

    Attributes:
        failure: why changes cannot be written just now; empty: they can.
    """

    def __init__(self, encode: Callable[[Row], bytes] | None = None) -> None:
        self.failure = ""
        self._encode = msgspec.msgpack.Encoder().encode if encode is None else encode
        self._books: dict[str, Pages] = {}
        self._common: dict[str, Pages] = {}
        self._users = 0
        self._file: File | None = None
        self._tools: Owner | None = None
        self._turn = trio.Lock()
        self._stirred = trio.Event()

    async def open(self, tools: Owner) -> None:
        """Read the file, or make it.

        Args:
            tools: whose it is.

        Raises:
            OSError, sqlite3.Error: it must not be read or written, or somebody else has it.
        """
        async with self._turn:
            if not self._users:
                self._tools = tools
                file = File(tools.folder / FILE, tools.name, self._encode)
                now = tools.clock()
                self.failure = await tools.in_thread(lambda: file.open(now))
                if self.failure:
                    log.error("ledger.failed", plugin=tools.name, error=self.failure)
                self._file = file
            self._users += 1

    async def book(self, name: str, new: B, *, common: bool = False) -> B:
        """A book of this ledger.

        Args:
            name: which one.
            new: what it is if it is not there yet: the rows on disk are read into it. If it is
                there, it gets the bound of this one.
            common: of a server with several nodes all have it, and each knows within some
                milliseconds what the others put there.
        """
        known = self._books.get(name) or self._common.get(name)
        if known is not None and isinstance(known, type(new)):
            known.resize(new.most)
            return known
        assert self._file is not None, "`open` comes first"
        assert self._tools is not None
        exchange = self._tools.exchange
        if common and exchange is not None:
            self._common[name] = new
            await exchange.open(self._tools.folder, name, new)
            return new
        file, now = self._file, self._tools.clock()
        new.fill(await self._tools.in_thread(lambda: file.read(name, new.most, now)))
        self._books[name] = new
        new.stir = self._stir
        if new.changed:
            self._stir()
        return new

    async def run(self, also: Callable[[], None] | None = None) -> None:
        """Write what changes, and forget what means nothing any more; never returns.

        Args:
            also: called when something has changed, and a second is over.
        """
        tools = self._tools
        assert tools is not None, "`open` comes first"
        pause, prune_at = EVERY, tools.clock() + PRUNING
        while True:
            now = tools.clock()
            if not self._changed:
                # Who has nothing to do sleeps; but if the clock is set, that must be noticed.
                with trio.move_on_after(min(max(prune_at - now, 0.0), SELDOM)):
                    await self._stirred.wait()
            await trio.sleep(pause)  # what else changes meanwhile is written with it
            now = tools.clock()
            if now >= prune_at or prune_at > now + SELDOM:
                soonest = min((each.prune(now) for each in self._books.values()), default=math.inf)
                prune_at = min(max(soonest, now + PRUNING), now + SELDOM)
            elif self._changed:
                prune_at = min(prune_at, now + PRUNING)
            pause = EVERY if await self.write() else min(2 * pause, PATIENCE)
            if also is not None:
                also()

    @property
    def _changed(self) -> bool:
        return any(each.changed for each in self._books.values())

    def _stir(self) -> None:
        self._stirred.set()
        self._stirred = trio.Event()

    async def close(self) -> None:
        """Write what there is, and close the file; once nobody uses it. May come without `open`."""
        async with self._turn:
            if not self._users:
                return
            self._users -= 1
            file, tools = self._file, self._tools
            if self._users or file is None or tools is None:
                return
            while self._changed:
                if not await self.write():
                    break
            if tools.exchange is not None:
                await tools.exchange.close(self._common.values())
            self._common.clear()
            self._books.clear()
            self._file = self._tools = None
            await tools.in_thread(file.close)

    async def write(self) -> bool:
        """Write a batch now. Returns whether that went well."""
        file, tools = self._file, self._tools
        if file is None or tools is None:
            return True
        batch: list[Line] = []
        taken: list[tuple[Pages, list[bytes]]] = []
        for name, book in self._books.items():
            keys = list(islice(book.changed, BATCH - len(batch)))
            book.changed.difference_update(keys)
            taken.append((book, keys))
            batch += [(name, key, row) for key, row in book.snapshot(keys)]
        if not batch:
            return True
        now, failure = tools.clock(), "cancelled"
        try:
            failure = await tools.in_thread(lambda: file.write(batch, now))
        finally:
            if failure:  # whether it was written nobody knows: twice does no harm
                for book, keys in taken:
                    book.changed.update(keys)
        if failure and not self.failure:
            log.error("ledger.failed", plugin=tools.name, error=failure)
        elif self.failure and not failure:
            log.info("ledger.recovered", plugin=tools.name)
        self.failure = failure
        return not failure
