"""Mail that is handed in: as parts, or as it is to be."""

from __future__ import annotations

from typing import Annotated, Final

import trio
from msgspec import Meta, Struct, field

from elemta.api.compose import compose
from elemta.api.draft import Draft, File, Tags, letter_of
from elemta.api.endpoint import Asked, Endpoint, endpoint
from elemta.api.problem import Fault
from elemta.api.reading import refused
from elemta.api.schema import Urgency, priority_of
from elemta.api.visit import Scope
from elemta.api.words import Address, Sender, When, mailbox, moment_of, reverse_path
from elemta.control.checks import MAX_KEY
from elemta.control.facts import Submission, Submitted
from elemta.control.interface import RequestError
from elemta.message import split, without
from elemta.protocol import Mailbox, ReversePath

MESSAGE: Final = "message/rfc822"
#: The header that has an idempotency key.
KEY: Final = "Idempotency-Key"
#: Fields that are for who sends a message, and for nobody who gets it.
_OURS: Final = (b"bcc", b"resent-bcc", b"return-path")


class Envelope(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The envelope of a message; what is in its content counts only where this says nothing.

    Attributes:
        from: the sender, who hears of failure; ``<>`` for nobody. Must be there for
            `message/rfc822`.
        to: a recipient; may be given several times. Must be there for `message/rfc822`; else those
            of the body are the recipients.
        priority: the higher goes first.
        tag: a word by which operators find it; may be given several times.
        send_at: do not try it before: RFC 3339, or seconds since the epoch.
    """

    from_: Sender | None = field(default=None, name="from")
    to: Annotated[list[Address], Meta(max_length=100)] = []
    priority: Urgency | None = None
    tag: Tags = []
    send_at: When | None = None


class _Plan(Struct, frozen=True, kw_only=True):
    """A message that is to be handed in.

    Attributes:
        places: where each recipient stands in the request.
    """

    sender: ReversePath
    recipients: tuple[Mailbox, ...]
    places: tuple[str, ...]
    content: bytes
    priority: Urgency | None
    tags: tuple[str, ...]
    send_at: When | None


@endpoint(
    "POST",
    "/v1/messages",
    scope=Scope.SUBMIT,
    query=Envelope,
    body=Draft,
    answer=Submitted,
    tag="messages",
    takes=(MESSAGE,),
    status=201,
    example=Draft(
        from_="Alice <alice@example.org>",
        to=["Bob <bob@example.net>"],
        subject="Hello",
        text="How are you?\n",
        html="<p>How are you?</p>",
        attachments=[File(name="notes.txt", type="text/plain", content=b"one\ntwo\n")],
        tags=["greeting"],
    ),
    instead=Draft(from_=""),
    headers={KEY: "Who hands in the same again, with the same key, hands it in once."},
)
async def submit(asked: Asked[Envelope, Draft]) -> Submitted:
    """Hand in a message.

    Either as JSON, of which a message is composed, or as it is (RFC 5322), line ends CRLF or LF.
    Who hands in the same again, with the same header `Idempotency-Key`, hands it in once, and gets
    the same answer with `again`.
    It is ours, and durable, when this is answered.
    """
    key = asked.visit.headers.get(KEY)
    # One that is empty comes of a variable that is not set: it must not seem to keep its promise.
    if key is not None and (not 1 <= len(key) <= MAX_KEY or not key.isprintable()):
        raise refused(Fault(KEY, f"expected 1 to {MAX_KEY} printable characters"))
    raw = asked.arrival.media_type == MESSAGE
    plan = await (_as_it_is(asked) if raw else _composed(asked))
    query = asked.query
    urgency = query.priority or plan.priority
    send_at = plan.send_at if query.send_at is None else query.send_at
    asked.tell(
        f"from {plan.sender or '<>'} to {', '.join(map(str, plan.recipients[:20]))}"
        f"{', …' if len(plan.recipients) > 20 else ''}, {len(plan.content)} octets"
    )
    try:
        return await asked.control.submit(
            Submission(
                sender=plan.sender,
                recipients=plan.recipients,
                content=plan.content,
                priority=None if urgency is None else priority_of(urgency),
                tags=tuple(query.tag) or plan.tags,
                due=None if send_at is None else moment_of(send_at, "send_at"),
                key=key or "",
                client=asked.visit.client,
            )
        )
    except RequestError as error:
        raise RequestError(str(error), _place(error.place, plan)) from None


async def _as_it_is(asked: Asked[Envelope, Draft]) -> _Plan:
    query = asked.query
    faults = [
        Fault(name, "this parameter is missing")
        for name, missing in (("from", query.from_ is None), ("to", not query.to))
        if missing
    ]
    if faults:
        raise refused(*faults)
    return _Plan(
        sender=reverse_path(query.from_, "from"),
        recipients=_recipients(query),
        places=_places(query),
        content=await trio.to_thread.run_sync(_clean, asked.arrival.content),
        priority=None,
        tags=(),
        send_at=None,
    )


async def _composed(asked: Asked[Envelope, Draft]) -> _Plan:
    query, draft = asked.query, asked.body
    letter, everybody = letter_of(draft)
    places = {place: person.address for place, person in everybody}
    return _Plan(
        sender=letter.author.address if query.from_ is None else reverse_path(query.from_, "from"),
        recipients=_recipients(query) or tuple(places.values()),
        places=_places(query) or tuple(places),
        content=await trio.to_thread.run_sync(compose, letter),
        priority=draft.priority,
        tags=tuple(draft.tags),
        send_at=draft.send_at,
    )


def _recipients(query: Envelope) -> tuple[Mailbox, ...]:
    return tuple(mailbox(text, f"to[{number}]") for number, text in enumerate(query.to))


def _places(query: Envelope) -> tuple[str, ...]:
    return tuple(f"to[{number}]" for number in range(len(query.to)))


def _clean(content: bytes) -> bytes:
    """The content with the line ends of SMTP, and without what only its sender may know."""
    if b"\n" in content.replace(b"\r\n", b""):
        content = content.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    header, rest = split(content)
    return without(header, *_OURS) + rest


def _place(place: str, plan: _Plan) -> str:
    """Where what `Control` speaks of stands in the request."""
    if place.startswith("recipients["):
        number = int(place.removeprefix("recipients[").rstrip("]"))
        return plan.places[number]
    names = {"recipients": "to", "sender": "from", "due": "send_at", "key": KEY}
    return names.get(place, place)


ENDPOINTS: Final[tuple[Endpoint, ...]] = (submit,)
