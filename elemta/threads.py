"""How what blocks is run: in threads, where it holds up nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


class InThread(Protocol):
    """Runs what blocks, or takes long, where it holds up nobody."""

    def __call__(self, call: Callable[[], T], /) -> Awaitable[T]:
        """Run it in a worker thread; cancelling gives up the waiting, not the work."""
        ...


async def in_thread(call: Callable[[], T]) -> T:
    """See `InThread`."""
    return await trio.to_thread.run_sync(call, abandon_on_cancel=True)
