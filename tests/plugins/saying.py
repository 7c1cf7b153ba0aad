"""Plugins that answer what they are told to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from elemta.plugins import Plugin

if TYPE_CHECKING:
    from collections.abc import Callable

    from elemta.plugins import Verdict


def saying(
    name: str = "p",
    *,
    on_error: object = None,
    asked: list[str] | None = None,
    **answers: Verdict | Callable[..., object] | None,
) -> Plugin:
    """A plugin that overrides these hooks alone.

    Args:
        name: of the plugin.
        on_error: as a plugin has it; None: as one that says nothing.
        asked: is told of each hook that is asked.
        answers: by hook: a verdict, or what gives it when it is called with what the hook is shown;
            it may be a coroutine function.
    """
    told = asked if asked is not None else []
    members: dict[str, object] = {"name": name}
    if on_error is not None:
        members["on_error"] = on_error
    for hook, answer in answers.items():
        members[hook] = _hook(hook, answer, told)
    return type("Saying", (Plugin,), members)()


def _hook(hook: str, answer: object, told: list[str]) -> object:
    async def method(_: Plugin, *shown: object) -> object:
        await trio.lowlevel.checkpoint()
        told.append(hook)
        found = answer(*shown) if callable(answer) else answer
        return await found if hasattr(found, "__await__") else found

    return method
