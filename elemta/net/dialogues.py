"""What is said to and by clients and hosts: conversations that go on, and the last that are over.

Rules of this file:

- To write down costs next to nothing: a clock, a tuple, a reference to octets that are there
  anyway. It is made readable when somebody asks, or listens.
- Who writes down has masked what is secret (`elemta.protocol.mask_login`) and counts content
  instead of giving it: nothing here can give away what it never had.
- All of it is bounded: what a conversation remembers, how many conversations are remembered once
  they are over and what these come to, and how much waits for who listens.
"""

from __future__ import annotations

import time
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

from msgspec import Struct

from elemta.net.feed import Feed

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

#: Into us, or from us.
Direction: TypeAlias = Literal["in", "out"]
#: Who says something: the client of a conversation, or its server.
Speaker: TypeAlias = Literal["C", "S"]
#: A line as it went over the wire, or several with their line ends; or a remark of ours, as text.
Words: TypeAlias = bytes | str

#: What a conversation may remember of what was said, and all those that are over together.
MOST: Final = 48 * 1024
MOST_IN_ALL: Final = 32 * 2**20
#: What it costs to remember some words, beside their octets.
_EACH: Final = 160
#: Messages that a conversation knows it was about.
_MESSAGES: Final = 200


class Said(NamedTuple):
    """Something that was said.

    Attributes:
        at: seconds since the epoch.
    """

    at: float
    speaker: Speaker
    words: Words


class Standing(Struct, frozen=True, kw_only=True):
    """Where a conversation stands.

    Attributes:
        state: in the engine's words.
        messages: taken or given so far.
        message, sender, recipients, octets: what is under way; None between messages.
    """

    state: str
    messages: int = 0
    message: str | None = None
    sender: str | None = None
    recipients: int = 0
    octets: int = 0


