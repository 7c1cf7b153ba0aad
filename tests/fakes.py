"""Stand-ins with state, for what a test is not about."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio
from msgspec import Struct

from elemta.queue import Envelope, KeyReusedError, Receipt, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from elemta.queue import MessageId


class Kept(Struct, frozen=True):
    """A message that the queue has answered for."""

    id: str
    envelope: Envelope
    content: bytes


class FakeIncoming:
    """A large message on its way into a `FakeQueue`."""

    def __init__(self, queue: FakeQueue, envelope: Envelope, id: str) -> None:  # noqa: A002 # the word of people
        self._queue = queue
        self._envelope = envelope
        self._id = id
        self._content = b""

    @property
    def size(self) -> int:
        return len(self._content)

    async def write(self, octets: bytes, /) -> None:
        await trio.lowlevel.checkpoint()
        self._queue.fail_if_broken()
        self._content += octets
        self._queue.largest_write = max(self._queue.largest_write, len(octets))

    async def pieces(self) -> AsyncGenerator[bytes]:
        for start in range(0, len(self._content), 1000):
            await trio.lowlevel.checkpoint()
            self._queue.fail_if_broken()
            yield self._content[start : start + 1000]

    async def replace_head(self, size: int, head: bytes, /) -> None:
        await trio.lowlevel.checkpoint()
        self._queue.fail_if_broken()
        self._content = head + self._content[size:]

    async def commit(
        self, envelope: Envelope | None = None, /, *, key: str = "", digest: bytes = b""
    ) -> MessageId:
        return await self._queue.accept(
            envelope or self._envelope, self._content, self._id, key=key, digest=digest
        )


class FakeQueue:
    """A queue in memory.

    Attributes:
        kept: what it has answered for, in order.
        open: large messages on their way in.
        streamed: how many large messages there were.
        full: whether the disk reserve is reached.
        broken: whether every write fails.
        slow: if set, `accept` waits for it.
        receipts: what came with a key, by key.
    """

    def __init__(self) -> None:
        self.kept: list[Kept] = []
        self.open = 0
        self.streamed = 0
        self.largest_write = 0
        self.healthy = True
        self.full = False
        self.broken = False
        self.slow: trio.Event | None = None
        self.receipts: dict[str, Receipt] = {}
        self._ids = 0

    def room(self) -> bool:
        return not self.full

    def new_id(self) -> MessageId:
        self._ids += 1
        return f"Q{self._ids}"

    def fail_if_broken(self) -> None:
        if self.broken:
            raise StoreUnavailable("the disk is on fire")

    async def accept(
        self,
        envelope: Envelope,
        content: bytes,
        id: MessageId,  # noqa: A002 # the word of people
        /,
        *,
        key: str = "",
        digest: bytes = b"",
    ) -> MessageId:
        await trio.lowlevel.checkpoint()
        if self.slow is not None:
            await self.slow.wait()
        self.fail_if_broken()
        if key:
            receipt = self.receipts.setdefault(key, Receipt(key, id, digest, 0.0))
            if receipt.digest != digest:
                raise KeyReusedError(f"the key was used for {receipt.id}")
            if receipt.id != id:
                return receipt.id
        self.kept.append(Kept(id, envelope, content))
        return id

    async def known(self, key: str, /) -> Receipt | None:
        await trio.lowlevel.checkpoint()
        self.fail_if_broken()
        return self.receipts.get(key)

    @asynccontextmanager
    async def receive(
        self,
        envelope: Envelope,
        *,
        id: MessageId | None = None,  # noqa: A002 # the word of people
    ) -> AsyncGenerator[FakeIncoming]:
        self.open += 1
        self.streamed += 1
        try:
            yield FakeIncoming(self, envelope, id or self.new_id())
        finally:
            self.open -= 1
