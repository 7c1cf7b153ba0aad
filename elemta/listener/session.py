"""One client: the protocol engine on one side, plugins, recipients and the queue on the other.

A session that breaks costs itself alone. It opens no nursery, so it raises no exception groups.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, assert_never

import trio

from elemta import plugins
from elemta.listener import replies
from elemta.listener.authentication import Authentication
from elemta.listener.encryption import Encrypting, before_tls, recognise
from elemta.listener.expansion import NO_SUCH_MAILBOX
from elemta.listener.intake import Intake
from elemta.listener.judgement import doomed
from elemta.listener.patience import Patience
from elemta.listener.precedence import allowed
from elemta.listener.recipients import told
from elemta.listener.refusals import reason
from elemta.listener.roster import DrainedError
from elemta.listener.wire import Wire
from elemta.log import logger
from elemta.net.dialogues import Dialogue, Standing
from elemta.net.tls import TlsError
from elemta.plugins import Transaction
from elemta.protocol import (
    Auth,
    AuthResponse,
    Chunk,
    ChunkEnd,
    Closed,
    Content,
    ContentEnd,
    Data,
    Event,
    Fault,
    Hello,
    Help,
    Mail,
    Noop,
    Quit,
    Rcpt,
    Refused,
    Reply,
    Reset,
    StartTls,
    Verify,
)

if TYPE_CHECKING:
    from elemta.listener.reception import Reception
    from elemta.net.transport import Transport
    from elemta.protocol import Mailbox

log = logger(__name__)

#: Octets of a bad command that are logged.
SHOWN: Final = 200
#: Seconds that plugins get once a conversation is over.
FAREWELL: Final = 5.0
#: How a conversation must not end, and what that is counted as.
_FAULTS: Final = {
    "timed out": "timed_out",
    "connection lost": "lost",
    "failed": "failed",
    "no TLS": "no_tls",
}


class Session:
    """Serves one client until it quits, times out, misbehaves, or we shut down.

    Args:
        transport: the client.
        reception: what all sessions of this listener share.
    """

    def __init__(self, transport: Transport, reception: Reception) -> None:
        house = reception.house
        host, port = transport.peer
        self._reception = reception
        self._queue = house.queue
        self._plugins = reception.plugins
        self._greeted = False  # `on_connect` was asked
        self._meters = house.meters
        self._view = view = plugins.Session(
            id=os.urandom(6).hex(),
            address=host,
            port=port,
            listener=reception.table.name,
            submission=reception.table.submission,
            trusted=house.recipients.trusts(host),
        )
        self._dialogue = Dialogue(
            house.dialogues, "in", view.listener, str(transport.peer), view.id
        )
        self._wire = Wire(transport, reception, self._dialogue)
        self._encryption = Encrypting(view, self._wire, self._dialogue, house)
        self._authentication = Authentication(view, reception)
        self._patience = Patience(reception.table, tireless=reception.lmtp)
        self._transaction: Transaction | None = None
        self._over = False  # we have said goodbye, of our own accord
        self._messages = 0
        self._mail_at = 0.0  # when the last MAIL came (Trio time)

    async def run(self) -> None:
        """Serve the client, then close the transport, whatever happened."""
        house = self._reception.house
        began, end = trio.current_time(), "over"
        try:
            house.roster.enter(self)
            self._dialogue.begin(self._standing)
            self._wire.open()
            with self._plugins.users:
                try:
                    await self._converse()
                finally:
                    if self._greeted and self._plugins.disconnect:
                        await self._part()
        except trio.TooSlowError:
            end = "timed out"
            await self._wire.say_goodbye(replies.TIMED_OUT)
        except TlsError:
            end = "no TLS"
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            end = "connection lost"
        except DrainedError:
            end = "drained"
            await self._wire.say_goodbye(replies.SHUTTING_DOWN)
        except trio.Cancelled:
            end = "cancelled"
            await self._wire.say_goodbye(replies.SHUTTING_DOWN)
            raise
        except Exception:
            # A bug must cost this client its session, not every client the server.
            end = "failed"
            log.exception("session.failed", session=self._view.id, client=self._view.address)
            await self._wire.say_goodbye(replies.BROKEN)
        finally:
            self._wire.close()
            house.roster.leave(self)
            if end != "over":
                self._dialogue.said("S", end)
            self._dialogue.end()
            self._meters.conversations.observe(trio.current_time() - began)
            if (fault := _FAULTS.get(end)) is not None:
                self._meters.connection_errors[fault] += 1
            log.debug(
                "session.ended",
                session=self._view.id,
                client=self._view.address,
                listener=self._view.listener,
                end=end,
                state=self._wire.smtp.state.name,
                messages=self._messages,
                mistakes=self._patience.mistakes,
            )

    def hurry(self) -> None:
        """See `elemta.listener.roster.Guest`."""
        self._wire.hurry()

    def drain(self) -> None:
        """See `elemta.listener.roster.Guest`."""
        self._wire.drain()

    def _standing(self) -> Standing:
        """Where the conversation stands."""
        smtp, transaction = self._wire.smtp, self._transaction
        state = smtp.state.name.lower()
        if transaction is None or not smtp.in_transaction:
            return Standing(state=state, messages=self._messages)
        return Standing(
            state=state,
            messages=self._messages,
            message=transaction.id,
            sender=str(transaction.sender or ""),
            recipients=len(transaction.recipients),
            octets=self._wire.received,
        )

    # The conversation.

    async def _converse(self) -> None:
        table = self._reception.table
        if table.tls == "implicit":
            await self._encryption.begin(greeted=False)
        await self._greet()
        self._encryption.greeted()
        clear = table.tls == "required"  # as long as it is, nearly nothing is done
        while not self._over:
            event = await self._wire.next_event()
            if isinstance(event, Closed):
                break
            if clear and self._view.encryption is None and not before_tls(event):
                await self._refuse(replies.TLS_FIRST)
                continue
            await self._handle(event)
        await self._wire.finish()

    async def _part(self) -> None:
        """Tell plugins that it is over, however it ended."""
        if not any("on_disconnect" in each.waits for each in self._plugins.disconnect):
            await self._plugins.on_disconnect(self._view)  # which nothing can interrupt
            return
        with trio.CancelScope(shield=True, deadline=trio.current_time() + FAREWELL):
            await self._plugins.on_disconnect(self._view)

    async def _greet(self) -> None:
        self._greeted = True
        if self._plugins.connect:
            objection = (await self._plugins.on_connect(self._view)).reply
            if objection is not None:
                self._meters.refusals[reason(objection, by_plugin=True)] += 1
                code = 421 if objection.code < 500 else 554
                self._wire.reply(Reply(code, objection.status, objection.lines))
                return
        if self._wire.spoke_first():
            self._log_refusal(replies.SPOKE_FIRST)
            self._wire.reply(replies.SPOKE_FIRST)
            return
        self._wire.reply(self._reception.greeting)

    async def _handle(self, event: Event) -> None:
        match event:
            case Mail():
                await self._mail(event)
            case Rcpt():
                await self._rcpt(event)
            case Data():
                await self._data()
            case Chunk():
                await self._receive_message(await self._judge_envelope())
            case Hello():
                await self._hello(event)
            case Quit():
                self._wire.reply(replies.BYE)
            case Refused(line=line, reply=refusal):
                self._log_refusal(refusal, command=line[:SHOWN].decode("utf-8", "backslashreplace"))
                await self._mistake(refusal, strange=refusal.code == 500)
            case Reset() | Noop():
                self._small_talk(replies.OK)
            case Verify():
                self._small_talk(replies.NOT_VERIFIED)
            case Help():
                self._small_talk(replies.HELP)
            case StartTls(injected=True):
                await self._refuse(replies.INJECTED)
            case StartTls():
                self._wire.reply(replies.TLS_READY)
                await self._encryption.begin(greeted=True)
                self._transaction = None
            case Auth() | AuthResponse():
                await self._authenticate(event)
            case Content() | ContentEnd() | ChunkEnd() | Closed():
                raise AssertionError(event)
            case _:
                assert_never(event)

    async def _hello(self, hello: Hello) -> None:
        if self._plugins.hello:
            objection = (await self._plugins.on_hello(self._view, hello.name)).reply
            if objection is not None:
                await self._refuse(objection, by_plugin=True, name=hello.name)
                return
        self._view.helo = self._dialogue.name = hello.name
        self._view.extended = hello.extended
        recognise(self._view)
        self._dialogue.login = self._view.login or ""
        self._small_talk(self._wire.smtp.hello_reply(self._reception.house.config.hostname))

    async def _authenticate(self, event: Auth | AuthResponse) -> None:
        answer = await self._authentication.answer(event)
        self._dialogue.login = self._view.login or ""
        if answer.code < 400:
            self._wire.reply(answer)
        elif answer is replies.TOO_MANY_LOGINS:
            self._log_refusal(answer)
            self._hang_up(answer)
        else:
            await self._refuse(answer)

    async def _mail(self, mail: Mail) -> None:
        self._mail_at = trio.current_time()
        if self._messages >= self._reception.table.messages:
            self._meters.refusals[reason(replies.TOO_MANY_MESSAGES)] += 1
            self._hang_up(replies.TOO_MANY_MESSAGES)
            return
        if self._view.submission and self._view.login is None:
            await self._refuse(replies.NOT_LOGGED_IN, sender=str(mail.path or ""))
            return
        if self._view.login is not None and (over := await self._authentication.over()) is not None:
            await self._end_login(over, str(mail.path or ""))
            return
        params, lowered = allowed(mail.params, self._view)
        self._transaction = transaction = Transaction(
            session=self._view, id=self._queue.new_id(), sender=mail.path, params=params
        )
        self._dialogue.about(transaction.id)
        refusal = self._judge_resources(mail)
        if refusal is None and (ownership := self._reception.ownership) is not None:
            refusal = await ownership.judge_sender(self._view, mail.path)
        by_plugin = refusal is None and bool(self._plugins.mail)
        if by_plugin:
            refusal = (await self._plugins.on_mail(transaction)).reply
        if refusal is not None:
            await self._refuse(refusal, by_plugin=by_plugin, sender=str(mail.path or ""))
            return
        self._wire.reply(replies.PRIORITY_LOWERED if lowered else replies.SENDER_OK)

    async def _end_login(self, answer: Reply, sender: str) -> None:
        if answer is replies.LOGIN_OVER:
            self._log_refusal(answer, sender=sender)
            self._hang_up(answer)
        else:
            await self._refuse(answer, by_plugin=True, sender=sender)

    def _judge_resources(self, mail: Mail) -> Reply | None:
        if (mail.params.size or 0) > self._reception.table.message_size:
            return replies.TOO_BIG
        if not (self._queue.healthy and self._queue.room()):
            return replies.NO_ROOM
        return None

    async def _rcpt(self, rcpt: Rcpt) -> None:
        transaction = self._open
        found = await self._reception.house.recipients.find(
            rcpt.path, client=self._view.address, login=self._view.login
        )
        if isinstance(found, Reply):
            await self._refuse_recipient(transaction, rcpt.path, found)
            return
        most = self._reception.table.recipients
        if len(transaction.recipients) >= most or (
            # What one alias stands for is taken whole, if it is the first.
            transaction.addressees and len(transaction.addressees) + len(found) > most
        ):
            await self._refuse(replies.TOO_MANY_RECIPIENTS, recipient=str(rcpt.path))
            return
        before = transaction.before
        if (objection := await self._judge_recipient(transaction, rcpt.path)) is not None:
            transaction.refuse(rcpt.path, before)
            await self._refuse(objection, by_plugin=True, recipient=str(rcpt.path))
            return
        led = doomed(found, transaction, rcpt.path, self._reception.house.clock())
        new = [each for each in led if transaction.lacks(each)]
        transaction.add(rcpt.path, told(new, rcpt.params), before)
        self._wire.reply(replies.RECIPIENT_OK)

    async def _refuse_recipient(
        self, transaction: Transaction, path: Mailbox, refusal: Reply
    ) -> None:
        """Turn down a recipient whom we do not take mail for, whatever plugins say."""
        if refusal is not NO_SUCH_MAILBOX:
            await self._refuse(refusal, recipient=str(path))
            return
        if self._plugins.unknown:
            objection = (await self._plugins.on_unknown(transaction, path)).reply
            if objection is not None:
                # Answered as for a recipient who is there, also in time: neither tells who is.
                await self._refuse(objection, recipient=str(path))
                return
        self._log_refusal(refusal, recipient=str(path))
        await self._after(self._patience.unknown_recipient(), refusal)

    async def _judge_recipient(self, transaction: Transaction, path: Mailbox) -> Reply | None:
        objection = None
        if self._plugins.rcpt:
            objection = (await self._plugins.on_rcpt(transaction, path)).reply
        if objection is None and self._plugins.greylist and not self._view.trusted:
            objection = (await self._plugins.on_greylist(transaction, path)).reply
        return objection

    async def _data(self) -> None:
        if (objection := await self._judge_envelope()) is not None:
            await self._refuse(objection, by_plugin=True)
            return
        self._wire.reply(replies.GO_AHEAD)
        await self._receive_message(None)

    async def _judge_envelope(self) -> Reply | None:
        if self._plugins.data:
            return (await self._plugins.on_data(self._open)).reply
        return None

    # The message.

    async def _receive_message(self, objection: Reply | None) -> None:
        """Take the content in, and answer its end.

        Args:
            objection: of a plugin: what that answer is, whatever comes in, as a chunk comes unasked
                (RFC 3030).
        """
        transaction, reception = self._open, self._reception
        self._wire.content_begins()
        async with Intake(
            transaction,
            reception.house,
            self._plugins,
            lmtp=reception.lmtp,
            refusal=objection,
            ownership=reception.ownership,
        ) as intake:
            while isinstance(event := await self._next_content(intake), Content):
                await intake.take(event.octets)
            if event is None:
                return
            if event.fault is None:
                await intake.keep()
        await self._conclude(transaction, intake, event.fault)

    async def _next_content(self, intake: Intake) -> Content | ContentEnd | None:
        """The next of the content, or its end; None if the message was given up.

        Between two chunks a client may say other things (RFC 3030 §2).
        """
        while True:
            event = await self._wire.next_event()
            match event:
                case Content() | ContentEnd():
                    return event
                case Chunk():
                    pass
                case ChunkEnd(fault=fault):
                    refusal = intake.refusal if fault is None else replies.FAULTS[fault]
                    if refusal is not None:
                        await self._refuse_message(refusal, intake, fault)
                        return None
                    self._wire.reply(replies.CHUNK_OK)
                case Closed():
                    return None  # as `_converse` will be told again
                case _:
                    await self._handle(event)
                    if not self._wire.smtp.in_transaction:
                        return None

    async def _conclude(
        self, transaction: Transaction, intake: Intake, fault: Fault | None
    ) -> None:
        """Answer the end of a message: once, or under LMTP for each recipient (RFC 2033 §4.2)."""
        answers = len(transaction.recipients) if self._reception.lmtp else 1
        refusal = intake.refusal if fault is None else replies.FAULTS[fault]
        if refusal is not None:
            for _ in range(answers - 1):
                self._wire.reply(refusal)
            await self._refuse_message(refusal, intake, fault)
            return
        self._messages += 1
        self._meters.accepts.observe(trio.current_time() - self._mail_at)
        self._patience.message_taken()
        intake.tell()
        taken = Reply(250, (0, 0), (f"OK: queued as {transaction.id}", *transaction.said))
        for _ in range(answers):
            self._wire.reply(taken)

    async def _refuse_message(self, refusal: Reply, intake: Intake, fault: Fault | None) -> None:
        await self._refuse(refusal, by_plugin=fault is None and intake.by_plugin)
        smuggled = fault in (Fault.BARE_NEWLINE, Fault.LEADING_NUL)
        if smuggled and not (self._view.trusted or self._reception.lmtp):
            # A stranger who tries to smuggle: what it has pipelined behind this is not heard.
            self._over = True

    # Saying no.

    async def _refuse(self, refusal: Reply, *, by_plugin: bool = False, **what: str) -> None:
        """Turn down what the client asked for, and say so in the log."""
        self._log_refusal(refusal, by_plugin=by_plugin, **what)
        await self._mistake(refusal)

    async def _mistake(self, refusal: Reply, *, strange: bool = False) -> None:
        """Answer a mistake. What may work later (4xx) is none."""
        if refusal.code < 500:
            self._wire.reply(refusal)
        else:
            await self._after(self._patience.mistake(strange=strange), refusal)

    async def _after(self, price: float | Reply, refusal: Reply) -> None:
        """Answer when the client has paid for its mistake, or say goodbye if it has made too many.

        Args:
            price: seconds, or the goodbye.
            refusal: the answer.
        """
        if isinstance(price, Reply):
            self._log_refusal(price)
            self._hang_up(price)
            return
        if price > 0:
            await trio.sleep(price)  # no deadline runs meanwhile: it is us who take the time
        self._wire.reply(refusal)

    def _small_talk(self, answer: Reply) -> None:
        goodbye = self._patience.small_talk()
        if goodbye is None:
            self._wire.reply(answer)
        else:
            self._log_refusal(goodbye)
            self._hang_up(goodbye)

    def _hang_up(self, goodbye: Reply) -> None:
        self._wire.reply(goodbye)
        self._over = True

    def _log_refusal(self, refusal: Reply, *, by_plugin: bool = False, **what: str) -> None:
        """Say in the log what a client was refused, so that its owner can be told why."""
        self._meters.refusals[reason(refusal, by_plugin=by_plugin)] += 1
        view = self._view
        if self._transaction is not None and self._wire.smtp.in_transaction:
            what["id"] = self._transaction.id
            what.setdefault("sender", str(self._transaction.sender or ""))
        if view.login is not None:
            what["login"] = view.login
        log.info(
            "client.refused",
            session=view.id,
            listener=view.listener,
            client=view.address,
            helo=view.helo,
            reply=str(refusal),
            **what,
        )

    @property
    def _open(self) -> Transaction:
        assert self._transaction is not None, (
            "the engine lets nothing of a message come before MAIL"
        )
        return self._transaction
