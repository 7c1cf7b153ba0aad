"""Mail that is handed in, but not by SMTP, goes the way that SMTP's goes.

The rules of this file:

- The same are asked in the same order: room, plugins, recipients, the header; whoever hands in has
  logged in, and may send to any domain.
- It is taken for all its recipients or for none: nobody reads a reply for each of them here.
- What was handed in is stored octet for octet, but for what is done to all that is submitted
  (`elemta.listener.completion`). Above it stands what an SMTP server would have put there.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Final, Protocol

import msgspec
import trio

from elemta import plugins
from elemta.listener import replies
from elemta.listener.intake import Handed, Intake
from elemta.listener.judgement import doomed
from elemta.listener.refusals import reason
from elemta.log import logger
from elemta.plugins import Transaction
from elemta.protocol import Fault, MailParams, Reply, has_clean_lines
from elemta.queue import KeyReusedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from elemta.listener.reception import House
    from elemta.protocol import Mailbox, ReversePath
    from elemta.queue import MessageId, Priority

log = logger(__name__)

#: What stands for a listener in logs, and for the protocol in the Received field.
LISTENER: Final = "api"
PROTOCOL: Final = "HTTP"
#: Octets that are looked at before others get their turn.
PIECE: Final = 64 * 1024

#: Octets of a line, its LF not counted (RFC 5321 §4.5.3.1.6).
LONGEST: Final = 999


class NotTakenError(Exception):
    """A message is not taken.

    Attributes:
        reply: what a client would have heard by SMTP.
        place: what of the message is wrong, e.g. ``recipients[1]``; empty if nothing is.
        by_plugin: a plugin's verdict says so.
    """

    def __init__(self, reply: Reply, place: str = "", *, by_plugin: bool = False) -> None:
        super().__init__(str(reply))
        self.reply = reply
        self.place = place
        self.by_plugin = by_plugin


class Submission(Protocol):
    """What somebody hands in. The addresses are right; nothing else is known to be."""

    @property
    def sender(self) -> ReversePath:
        """Who hears of it if it cannot be delivered."""
        ...

    @property
    def recipients(self) -> tuple[Mailbox, ...]:
        """Who is to get it."""
        ...

    @property
    def content(self) -> bytes:
        """RFC 5322, CRLF line ends."""
        ...

    @property
    def priority(self) -> Priority | None:
        """How soon it is wanted; None: as others, or as its header says."""
        ...

    @property
    def tags(self) -> tuple[str, ...]:
        """Words by which operators find it."""
        ...

    @property
    def due(self) -> float | None:
        """Not to be tried before, seconds since the epoch."""
        ...

    @property
    def key(self) -> str:
        """Who hands in the same again, comes with the same; empty: it is never the same."""
        ...

    @property
    def client(self) -> str:
        """The IP address of who hands it in; empty if unknown."""
        ...


async def hand_in(submission: Submission, who: str, house: House) -> tuple[MessageId, bool]:
    """Take a message in; it is ours, and durable, when this returns.

    Args:
        submission: the message.
        who: has logged in. Keys are looked up among those of the same person only.
        house: as for sessions.

    Returns:
        Its id, and whether that is of one that was handed in before with the same key.

    Raises:
        NotTakenError: it is refused, now (4xx) or for good.
        KeyReusedError: its key was used for another message.
        StoreUnavailable: nobody can tell whether its key is known.
    """
    if house.roster.draining:
        raise NotTakenError(replies.SHUTTING_DOWN)
    with house.plugins.users:  # from here on: what is waited for below may outlast a reload
        return await _hand_in(submission, who, house)


async def _hand_in(submission: Submission, who: str, house: House) -> tuple[MessageId, bool]:
    handed = Handed(protocol=PROTOCOL, due=submission.due)
    if submission.key:
        handed = Handed(
            protocol=PROTOCOL,
            due=submission.due,
            key=f"{who} {submission.key}",
            digest=await _digest(submission),
        )
        known = await house.queue.known(handed.key)
        if known is not None:
            if known.digest != handed.digest:
                raise KeyReusedError(f"the key was used for another message, {known.id}")
            return known.id, True
    with house.budget.share() as share:
        # It is in memory already: it counts there, but must not ask for more than there is.
        wanted = min(len(submission.content), house.budget.total // 2)
        if not (share.grow(wanted) or await share.wait(wanted)):
            raise NotTakenError(replies.NO_ROOM)
        return await _take(submission, who, house, handed)


async def _take(
    submission: Submission, who: str, house: House, handed: Handed
) -> tuple[MessageId, bool]:
    transaction = _transaction(submission, who, house)
    try:
        await _judge(submission, transaction, house)
        intake = await _keep(submission.content, transaction, house, handed)
    except NotTakenError as error:
        house.meters.refusals[reason(error.reply, by_plugin=error.by_plugin)] += 1
        session = transaction.session
        log.info(
            "client.refused",
            session=session.id,
            listener=session.listener,
            client=session.address,
            helo=session.helo,
            login=who,
            reply=str(error.reply),
            id=transaction.id,
            sender=str(submission.sender or ""),
            place=error.place,
        )
        raise
    again = intake.id != transaction.id
    if not again:
        intake.tell()
    return intake.id, again


def _transaction(submission: Submission, who: str, house: House) -> Transaction:
    client = submission.client
    literal = f"[IPv6:{client}]" if ":" in client else f"[{client}]"
    session = plugins.Session(
        id=os.urandom(6).hex(),
        address=client,
        port=0,
        listener=LISTENER,
        submission=True,
        trusted=True,
        helo=literal if client else "",
        extended=True,
        login=who,
    )
    addresses = [*submission.recipients, *filter(None, [submission.sender])]
    return Transaction(
        session=session,
        id=house.queue.new_id(),
        sender=submission.sender,
        params=MailParams(
            size=len(submission.content), smtputf8=not all(each.is_ascii for each in addresses)
        ),
        priority=submission.priority,
        tags=submission.tags,
    )


# What is asked before the content is looked at.


async def _judge(submission: Submission, transaction: Transaction, house: House) -> None:
    """Ask all that a session asks before it takes the content in."""
    if len(submission.content) > max(each.message_size for each in house.config.listeners):
        raise NotTakenError(replies.TOO_BIG, "content")
    if not (house.queue.healthy and house.queue.room()):
        raise NotTakenError(replies.NO_ROOM)
    asked = house.plugins.at(LISTENER)
    if asked.mail:
        _heed((await asked.on_mail(transaction)).reply, "sender")
    for number, mailbox in enumerate(submission.recipients):
        await _add(mailbox, f"recipients[{number}]", transaction, house)
    if asked.data:
        _heed((await asked.on_data(transaction)).reply, "")


async def _add(mailbox: Mailbox, place: str, transaction: Transaction, house: House) -> None:
    session = transaction.session
    found = await house.recipients.find(mailbox, client=session.address, login=session.login)
    if isinstance(found, Reply):
        raise NotTakenError(found, place)
    most = max(each.recipients for each in house.config.listeners)
    if len(transaction.recipients) >= most or (
        transaction.addressees and len(transaction.addressees) + len(found) > most
    ):
        raise NotTakenError(replies.TOO_MANY_AT_ONCE, place)
    chain, before = house.plugins.at(LISTENER), transaction.before
    if chain.rcpt:
        _heed((await chain.on_rcpt(transaction, mailbox)).reply, place)
    transaction.add(mailbox, doomed(found, transaction, mailbox, house.clock()), before)


def _heed(objection: Reply | None, place: str) -> None:
    """What plugins have against it."""
    if objection is not None:
        raise NotTakenError(objection, place, by_plugin=True)


# The content.


async def _keep(content: bytes, transaction: Transaction, house: House, handed: Handed) -> Intake:
    chain = house.plugins.at(LISTENER)
    async with Intake(transaction, house, chain, lmtp=False, refusal=None, handed=handed) as intake:
        await _read(content, intake)
        await intake.keep()
    if intake.refusal is not None:
        raise NotTakenError(intake.refusal, "content", by_plugin=intake.by_plugin)
    return intake


async def _read(content: bytes, intake: Intake) -> None:
    """Hand the content over piece by piece, and see that it is what SMTP would let through."""
    for piece in _pieces(content):
        if max(map(len, piece.split(b"\n"))) > LONGEST:
            raise NotTakenError(replies.FAULTS[Fault.LINE_TOO_LONG], "content")
        if not has_clean_lines(piece):
            raise NotTakenError(replies.FAULTS[Fault.BARE_NEWLINE], "content")
        if piece.startswith(b"\0") or b"\n\0" in piece:
            raise NotTakenError(replies.FAULTS[Fault.LEADING_NUL], "content")
        await trio.lowlevel.checkpoint()
    for piece in _pieces(content):
        await intake.take(piece)
        await trio.lowlevel.checkpoint()
    if not content.endswith(b"\r\n"):
        await intake.take(b"\r\n")


def _pieces(content: bytes) -> Iterator[bytes]:
    """The content, cut at the ends of lines, where there are any."""
    start, size = 0, len(content)
    while start < size:
        end = size if size - start <= PIECE else content.rfind(b"\n", start, start + PIECE) + 1
        yield content[start : (end := end or start + PIECE)]
        start = end


async def _digest(submission: Submission) -> bytes:
    """What tells one submission from another: all that is handed in but who does it."""
    told = msgspec.msgpack.encode(
        (
            submission.sender,
            submission.recipients,
            submission.priority,
            submission.tags,
            submission.due,
        )
    )
    found = hashlib.sha256(len(told).to_bytes(8, "big") + told)
    for piece in _pieces(submission.content):
        found.update(piece)
        await trio.lowlevel.checkpoint()
    return found.digest()
