"""Shows what a running server says of itself: what runs, and why it does what it does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click
import yaml
from msgspec.structs import replace

from elemta.cli.reaching import steer
from elemta.cli.sending import mailbox
from elemta.cli.terminal import say, say_json
from elemta.control import plain
from elemta.control.facts import Hypothesis, asked_in_order
from elemta.units import Seconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from elemta.config import Config
    from elemta.control.facts import Explanation, PluginStatus
    from elemta.control.interface import Control


#: It goes on, it ends here, or neither.
_MARKS: Final = {True: "+", False: "-", None: " "}


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
            say_json(plain.plugins(found))
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


def think_through(config: Config, asked: Hypothesis, *, as_json: bool) -> int:
    """Print what would become of a message; returns the exit code.

    That is 0 if it would be taken and not given up at once, else 1.
    """

    async def run(server: Control) -> int:
        found = await server.explain(asked)
        _say_explanation(found, as_json=as_json)
        return 1 if any(each.good is False for each in found.steps) else 0

    return steer(config, run)


def explain_message(config: Config, id_: str, *, as_json: bool) -> int:
    """Print why a message is where it is; returns the exit code."""

    async def run(server: Control) -> int:
        _say_explanation(await server.why(id_), as_json=as_json)
        return 0

    return steer(config, run)


def hypothesis(
    to: str, sender: str | None, size: int, client: Mapping[str, str | None]
) -> Hypothesis:
    """What the command line asks.

    Args:
        to: the recipient.
        sender: None or empty: the null sender.
        size: octets.
        client: what is said of it, as `Hypothesis` has it; None: nothing is.

    Raises:
        click.UsageError: an address is none.
    """
    try:
        asked = Hypothesis(
            recipient=mailbox(to, "--to"),
            sender=mailbox(sender, "--from") if sender else None,
            size=size,
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    return replace(asked, **{key: said for key, said in client.items() if said is not None})


def _say_explanation(found: Explanation, *, as_json: bool) -> None:
    if as_json:
        say_json(plain.explanation(found))
        return
    for line in explanation_lines(found):
        say(line)


def explanation_lines(found: Explanation) -> Iterator[str]:
    """Why something is as it is: a line for each step, and below it what it rests on."""
    yield found.summary
    yield ""
    for each in found.steps:
        reply = f"  ({each.reply})" if each.reply and each.reply not in each.answer else ""
        yield f"{_MARKS[each.good]} {each.question}: {each.answer}{reply}"
        for detail in each.details:
            yield f"    {detail}"


def plugin_lines(found: Sequence[PluginStatus]) -> Iterator[str]:
    """Plugins, each with what it does below it; then whom each hook asks, in which order."""
    if not found:
        yield "the configuration has no plugins"
        return
    width = max(len("NAME"), *(len(each.name) for each in found))
    yield (
        f"{'NAME':{width}}  {'STATE':5}  {'ASKED':>8}  {'OBJECTED':>8}  {'FAILED':>6}  "
        f"{'TIMEOUT':>7}  KINDS"
    )
    for each in found:
        state = "on" if each.enabled else "off"
        timeout = Seconds(each.timeout).written
        yield (
            f"{each.name:{width}}  {state:5}  {each.asked:>8}  {each.objected:>8}  "
            f"{each.failed:>6}  {timeout:>7}  {' '.join(each.kinds) or '-'}"
        )
        for line in filter(None, (each.about, _where(each), _failing(each))):
            yield f"    {line}"
    asked = asked_in_order(found)
    width = max([len("HOOK"), *map(len, asked)])
    yield ""
    yield f"{'HOOK':{width}}  ASKS, FIRST TO LAST"
    for hook, names in asked.items():
        beside = "  (side by side)" if hook == "on_inspect" and len(names) > 1 else ""
        yield f"{hook:{width}}  {', '.join(names)}{beside}"


def _where(plugin: PluginStatus) -> str:
    return f"for clients of {', '.join(plugin.listeners)} alone" if plugin.listeners else ""


def _failing(plugin: PluginStatus) -> str:
    """What becomes of mail when it fails: of each hook, unless all do the same."""
    hooks: dict[str, list[str]] = {}
    for hook, word in plugin.on_failure.items():
        hooks.setdefault(word, []).append(hook)
    if len(hooks) == 1:
        return f"if it fails: {next(iter(hooks))}"
    told = [f"{word} ({', '.join(names)})" for word, names in hooks.items()]
    return f"if it fails: {', '.join(told)}" if told else ""
