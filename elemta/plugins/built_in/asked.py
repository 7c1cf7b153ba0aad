"""One who asks at a time: who comes second finds what the first one found."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from types import TracebackType


class Asking:
    """Entered by whoever asks. It costs no checkpoint where nobody else does."""

    __slots__ = ("_busy", "_over")

    def __init__(self) -> None:
        self._busy = False
        self._over: trio.Event | None = None  # somebody waits for that

    async def __aenter__(self) -> None:
        while self._busy:
            if self._over is None:
                self._over = trio.Event()
            await self._over.wait()
        self._busy = True

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._busy = False
        if self._over is not None:
            self._over.set()
            self._over = None
