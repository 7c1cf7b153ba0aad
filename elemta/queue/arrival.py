"""How mail comes in: an envelope becomes a message, a durable one, and stands where it belongs.

Who hands something in and does not hear the answer hands it in again. With a key, that is one
message: the key is written in the transaction of the message, and whoever comes with it later gets
the answer of the first time. Those who come with the same key at the same time take turns.
"""

from __future__ import annotations

import sqlite3
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

import trio

from elemta.queue import events as happened
from elemta.queue.change import Insert
from elemta.queue.entry import Entry
from elemta.queue.errors import KeyReusedError, StoreUnavailable
from elemta.queue.model import Message, Receipt, Recipient, State
from elemta.queue.schema import Phase

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from elemta.queue.events import EventBus
    from elemta.queue.model import Addressee, Envelope, MessageId, Note
    from elemta.queue.reader import StoreReader
    from elemta.queue.residence import Residence
    from elemta.queue.retry import Patience
    from elemta.queue.writer import Writer

T = TypeVar("T")


class Serves(Protocol):
    """What `Arrivals` needs of the queue."""

    @property
    def events(self) -> EventBus:
        """What happens, live."""
        ...

    @property
    def new_id(self) -> Callable[[], MessageId]:
        """Gives ids."""
        ...

    @property
    def patience(self) -> Patience:
        """How long mail is tried, by the policy of this moment."""
        ...

    async def in_thread(self, call: Callable[[], T], *, abandonable: bool = False) -> T:
        """Run what blocks."""
        ...


class Arrivals:
    """Takes mail in.

    Args:
        queue: whose mail it becomes.
    """

    def __init__(
        self,
        queue: Serves,
        reader: StoreReader,
        writer: Writer,
        residence: Residence,
        clock: Callable[[], float],
    ) -> None:
        self._queue = queue
        self._reader = reader
        self._writer = writer
        self._residence = residence
        self._clock = clock
        self._turns: dict[str, trio.Lock] = {}

    def message(
        self,
        envelope: Envelope,
        id: MessageId | None,  # noqa: A002 # the word of people
        size: int,
        *,
        eight_bit: bool,
    ) -> Message:
        """What an envelope becomes, now."""
        now = self._clock()
        due = envelope.due if envelope.due is not None and envelope.due > now else None
        recipients = [
            _recipient(envelope, number, each, now, due)
            for number, each in enumerate(envelope.recipients)
        ]
        return Message(
            id=id or self._queue.new_id(),
            sender=envelope.sender,
            params=envelope.params,
            recipients=recipients,
            received_at=now,
            expires_at=(due or now) + self._lifetime(envelope),
            size=size,
            eight_bit=eight_bit,
            hops=envelope.hops,
            priority=envelope.priority,
            origin=envelope.origin,
            tags=envelope.tags,
            due=due,
        )

    def _lifetime(self, envelope: Envelope) -> float:
        """How long the last of its recipients is tried, by the policy of this moment."""
        lifetime, sender = self._queue.patience.lifetime, envelope.sender
        return max([lifetime(sender, each) for each in envelope.recipients], default=0.0)

    async def take_in(
        self,
        message: Message,
        content: bytes | None,
        key: str = "",
        digest: bytes = b"",
        *,
        notes: Sequence[Note] = (),
    ) -> MessageId:
        """Make a message durable; returns its id, or that of the one that came first with its key.

        Args:
            message: from `message`.
            content: its body; None if that is in its file, and synced.
            key: see `Queue.accept`.
            digest: see `Queue.accept`.
            notes: the first of its timeline.

        Raises:
            KeyReusedError: see `Queue.accept`.
            StoreUnavailable: the disk. Nothing is kept.
        """
        if not key:
            await self._insert(self.insert_of(message, content, notes=notes))
            return message.id
        async with self._turn(key):
            known = await self.known(key)
            if known is None:
                receipt = Receipt(key, message.id, digest, message.received_at)
                await self._insert(self.insert_of(message, content, receipt, notes))
                return message.id
        if known.digest != digest:
            raise KeyReusedError(f"the key was used for another message, {known.id}")
        return known.id

    async def known(self, key: str) -> Receipt | None:
        """See `Queue.known`."""
        try:
            return await self._queue.in_thread(partial(self._reader.receipt, key), abandonable=True)
        except sqlite3.Error as error:
            raise StoreUnavailable(f"cannot read the queue: {error}") from error

    @asynccontextmanager
    async def _turn(self, key: str) -> AsyncGenerator[None]:
        """One at a time for each key."""
        lock = self._turns.setdefault(key, trio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.locked():  # nobody has it, so nobody waits for it
                self._turns.pop(key, None)

    async def _insert(self, insert: Insert) -> None:
        self._writer.submit(insert)
        await insert.wait()

    def insert_of(
        self,
        message: Message,
        content: bytes | None,
        receipt: Receipt | None = None,
        notes: Sequence[Note] = (),
    ) -> Insert:
        """What writes a message, and lets it stand where it belongs once it is durable."""
        whole = all(each.state is State.READY for each in message.recipients)
        entry = Entry(message, Phase.WHOLE if whole else Phase.SCATTERED)
        return Insert(entry, content, self._queued, receipt, notes)

    def _queued(self, insert: Insert) -> None:
        """A message is durable. It is tried at once, unless much is waiting before it."""
        message, now, events = insert.entry.message, self._clock(), self._queue.events
        events.publish(
            happened.Queued(
                events.next(),
                now,
                message.id,
                message.sender,
                tuple([each.address for each in message.recipients]),
                message.size,
            )
        )
        if insert.entry.phase is Phase.WHOLE:
            self._residence.admit(insert, now)
            return
        self._residence.put_off(insert.entry)
        for each in message.recipients:
            if each.holder is not None:
                by = (each.holder.owner, each.holder.reason)
                events.publish(happened.Held(events.next(), now, message.id, each.address, *by))


def _recipient(
    envelope: Envelope, number: int, addressee: Addressee, now: float, due: float | None
) -> Recipient:
    state = State.READY if due is None else State.DEFERRED
    holder = envelope.holder or addressee.holder
    return Recipient(
        number=number,
        address=addressee.address,
        params=addressee.params,
        original=addressee.original,
        via=addressee.via,
        state=state if holder is None else State.HELD,
        due=(due or now) if holder is None else 0.0,
        holder=holder,
    )
