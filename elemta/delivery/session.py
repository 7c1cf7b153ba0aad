"""One conversation with one host that takes our mail, by SMTP or LMTP.

The rules of this file:

- Only an explicit 5xx to MAIL, RCPT, DATA or the message is permanent. Whatever else goes wrong is
  temporary, with a reply of our own making: the host is gone, silent, or speaks no SMTP.
- Each phase has one deadline, a cancel scope of its own, with the minimums of RFC 5321 §4.5.3.2.
- What was said and not answered is never said again on this connection: it is closed.
- After STARTTLS nothing counts that was said before: the host is asked anew what it offers.
"""

from __future__ import annotations

import ssl
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

import trio
from msgspec import Struct

from elemta.delivery.conversation import Conversation, ConversationOverError
from elemta.delivery.lines import LineEnds
from elemta.delivery.login import log_in
from elemta.delivery.replies import made
from elemta.delivery.transaction import (
    NO_SMTPUTF8,
    Outcome,
    StoredBody,
    Transaction,
    required,
    spelling,
)
from elemta.delivery.unusable import HostUnusable, TlsFailed
from elemta.log import logger
from elemta.net.dialogues import Standing, unheard
from elemta.protocol import (
    Answer,
    ClientState,
    ContentAnswer,
    DataAnswer,
    Extensions,
    MailAnswer,
    MailParams,
    RcptAnswer,
    Reply,
    ResetAnswer,
    TransferAnswer,
    Wait,
    has_clean_lines,
)
from elemta.queue import Message, Recipient, Result

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elemta.delivery.conversation import Phase
    from elemta.net.dialogues import Dialogue
    from elemta.net.transport import Transport
    from elemta.protocol import Credentials, Token

log = logger(__name__)

#: Recipients of a transaction, unless the host announces fewer (RFC 5321 §4.5.3.1.8).
MAX_RECIPIENTS: Final = 100
#: Octets of a message that goes out behind its envelope at once, before the host has said whether
#: it wants it: saves a round trip for the price of these octets, should it want none.
MAX_UNASKED: Final = 64 * 1024
#: Chunks of a large message (RFC 3030) that go out before the first of them is answered: enough to
#: fill a long line, and few enough to notice a refusal soon.
MAX_UNANSWERED: Final = 16
#: Seconds after which a host may well have hung up on a connection that was kept.
STALE: Final = 1.0


class Timeouts(Struct, frozen=True, kw_only=True):
    """Seconds that a host may take (RFC 5321 §4.5.3.2 has the least that we have to grant).

    Attributes:
        envelope: for the answers to MAIL and RCPT (§4.5.3.2.2 and .3: at least 300).
        data: for the answer to DATA (§4.5.3.2.4: at least 120).
        block: to take 64 KiB of content (§4.5.3.2.5: at least 180).
        message: for the answer to the message (§4.5.3.2.6: at least 600). Who gives up earlier
            sends duplicates.
        quit: for the answer to QUIT; nothing depends on it.
        tls: for the handshake and what leads to it.
    """

    greeting: float = 300
    hello: float = 300
    tls: float = 60
    envelope: float = 300
    data: float = 120
    block: float = 180
    message: float = 600
    reset: float = 20
    quit: float = 5


_TIMEOUTS: Final = Timeouts()


class Tls(Struct, frozen=True):
    """A wish to encrypt.

    Attributes:
        context: what is demanded of the host.
        server_name: to tell it whom we want (SNI), and what its certificate has to name if that
            is demanded; None: nothing is told.
        required: sooner nothing than in clear.
        implicit: it begins with that, without STARTTLS (RFC 8314 §3).
    """

    context: ssl.SSLContext
    server_name: str | None = None
    required: bool = False
    implicit: bool = False

    @property
    def verified(self) -> bool:
        """Whether the host has to prove who it is."""
        return self.context.verify_mode is ssl.CERT_REQUIRED


