"""From the ``plugins`` of the configuration to plugins."""

from __future__ import annotations

import importlib
import inspect
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from elemta.config import ConfigError, Mistake
from elemta.plugins.api import Plugin
from elemta.plugins.recipient_limit import RecipientLimit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elemta.config import PluginEntry

#: What ships with Elemta. Others register a `Plugin` under the entry point group `GROUP`.
BUILT_IN: Final[dict[str, type[Plugin]]] = {kind.name: kind for kind in (RecipientLimit,)}
GROUP: Final = "elemta.plugins"


class Loaded(Struct, frozen=True):
    """A plugin, ready to be asked.

    Attributes:
        timeout: seconds that one hook may take.
    """

    plugin: Plugin
    timeout: float = 30.0


def load(entries: Sequence[PluginEntry]) -> list[Loaded]:
    """Make the plugins that the configuration asks for, in its order.

    Raises:
        ConfigError: there is no such plugin, it cannot be loaded, or it does not take its settings.
    """
    return [_load(entry, f"plugins[{index}]") for index, entry in enumerate(entries)]


def _load(entry: PluginEntry, where: str) -> Loaded:
    kind = _find(entry.name, f"{where}.name")
    try:
        plugin = kind.configured(entry.settings, f"{where}.settings")
    except ConfigError:
        raise
    except Exception as error:  # a third party's constructor: its bug is a mistake of the file
        raise _mistake(f"{where}.settings", f"the plugin cannot start: {_say(error)}") from error
    return Loaded(plugin, float(entry.timeout))


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
