"""How plugins are, as operators see them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elemta.control.facts import PluginStatus
from elemta.plugins import failure_modes, hooks, kinds

if TYPE_CHECKING:
    from elemta.plugins import Loaded


def plugin_status(plugin: Loaded) -> PluginStatus:
    """How one is."""
    return PluginStatus(
        name=plugin.name,
        about=(type(plugin.plugin).__doc__ or "").strip().partition("\n")[0],
        enabled=plugin.enabled,
        hooks=hooks(plugin.plugin),
        timeout=plugin.timeout,
        asked=plugin.counts.asked,
        failed=plugin.counts.failed,
        kinds=kinds(plugin.plugin),
        listeners=plugin.listeners,
        on_failure=failure_modes(plugin),
        objected=plugin.counts.objected,
        events=dict(plugin.counts.events),
    )
