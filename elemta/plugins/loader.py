"""From the ``plugins`` of the configuration to plugins."""

from __future__ import annotations

import importlib
import inspect
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Final

from msgspec import Struct, field

from elemta.config import ConfigError, Mistake
from elemta.metrics.meters import LATENCY, Distribution
from elemta.plugins.api import Plugin
from elemta.plugins.recipient_limit import RecipientLimit

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from elemta.config import PluginEntry

#: What ships with Elemta. Others register a `Plugin` under the entry point group `GROUP`.
BUILT_IN: Final[dict[str, type[Plugin]]] = {kind.name: kind for kind in (RecipientLimit,)}
GROUP: Final = "elemta.plugins"


class Counts(Struct):
    """How often a plugin was asked, objected, or failed to answer.

    Attributes:
        seconds: how long it took.
    """

    asked: int = 0
    objected: int = 0
    failed: int = 0
    seconds: Distribution = field(default_factory=lambda: Distribution(LATENCY))


class Loaded(Struct, frozen=True):
    """A plugin, ready to be asked.

    Attributes:
        timeout: seconds that one hook may take.
        entry: what the configuration calls it; empty: as it calls itself.
        enabled: whether it is asked.
        counts: what became of it.
    """

    plugin: Plugin
    timeout: float = 30.0
    entry: str = ""
    enabled: bool = True
    counts: Counts = field(default_factory=Counts)

    @property
    def name(self) -> str:
        """What the configuration calls it."""
        return self.entry or self.plugin.name


def load(entries: Sequence[PluginEntry], before: Iterable[Loaded] = ()) -> list[Loaded]:
    """Make the plugins that the configuration asks for, in its order.

    Args:
        entries: of the configuration.
        before: those that ran until now: who is among the new ones, too, goes on counting.

    Raises:
        ConfigError: there is no such plugin, it cannot be loaded, or it does not take its settings.
    """
    counts: dict[str, list[Counts]] = {}
    for each in before:
        counts.setdefault(each.name, []).append(each.counts)
    loaded: list[Loaded] = []
    for index, entry in enumerate(entries):
        known = counts.get(entry.name)
        loaded.append(_load(entry, f"plugins[{index}]", known.pop(0) if known else Counts()))
    return loaded


def _load(entry: PluginEntry, where: str, counts: Counts) -> Loaded:
    kind = _find(entry.name, f"{where}.name")
    try:
        plugin = kind.configured(entry.settings, f"{where}.settings")
    except ConfigError:
        raise
    except Exception as error:  # a third party's constructor: its bug is a mistake of the file
        raise _mistake(f"{where}.settings", f"the plugin cannot start: {_say(error)}") from error
    return Loaded(plugin, float(entry.timeout), entry.name, entry.enabled, counts)


def _find(name: str, where: str) -> type[Plugin]:
    if (built_in := BUILT_IN.get(name)) is not None:
        return built_in
    registered = {point.name: point.value for point in entry_points(group=GROUP)}
    path = registered.get(name, name)
    module, found, attribute = path.partition(":")
    if not found:
        known = ", ".join(sorted({*BUILT_IN, *registered}))
        problem = f"there is no plugin {name!r}; there are {known}, and any package.module:Class"
        raise _mistake(where, problem)
    try:
        kind: object = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # importing runs a third party's code: anything may come out
        raise _mistake(where, f"{path} cannot be loaded: {_say(error)}") from error
    if not (inspect.isclass(kind) and issubclass(kind, Plugin)):
        raise _mistake(where, f"{path} is no elemta.plugins.Plugin")
    _check_hooks(kind, where)
    return kind


def _check_hooks(kind: type[Plugin], where: str) -> None:
    """Refuse a misspelt hook: it would never be called, and nobody would notice."""
    if not isinstance(getattr(kind, "name", None), str):
        raise _mistake(where, f"{kind.__qualname__} has no `name`")
    for attribute in dir(kind):
        if not attribute.startswith("on_"):
            continue
        if not hasattr(Plugin, attribute):
            raise _mistake(where, f"{kind.__qualname__}.{attribute}: there is no such hook")
        if attribute != "on_error" and not inspect.iscoroutinefunction(getattr(kind, attribute)):
            raise _mistake(where, f"{kind.__qualname__}.{attribute} is no `async def`")


def _say(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _mistake(where: str, problem: str) -> ConfigError:
    return ConfigError(Mistake(where, problem))
