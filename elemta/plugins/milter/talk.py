"""One client's session, told to a milter step by step, and what it says as verdicts.

A milter that breaks off, or the protocol, is an error at the step where it does; the next message
of the session gets a new connection.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Final, TypeVar

import trio
from msgspec import Struct, field
from msgspec.structs import replace

from elemta.plugins.changes import AddRecipient, Change, RemoveRecipient
from elemta.plugins.milter import macros, wire
from elemta.plugins.milter.fields import Fields
from elemta.plugins.milter.link import Link
from elemta.plugins.milter.replies import verdict_of
from elemta.plugins.milter.wire import Actions, MilterError, Steps
from elemta.plugins.verdicts import CONTINUE, Continue, Discard, Quarantine, Verdict
from elemta.protocol import parse_mailbox

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from elemta.plugins.scene import Content, Session, Transaction
    from elemta.protocol import Mailbox

T = TypeVar("T")

#: What a milter must have said that it may do, before it does.
_NEEDED: Final[dict[type[wire.Response], Actions]] = {
    wire.AddField: Actions.ADD_FIELDS,
    wire.InsertField: Actions.ADD_FIELDS,
    wire.ChangeField: Actions.CHANGE_FIELDS,
    wire.AddRecipient: Actions.ADD_RECIPIENTS,
    wire.RemoveRecipient: Actions.REMOVE_RECIPIENTS,
    wire.Quarantine: Actions.QUARANTINE,
}
#: Recipients that a milter may add to a message, or take away.
MOST_RECIPIENTS: Final = 1000


class Wishes(Struct, eq=False):
    """What a milter wants to be changed about a message.

    Attributes:
        quarantine: why it is to be held; None: it is not.
    """

    fields: Fields
    recipients: list[Change] = field(default_factory=list[Change])
    quarantine: str | None = None


class Talk:
    """A session as one milter hears of it.

    Args:
        session: whose.
        hostname: of ours.
        connect: to the milter.
        patience: seconds that each of its answers may take.
    """

    def __init__(
        self,
        session: Session,
        hostname: str,
        connect: Callable[[], Awaitable[trio.abc.Stream]],
        patience: float,
    ) -> None:
        self._session = session
        self._hostname = hostname
        self._connect = connect
        self._patience = patience
        self._link: Link | None = None
        self._done = False  # the milter wants to hear no more of this client
        self._message = False  # it has heard of a message, and not of its end
        self._passed = False  # it wants to hear no more of this message
        self._discard: Discard | None = None  # what it said of one recipient is for all
        self._about: Transaction | None = None  # the message that it has heard the sender of

    # The session.

    async def connect(self) -> Verdict:
        """A client has come."""
        return await self._guarded(self._open)

    async def hello(self, name: str) -> Verdict:
        """It calls itself this."""
        link = self._link
        if link is None or self._done:
            return CONTINUE  # it is told again with the next message
        return await self._guarded(lambda: self._hello(link, name))

    async def quit(self) -> None:
        """It has gone."""
        link, self._link = self._link, None
        if link is not None:
            await link.quit()

    # A message.

    async def mail(self, transaction: Transaction) -> Verdict:
        """MAIL FROM; a message before it is over."""
        self._about, self._discard, self._passed = transaction, None, self._done
        if self._done:
            return CONTINUE
        if (link := self._link) is not None:
            try:
                return await self._guarded(lambda: self._mail(link, transaction))
            except (trio.BrokenResourceError, MilterError):
                pass  # it may have been started anew since the last message
        return await self._guarded(lambda: self._mail_anew(transaction))

    async def rcpt(self, transaction: Transaction, recipient: Mailbox) -> Verdict:
        """RCPT TO."""
        if (verdict := await self._begun(transaction)) is not CONTINUE:
            return verdict
        if self._passed or self._discard is not None:
            return CONTINUE
        link = self._there()
        verdict = await self._guarded(
            lambda: self._asked(
                link,
                wire.Rcpt(f"<{recipient}>".encode()),
                macros.of_rcpt(transaction, recipient),
            )
        )
        if isinstance(verdict, Discard):
            self._discard = verdict
            return CONTINUE
        return verdict

    async def data(self, transaction: Transaction) -> Verdict:
        """DATA."""
        if (verdict := await self._begun(transaction)) is not CONTINUE:
            return verdict
        if self._discard is not None:
            self._passed = True
            return self._discard
        if self._passed:
            return CONTINUE
        link = self._there()
        return await self._guarded(
            lambda: self._last(link, wire.Data(), macros.of_message(transaction))
        )

    async def content(self, transaction: Transaction, content: Content) -> Verdict:
        """The message, whole."""
        if (verdict := await self._begun(transaction)) is not CONTINUE:
            return verdict
        if self._passed:
            return CONTINUE
        link = self._there()
        verdict = await self._guarded(lambda: self._content(link, transaction, content))
        self._passed = True
        return verdict

    async def whole(self, transaction: Transaction, content: Content) -> Verdict:
        """All of a session that brings one message. What is said of a recipient is for all."""
        try:
            verdict = await self.connect()
            if verdict is CONTINUE:
                verdict = await self.mail(transaction)
            for recipient in transaction.recipients:
                if verdict is CONTINUE:
                    verdict = await self.rcpt(transaction, recipient)
            if verdict is CONTINUE:
                verdict = await self.data(transaction)
            return await self.content(transaction, content) if verdict is CONTINUE else verdict
        finally:
            with trio.CancelScope(shield=True):  # no longer than a goodbye takes
                await self.quit()

    # How it is done.

    async def _guarded(self, call: Callable[[], Awaitable[T]]) -> T:
        """Give the connection up whatever breaks: nobody knows what would come next on it."""
        try:
            return await call()
        except BaseException:
            link, self._link = self._link, None
            self._message = False
            if link is not None:
                await link.close()
            raise

    async def _begun(self, transaction: Transaction) -> Verdict:
        """Tell the sender, if that was not done: a plugin before this one has said `Accept`."""
        return CONTINUE if self._about is transaction else await self.mail(transaction)

    def _there(self) -> Link:
        if self._link is None:
            raise MilterError("it has failed with this message before")
        return self._link

    async def _open(self) -> Verdict:
        self._passed = False
        self._link = link = Link(await self._connect(), self._patience)
        await link.negotiate()
        session = self._session
        told = wire.Connect(macros.client_name(session).encode())
        if session.address:
            family = b"6" if ":" in session.address else b"4"
            told = replace(told, family=family, port=session.port, address=session.address.encode())
        verdict = await self._last(link, told, macros.of_connection(session, self._hostname))
        self._done = self._passed
        if verdict is CONTINUE and session.helo and not self._done:
            verdict = await self._hello(link, session.helo)
        return verdict

    async def _hello(self, link: Link, name: str) -> Verdict:
        await self._abort(link)
        self._passed = False
        told = wire.Helo(name.encode("utf-8", "replace"))
        verdict = await self._asked(link, told, macros.of_hello(self._session))
        self._done = self._passed or isinstance(verdict, Discard)
        return verdict

    async def _mail(self, link: Link, transaction: Transaction) -> Verdict:
        await self._abort(link)
        self._message = True
        told = wire.Mail(f"<{transaction.sender or ''}>".encode(), _parameters(transaction))
        return await self._last(link, told, macros.of_mail(transaction))

    async def _mail_anew(self, transaction: Transaction) -> Verdict:
        verdict = await self._open()
        link = self._link
        if verdict is not CONTINUE or self._done or link is None:
            return verdict
        return await self._mail(link, transaction)

    async def _abort(self, link: Link) -> None:
        if self._message:
            self._message = False
            await link.abort()

    async def _asked(self, link: Link, command: wire.Command, known: macros.Values = ()) -> Verdict:
        answer = await link.say(command, known)
        if answer is None:
            return CONTINUE
        if isinstance(answer, wire.Accept):
            self._passed = True
        return verdict_of(answer)

    async def _last(self, link: Link, command: wire.Command, known: macros.Values = ()) -> Verdict:
        """Ask; anything but `Continue` is all that the milter has to say of the message."""
        verdict = await self._asked(link, command, known)
        if verdict is not CONTINUE:
            self._passed = True
        return verdict

    async def _content(self, link: Link, transaction: Transaction, content: Content) -> Verdict:
        known = macros.of_message(transaction)
        fields = Fields(
            content.header.header,
            [each.change for each in transaction.made],
            spaces=bool(link.steps & Steps.LEADING_SPACE),
            utf8=transaction.params.smtputf8,
        )
        for name, value in fields.said():
            verdict = await self._last(link, wire.Field(name, value))
            if self._passed:
                return verdict
        verdict = await self._last(link, wire.EndOfHeader(), known)
        if self._passed:
            return verdict
        if not link.steps & Steps.NO_BODY:
            answer = await _body(link, content)
            if answer is not None:
                self._passed = True
                return verdict_of(answer)
        return await self._end(link, transaction, Wishes(fields), known)

    async def _end(
        self, link: Link, transaction: Transaction, wishes: Wishes, known: macros.Values
    ) -> Verdict:
        answer = await link.say(wire.EndOfBody(), known)
        while answer is not None and (needed := _NEEDED.get(type(answer))) is not None:
            if not link.actions & needed:
                raise MilterError(f"{type(answer).__name__}, which it did not ask for")
            _wish(answer, wishes, transaction)
            answer = await link.hear()
        assert answer is not None, "nobody leaves the answer to the end of a message out"
        self._message = False
        verdict = verdict_of(answer)
        if verdict is not CONTINUE:
            return verdict
        changes = (*wishes.fields.changes(), *wishes.recipients)
        if wishes.quarantine is not None:
            return Quarantine(wishes.quarantine, changes=changes)
        return Continue(changes) if changes else CONTINUE


def _wish(answer: wire.Response, wishes: Wishes, transaction: Transaction) -> None:
    match answer:
        case wire.AddField(name=name, value=value):
            wishes.fields.add(name, value)
        case wire.InsertField(number=number, name=name, value=value):
            wishes.fields.insert(number, name, value)
        case wire.ChangeField(number=number, name=name, value=value):
            wishes.fields.change(number, name, value)
        case wire.AddRecipient(address=address):
            wishes.recipients.append(AddRecipient(_mailbox(address)))
        case wire.RemoveRecipient(address=address):
            gone = _mailbox(address)
            # The milter knows the recipient whom the client named; we, whom that leads to.
            stands_for = [
                each.address for each in transaction.addressees.values() if each.original == gone
            ]
            wishes.recipients += [RemoveRecipient(each) for each in (gone, *stands_for)]
        case wire.Quarantine(reason=reason):
            shown = reason.decode("utf-8", "replace")[:200]
            wishes.quarantine = "".join(each if each.isprintable() else "?" for each in shown)
        case _:
            raise AssertionError(answer)
    if len(wishes.recipients) > MOST_RECIPIENTS:
        raise MilterError("too many recipients")


def _mailbox(address: bytes) -> Mailbox:
    text = address.decode("utf-8", "replace").strip()
    try:
        return parse_mailbox(text[1:-1] if text[:1] == "<" and text[-1:] == ">" else text)
    except ValueError as error:
        raise MilterError(f"no address: {address[:100]!r}: {error}") from error


def _parameters(transaction: Transaction) -> tuple[bytes, ...]:
    params = transaction.params
    found: list[str] = []
    if params.size is not None:
        found.append(f"SIZE={params.size}")
    if params.body is not None:
        found.append(f"BODY={params.body.value}")
    if params.smtputf8:
        found.append("SMTPUTF8")
    return tuple(each.encode() for each in found)


async def _body(link: Link, content: Content) -> wire.Response | None:
    """Show the body, in chunks as large as may be. Returns what ends the message, if that does."""
    before = len(content.header.header) + 2
    held = bytearray()
    async with aclosing(content.pieces()) as pieces:
        async for piece in pieces:
            held += piece[before:]
            before = max(0, before - len(piece))
            while len(held) >= wire.CHUNK:
                answer = await link.say(wire.Body(bytes(held[: wire.CHUNK])))
                if answer is not None and not isinstance(answer, wire.Continue):
                    return None if isinstance(answer, wire.Skip) else answer
                del held[: wire.CHUNK]
    if not held:
        return None
    answer = await link.say(wire.Body(bytes(held)))
    return None if isinstance(answer, (wire.Continue, wire.Skip)) else answer
