"""What a plugin gets to work with: nothing of it need be imported, so all of it can be stood in."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from msgspec import Struct, field

from elemta.ledger import Exchange
from elemta.metrics.meters import Meters
from elemta.net.dns import Records
from elemta.net.services import Connects, connect_service
from elemta.plugins.crew import briefly
from elemta.plugins.outgoing import Steers
from elemta.plugins.results import Store
from elemta.threads import InThread, in_thread

if TYPE_CHECKING:
    from elemta.queue import MessageId, Priority

T = TypeVar("T")

#: Words that one plugin may count; what comes after is counted as ``other``.
WORDS: Final = 100


def nothing_is_ours(domain: str) -> bool:
    """Where there are no domains."""
    return False


def nobody_routes() -> None:
    """Nothing waits that could be sorted."""


class Tells(Protocol):
    """Tells the postmaster something, by mail."""

    def __call__(self, subject: str, text: str, /) -> Awaitable[bool]:
        """Put a message to the postmaster of our first domain into the queue.

        It waits for the disk: not for a hook in which a client waits, but for `Plugin.run`. Of one
        plugin's there are twenty in an hour at most; the log has the subjects of all.

        Args:
            subject: in one line.
            text: lines; long ones are wrapped.

        Returns:
            Whether it is on its way. It does not raise for want of a disk.
        """
        ...


async def tell_nobody(subject: str, text: str) -> bool:
    """Where there is no postmaster."""
    return False


class NoMail:
    """A queue that has no mail; see `Steers`."""

    async def hold(self, id: MessageId, reason: str) -> None:  # noqa: A002 # the word of people
        """It is not there."""

    async def release(
        self,
        id: MessageId,  # noqa: A002
        reason: str = "",
        *,
        own: bool = False,
    ) -> None:
        """It is not there."""

    async def reschedule(self, id: MessageId, due: float, reason: str = "") -> None:  # noqa: A002
        """It is not there."""

    async def reprioritise(
        self,
        id: MessageId,  # noqa: A002
        priority: Priority,
        reason: str = "",
    ) -> None:
        """It is not there."""

    async def bounce(self, id: MessageId, reason: str) -> None:  # noqa: A002
        """It is not there."""


class Tools(Struct, kw_only=True, eq=False):
    """What there is for one plugin.

    Attributes:
        name: what the configuration calls the plugin.
        hostname: of this server; also its authserv-id (RFC 8601 §2.5).
        ours: whether mail for a domain (lower case) is delivered here, as of now.
        resolver: asks the DNS, with one cache for all.
        clock: seconds since the epoch.
        random: from 0 up to 1.
        in_thread: runs what blocks.
        briefly: runs what computes for some milliseconds, and never blocks, at a third of the cost.
        connect: to a service such as a scanner; the stream is the plugin's to close.
        folder: where it may keep files, also over restarts; made when it is asked for. It is the
            plugin's own: of several entries with one name each has the same. Each node has another.
        shared: what all entries of one name have in common, those before a reload, too, which live
            on for a while beside those after it.
        routes_changed: to be called once `Plugin.on_route` says other things than before: within
            some seconds what waits is sorted anew. Not from a thread.
        queue: to be steered, from `Plugin.run`; a hook in which a client waits should not.
        tell_postmaster: what an operator must hear of who looks at no log.
        exchange: with the other nodes of this server, for a `Ledger`; None: there are none.
        counts: what it counts, by word; in metrics they are
            ``elemta_plugin_events_total{plugin,event}``.
        meters: for built-in plugins, whose metrics have names of their own.
    """

    name: str
    hostname: str
    resolver: Records
    make_folder: Callable[[], Path]
    random: Callable[[], float]
    ours: Callable[[str], bool] = nothing_is_ours
    clock: Callable[[], float] = time.time
    in_thread: InThread = in_thread
    briefly: InThread = briefly
    connect: Connects = connect_service
    shared: Store = field(default_factory=Store)
    routes_changed: Callable[[], None] = nobody_routes
    queue: Steers = field(default_factory=NoMail)
    tell_postmaster: Tells = tell_nobody
    exchange: Exchange | None = None
    counts: Counter[str] = field(default_factory=Counter[str])
    meters: Meters = field(default_factory=Meters)

    @property
    def folder(self) -> Path:
        """Where the plugin may keep files.

        Raises:
            OSError: it cannot be made.
        """
        return self.make_folder()

    def count(self, word: str) -> None:
        """Something happened; the words must be few, and never of a client's choosing."""
        counts = self.counts
        counts[word if word in counts or len(counts) < WORDS else "other"] += 1
