"""What differs between two configurations, and what of it can be changed while mail flows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from elemta.config.masking import MASK, masked, without_userinfo
from elemta.units import Frequency, Octets, Seconds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from elemta.config.schema import Config, Route

#: What is opened or sized once, at the start: a change of it, or of what is in it, waits for the
#: next one. Everything else is looked at afresh.
_AT_START: Final = frozenset(
    {
        "data_dir",
        "user",
        "nodes",
        "control",
        "api",
        "delivery.max_connections",
        "dns",
        "queue.disk_reserve",
        "queue.history",
    }
)


class Change(Struct, frozen=True):
    """A value that is not what it was.

    Attributes:
        place: e.g. ``listeners[mx].messages``: what has a name is found by it.
        before, after: as the file would have it; None: it is not there.
    """

    place: str
    before: str | None
    after: str | None

    @property
    def needs_restart(self) -> bool:
        """Whether it only holds after a restart."""
        if self.place.startswith("listeners["):
            # The sockets are open: one that comes or goes, or an address that changes, must wait.
            return self.place.endswith((".address", "]"))
        parts = self.place.split(".")
        return parts[0] in _AT_START or ".".join(parts[:2]) in _AT_START


def changes(before: Config, after: Config) -> list[Change]:
    """What differs, by place."""
    old, new = dict(_values(before)), dict(_values(after))
    places = sorted({*old, *new})
    found = [
        Change(place, _told(place, old.get(place)), _told(place, new.get(place)))
        for place in places
        if old.get(place) != new.get(place)
    ]
    # Of a table that came or went that alone is told, not what is in it, nor the new order.
    tables = [change.place for change in found if change.before is None or change.after is None]
    told = tuple(f"{place}." for place in tables)
    told += tuple(place.partition("[")[0] + ".order" for place in tables)
    return [change for change in found if not change.place.startswith(told)]


def applicable(running: Config, wanted: Config) -> Config:
    """What can run from now on: `wanted`, but for what needs a restart."""
    asked = {table.name: table for table in wanted.listeners}
    return msgspec.structs.replace(
        wanted,
        data_dir=running.data_dir,
        user=running.user,
        nodes=running.nodes,
        listeners=[
            msgspec.structs.replace(asked.get(open_.name, open_), address=open_.address)
            for open_ in running.listeners
        ],
        delivery=msgspec.structs.replace(
            wanted.delivery, max_connections=running.delivery.max_connections
        ),
        control=running.control,
        api=running.api,
        dns=running.dns,
        queue=msgspec.structs.replace(
            wanted.queue,
            disk_reserve=running.queue.disk_reserve,
            history=running.queue.history,
        ),
    )


def _values(config: Config) -> Iterator[tuple[str, str]]:
    """Each value by its place; tables in lists are found by what they are called."""
    lists: dict[str, list[tuple[str, Struct]]] = {
        "destinations": [(table.match, table) for table in config.destinations],
        "maps": list(config.maps.items()),
        "domains": [(table.name, table) for table in config.domains],
        "listeners": [(table.name, table) for table in config.listeners],
        "plugins": [(table.name, table) for table in config.plugins],
        "routes": [(_called(each), each) for each in config.routes],
    }
    for key, tables in lists.items():
        for name, table in tables:
            yield f"{key}[{name}]", ""
            yield from _within(table, f"{key}[{name}].")
        if key in ("destinations", "plugins", "routes"):  # they are asked in turn
            yield f"{key}.order", " ".join(name for name, _ in tables)
    yield from ((place, text) for place, text in _within(config, "") if place not in lists)


def _called(route: Route) -> str:
    name = " from ".join((route.match or f"({route.name})", *route.senders))
    return f"{name} by {route.map}" if route.map else name


def _within(table: Struct, place: str) -> Iterator[tuple[str, str]]:
    for key in table.__struct_fields__:
        value: object = getattr(table, key)
        if isinstance(value, Struct):
            yield from _within(value, f"{place}{key}.")
        else:
            yield f"{place}{key}", msgspec.json.encode(value, enc_hook=_plain).decode()


def _told(place: str, text: str | None) -> str | None:
    """A value as people may see it, who read it in the log."""
    if text is None or not place.endswith((".login.password", ".settings")):
        return None if text is None else without_userinfo(text)
    if place.endswith(".password"):
        return text if text == "null" else f'"{MASK}"'
    return msgspec.json.encode(masked(msgspec.json.decode(text))).decode()


def _plain(value: object) -> str:
    return value.written if isinstance(value, (Seconds, Octets, Frequency)) else str(value)
