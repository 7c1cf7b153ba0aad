"""Plugins say where mail goes: asked wherever a queue is sorted, so nothing here can wait."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, TypeAlias

import trio
from msgspec import Struct

from elemta.config import chosen_targets
from elemta.log import logger
from elemta.plugins.asking import on_error, took
from elemta.plugins.chain import Chain
from elemta.plugins.verdicts import Accept, Continue

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from elemta.plugins.loader import Loaded
    from elemta.queue import Destined

log = logger(__name__)

#: Seconds between two lines in the log that say that one plugin fails: it is asked very often.
QUIET: Final = 60.0
#: Seconds between two times that all which waits is sorted anew, as plugins say other things now.
PAUSE: Final = 10.0
#: Answers that are remembered to be right.
REMEMBERED: Final = 10_000


class Chosen(Struct, frozen=True):
    """Where a plugin wants mail to go.

    Attributes:
        targets: as the configuration writes them; all of them are right.
    """

    plugin: str
    targets: tuple[str, ...]


class Undecided(Struct, frozen=True):
    """A plugin has failed to say where mail goes: it waits, and goes nowhere else."""

    plugin: str

    @property
    def lane(self) -> str:
        """What the queue calls this destination."""
        return f"undecided:{self.plugin}"


#: What plugins come to; None: it is for the configuration to say.
Choice: TypeAlias = Chosen | Undecided | None


class Choosing:
    """Asks the routing plugins of one chain.

    Also from a thread that searches the queue, so it keeps nothing but what may be lost.

    Args:
        clock: seconds from anywhere.

    Attributes:
        chain: of this moment. Its plugins live.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.chain = Chain()
        self._clock = clock
        self._changed = trio.Event()
        self._right: set[tuple[str, ...]] = set()
        #: By plugin: when its failures were logged last, and how many there were since.
        self._failing: dict[str, tuple[float, int]] = {}

    def __call__(self, recipient: Destined) -> Choice:
        """Where the first plugin that knows it wants a recipient's mail to go. Never raises."""
        for loaded in self.chain.route:
            began = time.perf_counter()
            try:
                found = loaded.plugin.on_route(recipient)
                targets = None if found is None else self._checked(found)
            except (
                Exception,
                SystemExit,
            ) as error:  # whatever it does, mail must not be lost for it
                self._fail(loaded, recipient, error)
                if isinstance(on_error(loaded, "on_route"), (Continue, Accept)):
                    continue
                return Undecided(loaded.name)
            finally:
                took(loaded.counts, time.perf_counter() - began)
            if targets is not None:
                return Chosen(loaded.name, targets)
        return None

    def changed(self) -> None:
        """Plugins say other things now: what waits is to be sorted anew, before long."""
        self._changed.set()

    async def run(self, sort: Callable[[], None]) -> None:
        """Sort anew whenever that is to be done, until cancelled."""
        while True:
            await self._changed.wait()
            self._changed = trio.Event()
            if self.chain.route:
                sort()
            await trio.sleep(PAUSE)

    def _checked(self, found: Sequence[str]) -> tuple[str, ...]:
        """The same, if it can be what `Plugin.on_route` returns.

        Raises:
            TypeError, ValueError: it cannot.
        """
        if isinstance(found, str):  # which is a sequence of them, too
            raise TypeError(f"expected targets, not one text: {found!r}")
        targets = tuple(found)
        if targets not in self._right:
            if not targets:
                raise ValueError("no targets")
            chosen_targets(targets)
            if len(self._right) >= REMEMBERED:
                self._right.clear()
            self._right.add(targets)
        return targets

    def _fail(self, loaded: Loaded, recipient: Destined, error: BaseException) -> None:
        loaded.counts.failed += 1
        now = self._clock()
        last, count = self._failing.get(loaded.name, (-QUIET, 0))
        if now - last < QUIET:
            self._failing[loaded.name] = (last, count + 1)
            return
        self._failing[loaded.name] = (now, 0)
        log.exception(  # noqa: LOG004 # called by a handler
            "plugin.failed",
            plugin=loaded.name,
            hook="on_route",
            of=str(recipient.address),
            error=f"{type(error).__name__}: {error}",
            unsaid=count,
        )
