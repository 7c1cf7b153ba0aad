"""One message in an operator's hands, and what becomes of it there."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from elemta.protocol import reply
from elemta.queue import events as happened
from elemta.queue.action import (
    Action,
    Bounce,
    Delete,
    Hold,
    MakesReports,
    Redirect,
    Release,
    Reprioritise,
    Reroute,
    Reschedule,
    words_for,
)
from elemta.queue.change import Steered
from elemta.queue.model import Holder, Note, State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elemta.protocol import Mailbox, Reply
    from elemta.queue.change import Insert
    from elemta.queue.entry import Entry
    from elemta.queue.model import Recipient
    from elemta.queue.residence import Residence
    from elemta.queue.schedule import Schedule

#: Letters of a reason that stand in the reply of a bounce.
REASON: Final = 400


class Errand(Struct, frozen=True, kw_only=True):
    """What is to be done.

    Attributes:
        who: wants it.
        reason: for people.
        report: tells senders of bounces; None tells nobody.
    """

    action: Action
    who: str
    reason: str
    report: MakesReports | None

    @property
    def refusal(self) -> Reply:
        """What ends a recipient that is bounced; RFC 3463 has no closer word than 5.7.0."""
        text = "".join(each if each.isprintable() else " " for each in self.reason[:REASON])
        return reply(554, 7, 0, text or "given up by the postmaster")


class Grip:
    """Holds some recipients of a message, so that nobody else begins anything with them.

    Args:
        recipients: of the message; none of them is being tried.
        moves: they are to be moved. Else the message is to be changed, and they stay where they
            are.
        brought: the message was on disk alone.

    Resource handling:
        Carry it out, or let it go.
    """

    def __init__(
        self,
        entry: Entry,
        recipients: Sequence[Recipient],
        schedule: Schedule,
        residence: Residence,
        *,
        moves: bool,
        brought: bool,
    ) -> None:
        self.entry = entry
        self.recipients = recipients
        self._schedule = schedule
        self._residence = residence
        self._brought = brought
        self._taken = recipients if moves else ()
        self._before = [(each.state, each.due, each.holder) for each in self._taken]
        # What else is ready of a message that was on disk is in no lane, and so in our hands.
        self._rest: list[Recipient] = []
        taken = {each.number for each in self._taken}
        if brought:
            residence.bring(entry)
            self._rest = [each for each in entry.message.recipients if each.number not in taken]
            self._rest = [each for each in self._rest if each.state is State.READY]
        else:
            schedule.withdraw(entry, taken)
        entry.works += 1
        for each in self._taken:  # what is ready and in no lane is in somebody's hands
            each.state, each.holder = State.READY, None

    def let_go(self, now: float) -> None:
        """Leave everything as it was."""
        entry = self.entry
        for each, before in zip(self._taken, self._before, strict=True):
            each.state, each.due, each.holder = before
        entry.works -= 1
        if self._brought:
            self._residence.put_back(entry, self._ready(), now)
        else:
            self._residence.place(entry, self._taken, now)
            self._residence.rest(entry, now)

    def carry_out(
        self, errand: Errand, reports: Sequence[Insert], events: happened.EventBus, now: float
    ) -> Steered:
        """Do it, in memory; it holds from now on.

        Returns:
            What is to be written, submitted already.
        """
        entry, message = self.entry, self.entry.message
        former = [each.address for each in self._taken]
        for each, before in zip(self._taken, self._before, strict=True):
            _change(each, errand, now, message.due or now)
            if isinstance(errand.action, Reroute) and before[0] is State.HELD:
                each.state, each.due, each.holder = before
            entry.left -= each.state.final
        if isinstance(errand.action, Reprioritise):
            stood = self._schedule.withdraw(entry)
            message.priority = errand.action.priority
            self._schedule.ready(entry, stood, now)
        entry.works -= 1
        settled = self._residence.settled
        if self._brought:
            settled = partial(settled, ready=self._ready())
        else:
            self._residence.place(entry, self._taken, now)
        note = Note(
            at=now,
            who=errand.who,
            action=words_for(errand.action),
            recipients=tuple([each.number for each in self.recipients]),
            reason=errand.reason,
        )
        renewed = isinstance(errand.action, Reprioritise | Redirect | Reroute)
        steered = Steered(entry, self._taken, note, reports, now, settled, renewed=renewed)
        self._tell(errand, former, events, now)
        self._residence.submit(steered)
        return steered

    def _ready(self) -> list[Recipient]:
        return self._rest + [each for each in self._taken if each.state is State.READY]

    def _tell(
        self, errand: Errand, former: list[Mailbox], events: happened.EventBus, now: float
    ) -> None:
        id, by = self.entry.message.id, (errand.who, errand.reason)  # noqa: A001 # the word of people
        if isinstance(errand.action, Reprioritise):
            priority = errand.action.priority
            events.publish(happened.Reprioritised(events.next(), now, id, priority, *by))
        for address in former:
            match errand.action:
                case Hold():
                    events.publish(happened.Held(events.next(), now, id, address, *by))
                case Release():
                    events.publish(happened.Released(events.next(), now, id, address, *by))
                case Delete():
                    events.publish(happened.Deleted(events.next(), now, id, address, *by))
                case Bounce():
                    reply = errand.refusal
                    events.publish(happened.Failed(events.next(), now, id, address, "", "", reply))
                case Redirect(to):
                    events.publish(happened.Redirected(events.next(), now, id, address, to, *by))
                case Reroute(via):
                    events.publish(happened.Rerouted(events.next(), now, id, address, *by, via))
                case Reschedule(at):
                    due = max(now, at)
                    events.publish(happened.Rescheduled(events.next(), now, id, address, *by, due))
                case _:  # who retries will see the attempt
                    pass


def _change(recipient: Recipient, errand: Errand, now: float, due: float) -> None:
    """Move one recipient, READY since it was taken in hand, to where the action leaves it.

    Args:
        recipient: of a message that is not to be tried before `due`, unless somebody retries it.
        errand: what is done.
        now: seconds since the epoch.
        due: the same.
    """
    recipient.due = 0.0
    match errand.action:
        case Hold(owner):
            recipient.state = State.HELD
            recipient.holder = Holder(owner=owner or errand.who, reason=errand.reason, since=now)
        case Delete():
            recipient.state = State.DELETED
        case Bounce():
            recipient.state, recipient.last = State.FAILED, errand.refusal
        case Redirect(to):
            recipient.original = recipient.original or recipient.address
            recipient.address, recipient.via, recipient.last = to, (), None
            _put_off(recipient, now, due)
        case Reroute(via):
            recipient.via = via
            _put_off(recipient, now, due)
        case Reschedule(at):
            _put_off(recipient, now, at)
        case Release():
            _put_off(recipient, now, due)
        case _:
            recipient.due = now


def _put_off(recipient: Recipient, now: float, due: float) -> None:
    """It is tried now, or when its message is to be tried first."""
    recipient.due = max(now, due)
    if due > now:
        recipient.state = State.DEFERRED
