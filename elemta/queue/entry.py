"""A message in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elemta.queue.ids import key_of
from elemta.queue.schema import Phase

if TYPE_CHECKING:
    from elemta.queue.lane import Stand
    from elemta.queue.model import Message, Recipient


class Entry:
    """A message that stands in memory as a whole, with all that is known of it.

    Attributes:
        key: its row in the store.
        phase: how the store has it, or will, once all that was submitted is written.
        left: how many recipients are not final yet.
        stands: by lane, its recipients that are ready there.
        shelved: by lane, its recipients that are ready, but wait on disk for a place there.
        works: how many workers have some of its recipients.
        writes: how many writes about it are on their way. While there are any, it stays: a read
            of the store would show it as it was.
        content: the body, if it is kept in memory for the first attempt.
    """

    __slots__ = (
        "content",
        "key",
        "left",
        "message",
        "phase",
        "shelved",
        "stands",
        "works",
        "writes",
    )

    def __init__(self, message: Message, phase: Phase = Phase.WHOLE) -> None:
        self.key = key_of(message.id)
        self.message = message
        self.phase = phase
        self.left = sum(not recipient.state.final for recipient in message.recipients)
        self.stands: dict[str, Stand] = {}
        self.shelved: dict[str, list[Recipient]] = {}
        self.works = 0
        self.writes = 0
        self.content: bytes | None = None

    @property
    def waiting(self) -> set[int]:
        """Numbers of its recipients that are ready, and that nobody has begun anything with."""
        lists = [stand.recipients for stand in self.stands.values()] + list(self.shelved.values())
        return {each.number for recipients in lists for each in recipients}

    @property
    def resting(self) -> bool:
        """Whether nobody has anything to do with it just now."""
        return not (self.stands or self.works or self.writes)
