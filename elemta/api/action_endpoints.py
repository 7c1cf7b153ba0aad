"""What can be done to mail that waits: to one message, or to all that a filter means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, TypeAlias, TypeVar

from msgspec import Meta, Struct

from elemta.api.endpoint import Asked, Endpoint, Nothing, endpoint
from elemta.api.problem import Fault
from elemta.api.reading import refused
from elemta.api.schema import Tally, Urgency, priority_of, tally_of
from elemta.api.selection import Selection, selected
from elemta.api.visit import Scope
from elemta.api.words import Address, Needle, Text, When, mailbox, moment_of
from elemta.queue import (
    Action,
    Bounce,
    Delete,
    Filter,
    Hold,
    Redirect,
    Release,
    Reprioritise,
    Reroute,
    Reschedule,
    Retry,
    View,
)
from elemta.queue import Tally as Sum

if TYPE_CHECKING:
    from collections.abc import Callable

    from elemta.control.interface import Control
    from elemta.protocol import Mailbox


#: Where mail is sent by.
Targets: TypeAlias = Annotated[list[Needle], Meta(max_length=20)]


class Manner(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an action is to be done.

    Attributes:
        reason: for people; stands in the timeline of each message.
        dry_run: count, and do nothing.
    """

    reason: Text = ""
    dry_run: bool = False


