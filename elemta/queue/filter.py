"""Which recipients somebody means: the words that people sort a queue by."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from elemta.queue.ids import first_key, key_of, parse_id, time_of
from elemta.queue.model import MessageId, Priority, State
from elemta.queue.window import NO_KEY

if TYPE_CHECKING:
    from elemta.protocol import Mailbox, ReversePath
    from elemta.queue.model import LaneOf, Message, Recipient


class View(enum.Enum):
    """The queues that people know. A message is in as many as its recipients are."""

    #: To be tried now, or being tried.
    ACTIVE = "active"
    #: To be tried later.
    DEFERRED = "deferred"
    #: Not to be tried until somebody releases it.
    HOLD = "hold"
    #: Given up: refused, expired or deleted.
    FAILED = "failed"
    DELIVERED = "delivered"


#: The views of what is not finished.
UNFINISHED: Final = (View.ACTIVE, View.DEFERRED, View.HOLD)

_VIEWS: Final = {
    State.READY: View.ACTIVE,
    State.HELD: View.HOLD,
    State.DELIVERED: View.DELIVERED,
    State.FAILED: View.FAILED,
    State.EXPIRED: View.FAILED,
    State.DELETED: View.FAILED,
}


class Filter(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which recipients are meant: those for whom all conditions hold.

    No condition at all means all that are not finished. Case makes no difference in any text.

    Attributes:
        ids: of messages, in letters of any case. What is no id is nobody's.
        views: in any of these; none means those that are not finished.
        domain: the recipient's; ``*.example.net`` for all below it.
        sender: an address, ``@domain``, or ``<>`` for reports.
        recipient: an address.
        tag: one of the message's.
        older_than, younger_than: seconds since the message got its id.
        larger_than, smaller_than: octets.
        error: found in the last reply.
        destination: the lane in which the recipient is tried.
        priority: the message's.
        owner: of a hold.
        text: found in the message's id, sender or tags; or in the recipient's address, the one it
            had first, or its last reply.
    """

    ids: tuple[MessageId, ...] = ()
    views: tuple[View, ...] = ()
    domain: str | None = None
    sender: str | None = None
    recipient: str | None = None
    tag: str | None = None
    older_than: float | None = None
    younger_than: float | None = None
    larger_than: int | None = None
    smaller_than: int | None = None
    error: str | None = None
    destination: str | None = None
    priority: Priority | None = None
    owner: str | None = None
    text: str | None = None


def view_of(recipient: Recipient, now: float) -> View:
    """Where people find a recipient. Who is deferred is active again once it is due."""
    if recipient.state is State.DEFERRED:
        return View.DEFERRED if recipient.due > now else View.ACTIVE
    return _VIEWS[recipient.state]


class Condition:
    """A filter at one moment.

    Args:
        now: seconds since the epoch.
        lane: where a recipient is tried; None if nobody knows, as there is no router.

    Raises:
        ValueError: the filter asks for a destination, and there is no `lane`.

    Attributes:
        views: in any of these.
        keys: of the messages it names, in order; None if it names none.
        first, end: between these are the keys of messages of the age that is meant.
        now: as above.
        needle: what the record of each message that is meant has in it; None if that is unknown.
            Reading a record takes a hundred times as long as looking for this in it.
    """

    def __init__(self, filter: Filter, now: float, lane: LaneOf | None) -> None:  # noqa: A002 # the word of people
        if filter.destination is not None and lane is None:
            raise ValueError("only the running server knows where a recipient goes")
        self._filter = filter
        self.now = now
        self._lane = lane if filter.destination is not None else None
        self._ids = {found for id in filter.ids if (found := parse_id(id)) is not None}  # noqa: A001 # the word of people
        self._domain = _folded(filter.domain)
        self._sender = _folded(filter.sender)
        self._recipient = _folded(filter.recipient)
        self._error = _folded(filter.error)
        self._text = _folded(filter.text)
        self.views = frozenset(filter.views or UNFINISHED)
        self.keys = sorted(map(key_of, self._ids)) if filter.ids else None
        self.first, self.end = -1, NO_KEY
        self.needle = _needle(filter.recipient, filter.domain, filter.sender)
        if filter.younger_than is not None:
            self.first = first_key(now - filter.younger_than)
        if filter.older_than is not None:
            self.end = first_key(now - filter.older_than + 0.001)

    def selects(self, message: Message, key: int) -> list[Recipient]:
        """The recipients of a message that are meant; `key` is its own."""
        if not self._meant(message, key):
            return []
        found = [each for each in message.recipients if self._among(each, message.sender)]
        if self._text is None or not found or _is_told_by(message, self._text):
            return found
        return [each for each in found if _is_told_of(each, self._text)]

    def _meant(self, message: Message, key: int) -> bool:
        filter = self._filter  # noqa: A001 # the word of people
        age = self.now - time_of(key)
        return (
            (not filter.ids or message.id in self._ids)
            and (self._sender is None or _is_from(message.sender, self._sender))
            and (filter.tag is None or filter.tag in message.tags)
            and (filter.older_than is None or age > filter.older_than)
            and (filter.younger_than is None or age < filter.younger_than)
            and (filter.larger_than is None or message.size > filter.larger_than)
            and (filter.smaller_than is None or message.size < filter.smaller_than)
            and (filter.priority is None or message.priority == filter.priority)
        )

    def _among(self, recipient: Recipient, sender: ReversePath) -> bool:
        owner, address = self._filter.owner, recipient.address
        return (
            view_of(recipient, self.now) in self.views
            and (self._domain is None or _is_in(address.domain, self._domain))
            and (self._recipient is None or str(address).casefold() == self._recipient)
            and (self._error is None or self._error in _said(recipient))
            and (
                owner is None or (recipient.holder is not None and recipient.holder.owner == owner)
            )
            and (self._lane is None or self._lane(recipient, sender) == self._filter.destination)
        )


def _needle(*said: str | None) -> bytes | None:
    """A domain that is asked for, as records have it: in small letters, as `Mailbox` does."""
    for text in said:
        domain = (text or "").rpartition("@")[2].removeprefix("*.").lower()
        if domain.isascii() and "." in domain:
            return domain.encode()
    return None


def _folded(text: str | None) -> str | None:
    return text.casefold() if text is not None else None


def _is_in(domain: str, wanted: str) -> bool:
    if wanted.startswith("*."):
        return domain.casefold().endswith(wanted[1:])
    return domain.casefold() == wanted


def _is_from(sender: Mailbox | None, wanted: str) -> bool:
    if sender is None or wanted == "<>":
        return sender is None and wanted == "<>"
    if wanted.startswith("@"):
        return _is_in(sender.domain, wanted[1:])
    return str(sender).casefold() == wanted


def _is_told_by(message: Message, text: str) -> bool:
    """Whether a text stands in what all recipients of a message share."""
    sender = "<>" if message.sender is None else str(message.sender)
    return any(text in each.casefold() for each in (message.id, sender, *message.tags))


def _is_told_of(recipient: Recipient, text: str) -> bool:
    """Whether a text stands in what is one recipient's own."""
    original = recipient.original
    return (
        text in str(recipient.address).casefold()
        or (original is not None and text in str(original).casefold())
        or text in _said(recipient)
    )


def _said(recipient: Recipient) -> str:
    """The last reply as people read it: code, enhanced code, text."""
    return str(recipient.last).casefold() if recipient.last is not None else ""
