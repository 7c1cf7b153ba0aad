"""A stream, told over a websocket (RFC 6455): a text frame for each batch."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Final

import trio

from elemta.api.live.reader import EndedError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from quart.wrappers import Websocket

    from elemta.api.live.batch import Batch

#: Seconds in which a client must take a frame.
PATIENCE: Final = 30.0
#: Seconds in which it must take our farewell.
FAREWELL: Final = 1.0
#: Why we close (RFC 6455 §7.4.1).
GOING_AWAY: Final = 1001
FAULT: Final = 1011


async def tell(websocket: Websocket, told: AsyncGenerator[Batch]) -> None:
    """Tell a client until it leaves (this task is cancelled then) or the stream ends.

    It is let in only once there is something to tell: what is wrong with its request is an answer
    of HTTP.

    Raises:
        Problem: as the stream, before it has told anything.
    """
    async with aclosing(told):
        first = await anext(told)
        await websocket.accept()  # pyright: ignore # its `dict` says not of what
        code = GOING_AWAY
        async with trio.open_nursery() as nursery:
            nursery.start_soon(heed, websocket)
            try:
                await _send(websocket, first)
                async for batch in told:
                    await _send(websocket, batch)
            except EndedError as error:
                code = FAULT if error.fault else GOING_AWAY
            except trio.TooSlowError:
                return  # nothing can be said to it: half a frame is on its way
            finally:
                nursery.cancel_scope.cancel()
        await close(websocket, code)


async def heed(websocket: Websocket) -> None:
    """Read what a client has no reason to say, so that it is noticed when it leaves."""
    while True:
        await websocket.receive()


async def close(websocket: Websocket, code: int, reason: str = "") -> None:
    """Say farewell."""
    with trio.move_on_after(FAREWELL):
        await websocket.close(code, reason)


async def _send(websocket: Websocket, batch: Batch) -> None:
    with trio.fail_after(PATIENCE):
        await websocket.send(batch.frame)
