"""What a plugin is: hooks that look at one step of a conversation and give a verdict.

A plugin never writes to the client and never changes what it is shown: it judges. Its hooks run in
the session's own task, so two sessions may be inside one hook at a time.
"""

from __future__ import annotations

from typing import ClassVar, Final, Self, TypeAlias

from msgspec import Struct, field

from elemta.config import ConfigError, Mistake
from elemta.protocol import Mailbox, MailParams, Reply, ReversePath
from elemta.queue import Addressee, MessageId, Priority


class Continue(Struct, frozen=True, gc=False):
    """No objection; ask the next plugin."""

    @property
    def reply(self) -> None:
        """There is nothing to tell the client."""


class Defer(Struct, frozen=True, gc=False):
    """Not now: 451, and the client tries again (RFC 5321 §4.2.1). To a connection: 421.

    Too many recipients, x.5.3, are 452: the client sends the rest at once (§4.5.3.1.10).

    Attributes:
        status: subject and detail of the enhanced code (RFC 3463 §3).
        text: for the client to read; names no host, path or rule of ours.
        note: for our own log.

    Raises:
        LocalProtocolError: `text` cannot stand in a reply.
    """

    status: tuple[int, int]
    text: str
    note: str = ""

    def __post_init__(self) -> None:
        bytes(self.reply)  # raises here, in the plugin that made the mistake

    @property
    def reply(self) -> Reply:
        """What the client is told."""
        return Reply(452 if self.status == (5, 3) else 451, self.status, (self.text,))


class Reject(Struct, frozen=True, gc=False):
    """Never: 550. To a connection: 554. The fields are those of `Defer`."""

    status: tuple[int, int]
    text: str
    note: str = ""

    def __post_init__(self) -> None:
        bytes(self.reply)

    @property
    def reply(self) -> Reply:
        """What the client is told."""
        return Reply(550, self.status, (self.text,))


CONTINUE: Final = Continue()

Verdict: TypeAlias = Continue | Defer | Reject


class Session(Struct, kw_only=True, eq=False):
    """One connection of one client. Plugins read it; the listener alone writes it.

    Attributes:
        id: names the session in every log event.
        address: the client's IP address; empty for a Unix socket.
        port: the client's; 0 for a Unix socket.
        listener: the name of the listener that took the connection.
        trusted: the client may send to any domain (``relay.networks``, or it has logged in).
        helo: what the client calls itself: a claim; empty before EHLO.
        extended: it said EHLO or LHLO, not HELO.
        tls: how the connection is protected, e.g. ``TLSv1.3``; None if it is not.
        login: who is logged in, or None.
    """

    id: str
    address: str
    port: int
    listener: str
    trusted: bool = False
    helo: str = ""
    extended: bool = False
    tls: str | None = None
    login: str | None = None


class Transaction(Struct, kw_only=True, eq=False):
    """One message on its way in. Plugins write the last two; the rest is the listener's to write.

    Attributes:
        id: what the message will be called if it is taken.
        recipients: those taken so far, as the client named them.
        addressees: those that they lead to, aliases followed, none of them twice.
        priority: set it to give the message another than its client may ask for; None: you do not
            care.
        tags: add words by which operators find the message in the queue.
    """

    session: Session
    id: MessageId
    sender: ReversePath
    params: MailParams
    recipients: list[Mailbox] = field(default_factory=list[Mailbox])
    addressees: dict[Mailbox, Addressee] = field(default_factory=dict[Mailbox, Addressee])
    priority: Priority | None = None
    tags: tuple[str, ...] = ()


class Plugin:
    """Override the hooks that you need; those that nobody overrides cost nothing.

    A hook may await. One that raises, or outlives the plugin's ``timeout``, is logged and counts
    as `on_error`: unless a plugin says otherwise, mail is deferred, never let through unseen.
    """

    #: How the configuration calls it.
    name: ClassVar[str]
    #: The verdict when a hook fails.
    on_error: ClassVar[Verdict] = Defer((3, 0), "try again later")
    #: It may be asked of mail that never comes, so that people learn what it would say: it asks
    #: nobody else, keeps no count, and answers at once. Others are only named.
    dry: ClassVar[bool] = False

    @classmethod
    def configured(cls, settings: object, where: str) -> Self:
        """Make the plugin from its ``settings``; override it if there can be any.

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

    async def on_connect(self, session: Session) -> Verdict:
        """Before the greeting."""
        return CONTINUE

    async def on_hello(self, session: Session, name: str) -> Verdict:
        """After EHLO, HELO or LHLO, which may be repeated; `session.helo` is yet the last one."""
        return CONTINUE

    async def on_mail(self, transaction: Transaction) -> Verdict:
        """After MAIL FROM; there are no recipients yet."""
        return CONTINUE

    async def on_rcpt(self, transaction: Transaction, recipient: Mailbox) -> Verdict:
        """For each RCPT TO that we could deliver; `transaction` has those taken before."""
        return CONTINUE

    async def on_data(self, transaction: Transaction) -> Verdict:
        """After DATA or the first BDAT; all recipients are known."""
        return CONTINUE

    async def on_message(self, transaction: Transaction, content_head: bytes) -> Verdict:
        """After the message came in whole, before we take responsibility for it.

        Args:
            transaction: whose message.
            content_head: how the content begins, 64 KiB of it at most, as the client sent it.
        """
        return CONTINUE
