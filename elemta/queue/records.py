"""What is written into the store's rows, as MessagePack."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Struct

from elemta.protocol import Reply
from elemta.queue.model import Attempt, Holder, Message, Note, Recipient, State


class Standing(Struct, frozen=True, array_like=True):
    """How it stands with a recipient, besides what its row's columns say."""

    attempts: int
    last: Reply | None
    holder: Holder | None = None
    warned: bool = False


class Fate(Struct, frozen=True, array_like=True):
    """What became of a recipient of a finished message."""

    state: State
    attempts: int
    last: Reply | None


class Outcome(Struct, frozen=True, array_like=True):
    """How a message ended.

    Attributes:
        finished_at: seconds since the epoch.
        recipients: in the order of their numbers.
        attempts: those that ended it; earlier ones have rows of their own.
    """

    finished_at: float
    recipients: list[Fate]
    attempts: Sequence[Attempt]


_encode: Final = msgspec.msgpack.Encoder().encode
_message: Final = msgspec.msgpack.Decoder(Message)
_standing: Final = msgspec.msgpack.Decoder(Standing)
_outcome: Final = msgspec.msgpack.Decoder(Outcome)
_attempt: Final = msgspec.msgpack.Decoder(Attempt)
_note: Final = msgspec.msgpack.Decoder(Note)


def encode_message(message: Message) -> bytes:
    """For `message.record`."""
    return _encode(message)


def encode_arrival(message: Message) -> bytes:
    """The same for a message that has come some way since: its recipients have rows for that."""
    recipients = [
        Recipient(
            number=each.number,
            address=each.address,
            params=each.params,
            original=each.original,
            via=each.via,
            due=message.received_at,
        )
        for each in message.recipients
    ]
    return _encode(msgspec.structs.replace(message, recipients=recipients))


def decode_message(record: bytes) -> Message:
    """A message as it came in: each recipient is READY, and due since then."""
    return _message.decode(record)


def encode_standing(recipient: Recipient) -> bytes:
    """For `recipient.standing`."""
    return _encode(Standing(recipient.attempts, recipient.last, recipient.holder, recipient.warned))


def apply_standing(recipient: Recipient, state: str, due: float | None, standing: bytes) -> None:
    """Bring a recipient to where its row says it is."""
    found = _standing.decode(standing)
    recipient.state = State(state)
    recipient.due = due or 0.0
    recipient.attempts, recipient.last = found.attempts, found.last
    recipient.holder, recipient.warned = found.holder, found.warned


def encode_outcome(message: Message, at: float, attempts: Sequence[Attempt]) -> bytes:
    """For `message.outcome`."""
    recipients = [Fate(each.state, each.attempts, each.last) for each in message.recipients]
    return _encode(Outcome(at, recipients, attempts))


def apply_outcome(message: Message, outcome: bytes) -> tuple[float, Sequence[Attempt]]:
    """Bring a message to its end; returns when that was, and the attempts that ended it."""
    found = _outcome.decode(outcome)
    for recipient, final in zip(message.recipients, found.recipients, strict=True):
        recipient.state, recipient.due = final.state, 0.0
        recipient.attempts, recipient.last = final.attempts, final.last
        recipient.holder = None  # who held it when it came in does so no more
    return found.finished_at, found.attempts


def encode_attempt(attempt: Attempt) -> bytes:
    """For `attempt.record`."""
    return _encode(attempt)


def decode_attempt(record: bytes) -> Attempt:
    """From `attempt.record`."""
    return _attempt.decode(record)


def encode_note(note: Note) -> bytes:
    """For `note.record`."""
    return _encode(note)


def decode_note(record: bytes) -> Note:
    """From `note.record`."""
    return _note.decode(record)
