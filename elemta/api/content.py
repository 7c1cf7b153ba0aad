"""What a message says, for people to look at: never fails, whatever octets it is given.

Only so much of a message is looked at, since a hostile one can have any number of parts.
"""

from __future__ import annotations

import codecs
import email
import email.errors
import email.header
import email.parser
from email.policy import Compat32
from typing import TYPE_CHECKING, Final

from msgspec import Struct
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Iterator
    from email.message import Message

#: Octets of a message that are looked at, and lines of these: each costs 10 µs.
LOOKED_AT: Final = 2**20
LINES: Final = 50_000
#: Parts that are shown; and lines that may be borders of some, and are looked at.
PARTS: Final = 100
BORDERS: Final = 1000
#: Parts that have parts: each is one call deeper, and one more border to look for in each line.
NESTED: Final = 50
#: Characters of a body, of a header field, and of the name of a file.
LONGEST_BODY: Final = 2**18
LONGEST_FIELD: Final = 2000
LONGEST_NAME: Final = 255
#: Header fields.
FIELDS: Final = 500
#: Codecs that are none of a charset; some take the square of the time.
_NO_CHARSETS: Final = frozenset(
    {"idna", "punycode", "raw_unicode_escape", "undefined", "unicode_escape"}
)


class Attachment(Struct, frozen=True):
    """A part that is not shown.

    Attributes:
        name: of its file; empty if it has none.
        type: its media type.
        size: octets, decoded.
    """

    name: str
    type: str
    size: int


class Contents(Struct, frozen=True, kw_only=True):
    """What a message says.

    Attributes:
        headers: names and values, decoded, in order.
        text: its plain text; null: it has none.
        html: its HTML, as it is: nothing of it is safe. Null: it has none.
        attachments: what else is in it.
        cut: there is more in it than is looked at.
    """

    headers: list[tuple[str, str]]
    text: str | None
    html: str | None
    attachments: list[Attachment]
    cut: bool = False


class _Short(Compat32):
    """Fields that are cut: to look for a parameter takes the square of their number.

    The older policy, since what the newer one makes of fields fails for some of them.
    """

    @override
    def header_source_parse(self, sourcelines: list[str]) -> tuple[str, str]:
        name, value = super().header_source_parse(sourcelines)
        return name, value[:LONGEST_FIELD]


_POLICY: Final = _Short()


def view_of(content: bytes, *, cut: bool = False) -> Contents:
    """Look at a message. Takes some 100 ms for a megabyte: call it in a thread.

    Args:
        content: RFC 5322, or what was taken for it.
        cut: there is more of it.
    """
    looked_at = content[: _end(content)]
    cut = cut or len(looked_at) < len(content)
    message = _parsed(looked_at)
    bodies: dict[str, str] = {}
    attachments: list[Attachment] = []
    for number, part in enumerate(_leaves(message)):
        if number == PARTS:
            cut = True
            break
        kind = part.get_content_type()
        octets = _octets(part)
        if kind in ("text/plain", "text/html") and kind not in bodies and not _is_attached(part):
            text = _decoded(octets, part.get_param("charset"))
            cut = cut or len(text) > LONGEST_BODY
            bodies[kind] = text[:LONGEST_BODY]
        else:
            attachments.append(Attachment(_name(part), _clean(kind), len(octets)))
    fields = list(message.raw_items())
    return Contents(
        headers=[
            (_clean(name[:LONGEST_NAME]), _field(str(value))) for name, value in fields[:FIELDS]
        ],
        text=bodies.get("text/plain"),
        html=bodies.get("text/html"),
        attachments=attachments,
        cut=cut or len(fields) > FIELDS,
    )


def _end(content: bytes) -> int:
    """How much of a message is looked at."""
    return min(_nth(content, b"\n", LINES), _nth(content, b"\n--", BORDERS))


def _nth(content: bytes, mark: bytes, number: int) -> int:
    """Where a mark stands for the nth time; the end of what is looked at if it does not."""
    place = -1
    for _ in range(number):
        place = content.find(mark, place + 1, LOOKED_AT)
        if place < 0:
            return LOOKED_AT
    return place


def _parsed(content: bytes) -> Message[str, str]:
    """The message; one that is nested too deep is all text."""
    folded = content.lower()
    parser = email.parser.BytesParser(policy=_POLICY)
    flat = folded.count(b"multipart/") + folded.count(b"message/") > NESTED
    message = parser.parsebytes(content, headersonly=flat)
    if flat:
        message.set_type("text/plain")
    return message


def _leaves(message: Message[str, str]) -> Iterator[Message[str, str]]:
    """The parts that have no parts."""
    for part in message.walk():
        if not part.is_multipart():
            yield part


def _octets(part: Message[str, str]) -> bytes:
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def _is_attached(part: Message[str, str]) -> bool:
    return part.get_content_disposition() == "attachment"


def _name(part: Message[str, str]) -> str:
    try:
        name = part.get_filename() or ""
    except (ValueError, LookupError, TypeError):  # what looks like RFC 2231, and is not
        return ""
    return _field(name)[:LONGEST_NAME]


def _field(value: str) -> str:
    """A header field's value, its encoded words decoded (RFC 2047)."""
    octets = value.encode("utf-8", "surrogateescape")
    text = " ".join(octets.decode("utf-8", "replace").split())
    try:
        words = email.header.decode_header(text)
    except (email.errors.HeaderParseError, ValueError):
        return text
    return "".join(
        word if isinstance(word, str) else _decoded(word, charset) for word, charset in words
    )


def _decoded(octets: bytes, charset: object) -> str:
    """Text; UTF-8 if nobody knows better."""
    try:
        found = codecs.lookup(charset) if isinstance(charset, str) else None
        if found is not None and found.name not in _NO_CHARSETS:
            return _clean(octets.decode(found.name, "replace"))
    except (ValueError, LookupError):
        pass
    return octets.decode("utf-8", "replace")


def _clean(text: str) -> str:
    """Without halves of surrogate pairs, which no JSON can have."""
    return text.encode("utf-8", "replace").decode()
