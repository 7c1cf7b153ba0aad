"""Brings messages to the hosts of a destination, over one connection that is kept.

The rules of this file:

- A host that does not answer, does not want us or breaks off before it can have the message says
  nothing of the mail: the next one is tried at once, within `MAX_SESSIONS`. What is left when none
  is left is temporary, whatever code was heard.
- What a host says of a recipient or of the message is the outcome, be it a 4xx: a retry asks anew.
- Where the answer to a whole message was lost, the host may have it. No other is tried at once:
  that would make a duplicate of every slow answer.
"""

from __future__ import annotations

import enum
import os
from typing import TYPE_CHECKING, Final, TypeAlias

import trio
from msgspec import Struct

from elemta.delivery.replies import made
from elemta.delivery.session import HostUnusable, SmtpSession, Timeouts
from elemta.protocol import Reply
from elemta.queue import Result

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from elemta.delivery.hosts import Candidate, Hosts
    from elemta.delivery.routing import ByMx, ToHosts
    from elemta.delivery.transaction import Outcome, StoredBody
    from elemta.net.transport import Transport
    from elemta.queue import Message, Recipient

#: Hosts that one attempt talks to; those that are dialled in vain do not count.
MAX_SESSIONS: Final = 2
#: Transactions on one connection.
MAX_TRANSACTIONS: Final = 100

#: Connects to a host. Raises OSError or trio.TooSlowError.
Dial: TypeAlias = "Callable[[Candidate], Awaitable[Transport]]"


class Welcome(enum.Enum):
    """How a destination met us."""

    #: It judged the message, one way or the other.
    HEARD = enum.auto()
    #: Somebody was there, and told us to come later (421) or broke off.
    TURNED_AWAY = enum.auto()
    #: Nobody answers, or nobody there wants us.
    SILENT = enum.auto()


class Tried(Struct, frozen=True):
    """What became of one recipient.

    Attributes:
        remote: whether `reply` is the host's own words.
        host: who was spoken to; empty if nobody was.
    """

    result: Result
    reply: Reply
    remote: bool = False
    host: str = ""


_NO_HOST: Final = Tried(Result.DEFERRED, made(451, 4, 1, "no host could be tried"))


class _Search:
    """How far one attempt has come in looking for a host."""

    def __init__(self) -> None:
        self.candidates: list[Candidate] | None = None
        self.sessions = 0
        self.trouble = _NO_HOST


