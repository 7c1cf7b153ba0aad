"""Brings messages to the hosts of a destination, over one connection that is kept.

The rules of this file:

- A host that does not answer, does not want us or breaks off before it can have the message says
  nothing of the mail: the next one is tried at once, within `MAX_SESSIONS`. What is left when none
  is left is temporary, whatever code was heard.
- What a host says of a recipient or of the message is the outcome, be it a 4xx: a retry asks anew.
- Two things count only once no other host of the destination is left: that it lacks an extension
  which the message needs, and that it refuses the sender.
- A connection that was kept and has died meanwhile says nothing at all: a new one is made.
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
from elemta.delivery.routes import ToHosts
from elemta.delivery.session import SmtpSession, Timeouts
from elemta.delivery.unusable import HostUnusable, LoginRefused, TlsFailed
from elemta.log import logger
from elemta.message import Action
from elemta.metrics.meters import Meters
from elemta.net.dialogues import Standing, unheard
from elemta.protocol import Reply
from elemta.queue import Result

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from elemta.delivery.hosts import Candidate, Hosts
    from elemta.delivery.routes import Remote
    from elemta.delivery.security import Failure, Security
    from elemta.delivery.session import Tls
    from elemta.delivery.transaction import Outcome, StoredBody
    from elemta.net.dialogues import Records
    from elemta.net.transport import Transport
    from elemta.queue import Message, MessageId, Recipient

log = logger(__name__)

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
        tls: how it was encrypted, e.g. ``TLSv1.3 TLS_AES_256_GCM_SHA384``; empty: it was not.
        action: what a DELIVERED one means for who asked to be told (RFC 3461 §5.2); None: nothing,
            since the host took over the duty of telling.
        lane: where it went, if that is not the lane where it stood; else empty.
    """

    result: Result
    reply: Reply
    remote: bool = False
    host: str = ""
    action: Action | None = None
    tls: str = ""
    lane: str = ""


_NO_HOST: Final = Tried(Result.DEFERRED, made(451, 4, 1, "no host could be tried"))


class _Search:
    """How far one attempt has come in looking for a host.

    Args:
        message: what is to be delivered.

    Attributes:
        candidates: who is left; None: there is no plan yet.
        passed: who has had its say already.
        sessions: how many were talked to.
        trouble: what the last of them was; of the mail it says nothing.
    """

    def __init__(self, message: MessageId) -> None:
        self.message = message
        self.candidates: list[Candidate] | None = None
        self.passed: set[Candidate] = set()
        self.sessions = 0
        self.trouble = _NO_HOST


