"""Who is asked at each step: the plugins, in the order of the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import trio
from msgspec.structs import replace

from elemta.plugins.asking import Failed, ask, misfit, on_error, tell, verdict_of
from elemta.plugins.changes import AddHeader
from elemta.plugins.heeding import heed, judge, unfit, who_is
from elemta.plugins.loader import Counts
from elemta.plugins.plugin import Granted, Known, hooks
from elemta.plugins.verdicts import CONTINUE, Accept, Continue, Defer, Reject

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from elemta.message import HeaderScanner
    from elemta.plugins.heeding import Answer
    from elemta.plugins.loader import Loaded
    from elemta.plugins.outgoing import Attempted, Letter
    from elemta.plugins.scene import Content, Session, Transaction
    from elemta.plugins.verdicts import Verdict
    from elemta.protocol import Credentials, Mailbox, Token


class Users:
    """Who is using something that must not be taken away meanwhile; entered by each of them."""

    def __init__(self) -> None:
        self.count = 0
        self._gone: trio.Event | None = None

    def __enter__(self) -> None:
        self.count += 1

    def __exit__(self, *_: object) -> None:
        self.count -= 1
        if not self.count and self._gone is not None:
            self._gone.set()
            self._gone = None

    async def none_left(self) -> None:
        """Wait until there are none."""
        while self.count:
            if self._gone is None:
                self._gone = trio.Event()
            await self._gone.wait()


class Chain:
    """All plugins, in the order of the configuration.

    A hook that no plugin overrides costs its caller one look at an attribute::

        if chain.rcpt:
            verdict = await chain.on_rcpt(transaction, recipient)

    The changes of a verdict are made here, and what a message is doomed to is written down in it:
    so callers hear objections alone, or `Continue`.

    Args:
        plugins: all of them, in order.
        listener: whose clients are judged; None: of any.
        users: of the chain that this one comes from; None: it has its own.

    Attributes:
        plugins: all of them, also those that are not asked.
        connect, disconnect, hello, authenticate, verifier, token, account, mail, rcpt, unknown,
            greylist, data, header, body, inspect, message, sign, attempt, attempted, event, route,
            store: who overrides that hook, first to last.
        users: sessions and others that hold this chain, or that of a listener: its plugins must not
            stop yet.
    """

    def __init__(
        self,
        plugins: Sequence[Loaded] = (),
        listener: str | None = None,
        users: Users | None = None,
    ) -> None:
        self.plugins = tuple(plugins)
        self.users = users or Users()
        self._at: dict[str, Chain] = {}
        enabled = [each for each in plugins if each.enabled]
        here = [each for each in enabled if listener is None or each.judges(listener)]

        def who(hook: str, asked: Iterable[Loaded] = here) -> tuple[Loaded, ...]:
            return tuple(loaded for loaded in asked if hook in hooks(loaded.plugin))

        self.connect = who("on_connect")
        self.disconnect = who("on_disconnect")
        self.hello = who("on_hello")
        self.authenticate = who("on_authenticate")
        self.verifier = who("on_verifier")
        self.token = who("on_token")
        self.account = who("on_account")
        self.mail = who("on_mail")
        self.rcpt = who("on_rcpt")
        self.unknown = who("on_unknown")
        self.greylist = who("on_greylist")
        self.data = who("on_data")
        self.header = who("on_header")
        self.body = who("on_body")
        self.inspect = who("on_inspect")
        self.message = who("on_message")
        self.sign = who("on_sign")
        self.attempt = who("on_attempt", enabled)
        self.attempted = who("on_attempted", enabled)
        self.event = who("on_event", enabled)
        self.route = who("on_route", enabled)
        self.store = who("on_store", enabled)

    def at(self, listener: str) -> Chain:
        """The same plugins as one listener's clients meet them."""
        found = self._at.get(listener)
        if found is None:
            found = self._at[listener] = Chain(self.plugins, listener, self.users)
        return found

    def switched(self, name: str, *, enabled: bool) -> Chain:
        """The same plugins, of which one is asked or is not.

        Args:
            name: what the configuration calls it.
            enabled: whether it is asked.

        Raises:
            LookupError: there is none of this name.
        """
        if all(each.name != name for each in self.plugins):
            raise LookupError(name)
        switched = [
            replace(each, enabled=enabled) if each.name == name else each for each in self.plugins
        ]
        return Chain(switched, users=self.users)

    def dry(self) -> Chain:
        """Those alone that may be asked of mail that never comes; nothing is counted."""
        return Chain([replace(each, counts=Counts()) for each in self.plugins if each.plugin.dry])

    # The client. What only hands on `judge` is no coroutine of its own: six a message cost 5 µs.

    def on_connect(self, session: Session) -> Awaitable[Answer]:
        """The verdict of all plugins on a connection."""
        return judge(self.connect, "on_connect", session, lambda p: p.on_connect(session))

    async def on_disconnect(self, session: Session) -> None:
        """Tell all plugins that a connection is over."""
        await tell(self.disconnect, "on_disconnect", session.id, lambda p: p.on_disconnect(session))

    def on_hello(self, session: Session, name: str) -> Awaitable[Answer]:
        """The verdict of all plugins on what a client calls itself."""
        return judge(self.hello, "on_hello", session, lambda p: p.on_hello(session, name))

    def on_authenticate(
        self, session: Session, credentials: Credentials
    ) -> Awaitable[Granted | Defer | Reject | None]:
        """What the first plugin says that knows somebody; None: none does."""
        return who_is(
            self.authenticate,
            "on_authenticate",
            session,
            lambda p: p.on_authenticate(session, credentials),
            Granted,
        )

    def on_verifier(self, session: Session, user: str) -> Awaitable[Known | Defer | Reject | None]:
        """What the first plugin has that keeps a verifier of somebody; None: none does."""
        return who_is(
            self.verifier, "on_verifier", session, lambda p: p.on_verifier(session, user), Known
        )

    def on_token(
        self, session: Session, token: Token
    ) -> Awaitable[Granted | Defer | Reject | None]:
        """What the first plugin says that knows a token; None: none does."""
        return who_is(
            self.token, "on_token", session, lambda p: p.on_token(session, token), Granted
        )

    def on_account(self, session: Session) -> Awaitable[Answer]:
        """The verdict of all plugins on who has logged in, and sends one more message."""
        return judge(self.account, "on_account", session, lambda p: p.on_account(session))

    # The envelope.

    def on_mail(self, transaction: Transaction) -> Awaitable[Answer]:
        """The verdict of all plugins on a sender."""
        return judge(
            self.mail, "on_mail", transaction.session, lambda p: p.on_mail(transaction), transaction
        )

    def on_rcpt(self, transaction: Transaction, recipient: Mailbox) -> Awaitable[Answer]:
        """The verdict of all plugins on a recipient."""
        return judge(
            self.rcpt,
            "on_rcpt",
            transaction.session,
            lambda p: p.on_rcpt(transaction, recipient),
            transaction,
            recipient,
        )

    async def on_unknown(self, transaction: Transaction, recipient: Mailbox) -> Answer:
        """The verdict of all plugins on a recipient whom there is not. Nothing comes of changes."""
        before = transaction.before
        verdict = await judge(
            self.unknown,
            "on_unknown",
            transaction.session,
            lambda p: p.on_unknown(transaction, recipient),
            transaction,
            recipient,
        )
        transaction.refuse(recipient, before)
        return verdict

    def on_greylist(self, transaction: Transaction, recipient: Mailbox) -> Awaitable[Answer]:
        """The verdict of all plugins on a stranger's recipient."""
        return judge(
            self.greylist,
            "on_greylist",
            transaction.session,
            lambda p: p.on_greylist(transaction, recipient),
            transaction,
            recipient,
        )

    # The content.

    def on_data(self, transaction: Transaction) -> Awaitable[Answer]:
        """The verdict of all plugins on an envelope."""
        return judge(
            self.data, "on_data", transaction.session, lambda p: p.on_data(transaction), transaction
        )

    def on_header(self, transaction: Transaction, header: HeaderScanner) -> Awaitable[Answer]:
        """The verdict of all plugins on a header."""
        return judge(
            self.header,
            "on_header",
            transaction.session,
            lambda p: p.on_header(transaction, header),
            transaction,
        )

    def on_body(self, transaction: Transaction, octets: bytes) -> Awaitable[Answer]:
        """The verdict of all plugins on a piece of a message."""
        return judge(
            self.body,
            "on_body",
            transaction.session,
            lambda p: p.on_body(transaction, octets),
            transaction,
        )

    async def on_message(self, transaction: Transaction, content: Content) -> Answer:
        """The verdict of all plugins on a message: those that inspect it first, side by side."""
        session = transaction.session
        if self.inspect:
            found: dict[int, Verdict] = {}

            async def inspect(place: int, loaded: Loaded) -> None:
                found[place] = verdict_of(
                    loaded,
                    "on_inspect",
                    session.id,
                    await ask(
                        loaded,
                        "on_inspect",
                        session.id,
                        lambda p: p.on_inspect(transaction, content),
                    ),
                )

            if len(self.inspect) == 1:
                await inspect(0, self.inspect[0])
            else:
                try:
                    async with trio.open_nursery() as nursery:
                        for place, loaded in enumerate(self.inspect[1:], 1):
                            nursery.start_soon(inspect, place, loaded)
                        await inspect(0, self.inspect[0])
                except BaseExceptionGroup:
                    await trio.lowlevel.checkpoint_if_cancelled()  # in no group
                    raise
            for place, loaded in enumerate(self.inspect):
                decided = heed(loaded, found[place], session, transaction)
                if decided is CONTINUE:
                    break  # it is discarded; the next step may still refuse it
                if decided is not None:
                    return decided
        return await judge(
            self.message,
            "on_message",
            session,
            lambda p: p.on_message(transaction, content),
            transaction,
        )

    async def on_sign(self, transaction: Transaction, show: Callable[[], Content]) -> Answer:
        """Have plugins sign a message.

        Args:
            transaction: the message, which all other plugins have seen.
            show: the message as it is by now: each plugin sees what those before it have added.
        """
        session = transaction.session
        for loaded in self.sign:
            fields = await _fields(loaded, session.id, transaction, show())
            if fields is None:
                verdict = on_error(loaded, "on_sign")
                decided = heed(loaded, verdict, session, transaction)
                if decided is not None:
                    return decided
                continue
            for each in fields:
                transaction.change(loaded.name, each)
        return CONTINUE

    async def on_report(self, show: Callable[[Sequence[AddHeader]], Content], of: str) -> bytes:
        """What plugins that sign add at the top of a report of our own.

        Args:
            show: the report, with so many fields more.
            of: names the message that it is about, for the log.
        """
        added: list[AddHeader] = []
        for loaded in self.sign:
            added += await _fields(loaded, of, None, show(added)) or ()
        return b"".join([each.octets() for each in reversed(added)])

    # What we have taken.

    async def on_attempt(self, letter: Letter) -> tuple[str, Verdict]:
        """What the first plugin says that does not want an attempt, and which that is."""
        for loaded in self.attempt:
            found = await ask(
                loaded, "on_attempt", letter.message.id, lambda p: p.on_attempt(letter)
            )
            verdict = verdict_of(loaded, "on_attempt", letter.message.id, found)
            if isinstance(verdict, Accept):
                break
            if not isinstance(verdict, Continue):
                loaded.counts.objected += 1
                return loaded.name, verdict
        return "", CONTINUE

    async def on_attempted(self, letter: Letter, attempted: Attempted) -> None:
        """Tell all plugins how an attempt ended."""
        await tell(
            self.attempted,
            "on_attempted",
            letter.message.id,
            lambda p: p.on_attempted(letter, attempted),
        )

    async def on_store(self, name: str, letter: Letter) -> Accept | Defer | Reject:
        """Have a plugin keep a message; `Defer` if there is none of this name that keeps any.

        Args:
            name: what the configuration calls it.
            letter: the message and its recipient.
        """
        for loaded in self.store:
            if loaded.name == name:
                found = await ask(
                    loaded, "on_store", letter.message.id, lambda p: p.on_store(letter)
                )
                match verdict_of(loaded, "on_store", letter.message.id, found):
                    case (Accept() | Defer() | Reject()) as verdict:
                        return verdict
                    case verdict:
                        misfit(loaded, "on_store", letter.message.id, unfit(verdict))
                        return Defer((3, 0), "the mailbox gave no answer that counts")
        return Defer((3, 5), "there is no such mailbox just now")


async def _fields(
    loaded: Loaded, of: str, transaction: Transaction | None, content: Content
) -> tuple[AddHeader, ...] | None:
    """What a plugin adds that signs; None: it has failed."""
    found = await ask(loaded, "on_sign", of, lambda p: p.on_sign(transaction, content))
    if isinstance(found, Failed):
        return None
    if isinstance(found, (tuple, list)):
        fields = tuple(cast("Sequence[object]", found))
        if all(isinstance(each, AddHeader) and each.top for each in fields):
            return cast("tuple[AddHeader, ...]", fields)
    misfit(loaded, "on_sign", of, "fields for the top were expected")
    return None