class Carrier:
    """Keeps a connection for one worker.

    Args:
        dial: connects.
        hosts: says whom to call.
        hello_name: what we call ourselves.
        timeouts: of the conversation.

    Attributes:
        hosts: as given.
        welcome: how the last `deliver` was met.

    Resource handling:
        `quit` or `close` it.
    """

    def __init__(self, dial: Dial, hosts: Hosts, hello_name: str, timeouts: Timeouts) -> None:
        self.welcome = Welcome.SILENT
        self._dial = dial
        self.hosts = hosts
        self._hello_name = hello_name
        self._timeouts = timeouts
        self._session: SmtpSession | None = None
        self._host = ""
        self._route: ByMx | ToHosts | None = None
        self._transactions = 0

    @property
    def connected(self) -> bool:
        """Whether the next message to the same destination needs no new connection."""
        session = self._session
        return session is not None and session.usable and self._transactions < MAX_TRANSACTIONS

    async def deliver(
        self,
        route: ByMx | ToHosts,
        message: Message,
        recipients: Sequence[Recipient],
        body: StoredBody,
        tried: dict[int, Tried],
    ) -> None:
        """Deliver a message to some of its recipients.

        Args:
            route: where to; a connection to anywhere else is given up.
            message: whose recipients these are.
            recipients: at least one.
            body: CRLF line ends.
            tried: what becomes of each is noted here by its number, as soon as it is known: what
                was delivered before this raises, or is cancelled, must not be delivered again.
        """
        self.welcome = Welcome.SILENT
        if self._route is not route and self._route != route:
            await self.quit()
            self._route = route
        search = _Search()
        left: list[Recipient] = list(recipients)
        while left:
            if (session := await self._reach(search)) is None:
                tried.update((recipient.number, search.trouble) for recipient in left)
                break
            group = left[: session.recipient_limit]
            self._transactions += 1
            outcomes = await session.send(message, group, body)
            found = [Tried(o.result, o.reply, o.remote, self._host) for o in outcomes]
            tried.update((r.number, t) for r, t in zip(group, found, strict=True))
            if session.unheard:
                # Only a word on a recipient counts; for the others the next host is tried.
                self.close()
                self._note(Welcome.TURNED_AWAY)
                search.trouble = found[-1]
                left = [r for r in left if r.number not in tried or not _final(tried[r.number])]
                continue
            lost = not session.usable and not any(outcome.remote for outcome in outcomes)
            self._note(Welcome.TURNED_AWAY if lost else Welcome.HEARD)
            left = [*_one_too_many(group, outcomes), *left[len(group) :]]
            if left:
                search = _Search()  # something was settled: so this comes to an end

    async def quit(self) -> None:
        """Say goodbye and hang up."""
        session, self._session = self._session, None
        if session is not None:
            await session.quit()

    def close(self) -> None:
        """Hang up at once."""
        session, self._session = self._session, None
        if session is not None:
            session.close()

    async def _reach(self, search: _Search) -> SmtpSession | None:
        """The connection there is, or one to the next host that wants us; None: there is none."""
        if self.connected:
            return self._session
        await self.quit()
        if search.candidates is None and not await self._plan(search):
            return None
        assert search.candidates is not None, "there is a plan"
        while search.candidates and search.sessions < MAX_SESSIONS:
            candidate = search.candidates.pop(0)
            try:
                transport = await self._dial(candidate)
            except (OSError, trio.TooSlowError) as error:
                search.trouble = Tried(Result.DEFERRED, _unreachable(candidate, error))
                continue
            search.sessions += 1
            session = SmtpSession(transport, host=str(candidate))
            try:
                await session.open(self._hello_name, self._timeouts)
            except HostUnusable as error:
                session.close()
                self._note(Welcome.TURNED_AWAY if error.reply.code == 421 else Welcome.SILENT)
                search.trouble = Tried(Result.DEFERRED, error.reply, error.remote, str(candidate))
                continue
            except BaseException:
                session.close()
                raise
            self._session, self._host, self._transactions = session, str(candidate), 0
            return session
        return None

    async def _plan(self, search: _Search) -> bool:
        """Find out whom to call; false if that is nobody."""
        assert self._route is not None, "there is somewhere to go"
        plan = await self.hosts.plan(self._route)
        if isinstance(plan, Reply):
            failed = plan.code >= 500
            search.trouble = Tried(Result.FAILED if failed else Result.DEFERRED, plan)
            if failed:  # the DNS has answered for the destination
                self._note(Welcome.HEARD)
            return False
        search.candidates = list(plan)
        return True

    def _note(self, welcome: Welcome) -> None:
        """Of several hosts the best welcome counts."""
        if welcome.value < self.welcome.value:
            self.welcome = welcome


def _final(tried: Tried) -> bool:
    return tried.result is not Result.DEFERRED


def _one_too_many(group: Sequence[Recipient], outcomes: Sequence[Outcome]) -> list[Recipient]:
    """Those that the host takes in a transaction of their own, at once (RFC 5321 §4.5.3.1.10)."""
    if all(outcome.result is Result.DEFERRED for outcome in outcomes):
        return []
    return [
        recipient
        for recipient, outcome in zip(group, outcomes, strict=True)
        if outcome.result is Result.DEFERRED
        and outcome.remote
        and outcome.reply.code in (452, 552)
        and outcome.reply.status in (None, (5, 3))
    ]


def _unreachable(candidate: Candidate, error: OSError | trio.TooSlowError) -> Reply:
    if isinstance(error, trio.TooSlowError):
        why = "timed out"
    elif error.errno is not None:
        why = os.strerror(error.errno)
    else:
        why = str(error)
    return made(451, 4, 1, f"cannot connect to {candidate}: {why}")