class SmtpSession:
    """Sends messages to one host, one after the other.

    Resource handling:
        Takes the transport over: `quit` and `close` close it. A call that raises or is cancelled
        leaves the session with nothing to do but to be closed.

    Args:
        transport: connected, nothing said yet.
        dialogue: where it is written down, with the host as logs call it, e.g.
            ``mx.example[192.0.2.1]:25``; None: nowhere.
        lmtp: speak LMTP (RFC 2033).
    """

    def __init__(
        self, transport: Transport, dialogue: Dialogue | None = None, *, lmtp: bool = False
    ) -> None:
        dialogue = dialogue or unheard(str(transport.peer))
        dialogue.begin(self._standing)
        self._dialogue = dialogue
        self._talk = Conversation(transport, dialogue, lmtp=lmtp)
        self._lmtp = lmtp
        self._timeouts = _TIMEOUTS
        self._log = log.bind(host=dialogue.peer, session=dialogue.id)
        #: What is under way: message, sender, how many recipients.
        self._now: tuple[str, str, int] | None = None
        self._sent = 0
        self._unheard = False
        self._quiet_since = trio.current_time()

    @property
    def usable(self) -> bool:
        """Whether another message can be sent."""
        smtp = self._talk.smtp
        return (
            not self._talk.over
            and smtp.outstanding == 0
            and (smtp.state is ClientState.READY or smtp.state in _BETWEEN_MESSAGES)
            and self._sent < smtp.extensions.limits.get("MAILMAX", self._sent + 1)
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
        return self._talk.smtp.extensions

    @property
    def secret(self) -> str:
        """How the conversation is encrypted: version and cipher; empty if it is not."""
        return self._talk.secret

    @property
    def recipient_limit(self) -> int:
        """The most recipients that one `send` may name (RFC 9422 RCPTMAX); at least 1."""
        announced = self.extensions.limits.get("RCPTMAX", MAX_RECIPIENTS)
        return max(1, min(announced, MAX_RECIPIENTS))

    async def open(
        self,
        hello_name: str,
        timeouts: Timeouts = _TIMEOUTS,
        tls: Tls | None = None,
        credentials: Credentials | Token | None = None,
        *,
        in_clear: bool = False,
    ) -> None:
        """Hear the greeting, introduce ourselves, encrypt what follows and log in, as wished.

        Args:
            hello_name: our own name, a domain or an address literal.
            timeouts: for this and all that follows.
            tls: None: all of it is said in clear.
            credentials: to log in with, once it is encrypted; None: nobody is told who we are.
            in_clear: to log in without that, as nobody is on the way.

        Raises:
            HostUnusable: it does not want us, is gone, silent, or no mail server.
            TlsFailed: it is there, but TLS does not work.
            LoginRefused: it is there, but not for us.
        """
        self._timeouts = timeouts
        try:
            if tls is not None and tls.implicit:
                await self._begin_encrypted(tls)
            with self._talk.within(timeouts.greeting, "the greeting"):
                greeting = await self._talk.answer()
            # What a host calls itself stands first (RFC 5321 §4.2).
            self._dialogue.name = greeting.reply.lines[0].partition(" ")[0]
            self._check_welcome(greeting.reply)
            await self._introduce(hello_name)
            if tls is not None and not tls.implicit:
                await self._encrypt(hello_name, tls)
            if credentials is not None:
                await log_in(self._talk, credentials, timeouts.envelope, in_clear=in_clear)
            self._quiet_since = trio.current_time()
        except ConversationOverError as over:
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
        self._unheard = False
        offered = self.extensions
        needed = required(message, recipients, body, offered)
        if isinstance(needed, Reply):
            return [_cannot_take(needed)] * len(recipients)
        if needed.smtputf8 and not offered.smtputf8:
            said = [each for each in recipients if spelling(each.address, offered) is not None]
            if len(said) < len(recipients):
                outcomes = iter(await self.send(message, said, body) if said else ())
                return [next(outcomes) if each in said else _UNSPEAKABLE for each in recipients]
        transaction = Transaction(len(recipients))
        self._sent += 1
        self._now = message.id, str(message.sender or ""), len(recipients)
        self._talk.given = 0
        self._dialogue.about(message.id)
        try:
            with self._talk.within(self._timeouts.envelope, "the answer to the envelope") as phase:
                await self._transact(message, recipients, body, needed, transaction, phase)
        except ConversationOverError as over:
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
        self._now = None
        self._quiet_since = trio.current_time()
        return transaction.outcomes()

    async def quit(self) -> None:
        """Say goodbye if there is somebody to hear it, and close."""
        talk = self._talk
        try:
            if not talk.over and talk.smtp.outstanding == 0 and talk.smtp.state in _MAY_QUIT:
                with talk.within(self._timeouts.quit, "the answer to QUIT"):
                    talk.say(talk.smtp.quit())
                    await talk.answer()
        except ConversationOverError:
            pass
        finally:
            self.close()

    def close(self) -> None:
        """Hang up at once; may be repeated."""
        self._talk.close()

    def _standing(self) -> Standing:
        """Where the conversation stands."""
        state = self._talk.smtp.state.name.lower()
        if self._now is None:
            return Standing(state=state, messages=self._sent)
        message, sender, recipients = self._now
        return Standing(
            state=state,
            messages=self._sent - 1,
            message=message,
            sender=sender,
            recipients=recipients,
            octets=self._talk.given,
        )

    # Getting to know each other.

    async def _introduce(self, name: str) -> None:
        """Say EHLO, or HELO if that is unknown."""
        with self._talk.within(self._timeouts.hello, "the answer to EHLO"):
            reply = await self._hello(name, extended=True)
            if reply.code >= 500 and not self._lmtp:
                reply = await self._hello(name, extended=False)
        self._check_welcome(reply)

    async def _hello(self, name: str, *, extended: bool) -> Reply:
        self._talk.say(self._talk.smtp.hello(name, extended=extended))
        return (await self._talk.answer()).reply

    def _check_welcome(self, reply: Reply) -> None:
        if reply.code >= 400:
            raise HostUnusable(reply, remote=True)

    async def _begin_encrypted(self, tls: Tls) -> None:
        talk = self._talk
        try:
            with talk.within(self._timeouts.tls, "the TLS handshake"):
                await talk.encrypt(tls.context, tls.server_name, greeted=False)
        except ConversationOverError as over:
            raise TlsFailed(_cannot_be_had(over), remote=False) from over

    async def _encrypt(self, name: str, tls: Tls) -> None:
        talk = self._talk
        if not talk.smtp.extensions.starttls:
            if tls.required:
                raise HostUnusable(_NO_TLS, remote=False)
            return
        try:
            with talk.within(self._timeouts.tls, "the TLS handshake"):
                talk.say(talk.smtp.starttls())
                reply = (await talk.answer()).reply
                if reply.code != 220:
                    raise talk.ends(made(451, 7, 5, f"STARTTLS was refused: {reply}"))
                await talk.encrypt(tls.context, tls.server_name)
            # Whether the server is content with the handshake we only know when it speaks.
            await self._introduce(name)
        except ConversationOverError as over:
            if over.remote:
                raise
            raise TlsFailed(_cannot_be_had(over), remote=False) from over

    # A transaction.

    async def _transact(
        self,
        message: Message,
        recipients: Sequence[Recipient],
        body: StoredBody,
        params: MailParams,
        transaction: Transaction,
        phase: Phase,
    ) -> None:
        """The whole transaction; what is asked for in one group depends on PIPELINING."""
        talk, smtp, timeouts = self._talk, self._talk.smtp, self._timeouts
        offered = smtp.extensions
        unasked = self._unasked(body)
        plain = offered.smtputf8 or not params.smtputf8
        if trio.current_time() - self._quiet_since > STALE:
            await talk.listen()
        if smtp.state is not ClientState.READY:
            await self._say(smtp.reset(), transaction, phase, timeouts.reset)
        sender = message.sender
        if not plain and sender is not None:
            sender = spelling(sender, offered)
        await self._say(smtp.mail(sender, params), transaction, phase, timeouts.envelope)
        for recipient in recipients:
            if not transaction.undecided:
                return  # MAIL was refused
            address = recipient.address if plain else spelling(recipient.address, offered)
            assert address is not None, "who cannot be named here was left out"
            rcpt = smtp.rcpt(address, recipient.params)
            await self._say(rcpt, transaction, phase, timeouts.envelope)
        if unasked is not None:
            phase.becomes(timeouts.message, "the answer to the message")
            transaction.content_sent = True
            talk.say(smtp.chunk(unasked, last=True))
            await self._settle(transaction)
            return
        if offered.pipelining:
            if not offered.chunking:
                talk.say(smtp.data())
            await self._settle(transaction, each=phase)
        if offered.chunking:
            if smtp.accepted:
                await self._send_chunks(body, transaction, phase)
            return
        if not offered.pipelining and smtp.accepted:
            phase.becomes(timeouts.data, "the answer to DATA")
            talk.say(smtp.data())
            await self._settle(transaction)
        if smtp.state is ClientState.DATA:
            await self._send_content(body, transaction, phase)

    def _unasked(self, body: StoredBody) -> bytes | None:
        """The content, if it can go out by BDAT in one group with its envelope, as it is."""
        offered, octets = self.extensions, body.octets
        if not (offered.chunking and offered.pipelining) or octets is None:
            return None
        fits = len(octets) <= MAX_UNASKED and octets.endswith(b"\r\n") and has_clean_lines(octets)
        return octets if fits else None

    async def _send_chunks(self, body: StoredBody, transaction: Transaction, phase: Phase) -> None:
        """The content by BDAT, once the host has said that somebody is to get it."""
        talk, smtp, timeouts = self._talk, self._talk.smtp, self._timeouts
        ahead = MAX_UNANSWERED if smtp.extensions.pipelining else 0
        lines = LineEnds()
        if body.octets is not None:
            last = lines.feed(body.octets)
        else:
            last = b""  # each but the last is told to be none
            phase.becomes(timeouts.block, "the host to take the content")
            async with aclosing(body.chunks()) as pieces:
                async for piece in pieces:
                    if last:
                        talk.say(smtp.chunk(last, last=False))
                        await talk.flush()
                        await self._settle(transaction, ahead)
                        if not smtp.accepted:
                            break
                    last = lines.feed(piece)
                    phase.lasts(timeouts.block)
        phase.becomes(timeouts.message, "the answer to the message")
        if smtp.accepted:
            transaction.content_sent = True
            talk.say(smtp.chunk(last + lines.end(), last=True))
        await self._settle(transaction)

    async def _send_content(self, body: StoredBody, transaction: Transaction, phase: Phase) -> None:
        """What follows a 354: nothing but the dot, if nobody was accepted (RFC 2920 §3.1)."""
        talk, smtp, timeouts = self._talk, self._talk.smtp, self._timeouts
        long = body.octets is None or body.size > MAX_UNASKED
        if long:  # what is shorter needs no waiting for the host to take it
            phase.becomes(timeouts.block, "the host to take the content")
        if smtp.accepted and body.octets is not None:
            talk.give(smtp.content(body.octets), len(body.octets))
        elif smtp.accepted:
            async with aclosing(body.chunks()) as pieces:
                async for piece in pieces:
                    talk.give(smtp.content(piece), len(piece))
                    await talk.flush()
                    phase.lasts(timeouts.block)
        transaction.content_sent = smtp.accepted > 0
        talk.give_end(smtp.content_end())
        if long:
            await talk.flush()
        phase.becomes(timeouts.message, "the answer to the message")
        await self._settle(transaction)

    async def _say(
        self, octets: bytes, transaction: Transaction, phase: Phase, seconds: float
    ) -> None:
        """Say something as part of a group, or where the host takes none, now.

        Args:
            octets: what is said.
            transaction: what it is about.
            phase: what we are in.
            seconds: that the answer may take, if we wait for it.
        """
        talk = self._talk
        talk.say(octets)
        if not talk.smtp.extensions.pipelining:
            phase.lasts(seconds)
            await self._settle(transaction)

    async def _settle(
        self, transaction: Transaction, ahead: int = 0, each: Phase | None = None
    ) -> None:
        """Hear the answers to what was said, to all but `ahead` of it.

        Args:
            transaction: what it is about.
            ahead: how many answers may be owed still.
            each: the deadline of this phase is for one answer of an envelope, not for all of them
                (RFC 5321 §4.5.3.2: each command has its time).
        """
        talk, smtp = self._talk, self._talk.smtp
        while True:
            while not isinstance(event := smtp.next_event(), Wait):
                self._note(event, transaction)
            if smtp.outstanding <= ahead:
                return
            if each is not None:
                each.lasts(self._timeouts.envelope)
            await talk.flush()
            await talk.read()

    def _note(self, answer: Answer, transaction: Transaction) -> None:
        match answer:
            case RcptAnswer(number, reply):
                if reply.code >= 400:
                    later = _too_many(reply) and self._talk.smtp.accepted > 0
                    transaction.decide(number, reply, Result.DEFERRED if later else None)
            case ContentAnswer(number, reply):
                transaction.decide(number, reply)
            case MailAnswer(reply):
                if reply.code >= 400:
                    # A word on the sender. Hosts of one destination need not agree on that.
                    transaction.decide_rest(reply, remote=True, elsewhere=reply.code >= 500)
            case DataAnswer(reply) | TransferAnswer(reply):
                if reply.code >= 400:
                    transaction.decide_rest(reply, remote=True)
            case ResetAnswer(reply):
                if reply.code >= 400:
                    # It says nothing of the message that comes next.
                    raise self._talk.ends(made(451, 5, 1, f"RSET was refused: {reply}"))
            case _:
                raise self._talk.ended(answer)


_BETWEEN_MESSAGES: Final = frozenset(
    {ClientState.READY, ClientState.MAIL, ClientState.RCPT, ClientState.FAILED}
)
_MAY_QUIT: Final = _BETWEEN_MESSAGES | {ClientState.START, ClientState.UNWELCOME}


_NO_TLS: Final = made(451, 7, 4, "TLS is required here, and the host does not offer it")


def _cannot_be_had(over: ConversationOverError) -> Reply:
    return made(451, 7, 5, f"TLS cannot be had: {over.reply.text}")


def _cannot_take(reply: Reply) -> Outcome:
    """A host that lacks what a message needs; another may have it."""
    return Outcome(Result.FAILED, reply, remote=False, elsewhere=True)


_UNSPEAKABLE: Final = _cannot_take(NO_SMTPUTF8)


def _too_many(reply: Reply) -> bool:
    """Whether a recipient is one too many here, not refused (RFC 5321 §4.5.3.1.10)."""
    return reply.code == 552 and reply.status in (None, (5, 3))
