"""Runs the monitor: what it hears and sees on one side, the terminal on the other.

::

    run
    ├── follows     events, over a connection of their own
    ├── looks       at the server each second, and does what is asked for
    ├── keys        of the terminal
    ├── draws       when something has changed, and each second
    └── heeds       signals that end it, so that the terminal is left as it was
"""

from __future__ import annotations

import signal
import sys
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Final

import click
import trio
from rich.console import Console, Group
from rich.live import Live

from elemta.cli.monitor.drawing import BARS, PLAIN_BARS, events_room, report, screen
from elemta.cli.monitor.keys import pressed, telling
from elemta.cli.monitor.model import EVENTS, LOOKING, Model
from elemta.cli.monitor.persistence import Follower, persist
from elemta.cli.monitor.wishes import Flush, Quit, Resume, Suspend, Wishes
from elemta.cli.reaching import reached, running
from elemta.cli.terminal import counted
from elemta.control.interface import ControlError, UnavailableError
from elemta.queue import Filter, Retry

if TYPE_CHECKING:
    from elemta.cli.monitor.persistence import Reach
    from elemta.cli.monitor.wishes import Deed
    from elemta.config import Config
    from elemta.control.interface import Control, Happening

#: Seconds from one look to the next.
LOOK: Final = 1.0
#: Seconds that an answer may take, until the server counts as gone.
PATIENCE: Final = 15.0
#: Seconds between two drawings at least.
FRAME: Final = 0.1
#: Why something was done, for timelines and logs.
REASON: Final = "elemta monitor"
_ENDS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(config: Config, *, once: bool, wanted: str = "") -> int:
    """Show the server until somebody quits; returns the exit code.

    Args:
        config: of the server.
        once: print one screen, after a second, and end.
        wanted: show only events that have this in them.
    """
    console = Console(highlight=False)
    if once:
        return running(lambda: _print(console, lambda: reached(config)))
    if not (console.is_terminal and sys.stdin.isatty()) or console.is_dumb_terminal:
        raise click.UsageError("there is no terminal to draw on: say --once, or --json")
    desk = Desk(console, lambda: reached(config))
    desk.wishes.filter = wanted
    return running(desk.run)


async def _print(console: Console, reach: Reach) -> int:
    """Print what a second of looking shows."""
    model = Model(trio.current_time)
    model.regain(EVENTS)  # none are wanted
    async with reach() as server:
        for pause in (LOOK, 0.0):
            await _look(server, model)
            await trio.sleep(pause)
    for line in report(model, console.width, bars=bars_for(console)):
        click.echo(line.plain.rstrip())
    return 0


def bars_for(console: Console) -> str:
    """Signs that the terminal can show."""
    return BARS if console.encoding.startswith("utf") else PLAIN_BARS


