"""The life that plugins have in common which remember something over restarts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import override

from elemta.ledger import Ledger
from elemta.plugins.plugin import Plugin

if TYPE_CHECKING:
    from collections.abc import Callable


class Remembering(Plugin):
    """A plugin with a `Ledger`: ``class Guard(Remembering, PluginWith[Settings])``."""

    _ledger: Ledger | None = None
    #: See `Ledger.run`.
    _also: Callable[[], None] | None = None

    async def remember(self, ledger: Ledger) -> None:
        """Open the books, in `start`: ``self._seen = await ledger.book("seen", Book(Row, 1000))``.

        Args:
            ledger: open, also for others of this name.
        """
        raise NotImplementedError

    @override
    async def start(self) -> None:
        ledger = self.tools.shared.of(Ledger)
        await ledger.open(self.tools)
        self._ledger = ledger
        await self.remember(ledger)

    @override
    async def run(self) -> None:
        assert self._ledger is not None, "`start` comes first"
        await self._ledger.run(self._also)

    @override
    async def stop(self) -> None:
        if self._ledger is not None:
            if self._also is not None:
                self._also()
            await self._ledger.close()
