"""Holds clients, senders and domains to so many connections, messages or octets in a time.

Why nobody can make it forget others by inventing names: of too many keys those go whose buckets are
nearly full, which are those of who has hardly begun. To push out somebody who has used half of his
limit, each invented name must have used half of its own.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Final, Literal, NamedTuple, TypeAlias

from msgspec import Meta
from typing_extensions import override

from elemta.config import Table
from elemta.ledger import Book, Row, short
from elemta.net.limits import network
from elemta.plugins import CONTINUE, Content, Defer, PluginWith, Reject, Session, Transaction
from elemta.plugins.built_in.bucket import Bucket
from elemta.plugins.built_in.entries import name_of
from elemta.plugins.remembering import Remembering
from elemta.units import Frequency, Octets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from elemta.ledger import Ledger
    from elemta.plugins import Verdict
    from elemta.protocol import Mailbox

Kind: TypeAlias = Literal["connections", "messages", "recipients", "octets"]

_HITS: Final[dict[Kind, str]] = {
    "connections": "connections_hit",
    "messages": "messages_hit",
    "recipients": "recipients_hit",
    "octets": "volume_hit",
}


class Rule(Table, frozen=True, kw_only=True):
    """An entry of ``rules``: all of them hold."""

    #: What is counted: ``connections``, ``messages``, ``recipients`` or ``octets`` of messages.
    of: Kind
    #: For whom: a client's ``network``; the ``sender`` or the ``sender_domain``, as claimed; each
    #: ``recipient_domain``; or the ``login``. The null sender is no sender.
    per: Literal["network", "sender", "sender_domain", "recipient_domain", "login"] = "network"
    #: How much in what time: ``100/1 h``; of octets ``50 MiB/1 h``.
    limit: str
    #: What too much gets: ``defer``, so that it comes later, or ``reject``.
    action: Literal["defer", "reject"] = "defer"
    #: Whether it holds for clients that may relay, have logged in or are vouched for, too. None: if
    #: it is per ``login``.
    also_trusted: bool | None = None

    def __post_init__(self) -> None:
        try:
            _ = self.bucket
        except ValueError as error:
            raise ValueError(f"`limit`: {error}") from None
        if self.of == "connections" and self.per != "network":
            raise ValueError("of connections nothing is known but the network")

    @property
    def bucket(self) -> Bucket:
        """The limit, parsed.

        Raises:
            ValueError: it is none.
        """
        if self.of != "octets":
            limit = Frequency.parse(self.limit)
            return Bucket(limit.count, limit.seconds)
        amount, _, time = self.limit.partition("/")
        octets = Octets.parse(amount.strip())
        if not octets:
            raise ValueError("expected a limit of more than no octets")
        return Bucket(octets, Frequency.parse(f"1/{time.strip()}").seconds)

    @property
    def for_trusted(self) -> bool:
        """See `also_trusted`."""
        return self.per == "login" if self.also_trusted is None else self.also_trusted

    @property
    def name(self) -> str:
        """What it is called in the log and on the disk."""
        return f"{self.limit} {self.of} per {self.per}"


class Settings(Table, frozen=True, kw_only=True):
    """The ``settings`` of ``rate-limit``."""

    #: What is limited.
    rules: Annotated[tuple[Rule, ...], Meta(min_length=1)]
    #: How much of an address is the network.
    ipv4_prefix: Annotated[int, Meta(ge=8, le=32)] = 32
    ipv6_prefix: Annotated[int, Meta(ge=16, le=128)] = 64
    #: Networks, senders and so on that are remembered for each rule; some 250 octets each.
    keys: Annotated[int, Meta(ge=1000, le=10_000_000)] = 100_000

    def __post_init__(self) -> None:
        names = [rule.name for rule in self.rules]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"{name} is there twice")


class _Held(NamedTuple):
    """A rule at work."""

    rule: Rule
    bucket: Bucket
    book: Book[Row]

    @property
    def least(self) -> float:
        """What there must be for a message to begin.

        Of octets nobody knows how many come: anything. So a message may be larger than the limit,
        and those behind it wait for longer then.
        """
        return 0.01 if self.rule.of == "octets" else 1

    def has(self, key: bytes, amount: float, now: float) -> bool:
        row = self.book.get(key)
        return self.bucket.has(amount, now if row is None else row.until, now)

    def take(self, key: bytes, amount: float, now: float) -> None:
        row = self.book.get(key)
        self.book.put(key, Row(self.bucket.take(amount, now if row is None else row.until, now)))


def _joined(
    bucket: Bucket, clock: Callable[[], float], before: Row | None, here: Row, there: Row
) -> Row:
    """What two nodes have taken at once; see `Book`."""
    was = 0.0 if before is None else before.until
    return Row(bucket.joined(was, here.until, there.until, clock()))


class _Passed:
    """Recipients of a message that no rule minds, of each domain; some others may have."""

    def __init__(self) -> None:
        self.all = 0
        self.of: dict[str, int] = {}


class RateLimit(Remembering, PluginWith[Settings]):
    """Holds clients, senders, logins and domains to so much in a time."""

    name = "rate-limit"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._held: tuple[_Held, ...] = ()

    @override
    async def remember(self, ledger: Ledger) -> None:
        held: list[_Held] = []
        for rule in self.settings.rules:
            bucket = rule.bucket
            book = Book(Row, self.settings.keys, partial(_joined, bucket, self.tools.clock))
            book = await ledger.book(rule.name, book, common=True)
            held.append(_Held(rule, bucket, book))
        self._held = tuple(held)

    # What is asked. At each step what is too much already is turned down; it is taken out of the
    # buckets once the client is about to send the message, or at once if it connects.

    @override
    async def on_connect(self, session: Session) -> Verdict:
        now = self.tools.clock()
        wanted = [
            (held, key)
            for held in self._concerned(session, "connections")
            if (key := self._of_session(held.rule, session)) is not None
        ]
        for held, key in wanted:
            if not self._fits(held, key, 1, now):
                return self._too_much(held, "too many connections")
        for held, key in wanted:
            held.take(key, 1, now)
        return CONTINUE

    @override
    async def on_mail(self, transaction: Transaction) -> Verdict:
        now = self.tools.clock()
        for held in self._concerned(transaction.session, "messages", "octets"):
            key = self._of_message(held.rule, transaction)
            if key is not None and not self._fits(held, key, held.least, now):
                return self._too_much(held, "too much mail")
        return CONTINUE

    @override
    async def on_rcpt(self, transaction: Transaction, recipient: Mailbox) -> Verdict:
        now, domain = self.tools.clock(), name_of(recipient.domain)
        passed = transaction.kept.of(_Passed)
        for held in self._concerned(transaction.session, "messages", "recipients", "octets"):
            by_domain = held.rule.per == "recipient_domain"
            if held.rule.of != "recipients":
                if by_domain and not self._fits(held, short(domain), held.least, now):
                    return self._too_much(held, "too much mail for this domain")
                continue
            key = short(domain) if by_domain else self._of_message(held.rule, transaction)
            before = passed.of.get(domain, 0) if by_domain else passed.all
            if key is not None and not self._fits(held, key, before + 1, now):
                return self._too_much(held, "too many recipients", some=bool(passed.all))
        passed.all += 1
        passed.of[domain] = passed.of.get(domain, 0) + 1
        return CONTINUE

    @override
    async def on_data(self, transaction: Transaction) -> Verdict:
        now = self.tools.clock()
        wanted = [
            (held, key, amount)
            for held in self._concerned(transaction.session, "messages", "recipients")
            for key, amount in self._counted(held.rule, transaction)
        ]
        for held, key, amount in wanted:
            if not self._fits(held, key, amount, now):
                return self._too_much(held, "too much mail")
        for held, key, amount in wanted:
            held.take(key, amount, now)
        return CONTINUE

    @override
    async def on_message(self, transaction: Transaction, content: Content) -> Verdict:
        now = self.tools.clock()
        for held in self._concerned(transaction.session, "octets"):
            for key, _ in self._counted(held.rule, transaction):
                held.take(key, content.size, now)
        return CONTINUE

    def _concerned(self, session: Session, *kinds: Kind) -> Iterator[_Held]:
        """The rules of some kinds that hold for a client."""
        exempt, counts = session.exempt, self.tools.meters.rate_limits
        for held in self._held:
            if held.rule.of in kinds:
                if not exempt or held.rule.for_trusted:
                    yield held
                else:
                    counts["whitelist_hits"] += 1

    def _of_session(self, rule: Rule, session: Session) -> bytes | None:
        """Whose bucket it is; None: nobody's."""
        if rule.per == "login":
            return None if session.login is None else short(session.login)
        if not session.address:
            return None
        settings = self.settings
        return short(network(session.address, settings.ipv4_prefix, settings.ipv6_prefix))

    def _of_message(self, rule: Rule, transaction: Transaction) -> bytes | None:
        """Whose bucket it is, whoever the recipients are; None: nobody's."""
        match rule.per:
            case "network" | "login":
                return self._of_session(rule, transaction.session)
            case "recipient_domain":
                return None
            case _ if transaction.sender is None:
                return None
            case "sender":
                return short(str(transaction.sender).lower())
            case "sender_domain":
                return short(name_of(transaction.sender.domain))

    def _counted(self, rule: Rule, transaction: Transaction) -> list[tuple[bytes, int]]:
        """Whose buckets a message concerns, and how much of messages or recipients it is."""
        recipients = transaction.recipients
        if rule.per != "recipient_domain":
            key = self._of_message(rule, transaction)
            amount = len(recipients) if rule.of == "recipients" else 1
            return [] if key is None else [(key, amount)]
        domains: dict[bytes, int] = {}
        for each in recipients:
            key = short(name_of(each.domain))
            domains[key] = domains.get(key, 0) + 1
        return [(key, n if rule.of == "recipients" else 1) for key, n in domains.items()]

    def _fits(self, held: _Held, key: bytes, amount: float, now: float) -> bool:
        self.tools.meters.rate_limits["requests"] += 1
        return held.has(key, amount, now)

    def _too_much(self, held: _Held, text: str, *, some: bool = False) -> Verdict:
        """Turn something down.

        Args:
            held: the rule.
            text: for the client.
            some: some recipients were taken, so the client may send the message to them.
        """
        rule = held.rule
        self.tools.meters.rate_limits[_HITS[rule.of]] += 1
        if rule.action == "reject":
            return Reject((7, 0), text, note=rule.name)
        return Defer((5, 3) if some else (7, 0), f"{text}, try again later", note=rule.name)