class Desk:
    """The monitor on a terminal.

    Args:
        console: to draw on.
        reach: connects to the server.
        terminal: a descriptor to read keys from.

    Attributes:
        model: what is known.
        wishes: what is wanted.
    """

    def __init__(self, console: Console, reach: Reach, terminal: int = 0) -> None:
        self._console = console
        self._reach = reach
        self._terminal = terminal
        self._bars = bars_for(console)
        self._changed = trio.Event()
        self._deeds: tuple[trio.MemorySendChannel[Deed], trio.MemoryReceiveChannel[Deed]] = (
            trio.open_memory_channel(4)
        )
        self._lines: list[str] = []
        self._filtered = ""
        self._code = 0
        self.model = Model(trio.current_time)
        self.wishes = Wishes()

    async def run(self) -> int:
        """Show it until somebody quits; returns the exit code. The terminal is left as it was.

        Raises:
            ControlError: the server cannot be reached at first, or does not let us in.
        """
        failure: ControlError | None = None
        with (
            telling(self._terminal),
            Live(
                console=self._console, screen=True, auto_refresh=False,
                redirect_stdout=False, redirect_stderr=False, vertical_overflow="crop",
            ) as live,
        ):  # fmt: skip
            try:
                async with trio.open_nursery() as nursery:
                    stop = nursery.cancel_scope
                    nursery.start_soon(self._heed, stop)
                    nursery.start_soon(self._follow)
                    nursery.start_soon(self._look)
                    nursery.start_soon(self._draw, live)
                    await self._read(stop)
            except* ControlError as group:
                failure = _first(group)
        if failure is not None:
            raise failure
        return self._code

    async def _follow(self) -> None:
        follower = Follower(self._hear, connected=partial(self.model.regain, EVENTS))
        await persist(self._reach, follower.follow, partial(self._lose, EVENTS))

    def _hear(self, event: Happening) -> None:
        self.model.hear(event)
        self._changed.set()

    def _lose(self, part: str, why: str, pause: float) -> None:
        self.model.lose(part, why, pause)
        self._changed.set()

    async def _look(self) -> None:
        await persist(self._reach, self._look_again_and_again, partial(self._lose, LOOKING))

    async def _look_again_and_again(self, server: Control) -> None:
        deeds = self._deeds[1]
        while True:
            try:
                with trio.fail_after(PATIENCE):
                    await _look(server, self.model)
            except trio.TooSlowError:
                raise UnavailableError("the server does not answer") from None
            self.model.regain(LOOKING)
            self._changed.set()
            with trio.move_on_after(LOOK):
                while True:
                    deed = await deeds.receive()
                    await self._do(server, deed)

    async def _do(self, server: Control, deed: Deed) -> None:
        try:
            self.wishes.said = await done(server, deed)
        except UnavailableError:
            raise
        except ControlError as error:
            self.wishes.said = f"not done: {error}"
        self._changed.set()

    async def _read(self, stop: trio.CancelScope) -> None:
        async with aclosing(pressed(self._terminal)) as keys:
            async for key in keys:
                wish = self.wishes.press(key, self.model.destinations)
                if isinstance(wish, Quit):
                    break
                if wish is not None:
                    self._ask(wish)
                self._changed.set()
        stop.cancel()

    def _ask(self, deed: Deed) -> None:
        if LOOKING in self.model.lost:
            self.wishes.said = "nothing was done: there is no connection"
            return
        try:
            self._deeds[0].send_nowait(deed)
        except trio.WouldBlock:
            self.wishes.said = "nothing was done: too much is asked for at once"

    async def _draw(self, live: Live) -> None:
        while True:
            size = self._console.size
            # Another filter is answered at once, even where events stand still.
            if not self.wishes.paused or self._filtered != self.wishes.filter:
                self._filtered = self.wishes.filter
                self._lines = self.model.lines(self.wishes.filter, events_room(size.height))
            lines = screen(
                self.model, self.wishes, self._lines, (size.width, size.height), bars=self._bars
            )
            live.update(Group(*lines), refresh=True)
            await trio.sleep(FRAME)
            with trio.move_on_after(LOOK):
                await self._changed.wait()
            self._changed = trio.Event()

    async def _heed(self, stop: trio.CancelScope) -> None:
        with trio.open_signal_receiver(*_ENDS, signal.SIGWINCH) as signals:
            async for number in signals:
                if number == signal.SIGWINCH:
                    self._changed.set()
                else:
                    self._code = 128 + number
                    stop.cancel()


async def _look(server: Control, model: Model) -> None:
    suspensions = await server.suspensions()
    scopes = [each.scope for each in suspensions]
    model.look(await server.status(), await server.destinations(), scopes)


async def done(server: Control, deed: Deed) -> str:
    """Do it, and say so."""
    match deed:
        case Suspend(name=name):
            await server.suspend(f"destination:{name}", reason=REASON)
            return f"{name} is suspended"
        case Resume(scope=scope):
            await server.resume(scope)
            return f"{scope} is resumed"
        case Flush(name=name):
            tally = await server.act(Retry(), Filter(destination=name), reason=REASON)
            return f"{counted(tally.messages, 'message')} for {name}: tried now"


def _first(group: BaseExceptionGroup[ControlError]) -> ControlError:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
