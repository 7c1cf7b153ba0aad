"""All maps of a configuration, by their names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import trio

from elemta.maps.asked import AskedMap
from elemta.maps.file import File
from elemta.maps.sql import Sql, database_of
from elemta.metrics.meters import Meters
from elemta.net.services import Connects, connect_service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from elemta.config import Map
    from elemta.maps.source import Source
    from elemta.threads import InThread

#: Threads that ask at a time; those that hang hold up nobody but maps.
THREADS: Final = 16

T = TypeVar("T")


class Maps:
    """Tables of names to others. Those of one configuration; `reconfigured` makes the next.

    Args:
        tables: as the configuration has them.
        connect: to services.
        in_thread: runs what blocks; None: in threads of our own.
        meters: count what is asked; None: nobody looks at them.
        before: of the configuration that ran before: maps that are as they were are the same, but
            for what they remember.

    Raises:
        ConfigError: a driver is missing.
    """

    def __init__(
        self,
        tables: Mapping[str, Map],
        *,
        connect: Connects = connect_service,
        in_thread: InThread | None = None,
        meters: Meters | None = None,
        before: Maps | None = None,
    ) -> None:
        self._connect = connect
        self._in_thread = in_thread or _threads()
        self._meters = meters or Meters()
        known = {} if before is None else before._maps
        self._maps: dict[str, AskedMap] = {}
        for name, table in tables.items():
            old = known.get(name)
            if old is not None and old.table == table:
                self._maps[name] = old
            else:
                source = self._source(name, table)
                self._maps[name] = AskedMap(name, table, source, self._meters)
        self._dropped = [each for name, each in known.items() if self._maps.get(name) is not each]

    def known(self, name: str, key: str) -> tuple[str, ...] | None:
        """What a map has for this very key, as far as that is known without waiting.

        Also for a thread: there an answer that is too old counts, as none of Trio's clocks goes.

        Raises:
            MapDownError: the map is to be asked (`get`), or cannot be.
        """
        return self._maps[name].known(key)

    async def get(self, name: str, key: str, *, exact: bool = False) -> tuple[str, ...] | None:
        """What a map has for a key.

        Args:
            name: of the map, which there must be.
            key: an address, lower case with A-labels; ``@`` and a domain; or any other name.
            exact: an address is not to be found by its local part alone, as in ``/etc/aliases``.

        Returns:
            At least one value, or none at all if the map says that something is there and no more.
            None: it is not there.

        Raises:
            MapDownError: nobody could say.
        """
        return await self._maps[name].get(key, exact=exact)

    @property
    def troubles(self) -> Iterable[str]:
        """Which are down, and why."""
        for name, each in self._maps.items():
            if each.problem:
                yield f"the map {name} is down: {each.problem}"

    def reconfigured(self, tables: Mapping[str, Map]) -> Maps:
        """Those of another configuration. Nothing changes until `settle`.

        Raises:
            ConfigError: a driver is missing.
        """
        return Maps(
            tables,
            connect=self._connect,
            in_thread=self._in_thread,
            meters=self._meters,
            before=self,
        )

    def settle(self) -> None:
        """These are the maps now: forget what was remembered, close what is not among them."""
        for each in self._maps.values():
            each.forget()
        for each in self._dropped:
            each.source.close()
        self._dropped = []

    def close(self) -> None:
        """Keep nothing open any more."""
        for each in self._maps.values():
            each.source.close()

    def _source(self, name: str, table: Map) -> Source:
        if table.file is not None:
            return File(table.file, self._in_thread)
        if table.http is not None:
            from elemta.maps.http import Http  # an HTTP client is dear to import

            return Http(table.http, self._connect, self._in_thread)
        query, url = table.parsed_query, table.database
        assert query is not None, "the configuration was checked"
        assert url is not None, "the configuration was checked"
        return Sql(database_of(url, query, table.timeout, f"maps.{name}"), self._in_thread)


def _threads() -> InThread:
    limiter = trio.CapacityLimiter(THREADS)

    async def in_thread(call: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(call, abandon_on_cancel=True, limiter=limiter)

    return in_thread
