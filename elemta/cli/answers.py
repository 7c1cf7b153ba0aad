"""Shows what a running server says of itself: its configuration and its plugins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml

from elemta.cli.reaching import steer
from elemta.cli.terminal import say, say_json
from elemta.control import plain
from elemta.units import Seconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from elemta.config import Config
    from elemta.control.facts import PluginStatus
    from elemta.control.interface import Control


def show_configuration(config: Config, *, as_json: bool) -> int:
    """Print what runs, as the file would have it; returns the exit code."""

    async def run(server: Control) -> int:
        found = await server.configuration()
        if as_json:
            say_json(plain.configuration(found))
            return 0
        say(f"# {found.file or 'the sandbox'}, as it runs: defaults filled in, secrets masked")
        text = yaml.safe_dump(found.values, sort_keys=False, allow_unicode=True, width=100)
        for line in text.splitlines():
            say(line)
        return 0

    return steer(config, run)


def show_plugins(config: Config, *, as_json: bool) -> int:
    """Print all plugins in the order in which they are asked; returns the exit code."""

    async def run(server: Control) -> int:
        found = await server.plugins()
        if as_json:
            say_json([plain.plugin(each) for each in found])
        else:
            for line in plugin_lines(found):
                say(line)
        return 0

    return steer(config, run)


def switch_plugin(config: Config, name: str, *, enabled: bool, as_json: bool) -> int:
    """Let a plugin be asked, or not; returns the exit code."""

    async def run(server: Control) -> int:
        await server.switch_plugin(name, enabled=enabled)
        if as_json:
            say_json({"name": name, "enabled": enabled})
        else:
            state = "is asked" if enabled else "is not asked any more"
            say(f"{name} {state}, from the next session on, until the next reload or start")
        return 0

    return steer(config, run)


def plugin_lines(found: Sequence[PluginStatus]) -> Iterator[str]:
    """Plugins, a line each."""
    if not found:
        yield "the configuration has no plugins"
        return
    width = max(len("NAME"), *(len(each.name) for each in found))
    yield f"{'NAME':{width}}  {'STATE':5}  {'ASKED':>8}  {'FAILED':>6}  {'TIMEOUT':>7}  HOOKS"
    for each in found:
        state = "on" if each.enabled else "off"
        timeout = Seconds(each.timeout).written
        yield (
            f"{each.name:{width}}  {state:5}  {each.asked:>8}  {each.failed:>6}  {timeout:>7}  "
            f"{' '.join(each.hooks) or '-'}"
        )
