"""One conversation with one host that takes our mail, by SMTP or LMTP.

The rules of this file:

- Only an explicit 5xx to MAIL, RCPT, DATA or the message is permanent. Whatever else goes wrong is
  temporary, with a reply of our own making: the host is gone, silent, or speaks no SMTP.
- Each phase has one deadline, a cancel scope of its own, with the minimums of RFC 5321 §4.5.3.2.
- What was said and not answered is never said again on this connection: it is closed.
"""

from __future__ import annotations

from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, Final

import trio
from msgspec import Struct

from elemta.delivery.replies import made
from elemta.delivery.transaction import Outcome, StoredBody, Transaction, required
from elemta.log import logger
from elemta.protocol import (
    Answer,
    Broken,
    ClientConnection,
    ClientState,
    Closed,
    ContentAnswer,
    DataAnswer,
    Extensions,
    Goodbye,
    Greeting,
    HelloAnswer,
    MailAnswer,
    MailParams,
    QuitAnswer,
    RcptAnswer,
    Reply,
    ResetAnswer,
    TransferAnswer,
    Wait,
    has_clean_lines,
)
from elemta.queue import Message, Recipient, Result

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from elemta.net.transport import Transport

log = logger(__name__)

#: Recipients of a transaction, unless the host announces fewer (RFC 5321 §4.5.3.1.8).
MAX_RECIPIENTS: Final = 100
#: Octets of a message that goes out behind its envelope at once, before the host has said whether
#: it wants it: saves a round trip for the price of these octets, should it want none.
MAX_UNASKED: Final = 64 * 1024
#: Seconds after which a host may well have hung up on a connection that was kept.
STALE: Final = 1.0
#: Seconds that we listen for it before we say something.
_LISTEN: Final = 0.001


class Timeouts(Struct, frozen=True, kw_only=True):
    """Seconds that a host may take (RFC 5321 §4.5.3.2 has the least that we have to grant).

    Attributes:
        envelope: for the answers to MAIL and RCPT (§4.5.3.2.2 and .3: at least 300).
        data: for the answer to DATA (§4.5.3.2.4: at least 120).
        block: to take 64 KiB of content (§4.5.3.2.5: at least 180).
        message: for the answer to the message (§4.5.3.2.6: at least 600). Who gives up earlier
            sends duplicates.
        quit: for the answer to QUIT; nothing depends on it.
    """

    greeting: float = 300
    hello: float = 300
    envelope: float = 300
    data: float = 120
    block: float = 180
    message: float = 600
    reset: float = 20
    quit: float = 5


_TIMEOUTS: Final = Timeouts()


class HostUnusable(Exception):  # noqa: N818 # a finding about a host, no fault of anybody's
    """This host will not talk to us now: try the next. None of it says anything of the mail.

    Attributes:
        reply: the host's, or of our own making.
        remote: whether it is the host's own words.
    """

    def __init__(self, reply: Reply, *, remote: bool) -> None:
        super().__init__(str(reply))
        self.reply = reply
        self.remote = remote


class _ConversationOverError(Exception):
    """The host said goodbye, or is gone, or its words make no sense."""

    def __init__(self, reply: Reply, *, remote: bool) -> None:
        super().__init__(str(reply))
        self.reply = reply
        self.remote = remote


