"""What a plugin is: hooks that look at one step of a message's way and give a verdict.

A plugin never writes to the client and never changes what it is shown: it judges, and says what is
to be changed. Its hooks run in the session's own task, so two sessions may be inside one hook at a
time.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    ClassVar,
    Final,
    Generic,
    Self,
    TypeVar,
    cast,
    get_args,
    get_origin,
)
from weakref import WeakKeyDictionary

from msgspec import Struct
from typing_extensions import get_original_bases, override

from elemta.config import ConfigError, Mistake, Table, check
from elemta.login import ScramVerifier
from elemta.plugins.verdicts import CONTINUE, Defer, Verdict

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from elemta.message import HeaderScanner
    from elemta.plugins.changes import AddHeader
    from elemta.plugins.outgoing import Attempted, Letter, Steers
    from elemta.plugins.scene import Content, Session, Transaction
    from elemta.plugins.tools import Tools
    from elemta.protocol import Credentials, Mailbox, Token
    from elemta.queue import Destined, QueueEvent

S = TypeVar("S", bound=Table)

#: The verdict when a hook fails, unless the plugin or the configuration says otherwise.
TRY_LATER: Final = Defer((3, 0), "try again later")


#: Letters of what somebody is called who has logged in.
LONGEST_LOGIN: Final = 255


class Granted(Struct, frozen=True):
    """Somebody is who he says.

    Attributes:
        login: what he is called from now on: in our log, and with all that he sends. Whoever wants
            to act as another (`Credentials.acting_as`) may do so if it is that one who is named.
        addresses: what he may send as, beside `login`, if that is an address:
            ``bob@example.org``, ``@example.org`` for all of a domain, ``@*.example.org`` for all
            below it, or ``*`` for anything.
        app: what he calls the app password that he came with; empty: it was his own.
        until: when he has to prove it anew, seconds since the epoch, as a token expires.

    Raises:
        ValueError: that is no name: empty, of more than 255 letters, or not printable; or
            `addresses` is one text, of which each letter would be a pattern.
    """

    login: str
    addresses: tuple[str, ...] = ()
    app: str = ""
    until: float = math.inf

    def __post_init__(self) -> None:
        if not (0 < len(self.login) <= LONGEST_LOGIN and self.login.isprintable()):
            raise ValueError("no name of somebody who logs in")
        if _is_text(self.addresses):  # ("*@a.example") without its comma, say
            raise ValueError(f"`addresses` are several: expected a tuple, not {self.addresses!r}")


def _is_text(value: object) -> bool:
    return isinstance(value, str)


class Known(Struct, frozen=True):
    """Somebody whose password need not be said to us to be proved (SCRAM, RFC 5802).

    Attributes:
        verifier: what is kept of his password.
        granted: who he is, once he has proved that he knows it.
    """

    verifier: ScramVerifier
    granted: Granted


class Plugin:
    """Override the hooks that you need; those that nobody overrides cost nothing.

    A hook may await. One that raises, or outlives the plugin's ``timeout``, is logged and counts
    as `on_error`: unless a plugin says otherwise, mail is deferred, never let through unseen.

    Attributes:
        tools: what it may work with; there once `start` was called.
    """

    #: How the configuration calls it.
    name: ClassVar[str]
    #: The verdict when a hook fails: one for all, or by the name of the hook (what is not named is
    #: deferred).
    on_error: ClassVar[Verdict | Mapping[str, Verdict]] = TRY_LATER
    #: It may be asked of mail that never comes, so that people learn what it would say: it asks
    #: nobody else, keeps no count, and answers at once. Others are only named.
    dry: ClassVar[bool] = False

    #: Hooks of its class that it has no use for with its settings: as if it did not override them.
    idle: Collection[str] = ()

    tools: Tools

    @classmethod
    def configured(cls, settings: object, where: str) -> Self:
        """Make the plugin from its ``settings``; override it if there can be any.

        Nothing is opened here: this also checks a file that is not to run.

        Args:
            settings: plain values, as YAML gives them; hold them against a schema of your own
                with `elemta.config.check`.
            where: the place of `settings` in the file.

        Raises:
            ConfigError: it does not take these.
        """
        if settings:
            raise ConfigError(Mistake(where, f"the plugin {cls.name} has no settings"))
        return cls()

    def examine(self, where: str) -> None:
        """Look at the files that `start` is going to read: ``elemta check`` asks for it.

        The process ends afterwards, and may have other rights than the server.

        Args:
            where: the place of its settings in the file.

        Raises:
            ConfigError: it could not start with these.
        """

    # Its life.

    def outdated(self) -> bool:
        """Whether the same settings would make another one by now, as `configured` reads files.

        A reload asks, and makes it anew.
        """
        return False

    async def start(self) -> None:
        """Open what it needs; `tools` are there. Mail comes once this has returned.

        It may take as long as a hook. Whatever it raises keeps the server from starting, or a
        reload from being taken over; `stop` is called then, too.
        """

    async def run(self) -> None:
        """Do what is to be done beside the mail, such as pruning; cancelled before `stop`.

        If it raises it is logged, and called again after a while.
        """

    async def stop(self) -> None:
        """Close what `start` opened; no hook is running by then. It may take ten seconds."""

    # Connection.

    async def on_connect(self, session: Session) -> Verdict:
        """Before the greeting."""
        return CONTINUE

    async def on_disconnect(self, session: Session) -> None:
        """The connection is over, whoever ended it.

        Also where the objection of a plugin before this one ended it, so that its `on_connect` was
        not asked: what is to be undone here, keep in ``session.kept``.
        """

    # Authentication.

    async def on_authenticate(
        self, session: Session, credentials: Credentials
    ) -> Granted | Verdict:
        """Somebody says who he is (RFC 4954), and has said a password.

        Take as long for a wrong one as for a right one, also if nobody is called so: what we answer
        does not tell these apart.

        Returns:
            `Granted` if that is true; `Continue`: this plugin does not know him; `Reject` or
            `Defer`: no other is asked.
        """
        return CONTINUE

    async def on_verifier(self, session: Session, user: str) -> Known | Verdict:
        """Somebody wants to prove that he knows a user's password, and does not say it.

        SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 7677) are offered while a plugin has this hook.
        For a user whom nobody knows the client is shown what looks like a verifier all the same,
        and hears at the end that its proof is wrong: so take as long if nobody is called so.

        Args:
            session: the client's.
            user: whose password, prepared by the client or not: compare it as you compare that of
                `Credentials`.

        Returns:
            `Known`; `Continue`: this plugin does not know him, or keeps no verifier of him;
            `Reject`: as if nobody knew him; `Defer`: nobody can say now. After the last two no
            other is asked.
        """
        return CONTINUE

    async def on_token(self, session: Session, token: Token) -> Granted | Verdict:
        """Somebody shows what he was given elsewhere (OAUTHBEARER, RFC 7628; XOAUTH2).

        Both are offered while a plugin has this hook.

        Returns:
            As `on_authenticate`.
        """
        return CONTINUE

    async def on_account(self, session: Session) -> Verdict:
        """Who has logged in, by whatever plugin, wants to send a message: does that still hold?

        At each MAIL: what is slow, ask seldom. By `Reject` his conversation is over (421), and he
        has to log in anew; `Defer` puts this message off. What this plugin knows of him by his
        login, keep in ``session.kept``: others let people in, too.
        """
        return CONTINUE

    # HELO.

    async def on_hello(self, session: Session, name: str) -> Verdict:
        """After EHLO, HELO or LHLO, which may be repeated; `session.helo` is yet the last one."""
        return CONTINUE

    # MAIL FROM.

    async def on_mail(self, transaction: Transaction) -> Verdict:
        """After MAIL FROM; there are no recipients yet."""
        return CONTINUE

    # RCPT TO.

    async def on_rcpt(self, transaction: Transaction, recipient: Mailbox) -> Verdict:
        """For each RCPT TO that we could deliver; `transaction` has those taken before."""
        return CONTINUE

    async def on_unknown(self, transaction: Transaction, recipient: Mailbox) -> Verdict:
        """For each RCPT TO of a domain of ours that has no such mailbox; it is refused anyway.

        Returns:
            `Defer` or `Reject`: what the client hears in place of our own 550. So a plugin that
            turns down this client's recipients at `on_rcpt` can do so here in the same words, and
            tells nobody who is there. All else changes nothing.
        """
        return CONTINUE

    # Greylisting.

    async def on_greylist(self, transaction: Transaction, recipient: Mailbox) -> Verdict:
        """For each RCPT TO of a stranger that no `on_rcpt` objects to.

        Last, so that a clock is only started for what would be taken.
        """
        return CONTINUE

    # DATA.

    async def on_data(self, transaction: Transaction) -> Verdict:
        """After DATA or the first BDAT; all recipients are known."""
        return CONTINUE

    async def on_header(self, transaction: Transaction, header: HeaderScanner) -> Verdict:
        """When the header is here, and most of a large message is not."""
        return CONTINUE

    async def on_body(self, transaction: Transaction, octets: bytes) -> Verdict:
        """For each piece of what is behind the header, as it comes in."""
        return CONTINUE

    async def on_message(self, transaction: Transaction, content: Content) -> Verdict:
        """After the message came in whole, before we take responsibility for it."""
        return CONTINUE

    async def on_sign(
        self, transaction: Transaction | None, content: Content
    ) -> Sequence[AddHeader]:
        """Last of all, after every `on_message`: the message is as it will be stored and sent.

        Here alone `content` has all changes of fields made, our own Received among them, and what
        is answered is all that still comes to it: so it does not matter where in the configuration
        a plugin stands that signs. One that cannot, and would rather not have it go so, raises.

        Args:
            transaction: what was said of the message; None: it is a report that this server writes
                itself, and goes without the fields of plugins that fail.
            content: all of it.

        Returns:
            Fields for the top.
        """
        return ()

    def foresee_signing(self, transaction: Transaction, author: str) -> str:
        """What `on_sign` would do with a message that nobody has seen, for ``elemta explain``.

        Args:
            transaction: what is said of it.
            author: the domain of its From; empty: nobody knows.

        Returns:
            What follows the plugin's name; empty: it does not know.
        """
        return ""

    # Security.

    async def on_inspect(self, transaction: Transaction, content: Content) -> Verdict:
        """The message is here whole, and no `on_message` was asked yet: find something out.

        What it finds is added to ``transaction.results``, for all `on_message` to read. These hooks
        of all plugins run side by side, so none may count on what another one finds here.
        """
        return CONTINUE

    # Routing.

    def on_route(self, recipient: Destined) -> Sequence[str] | None:
        """Where a recipient's mail goes, asked at each attempt; before the configuration is.

        No coroutine: it is asked wherever a queue is sorted, often, and from other threads, too: it
        must know its answer at once, and say the same as long as it knows the same. Load tables in
        `start`, put new ones in their place in `run`, and then call `tools.routes_changed`. If it
        raises, or answers what are no targets, mail waits.

        Returns:
            Targets as `elemta.plugins.Via` has them; None: the next plugin, or the configuration,
            knows.
        """
        return None

    # Storage.

    async def on_store(self, letter: Letter) -> Verdict:
        """Keep a message for one recipient: of a domain with ``deliver: plugin:NAME``.

        Returns:
            `Accept`: it is kept, durably; `Defer`: try again later; `Reject`: never. Anything else
            is a failure, and deferred.
        """
        return Defer((3, 5), "the plugin stores nothing")

    # Delivery.

    async def on_attempt(self, letter: Letter) -> Verdict:
        """Before an attempt at one recipient.

        Returns:
            `Continue` or `Accept`: try it; `Defer` or `Reject`: that is what became of it;
            `Quarantine`: hold it, unless that was done before and somebody released it since;
            `Discard`: it is given to nobody. Changes are not heeded.
        """
        return CONTINUE

    async def on_attempted(self, letter: Letter, attempted: Attempted) -> None:
        """After an attempt at one recipient, however it ended. It is settled: nothing can hurt it.

        Not if the server is stopped in the middle of one: that is tried again.
        """

    # Queue.

    async def on_event(self, event: QueueEvent, queue: Steers) -> None:
        """Something happened in the queue: one thing after the other, its own doings included.

        A plugin that is slow misses some, and the log says how many.
        """


class PluginWith(Plugin, Generic[S]):
    """A plugin with settings: ``class Tarpit(PluginWith[Settings])``.

    Args:
        settings: a `elemta.config.Table` of its own, held against the file already.

    Attributes:
        settings: these.
    """

    def __init__(self, settings: S) -> None:
        self.settings = settings

    @override
    @classmethod
    def configured(cls, settings: object, where: str) -> Self:
        found = check(settings, _schema(cls), where)
        if mistakes := [*_relative(found, where)]:
            raise ConfigError(*mistakes)
        return cls(found)


def _relative(value: object, where: str) -> Iterator[Mistake]:
    """Paths that begin nowhere: a plugin knows no directory that it could let them start at."""
    match value:
        case Path():
            if not value.is_absolute():
                yield Mistake(where, f"expected a whole path, as in /etc/elemta/{value}")
        case Struct():
            for name in value.__struct_fields__:
                yield from _relative(getattr(value, name), f"{where}.{name}")
        case list() | tuple():
            # A cast, here and below: nobody knows what is in it, and it is looked at.
            for place, each in enumerate(cast("Iterable[object]", value)):
                yield from _relative(each, f"{where}[{place}]")
        case dict():
            for key, each in cast("Mapping[object, object]", value).items():
                yield from _relative(each, f"{where}.{key}")
        case _:
            pass


def _schema(kind: type[PluginWith[S]]) -> type[S]:
    """What a subclass has written in brackets, or a base of it has that several share."""
    for each in kind.__mro__:
        for base in get_original_bases(each):
            origin: object = get_origin(base)
            if isinstance(origin, type) and issubclass(origin, PluginWith):
                for found in get_args(base):  # a type variable is for who derives from it to fill
                    if isinstance(found, type) and issubclass(found, Table):
                        return cast("type[S]", found)  # what `PluginWith` takes, and the first
    raise TypeError(f"{kind.__qualname__} must say what its settings are: PluginWith[Settings]")


#: The kinds of plugins, and the hooks of each, in the order of a message's way.
KINDS: Final[dict[str, tuple[str, ...]]] = {
    "connection": ("on_connect", "on_disconnect"),
    "hello": ("on_hello",),
    "authentication": ("on_authenticate", "on_verifier", "on_token", "on_account"),
    "mail": ("on_mail",),
    "rcpt": ("on_rcpt", "on_unknown"),
    "greylisting": ("on_greylist",),
    "data": ("on_data", "on_header", "on_body", "on_message", "on_sign"),
    "security": ("on_inspect",),
    "queue": ("on_event",),
    "routing": ("on_route",),
    "delivery": ("on_attempt", "on_attempted"),
    "storage": ("on_store",),
}

#: All hooks in the order in which they are asked.
HOOKS: Final = (
    *("on_connect", "on_hello", "on_authenticate", "on_verifier", "on_token", "on_account"),
    *(
        "on_mail",
        "on_rcpt",
        "on_unknown",
        "on_greylist",
        "on_data",
        "on_header",
        "on_body",
        "on_inspect",
        "on_message",
        "on_sign",
    ),
    *("on_disconnect", "on_event", "on_route", "on_attempt", "on_store", "on_attempted"),
)
#: Those that decide nothing of mail by failing: what they are told has happened already, or, of a
#: route, mail waits.
UNDECIDED: Final = ("on_disconnect", "on_event", "on_route", "on_attempted")
#: Those that are no coroutines.
AT_ONCE: Final = ("on_route",)


#: What each kind of plugin overrides: each chain asks it for each hook.
_overridden: Final = WeakKeyDictionary["type[Plugin]", tuple[str, ...]]()


def hooks(plugin: Plugin) -> tuple[str, ...]:
    """The hooks that a plugin overrides, in the order in which they are asked."""
    kind = type(plugin)
    if (own := _overridden.get(kind)) is None:
        own = tuple(each for each in HOOKS if _hook(kind, each) is not _hook(Plugin, each))
        _overridden[kind] = own
    return tuple(each for each in own if each not in plugin.idle)


def kinds(plugin: Plugin) -> tuple[str, ...]:
    """What kinds of plugin it is."""
    own = hooks(plugin)
    return tuple(kind for kind, of_kind in KINDS.items() if any(each in own for each in of_kind))


def _hook(kind: type[Plugin], name: str) -> object:
    found: object = getattr(kind, name)
    return found
