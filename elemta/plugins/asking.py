"""One plugin is asked one thing: with a deadline, and with an answer whatever it does.

A hook whose coroutine has no ``await`` gets no deadline: nothing could interrupt it, so one would
be for show. The cancel scope costs 14 µs, and ten plugins with six hooks have sixty of them a
message; without it such a hook costs 1 µs.
"""

from __future__ import annotations

import dis
import inspect
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Final, TypeAlias

import trio

from elemta.log import logger
from elemta.metrics.meters import LATENCY
from elemta.plugins.changes import Change
from elemta.plugins.plugin import AT_ONCE, HOOKS, TRY_LATER, UNDECIDED, Plugin, hooks
from elemta.plugins.verdicts import (
    CONTINUE,
    Accept,
    Continue,
    Defer,
    Discard,
    Quarantine,
    Reject,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from elemta.plugins.loader import Counts, Loaded

log = logger(__name__)

#: What is asked of a plugin.
Asks: TypeAlias = "Callable[[Plugin], Awaitable[object]]"

#: What may come out of a hook, and costs no more than its answer. A library may think that it is a
#: program (`SystemExit`); and what a nursery was doing fails together with what cancelled it.
FAILURES: Final = (Exception, SystemExit, BaseExceptionGroup)
#: What is for others to catch, also out of a group.
_PASSING: Final = (trio.Cancelled, KeyboardInterrupt, GeneratorExit)
#: Seconds within which nearly all hooks answer.
QUICK: Final = LATENCY[0]

#: What an ``await``, or anything with one in it, is compiled to.
_AWAITS: Final = frozenset({"GET_AWAITABLE", "GET_AITER", "GET_ANEXT", "YIELD_VALUE", "SEND"})


class Failed:
    """A plugin raised, or took too long. It is counted and logged by now."""


FAILED: Final = Failed()


async def ask(loaded: Loaded, hook: str, of: str, call: Asks) -> object:
    """Ask one plugin one thing.

    Args:
        loaded: the plugin.
        hook: what it is asked.
        of: names the session or the message, for the log.
        call: asks.

    Returns:
        Its answer, whatever that is, or `FAILED`.
    """
    plugin, counts = loaded.plugin, loaded.counts
    if hook not in loaded.waits:
        began = time.perf_counter()
        try:
            found = await call(plugin)
        except FAILURES as error:
            found = await fail(loaded, hook, of, error)
        took(counts, time.perf_counter() - began)
        return found
    began = trio.current_time()
    try:
        with trio.fail_after(loaded.timeout):
            found = await call(plugin)
    except FAILURES as error:
        found = await fail(loaded, hook, of, error)
    took(counts, trio.current_time() - began)
    return found


def took(counts: Counts, seconds: float) -> None:
    """Count that a plugin was asked, and how long that took."""
    if seconds <= QUICK:
        counts.quick += 1
        counts.quick_seconds += seconds
    else:
        counts.slow.observe(seconds)


async def tell(asked: Iterable[Loaded], hook: str, of: str, call: Asks) -> None:
    """Tell plugins something that they have no say in."""
    for loaded in asked:
        await ask(loaded, hook, of, call)


def verdict_of(loaded: Loaded, hook: str, of: str, found: object) -> Verdict:
    """A plugin's answer as a verdict; what is none counts as a failure."""
    match found:
        case Continue() | Accept() | Defer() | Reject() | Discard() | Quarantine():
            if has_changes(found):
                return found
            error = f"no tuple of changes in {type(found).__name__}"
        case Failed():
            return on_error(loaded, hook)
        case _:
            error = f"a verdict was expected, not {type(found).__name__}"
    # An untyped author forgot to return something, or a comma: fail closed, as on an exception.
    misfit(loaded, hook, of, error)
    return on_error(loaded, hook)


def misfit(loaded: Loaded, hook: str, of: str, error: str) -> None:
    """Count and log an answer that does not fit the question."""
    loaded.counts.failed += 1
    log.error("plugin.failed", plugin=loaded.name, hook=hook, of=of, error=error)


def is_verdict(found: object) -> bool:
    """Whether it is a verdict in all that it says."""
    return isinstance(found, Verdict) and has_changes(found)


def has_changes(verdict: object) -> bool:
    """Whether what a verdict wants changed, if it can want anything, is what it should be."""
    wanted: object = getattr(verdict, "changes", ())
    if not isinstance(wanted, tuple):
        return False
    changes: tuple[object, ...] = wanted  # pyright: ignore # of what, is asked here
    return all(isinstance(each, Change) for each in changes)


#: What a failure may mean where letting it pass would lose mail, or let somebody in; else: defer.
_HEEDED: Final[dict[str, tuple[type, ...]]] = {
    "on_store": (Defer, Reject),
    "on_authenticate": (Continue, Defer, Reject),
    "on_verifier": (Continue, Defer, Reject),
    "on_token": (Continue, Defer, Reject),
}


def on_error(loaded: Loaded, hook: str) -> Verdict:
    """What becomes of mail when a hook fails: the configuration says, or else the plugin."""
    wanted = _on_error(loaded, hook)
    heeded = _HEEDED.get(hook)
    return wanted if heeded is None or isinstance(wanted, heeded) else TRY_LATER


def _on_error(loaded: Loaded, hook: str) -> Verdict:
    match loaded.on_failure:
        case "continue":
            return CONTINUE
        case "defer":
            return TRY_LATER
        case "reject":
            return Reject((3, 0), "this mail cannot be taken")
        case "quarantine":
            return Quarantine(f"{loaded.name} failed")
        case _:
            pass
    declared = loaded.plugin.on_error
    match declared:
        case Continue() | Accept() | Defer() | Reject() | Discard() | Quarantine():
            return declared
        case _:
            return declared.get(hook, TRY_LATER)


def failure_modes(loaded: Loaded) -> dict[str, str]:
    """What becomes of mail when a hook fails, in a word, by the hook: of those that decide."""
    return {
        each: type(on_error(loaded, each)).__name__.lower()
        for each in hooks(loaded.plugin)
        if each not in UNDECIDED
    }


def waiting_hooks(kind: type[Plugin]) -> frozenset[str]:
    """The hooks of a plugin that have an ``await``, or may have one."""
    return frozenset(each for each in HOOKS if each not in AT_ONCE and _waits(getattr(kind, each)))


@lru_cache(maxsize=1024)  # most hooks of most plugins are those of their base
def _waits(hook: object) -> bool:
    code = getattr(hook, "__code__", None)
    if code is None or not code.co_flags & inspect.CO_COROUTINE:
        return True  # nobody knows: it hands on what another function gives
    return any(each.opname in _AWAITS for each in dis.get_instructions(code))


async def fail(loaded: Loaded, hook: str, of: str, error: BaseException) -> Failed:
    """Count and log what a hook raised (one of `FAILURES`).

    What is not the plugin's to catch passes.
    """
    passing: BaseException | None = None
    if isinstance(error, BaseExceptionGroup):
        group: BaseExceptionGroup[BaseException] = error  # pyright: ignore # of what it does not say
        passing, failed = group.split(_PASSING)
        if failed is None:
            await trio.lowlevel.checkpoint_if_cancelled()  # a cancellation alone, and in no group
            raise group
        error = failed
    # Whatever a plugin does, it must not cost a client its session.
    log.exception(  # noqa: LOG004 # called by a handler
        "plugin.failed",
        plugin=loaded.name,
        hook=hook,
        of=of,
        error=f"{type(error).__name__}: {error}",
    )
    loaded.counts.failed += 1
    if passing is not None:
        await trio.lowlevel.checkpoint_if_cancelled()
        raise passing
    return FAILED