class Dialogue:
    """A conversation, as it is written down by whoever leads it.

    Attributes:
        id: as logs have it.
        place: the listener that took it, or the lane that it is for.
        peer: the other end, as people know it.
        name: what the other end calls itself; empty until it did.
        tls: how it is encrypted; empty if it is not.
        login: who is logged in; empty if nobody is.
        began, ended: seconds since the epoch; `ended` is None while it goes on.
        messages: ids of those that it was about, the last of them.
        cut: lines that are forgotten, as there were too many.
        standing: tells where it stands; None: it is over, or has not begun.

    Resource handling:
        `begin` lists it; `end` it then, whatever happens.
    """

    __slots__ = (
        "__weakref__",
        "_clock",
        "_feeds",
        "_left",
        "_record",
        "_said",
        "began",
        "cut",
        "direction",
        "ended",
        "id",
        "login",
        "messages",
        "name",
        "peer",
        "place",
        "standing",
        "tls",
    )

    def __init__(
        self,
        record: Dialogues,
        direction: Direction,
        place: str,
        peer: str,
        id: str,  # noqa: A002 # the word of people
    ) -> None:
        self.id = id
        self.direction: Direction = direction
        self.place = place
        self.peer = peer
        self.name = self.tls = self.login = ""
        self.began = record.clock()
        self.ended: float | None = None
        self.messages: list[str] = []
        self.cut = 0
        self.standing: Callable[[], Standing] | None = None
        self._record = record
        self._clock = record.clock
        self._feeds = record.feeds
        self._said: list[tuple[float, Speaker, Words]] = []
        self._left = MOST

    def begin(self, standing: Callable[[], Standing]) -> None:
        """Let it be found among those that go on.

        Args:
            standing: tells where it stands.
        """
        self.standing = standing
        self._record.opened(self)

    def end(self) -> None:
        """It is over; may be repeated."""
        if self.ended is None:
            self.ended = self._clock()
            self.standing = None  # it knows whoever led this: they may be forgotten now
            self._record.closed(self)

    def said(self, speaker: Speaker, words: Words) -> None:
        """Write down what was said. Several lines of one speaker may come at once."""
        at = self._clock()
        self._said.append((at, speaker, words))
        self._left -= len(words) + _EACH
        if self._left < 0:
            self._forget()
        if self._feeds:
            self._record.tell(self, Said(at, speaker, words))

    def about(self, message: str) -> None:
        """What is said from here on is about this message."""
        messages = self.messages
        if not messages or messages[-1] != message:
            messages.append(message)
            if len(messages) > _MESSAGES:
                del messages[0]

    @property
    def weight(self) -> int:
        """What it costs to remember, in octets."""
        return MOST - self._left

    def all_said(self) -> list[Said]:
        """What is remembered, in order."""
        return [Said(*each) for each in self._said]

    def _forget(self) -> None:
        """Forget the older half, so that this is not done for each line."""
        old = self._said[: len(self._said) // 2 + 1]
        del self._said[: len(old)]
        for _, _, words in old:
            self._left += len(words) + _EACH
            self.cut += count_of(words)


#: What is told to who listens.
Heard: TypeAlias = tuple[Dialogue, Said]
#: Whether a conversation, in which something was just said, is of interest.
Meant: TypeAlias = "Callable[[Dialogue, Said], bool]"


class Dialogues:
    """All conversations of a process.

    Args:
        kept: how many are remembered when they are over.
        clock: seconds since the epoch.

    Attributes:
        feeds: of those who listen; for `Dialogue`.
    """

    def __init__(self, kept: int, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self.feeds: list[tuple[Feed[Heard], Meant]] = []
        self._kept = kept
        self._open: dict[Dialogue, None] = {}  # in order
        self._over: deque[Dialogue] = deque()
        self._weight = 0  # of those that are over

    def resize(self, kept: int) -> None:
        """Remember more, or fewer, from now on."""
        self._kept = kept
        self._forget()

    @property
    def open(self) -> list[Dialogue]:
        """Those that go on, the oldest first."""
        return list(self._open)

    def about(self, message: str) -> list[Dialogue]:
        """Those that were about a message, in the order in which they began."""
        found = [each for each in (*self._over, *self._open) if message in each.messages]
        return sorted(found, key=lambda each: each.began)

    @contextmanager
    def listen(self, buffer: int, meant: Meant) -> Generator[Feed[Heard]]:
        """Hear what is said from now on in conversations that are of interest.

        Args:
            buffer: how much may wait to be read.
            meant: asked for each thing that is said; must be quick.
        """
        feed = Feed[Heard](buffer)
        entry = (feed, meant)
        self.feeds.append(entry)
        try:
            with feed:
                yield feed
        finally:
            self.feeds.remove(entry)

    # For `Dialogue`.

    def opened(self, dialogue: Dialogue) -> None:
        """It has begun."""
        self._open[dialogue] = None

    def closed(self, dialogue: Dialogue) -> None:
        """It is over."""
        self._open.pop(dialogue, None)
        self._over.append(dialogue)
        self._weight += dialogue.weight
        if len(self._over) > self._kept or self._weight > MOST_IN_ALL:
            self._forget()

    def tell(self, dialogue: Dialogue, said: Said) -> None:
        """Something was said, and somebody listens."""
        for feed, meant in self.feeds:
            if meant(dialogue, said):
                feed.put((dialogue, said))

    def _forget(self) -> None:
        while len(self._over) > self._kept or self._weight > MOST_IN_ALL:
            self._weight -= self._over.popleft().weight


#: Makes a conversation with the peer that is called so.
Records: TypeAlias = "Callable[[str], Dialogue]"


def unheard(peer: str = "") -> Dialogue:
    """A conversation that nobody can ask for."""
    return Dialogue(Dialogues(0), "out", "", peer, "")


def lines(words: Words) -> tuple[str, ...]:
    """What was said, as people may see it: a line each, without its end.

    What is not printable is escaped, so that nothing can forge a line or move a cursor; a remark
    of ours stands in parentheses.
    """
    if isinstance(words, str):
        return (printable(f"({words})"),)
    found = words.split(b"\n")
    if not found[-1] and len(found) > 1:
        del found[-1]
    texts = (each.removesuffix(b"\r").decode("utf-8", "backslashreplace") for each in found)
    return tuple(map(printable, texts))


def count_of(words: Words) -> int:
    """How many `lines` there are."""
    if isinstance(words, str):
        return 1
    return words.count(b"\n") + (not words.endswith(b"\n"))


def printable(text: str) -> str:
    """Text without anything that a terminal obeys."""
    if text.isprintable():
        return text
    return "".join(mark if mark.isprintable() else f"\\x{ord(mark):02x}" for mark in text)
