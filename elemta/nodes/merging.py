"""What several nodes say of the same thing, put together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elemta.control.facts import PluginStatus


def plugins(found: Sequence[list[PluginStatus]]) -> list[PluginStatus]:
    """The plugins of all nodes: each has the same ones, and has asked its own.

    Where they differ, as a node has started anew since somebody switched one, the one that is not
    asked by all is told to be off: it cannot be relied on.
    """
    together = list(found[0])
    for others in found[1:]:
        for place, (one, other) in enumerate(zip(together, others, strict=False)):
            together[place] = replace(
                one,
                enabled=one.enabled and other.enabled,
                asked=one.asked + other.asked,
                failed=one.failed + other.failed,
            )
    return together