class ToMany(Manner, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """To which mail, and how.

    Attributes:
        filter: whom it is done to.
        all: an empty filter means all that is not finished, and is meant so.
    """

    filter: Selection = Selection()
    all: bool = False


class ToOne(Manner, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """To which recipients of the message, and how.

    Attributes:
        recipients: addresses; null: all that are not finished.
    """

    recipients: Annotated[list[Address], Meta(min_length=1, max_length=100)] | None = None


class ReprioritiseMany(ToMany, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """To which mail, and how.

    Attributes:
        priority: the new one.
    """

    priority: Urgency


class ReprioritiseOne(ToOne, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """To which recipients of the message, and how.

    Attributes:
        priority: the new one.
    """

    priority: Urgency


class RedirectMany(ToMany, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """To which mail, and how.

    Attributes:
        to: the address that it goes to instead.
    """

    to: Address


class RedirectOne(ToOne, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """To which recipients of the message, and how.

    Attributes:
        to: the address that it goes to instead.
    """

    to: Address


class RerouteMany(ToMany, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """To which mail, and how.

    Attributes:
        via: targets, as the configuration writes them; none: as the configuration says.
    """

    via: Targets


class RerouteOne(ToOne, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """To which recipients of the message, and how.

    Attributes:
        via: targets, as the configuration writes them; none: as the configuration says.
    """

    via: Targets


class RescheduleMany(ToMany, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """To which mail, and how.

    Attributes:
        at: when it is tried next: RFC 3339, or seconds since the epoch; in the past: now.
    """

    at: When


class RescheduleOne(ToOne, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """To which recipients of the message, and how.

    Attributes:
        at: when it is tried next: RFC 3339, or seconds since the epoch; in the past: now.
    """

    at: When


M = TypeVar("M", bound=ToMany)
N = TypeVar("N", bound=ToOne)


def _many(word: str, example: M, action: Callable[[M], Action], told: str) -> Endpoint:
    """An action on all mail that a filter means."""

    async def ask(asked: Asked[Nothing, M]) -> Tally:
        wanted = asked.body
        meant = selected(wanted.filter)
        if meant == Filter() and not wanted.all:
            raise refused(Fault("filter", "has no condition; say `all: true` if all mail is meant"))
        done = await asked.control.act(
            action(wanted), meant, reason=wanted.reason, dry_run=wanted.dry_run
        )
        return tally_of(done, dry_run=wanted.dry_run)

    ask.__doc__ = told
    return endpoint(
        "POST",
        f"/v1/queue/{word}",
        scope=Scope.OPERATE,
        query=Nothing,
        body=type(example),
        answer=Tally,
        tag="queue",
        costly=True,
        example=example,
    )(ask)


def _one(word: str, body: type[N], action: Callable[[N], Action], told: str) -> Endpoint:
    """An action on one message."""

    async def ask(asked: Asked[Nothing, N]) -> Tally:
        wanted = asked.body
        return await _do(asked.control, asked.path["id"], action(wanted), wanted)

    ask.__doc__ = told
    return endpoint(
        "POST",
        f"/v1/messages/{{id}}/{word}",
        scope=Scope.OPERATE,
        query=Nothing,
        body=body,
        answer=Tally,
        tag="messages",
    )(ask)


async def _do(control: Control, id_: str, action: Action, wanted: ToOne) -> Tally:
    """Do it to each recipient that is named, or to all.

    Raises:
        UnknownError: there is no such message.
        Problem: somebody is named who is none of its recipients.
    """
    named = [
        mailbox(text, f"recipients[{number}]")
        for number, text in enumerate(wanted.recipients or ())
    ]
    known = (await control.timeline(id_)).message
    there = {str(each.address).casefold() for each in known.recipients}
    if strangers := [
        Fault(f"recipients[{number}]", "is no recipient of this message")
        for number, each in enumerate(named)
        if str(each).casefold() not in there
    ]:
        raise refused(*strangers)
    meant: list[Mailbox | None] = list(dict.fromkeys(named)) or [None]
    tallies = [
        await control.act(
            action,
            Filter(ids=(known.id,), recipient=None if each is None else str(each)),
            reason=wanted.reason,
            dry_run=wanted.dry_run,
        )
        for each in meant
    ]
    whole = Sum(
        messages=max(each.messages for each in tallies),
        recipients=sum(each.recipients for each in tallies),
        octets=max(each.octets for each in tallies),
        busy=sum(each.busy for each in tallies),
    )
    return tally_of(whole, dry_run=wanted.dry_run)


_SOME: Final = Selection(views=[View.DEFERRED], domain="example.net")
_PLAIN: Final[dict[str, tuple[Action, str]]] = {
    "retry": (Retry(), "Try what waits, now"),
    "hold": (Hold(), "Do not try it until it is released"),
    "release": (Release(), "Try what is held again"),
    "delete": (Delete(), "Give it up, and tell nobody"),
    "bounce": (Bounce(), "Give it up, and tell the sender"),
}
_DRY: Final = "With `dry_run` it is counted, and nothing is done."
_ALL: Final = f"An empty filter needs `all`. {_DRY}"


@endpoint(
    "DELETE",
    "/v1/messages/{id}",
    scope=Scope.OPERATE,
    query=Manner,
    body=Nothing,
    answer=Tally,
    tag="messages",
)
async def delete(asked: Asked[Manner, Nothing]) -> Tally:
    """Give a message up, and tell nobody.

    The same as `POST /v1/messages/{id}/delete`.
    """
    wanted = ToOne(reason=asked.query.reason, dry_run=asked.query.dry_run)
    return await _do(asked.control, asked.path["id"], Delete(), wanted)


def _plain(word: str, action: Action, told: str) -> tuple[Endpoint, Endpoint]:
    return (
        _many(
            word,
            ToMany(filter=_SOME, dry_run=True),
            lambda _: action,
            f"{told}: all mail that is meant.\n\n{_ALL}",
        ),
        _one(word, ToOne, lambda _: action, f"{told}: this message.\n\n{_DRY}"),
    )


def _reprioritise(wanted: ReprioritiseMany | ReprioritiseOne) -> Action:
    return Reprioritise(priority=priority_of(wanted.priority))


def _redirect(wanted: RedirectMany | RedirectOne) -> Action:
    return Redirect(to=mailbox(wanted.to, "to"))


def _reroute(wanted: RerouteMany | RerouteOne) -> Action:
    return Reroute(via=tuple(wanted.via))


def _reschedule(wanted: RescheduleMany | RescheduleOne) -> Action:
    return Reschedule(at=moment_of(wanted.at, "at"))


_OTHER_HOSTS: Final = "Deliver it by other hosts, or as the configuration says again"
_OTHER_TIME: Final = "Try it next at another time"
_SOONER: Final = "Let it go sooner or later than other mail"
_ELSEWHERE: Final = "Deliver it to another address"

ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    *(each for word, (action, told) in _PLAIN.items() for each in _plain(word, action, told)),
    _many(
        "reprioritise",
        ReprioritiseMany(filter=_SOME, priority="high"),
        _reprioritise,
        f"{_SOONER}: all that is meant.\n\n{_ALL}",
    ),
    _one("reprioritise", ReprioritiseOne, _reprioritise, f"{_SOONER}: this message.\n\n{_DRY}"),
    _many(
        "redirect",
        RedirectMany(filter=_SOME, to="alice@example.org"),
        _redirect,
        f"{_ELSEWHERE}: all that is meant.\n\n{_ALL}",
    ),
    _one("redirect", RedirectOne, _redirect, f"{_ELSEWHERE}: this message.\n\n{_DRY}"),
    _many(
        "reroute",
        RerouteMany(filter=_SOME, via=["smtp://relay.example.org:25"]),
        _reroute,
        f"{_OTHER_HOSTS}: all that is meant.\n\n{_ALL}",
    ),
    _one("reroute", RerouteOne, _reroute, f"{_OTHER_HOSTS}: this message.\n\n{_DRY}"),
    _many(
        "reschedule",
        RescheduleMany(filter=_SOME, at="2030-01-31T12:00:00Z"),
        _reschedule,
        f"{_OTHER_TIME}: all that is meant.\n\n{_ALL}",
    ),
    _one("reschedule", RescheduleOne, _reschedule, f"{_OTHER_TIME}: this message.\n\n{_DRY}"),
    delete,
)
