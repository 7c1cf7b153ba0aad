"""What systemd is told of us (``Type=notify``, sd_notify(3)). Elsewhere nothing happens."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

#: Seconds between two looks at how we are, where no watchdog wants them sooner.
INTERVAL: Final = 10.0


def notify(state: str) -> None:
    """Say how we are: ``READY=1``, ``STOPPING=1``, ``STATUS=text``, ``WATCHDOG=1``."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return
    if address[0] == "@":  # an abstract address begins with a NUL
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
        out.setblocking(False)
        with suppress(OSError):  # who does not listen misses it
            out.sendto(state.encode(), address)


def reloading() -> None:
    """Say that the configuration is being read again; say ``READY=1`` when that is over."""
    notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")


def watchdog(environ: Mapping[str, str] | None = None) -> float | None:
    """Seconds within which systemd wants to hear ``WATCHDOG=1``; None if it does not want to."""
    environ = os.environ if environ is None else environ
    microseconds = environ.get("WATCHDOG_USEC", "")
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None  # it is meant for another process
    return int(microseconds) / 1e6 if microseconds.isdecimal() and int(microseconds) else None


async def report(
    status: Callable[[], str],
    answers: Callable[[], Awaitable[None]],
    *,
    within: float | None,
    tell: Callable[[str], None] = notify,
) -> None:
    """Say how we are whenever that changes, and keep the watchdog quiet while we live.

    Never returns. Since this is a task like any other, it says nothing while the loop hangs.

    Args:
        status: one line for people.
        answers: returns once what must live besides the loop has answered.
        within: seconds the watchdog allows. None: there is none.
        tell: what to tell.
    """
    told = ""
    # Twice in the time allowed (sd_watchdog_enabled(3)): half of it is left for the answer.
    interval = INTERVAL if within is None else min(INTERVAL, within / 2)
    while True:
        if (now := status()) != told:
            tell(f"STATUS={now}")
            told = now
        started = trio.current_time()
        if within is not None:
            with trio.move_on_after(within / 2):
                await answers()
                tell("WATCHDOG=1")
        await trio.sleep(max(0.0, started + interval - trio.current_time()))
