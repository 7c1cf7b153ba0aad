"""A message as JSON: what it is made of, and what of that makes no sense."""

from __future__ import annotations

import re
from typing import Annotated, Final, TypeAlias

from msgspec import Meta, Struct, field

from elemta.api.compose import Letter, Part, Person, parse_person
from elemta.api.patterns import MEDIA_TYPE, TAG
from elemta.api.problem import Fault
from elemta.api.reading import refused
from elemta.api.schema import Urgency
from elemta.api.words import When

#: An address, or a name and an address.
PersonText: TypeAlias = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=1000,
        examples=["Zoë Example <zoe@example.net>"],
        extra_json_schema={"format": "email"},
    ),
]
People: TypeAlias = Annotated[list[PersonText], Meta(max_length=1000)]
#: Words by which operators find a message.
Tags: TypeAlias = Annotated[
    list[Annotated[str, Meta(min_length=1, max_length=100, pattern=TAG)]],
    Meta(max_length=20),
]
_FIELD_NAME: Final = re.compile(r"[!-9;-~]{1,70}")
_MESSAGE_ID: Final = re.compile(r"<[!-;=?-~]{1,200}@[!-;=?-~]{1,200}>")
#: What is said elsewhere, made by us, or not for who hands in a message to say.
_OURS: Final = re.compile(
    r"from|to|cc|bcc|reply-to|subject|date|mime-version|content-.*|received|return-path|"
    r"delivered-to|resent-.*|authentication-results|dkim-signature|arc-.*",
    re.IGNORECASE,
)


class File(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something that goes with a message.

    Attributes:
        name: of the file.
        type: its media type.
        content: in base64.
    """

    name: Annotated[str, Meta(max_length=255)] = ""
    type: Annotated[str, Meta(pattern=MEDIA_TYPE)] = "application/octet-stream"
    content: bytes


class Draft(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A message.

    Attributes:
        from: who wrote it; its address is the sender's.
        to, cc, bcc: who gets it; nobody sees who stands in `bcc`.
        reply_to: who gets the answers.
        subject: what it is about.
        text: its plain text.
        html: the same as HTML.
        headers: further fields, by name.
        attachments: files that go with it.
        priority: the higher goes first.
        tags: words by which operators find it.
        send_at: do not try it before: RFC 3339, or seconds since the epoch.
    """

    from_: PersonText = field(name="from")
    to: People = []
    cc: People = []
    bcc: People = []
    reply_to: People = []
    subject: Annotated[str, Meta(max_length=2000)] = ""
    text: str | None = None
    html: str | None = None
    headers: dict[str, str] = {}
    attachments: Annotated[list[File], Meta(max_length=100)] = []
    priority: Urgency | None = None
    tags: Tags = []
    send_at: When | None = None


def letter_of(draft: Draft) -> tuple[Letter, list[tuple[str, Person]]]:
    """What a draft is to become; and to whom it goes, each with the place where it stands.

    Raises:
        Problem: with each thing in it that makes no sense.
    """
    faults: list[Fault] = []

    def person(text: str, place: str) -> Person | None:
        try:
            return parse_person(text)
        except ValueError as error:
            faults.append(Fault(place, f"expected an address, and this has {error}"))
            return None

    def people(name: str, texts: list[str]) -> list[tuple[str, Person]]:
        places = [(f"{name}[{number}]", text) for number, text in enumerate(texts)]
        return [(place, found) for place, text in places if (found := person(text, place))]

    author = person(draft.from_, "from")
    to, cc, bcc = people("to", draft.to), people("cc", draft.cc), people("bcc", draft.bcc)
    answers = people("reply_to", draft.reply_to)
    faults += _faults(draft)
    if not (draft.to or draft.cc or draft.bcc):
        faults.append(Fault("to", "expected somebody to whom it goes"))
    if faults or author is None:
        raise refused(*faults)
    letter = Letter(
        author=author,
        to=tuple(each for _, each in to),
        cc=tuple(each for _, each in cc),
        answers=tuple(each for _, each in answers),
        subject=draft.subject,
        text=draft.text,
        html=draft.html,
        fields=tuple(draft.headers.items()),
        parts=tuple(Part(each.name, each.type.lower(), each.content) for each in draft.attachments),
    )
    return letter, [*to, *cc, *bcc]


def _faults(draft: Draft) -> list[Fault]:
    """What makes no sense of all that is not an address."""
    faults: list[Fault] = []
    if not draft.subject.isprintable():
        faults.append(Fault("subject", "expected one line of printable text"))
    for name, value in draft.headers.items():
        place = f"headers.{name[:100]}"
        if not _FIELD_NAME.fullmatch(name):
            faults.append(Fault(place, "is no name of a header field (RFC 5322 §3.6.8)"))
        elif _OURS.fullmatch(name):
            faults.append(Fault(place, "is not for you to say, or has a key of its own"))
        elif len(value) > 2000 or not value.isprintable():
            faults.append(Fault(place, "expected one line of printable text"))
        elif name.lower() == "message-id" and not _MESSAGE_ID.fullmatch(value):
            faults.append(Fault(place, "expected <LEFT@RIGHT> (RFC 5322 §3.6.4)"))
    for number, each in enumerate(draft.attachments):
        place = f"attachments[{number}]"
        if not each.name.isprintable():
            faults.append(Fault(f"{place}.name", "expected printable text"))
        if each.type.lower().startswith(("multipart/", "message/")):
            told = "a message goes with another as application/octet-stream"
            faults.append(Fault(f"{place}.type", told))
    return faults
