"""What a plugin may change about a message, as values: the chain does it, and writes it down.

Numbers of fields are those of the message as its client sent it, whatever others have added or
taken away meanwhile: so plugins need not know of each other.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, TypeAlias

from msgspec import Struct
from typing_extensions import override

from elemta.config import chosen_targets
from elemta.message import fold
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
#: A fold, with something behind it in its line: a line of spaces alone is one that few can read.
_FOLD: Final = re.compile(r"\r\n(?=[ \t]+[^ \t\r\n])")


class AddHeader(Struct, frozen=True):
    """One more field.

    Attributes:
        name: e.g. ``X-Spam-Score``.
        value: without line ends; it is folded where it is long.
        top: above all that is there (as trace fields stand, RFC 5321 §4.4), or below the last field
            of the header.
        verbatim: `value` stands right behind the colon, and may have folds of its own (CRLF and a
            space or a tab): so a signature is added as it was made.

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
            if max(map(len, self.octets.split(b"\r\n"))) > LINE:
                raise ValueError(f"a line of the field {self.name} has more than {LINE} octets")
            value = _FOLD.sub("", value)
        if _LINE_END.search(value):
            raise ValueError(f"a line end in the field {self.name}")
        if len(self.value) > LONGEST:
            raise ValueError(f"the field {self.name} has more than {LONGEST} characters")

    @property
    def octets(self) -> bytes:
        """The whole field with its CRLF."""
        if self.verbatim:
            return f"{self.name}:{self.value}\r\n".encode("utf-8", "surrogateescape")
        return fold(self.name, self.value)

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


def rewritten(header: bytes, changes: Iterable[Change], trace: bytes = b"") -> bytes:
    """A header with all changes of fields made.

    Args:
        header: whole fields, each line with its CRLF.
        trace: fields of our own that stand above it, and below what is added at the top: so it can
            be seen that we added that (RFC 8601 §4).
        changes: in the order in which they were asked for; others than of fields are passed over.

    Returns:
        The new header; every octet of what is not changed is as it was.
    """
    fields = _fields(header)
    there = [True] * len(fields)
    above: list[tuple[bytes, bytes]] = []
    below: list[tuple[bytes, bytes]] = []
    for change in changes:
        match change:
            case AddHeader(name=name, top=top):
                field = (name.lower().encode(), change.octets)
                if top:
                    above.insert(0, field)
                else:
                    below.append(field)
            case RemoveHeader(name=name, number=number):
                wanted, seen = name.lower().encode(), 0
                for place, (each, _) in enumerate(fields):
                    if each == wanted:
                        seen += 1
                        if number in (0, seen):
                            there[place] = False
                if number == 0:
                    above = [each for each in above if each[0] != wanted]
                    below = [each for each in below if each[0] != wanted]
            case _:
                pass
    kept = [field for field, wanted in zip(fields, there, strict=True) if wanted]
    return b"".join([octets for _, octets in [*above, (b"", trace), *kept, *below]])


def _fields(header: bytes) -> list[tuple[bytes, bytes]]:
    """Whole fields, folded as they are, and their names in lower case."""
    fields: list[tuple[bytes, bytes]] = []
    for line in header.splitlines(keepends=True):
        if line[:1] in b" \t" and fields:
            name, octets = fields[-1]
            fields[-1] = (name, octets + line)
        else:
            fields.append((line.partition(b":")[0].rstrip(b" \t").lower(), line))
    return fields
