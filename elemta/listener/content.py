"""A message that is here whole, as plugins see it: in memory, or on the disk."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Final

import trio
from typing_extensions import override

from elemta.message import HeaderScanner
from elemta.plugins import TooLargeError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from elemta.listener.budget import Share
    from elemta.listener.reception import Incoming


#: Seconds to wait for memory: below what a plugin may take, who must be able to do without.
PATIENCE: Final = 5.0


class Arrived:
    """See `elemta.plugins.Content`.

    Args:
        header: of the message, all of it.
        size: octets that its client sent.
        pieces: these; none if they are on the disk.
        incoming: where they are then.
        before: octets of our own that stand before them there.
        share: what the message may take of the memory.
    """

    def __init__(
        self,
        header: HeaderScanner,
        size: int,
        pieces: Sequence[bytes],
        incoming: Incoming | None,
        before: int,
        share: Share,
    ) -> None:
        self.header = header
        self.size = size
        self._pieces = pieces
        self._incoming = incoming
        self._before = before
        self._share = share
        self._whole: bytes | None = None
        self._crowded = False
        self._reading = trio.Lock()

    async def read(self, most: int | None = None) -> bytes:
        """See `elemta.plugins.Content`."""
        if most is not None and self.size > most:
            raise TooLargeError(f"{self.size} octets are more than {most}")
        if self._whole is None and self._incoming is None:
            self._whole = self._joined()
        if self._whole is not None:
            return self._whole
        async with self._reading:  # those that inspect come side by side
            if self._whole is None:
                if not await self._room():
                    raise TooLargeError(f"no memory for {self.size} octets")
                self._whole = b"".join([piece async for piece in self.pieces()])
            return self._whole

    def _joined(self) -> bytes:
        """All of it, where that is in memory."""
        return b"".join(self._pieces)

    async def _room(self) -> bool:
        """Whether there is memory for all of it; who asks after that knows the answer at once."""
        if not self._crowded and not self._share.grow(self.size):
            self._crowded = True
            with trio.move_on_after(PATIENCE):
                self._crowded = not await self._share.wait(self.size)
        return not self._crowded

    async def pieces(self) -> AsyncGenerator[bytes]:
        """See `elemta.plugins.Content`."""
        if self._incoming is None:
            for piece in self._pieces:
                await trio.lowlevel.checkpoint()
                yield piece
            return
        async with aclosing(_behind(self._before, self._incoming.pieces())) as pieces:
            async for piece in pieces:
                yield piece


class Finished(Arrived):
    """The same as it will be stored: with another header, and what we have put above it.

    Args:
        head: all that stands before the empty line.
        whole: the message as its client sent it.
        before: octets of its header, which `head` stands in place of.
        share: what the message may take of the memory.
    """

    def __init__(self, head: bytes, whole: Arrived, before: int, share: Share) -> None:
        header = HeaderScanner(len(head) + 1, head.count(b"\n") + 1)
        header.feed(head + b"\r\n")
        size = whole.size + len(head) - before
        super().__init__(header, size, (), whole._incoming, 0, share)
        self._head = head
        self._rest = whole
        self._before = before

    @override
    def _joined(self) -> bytes:
        return self._head + self._rest._joined()[self._before :]

    @override
    async def pieces(self) -> AsyncGenerator[bytes]:
        """See `elemta.plugins.Content`."""
        yield self._head
        async with aclosing(_behind(self._before, self._rest.pieces())) as pieces:
            async for piece in pieces:
                yield piece


async def _behind(before: int, pieces: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """What is behind so many octets."""
    async with aclosing(pieces):
        async for piece in pieces:
            if before < len(piece):
                yield piece[before:]
            before = max(0, before - len(piece))
