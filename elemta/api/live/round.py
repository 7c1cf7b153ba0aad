"""One subscription to a source, and the clients who share it.

::

    run
    ├── gathers     takes what happens, encodes it once, and gives it to the groups that want it
    ├── ticks       hands each group what came since the last tick, as one batch for all its
    │               readers, and wakes these a few at a time
    └── ends        when the server stops

The rules of this file:

- Nobody here waits for a client.
- Clients that want the same share a group, and its batch is one object for all of them.
- A number is told as a position only when everything up to it was handed over.
"""

from __future__ import annotations

from contextlib import aclosing
from itertools import islice
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

import trio
from typing_extensions import override

from elemta.api.live.batch import Batch
from elemta.api.live.reader import EndedError, Reader
from elemta.log import logger
from elemta.queue import Missed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from elemta.api.live.batch import Item
    from elemta.api.live.source import Source

log = logger(__name__)

#: Seconds from one tick to the next: at least, more for each client, and at most. A batch costs a
#: write for each client, so that with many of them being quick is dear.
TICK: Final = 0.1
TICK_FOR_EACH: Final = 0.0025
LONGEST_TICK: Final = 1.0
#: Clients that are woken at a time. Each write takes 0.1 ms of the loop, and mail waits while all
#: do that who were woken: 200 at once held it for 17 to 37 ms.
AT_ONCE: Final = 8

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)


class Choice(Protocol[T_contra]):
    """What a client wants. Those that are equal share their batches."""

    @override
    def __hash__(self) -> int: ...

    def passes(self, happened: T_contra, /) -> bool:
        """Whether it wants this."""
        ...


class _Group:
    """Readers that want the same."""

    def __init__(self) -> None:
        self.readers: set[Reader] = set()
        self.pending: list[Item] = []

    def flush(self) -> Iterable[Reader]:
        """Hand over what is pending; who has to be woken for it."""
        if not self.pending:
            return ()
        batch = Batch(self.pending)
        self.pending = []
        for reader in self.readers:
            reader.put(batch)
        return self.readers


class Round(Generic[T]):
    """One subscription, and those who share it.

    Args:
        source: what is listened to.
        stopping: set when the server is to end.

    Attributes:
        position: the number of what was last taken from the source.
        users: how many want it to go on; kept by who made it.
        ended: why it has.
    """

    def __init__(self, source: Source[T], stopping: trio.Event) -> None:
        self._source = source
        self._stopping = stopping
        self._groups: dict[Choice[T], _Group] = {}
        self._readers = 0
        #: In order: who has something that they do not know of.
        self._asleep: dict[Reader, None] = {}
        self._some = trio.Event()
        self._ready = trio.Event()
        self._moved = trio.lowlevel.ParkingLot()
        self._scope = trio.CancelScope()
        self.position = 0
        self.users = 0
        self.ended: EndedError | None = None

    async def run(self) -> None:
        """Gather and hand out, until `cancel` or until the server stops. Raises nothing of ours."""
        fault = False
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._tick)
                    nursery.start_soon(self._end_when_stopping)
                    await self._gather()
        except Exception:  # its clients hear of it, and may come again; others must not end with it
            log.exception("api.live_failed")
            fault = True
        finally:
            self.ended = EndedError(fault=fault)
            self._ready.set()
            self._moved.unpark_all()
            for group in self._groups.values():
                for reader in group.readers:
                    reader.end(self.ended)

    def cancel(self) -> None:
        """Nobody listens any more."""
        self._scope.cancel()

    async def begin(self, since: int | None) -> None:
        """Wait until the round stands somewhere, and has passed `since`.

        A client may know, by another way, of what we have not yet taken.

        Raises:
            EndedError: it has ended.
        """
        await self._ready.wait()
        if since is not None and self.position < since <= await self._source.position():
            while self.position < since and self.ended is None:
                await self._moved.park()
        if self.ended is not None:
            raise self.ended

    def add(self, choice: Choice[T]) -> Reader:
        """Let somebody have all of its choice that comes after `position`."""
        group = self._groups.setdefault(choice, _Group())
        # What was before is for those who were here before; the tick that is due wakes them.
        self._asleep.update(dict.fromkeys(group.flush()))
        reader = Reader(lambda: group.pending[0].number - 1 if group.pending else self.position)
        group.readers.add(reader)
        self._readers += 1
        return reader

    def remove(self, choice: Choice[T], reader: Reader) -> None:
        """It wants nothing more."""
        group = self._groups[choice]
        group.readers.remove(reader)
        self._asleep.pop(reader, None)
        self._readers -= 1
        if not group.readers:
            del self._groups[choice]

    async def _gather(self) -> None:
        self.position = await self._source.position()
        self._ready.set()
        async with aclosing(self._source.listen(self.position or None)) as happenings:
            async for happened in happenings:
                self._take(happened)

    def _take(self, happened: T | Missed) -> None:
        made: Item | None = None
        for choice, group in self._groups.items():
            if isinstance(happened, Missed) or choice.passes(happened):
                made = made or self._source.item(happened)
                group.pending.append(made)
        number = happened.last if isinstance(happened, Missed) else self._source.number(happened)
        self.position = max(self.position, number)
        self._moved.unpark_all()
        if made is not None:
            self._some.set()

    async def _tick(self) -> None:
        while True:
            await self._some.wait()
            await trio.sleep(TICK)
            self._some = trio.Event()
            for group in self._groups.values():
                self._asleep.update(dict.fromkeys(group.flush()))
            await self._wake()

    async def _wake(self) -> None:
        """Wake all who have something, as evenly as the time until the next tick lets us."""
        each = min(TICK_FOR_EACH, (LONGEST_TICK - TICK) / max(1, len(self._asleep)))
        while self._asleep:
            for reader in list(islice(self._asleep, AT_ONCE)):
                del self._asleep[reader]
                reader.wake()
            if self._asleep:
                await trio.sleep(AT_ONCE * each)

    async def _end_when_stopping(self) -> None:
        await self._stopping.wait()
        self._scope.cancel()
