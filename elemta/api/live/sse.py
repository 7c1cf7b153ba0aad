"""A stream, told as Server-Sent Events (HTML Living Standard §9.2), for who speaks no websocket."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from quart import Response

from elemta.api.live.reader import EndedError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from elemta.api.live.batch import Batch

MEDIA_TYPE: Final = "text/event-stream"
#: What comes first: a browser that was cut off waits so many milliseconds.
RETRY: Final = b"retry: 2000\n\n"


async def response(told: AsyncGenerator[Batch]) -> Response:
    """The answer that tells a stream until it ends, or the client leaves.

    Raises:
        Problem: as the stream, before it has told anything.
    """
    first = await anext(told)
    answer = Response(_body(first, told), content_type=MEDIA_TYPE)
    answer.timeout = None
    answer.headers["Cache-Control"] = "no-store"
    answer.headers["X-Accel-Buffering"] = "no"  # nginx would gather it
    return answer


async def _body(first: Batch, told: AsyncGenerator[Batch]) -> AsyncGenerator[bytes]:
    async with aclosing(told):
        yield RETRY + first.stream
        try:
            async for batch in told:
                yield batch.stream
        except EndedError:  # the client comes again by itself
            return
