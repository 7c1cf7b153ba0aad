"""What an operator can do with mail that waits."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from msgspec import Struct

from elemta.protocol import Mailbox
from elemta.queue.model import WAITING, Priority, State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elemta.queue.bodies import StoredBody
    from elemta.queue.model import Attempt, Message, Recipient, Report


class Hold(Struct, frozen=True, tag="hold", omit_defaults=True):
    """Do not try this until it is released.

    Attributes:
        owner: whose hold it is; empty for who asks.
    """

    owner: str = ""


class Release(Struct, frozen=True, tag="release"):
    """Try what is held: now, or when its message is to be tried first."""


class Retry(Struct, frozen=True, tag="retry"):
    """Try what waits, now, whatever it waits for; and what is parked, see whether it answers."""


class Delete(Struct, frozen=True, tag="delete"):
    """Give this up, and tell nobody."""


class Bounce(Struct, frozen=True, tag="bounce"):
    """Give this up, and tell the sender."""


class Reprioritise(Struct, frozen=True, tag="reprioritise"):
    """Let the message go sooner or later than others: all of it, whoever of it is meant."""

    priority: Priority


class Redirect(Struct, frozen=True, tag="redirect"):
    """Deliver to another address, as if it had come in for that; a hold ends by it."""

    to: Mailbox


class Reroute(Struct, frozen=True, tag="reroute"):
    """Deliver by other hosts; what waits is tried at once, as if it had just come in.

    Attributes:
        via: targets, as the configuration writes them; none: as the configuration says.
    """

    via: tuple[str, ...]


class Reschedule(Struct, frozen=True, tag="reschedule"):
    """Try what waits at this time next, and not before; then go on as ever.

    Attributes:
        at: seconds since the epoch, not after a recipient is given up; in the past: now.
    """

    at: float


#: What to do.
Action: TypeAlias = (
    Hold | Release | Retry | Delete | Bounce | Reprioritise | Redirect | Reroute | Reschedule
)

_UNFINISHED: Final = (*WAITING, State.HELD)
_TAKES: Final[dict[type[Action], tuple[State, ...]]] = {
    Hold: WAITING,
    Release: (State.HELD,),
    Retry: WAITING,
    Reschedule: WAITING,
}


def concerned(
    action: Action | None, message: Message, recipients: list[Recipient]
) -> list[Recipient]:
    """Those of these recipients for whom there is something to do; without an action, all."""
    match action:
        case None:
            return recipients
        case Reprioritise(priority) if message.priority == priority:
            return []
        case Redirect(to):
            recipients = [each for each in recipients if each.address != to]
        case Reroute(via):
            recipients = [each for each in recipients if each.via != via]
        case _:
            pass
    states = _TAKES.get(type(action), _UNFINISHED)
    return [each for each in recipients if each.state in states]


def words_for(action: Action) -> str:
    """The action as a note has it, e.g. ``redirect bob@example.net``."""
    word = str(action.__struct_config__.tag)
    match action:
        case Reprioritise(priority):
            return f"{word} {priority.name.lower()}"
        case Redirect(to):
            return f"{word} {to}"
        case Reroute(via):
            return f"{word} {', '.join(via) or 'as configured'}"
        case Reschedule(at):
            return f"{word} {utc(at)}"
        case _:
            return word


def utc(at: float) -> str:
    """A time as notes have it; before 1970 it is 1970."""
    return datetime.fromtimestamp(max(0.0, at), UTC).isoformat(timespec="seconds")


class Tally(Struct, frozen=True, kw_only=True):
    """What an action came to, or would come to.

    Attributes:
        messages: of which at least one recipient is concerned.
        recipients: these.
        octets: of these messages, each counted whole.
        busy: recipients that are being tried right now, and so are left alone.
    """

    messages: int = 0
    recipients: int = 0
    octets: int = 0
    busy: int = 0


class MakesReports(Protocol):
    """Writes to the sender what became of recipients (RFC 3464), if there is a sender."""

    async def __call__(
        self,
        message: Message,
        failed: Sequence[tuple[Recipient, Attempt]],
        body: StoredBody | None,
    ) -> Sequence[Report]:
        """Make the reports.

        Args:
            message: whose recipients they are.
            failed: recipients, and what ended each.
            body: the content; None if it cannot be read.
        """
        ...
