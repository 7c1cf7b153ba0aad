"""The fields of a message as a milter knows them, and what became of them as changes of ours.

A milter counts the fields of a name as they stand after all it has changed already; our own changes
count as the client sent them. So what it asks for is done here, to a list, and told at the end.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from elemta.plugins.changes import AddHeader, Change, RemoveHeader, arranged
from elemta.plugins.milter.wire import MilterError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: How often a milter may change the header of one message, and with how many octets.
MOST_CHANGES: Final = 1000
MOST_OCTETS: Final = 1024 * 1024

_LINE_END: Final = re.compile(r"\r?\n")
_BREAK: Final = re.compile(r"\r?\n(?![ \t])")
_FOLD: Final = re.compile(rb"\r\n(?=[ \t])")


class Standing(Struct, eq=False, gc=False):
    """A field that stands in the message now.

    Attributes:
        name: as it is written.
        value: what stands behind the colon, without the line end at the end.
        number: which of its name it was, from 1; 0: the client sent none of those.
        new: this milter made it.
    """

    name: bytes
    value: bytes
    number: int = 0
    new: bool = False

    def called(self, name: bytes) -> bool:
        """Whether it has this name."""
        return self.name.lower() == name.lower()


class Fields:
    """The header of one message while one milter changes it.

    Args:
        header: as the client sent it.
        changes: those made to it already.
        utf8: fields may have UTF-8.
        spaces: the milter hears, and says, the space behind the colon, too.
    """

    def __init__(
        self, header: bytes, changes: Iterable[Change], *, spaces: bool, utf8: bool = False
    ) -> None:
        above, kept, below = arranged(header, changes, utf8=utf8)
        self._spaces = spaces
        self._before: Final = [
            Standing(name.rstrip(b" \t"), value.removesuffix(b"\r\n"), each.number)
            for each in (*above, *kept, *below)
            for name, _, value in [each.octets.partition(b":")]
            if each.name  # what else stands in a header is nothing to speak of
        ]
        self._now = list(self._before)
        self._changes = self._octets = 0

    def said(self) -> Iterator[tuple[bytes, bytes]]:
        """Names and values as a milter hears them: line ends are LF."""
        for each in self._before:
            value = _FOLD.sub(b"\n", each.value)
            yield each.name, value if self._spaces else value.lstrip(b" \t")

    def add(self, name: bytes, value: bytes) -> None:
        """One more, at the end.

        Raises:
            MilterError: these are too many; so each of these.
        """
        self._now.append(self._made(name, value))

    def insert(self, place: int, name: bytes, value: bytes) -> None:
        """One more, at a place: 0 and 1 are the top, as milters count a Received of ours."""
        self._now.insert(max(0, place - 1), self._made(name, value))

    def change(self, number: int, name: bytes, value: bytes) -> None:
        """Another value for that of this name, from 1; none: it goes; none there: it is added."""
        made = self._made(name, value)
        places = [place for place, each in enumerate(self._now) if each.called(name)]
        number = max(1, number)
        place = places[number - 1] if number <= len(places) else len(self._now)
        self._now[place : place + 1] = [made] if value else []

    def changes(self) -> list[Change]:
        """What was done, for us to do.

        Raises:
            MilterError: no header can have such a field.
        """
        # Of those that other plugins have added none can be taken away alone: all of their name
        # are, and those that stay are added again.
        anew = {
            each.name.lower() for each in self._before if not (each.number or each in self._now)
        }
        removed: list[Change] = [RemoveHeader(name.decode()) for name in sorted(anew)]
        removed += [
            RemoveHeader(_text(each.name), each.number)
            for each in self._before
            if each.number and each not in self._now and each.name.lower() not in anew
        ]
        top: list[Change] = []
        bottom: list[Change] = []
        seen = False
        for each in self._now:
            if each.new or each.name.lower() in anew:
                field = _added(each, top=not seen)
                if seen:
                    bottom.append(field)
                else:
                    top.insert(0, field)
            else:
                seen = True
        return [*removed, *top, *bottom]

    def _made(self, name: bytes, value: bytes) -> Standing:
        self._changes += 1
        self._octets += len(name) + len(value)
        if self._changes > MOST_CHANGES or self._octets > MOST_OCTETS:
            raise MilterError("too many changes of the header")
        return Standing(name, value if self._spaces else b" " + value, new=True)


def _added(field: Standing, *, top: bool) -> AddHeader:
    name, value = _text(field.name), field.value.decode("utf-8", "surrogateescape")
    value = _LINE_END.sub("\r\n", value).rstrip("\r\n")
    try:
        return AddHeader(name, value, top, verbatim=True)
    except ValueError:
        pass  # a line that is too long, or no line at all: it is folded anew, if that is all
    text = value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    text = _LINE_END.sub("", _BREAK.sub(" ", text))
    try:
        return AddHeader(name, text.strip(), top)
    except ValueError as error:
        raise MilterError(f"a field that cannot be: {error}") from error


def _text(name: bytes) -> str:
    try:
        return name.decode("ascii")
    except UnicodeDecodeError:
        raise MilterError(f"a field with the name {name[:100]!r}") from None
