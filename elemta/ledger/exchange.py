"""Books that all nodes of a server have in common: what one puts there, the others know at once.

Each node has all rows in memory, as of its own books, and asks nobody when it looks at one: a slow
or dead exchange delays no mail, and refuses none. What a node changes it tells the first process
(`elemta.ledger.keeper`), which numbers the changes, keeps them on disk and tells the others: within
`GATHERING` and the time of two writes to a socket.

The rules of this file:

- Nothing is counted twice, nor forgotten. A change says which one it rests on. If that is not the
  last one, it is refused, and the node makes it anew on top of what came between (`Pages.join`).
- So what two nodes do in the same milliseconds counts for both, though neither has known of the
  other: a limit may be exceeded by that, once.
- Who was cut off, or starts, is told all rows there are; what it has changed meanwhile is joined.
- Of a book one batch at a time is on its way. What is changed meanwhile is gathered, and so bounded
  by what the book holds, however slow others are.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec
import trio
from msgspec import Struct

from elemta.log import logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator
    from pathlib import Path

    from elemta.ledger.ledger import Pages

log = logger(__name__)

#: Seconds in which changes are gathered before they are told.
GATHERING: Final = 0.005
#: Seconds until somebody who was cut off tries again.
PAUSE: Final = 0.5
#: Seconds that a node waits for what others know before it starts without: once, however many books
#: it has. Until it runs, clients wait at the door, and it does not see that the server has ended.
JOINING: Final = 10.0
#: Seconds for what a node has still to tell when it ends.
FAREWELL: Final = 2.0
#: Rows of one frame.
ROWS: Final = 1000
#: Octets of one frame at most: rows are small, but nobody promises that.
LARGEST: Final = 2**28
#: In place of a number: the change rests on what is not the last one.
REFUSED: Final = -1
_PIECE: Final = 2**18


class Open(Struct, array_like=True, tag=True):
    """A node wants to have a book, which it calls by a number from then on.

    Attributes:
        ledger: the folder that it lies in, below the server's `data_dir`.
        most: how many rows it has.
    """

    book: int
    ledger: str
    name: str
    most: int


class Close(Struct, array_like=True, tag=True):
    """It wants it no more."""

    book: int


class Resize(Struct, array_like=True, tag=True):
    """It has another bound, by a changed configuration."""

    book: int
    most: int


class Put(Struct, array_like=True, tag=True):
    """It has changed rows.

    Attributes:
        rows: of each the key, the number of the change that this one rests on, and the row; None:
            it has dropped it. 0: there was no row.
    """

    book: int
    rows: list[tuple[bytes, int, bytes | None]]


class Told(Struct, array_like=True):
    """What a node hears of a book.

    Attributes:
        answers: to what it has put, the number of each change (of a dropped row 0), or `REFUSED`.
            Where there are some, they come before the rows.
        rows: as they are by now: key, number and row; None: there is none.
        whole: it has been told of all rows by now.
    """

    book: int
    answers: list[int]
    rows: list[tuple[bytes, int, bytes | None]]
    whole: bool


Said: TypeAlias = Open | Close | Resize | Put

_encode: Final = msgspec.msgpack.Encoder().encode
_told: Final = msgspec.msgpack.Decoder(Told)


class GarbledError(Exception):
    """What the other side says makes no sense."""


def frame(said: Said | Told) -> bytes:
    """As it goes over the wire: its length, in four octets, and it."""
    octets = _encode(said)
    return len(octets).to_bytes(4) + octets


class Frames:
    """Cuts a stream into frames."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._buffer = bytearray()

    async def next(self) -> bytes | None:
        """The next one; None: there is none any more.

        Raises:
            GarbledError: it is too large.
            trio.BrokenResourceError: as the stream says.
        """
        octets = await self._exactly(4)
        if octets is None:
            return None
        length = int.from_bytes(octets)
        if length > LARGEST:
            raise GarbledError(f"a frame of {length} octets")
        return await self._exactly(length)

    async def _exactly(self, length: int) -> bytes | None:
        buffer = self._buffer
        while len(buffer) < length:
            octets = await self._stream.receive_some(_PIECE)
            if not octets:
                return None
            buffer += octets
        found = bytes(buffer[:length])
        del buffer[:length]
        return found


