"""What a plugin answers: a closed union, so that each place that asks handles each answer."""

from __future__ import annotations

from typing import Final, TypeAlias

from msgspec import Struct

from elemta.plugins.changes import Change
from elemta.protocol import Reply, reply


class Continue(Struct, frozen=True, gc=False):
    """No objection; ask the next plugin.

    Attributes:
        changes: made to the message, in this order.
        note: for our own log.
    """

    changes: tuple[Change, ...] = ()
    note: str = ""

    @property
    def reply(self) -> None:
        """There is nothing to tell the client."""


class Accept(Struct, frozen=True, gc=False):
    """No objection, and at this step no later plugin is asked. At the next one all are.

    Attributes:
        text: told to the client behind what it is told anyway, at the end of the message.
        changes: made to the message, in this order.
        note: for our own log.
    """

    text: str = ""
    changes: tuple[Change, ...] = ()
    note: str = ""

    def __post_init__(self) -> None:
        _check(self.text)

    @property
    def reply(self) -> None:
        """It is no objection."""


class Defer(Struct, frozen=True, gc=False):
    """Not now: 451, and the client tries again (RFC 5321 §4.2.1). To a connection: 421.

    Too many recipients, x.5.3, are 452: the client sends the rest at once (§4.5.3.1.10).

    Attributes:
        status: subject and detail of the enhanced code (RFC 3463 §3).
        text: for the client to read; names no host, path or rule of ours.
        note: for our own log.
        code: another than that, 400 to 499; not 421, which ends a conversation.

    Raises:
        LocalProtocolError: `text` cannot stand in a reply.
        ValueError: a `code` that is none.
    """

    status: tuple[int, int]
    text: str
    note: str = ""
    code: int | None = None

    def __post_init__(self) -> None:
        if self.code is not None and (self.code == 421 or not 400 <= self.code <= 499):
            raise ValueError(f"no code to defer with: {self.code}")
        bytes(self.reply)  # raises here, in the plugin that made the mistake

    @property
    def reply(self) -> Reply:
        """What the client is told."""
        code = self.code or (452 if self.status == (5, 3) else 451)
        return Reply(code, self.status, (self.text,))


class Reject(Struct, frozen=True, gc=False):
    """Never: 550. To a connection: 554. The fields are those of `Defer`; `code` is 500 to 599."""

    status: tuple[int, int]
    text: str
    note: str = ""
    code: int = 550

    def __post_init__(self) -> None:
        if not 500 <= self.code <= 599:
            raise ValueError(f"no code to reject with: {self.code}")
        bytes(self.reply)

    @property
    def reply(self) -> Reply:
        """What the client is told."""
        return Reply(self.code, self.status, (self.text,))


class Discard(Struct, frozen=True, gc=False):
    """Take it, and give it to nobody. Its timeline says so, and who wanted that.

    For a recipient it concerns that one alone; before MAIL, all that comes on this connection. No
    later plugin is asked at this step; a later step may still refuse.

    Attributes:
        text: told to the client behind what it is told anyway, at the end of the message.
        note: for the timeline and our own log.
    """

    note: str
    text: str = ""

    def __post_init__(self) -> None:
        _check(self.text)

    @property
    def reply(self) -> None:
        """The client is told nothing of it."""


class Quarantine(Struct, frozen=True, gc=False):
    """Take it, and hold it in the queue until an operator looks at it.

    He finds it by `elemta queue list --view hold`.
    For a recipient it concerns that one alone; before MAIL, all that comes on this connection.
    Later plugins are asked, and may still refuse or discard it.

    Attributes:
        reason: for operators.
        text: told to the client behind what it is told anyway, at the end of the message.
        changes: made to the message, in this order.
        note: for our own log, beside the reason.
    """

    reason: str
    text: str = ""
    changes: tuple[Change, ...] = ()
    note: str = ""

    def __post_init__(self) -> None:
        _check(self.text)

    @property
    def reply(self) -> None:
        """The client is told nothing of it."""


CONTINUE: Final = Continue()


def change(*changes: Change, note: str = "") -> Continue:
    """No objection, but this is to be changed: ``change(AddHeader("X-Seen", "yes"), Tag("seen"))``.

    Args:
        changes: made to the message, in this order.
        note: for our own log.
    """
    return Continue(changes, note)


Verdict: TypeAlias = Continue | Accept | Defer | Reject | Discard | Quarantine

#: What makes an end of a message though its client hears 250.
Fate: TypeAlias = Discard | Quarantine


def _check(text: str) -> None:
    """Raises LocalProtocolError if a reply cannot have this text."""
    if text:
        bytes(reply(250, 0, 0, text))
