"""What a client wants to be told of, as it says in its query."""

from __future__ import annotations

from typing import Final, get_args

from msgspec import Struct

from elemta.queue import (
    AttemptStarted,
    MessageId,
    Parked,
    Queued,
    QueueEvent,
    Resumed,
    Suspended,
    Unparked,
)

#: The names of all events.
TYPES: Final = frozenset(kind.__name__ for kind in get_args(QueueEvent))


class EventChoice(Struct, frozen=True, kw_only=True):
    """Events for which all conditions hold; none means all.

    Attributes:
        types: one of these; none: of any.
        domain: about a recipient of this domain, or about the domain as a destination;
            ``*.example.net``: of one below it.
        id: about this message.
    """

    types: frozenset[str] = frozenset()
    domain: str | None = None
    id: MessageId | None = None

    def passes(self, event: QueueEvent, /) -> bool:
        """Whether they hold."""
        return (
            (not self.types or type(event).__name__ in self.types)
            and (self.id is None or getattr(event, "id", None) == self.id)
            and (self.domain is None or _about(event, self.domain))
        )


class Everything(Struct, frozen=True):
    """What was chosen before it came here."""

    def passes(self, happened: object, /) -> bool:
        """Whatever it is."""
        return True


def _about(event: QueueEvent, domain: str) -> bool:
    match event:
        case Queued() | AttemptStarted():
            return any(_is_in(each.domain, domain) for each in event.recipients)
        case Parked() | Unparked():
            return _is_in(event.lane.removeprefix("mx:"), domain)
        case Suspended() | Resumed():
            kind, _, name = event.scope.partition(":")
            return kind == "all" or _is_in(name.removeprefix("mx:"), domain)
        case _:
            recipient = getattr(event, "recipient", None)
            return recipient is not None and _is_in(recipient.domain, domain)


def _is_in(name: str, domain: str) -> bool:
    return name.endswith(domain[1:]) if domain.startswith("*.") else name == domain
