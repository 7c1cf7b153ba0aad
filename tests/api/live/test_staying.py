from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

import pytest
import trio

from elemta.api.live import staying
from elemta.api.live.batch import Batch, item
from elemta.api.live.staying import until_let_go, while_let_in
from elemta.api.problem import Problem
from elemta.api.visit import Caller, Visit

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from trio.testing import MockClock

VISIT = Visit(method="WEBSOCKET", path="/v1/events", client="", headers={}, cookies={})


class Door:
    """Lets anybody in until it is shut."""

    def __init__(self) -> None:
        self.problem: Problem | None = None

    async def identify(self, visit: Visit) -> Caller:
        await trio.lowlevel.checkpoint()
        if self.problem is not None:
            raise self.problem
        return Caller("token:a", frozenset())


async def beats() -> AsyncGenerator[Batch]:
    while True:
        await trio.sleep(5)
        yield Batch([item(1, {})])


async def test_who_is_no_longer_let_in_is_told_no_more(autojump_clock: MockClock) -> None:
    door = Door()
    told = 0
    async for _ in while_let_in(beats(), door, VISIT):
        told += 1
        if told == 10:
            door.problem = Problem(HTTPStatus.UNAUTHORIZED, "")
    assert trio.current_time() <= 50 + staying.AGAIN
    assert told >= 10


async def test_who_steers_is_let_go(autojump_clock: MockClock) -> None:
    door = Door()
    with trio.move_on_after(1000) as patience:
        await until_let_go(door, VISIT)
    assert patience.cancelled_caught
    door.problem = Problem(HTTPStatus.FORBIDDEN, "")
    with trio.fail_after(staying.AGAIN + 1):
        await until_let_go(door, VISIT)


@pytest.mark.parametrize("status", [HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE])
async def test_who_was_let_in_stays_while_nobody_can_tell(
    status: HTTPStatus, autojump_clock: MockClock
) -> None:
    door = Door()
    door.problem = Problem(status, "")
    with trio.move_on_after(1000) as patience:
        await until_let_go(door, VISIT)
    assert patience.cancelled_caught
