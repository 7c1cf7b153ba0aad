"""Work that waits for a disk or a processor, so that the server does not.

Not in the threads that mail needs: they must not all wait for a disk of ours that is dead. Who
gives up leaves the thread behind, which takes part in its limiter until it ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class InThread(Protocol):
    """Does something elsewhere."""

    async def __call__(self, call: Callable[[], T], limiter: trio.CapacityLimiter, /) -> T:
        """Do it, when there is a place; can be given up at any time.

        Raises:
            Exception: what `call` raises.
        """
        ...


async def in_thread(call: Callable[[], T], limiter: trio.CapacityLimiter, /) -> T:
    """See `InThread`."""
    return await trio.to_thread.run_sync(call, abandon_on_cancel=True, limiter=limiter)