class Carrier:
    """Keeps a connection for one worker.

    Args:
        dial: connects.
        hosts: says whom to call.
        hello_name: what we call ourselves, unless a route says otherwise.
        timeouts: of the conversation.
        security: whether to encrypt.
        messages: transactions on one connection.
        records: where it is written down what is said.
        meters: count connections.

    Attributes:
        hosts: as given.
        welcome: how the last `deliver` was met.
        trouble: and if it was not well, why.

    Resource handling:
        `quit` or `close` it.
    """

    def __init__(
        self,
        dial: Dial,
        hosts: Hosts,
        hello_name: str,
        timeouts: Timeouts,
        security: Security,
        *,
        messages: int = MAX_TRANSACTIONS,
        records: Records = unheard,
        meters: Meters | None = None,
    ) -> None:
        self._meters = meters or Meters()
        self.hosts = hosts
        self.welcome = Welcome.SILENT
        self.trouble = ""
        self._dial = dial
        self._hello_name = hello_name
        self._timeouts = timeouts
        self._security = security
        self._messages = messages
        self._records = records
        self._session: SmtpSession | None = None
        self._candidate: Candidate | None = None
        #: Of the session: whom we talk to, how it is encrypted, and what it means for who asked to
        #: be told that something was taken there.
        self._partner: tuple[str, str, Action | None] = ("", "", None)
        self._route: Remote | None = None
        self._transactions = 0

    @property
    def connected(self) -> bool:
        """Whether the next message to the same destination needs no new connection."""
        session = self._session
        return session is not None and session.usable and self._transactions < self._messages

    async def deliver(
        self,
        route: Remote,
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
        search = _Search(message.id)
        left: list[Recipient] = list(recipients)
        #: What counts unless another host says otherwise.
        refused: dict[int, Tried] = {}
        while left:
            if (session := await self._reach(search)) is None:
                said = [who for who in left if who.number in refused]
                if not said:
                    tried.update((who.number, search.trouble) for who in left)
                    break
                tried.update((who.number, refused[who.number]) for who in said)
                left = [who for who in left if who not in said]
                search = _Search(message.id)  # something was settled: so this comes to an end
                continue
            group = left[: session.recipient_limit]
            kept = self._transactions > 0
            self._transactions += 1
            outcomes = await session.send(message, group, body)
            found = self._tried(outcomes)
            if session.unheard:
                # Only a word on a recipient counts; for the others the next host is tried.
                self.close()
                if not kept:
                    self._note(Welcome.TURNED_AWAY)
                search.trouble = next(t for t in reversed(found) if t.result is Result.DEFERRED)
                heard = [(r, t) for r, t in zip(group, found, strict=True) if _final(t)]
                tried.update((r.number, t) for r, t in heard)
                left = [r for r in left if r.number not in tried]
                continue
            elsewhere: list[Recipient] = []
            for recipient, outcome, one in zip(group, outcomes, found, strict=True):
                if outcome.elsewhere:
                    elsewhere.append(recipient)
                    refused[recipient.number] = one
                else:
                    tried[recipient.number] = one
            if session.usable or any(outcome.remote for outcome in outcomes):
                self._note(Welcome.HEARD)
            else:
                self._note(Welcome.TURNED_AWAY)
                search.trouble = found[-1]
            left = [*_one_too_many(group, outcomes), *left[len(group) :]]
            if elsewhere and await self._pass_over(search):
                left = [*elsewhere, *left]
                continue
            tried.update((who.number, refused[who.number]) for who in elsewhere)
            if left:
                search = _Search(message.id)
        self.trouble = self._why(search)

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

    def _why(self, search: _Search) -> str:
        return "" if self.welcome is Welcome.HEARD else str(search.trouble.reply)

    def _tried(self, outcomes: Sequence[Outcome]) -> list[Tried]:
        host, secret, done = self._partner
        return [
            Tried(o.result, o.reply, o.remote, host, done if o.reply.code < 300 else None, secret)
            for o in outcomes
        ]

    @property
    def _lmtp(self) -> bool:
        return isinstance(self._route, ToHosts) and self._route.lmtp

    async def _pass_over(self, search: _Search) -> bool:
        """Leave this host for the next one of the plan; false: there is none."""
        assert self._candidate is not None, "somebody was talked to"
        search.passed.add(self._candidate)
        search.sessions = max(search.sessions, 1)  # it may be a connection that was kept
        if search.candidates is None:
            await self._plan(search)
        if not search.candidates or search.sessions >= MAX_SESSIONS:
            return False
        await self.quit()
        return True

    async def _reach(self, search: _Search) -> SmtpSession | None:
        """The connection there is, or one to the next host that wants us; None: there is none."""
        if self.connected:
            return self._session
        await self.quit()
        if search.candidates is None:
            await self._plan(search)
        while search.candidates and search.sessions < MAX_SESSIONS:
            candidate = search.candidates.pop(0)
            if (session := await self._call(candidate, search)) is not None:
                self._session, self._candidate, self._transactions = session, candidate, 0
                done = None
                if not session.extensions.dsn:
                    done = Action.DELIVERED if self._lmtp else Action.RELAYED
                self._partner = (str(candidate), session.secret, done)
                return session
        return None

    async def _call(self, candidate: Candidate, search: _Search) -> SmtpSession | None:
        """Connect to a host and say hello; None: it is of no use, and `search` knows why."""
        assert self._route is not None, "there is somewhere to go"
        tls: Tls | None = None
        now = trio.current_time()
        if (refusal := self._security.refusal(candidate, self._route, now)) is not None:
            search.trouble = Tried(Result.DEFERRED, _not_asked(candidate, refusal, now))
            return None
        try:
            tls = self._security.wish(candidate, self._route, now)
            try:
                return await self._open(candidate, search, tls)
            except TlsFailed as error:
                self._meters.tls_failures += 1
                if tls is None or tls.required:
                    raise
                log.warning("delivery.tls_failed", host=str(candidate), reason=str(error.reply))
                self._security.failed(candidate, trio.current_time(), error.reply.text)
            search.sessions -= 1  # it is the same host
            return await self._open(candidate, search, None)
        except HostUnusable as error:
            self._meters.hosts["unusable"] += 1
            if isinstance(error, LoginRefused):
                self._not_let_in(candidate, search, error)
            elif tls is not None and tls.required and search.candidates:
                # Its other addresses are hardly another host: those come first that are.
                search.candidates.sort(key=lambda each: each.name == candidate.name)
            self._note(Welcome.TURNED_AWAY if error.reply.code == 421 else Welcome.SILENT)
            search.trouble = Tried(Result.DEFERRED, error.reply, error.remote, str(candidate))
        except (OSError, trio.TooSlowError) as error:
            self._meters.hosts["unreachable"] += 1
            search.trouble = Tried(Result.DEFERRED, _unreachable(candidate, error))
        return None

    def _not_let_in(self, candidate: Candidate, search: _Search, error: LoginRefused) -> None:
        """A login is refused: no other address of that host is asked to say so again."""
        assert self._route is not None, "there is somewhere to go"
        assert self._route.terms.login is not None, "we have said who we are"
        user, reply = self._route.terms.login.user, str(error.reply)
        self._meters.host_logins["refused"] += 1
        self._security.refused(candidate, user, trio.current_time(), reply)
        log.error("delivery.login_refused", host=str(candidate), user=user, reply=reply)
        left = search.candidates or ()
        search.candidates = [each for each in left if each.name != candidate.name]

    async def _open(self, candidate: Candidate, search: _Search, tls: Tls | None) -> SmtpSession:
        assert self._route is not None, "there is somewhere to go"
        terms = self._route.terms
        credentials = None
        if terms.login is not None:
            credentials = self._security.keyring.credentials(terms.login)
        dialogue = self._records(str(candidate))
        dialogue.about(search.message)
        dialogue.begin(_connecting)
        if tls is None and (failure := self._security.failure(candidate, trio.current_time())):
            dialogue.said("C", f"in clear for now: {failure.reason}")
        try:
            transport = await self._dial(candidate)
        except BaseException as error:
            if isinstance(error, OSError | trio.TooSlowError):
                dialogue.said("C", f"cannot connect: {_why_not(error)}")
            dialogue.end()
            raise
        search.sessions += 1
        session = SmtpSession(transport, dialogue, lmtp=self._lmtp)
        try:
            name = terms.hello_name or self._hello_name
            in_clear = terms.tls == "off"
            await session.open(name, self._timeouts, tls, credentials, in_clear=in_clear)
        except BaseException:
            session.close()
            raise
        self._meters.hosts["open"] += 1
        if session.secret:
            self._meters.tls[session.secret.partition(" ")[0]] += 1
        if tls is not None and tls.verified:
            self._meters.tls_verified += 1
        if credentials is not None:
            self._meters.host_logins["granted"] += 1
        return session

    async def _plan(self, search: _Search) -> None:
        """Find out whom to call; where that is nobody, why."""
        assert self._route is not None, "there is somewhere to go"
        plan = await self.hosts.plan(self._route)
        if isinstance(plan, Reply):
            failed = plan.code >= 500
            search.trouble = Tried(Result.FAILED if failed else Result.DEFERRED, plan)
            if failed:  # the DNS has answered for the destination
                self._note(Welcome.HEARD)
            search.candidates = []
        else:
            search.candidates = [each for each in plan if each not in search.passed]

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


def _connecting() -> Standing:
    return Standing(state="connecting")


def _unreachable(candidate: Candidate, error: OSError | trio.TooSlowError) -> Reply:
    return made(451, 4, 1, f"cannot connect to {candidate}: {_why_not(error)}")


def _not_asked(candidate: Candidate, refusal: Failure, now: float) -> Reply:
    left = refusal.minutes(now)
    why = f"{candidate} has refused our login, and is not asked for {left} min more"
    return made(451, 7, 8, f"{why}: {refusal.reason}")


def _why_not(error: OSError | trio.TooSlowError) -> str:
    if isinstance(error, trio.TooSlowError):
        return "timed out"
    return str(error) if error.errno is None else os.strerror(error.errno)
