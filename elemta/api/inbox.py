"""The sandbox's inbox: what it caught instead of sending it."""

from __future__ import annotations

import os
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Final

import trio
from msgspec import Meta, Struct, field

from elemta.api import maildirs
from elemta.api.content import Contents
from elemta.api.endpoint import Asked, Content, Endpoint, Nothing, endpoint
from elemta.api.framed import PAGE, framed
from elemta.api.maildirs import Letter, Place, place_of
from elemta.api.problem import Fault, Problem
from elemta.api.reading import refused
from elemta.api.visit import Scope

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

#: Octets of a message that are sent at once.
PIECE: Final = 2**16


class Look(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which mail to list, and how much of it.

    Attributes:
        address: of one mailbox.
        limit: messages at most.
        cursor: ``next`` of the page before.
    """

    address: Annotated[str, Meta(max_length=320)] | None = None
    limit: Annotated[int, Meta(ge=1, le=200)] = 50
    cursor: Annotated[str, Meta(max_length=1000)] | None = None


class Mail(Struct, frozen=True, kw_only=True):
    """A message that was caught.

    Attributes:
        id: to ask for it by.
        mailbox: that it was put into.
        sender: its From field, decoded.
        to: its To field, decoded.
        subject: decoded.
        date: when it was caught, seconds since the epoch.
        size: octets.
        seen: a mail program has marked it as read.
    """

    id: str
    mailbox: str
    sender: str = field(name="from")
    to: str
    subject: str
    date: float
    size: int
    seen: bool


class Caught(Struct, frozen=True, kw_only=True):
    """Mail, the newest first.

    Attributes:
        next: cursor of the page after this one; null: this is the last.
    """

    messages: list[Mail]
    next: str | None


@endpoint(
    "GET",
    "/v1/inbox",
    scope=Scope.CONTENT,
    query=Look,
    body=Nothing,
    answer=Caught,
    tag="inbox",
    problems=(404,),
    costly=True,
    polled=True,
)
async def listed(asked: Asked[Look, Nothing]) -> Caught:
    """What the sandbox caught, the newest first.

    Outside the sandbox there is no inbox.
    """
    look, root = asked.query, _root(asked)
    before = None
    if look.cursor is not None and (before := place_of(look.cursor)) is None:
        raise refused(Fault("cursor", "expected `next` of the page before"))
    letters, last = await trio.to_thread.run_sync(
        maildirs.newest, root, look.address, look.limit, before
    )
    return Caught(
        messages=[_mail(letter) for letter in letters], next=None if last is None else last.id
    )


@endpoint(
    "GET",
    "/v1/inbox/{id}",
    scope=Scope.CONTENT,
    query=Nothing,
    body=Nothing,
    answer=Contents,
    tag="inbox",
    costly=True,
)
async def message(asked: Asked[Nothing, Nothing]) -> Contents:
    """What a message that was caught says."""
    return await _read(asked)


@endpoint(
    "GET",
    "/v1/inbox/{id}/html",
    scope=Scope.CONTENT,
    query=Nothing,
    body=Nothing,
    answer=Content,
    tag="inbox",
    gives=PAGE,
    costly=True,
)
async def html(asked: Asked[Nothing, Nothing]) -> Content:
    """The HTML of a message that was caught, as a page that runs nothing and loads nothing."""
    return framed(asked.arrival, (await _read(asked)).html)


@endpoint(
    "GET",
    "/v1/inbox/{id}/raw",
    scope=Scope.CONTENT,
    query=Nothing,
    body=Nothing,
    answer=Content,
    tag="inbox",
    gives="message/rfc822",
    costly=True,
)
async def raw(asked: Asked[Nothing, Nothing]) -> Content:
    """A message that was caught, as its file has it: lines end in LF."""
    root, place = _root(asked), _place(asked)
    found = await trio.to_thread.run_sync(maildirs.opened, root, place)
    if found is None:
        raise _gone(asked)
    fd, size = found
    asked.add_header("Content-Disposition", 'attachment; filename="message.eml"')
    return Content(_pieces(_Descriptor(fd)), size)


@endpoint(
    "DELETE",
    "/v1/inbox/{id}",
    scope=Scope.OPERATE,
    query=Nothing,
    body=Nothing,
    answer=Nothing,
    tag="inbox",
    status=HTTPStatus.NO_CONTENT,
)
async def deleted(asked: Asked[Nothing, Nothing]) -> Nothing:
    """Delete a message that was caught."""
    root, place = _root(asked), _place(asked)
    if not await trio.to_thread.run_sync(maildirs.delete, root, place):
        raise _gone(asked)
    return Nothing()


ENDPOINTS: Final[tuple[Endpoint, ...]] = (listed, message, html, raw, deleted)


def _root(asked: Asked[Look, Nothing] | Asked[Nothing, Nothing]) -> Path:
    root = asked.site.inbox
    if root is None:
        raise Problem(HTTPStatus.NOT_FOUND, "there is an inbox in the sandbox only")
    return root


def _place(asked: Asked[Nothing, Nothing]) -> Place:
    place = place_of(asked.path["id"])
    if place is None:
        raise _gone(asked)
    return place


def _gone(asked: Asked[Nothing, Nothing]) -> Problem:
    return Problem(HTTPStatus.NOT_FOUND, f"no message {asked.path['id']!r} in the inbox")


async def _read(asked: Asked[Nothing, Nothing]) -> Contents:
    root, place = _root(asked), _place(asked)
    view = await trio.to_thread.run_sync(maildirs.read, root, place)
    if view is None:
        raise _gone(asked)
    return view


def _mail(letter: Letter) -> Mail:
    told = {name.lower(): value for name, value in reversed(letter.view.headers)}
    return Mail(
        id=letter.place.id,
        mailbox=letter.place.mailbox,
        sender=told.get("from", ""),
        to=told.get("to", ""),
        subject=told.get("subject", ""),
        date=float(letter.place.at),
        size=letter.size,
        seen=letter.seen,
    )


class _Descriptor:
    """An open file that is closed even if nobody ever reads it: a client may go away before."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __del__(self) -> None:
        self.close()


async def _pieces(file: _Descriptor) -> AsyncGenerator[bytes]:
    try:
        while piece := await trio.to_thread.run_sync(os.read, file.fd, PIECE):
            yield piece
    finally:
        file.close()