class SmtpSession:
    """Sends messages to one host, one after the other.

    Resource handling:
        Takes the transport over: `quit` and `close` close it. A call that raises or is cancelled
        leaves the session with nothing to do but to be closed.

    Args:
        transport: connected, nothing said yet.
        host: what logs call it, e.g. ``mx.example[192.0.2.1]:25``.
        lmtp: speak LMTP (RFC 2033).
    """

    def __init__(self, transport: Transport, *, host: str = "", lmtp: bool = False) -> None:
        self._transport = transport
        self._lmtp = lmtp
        self._smtp = ClientConnection(lmtp=lmtp)
        self._timeouts = _TIMEOUTS
        self._log = log.bind(host=host or str(transport.peer))
        self._unsent: list[bytes] = []
        self._sent = 0
        #: What we wait for, should we wait in vain.
        self._phase = "the greeting"
        self._broken = False
        self._unheard = False
        self._quiet_since = trio.current_time()

    @property
    def usable(self) -> bool:
        """Whether another message can be sent."""
        return (
            not self._broken
            and self._smtp.outstanding == 0
            and self._smtp.state in _BETWEEN_MESSAGES
            and self._sent < self._smtp.extensions.limits.get("MAILMAX", self._sent + 1)
        )

    @property
    def unheard(self) -> bool:
        """Whether the last `send` broke off for some recipients, and cannot have reached them.

        Then another host can be tried at once, without making a duplicate.
        """
        return self._unheard

    @property
    def extensions(self) -> Extensions:
        """What the host announced."""
        return self._smtp.extensions

    @property
    def recipient_limit(self) -> int:
        """The most recipients that one `send` may name (RFC 9422 RCPTMAX); at least 1."""
        announced = self._smtp.extensions.limits.get("RCPTMAX", MAX_RECIPIENTS)
        return max(1, min(announced, MAX_RECIPIENTS))

    async def open(self, hello_name: str, timeouts: Timeouts = _TIMEOUTS) -> None:
        """Hear the greeting and introduce ourselves: by EHLO, or by HELO if that is unknown.

        Args:
            hello_name: our own name, a domain or an address literal.
            timeouts: for this and all that follows.

        Raises:
            HostUnusable: it does not want us, is gone, silent, or no mail server.
        """
        self._timeouts = timeouts
        try:
            with self._within(timeouts.greeting, "the greeting"):
                greeting = await self._answer()
            self._check_welcome(greeting.reply)
            with self._within(timeouts.hello, "the answer to EHLO"):
                reply = await self._hello(hello_name, extended=True)
                if reply.code >= 500 and not self._lmtp:
                    reply = await self._hello(hello_name, extended=False)
            self._check_welcome(reply)
            self._quiet_since = trio.current_time()
        except _ConversationOverError as over:
            raise HostUnusable(over.reply, remote=over.remote) from None

    async def send(
        self, message: Message, recipients: Sequence[Recipient], body: StoredBody
    ) -> list[Outcome]:
        """Send a message to some of its recipients.

        Args:
            message: whose envelope it is.
            recipients: at least one, at most `recipient_limit`.
            body: CRLF line ends.

        Returns:
            What became of it for each of `recipients`, in their order.
        """
        needed = required(message, recipients, body, self._smtp.extensions)
        if isinstance(needed, Reply):
            return [Outcome(Result.FAILED, needed, remote=False)] * len(recipients)
        transaction = Transaction(len(recipients))
        self._sent += 1
        self._unheard = False
        try:
            await self._send_envelope(message, recipients, body, needed, transaction)
        except _ConversationOverError as over:
            # A 421 is a refusal whenever it comes; it is silence that leaves us in doubt.
            in_doubt = transaction.content_sent and not over.remote
            self._unheard = transaction.undecided > 0 and not in_doubt
            if in_doubt and transaction.undecided:
                # It may have been taken all the same, and come a second time next time.
                self._log.warning(
                    "delivery.answer_lost",
                    id=message.id,
                    recipients=transaction.undecided,
                    reason=str(over),
                )
            transaction.decide_rest(over.reply, remote=over.remote)
        self._quiet_since = trio.current_time()
        return transaction.outcomes()

    async def quit(self) -> None:
        """Say goodbye if there is somebody to hear it, and close."""
        try:
            if not self._broken and self._smtp.outstanding == 0 and self._smtp.state in _MAY_QUIT:
                with self._within(self._timeouts.quit, "the answer to QUIT"):
                    self._unsent.append(self._smtp.quit())
                    await self._answer()
        except _ConversationOverError:
            pass
        finally:
            self.close()

    def close(self) -> None:
        """Hang up at once; may be repeated."""
        self._broken = True
        self._transport.close()

    # A transaction.

    async def _send_envelope(
        self,
        message: Message,
        recipients: Sequence[Recipient],
        body: StoredBody,
        params: MailParams,
        transaction: Transaction,
    ) -> None:
        """The whole transaction; what is asked for in one group depends on PIPELINING."""
        smtp, timeouts = self._smtp, self._timeouts
        unasked = self._unasked(body)
        with self._within(timeouts.envelope, "the answer to the envelope") as scope:
            if trio.current_time() - self._quiet_since > STALE:
                await self._listen()
            if smtp.state is not ClientState.READY:
                scope.deadline = trio.current_time() + timeouts.reset
                await self._say(smtp.reset(), transaction)
            scope.deadline = trio.current_time() + timeouts.envelope
            await self._say(smtp.mail(message.sender, params), transaction)
            for recipient in recipients:
                if not transaction.undecided:
                    return  # MAIL was refused
                scope.deadline = trio.current_time() + timeouts.envelope
                await self._say(smtp.rcpt(recipient.address, recipient.params), transaction)
            if unasked is None and smtp.extensions.pipelining:
                self._unsent.append(smtp.data())
                await self._settle(transaction)
        if unasked is not None:
            with self._within(timeouts.message, "the answer to the message"):
                transaction.content_sent = True
                self._unsent.append(smtp.chunk(unasked, last=True))
                await self._settle(transaction)
            return
        if not smtp.extensions.pipelining and smtp.accepted:
            with self._within(timeouts.data, "the answer to DATA"):
                self._unsent.append(smtp.data())
                await self._settle(transaction)
        if smtp.state is ClientState.DATA:
            await self._send_content(body, transaction)

    def _unasked(self, body: StoredBody) -> bytes | None:
        """The content, if it can go out by BDAT in one group with its envelope, as it is."""
        offered, octets = self._smtp.extensions, body.octets
        if not (offered.chunking and offered.pipelining) or octets is None:
            return None
        fits = len(octets) <= MAX_UNASKED and octets.endswith(b"\r\n") and has_clean_lines(octets)
        return octets if fits else None

    async def _send_content(self, body: StoredBody, transaction: Transaction) -> None:
        """What follows a 354: nothing but the dot, if nobody was accepted (RFC 2920 §3.1)."""
        smtp, timeouts = self._smtp, self._timeouts
        with self._within(timeouts.block, "the host to take the content") as scope:
            if smtp.accepted and body.octets is not None:
                self._unsent.append(smtp.content(body.octets))
            elif smtp.accepted:
                async with aclosing(body.chunks()) as pieces:
                    async for piece in pieces:
                        self._unsent.append(smtp.content(piece))
                        await self._flush()
                        scope.deadline = trio.current_time() + timeouts.block
            transaction.content_sent = smtp.accepted > 0
            self._unsent.append(smtp.content_end())
            await self._flush()
        with self._within(timeouts.message, "the answer to the message"):
            await self._settle(transaction)

    async def _say(self, octets: bytes, transaction: Transaction) -> None:
        """Say something now, or as part of a group where the host takes groups."""
        self._unsent.append(octets)
        if not self._smtp.extensions.pipelining:
            await self._settle(transaction)

    async def _settle(self, transaction: Transaction) -> None:
        """Hear the answers to all that was said."""
        while True:
            while not isinstance(event := self._smtp.next_event(), Wait):
                self._note(event, transaction)
            if self._smtp.outstanding == 0:
                return
            await self._flush()
            await self._read()

    def _note(self, answer: Answer, transaction: Transaction) -> None:
        match answer:
            case RcptAnswer(number, reply):
                if reply.code >= 400:
                    later = _too_many(reply) and self._smtp.accepted > 0
                    transaction.decide(number, reply, Result.DEFERRED if later else None)
            case ContentAnswer(number, reply):
                transaction.decide(number, reply)
            case MailAnswer(reply) | DataAnswer(reply) | TransferAnswer(reply):
                if reply.code >= 400:
                    transaction.decide_rest(reply, remote=True)
            case ResetAnswer(reply):
                if reply.code >= 400:
                    # It says nothing of the message that comes next.
                    raise self._over(made(451, 5, 1, f"RSET was refused: {reply}"))
            case _:
                raise self._end(answer)

    # The conversation.

    async def _hello(self, name: str, *, extended: bool) -> Reply:
        self._unsent.append(self._smtp.hello(name, extended=extended))
        return (await self._answer()).reply

    def _check_welcome(self, reply: Reply) -> None:
        if reply.code >= 400:
            raise HostUnusable(reply, remote=True)

    async def _answer(self) -> Greeting | HelloAnswer | QuitAnswer:
        """The answer to what was said, where that is one thing."""
        while isinstance(event := self._smtp.next_event(), Wait):
            await self._flush()
            await self._read()
        if isinstance(event, Greeting | HelloAnswer | QuitAnswer):
            return event
        raise self._end(event)

    async def _listen(self) -> None:
        """Find out whether the host has hung up while nobody spoke."""
        with trio.move_on_after(_LISTEN):
            await self._read()
        if not isinstance(event := self._smtp.next_event(), Wait):
            raise self._end(event)

    async def _flush(self) -> None:
        if self._unsent:
            octets = b"".join(self._unsent)
            self._unsent.clear()
            await self._transport.send_all(octets)

    async def _read(self) -> None:
        octets = await self._transport.receive()
        if octets:
            self._smtp.receive_data(octets)
        else:
            self._smtp.receive_eof()

    @contextmanager
    def _within(self, seconds: float, phase: str) -> Generator[trio.CancelScope]:
        """One phase. However it fails, nothing more can be said on this connection."""
        self._phase = phase
        try:
            with trio.fail_after(seconds) as scope:
                yield scope
        except trio.TooSlowError:
            raise self._over(made(451, 4, 2, f"timed out waiting for {phase}")) from None
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            text = f"connection lost while waiting for {phase}: {error}"
            raise self._over(made(451, 4, 2, text)) from error
        except BaseException:
            self._broken = True
            raise

    def _end(self, answer: Answer) -> _ConversationOverError:
        """What ends a conversation instead of an answer to what we said."""
        if isinstance(answer, Goodbye):
            return self._over(answer.reply, remote=True)
        if isinstance(answer, Broken):
            text = f"the host broke the protocol: {answer.reason}"
            return self._over(made(451, 5, 0, text))
        assert isinstance(answer, Closed), f"nobody asked for {answer}"
        return self._over(made(451, 4, 2, f"the host hung up while we waited for {self._phase}"))

    def _over(self, reply: Reply, *, remote: bool = False) -> _ConversationOverError:
        self._broken = True
        return _ConversationOverError(reply, remote=remote)


_BETWEEN_MESSAGES: Final = frozenset(
    {ClientState.READY, ClientState.MAIL, ClientState.RCPT, ClientState.FAILED}
)
_MAY_QUIT: Final = _BETWEEN_MESSAGES | {ClientState.START, ClientState.UNWELCOME}


def _too_many(reply: Reply) -> bool:
    """Whether a recipient is one too many here, not refused (RFC 5321 §4.5.3.1.10)."""
    return reply.code == 552 and reply.status in (None, (5, 3))
