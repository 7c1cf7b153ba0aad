"""Holds accounts to so much mail in a time, and stops those that suddenly send far more than usual.

The rules of this file:

- It is decided when the message is here and about to be kept: what anybody refuses before that
  counts for nothing. From the look at the windows to the entry in them nothing is awaited, so two
  sessions of one account cannot both have its last place.
- What passes never exceeds a limit, in any stretch of its length (`…built_in.window`).
- What is over a limit takes nothing of it, or who goes on trying would be shut out for ever. It
  takes of `Settings.held`, beyond which mail is refused: the queue must not be filled by the held.
- An operator who releases what the brake has held knows the account: it is let go for a day.
- What becomes of held mail is heard of as an event, not at its next attempt: mail that is deleted
  must not take the room of what is released, and who redirects one to himself has yet to look.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Final, Literal, NamedTuple

import trio
from msgspec import Meta
from typing_extensions import override

from elemta.config import Table
from elemta.ledger import Book, Row, short
from elemta.log import logger
from elemta.net.limits import network
from elemta.plugins import CONTINUE, Content, Defer, PluginWith, Quarantine, Reject, Session
from elemta.plugins.built_in.accounts import Accounts
from elemta.plugins.built_in.brake import DAY, Brake, Usual, sent, sent_by_both, usual
from elemta.plugins.built_in.claims import Claim, Claims, Limits, Mail, Override
from elemta.plugins.built_in.entries import name_of
from elemta.plugins.built_in.window import Taken, Window, taken_by_both
from elemta.plugins.remembering import Remembering
from elemta.queue import Finished, MessageId, Released, Result, StoreUnavailable
from elemta.units import Frequency, Seconds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from elemta.ledger import Ledger
    from elemta.plugins import Attempted, Letter, Steers, Transaction, Verdict
    from elemta.queue import QueueEvent

log = logger(__name__)

#: How much of an address is the client, where there is no login.
IPV4_PREFIX: Final = 32
IPV6_PREFIX: Final = 64
#: Messages that are held and remembered: to be released when there is room, and to know that
#: somebody has released them.
MOST_HELD: Final = 100_000
#: Seconds for which one is.
HELD_FOR: Final = 30 * DAY
#: Seconds between two looks for what there is room for again.
LOOKING: Final = 60.0
#: Messages that are held which are looked at before others get their turn.
SLICE: Final = 1000
#: Seconds from the first account that is stopped to the mail about it, and those like it; and to
#: the next try, if that cannot be written.
GATHERING: Final = 60.0
TELLING_AGAIN: Final = 600.0
#: What the brake looks at.
_DAY: Final = Window(DAY)


class Settings(Table, frozen=True, kw_only=True):
    """The ``settings`` of ``sending-limits``."""

    #: What each account may send.
    account: Limits = Limits()
    #: What may be sent from each domain, by all its accounts together.
    sender_domain: Limits = Limits()
    #: What each account may send to each domain.
    recipient_domain: Limits = Limits()
    #: What is over a limit is held in the queue (``hold``), or put off with 452 (``refuse``).
    over: Literal["hold", "refuse"] = "hold"
    #: Messages of one account that are held, by limits and brake; beyond that they are put off.
    held: Frequency = Frequency(200, Seconds(DAY))
    #: What is held for a limit waits for an operator (``never``), or goes on by itself when there
    #: is room again (``when-room``). What the brake holds always waits.
    release: Literal["never", "when-room"] = "never"
    #: Limits for some.
    overrides: tuple[Override, ...] = ()
    #: Accounts that nothing of this is for, as in `Override.accounts`.
    exempt: tuple[str, ...] = ()
    #: Whether a client of ``relay.networks`` without a login is an account, too, by its address.
    clients: bool = False
    #: When an account is stopped; none: never.
    brake: Brake | None = Brake()
    #: Accounts and domains that are remembered of each kind; some 600 octets each.
    keys: Annotated[int, Meta(ge=1000, le=10_000_000)] = 100_000

    def __post_init__(self) -> None:
        _ = Accounts(self.exempt)


class HeldRow(Row):
    """A message that is held.

    Attributes:
        account: whose.
        brake: by the brake, not for a limit.
        sender_domain: of the envelope; empty: there is none.
        domains: its recipients, by domain.
    """

    account: str
    brake: bool
    sender_domain: str
    domains: dict[str, int]


class Stop(Row):
    """An account that is stopped; or that is let go, whatever it sends.

    Attributes:
        account: what it is called.
        why: for operators; empty: it is let go.
        told: when the postmaster was told last, seconds since the epoch.
    """

    account: str
    why: str
    told: float


class _Untold(dict[str, str]):
    """Accounts of which the postmaster has yet to hear, and why they are stopped."""


class _Trouble(NamedTuple):
    """Why a message does not go through.

    Attributes:
        reason: for operators.
        text: for the client.
        again: when it would, seconds since the epoch; infinity: never.
        brake: its account is stopped.
    """

    reason: str
    text: str
    again: float
    brake: bool = False


class SendingLimits(Remembering, PluginWith[Settings]):
    """Holds or refuses what an account sends beyond its limits, or far beyond its usual."""

    name = "sending-limits"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._exempt = Accounts(settings.exempt)
        self._limit_held = Window(settings.held.seconds)
        self._also = self._show
        self._untold: _Untold
        self._something = trio.Event()
        self._claims: Claims
        self._taken_held: Book[Taken]
        self._held: Book[HeldRow]
        self._day: Book[Taken]
        self._refused: Book[Taken]
        self._usual: Book[Usual]
        self._stops: Book[Stop]

    @override
    async def remember(self, ledger: Ledger) -> None:
        settings = self.settings

        async def taken(name: str) -> Book[Taken]:
            book = Book(Taken, settings.keys, taken_by_both)
            return await ledger.book(name, book, common=True)

        self._claims = await Claims.of(
            settings.account,
            settings.sender_domain,
            settings.recipient_domain,
            settings.overrides,
            taken,
        )
        self._taken_held = await taken(f"held in {settings.held.seconds.written}")
        self._day = await taken("recipients in a day")
        bounces = None if settings.brake is None else settings.brake.bounces
        self._refused = await taken(
            "bounces" if bounces is None else f"bounces in {bounces.seconds.written}"
        )
        # What is held is in the queue of this node alone; all else all nodes know.
        self._held = await ledger.book("held", Book(HeldRow, MOST_HELD))
        usually = Book(Usual, settings.keys, sent_by_both)
        self._usual = await ledger.book("usual", usually, common=True)
        self._stops = await ledger.book("stops", Book(Stop, settings.keys), common=True)
        # A reload must not lose it.
        self._untold = self.tools.shared.of(_Untold)
        self._show()

    @override
    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(super().run)
            nursery.start_soon(self._tell)
            if self.settings.release == "when-room":
                nursery.start_soon(self._look_for_room)

    def _show(self) -> None:
        """For the metrics."""
        now = self.tools.clock()
        stopped = sum(1 for row in self._stops.rows.values() if row.why and row.until > now)
        self.tools.meters.sending_stopped = stopped

    # What is asked.

    @override
    async def on_mail(self, transaction: Transaction) -> Verdict:
        """Spare a client its message that would be refused anyway."""
        mail = self._mail(transaction)
        if mail is None:
            return CONTINUE
        now = self.tools.clock()
        # Of one recipient, of whom nothing is known yet.
        trouble = self._trouble(mail._replace(domains={"": 1}), now)
        if trouble is None or (refusal := self._refusal(mail, trouble, now)) is None:
            return CONTINUE
        self._count("refused")
        return refusal

    @override
    async def on_message(self, transaction: Transaction, content: Content) -> Verdict:
        mail = self._mail(transaction)
        if mail is None:
            return CONTINUE
        now = self.tools.clock()
        trouble = self._trouble(mail, now)
        if trouble is None:
            self._take(mail, now)
            self._count("passed")
            return CONTINUE
        if trouble.brake:
            self._stop(mail.account, trouble.reason, now)
        refusal = self._refusal(mail, trouble, now)
        if refusal is not None:
            self._count("refused")
            return refusal
        self._hold(transaction.id, mail, trouble, now)
        return Quarantine(trouble.reason)

    @override
    async def on_event(self, event: QueueEvent, queue: Steers) -> None:
        """See whether somebody has released what we hold, or it is gone."""
        if not self._held.rows or not isinstance(event, (Released, Finished)):
            return
        key = short(event.id)
        row = self._held.get(key)
        if row is None:
            return  # as of what we have released ourselves
        self._held.drop(key)
        if row.brake and isinstance(event, Released):
            self._let_go(row.account, self.tools.clock())

    @override
    async def on_attempted(self, letter: Letter, attempted: Attempted) -> None:
        """Count what others refuse for good: who guesses addresses, or has bought some."""
        brake, account = self.settings.brake, letter.message.origin.login
        if brake is None or brake.bounces is None or not account:
            return
        if attempted.result is not Result.FAILED or attempted.reply.code < 500:
            return
        if self._exempt.have(account) or not self._claims.may_brake(account):
            return
        now, key, limit = self.tools.clock(), short(account.lower()), brake.bounces
        window = Window(limit.seconds)
        row = window.take(self._refused.get(key), 1, now)
        self._refused.put(key, row)
        number = window.taken(row, now)
        stop = self._stopped(key, now)
        if number > limit.count and stop is None:
            time = limit.seconds.written
            self._stop(account, f"{account}: {number} recipients refused in {time}", now)

    # What is known.

    def _mail(self, transaction: Transaction) -> Mail | None:
        """What of a message matters; None: it does not concern us."""
        account = self._account(transaction.session)
        if account is None or self._exempt.have(account):
            return None
        sender = transaction.sender
        return Mail(
            account,
            "" if sender is None else name_of(sender.domain),
            Counter(name_of(each.domain) for each in transaction.recipients),
        )

    def _account(self, session: Session) -> str | None:
        """Whose mail it is; None: nobody's whom we know."""
        if session.login is not None:
            return session.login
        if self.settings.clients and session.trusted and session.address:
            return network(session.address, IPV4_PREFIX, IPV6_PREFIX)
        return None

    def _stopped(self, key: bytes, now: float) -> Stop | None:
        """Whether an account is stopped, or let go, just now."""
        row, brake = self._stops.get(key), self.settings.brake
        if row is None or brake is None:
            return None
        # If it is more than there can be, the clock was set back.
        return row if 0 < row.until - now <= max(brake.lasts, DAY) else None

    def _trouble(self, mail: Mail, now: float) -> _Trouble | None:
        """What is against a message; nothing is changed."""
        brake = self.settings.brake
        if brake is not None and self._claims.may_brake(mail.account):
            trouble = self._brake(brake, mail, now)
            if trouble is not None:
                return trouble
        worst: tuple[float, Claim] | None = None
        for claim in self._claims.made(mail):
            at = claim.fits_at(now)
            if at > now and (worst is None or at > worst[0]):
                worst = at, claim
        if worst is None:
            return None
        at, claim = worst
        told = claim.told(now)
        return _Trouble(f"{claim.whose}: {told}", told, at)

    def _brake(self, brake: Brake, mail: Mail, now: float) -> _Trouble | None:
        key = short(mail.account.lower())
        stop = self._stopped(key, now)
        text = "sending is stopped for this account, ask your postmaster"
        if stop is not None:
            return _Trouble(stop.why, text, math.inf, brake=True) if stop.why else None
        usually = usual(self._usual.get(key), brake.days, now)
        number = _DAY.taken(self._day.get(key), now) + mail.recipients
        most = brake.allowance(usually)
        if number <= most:
            return None
        reason = (
            f"{mail.account}: {number} recipients in 1 d, usually {usually:.3g}, at most {most}"
        )
        return _Trouble(reason, text, math.inf, brake=True)

    # What is done.

    def _take(self, mail: Mail, now: float) -> None:
        """A message goes through."""
        for claim in self._claims.made(mail):
            claim.take(now)
        brake = self.settings.brake
        if brake is not None:
            key, number = short(mail.account.lower()), mail.recipients
            self._day.put(key, _DAY.take(self._day.get(key), number, now))
            self._usual.put(key, sent(self._usual.get(key), number, brake.days, now))

    def _refusal(self, mail: Mail, trouble: _Trouble, now: float) -> Defer | Reject | None:
        """What the client hears of it; None: it is held."""
        again = trouble.again
        if self.settings.over == "hold" or trouble.brake:
            key, limit = short(mail.account.lower()), self.settings.held
            room = self._limit_held.fits_at(self._taken_held.get(key), 1, limit.count, now)
            if room <= now:
                return None
            again = min(again, room)
        elif again == math.inf:
            return Reject((5, 3), f"{trouble.text}: too many recipients", note=trouble.reason)
        text = trouble.text if trouble.brake else f"{trouble.text}, try again in {_in(again - now)}"
        return Defer((7, 1), text, note=trouble.reason, code=452)

    def _hold(self, id: MessageId, mail: Mail, trouble: _Trouble, now: float) -> None:  # noqa: A002 # the word of people
        key = short(mail.account.lower())
        self._taken_held.put(key, self._limit_held.take(self._taken_held.get(key), 1, now))
        if trouble.brake or self.settings.release == "when-room":
            row = HeldRow(
                now + HELD_FOR,
                mail.account,
                trouble.brake,
                mail.sender_domain,
                # Of one that will not be looked at again nobody needs them.
                {} if trouble.brake else dict(mail.domains),
            )
            self._held.put(short(id), row)
        self._count("braked" if trouble.brake else "held")

    def _stop(self, account: str, why: str, now: float) -> None:
        """From now on all mail of an account is held, and the postmaster hears of it once a day."""
        brake = self.settings.brake
        assert brake is not None
        key = short(account.lower())
        before = self._stopped(key, now)
        told = 0.0 if before is None else before.told
        if before is None or not before.why:
            log.warning("sending_limits.stopped", account=account, reason=why)
            self.tools.meters.sending_stops += 1
        if not told <= now < told + DAY:
            told = now
            self._untold[account] = why
            self._something.set()
        self._stops.put(key, Stop(now + brake.lasts, account, why, told))

    def _let_go(self, account: str, now: float) -> None:
        """Have an account send what it likes, for a day."""
        key = short(account.lower())
        before = self._stops.get(key)
        told = 0.0 if before is None else before.told
        self._stops.put(key, Stop(now + DAY, account, "", told))
        log.info("sending_limits.let_go", account=account)

    def _count(self, outcome: str) -> None:
        self.tools.meters.sending[outcome] += 1

    # What goes on beside the mail.

    async def _tell(self) -> None:
        """Tell the postmaster of accounts that are stopped, some together."""
        while True:
            if not self._untold:
                await self._something.wait()
            await trio.sleep(GATHERING)
            self._something = trio.Event()
            told = dict(self._untold)
            if await self.tools.tell_postmaster(*_words(told, self.tools.name)):
                for account in told:
                    self._untold.pop(account, None)
            if self._untold:
                await trio.sleep(TELLING_AGAIN - GATHERING)

    async def _look_for_room(self) -> None:
        """Release what there is room for again, of each account the oldest first."""
        while True:
            await trio.sleep(LOOKING)
            await self._release()

    async def _release(self) -> None:
        accounts: dict[str, list[tuple[bytes, HeldRow]]] = {}
        for number, (key, row) in enumerate(list(self._held.rows.items())):
            if not number % SLICE:
                await trio.lowlevel.checkpoint()  # there may be many, and others have to do, too
            if not row.brake:
                accounts.setdefault(row.account, []).append((key, row))
        for held in accounts.values():
            await trio.lowlevel.checkpoint()
            if not await self._release_of(held):
                return

    async def _release_of(self, held: list[tuple[bytes, HeldRow]]) -> bool:
        """Release what there is room for of one account; whether the queue lets us go on."""
        for key, row in sorted(held, key=_since):
            mail = Mail(row.account, row.sender_domain, row.domains)
            now = self.tools.clock()
            if self._held.get(key) is not row:
                continue
            if self._trouble(mail, now) is not None:
                return True
            self._take(mail, now)
            self._held.drop(key)
            try:
                await self.tools.queue.release(key.decode(), "there is room again", own=True)
            except StoreUnavailable:
                # It has taken its room, and takes it once more later: too little is sent then.
                self._held.put(key, row)
                return False
            self._count("released")
        return True


def _since(held: tuple[bytes, HeldRow]) -> float:
    return held[1].until


def _in(seconds: float) -> str:
    """How long somebody has to wait, as people say it, rounded up."""
    for unit, length in (("s", 1), ("min", 60)):
        if seconds <= 100 * length:
            return f"{math.ceil(seconds / length)} {unit}"
    return f"{math.ceil(seconds / 3600)} h"


def _words(told: Mapping[str, str], plugin: str) -> tuple[str, str]:
    """What the postmaster reads: subject and text."""
    names = [*told]
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    whose = "Their mail is" if more else "Its mail is"
    lines = [
        "Suddenly these accounts send far more than they usually do. Perhaps somebody else has",
        f"their passwords. {whose} held in the queue until you have looked at it.",
        "",
        *(f"  {why}" for why in told.values()),
        "",
        f"To see it:         elemta queue list --view hold --owner plugin:{plugin}",
        "If it is right:    elemta queue release ID (one message is enough: the account may go on)",
        "If it is not:      change the password, then elemta queue delete ID",
    ]
    return f"Sending is stopped for {names[0]}{more}", "\n".join(lines)
