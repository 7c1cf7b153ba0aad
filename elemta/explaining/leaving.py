"""Where the mail for a recipient would go, and how: as delivery would decide just now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from elemta.control.facts import Step
from elemta.delivery.routes import (
    ByMx,
    LocalMaildir,
    Nowhere,
    ToHosts,
    ToProgram,
    ToStorage,
    Unsaid,
)
from elemta.explaining.lanes import lane_state
from elemta.explaining.words import counted
from elemta.plugins import Undecided
from elemta.protocol import Reply
from elemta.queue import Addressee
from elemta.units import Seconds

if TYPE_CHECKING:
    from elemta.config import Config
    from elemta.delivery.outlook import Meeting, Outlook
    from elemta.delivery.routes import Remote, Route
    from elemta.delivery.worker import Delivery
    from elemta.explaining.lanes import LaneState
    from elemta.protocol import Mailbox, ReversePath
    from elemta.queue import Queue

#: Seconds that DNS may take, for all recipients together.
PATIENCE: Final = 30.0


class Departure:
    """Finds out where recipients would go.

    Args:
        config: what runs.
        delivery: decides.
        queue: where they would wait.
        now: seconds since the epoch.
    """

    def __init__(self, config: Config, delivery: Delivery, queue: Queue, now: float) -> None:
        self._config = config
        self._delivery = delivery
        self._queue = queue
        self._now = now
        self._deadline = trio.current_time() + PATIENCE
        self._told: set[str] = set()

    async def steps(self, addressee: Addressee, sender: ReversePath) -> list[Step]:
        """All that would be decided for one recipient; the same lane is told of once."""
        address = addressee.address
        recipient = Addressee(address=address)
        outlook = await self._outlook(recipient, sender)
        steps = [self._route(address, sender, outlook)]
        named = self._delivery.sender(sender, address, addressee.original)
        if named != sender and isinstance(outlook.route, (ByMx, ToHosts)):
            answer = f"to {address} it goes in the name of <{named}> (SRS)"
            steps.append(Step(question="sender", answer=answer, good=True))
        state = lane_state(self._queue, recipient, sender, self._now)
        if state.name in self._told:
            return [*steps, Step(question="lane", answer=f"{state.name}: see above", good=True)]
        self._told.add(state.name)
        steps.append(_lane(state))
        route = outlook.route
        if isinstance(route, (ByMx, ToHosts)):
            steps += await self._meet(route)
        steps.append(self._patience(recipient, sender))
        return steps

    async def _outlook(self, recipient: Addressee, sender: ReversePath) -> Outlook:
        """Where it would go; maps may take as long as DNS."""
        with trio.move_on_at(self._deadline):
            return await self._delivery.outlook(recipient, sender)
        return self._delivery.known(recipient, sender, f"no answer within {PATIENCE:.0f} s")

    def _route(self, address: Mailbox, sender: ReversePath, outlook: Outlook) -> Step:
        if outlook.entry.startswith("plugin:"):
            name = outlook.entry.removeprefix("plugin:")
            why = f"the plugin {name} says so"
            if isinstance(outlook.route, Undecided):
                answer = f"{address} waits: where it goes cannot be found out just now"
                why = f"the plugin {name} fails to say where"
                return Step(question="route", answer=answer, details=(why,))
        elif outlook.entry.startswith("domains"):
            place = int(outlook.entry[len("domains[") : -1])
            why = f"{outlook.entry} is for {self._config.domains[place].name}"
        elif outlook.entry:
            place = int(outlook.entry[len("routes[") : -1])
            entry = self._config.routes[place]
            why = f"{outlook.entry} matches: {entry.match}"
            if entry.map is not None:
                why += f", as the map {entry.map} has it"
            if entry.senders:
                why += f", and <{sender or ''}> is among its senders: {', '.join(entry.senders)}"
        else:
            why = "no entry of domains or routes is for it"
        if isinstance(outlook.route, Unsaid):
            answer = f"{address} waits: where it goes cannot be found out just now"
            return Step(question="route", answer=answer, details=(why, *outlook.asked))
        answer = f"{address} goes {_where(outlook.route)}"
        return Step(question="route", answer=answer, good=True, details=(why, *outlook.asked))

    async def _meet(self, route: Remote) -> list[Step]:
        """Whom delivery would call."""
        meeting: Meeting | None = None
        with trio.move_on_at(self._deadline):
            meeting = await self._delivery.meet(route)
        if meeting is None:
            answer = f"DNS has not answered within {PATIENCE:.0f} s"
            return [Step(question="hosts", answer=answer, details=("try again",))]
        calls = meeting.calls
        if isinstance(calls, Reply):
            # For now it is DNS, or a configuration, that can be mended: the mail waits for that.
            ends = calls.code >= 500
            answer = "nobody can be called" if ends else "nobody can be called just now"
            return [
                Step(
                    question="hosts",
                    answer=f"{answer}: {calls}",
                    good=False if ends else None,
                    details=meeting.found,
                )
            ]
        many = counted(len(calls), "address", "addresses")
        hosts = [f"{number}. {call.candidate}: {call.tls}" for number, call in enumerate(calls, 1)]
        source = ", ".join(meeting.source) or "whichever address the system chooses"
        protocol = "LMTP" if meeting.lmtp else "SMTP"
        login = f"; logged in as {meeting.login}" if meeting.login else ""
        return [
            Step(
                question="hosts",
                answer=f"{many} would be called, in this order",
                good=True,
                details=(*hosts, *meeting.found),
            ),
            Step(
                question="conversation",
                answer=f"{protocol} as {meeting.hello_name}, from {source}; "
                f"TLS is {meeting.policy}{login}",
            ),
        ]

    def _patience(self, recipient: Addressee, sender: ReversePath) -> Step:
        policy = self._queue.patience.policy(recipient, sender)
        lifetime = self._queue.patience.lifetime(sender, recipient)
        waits = ", ".join(Seconds(each).written for each in policy.schedule)
        told = policy.delay_warning
        details = (
            f"after each failed attempt: {waits}; the last is repeated",
            f"its sender is told of a delay after {Seconds(told).written}"
            if told and sender is not None
            else "its sender is not told of a delay",
        )
        answer = f"tried for {Seconds(lifetime).written}, then given up"
        return Step(question="retries", answer=answer, details=details)


def _lane(state: LaneState) -> Step:
    return Step(
        question="lane",
        answer=f"{state.name} is {state.answer}",
        good=True if state.open else None,
        details=state.details,
    )


def _where(route: Route) -> str:
    match route:
        case LocalMaildir():
            return "into a Maildir of this machine"
        case Nowhere():
            return "nowhere: it is taken, and discarded"
        case ToProgram(pipe):
            return f"to a program: {pipe}"
        case ToStorage(plugin):
            return f"into the mailboxes of the plugin {plugin}"
        case ToHosts(hosts, lmtp):
            named = ", ".join(str(each) if each.port else each.host for each in hosts)
            return f"by {'LMTP' if lmtp else 'SMTP'} to {named}"
        case Undecided() | Unsaid():
            return "nowhere yet"
        case ByMx(domain):
            return f"to the mail exchangers of {domain}"
