"""One message: what it is, what happened to it, what it says."""

from __future__ import annotations

from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Final

import trio
from msgspec import Struct

from elemta.api.content import LOOKED_AT, Contents, view_of
from elemta.api.endpoint import Asked, Content, Endpoint, Nothing, endpoint
from elemta.api.framed import PAGE, framed
from elemta.api.schema import Timeline, timeline_of
from elemta.api.visit import Scope
from elemta.control.facts import Explanation, Transcript

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


class Transcripts(Struct, frozen=True):
    """What was said about a message.

    Attributes:
        transcripts: of as many conversations as are kept, the oldest first.
    """

    transcripts: list[Transcript]


@endpoint(
    "GET",
    "/v1/messages/{id}",
    scope=Scope.READ,
    query=Nothing,
    body=Nothing,
    answer=Timeline,
    tag="messages",
)
async def message(asked: Asked[Nothing, Nothing]) -> Timeline:
    """A message, and what happened to it."""
    return await timeline_of(await asked.control.timeline(asked.path["id"]))


@endpoint(
    "GET",
    "/v1/messages/{id}/raw",
    scope=Scope.CONTENT,
    query=Nothing,
    body=Nothing,
    answer=Content,
    tag="messages",
    gives="message/rfc822",
    costly=True,
)
async def raw(asked: Asked[Nothing, Nothing]) -> Content:
    """A message as it is, while it is not finished.

    Who read what is remembered.
    """
    return await begun(asked.control.raw(asked.path["id"]))


@endpoint(
    "GET",
    "/v1/messages/{id}/content",
    scope=Scope.CONTENT,
    query=Nothing,
    body=Nothing,
    answer=Contents,
    tag="messages",
    costly=True,
)
async def content(asked: Asked[Nothing, Nothing]) -> Contents:
    """What a message says, while it is not finished.

    Its HTML is as it came in: show it in a sandbox only. Who read what is remembered.
    """
    return await shown(asked.control.raw(asked.path["id"]))


@endpoint(
    "GET",
    "/v1/messages/{id}/html",
    scope=Scope.CONTENT,
    query=Nothing,
    body=Nothing,
    answer=Content,
    tag="messages",
    gives=PAGE,
    costly=True,
)
async def html(asked: Asked[Nothing, Nothing]) -> Content:
    """The HTML of a message, as a page that runs nothing and loads nothing.

    Who read what is remembered.
    """
    view = await shown(asked.control.raw(asked.path["id"]))
    return framed(asked.arrival, view.html)


@endpoint(
    "GET",
    "/v1/messages/{id}/transcripts",
    scope=Scope.READ,
    query=Nothing,
    body=Nothing,
    answer=Transcripts,
    tag="messages",
)
async def transcripts(asked: Asked[Nothing, Nothing]) -> Transcripts:
    """What was said about a message, secrets masked, content left out."""
    return Transcripts(await asked.control.transcripts(asked.path["id"]))


@endpoint(
    "GET",
    "/v1/messages/{id}/why",
    scope=Scope.READ,
    query=Nothing,
    body=Nothing,
    answer=Explanation,
    tag="messages",
)
async def why(asked: Asked[Nothing, Nothing]) -> Explanation:
    """Why a message is where it is, and when it goes on."""
    return await asked.control.why(asked.path["id"])


async def begun(pieces: AsyncGenerator[bytes]) -> Content:
    """Content whose first piece is here: what can be asked wrongly has been.

    Raises:
        As whatever gives the pieces.
    """
    first = await anext(pieces, b"")
    return Content(_all(first, pieces))


async def _all(first: bytes, rest: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    async with aclosing(rest):
        if first:
            yield first
        async for piece in rest:
            yield piece


async def shown(pieces: AsyncGenerator[bytes]) -> Contents:
    """What a message says, as far as it is looked at.

    Raises:
        As whatever gives the pieces.
    """
    gathered: list[bytes] = []
    size = 0
    async with aclosing(pieces):
        async for piece in pieces:
            gathered.append(piece)
            size += len(piece)
            if size > LOOKED_AT:
                break
    look = partial(view_of, b"".join(gathered))
    return await trio.to_thread.run_sync(look, abandon_on_cancel=True)


ENDPOINTS: Final[tuple[Endpoint, ...]] = (message, raw, content, html, transcripts, why)