class _Held:
    """One book, and what the first process knows of it."""

    def __init__(self, number: int, ledger: str, name: str, pages: Pages) -> None:
        self.number = number
        self.ledger = ledger
        self.name = name
        self.pages = pages
        self.known: dict[bytes, tuple[int, bytes]] = {}
        #: On its way, as it was sent.
        self.flying: dict[bytes, bytes | None] = {}
        self.opened = False
        #: How many rows we have told that it has.
        self.most = 0
        #: Rows of which nothing was heard since we were cut off.
        self.unheard: set[bytes] = set()
        self.whole = trio.Event()

    def cut_off(self) -> None:
        """Whoever knew what we have sent is gone."""
        self.opened = False
        self.unheard = set(self.known)
        if self.whole.is_set():
            self.whole = trio.Event()

    def news(self) -> Iterator[Said]:
        """What is to be told now."""
        most = self.pages.most
        if not self.opened:
            self.opened = True
            yield Open(self.number, self.ledger, self.name, most)
        elif most != self.most:  # before rows that there is room for by now
            yield Resize(self.number, most)
        self.most = most
        if (put := self.batch()) is not None:
            yield put

    def batch(self) -> Put | None:
        """What has changed; None: nothing, or it has to wait."""
        pages = self.pages
        if self.flying or not pages.changed or not self.whole.is_set():
            return None
        rows: list[tuple[bytes, int, bytes | None]] = []
        while pages.changed and len(rows) < ROWS:
            key = pages.changed.pop()
            ((_, row),) = pages.snapshot((key,))
            octets = None if row is None else _encode(row)
            number, before = self.known.get(key, (0, None))
            if octets != before:
                rows.append((key, number, octets))
                self.flying[key] = octets
        return Put(self.number, rows) if rows else None

    def take(self, told: Told, now: float) -> None:
        for (key, sent), answer in zip(self.flying.items(), told.answers, strict=False):
            if answer == REFUSED:
                self.pages.changed.add(key)
            elif sent is None:
                self.known.pop(key, None)
            else:
                self.known[key] = answer, sent
        if told.answers:
            self.flying = {}
        for key, number, octets in told.rows:
            self._hear(key, number, octets, now)
        if told.whole and not self.whole.is_set():
            for key in tuple(self.unheard):
                self._hear(key, 0, None, now)
            self.unheard.clear()
            # Of what was on its way when we were cut off: whether it came is known by now.
            self.pages.changed.update(self.flying)
            self.flying = {}
            self.whole.set()

    def _hear(self, key: bytes, number: int, octets: bytes | None, now: float) -> None:
        self.unheard.discard(key)
        known, before = self.known.get(key, (0, None))
        if number == known and octets == before:
            return
        if octets is None:
            self.known.pop(key, None)
        else:
            self.known[key] = number, octets
        if key in self.flying and not self.whole.is_set() and self.flying[key] == octets:
            before = octets  # it came, though nobody could tell us
        if key in self.flying or key in self.pages.changed:
            self.pages.join(key, before, octets)
        else:
            self.pages.hear(key, octets, now)


class Exchange:
    """What a node has in common with the others of its server.

    Args:
        connect: to the first process. Raises OSError.
        folder: of this node's data.
        clock: seconds since the epoch.
        counts: whether this is the node that counts what has expired, which all hear of.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[trio.abc.Stream]],
        folder: Path,
        clock: Callable[[], float],
        *,
        counts: bool = True,
    ) -> None:
        self._connect = connect
        self._folder = folder
        self._clock = clock
        self._counts = counts
        self._books: dict[int, _Held] = {}
        self._gone: list[int] = []
        self._number = 0
        self._news = trio.Event()
        self._heard = trio.Event()
        self._connected = False
        self._silent = False  # what was asked for did not come, nor anything since

    async def open(self, folder: Path, name: str, pages: Pages) -> None:
        """Have a book in common; the rows that there are come into it.

        It is waited for those so long as `JOINING` says, and not at all if others have just not
        come. They come later if the first process is so slow; what was put there until then is
        joined with them.

        Args:
            folder: of whoever it belongs to, in this node's.
            name: which one of his.
            pages: it, and empty.
        """
        self._number += 1
        ledger = folder.relative_to(self._folder).as_posix()
        common = self._books[self._number] = _Held(self._number, ledger, name, pages)
        pages.stir = self._stir
        self._stir()
        with trio.move_on_after(0 if self._silent else JOINING) as waiting:
            await common.whole.wait()
        if waiting.cancelled_caught:
            self._silent = True
            log.error("exchange.late", ledger=ledger, book=name)

    async def close(self, several: Iterable[Pages]) -> None:
        """Have them no more, once others know what is in them, or will not hear it."""
        several = list(several)
        mine = [each for each in self._books.values() if each.pages in several]
        try:
            with trio.move_on_after(FAREWELL):
                while self._connected and any(each.flying or each.pages.changed for each in mine):
                    await self._heard.wait()
        finally:
            for each in mine:
                del self._books[each.number]
                if each.opened:
                    self._gone.append(each.number)
            self._stir()

    async def run(self) -> None:
        """Tell and hear, until cancelled."""
        while True:
            try:
                async with await self._connect() as stream:
                    self._connected = True
                    problem = await self._talk(stream)
            except OSError as error:
                problem = str(error)
            finally:
                self._connected = False
                self._heard.set()
                self._gone.clear()
                for each in self._books.values():
                    each.cut_off()
            log.warning("exchange.cut_off", error=problem)
            await trio.sleep(PAUSE)

    async def _talk(self, stream: trio.abc.Stream) -> str:
        """Returns why no more is said."""
        problem = "the first process has hung up"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tell, stream, nursery.cancel_scope)
            try:
                await self._hear(Frames(stream))
            except (trio.BrokenResourceError, msgspec.DecodeError, GarbledError) as error:
                problem = str(error)
            nursery.cancel_scope.cancel()
        return problem

    async def _hear(self, frames: Frames) -> None:
        while (octets := await frames.next()) is not None:
            told = _told.decode(octets)
            self._silent = False
            if (common := self._books.get(told.book)) is not None:
                common.take(told, self._clock() if self._counts else -math.inf)
                if common.pages.changed:
                    self._stir()
                self._heard.set()
                self._heard = trio.Event()

    async def _tell(self, stream: trio.abc.SendStream, scope: trio.CancelScope) -> None:
        try:
            while True:
                said: list[Said] = [Close(number) for number in self._gone]
                self._gone.clear()
                self._news = trio.Event()
                for each in self._books.values():
                    said += each.news()
                if said:
                    await stream.send_all(b"".join(map(frame, said)))
                await self._news.wait()
                await trio.sleep(GATHERING)
        except trio.BrokenResourceError:
            scope.cancel()

    def _stir(self) -> None:
        self._news.set()
