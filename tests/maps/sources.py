"""Maps whose sources a test answers for."""

from __future__ import annotations

from typing import TypeVar

import trio
from typing_extensions import override

from elemta.config import Map, check
from elemta.maps import Maps
from elemta.maps.asked import AskedMap
from elemta.maps.source import MapDownError
from elemta.metrics.meters import Meters

T = TypeVar("T")


class Answers:
    """A `Source`: what it has, how long it takes, and whether it is down."""

    def __init__(self, **values: tuple[str, ...]) -> None:
        self.values = dict(values)
        self.asked: list[str] = []
        self.seconds = 0.0
        self.problem: Exception | None = None
        self.closed = False

    async def find(self, key: str, *, exact: bool = False) -> tuple[str, ...] | None:
        self.asked.append(key)
        await trio.sleep(self.seconds)
        if self.problem is not None:
            raise self.problem
        return self.values.get(key)

    def close(self) -> None:
        self.closed = True


class Asked:
    """A map of these answers, and what it counts."""

    def __init__(self, answers: Answers, **keys: object) -> None:
        table = check({"http": "http://127.0.0.1/", **keys}, Map)
        self.meters = Meters()
        self.map = AskedMap("names", table, answers, self.meters)

    @property
    def counts(self) -> dict[str, int]:
        return {result: count for (_, result), count in self.meters.maps.items()}


class Written(Maps):
    """Maps that a test writes.

    Attributes:
        asked: who was asked for what, in order.
        down: the map that cannot be asked.
        remembers: what was asked once is known from then on.
    """

    def __init__(self, **maps: dict[str, tuple[str, ...]]) -> None:
        super().__init__({})
        self.maps = maps
        self.asked: list[str] = []
        self.down = ""
        self.remembers = True
        self._known: set[tuple[str, str]] = set()

    @override
    def known(self, name: str, key: str) -> tuple[str, ...] | None:
        if name == self.down or (name, key) not in self._known:
            raise MapDownError(f"the map {name} is to be asked")
        return self.maps[name].get(key)

    @override
    async def get(self, name: str, key: str, *, exact: bool = False) -> tuple[str, ...] | None:
        self.asked.append(f"{name}: {key}")
        if name == self.down:
            raise MapDownError(f"the map {name} is down: refused")
        if self.remembers:
            self._known.add((name, key))
        return self.maps[name].get(key)

    def forget(self) -> None:
        self._known.clear()


DOWN = MapDownError("connection refused")
