"""What a plugin may change about a message, as values: the chain does it, and writes it down.

Numbers of fields are those of the message as its client sent it, whatever others have added or
taken away meanwhile: so plugins need not know of each other.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Final, TypeAlias

from msgspec import Struct
from typing_extensions import override

from elemta.config import chosen_targets
from elemta.message import encoded, fold
from elemta.protocol import Mailbox
from elemta.queue import Priority

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Octets of the value of one field, and of a tag.
LONGEST: Final = 64 * 1024
#: Octets of a line, without its end (RFC 5322 §2.1.1).
LINE: Final = 998
_TAG: Final = re.compile(r"[!-~]{1,64}")
_NAME: Final = re.compile(r"[!-9;-~]{1,77}")
_LINE_END: Final = re.compile(r"[\r\n\0]")
_FIELD: Final = re.compile(rb"[!-9;-~]+")
#: A fold, with something behind it in its line: a line of spaces alone is one that few can read.
_WHOLE_FOLD: Final = re.compile(r"\r\n(?=[ \t]+[^ \t\r\n])")
_FOLD: Final = re.compile(rb"\r\n(?=[ \t])")


class AddHeader(Struct, frozen=True):
    """One more field.

    Attributes:
        name: e.g. ``X-Spam-Score``.
        value: text without line ends; it is folded where it is long, and encoded where it must be
            (RFC 2047), except that in fields with addresses the names are the author's to encode.
        top: above all that is there (as trace fields stand, RFC 5321 §4.4), or below the last field
            of the header.
        verbatim: `value` stands right behind the colon, and may have folds of its own (CRLF and a
            space or a tab): so a signature is added as it was made, which is of ASCII.

    Raises:
        ValueError: that is no name, or `value` could become another field.
    """

    name: str
    value: str
    top: bool = True
    verbatim: bool = False

    def __post_init__(self) -> None:
        _check_name(self.name)
        value = self.value
        if self.verbatim:
            if max(map(len, self.octets(utf8=True).split(b"\r\n"))) > LINE:
                raise ValueError(f"a line of the field {self.name} has more than {LINE} octets")
            value = _WHOLE_FOLD.sub("", value)
        if _LINE_END.search(value):
            raise ValueError(f"a line end in the field {self.name}")
        if len(self.value) > LONGEST:
            raise ValueError(f"the field {self.name} has more than {LONGEST} characters")

    def octets(self, *, utf8: bool = False) -> bytes:
        """The whole field with its CRLF.

        Args:
            utf8: a field may have UTF-8, as its client has said SMTPUTF8 (RFC 6532); else what is
                not ASCII is encoded, or the next server could not take the message.
        """
        if not self.verbatim:
            return fold(self.name, self.value if utf8 else encoded(self.value))
        if utf8 or self.value.isascii():
            return f"{self.name}:{self.value}\r\n".encode("utf-8", "surrogateescape")
        octets = self.value.encode("utf-8", "surrogateescape")
        return fold(self.name, encoded(_WHOLE_FOLD.sub("", octets.decode("utf-8", "replace"))))

    @override
    def __str__(self) -> str:
        """For the timeline."""
        return f"add header {self.name}"


class RemoveHeader(Struct, frozen=True):
    """A field goes; nothing happens if there is none.

    Attributes:
        name: in any case.
        number: which of those with this name, from 1 at the top; 0: all.

    Raises:
        ValueError: that is no name, or no number.
    """

    name: str
    number: int = 0

    def __post_init__(self) -> None:
        _check_name(self.name)
        if self.number < 0:
            raise ValueError(f"no number of a field: {self.number}")

    @override
    def __str__(self) -> str:
        """For the timeline."""
        return f"remove header {self.name}"


class AddRecipient(Struct, frozen=True):
    """One more recipient; it is not held against what clients may do. Nobody twice.

    Attributes:
        address: who.
        quiet: the sender is told nothing of it, not even a failure (NOTIFY=NEVER, RFC 3461 §4.1):
            he does not know of this recipient.
    """

    address: Mailbox
    quiet: bool = False

    @override
    def __str__(self) -> str:
        """For the timeline."""
        return f"add recipient {self.address}"


class RemoveRecipient(Struct, frozen=True):
    """A recipient does not get it; nothing happens if it is none. Who is left gets it.

    Attributes:
        address: as the client named it, or one whom that led to.
    """

    address: Mailbox

    @override
    def __str__(self) -> str:
        """For the timeline."""
        return f"remove recipient {self.address}"


class Redirect(Struct, frozen=True):
    """Somebody else gets it in place of a recipient, who stands in reports as the first one.

    Attributes:
        address: as the client named it, or one whom that led to.
        to: who gets it. No alias is followed, and nobody's leave is asked.
    """

    address: Mailbox
    to: Mailbox

    @override
    def __str__(self) -> str:
        """For the timeline."""
        return f"redirect {self.address} to {self.to}"


class Prioritise(Struct, frozen=True):
    """It goes sooner, or later, than its client may ask for."""

    priority: Priority

    @override
    def __str__(self) -> str:
        """For the timeline."""
        return f"priority {self.priority.name.lower()}"


class Tag(Struct, frozen=True):
    """A word by which operators find it in the queue: printable ASCII, at most 64 characters.

    Raises:
        ValueError: it is none.
    """

    word: str

    def __post_init__(self) -> None:
        if not _TAG.fullmatch(self.word):
            raise ValueError(f"no tag: {self.word!r}")

    @override
    def __str__(self) -> str:
        """For the timeline."""
        return f"tag {self.word}"


class Via(Struct, frozen=True):
    """It goes by these targets, as the configuration writes them, whatever that says.

    Attributes:
        targets: hosts, or ``maildir``; see docs/delivery.md.
        recipient: for whom; None: for all there are by now.

    Raises:
        ValueError: one of them is no target, or they cannot stand together.
    """

    targets: tuple[str, ...]
    recipient: Mailbox | None = None

    def __post_init__(self) -> None:
        if not self.targets:
            raise ValueError("no targets")
        chosen_targets(self.targets)

    @override
    def __str__(self) -> str:
        """For the timeline."""
        whom = "" if self.recipient is None else f" for {self.recipient}"
        return f"route by {' '.join(self.targets)}{whom}"


#: All that a plugin may change.
Change: TypeAlias = (
    AddHeader | RemoveHeader | AddRecipient | RemoveRecipient | Redirect | Prioritise | Tag | Via
)


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"no name of a field: {name!r}")


def rewritten(
    header: bytes, changes: Iterable[Change], trace: bytes = b"", *, utf8: bool = False
) -> bytes:
    """A header with all changes of fields made.

    Args:
        header: lines with their CRLF; the last may lack it.
        trace: fields of our own that stand above it, and below what is added at the top: so it can
            be seen that we added that (RFC 8601 §4).
        changes: in the order in which they were asked for; others than of fields are passed over.
        utf8: fields may have UTF-8 (RFC 6532).

    Returns:
        The new header; every octet of what is not changed is as it was.
    """
    made = [each for each in changes if isinstance(each, (AddHeader, RemoveHeader))]
    if any(isinstance(each, RemoveHeader) for each in made):
        above, kept, below = arranged(header, made, utf8=utf8)
        header = b"".join([each.octets for each in kept])
    else:  # as nearly always: what is there need not be taken apart
        above, _, below = arranged(b"", made, utf8=utf8)
    if below and header and not header.endswith(b"\r\n"):
        header += b"\r\n"  # a message of nothing but fields may end within a line (RFC 3030)
    return b"".join([*(each.octets for each in above), trace, header, *(e.octets for e in below)])


class Field(Struct, frozen=True, gc=False):
    """A field, as `arranged` finds it.

    Attributes:
        name: in lower case; empty: it is no field.
        octets: all of it, folded as it is.
        number: which of its name it is in the message as its client sent it, from 1 at the top; 0:
            it is none of those.
    """

    name: bytes
    octets: bytes
    number: int = 0


def arranged(
    header: bytes, changes: Iterable[Change], *, utf8: bool = False
) -> tuple[list[Field], list[Field], list[Field]]:
    """The fields of a header with all changes made. The arguments are those of `rewritten`.

    Returns:
        Those that were added at the top, those that stay, and those that were added below them.
    """
    fields = _fields(header)
    there = [True] * len(fields)
    above: list[Field] = []
    below: list[Field] = []
    for change in changes:
        match change:
            case AddHeader(name=name, top=top):
                field = Field(name.lower().encode(), change.octets(utf8=utf8))
                if top:
                    above.insert(0, field)
                else:
                    below.append(field)
            case RemoveHeader(name=name, number=number):
                wanted = name.lower().encode()
                for place, each in enumerate(fields):
                    if each.name == wanted and number in (0, each.number):
                        there[place] = False
                if number == 0:
                    above = [each for each in above if each.name != wanted]
                    below = [each for each in below if each.name != wanted]
            case _:
                pass
    return above, [each for each, stays in zip(fields, there, strict=True) if stays], below


def _fields(header: bytes) -> list[Field]:
    """Whole fields, folded as they are."""
    if not header:
        return []  # as where none of them needs a look
    *whole, rest = header.split(b"\r\n")
    lines: list[bytes] = []
    for line in [*(each + b"\r\n" for each in whole), *([rest] if rest else [])]:
        if line[:1] in (b" ", b"\t") and lines:
            lines[-1] += line
        else:
            lines.append(line)
    seen: Counter[bytes] = Counter()
    fields: list[Field] = []
    for each in lines:
        name = _name_of(each)
        seen[name] += 1
        fields.append(Field(name, each, seen[name]))
    return fields


def _name_of(field: bytes) -> bytes:
    """As `elemta.message.HeaderScanner` finds it: what one sees the other can remove."""
    name, colon, _ = _FOLD.sub(b"", field).partition(b":")
    name = name.rstrip(b" \t").lower()
    return name if colon and _FIELD.fullmatch(name) else b""
