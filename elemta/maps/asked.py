"""One map: what it answered is remembered for a while, and nothing is asked twice at a time.

The rules of this file:

- "It is not there" and "nobody could say" are never mixed up: the first refuses mail.
- While a map is down an answer may count that is too old otherwise, if the configuration says so.
- A map that does not answer is left alone for a moment: not each client waits for it in turn.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

import trio
from msgspec import Struct

from elemta.log import logger
from elemta.maps.file import File
from elemta.maps.source import MapDownError

if TYPE_CHECKING:
    from elemta.config import Map
    from elemta.maps.source import Source
    from elemta.metrics.meters import Meters

log = logger(__name__)

#: Seconds for which a map that is down is not asked again.
PAUSE: Final = 1.0
#: Seconds for which the server is not well after a map could not be asked.
TOLD: Final = 60.0


class _Answer(Struct, frozen=True):
    """What a map said, and until when that holds (Trio time)."""

    values: tuple[str, ...] | None
    until: float


class _UnderWay:
    """A question that somebody is asking. Neither is set if they gave up."""

    def __init__(self) -> None:
        self.over = trio.Event()
        self.answer: _Answer | None = None
        self.problem = ""


class AskedMap:
    """See `Maps.get`.

    Args:
        name: of the map.
        table: as the configuration has it.
        source: who is asked.
        meters: count what is asked.

    Attributes:
        table: as given.
        source: as given.
    """

    def __init__(self, name: str, table: Map, source: Source, meters: Meters) -> None:
        self.table: Final = table
        self.source: Final = source
        self._file = source if isinstance(source, File) else None
        self._name = name
        self._meters = meters
        self._cache: OrderedDict[str, _Answer] = OrderedDict()
        self._under_way: dict[tuple[str, bool], _UnderWay] = {}
        #: Since when it is down, and until when it is left alone (Trio time).
        self._down: tuple[float, float] | None = None
        self._problem = ""

    @property
    def problem(self) -> str:
        """Why it could not be asked a moment ago; empty if it could, or if nobody has asked.

        Where nobody sends mail to a server that is not well, nobody would find out that it is.
        """
        failed = self._down is not None and trio.current_time() < self._down[1] - PAUSE + TOLD
        return self._problem if failed else ""

    def forget(self) -> None:
        """Remember no answers any more."""
        self._cache.clear()

    def known(self, key: str) -> tuple[str, ...] | None:
        """See `Maps.known`."""
        if self._file is not None:
            return self._file.known(key)
        answer = self._cache.get(key)
        if answer is None or (trio.lowlevel.in_trio_run() and not self._counts(answer)):
            raise MapDownError(f"the map {self._name} is to be asked")
        return answer.values

    def _counts(self, answer: _Answer) -> bool:
        """Whether an answer is not too old."""
        now = trio.current_time()
        down = self._down is not None and now < self._down[1]
        return now < answer.until + (self.table.stale if down else 0)

    async def get(self, key: str, *, exact: bool = False) -> tuple[str, ...] | None:
        """What it has for a key; None: nothing.

        Args:
            key: as of `Maps.get`.
            exact: as of `Maps.get`.

        Raises:
            MapDownError: nobody could say.
        """
        remembered = self._cache.get(key)
        if remembered is not None and trio.current_time() < remembered.until:
            self._cache.move_to_end(key)
            self._count("remembered")
            await trio.lowlevel.checkpoint()
            return remembered.values
        while (other := self._under_way.get((key, exact))) is not None:
            await other.over.wait()
            if other.answer is not None:
                self._count("joined")
                return other.answer.values
            if other.problem:
                return self._do_without(key, other.problem)
            # Whoever asked was cancelled. We ask ourselves, or join another who does by now.
        if self._down is not None and trio.current_time() < self._down[1]:
            await trio.lowlevel.checkpoint()
            return self._do_without(key, self._problem)
        return await self._ask(key, exact=exact)

    async def _ask(self, key: str, *, exact: bool) -> tuple[str, ...] | None:
        under_way = self._under_way[key, exact] = _UnderWay()
        began = trio.current_time()
        try:
            with trio.fail_after(self.table.timeout):
                values = await self.source.find(key, exact=exact)
        except trio.TooSlowError:
            under_way.problem = f"no answer in {self.table.timeout:g} s"
        except MapDownError as error:
            under_way.problem = str(error)
        except Exception as error:  # a bug must not make clients hear that nobody is there
            log.exception("map.failed", map=self._name)
            under_way.problem = f"it failed: {type(error).__name__}"
        else:
            under_way.answer = self._remember(key, values)
            self._heard()
            self._count("absent" if values is None else "found")
            return values
        finally:
            self._meters.map_seconds[self._name].observe(trio.current_time() - began)
            del self._under_way[key, exact]
            under_way.over.set()
        self._missed(under_way.problem)
        return self._do_without(key, under_way.problem)

    def _do_without(self, key: str, problem: str) -> tuple[str, ...] | None:
        """An answer of former times, if one counts."""
        known = self._cache.get(key)
        if known is not None and trio.current_time() < known.until + self.table.stale:
            self._count("stale")
            return known.values
        self._count("down")
        raise MapDownError(f"the map {self._name} is down: {problem}")

    def _remember(self, key: str, values: tuple[str, ...] | None) -> _Answer:
        table = self.table
        lifetime = table.negative_ttl if values is None else table.ttl
        # A file stands in memory as a whole.
        kept = table.file is None and lifetime + table.stale > 0
        answer = _Answer(values, trio.current_time() + lifetime)
        if kept:
            self._cache[key] = answer
            self._cache.move_to_end(key)
            if len(self._cache) > table.entries:
                self._cache.popitem(last=False)
        return answer

    def _heard(self) -> None:
        if self._down is not None:
            seconds = round(trio.current_time() - self._down[0], 1)
            log.info("map.up", map=self._name, seconds=seconds)
            self._down, self._problem = None, ""

    def _missed(self, problem: str) -> None:
        now = trio.current_time()
        if self._down is None:
            log.error("map.down", map=self._name, problem=problem)
        self._problem = problem
        self._down = (now if self._down is None else self._down[0]), now + PAUSE

    def _count(self, result: str) -> None:
        self._meters.maps[self._name, result] += 1
