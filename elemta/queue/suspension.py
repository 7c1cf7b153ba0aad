"""What operators have stopped: everything, a destination, or a domain. It may end by itself."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from elemta.protocol import comparable_domain
from elemta.queue.operation import Call

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator

    from elemta.queue.writer import Writer

ALL: Final = "all"
DESTINATION: Final = "destination:"
DOMAIN: Final = "domain:"


class Suspension(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Nothing of this is tried. What its time runs out for is given up even so.

    Attributes:
        scope: ``all``, ``destination:LANE`` or ``domain:NAME`` (of recipients; not those below).
        reason: for people.
        who: e.g. ``operator:root``.
        since, until: seconds since the epoch; `until` None: until it is resumed.
    """

    scope: str
    reason: str
    who: str
    since: float
    until: float | None = None


class Scopes(Struct, frozen=True):
    """What is suspended, for looking it up.

    Attributes:
        everything: whether it is.
        lanes: names of lanes.
        domains: as `comparable_domain` spells them.
    """

    everything: bool = False
    lanes: frozenset[str] = frozenset()
    domains: frozenset[str] = frozenset()

    def of_lane(self, name: str) -> str | None:
        """The scope that stops this lane; None if none does."""
        if name.startswith(DOMAIN) and name.removeprefix(DOMAIN) in self.domains:
            return name
        if name in self.lanes:
            return DESTINATION + name
        return ALL if self.everything else None


def parse_scope(text: str) -> str:
    """The scope that somebody wrote, spelt as `Suspension.scope` is.

    Raises:
        ValueError: it is none.
    """
    if text == ALL:
        return text
    if text.startswith(DESTINATION) and text != DESTINATION:
        return text
    if text.startswith(DOMAIN) and (domain := text.removeprefix(DOMAIN).removeprefix("@")):
        return DOMAIN + comparable_domain(domain)
    raise ValueError(f"expected all, destination:LANE or domain:NAME, not {text!r}")


class Suspensions:
    """Those that hold, and their rows in the store.

    Args:
        connection: to read them from, at the start.
        writer: writes them.
        now: seconds since the epoch; what ended before is forgotten.
    """

    def __init__(self, connection: sqlite3.Connection, writer: Writer, now: float) -> None:
        rows: list[tuple[bytes]] = connection.execute("SELECT record FROM suspension").fetchall()
        found = [_decode(record) for (record,) in rows]
        self._writer = writer
        self._known = {each.scope: each for each in found}
        self.over(now)

    def __iter__(self) -> Iterator[Suspension]:
        return iter(self._known.values())

    @property
    def scopes(self) -> Scopes:
        """All that is suspended."""
        return Scopes(
            ALL in self._known,
            frozenset(_below(DESTINATION, self._known)),
            frozenset(_below(DOMAIN, self._known)),
        )

    @property
    def next_end(self) -> float:
        """When the first of them ends, seconds since the epoch; infinity if none does."""
        return min((_end(each) for each in self._known.values()), default=math.inf)

    async def put(self, suspension: Suspension) -> None:
        """Suspend; it is durable when this returns.

        Raises:
            StoreUnavailable: the disk.
        """
        scope, record = suspension.scope, _encode(suspension)

        def write(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT OR REPLACE INTO suspension VALUES (?, ?)", (scope, record))

        def hold() -> None:
            self._known[scope] = suspension

        call = Call(write, hold)
        self._writer.submit(call)
        await call.wait(abandonable=True)

    async def end(self, scope: str) -> bool:
        """Resume; whether it was suspended. Durable when this returns.

        Raises:
            StoreUnavailable: the disk.
        """
        call = self._delete(scope)
        await call.wait(abandonable=True)
        return self._known.pop(scope, None) is not None

    def over(self, now: float) -> list[str]:
        """End those whose time is over; returns their scopes."""
        scopes = [scope for scope, each in self._known.items() if _end(each) <= now]
        for scope in scopes:
            del self._known[scope]
            self._delete(scope, urgent=False)
        return scopes

    def _delete(self, scope: str, *, urgent: bool = True) -> Call:
        def delete(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM suspension WHERE scope = ?", (scope,))

        call = Call(delete)
        call.urgent = urgent
        self._writer.submit(call)
        return call


def _end(suspension: Suspension) -> float:
    return math.inf if suspension.until is None else suspension.until


def _below(kind: str, scopes: Iterable[str]) -> Iterable[str]:
    return (each.removeprefix(kind) for each in scopes if each.startswith(kind))


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Suspension).decode
