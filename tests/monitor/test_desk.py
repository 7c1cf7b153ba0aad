"""The monitor on a terminal: what is drawn, what keys do, and how the terminal is left."""

from __future__ import annotations

import os
import pty
import termios
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest
import trio
from rich.console import Console

from elemta.cli.monitor.desk import Desk, done
from elemta.cli.monitor.wishes import Flush, Resume, Suspend
from elemta.control.interface import Control, ControlError, RequestError, UnavailableError
from elemta.queue import Filter, Retry, Tally
from tests.api.live.world import LiveControl
from tests.control.fake import Acted
from tests.monitor.world import destination

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

#: Begin and end of the other screen that terminals have (xterm's private mode 1049).
OTHER, BACK = b"\x1b[?1049h", b"\x1b[?1049l"
SHOWN = b"\x1b[?25h"


class Steered(LiveControl):
    """Remembers what was suspended and resumed."""

    def __init__(self) -> None:
        super().__init__()
        self.deeds: list[str] = []
        self.refusal: ControlError | None = None
        self.places = [destination("mx:a.example"), destination("mx:b.example")]

    async def suspend(
        self, scope: str, *, reason: str = "", until: float | None = None, dry_run: bool = False
    ) -> Tally | None:
        await trio.lowlevel.checkpoint()
        if self.refusal is not None:
            raise self.refusal
        self.deeds.append(f"suspend {scope}: {reason}")
        return None

    async def resume(self, scope: str, *, dry_run: bool = False) -> Tally | None:
        await trio.lowlevel.checkpoint()
        self.deeds.append(f"resume {scope}")
        return None


class Seat:
    """A terminal with a monitor on it, and somebody in front."""

    def __init__(self) -> None:
        self.control = Steered()
        self.down: ControlError | None = None
        self.ours, self.theirs = pty.openpty()
        self.before = termios.tcgetattr(self.theirs)
        self.seen = b""
        self.code: int | None = None
        self.ended = trio.Event()
        self.more = trio.lowlevel.ParkingLot()

    @asynccontextmanager
    async def reach(self) -> AsyncGenerator[Control]:
        if self.down is not None:
            raise self.down
        yield self.control

    @asynccontextmanager
    async def taken(self) -> AsyncGenerator[Seat]:
        """While the monitor runs; afterwards the terminal must be as it was."""
        with os.fdopen(self.theirs, "w", closefd=False) as file, trio.fail_after(60):
            console = Console(file=file, force_terminal=True, width=80, height=24, highlight=False)
            desk = Desk(console, self.reach, self.theirs)
            try:
                async with trio.open_nursery() as nursery:

                    async def run() -> None:
                        self.code = await desk.run()
                        self.ended.set()

                    nursery.start_soon(run)
                    nursery.start_soon(self._watch)
                    yield self
                    await self.ended.wait()
                    nursery.cancel_scope.cancel()
            finally:
                os.set_blocking(self.ours, False)
                with suppress(BlockingIOError):
                    self.seen += os.read(self.ours, 65536)
                assert termios.tcgetattr(self.theirs) == self.before
                assert self.seen.rindex(BACK) > self.seen.rindex(OTHER)
                assert self.seen.rindex(SHOWN) > self.seen.rindex(OTHER)
                os.close(self.ours)
                os.close(self.theirs)

    async def _watch(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self.ours)
            self.seen += os.read(self.ours, 65536)
            self.more.unpark_all()

    def press(self, keys: bytes) -> None:
        os.write(self.ours, keys)

    async def sees(self, text: str) -> None:
        """Wait until this is drawn anew."""
        while text.encode() not in self.seen:
            await self.more.park()
        self.seen = OTHER


async def test_a_delivery_is_seen_and_a_destination_suspended_by_key() -> None:
    async with Seat().taken() as seat:
        await seat.sees("mx:b.example")
        seat.control.queued("bob@example.net")
        await seat.sees("Queued id=")
        seat.press(b"js")
        await seat.sees("send nothing to mx:b.example")
        seat.press(b"y")
        await seat.sees("mx:b.example is suspended")
        seat.press(b"q")
    assert seat.code == 0
    assert seat.control.deeds == ["suspend destination:mx:b.example: elemta monitor"]


async def test_another_filter_is_answered_even_where_events_stand_still() -> None:
    async with Seat().taken() as seat:
        await seat.sees("mx:b.example")
        seat.control.queued("bob@example.net")
        await seat.sees("Queued id=")
        seat.press(b"/nobody\r")
        await seat.sees("with 'nobody'")
        seat.press(b"p")
        await seat.sees("standing still")
        seat.press(b"\x1b")
        await seat.sees("Queued id=")
        seat.press(b"q")
    assert seat.code == 0


async def test_what_is_refused_is_said_and_the_monitor_goes_on() -> None:
    async with Seat().taken() as seat:
        seat.control.refusal = RequestError("not that one")
        await seat.sees("mx:b.example")
        seat.press(b"sy")
        await seat.sees("not done: not that one")
        seat.press(b"q")


async def test_a_server_that_goes_away_is_shown_as_such_until_it_is_back() -> None:
    async with Seat().taken() as seat:
        await seat.sees("all is well")
        seat.down = seat.control.broken = UnavailableError("the server is down")
        seat.control.finished()  # the connection breaks
        await seat.sees("DISCONNECTED")
        seat.down = seat.control.broken = None
        await seat.sees("all is well")
        seat.control.queued("bob@example.net")
        await seat.sees("Queued id=")
        seat.press(b"q")


async def test_a_server_that_is_not_there_at_first_ends_it_with_the_terminal_as_it_was() -> None:
    seat = Seat()
    seat.down = UnavailableError("nobody listens")
    with pytest.raises(ExceptionGroup) as told:
        async with seat.taken():
            await trio.sleep_forever()
    assert told.group_contains(UnavailableError, match="nobody listens")


async def test_a_fault_leaves_the_terminal_as_it_was() -> None:
    async def break_it(seat: Seat) -> None:
        async with seat.taken():
            await seat.sees("all is well")
            seat.control.failure = ZeroDivisionError("a fault of ours")
            await trio.sleep_forever()

    with pytest.raises(ExceptionGroup) as told:
        await break_it(Seat())
    assert told.group_contains(ZeroDivisionError)


async def test_a_deed_is_what_the_command_line_would_do() -> None:
    control = Steered()
    assert await done(control, Suspend("mx:x")) == "mx:x is suspended"
    assert await done(control, Resume("all")) == "all is resumed"
    assert await done(control, Flush("mx:x")) == "1 message for mx:x: tried now"
    assert control.deeds == ["suspend destination:mx:x: elemta monitor", "resume all"]
    assert control.acted == [Acted(Retry(), Filter(destination="mx:x"), "elemta monitor", False)]
