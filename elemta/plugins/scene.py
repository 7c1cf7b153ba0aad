"""What plugins see: the client, the message on its way in, its content, and where it goes."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from msgspec import Struct, field
from msgspec.structs import replace

from elemta.message import HeaderScanner
from elemta.net.tls import Encryption
from elemta.plugins.changes import (
    AddHeader,
    AddRecipient,
    Change,
    Prioritise,
    Redirect,
    RemoveHeader,
    RemoveRecipient,
    Tag,
    Via,
)
from elemta.plugins.results import Allowed, Results, Store
from elemta.plugins.verdicts import Discard, Fate, Quarantine
from elemta.protocol import Mailbox, MailParams, Notify, RcptParams, ReversePath
from elemta.queue import Addressee, MessageId, Priority

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

    from elemta.config import IPAddress

#: Where mail goes that nobody gets.
NOBODY: Final = ("discard",)
#: Of a recipient that the sender does not know of.
_QUIET: Final = RcptParams(notify=frozenset({Notify.NEVER}))


@lru_cache(maxsize=1024)  # plugins ask at each step about the same client
def ip_of(address: str) -> IPAddress | None:
    """An address as a client has it; None for a Unix socket. IPv4 in IPv6 is IPv4."""
    if not address:
        return None
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv6Address):
        return found.ipv4_mapped or found
    return found


class Doomed(Struct, frozen=True, gc=False):
    """What one plugin wants to become of a message, or of all that a client brings.

    Attributes:
        plugin: what the configuration calls it.
        recipient: whom alone it is about, as the client named him; None: all.
    """

    plugin: str
    fate: Fate
    recipient: Mailbox | None = None


#: In place of a plugin: the listener itself, where a message that is submitted lacks something.
BY_LISTENER: Final = ""


class Made(Struct, frozen=True, gc=False):
    """A change, and the plugin that made it, or `BY_LISTENER`."""

    plugin: str
    change: Change


class Session(Struct, kw_only=True, eq=False):
    """One connection of one client. Plugins read it; the listener alone writes it.

    Attributes:
        id: names the session in every log event.
        address: the client's IP address; empty for a Unix socket.
        port: the client's; 0 for a Unix socket.
        listener: the name of the listener that took the connection; ``api`` for what is handed in
            by HTTP.
        submission: who sends here must have logged in (RFC 6409); so it is with the API.
        trusted: the client may send to any domain (``relay.networks``, or it has logged in).
        helo: what the client calls itself: a claim; empty before EHLO.
        extended: it said EHLO or LHLO, not HELO.
        encryption: how the connection is protected, and by whose certificate; None if it is not.
        login: who is logged in, or None.
        addresses: what he may send as beside `login`; see `Granted`.
        app: what he calls the app password that he came with; empty: it was his own.
        results: what plugins found out about the client.
        kept: what plugins keep for themselves.
        doomed: what plugins want to become of all its mail.
    """

    id: str
    address: str
    port: int
    listener: str
    submission: bool = False
    trusted: bool = False
    helo: str = ""
    extended: bool = False
    encryption: Encryption | None = None
    login: str | None = None
    addresses: tuple[str, ...] = ()
    app: str = ""
    results: Results = field(default_factory=Results)
    kept: Store = field(default_factory=Store)
    doomed: list[Doomed] = []

    @property
    def tls(self) -> str | None:
        """The version of TLS, e.g. ``TLSv1.3``; None: it is in clear."""
        return None if self.encryption is None else self.encryption.version

    @property
    def ip(self) -> IPAddress | None:
        """The client's address, to be found in networks; None for a Unix socket.

        IPv4 in IPv6 is IPv4.
        """
        return ip_of(self.address)

    @property
    def exempt(self) -> bool:
        """Whether guesses at spam are not for this client: it is trusted, or `Allowed`."""
        return self.trusted or self.results.first(Allowed) is not None


class Before(NamedTuple):
    """How much plugins had changed and said before they were asked about a recipient."""

    made: int
    said: int


#: Stands where `Transaction` puts its own.
_NOTHING: Final = Results()


class Transaction(Struct, kw_only=True, eq=False):
    """One message on its way in. Plugins read it, and change it by what they answer.

    Attributes:
        id: what the message will be called if it is taken.
        recipients: those taken so far, as the client named them.
        addressees: those that they lead to, aliases followed, none of them twice.
        priority: what a plugin gave it; None: none did.
        tags: words by which operators find the message in the queue.
        made: what plugins have changed.
        results: what plugins found out about the message and its client.
        kept: what plugins keep for themselves.
        doomed: what plugins want to become of it; the session's first.
        said: what plugins add to our answer at its end.
    """

    session: Session
    id: MessageId
    sender: ReversePath
    params: MailParams
    recipients: list[Mailbox] = []
    addressees: dict[Mailbox, Addressee] = {}
    priority: Priority | None = None
    tags: tuple[str, ...] = ()
    made: list[Made] = []
    results: Results = _NOTHING
    kept: Store = field(default_factory=Store)
    doomed: list[Doomed] = []
    said: list[str] = []

    def __post_init__(self) -> None:
        self.results = Results(self.session.results)
        self.doomed = list(self.session.doomed)

    def fate(self, recipient: Mailbox | None = None) -> Doomed | None:
        """What becomes of the message: the first wish to discard it, or else to hold it.

        Args:
            recipient: as the client named him: what becomes of it for him alone; None: for all.
        """
        if not self.doomed:
            return None  # as nearly always
        doomed = [each for each in self.doomed if each.recipient == recipient]
        discards = (each for each in doomed if isinstance(each.fate, Discard))
        holds = (each for each in doomed if isinstance(each.fate, Quarantine))
        return next(discards, None) or next(holds, None)

    @property
    def exempt(self) -> bool:
        """Whether guesses at spam are not for this message.

        Its client is `Session.exempt`, or somebody vouches for this message alone (`Allowed`).
        """
        return self.session.trusted or self.results.first(Allowed) is not None

    @property
    def fields_changed(self) -> bool:
        """Whether the header is not as its client sent it."""
        made = self.made  # by nobody, as a rule
        return bool(made) and any(isinstance(one.change, (AddHeader, RemoveHeader)) for one in made)

    def change(self, plugin: str, change: Change, *, later: bool = False) -> None:
        """For the chain: do what a plugin asked for, and write down that it did.

        Args:
            plugin: what the configuration calls it.
            change: what it asked for.
            later: a recipient is asked about, who may not be taken yet: `add` does it.
        """
        self.made.append(Made(plugin, change))
        if not later:
            self._do(change)

    def lacks(self, addressee: Addressee) -> bool:
        """Whether somebody gets the message who would not get it yet.

        Of two ways that lead to one addressee, of which plugins let only one through, that counts.
        """
        known = self.addressees.get(addressee.address)
        return known is None or _doom(addressee) < _doom(known)

    @property
    def before(self) -> Before:
        """For the listener: taken before plugins are asked about a recipient."""
        return Before(len(self.made), len(self.said))

    def add(self, recipient: Mailbox, addressees: Iterable[Addressee], before: Before) -> None:
        """For the listener: take a recipient that no plugin objects to.

        What plugins wanted changed when they were asked about him is done now that he is there.

        Args:
            recipient: as the client named him.
            addressees: whom he leads to.
            before: as it was when plugins had not been asked about him.
        """
        self.recipients.append(recipient)
        for each in addressees:
            self._put(each)
        for made in self.made[before.made :]:
            self._do(made.change)

    def refuse(self, recipient: Mailbox, before: Before) -> None:
        """For the listener: forget what plugins wanted because of a recipient who is not taken.

        Args:
            recipient: as the client named him.
            before: as of `add`.
        """
        del self.made[before.made :]
        del self.said[before.said :]
        if recipient not in self.recipients:
            self.doomed = [each for each in self.doomed if each.recipient != recipient]

    def _put(self, addressee: Addressee) -> None:
        if self.lacks(addressee):
            self.addressees[addressee.address] = addressee

    def _do(self, change: Change) -> None:
        """Doing it again changes nothing more."""
        known = self.addressees
        match change:
            case AddRecipient(address, quiet):
                params = _QUIET if quiet else RcptParams()
                self._put(Addressee(address=address, params=params))
            case RemoveRecipient(address):
                for each in _led_to(address, known):
                    del known[each.address]
            case Redirect(address, to):
                if to != address:
                    for each in _led_to(address, known):
                        del known[each.address]
                        self._put(_redirected(each, to))
            case Prioritise(priority):
                self.priority = priority
            case Tag(word):
                if word not in self.tags:
                    self.tags = (*self.tags, word)
            case Via(targets, recipient):
                chosen = [*known.values()] if recipient is None else _led_to(recipient, known)
                for each in chosen:
                    if each.via != NOBODY:
                        known[each.address] = replace(each, via=targets)
            case AddHeader() | RemoveHeader():
                pass  # see `rewritten`: the header is not here


def _doom(addressee: Addressee) -> int:
    """How little of a message somebody gets: all, later it may be, nothing."""
    return 2 if addressee.via == NOBODY else int(addressee.holder is not None)


def _led_to(address: Mailbox, known: dict[Mailbox, Addressee]) -> list[Addressee]:
    """Those that are called so, or whom an alias of that name led to."""
    return [each for each in known.values() if address in (each.address, each.original)]


def _redirected(addressee: Addressee, to: Mailbox) -> Addressee:
    return replace(addressee, address=to, original=addressee.original or addressee.address)


class Content(Protocol):
    """The content of a message, whole by now, as its client sent it: CRLF line ends."""

    @property
    def header(self) -> HeaderScanner:
        """Its fields."""
        ...

    @property
    def size(self) -> int:
        """Octets."""
        ...

    async def read(self, most: int | None = None) -> bytes:
        """All of it, in memory.

        Args:
            most: octets that are too many; None: whatever we take is not.

        Raises:
            TooLargeError: it has more, or there is no memory for it just now.
            StoreUnavailable: it was on the disk, which fails.
        """
        ...

    def pieces(self) -> AsyncGenerator[bytes]:
        """All of it, one piece after the other; may be asked again.

        Who may not hear it out closes it: ``async with aclosing(content.pieces()) as pieces``.

        Raises:
            StoreUnavailable: it was on the disk, which fails.
        """
        ...


class Whole:
    """The content of a message that stands in memory (`Content`).

    Args:
        octets: CRLF line ends.
    """

    def __init__(self, octets: bytes) -> None:
        self.header = HeaderScanner(len(octets) + 1, octets.count(b"\n") + 1)
        self.header.feed(octets)
        self.size = len(octets)
        self._octets = octets

    async def read(self, most: int | None = None) -> bytes:
        """See `Content`."""
        if most is not None and self.size > most:
            raise TooLargeError(f"{self.size} octets are more than {most}")
        return self._octets

    async def pieces(self) -> AsyncGenerator[bytes]:
        """See `Content`."""
        yield self._octets


class TooLargeError(Exception):
    """A message has more octets than somebody wants to have in memory."""
