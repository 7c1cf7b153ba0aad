"""Interrupts whoever has waited too long: one task for thousands of transports."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from elemta.net.transport import Transport


class Reaper:
    """Looks at the deadlines of all transports now and then.

    A deadline is thus kept to the interval between two looks. In exchange, setting one costs an
    assignment, where a cancel scope round each read costs a third of a server's throughput.
    """

    def __init__(self) -> None:
        self._watched: set[Transport] = set()

    def watch(self, transport: Transport) -> None:
        """Look at this one from now on."""
        self._watched.add(transport)

    def forget(self, transport: Transport) -> None:
        """Look at it no more. Does nothing if it is not watched."""
        self._watched.discard(transport)

    async def run(self, interval: float = 1.0) -> None:
        """Look every `interval` seconds, for ever."""
        while True:
            await trio.sleep(interval)
            self.look()

    def look(self) -> None:
        """Interrupt with `trio.TooSlowError` whoever waits beyond the deadline.

        Who is overdue but does not wait (it writes to a disk, say) is let be: the peer is not to
        blame, and a new deadline is set before the next wait. Who goes on waiting without a new
        deadline, in a goodbye perhaps, is interrupted again.
        """
        now = trio.current_time()
        # A plain loop over a set of attributes: 0.05 us each, 0.5 ms for 10,000.
        for transport in [each for each in self._watched if each.deadline <= now]:
            if transport.waiting:
                transport.interrupt(trio.TooSlowError())
