"""Keeps the books that all nodes have in common, in the first process.

See `elemta.ledger.exchange`. It knows nothing of what is in a row but when that means nothing any
more. Their files lie where a server with one node has its own, so that nothing is forgotten when
`nodes` changes.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import count, islice
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import msgspec
import trio
from typing_extensions import override

from elemta.ledger.books import Book, Row
from elemta.ledger.exchange import (
    REFUSED,
    ROWS,
    Close,
    Frames,
    GarbledError,
    Open,
    Put,
    Resize,
    Said,
    Told,
    frame,
)
from elemta.ledger.ledger import Ledger
from elemta.log import logger

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
    from pathlib import Path

log = logger(__name__)

T = TypeVar("T")

#: Seconds in which what is known must be written at the end.
FAREWELL: Final = 5.0
#: Changes that a node has not heard of, beside two for each row of a book, before it is cut off:
#: it hangs, and rows that come and go meanwhile must not fill our memory. If it turns again, it is
#: told all rows there are.
PATIENCE: Final = 10_000

# What msgspec declares knows no unions: the annotation says what it makes of them.
_said: Final[msgspec.msgpack.Decoder[Said]] = msgspec.msgpack.Decoder(Open | Close | Resize | Put)
_row: Final = msgspec.msgpack.Decoder(Row)


class _Kept(Row):
    """A row as nodes have it.

    Attributes:
        number: of the change that made it.
        octets: it.
    """

    number: int
    octets: bytes


def _octets(row: Row) -> bytes:
    assert isinstance(row, _Kept), "there are no others"
    return row.octets


class _Shelf(Book[_Kept]):
    """A book, and who is to be told of it."""

    def __init__(self, most: int, numbers: count[int]) -> None:
        super().__init__(_Kept, most)
        self.readers: set[_Reader] = set()
        self._numbers = numbers

    @override
    def fill(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        for key, octets in rows:
            with suppress(msgspec.DecodeError):
                self.rows[key] = self._kept(octets)

    def answer(self, key: bytes, number: int, octets: bytes | None) -> int:
        """A node has changed a row. Returns the number of that; `REFUSED`: it was another by then.

        Raises:
            msgspec.DecodeError: it is no row.
        """
        before = self.rows.get(key)
        if number != (0 if before is None else before.number):
            return REFUSED
        if octets is None:
            self.drop(key)
            return 0
        kept = self._kept(octets)
        self.put(key, kept)
        return kept.number

    def _kept(self, octets: bytes) -> _Kept:
        return _Kept(_row.decode(octets).until, next(self._numbers), octets)

    @override
    def _change(self, key: bytes) -> None:
        super()._change(key)
        for each in self.readers:
            each.untold.add(key)
            each.news.stir()
            if len(each.untold) > 2 * self._most + PATIENCE:
                each.news.give_up()


class _Reader:
    """A node that has a book open."""

    def __init__(self, book: int, shelf: _Shelf, news: _News) -> None:
        self.book = book
        self.shelf = shelf
        self.news = news
        self.answers: list[int] = []
        self.untold = set(shelf.rows)
        self.whole = False
        shelf.readers.add(self)

    def put(self, rows: Iterable[tuple[bytes, int, bytes | None]]) -> None:
        for key, number, octets in rows:
            answer = self.shelf.answer(key, number, octets)
            self.answers.append(answer)
            if answer == REFUSED:
                self.untold.add(key)
            else:
                self.untold.discard(key)  # who has made it knows it
        self.news.stir()

    def tell(self) -> Told | None:
        """What there is to be told; None: nothing."""
        if self.whole and not self.answers and not self.untold:
            return None
        keys = list(islice(self.untold, ROWS))
        self.untold.difference_update(keys)
        rows: list[tuple[bytes, int, bytes | None]] = []
        for key in keys:
            kept = self.shelf.rows.get(key)
            rows.append((key, 0, None) if kept is None else (key, kept.number, kept.octets))
        answers, self.answers = self.answers, []
        whole = not self.whole and not self.untold
        self.whole = self.whole or whole
        return Told(self.book, answers, rows, whole)


class InThread(Protocol):
    """Runs what blocks."""

    def __call__(self, call: Callable[[], T], /) -> Awaitable[T]:
        """Run it."""
        ...


async def in_thread(call: Callable[[], T], /) -> T:
    """See `InThread`."""
    return await trio.to_thread.run_sync(call)


class _Owner:
    """See `elemta.ledger.ledger.Owner`."""

    name = "exchange"
    exchange = None

    def __init__(self, folder: Path, clock: Callable[[], float], in_thread: InThread) -> None:
        self.folder = folder
        self.clock = clock
        self.in_thread = in_thread


class Keeper:
    """All books that nodes have in common.

    Args:
        data_dir: of the server.
        clock: seconds since the epoch.
        in_thread: runs what blocks.
    """

    def __init__(
        self, data_dir: Path, clock: Callable[[], float], in_thread: InThread = in_thread
    ) -> None:
        self._data_dir = data_dir
        self._clock = clock
        self._in_thread = in_thread
        self._numbers = count(1)
        self._ledgers: dict[str, Ledger] = {}
        self._opening = trio.Lock()

    @asynccontextmanager
    async def living(self) -> AsyncGenerator[None]:
        """As long as this is entered `serve` may be called; what is known is written at the end."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                yield
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + FAREWELL):
                for each in self._ledgers.values():
                    await each.close()
            self._ledgers.clear()

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Serve one node, until it hangs up."""
        readers: dict[int, _Reader] = {}
        try:
            async with stream, trio.open_nursery() as nursery:
                news = _News(nursery.cancel_scope)
                nursery.start_soon(_tell, stream, readers, news, nursery.cancel_scope)
                try:
                    await self._hear(Frames(stream), readers, news)
                except (trio.BrokenResourceError, msgspec.DecodeError, GarbledError) as error:
                    log.warning("exchange.cut_off", error=str(error))
                nursery.cancel_scope.cancel()
        finally:
            for each in readers.values():
                each.shelf.readers.discard(each)

    async def _hear(self, frames: Frames, readers: dict[int, _Reader], news: _News) -> None:
        while (octets := await frames.next()) is not None:
            match _said.decode(octets):
                case Open(book, ledger, name, most):
                    shelf = await self._open(ledger, name, most)
                    readers[book] = _Reader(book, shelf, news)
                    news.stir()
                case Close(book):
                    if (reader := readers.pop(book, None)) is not None:
                        reader.shelf.readers.discard(reader)
                case Resize(book, most):
                    if (reader := readers.get(book)) is not None:
                        reader.shelf.resize(most)
                case Put(book, rows):
                    if (reader := readers.get(book)) is not None:
                        reader.put(rows)

    async def _open(self, folder: str, name: str, most: int) -> _Shelf:
        if ".." in folder.split("/") or folder.startswith("/"):
            raise GarbledError(f"a ledger in {folder}")
        async with self._opening:
            ledger = self._ledgers.get(folder)
            if ledger is None:
                path = self._data_dir / folder
                make = partial(path.mkdir, mode=0o700, parents=True, exist_ok=True)
                await self._in_thread(make)
                ledger = Ledger(_octets)
                await ledger.open(_Owner(path, self._clock, self._in_thread))
                self._ledgers[folder] = ledger
                self._nursery.start_soon(ledger.run)
            return await ledger.book(name, _Shelf(most, self._numbers))


class _News:
    """Whether a node is to be told anything.

    Args:
        scope: of all that goes on with it.
    """

    def __init__(self, scope: trio.CancelScope) -> None:
        self.event = trio.Event()
        self._scope = scope

    def stir(self) -> None:
        self.event.set()

    def give_up(self) -> None:
        """Cut it off."""
        if not self._scope.cancel_called:
            log.warning("exchange.cut_off", error="the node does not hear what it is told")
            self._scope.cancel()


async def _tell(
    stream: trio.abc.SendStream,
    readers: dict[int, _Reader],
    news: _News,
    scope: trio.CancelScope,
) -> None:
    try:
        while True:
            told = [found for each in readers.values() if (found := each.tell()) is not None]
            if told:
                await stream.send_all(b"".join(map(frame, told)))
                continue
            news.event = trio.Event()
            await news.event.wait()
    except trio.BrokenResourceError:
        scope.cancel()
