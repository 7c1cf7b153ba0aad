"""Hands in a message with our own client engine, and says what the server answered."""

from __future__ import annotations

import getpass
import socket
import sys
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from email.utils import formatdate, make_msgid
from typing import TYPE_CHECKING, Final

import click
import trio
from msgspec import Struct

from elemta.net.transport import connect
from elemta.protocol import (
    Body,
    Broken,
    ClientConnection,
    Closed,
    ContentAnswer,
    DataAnswer,
    Goodbye,
    Greeting,
    HelloAnswer,
    MailAnswer,
    Mailbox,
    MailParams,
    RcptAnswer,
    Reply,
    ReversePath,
    Wait,
    parse_domain,
    parse_mailbox,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elemta.net.transport import Transport
    from elemta.protocol import Answer

#: Exit codes, as sysexits.h has them: refused for good, nobody there, refused for now.
REFUSED: Final = 65
UNAVAILABLE: Final = 69
TRY_LATER: Final = 75

#: Seconds for each of the server's answers (RFC 5321 §4.5.3.2 allows it ten minutes at most).
PATIENCE: Final = 600.0
#: Octets that are stuffed and written at a time.
PIECE: Final = 65536


class Unavailable(Exception):  # noqa: N818 (what it says is the whole of it)
    """Nobody answers there, or not by SMTP; the message says which."""


class Outcome(Struct, frozen=True):
    """What became of the message for one recipient."""

    recipient: Mailbox
    reply: Reply


def mailbox(text: str | None, option: str) -> Mailbox:
    """Read an address; None is whoever runs this.

    Raises:
        ValueError: it is none.
    """
    if text is None:
        return _myself()
    try:
        return parse_mailbox(text)
    except ValueError as error:
        raise ValueError(f"{option}: {text!r} is no address: {error}") from None


def compose(sender: ReversePath, recipients: Sequence[Mailbox], subject: str, text: str) -> bytes:
    """A message with a header that is as it should be."""
    everybody = [str(each) for each in (sender, *recipients) if each is not None]
    message = EmailMessage(SMTP if all(each.isascii() for each in everybody) else SMTPUTF8)
    message["From"] = str(sender) if sender is not None else "MAILER-DAEMON@localhost"
    message["To"] = ", ".join(str(each) for each in recipients)
    message["Subject"] = " ".join(subject.split())
    message["Date"] = formatdate(localtime=True)
    message["Message-ID"] = make_msgid(domain=own_name())
    message.set_content(text if text.endswith("\n") else text + "\n")
    return message.as_bytes()


def hand_in(
    content: bytes,
    sender: ReversePath,
    recipients: Sequence[Mailbox],
    *,
    host: str,
    port: int,
    lmtp: bool,
    verbose: bool,
) -> int:
    """Hand the message in, print what the server answers, and return the exit code."""
    try:
        outcomes = trio.run(
            _Conversation(verbose=verbose, lmtp=lmtp).run, host, port, sender, recipients, content
        )
    except Unavailable as error:
        click.echo(f"{host}:{port}: {error}", err=True)
        return UNAVAILABLE
    replies = {str(outcome.reply) for outcome in outcomes}
    if len(replies) == 1:
        click.echo(replies.pop())
    else:
        for outcome in outcomes:
            click.echo(f"{outcome.recipient}: {outcome.reply}")
    worst = max(outcome.reply.code for outcome in outcomes)
    return 0 if worst < 400 else TRY_LATER if worst < 500 else REFUSED


class _Conversation:
    """One connection, one message."""

    def __init__(self, *, verbose: bool, lmtp: bool) -> None:
        self._verbose = verbose
        self._smtp = ClientConnection(lmtp=lmtp)
        self._lmtp = lmtp

    async def run(
        self,
        host: str,
        port: int,
        sender: ReversePath,
        recipients: Sequence[Mailbox],
        content: bytes,
    ) -> list[Outcome]:
        """Hand the message in.

        Returns:
            What became of it for each recipient.

        Raises:
            Unavailable: nobody answers there, or not by SMTP.
        """
        self._transport = await reach(host, port)
        try:
            return await self._hand_in(sender, recipients, content)
        except trio.TooSlowError:
            raise Unavailable(f"no answer within {PATIENCE:.0f} s") from None
        except trio.BrokenResourceError:
            raise Unavailable("the connection broke") from None
        finally:
            self._transport.close()

    async def _hand_in(
        self, sender: ReversePath, recipients: Sequence[Mailbox], content: bytes
    ) -> list[Outcome]:
        def all_get(reply: Reply) -> list[Outcome]:
            return [Outcome(recipient, reply) for recipient in recipients]

        smtp = self._smtp
        greeting = await self._answer()
        if not isinstance(greeting, Greeting) or greeting.reply.code >= 400:
            return all_get(_reply_of(greeting))
        hello = await self._ask(smtp.hello(own_name()))
        if isinstance(hello, HelloAnswer) and hello.reply.code >= 500 and not self._lmtp:
            hello = await self._ask(smtp.hello(own_name(), extended=False))
        if not isinstance(hello, HelloAnswer) or hello.reply.code >= 400:
            return all_get(_reply_of(hello))

        eight_bit = not content.isascii()
        international = not all(str(each or "").isascii() for each in (sender, *recipients))
        if international and not smtp.extensions.smtputf8:
            return all_get(Reply(553, (6, 7), ("the server takes no addresses beyond ASCII",)))
        params = MailParams(
            size=len(content),
            body=Body.EIGHT_BIT if eight_bit else None,
            smtputf8=international,
        )
        answer = await self._ask(smtp.mail(sender, params))
        if not isinstance(answer, MailAnswer) or answer.reply.code >= 400:
            return all_get(_reply_of(answer))

        outcomes: dict[int, Outcome] = {}
        for number, recipient in enumerate(recipients):
            answer = await self._ask(smtp.rcpt(recipient))
            outcomes[number] = Outcome(recipient, _reply_of(answer))
            if not isinstance(answer, RcptAnswer):
                return all_get(_reply_of(answer))
        if smtp.accepted:
            outcomes |= await self._content(recipients, content, outcomes)
        with trio.move_on_after(5):
            if smtp.usable:
                await self._ask(smtp.quit())
        return [outcomes[number] for number in sorted(outcomes)]

    async def _content(
        self, recipients: Sequence[Mailbox], content: bytes, so_far: dict[int, Outcome]
    ) -> dict[int, Outcome]:
        """The message itself, and what became of it for those who were accepted."""
        smtp = self._smtp
        accepted = [number for number, outcome in so_far.items() if outcome.reply.code < 300]
        answer = await self._ask(smtp.data())
        if not isinstance(answer, DataAnswer) or answer.reply.code != 354:
            return {n: Outcome(recipients[n], _reply_of(answer)) for n in accepted}
        for start in range(0, len(content), PIECE):
            await self._write(smtp.content(content[start : start + PIECE]))
        await self._write(smtp.content_end())
        outcomes: dict[int, Outcome] = {}
        while len(outcomes) < len(accepted):
            answer = await self._answer()
            if isinstance(answer, ContentAnswer):
                outcomes[answer.number] = Outcome(recipients[answer.number], answer.reply)
            else:
                left = [number for number in accepted if number not in outcomes]
                outcomes |= {n: Outcome(recipients[n], _reply_of(answer)) for n in left}
        return outcomes

    async def _ask(self, octets: bytes) -> Answer:
        self._show("C", octets.decode(errors="replace"))
        await self._write(octets)
        return await self._answer()

    async def _write(self, octets: bytes) -> None:
        with trio.fail_after(PATIENCE):
            await self._transport.send_all(octets)

    async def _answer(self) -> Answer:
        """What the server says next.

        Raises:
            Unavailable: it hung up, or what it said is no SMTP.
        """
        with trio.fail_after(PATIENCE):
            while (answer := self._smtp.next_event()) is Wait.FOR_DATA:
                octets = await self._transport.receive()
                self._show("S", octets.decode(errors="replace"))
                if octets:
                    self._smtp.receive_data(octets)
                else:
                    self._smtp.receive_eof()
        assert not isinstance(answer, Wait), "a client waits for data alone"
        match answer:
            case Broken(reason=reason):
                raise Unavailable(f"what the server says is no SMTP: {reason}")
            case Closed():
                raise Unavailable("the server hung up")
            case _:
                return answer

    def _show(self, who: str, text: str) -> None:
        if self._verbose:
            for line in text.splitlines():
                shown = line if line.isprintable() else ascii(line)[1:-1]
                print(f"{who}: {shown}", file=sys.stderr)  # noqa: T201 (that is what was asked for)


def _reply_of(answer: Answer) -> Reply:
    match answer:
        case Broken() | Closed():
            raise AssertionError(answer)
        case Goodbye(reply=reply):
            return reply
        case _:
            return answer.reply


async def reach(host: str, port: int) -> Transport:
    """Connect to the first address of a host that answers.

    Raises:
        Unavailable: none does.
    """
    try:
        found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Unavailable(error.strerror or str(error)) from None
    problem = "no address"
    for _, _, _, _, address in found:
        try:
            return await connect(str(address[0]), port)
        except OSError as error:
            problem = error.strerror or str(error)
        except trio.TooSlowError:
            problem = "no answer"
    raise Unavailable(problem)


def own_name() -> str:
    """This machine's name, as far as it is one that can be said."""
    try:
        return parse_domain(socket.getfqdn())
    except ValueError:
        return "localhost"


def _myself() -> Mailbox:
    try:
        return parse_mailbox(f"{getpass.getuser()}@{own_name()}")
    except (ValueError, KeyError, OSError):
        return parse_mailbox("postmaster@localhost")
