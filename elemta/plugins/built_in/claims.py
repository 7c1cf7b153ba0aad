"""What a message wants of which windows: of its account's, its domains', and of each for itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple, TypeAlias

from msgspec import Meta

from elemta.config import Table
from elemta.ledger import short
from elemta.plugins.built_in.accounts import Accounts
from elemta.plugins.built_in.window import Window
from elemta.units import Frequency

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from elemta.ledger import Book
    from elemta.plugins.built_in.window import Taken

Kind: TypeAlias = Literal["messages", "recipients"]
#: Opens a book by its name.
OpensBook: TypeAlias = "Callable[[str], Awaitable[Book[Taken]]]"


class Limits(Table, frozen=True, kw_only=True):
    """So many in a time, several windows at once; none: as many as there are."""

    #: Messages: ``[30/1 min, 500/1 d]``.
    messages: tuple[Frequency, ...] = ()
    #: Recipients: a message to three counts three times.
    recipients: tuple[Frequency, ...] = ()

    def __post_init__(self) -> None:
        for kind, limits in self.by_kind.items():
            times = [limit.seconds for limit in limits]
            if len(times) != len(set(times)):
                raise ValueError(
                    f"two limits of {kind} in the same time: only the lower would count"
                )

    @property
    def by_kind(self) -> Mapping[Kind, tuple[Frequency, ...]]:
        """The limits by what they count."""
        return {"messages": self.messages, "recipients": self.recipients}


class Override(Table, frozen=True, kw_only=True):
    """An entry of ``overrides``: the first one that means an account holds for it.

    What is not given is as for all others; ``{}`` is no limit.
    """

    #: ``news@example.org``, ``@example.org``, ``@*.example.org``, ``*``, or a login that has no @.
    accounts: Annotated[tuple[str, ...], Meta(min_length=1)]
    #: In place of those of the settings. ``sender_domain`` holds for the domains that are meant:
    #: ``@example.org``.
    account: Limits | None = None
    sender_domain: Limits | None = None
    recipient_domain: Limits | None = None
    #: Whether the brake may stop these.
    brake: bool = True

    def __post_init__(self) -> None:
        _ = Accounts(self.accounts)


class Mail(NamedTuple):
    """What of a message matters here.

    Attributes:
        account: whose it is.
        sender_domain: of its envelope; empty: it has none.
        domains: its recipients, by domain; of an empty one nothing is known.
    """

    account: str
    sender_domain: str
    domains: Mapping[str, int]

    @property
    def recipients(self) -> int:
        """How many."""
        return sum(self.domains.values())


class Limit(NamedTuple):
    """One limit, at work.

    Attributes:
        book: what was taken, by account or domain.
    """

    kind: Kind
    limit: Frequency
    window: Window
    book: Book[Taken]


class Claim(NamedTuple):
    """What a message wants of a limit.

    Attributes:
        limit: which one.
        key: of whose window.
        amount: how much.
        whose: that window is, for people.
    """

    limit: Limit
    key: bytes
    amount: int
    whose: str

    def fits_at(self, now: float) -> float:
        """When there is room for it; see `Window.fits_at`."""
        row, most = self.limit.book.get(self.key), self.limit.limit.count
        return self.limit.window.fits_at(row, self.amount, most, now)

    def take(self, now: float) -> None:
        """Take it."""
        book = self.limit.book
        book.put(self.key, self.limit.window.take(book.get(self.key), self.amount, now))

    def told(self, now: float) -> str:
        """What it would come to, for people: ``501 of 500 messages in 1 d``."""
        kind, limit, window, book = self.limit
        number = window.taken(book.get(self.key), now) + self.amount
        return f"{number} of {limit.count} {kind} in {limit.seconds.written}"


class Scope(NamedTuple):
    """One table of limits, at work."""

    limits: tuple[Limit, ...]

    @classmethod
    async def of(cls, table: Limits, per: str, taken: OpensBook) -> Scope:
        """Open what is known of its windows.

        Of one time there is one book, whatever the limit: what was sent stays known when the limit
        is changed, or another override holds.
        """
        found = [
            Limit(
                kind,
                limit,
                Window(limit.seconds),
                await taken(f"{kind} in {limit.seconds.written} per {per}"),
            )
            for kind, limits in table.by_kind.items()
            for limit in limits
        ]
        return cls(tuple(found))

    def claims(self, key: bytes, recipients: int, whose: str) -> list[Claim]:
        """What one message wants of these."""
        return [
            Claim(each, key, 1 if each.kind == "messages" else recipients, whose)
            for each in self.limits
        ]


class _Other(NamedTuple):
    """An override, at work."""

    accounts: Accounts
    account: Scope | None
    sender_domain: Scope | None
    recipient_domain: Scope | None
    brake: bool


class Claims:
    """All limits, at work; made by `of`.

    Args:
        account, sender_domain, recipient_domain: for all.
        others: for some.
    """

    def __init__(
        self,
        account: Scope,
        sender_domain: Scope,
        recipient_domain: Scope,
        others: Sequence[_Other],
    ) -> None:
        self._account = account
        self._sender_domain = sender_domain
        self._recipient_domain = recipient_domain
        self._others = others

    @classmethod
    async def of(
        cls,
        account: Limits,
        sender_domain: Limits,
        recipient_domain: Limits,
        overrides: Sequence[Override],
        taken: OpensBook,
    ) -> Claims:
        """Open what is known of their windows.

        Args:
            account: as settings have it.
            sender_domain: likewise.
            recipient_domain: likewise.
            overrides: likewise.
            taken: opens the book of this name.
        """

        async def scope(table: Limits | None, per: str) -> Scope | None:
            return None if table is None else await Scope.of(table, per, taken)

        others = [
            _Other(
                Accounts(each.accounts),
                await scope(each.account, "account"),
                await scope(each.sender_domain, "sender_domain"),
                await scope(each.recipient_domain, "recipient_domain"),
                each.brake,
            )
            for each in overrides
        ]
        return cls(
            await Scope.of(account, "account", taken),
            await Scope.of(sender_domain, "sender_domain", taken),
            await Scope.of(recipient_domain, "recipient_domain", taken),
            others,
        )

    def made(self, mail: Mail) -> list[Claim]:
        """What a message wants."""
        name, key, domain = mail.account, mail.account.lower(), mail.sender_domain
        account, recipient_domain = self._account, self._recipient_domain
        other = self._other(name)
        if other is not None:
            account = account if other.account is None else other.account
            if other.recipient_domain is not None:
                recipient_domain = other.recipient_domain
        found = account.claims(short(key), mail.recipients, name)
        if domain:
            found += self._of_domain(domain).claims(short(domain), mail.recipients, domain)
        if recipient_domain.limits:
            for to, amount in mail.domains.items():
                if to:
                    found += recipient_domain.claims(short(key, to), amount, f"{name} to {to}")
        return found

    def may_brake(self, account: str) -> bool:
        """Whether this one may be stopped."""
        other = self._other(account)
        return other is None or other.brake

    def _other(self, account: str) -> _Other | None:
        return next((each for each in self._others if each.accounts.have(account)), None)

    def _of_domain(self, domain: str) -> Scope:
        for each in self._others:
            if each.sender_domain is not None and each.accounts.have_domain(domain):
                return each.sender_domain
        return self._sender_domain
