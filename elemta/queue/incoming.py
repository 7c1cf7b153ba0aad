"""A message on its way in: in memory while it is small, in a file once it is not."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

import trio

from elemta.queue.bodies import TRIP
from elemta.queue.errors import StoreUnavailable
from elemta.queue.schema import INLINE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from types import TracebackType

    from elemta.queue.bodies import BodyFile, BodyFiles
    from elemta.queue.model import Envelope, MessageId

T = TypeVar("T")


class Takes(Protocol):
    """What `Incoming` needs of the queue."""

    bodies: BodyFiles

    async def accept(
        self,
        envelope: Envelope,
        content: bytes,
        id: MessageId | None = None,  # noqa: A002 # the word of people
        *,
        key: str = "",
        digest: bytes = b"",
    ) -> MessageId:
        """Take a small message."""
        ...

    async def accept_file(
        self,
        envelope: Envelope,
        id: MessageId,  # noqa: A002 # the word of people
        size: int,
        *,
        eight_bit: bool,
        key: str = "",
        digest: bytes = b"",
    ) -> MessageId:
        """Take a large message, whose body is in its file and synced."""
        ...

    async def in_thread(self, call: Callable[[], T]) -> T:
        """Run what blocks."""
        ...


class Incoming:
    """Takes the content of one message, piece by piece; an async context manager.

    Leaving it without `commit` leaves no trace.

    Attributes:
        id: what the message is called; known early, as it stands in its Received field.
        size: octets so far.
    """

    def __init__(self, queue: Takes, envelope: Envelope, id: MessageId) -> None:  # noqa: A002 # the word of people
        self._queue = queue
        self._envelope = envelope
        self.id = id
        self.size = 0
        self._pieces: list[bytes] = []
        self._gathered = 0
        self._eight_bit = False
        self._file: BodyFile | None = None
        self._broken = False
        self._kept = False
        self._settling = trio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        file, self._file = self._file, None
        if file is None:
            return
        file.close()
        if not self._kept:
            with trio.CancelScope(shield=True):  # as short as a disk is slow
                await self._queue.in_thread(partial(self._queue.bodies.remove, self.id))

    async def write(self, octets: bytes) -> None:
        """Append.

        Raises:
            StoreUnavailable: the disk is full or broken. Leave the block.
        """
        self._pieces.append(octets)
        self.size += len(octets)
        self._gathered += len(octets)
        if self._gathered > INLINE:
            await self._flush()

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """What was written so far, in pieces; may be asked again, and written to afterwards.

        Raises:
            StoreUnavailable: the disk is broken.
        """
        if self._file is None:
            for piece in self._pieces:
                await trio.lowlevel.checkpoint()
                yield piece
            return
        async with self._settling:  # several may come side by side
            if self._pieces:
                await self._flush()
        start = 0
        while start < self.size:
            piece = await self._on_disk(partial(self._file.read, start, TRIP))
            if not piece:
                raise StoreUnavailable("the body is shorter than what was written")
            yield piece
            start += len(piece)

    async def replace_head(self, size: int, head: bytes) -> None:
        """Put `head` in place of the first `size` octets.

        Raises:
            StoreUnavailable: the disk is full or broken. Leave the block.
        """
        self._eight_bit = self._eight_bit or not head.isascii()
        if self._file is None:
            content = head + b"".join(self._pieces)[size:]
            self._pieces, self._gathered = [content], len(content)
        else:
            await self._flush()
            await self._on_disk(partial(self._file.replace_head, size, head))
        self.size += len(head) - size

    async def _on_disk(self, call: Callable[[], T]) -> T:
        try:
            return await self._queue.in_thread(call)
        except OSError as error:
            self._broken = True
            raise StoreUnavailable(f"cannot read or write the body: {error}") from error

    async def _flush(self, *, last: bool = False) -> None:
        pieces, self._pieces, self._gathered = self._pieces, [], 0
        broken, self._broken = self._broken, True  # until it is known that it went well
        try:
            if broken:
                raise StoreUnavailable("part of the body could not be written")
            await self._queue.in_thread(partial(self._to_file, pieces, last=last))
        except OSError as error:
            raise StoreUnavailable(f"cannot write the body: {error}") from error
        self._broken = False

    def _to_file(self, pieces: list[bytes], *, last: bool) -> None:
        if self._file is None:
            self._file = self._queue.bodies.create(self.id)
        self._eight_bit = self._eight_bit or not all(piece.isascii() for piece in pieces)
        self._file.write(pieces)
        if last:
            self._file.sync()

    async def commit(
        self, envelope: Envelope | None = None, *, key: str = "", digest: bytes = b""
    ) -> MessageId:
        """Take responsibility for the message: it is durable when this returns.

        Args:
            envelope: in place of the one that `Queue.receive` was given.
            key: see `Queue.accept`.
            digest: see `Queue.accept`.

        Raises:
            KeyReusedError: see `Queue.accept`.
            StoreUnavailable: the disk is full or broken. Nothing is kept.
        """
        envelope = envelope or self._envelope
        if self._file is None and not self._broken:
            content = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
            return await self._queue.accept(envelope, content, self.id, key=key, digest=digest)
        await self._flush(last=True)
        taken = await self._queue.accept_file(
            envelope, self.id, self.size, eight_bit=self._eight_bit, key=key, digest=digest
        )
        self._kept = taken == self.id  # if not, it was handed in before: that body is there
        return taken
