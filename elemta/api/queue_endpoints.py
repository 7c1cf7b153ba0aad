"""The queue: how full it is, and what waits in it."""

from __future__ import annotations

from typing import Final

import trio

from elemta.api.endpoint import Asked, Endpoint, Nothing, endpoint
from elemta.api.schema import AT_ONCE, Message, Overview, Page, message_of, overview
from elemta.api.selection import Search, searched
from elemta.api.visit import Scope


@endpoint(
    "GET",
    "/v1/queue",
    scope=Scope.READ,
    query=Nothing,
    body=Nothing,
    answer=Overview,
    tag="queue",
)
async def queue(asked: Asked[Nothing, Nothing]) -> Overview:
    """How full the queue is, and where mail goes."""
    return await overview(asked.control)


@endpoint(
    "GET",
    "/v1/queue/messages",
    scope=Scope.READ,
    query=Search,
    body=Nothing,
    answer=Page,
    tag="queue",
    costly=True,
)
async def messages(asked: Asked[Search, Nothing]) -> Page:
    """Messages with a recipient for whom all conditions hold.

    The oldest come first, unless `newest` is asked for. Without a view, those are found that are
    not finished.
    A page may be the last although it is full; then the next one is empty.
    """
    search = asked.query
    found = await asked.control.search(
        searched(search), limit=search.limit, after=search.cursor, newest=search.newest
    )
    listed: list[Message] = []
    for each in found:
        listed.append(await message_of(each))
        if len(listed) % AT_ONCE == 0:
            await trio.lowlevel.checkpoint()
    await trio.lowlevel.checkpoint()
    full = len(found) == search.limit
    return Page(messages=listed, next=found[-1].id if full else None)


ENDPOINTS: Final[tuple[Endpoint, ...]] = (queue, messages)
