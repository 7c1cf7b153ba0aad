"""What plugins see of mail that we have taken: one letter at a time, and the queue to steer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from elemta.message import delivered_to, return_path
from elemta.plugins.scene import TooLargeError
from elemta.protocol import Reply
from elemta.queue import Message, Recipient, Result

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from elemta.queue import MessageId, Priority


class Body(Protocol):
    """The content of a message as it is stored: CRLF line ends, trace fields above."""

    @property
    def size(self) -> int:
        """Octets."""
        ...

    def chunks(self) -> AsyncIterator[bytes]:
        """All of it, piece by piece; may be asked again.

        Raises:
            StoreUnavailable: it cannot be read just now.
        """
        ...


class Letter(Struct, frozen=True, eq=False):
    """A message, and one of its recipients, as it stood before the attempt. Plugins only read.

    Attributes:
        body: of a large message it may be gone from the disk once `Plugin.on_attempted` is asked.
        destination: the lane it is tried in, e.g. ``mx:example.net``.
    """

    message: Message
    recipient: Recipient
    body: Body
    destination: str

    async def read(self, most: int | None = None) -> bytes:
        """The whole content, in memory.

        Args:
            most: octets that are too many; None: whatever we took is not.

        Raises:
            TooLargeError: it has more.
            StoreUnavailable: it cannot be read just now.
        """
        if most is not None and self.body.size > most:
            raise TooLargeError(f"{self.body.size} octets are more than {most}")
        return b"".join([chunk async for chunk in self.body.chunks()])

    @property
    def number(self) -> int:
        """Attempts at this recipient before this one."""
        return self.recipient.attempts

    @property
    def head(self) -> bytes:
        """What a mailbox has above the content: Return-Path and Delivered-To (RFC 5321 §4.4).

        By the latter mail that comes back is known to go round in circles.
        """
        return return_path(self.message.sender) + delivered_to(
            self.recipient.address, self.recipient.original
        )


class Attempted(Struct, frozen=True):
    """What became of an attempt.

    Attributes:
        host: who was spoken to; or ``plugin:NAME``, whose verdict it was; empty if nobody.
        seconds: how long it took; of messages that are written to mailboxes together, all.
    """

    result: Result
    reply: Reply
    host: str
    seconds: float


class Steers(Protocol):
    """What a plugin may do with the queue; all of it stands in the message's timeline.

    A message that is not there any more is passed over; so is what of it is being tried just then.

    Each raises:
        StoreUnavailable: the disk. Nothing has changed.
    """

    async def hold(self, id: MessageId, reason: str) -> None:  # noqa: A002 # the word of people
        """Keep a message from being tried."""
        ...

    async def release(
        self,
        id: MessageId,  # noqa: A002
        reason: str = "",
        *,
        own: bool = False,
    ) -> None:
        """Let it be tried again, now.

        Args:
            id: of the message.
            reason: for its timeline.
            own: only what this plugin holds itself; what somebody else holds stays so.
        """
        ...

    async def reschedule(self, id: MessageId, due: float, reason: str = "") -> None:  # noqa: A002
        """Try it next at `due`, seconds since the epoch.

        Raises:
            ValueError: by then it is given up.
        """
        ...

    async def reprioritise(
        self,
        id: MessageId,  # noqa: A002
        priority: Priority,
        reason: str = "",
    ) -> None:
        """Let it go sooner, or later."""
        ...

    async def bounce(self, id: MessageId, reason: str) -> None:  # noqa: A002
        """Give it up, and tell its sender."""
        ...
