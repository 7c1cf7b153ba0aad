from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from elemta.cli.monitor.persistence import FIRST_PAUSE, GOOD, LONGEST_PAUSE, Follower, persist
from elemta.control.interface import Control, ForbiddenError, UnavailableError
from elemta.queue import EventBus, Finished, Missed
from tests.api.live.world import FIRST, ID, LiveControl

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from trio.testing import MockClock

    from elemta.control.interface import Happening


class Line:
    """A way to a server that is cut and comes back."""

    def __init__(self) -> None:
        self.control = LiveControl()
        self.failure: Exception | None = None
        self.dialled: list[float] = []
        self.lost: list[tuple[str, float]] = []
        self.cut = trio.Event()

    @asynccontextmanager
    async def reach(self) -> AsyncGenerator[Control]:
        self.dialled.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        if self.failure is not None:
            raise self.failure
        yield self.control

    def lose(self, why: str, pause: float) -> None:
        self.lost.append((why, pause))

    async def hold(self, server: Control) -> None:
        """Use a connection until it is cut."""
        await self.cut.wait()
        self.cut = trio.Event()
        raise UnavailableError("the server went away")

    def restart(self) -> None:
        """The server is another process now."""
        self.control.bus = EventBus(100, first=FIRST + 1_000_000)


async def test_tries_are_made_again_at_growing_intervals(autojump_clock: MockClock) -> None:
    line = Line()

    async def use(server: Control) -> None:
        line.failure = UnavailableError("down")
        raise UnavailableError("the server went away")

    with trio.move_on_after(20):
        await persist(line.reach, use, line.lose)
    pauses = [pause for _, pause in line.lost]
    assert pauses[:4] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE, 8 * FIRST_PAUSE]
    assert max(pauses) == pauses[-1] == LONGEST_PAUSE
    assert [why for why, _ in line.lost[:2]] == ["the server went away", "down"]
    assert line.dialled[1] - line.dialled[0] == pytest.approx(FIRST_PAUSE)


async def test_a_connection_that_held_makes_the_next_pause_short(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    line = Line()
    nursery.start_soon(persist, line.reach, line.hold, line.lose)
    for held in (1, 1, 1, GOOD + 1):
        await trio.sleep(held + sum(pause for _, pause in line.lost[-1:]))
        line.cut.set()
        await trio.testing.wait_all_tasks_blocked()
    assert [pause for _, pause in line.lost] == [0.5, 1.0, 2.0, FIRST_PAUSE]
    nursery.cancel_scope.cancel()


async def test_a_first_try_that_fails_is_the_last(autojump_clock: MockClock) -> None:
    line = Line()
    line.failure = UnavailableError("down")
    with pytest.raises(UnavailableError, match="down"):
        await persist(line.reach, line.hold, line.lose)
    assert line.lost == []


async def test_who_is_no_longer_let_in_does_not_try_again(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    line = Line()

    async def use(server: Control) -> None:
        line.failure = ForbiddenError("the token was revoked")
        raise UnavailableError("the server went away")

    with pytest.raises(ForbiddenError, match="revoked"):
        await persist(line.reach, use, line.lose)


async def test_events_are_resumed_by_their_numbers(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    line = Line()
    heard: list[Happening] = []
    connected: list[float] = []
    line.control.finished()
    follower = Follower(heard.append, connected=lambda: connected.append(trio.current_time()))
    nursery.start_soon(persist, line.reach, follower.follow, line.lose)
    await trio.testing.wait_all_tasks_blocked()
    one = line.control.finished()
    await trio.testing.wait_all_tasks_blocked()

    line.control.broken = UnavailableError("the server went away")
    two = line.control.finished()  # with this the connection breaks, before it was told
    await trio.testing.wait_all_tasks_blocked()
    line.control.broken = None
    await trio.sleep(2)
    assert heard == [Finished(one, 2.0, ID), Finished(two, 2.0, ID)]
    assert line.control.asked == [FIRST + 1, one]
    assert len(connected) == 2
    nursery.cancel_scope.cancel()


async def test_a_restart_is_told_and_what_the_new_process_has_told_before_is_not_lost(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    line = Line()
    heard: list[Happening] = []
    follower = Follower(heard.append)
    nursery.start_soon(persist, line.reach, follower.follow, line.lose)
    await trio.testing.wait_all_tasks_blocked()
    line.control.broken = UnavailableError("the server went away")
    line.control.finished()
    await trio.testing.wait_all_tasks_blocked()
    line.control.broken = None
    line.restart()
    number = line.control.finished()
    await trio.sleep(2)
    later = line.control.finished()
    await trio.testing.wait_all_tasks_blocked()
    missed = Missed(0, last=FIRST + 1_000_000, restarted=True)
    assert heard == [missed, Finished(number, 2.0, ID), Finished(later, 2.0, ID)]
    nursery.cancel_scope.cancel()
