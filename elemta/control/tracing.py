"""Who is connected and what is said, as facts: the record of conversations made readable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from elemta.control.facts import Said, SessionStatus, Spoken, Transcript
from elemta.net.dialogues import lines, printable
from elemta.net.feed import Lost
from elemta.queue import Missed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

    from elemta.control.facts import TraceFilter
    from elemta.net import dialogues
    from elemta.net.dialogues import Dialogue, Dialogues, Words

#: Things said that a watcher may be behind.
BEHIND: Final = 10_000


def sessions(record: Dialogues) -> list[SessionStatus]:
    """Conversations that go on, the oldest first."""
    return [_status(each) for each in record.open]


def transcripts(record: Dialogues, message: str) -> list[Transcript]:
    """What was said about a message, conversation by conversation, the oldest first."""
    return [_transcript(each) for each in record.about(message)]


async def trace(record: Dialogues, filter: TraceFilter) -> AsyncGenerator[Spoken | Missed]:  # noqa: A002 # the word of people
    """What is said from now on in conversations that are meant."""
    with record.listen(BEHIND, Meant(filter)) as feed:
        async for heard in feed:
            if isinstance(heard, Lost):
                yield Missed(heard.count)
                continue
            dialogue, said = heard
            for text in lines(said.words):
                yield Spoken(
                    session=dialogue.id,
                    direction=dialogue.direction,
                    place=dialogue.place,
                    peer=dialogue.peer,
                    at=said.at,
                    speaker=said.speaker,
                    text=text,
                )


class Meant:
    """Whether a conversation is meant by a filter; see `TraceFilter` for what that means.

    Once somebody has named the address that is looked for, a conversation stays meant: also if
    that was before anybody listened.
    """

    def __init__(self, filter: TraceFilter) -> None:  # noqa: A002 # the word of people
        self._filter = filter
        self._peer = None if filter.peer is None else filter.peer.casefold()
        self._address = None if filter.address is None else filter.address.casefold()
        #: Whether the address was named, in conversations that go on.
        self._named: WeakKeyDictionary[Dialogue, bool] = WeakKeyDictionary()

    def __call__(self, dialogue: Dialogue, said: dialogues.Said) -> bool:
        """For `Dialogues.listen`."""
        wanted = self._filter
        return (
            (wanted.direction is None or wanted.direction == dialogue.direction)
            and (wanted.place is None or wanted.place == dialogue.place)
            and (wanted.session is None or wanted.session == dialogue.id)
            and (self._peer is None or self._is_with(self._peer, dialogue))
            and (self._address is None or self._names(self._address, dialogue, said.words))
        )

    def _is_with(self, peer: str, dialogue: Dialogue) -> bool:
        return peer in dialogue.peer.casefold() or peer in dialogue.name.casefold()

    def _names(self, address: str, dialogue: Dialogue, words: Words) -> bool:
        named = self._named.get(dialogue)
        if named is None:  # what is said just now is among what was said
            named = any(_has(address, said.words) for said in dialogue.all_said())
        elif not named:
            named = _has(address, words)
        self._named[dialogue] = named
        return named


def _has(address: str, words: Words) -> bool:
    text = words if isinstance(words, str) else words.decode("utf-8", "backslashreplace")
    return address in text.casefold()


def _status(dialogue: Dialogue) -> SessionStatus:
    standing = dialogue.standing
    assert standing is not None, "it goes on"
    now = standing()
    return SessionStatus(
        id=dialogue.id,
        direction=dialogue.direction,
        place=dialogue.place,
        peer=dialogue.peer,
        name=printable(dialogue.name),
        state=now.state,
        tls=dialogue.tls,
        login=dialogue.login,
        since=dialogue.began,
        messages=now.messages,
        message=now.message,
        sender=now.sender,
        recipients=now.recipients,
        octets=now.octets,
    )


def _transcript(dialogue: Dialogue) -> Transcript:
    return Transcript(
        id=dialogue.id,
        direction=dialogue.direction,
        place=dialogue.place,
        peer=dialogue.peer,
        began=dialogue.began,
        ended=dialogue.ended,
        messages=tuple(dialogue.messages),
        said=tuple(_said(dialogue.all_said())),
        cut=dialogue.cut,
    )


def _said(all_said: Iterable[dialogues.Said]) -> Iterable[Said]:
    for at, speaker, words in all_said:
        for text in lines(words):
            yield Said(at, speaker, text)
