"""Bars clients that guess addresses: by what they guess in all their connections together.

Within one connection the listener does so already (``hard_unknown_recipients``); who connects anew
after each twenty guesses would begin anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta
from typing_extensions import override

from elemta.config import Table
from elemta.ledger import Book, Row, short
from elemta.net.limits import network
from elemta.plugins import CONTINUE, Content, Defer, PluginWith, Reject, Session, Transaction
from elemta.plugins.built_in.actions import check_wait
from elemta.plugins.built_in.bucket import Bucket
from elemta.plugins.remembering import Remembering
from elemta.units import Frequency, Seconds

if TYPE_CHECKING:
    from elemta.ledger import Ledger
    from elemta.plugins import Verdict
    from elemta.protocol import Mailbox


class Settings(Table, frozen=True):
    """The ``settings`` of ``harvest-guard``."""

    #: Unknown recipients that a client may name in a time. A recipient that is there, of a message
    #: that comes, makes up for one: a list has dead addresses in it.
    unknown: Frequency = Frequency(20, Seconds(3600))
    #: How long a client is barred that names more.
    barred: Seconds = Seconds(3600)
    #: What it gets meanwhile: ``defer`` or ``reject``.
    action: Literal["defer", "reject"] = "defer"
    #: How much of an address is the client.
    ipv4_prefix: Annotated[int, Meta(ge=8, le=32)] = 32
    ipv6_prefix: Annotated[int, Meta(ge=16, le=128)] = 64
    #: Clients that are remembered; some 300 octets each.
    clients: Annotated[int, Meta(ge=1000, le=10_000_000)] = 100_000

    def __post_init__(self) -> None:
        check_wait("barred", self.barred)


class Guesser(Row, array_like=True):
    """A client that has named unknown recipients.

    Attributes:
        full_at: see `Bucket`.
        barred: until when.
    """

    full_at: float
    barred: float = 0.0


class HarvestGuard(Remembering, PluginWith[Settings]):
    """Bars clients that guess addresses, also if they connect anew for each."""

    name = "harvest-guard"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._bucket = Bucket(settings.unknown.count, settings.unknown.seconds)
        self._guessers: Book[Guesser]

    @override
    async def remember(self, ledger: Ledger) -> None:
        book = Book(Guesser, self.settings.clients, self._joined)
        self._guessers = await ledger.book("guessers", book, common=True)

    def _joined(self, before: Guesser | None, here: Guesser, there: Guesser) -> Guesser:
        """What a client has guessed at two nodes at once; see `Book`."""
        was = 0.0 if before is None else before.full_at
        now, barred = self.tools.clock(), max(here.barred, there.barred)
        full_at = self._bucket.joined(was, here.full_at, there.full_at, now)
        return Guesser(max(full_at, barred), full_at, barred)

    @override
    async def on_connect(self, session: Session) -> Verdict:
        return self._judge(session)

    @override
    async def on_mail(self, transaction: Transaction) -> Verdict:
        return self._judge(transaction.session)

    @override
    async def on_rcpt(self, transaction: Transaction, recipient: Mailbox) -> Verdict:
        return self._judge(transaction.session)

    @override
    async def on_unknown(self, transaction: Transaction, recipient: Mailbox) -> Verdict:
        key = self._key(transaction.session)
        if key is None:
            return CONTINUE
        now, settings = self.tools.clock(), self.settings
        known = self._guessers.get(key)
        full_at, barred = (now, 0.0) if known is None else (known.full_at, known.barred)
        if self._bucket.has(1, full_at, now):
            full_at = self._bucket.take(1, full_at, now)
        else:
            full_at, barred = now, now + settings.barred
            self.tools.count("barred")
        self._guessers.put(key, Guesser(max(full_at, barred), full_at, barred))
        # Who is barred now hears what he would hear of anybody, and learns of nobody.
        return self._judge(transaction.session)

    @override
    async def on_message(self, transaction: Transaction, content: Content) -> Verdict:
        key = self._key(transaction.session)
        known = None if key is None else self._guessers.get(key)
        if key is not None and known is not None:
            now = self.tools.clock()
            full_at = self._bucket.take(-len(transaction.recipients), known.full_at, now)
            until = max(full_at, known.barred)
            self._guessers.put(key, Guesser(until, full_at, known.barred))
        return CONTINUE

    def _key(self, session: Session) -> bytes | None:
        """Who is counted; None: this client is not."""
        if session.exempt or not session.address:
            return None
        settings = self.settings
        return short(network(session.address, settings.ipv4_prefix, settings.ipv6_prefix))

    def _judge(self, session: Session) -> Verdict:
        if not self._guessers.rows:
            return CONTINUE
        key = self._key(session)
        known = None if key is None else self._guessers.get(key)
        if known is None:
            return CONTINUE
        left = known.barred - self.tools.clock()
        # If it is more than there can be, the clock was set back.
        if not 0 < left <= self.settings.barred:
            return CONTINUE
        text, note = "too many unknown recipients", f"{self.settings.unknown}"
        if self.settings.action == "reject":
            return Reject((7, 0), text, note=note)
        return Defer((7, 0), f"{text}, try again later", note=note)
