"""Which mail is meant: a filter, as queries and bodies have it."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from elemta.api.schema import Urgency, priority_of
from elemta.api.words import Age, Id, Needle, Size
from elemta.queue import Filter, View


class Conditions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which recipients are meant: those for whom all conditions hold.

    Attributes:
        domain: the recipient's; ``*.example.net`` for all below it.
        sender: an address, ``@domain``, or ``<>`` for reports.
        recipient: an address.
        tag: one of the message's.
        older_than, younger_than: seconds since the message came in.
        larger_than, smaller_than: octets.
        error: found in the last reply.
        destination: the lane in which the recipient is tried.
        priority: the message's.
        owner: of a hold.
        text: found in the message's id, sender or tags, in the recipient's address, or in the last
            reply.
    """

    domain: Needle | None = None
    sender: Needle | None = None
    recipient: Needle | None = None
    tag: Needle | None = None
    older_than: Age | None = None
    younger_than: Age | None = None
    larger_than: Size | None = None
    smaller_than: Size | None = None
    error: Needle | None = None
    destination: Needle | None = None
    priority: Urgency | None = None
    owner: Needle | None = None
    text: Needle | None = None


class Selection(Conditions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which recipients are meant: those for whom all conditions hold.

    Attributes:
        ids: of messages.
        views: in any of these queues; none: in those of what is not finished.
    """

    ids: Annotated[list[Id], Meta(max_length=1000)] = []
    views: Annotated[list[View], Meta(max_length=5)] = []


class Search(Conditions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which messages to list, and how many.

    Attributes:
        id: of messages; may be given several times.
        view: in any of these queues; may be given several times. None: in those of what is not
            finished.
        limit: messages of the page at most.
        cursor: ``next`` of the page before.
        newest: the newest first; else the oldest.
    """

    id: Annotated[list[Id], Meta(max_length=200)] = []
    view: Annotated[list[View], Meta(max_length=5)] = []
    limit: Annotated[int, Meta(ge=1, le=500)] = 50
    cursor: Id | None = None
    newest: bool = False


def selected(meant: Selection) -> Filter:
    """The filter that a body means."""
    return _filter(meant, meant.ids, meant.views)


def searched(meant: Search) -> Filter:
    """The filter that a query means."""
    return _filter(meant, meant.id, meant.view)


def _filter(meant: Conditions, ids: list[str], views: list[View]) -> Filter:
    return Filter(
        ids=tuple(ids),
        views=tuple(views),
        domain=meant.domain,
        sender=meant.sender,
        recipient=meant.recipient,
        tag=meant.tag,
        older_than=meant.older_than,
        younger_than=meant.younger_than,
        larger_than=meant.larger_than,
        smaller_than=meant.smaller_than,
        error=meant.error,
        destination=meant.destination,
        priority=None if meant.priority is None else priority_of(meant.priority),
        owner=meant.owner,
        text=meant.text,
    )
