"""One message while it comes in: in memory as long as it is small, then on its way to the disk."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final, Self

from msgspec import Struct

from elemta.listener import replies
from elemta.listener.completion import complete
from elemta.listener.content import Arrived, Finished
from elemta.listener.judgement import addressees, holder, notes
from elemta.listener.precedence import precedence
from elemta.log import logger
from elemta.message import MAX_HOPS, HeaderFault, HeaderScanner, received
from elemta.plugins import Discard, rewritten
from elemta.queue import Envelope, Origin, StoreUnavailable

if TYPE_CHECKING:
    from types import TracebackType

    from elemta.listener.ownership import Ownership
    from elemta.listener.reception import House, Incoming
    from elemta.plugins import Chain, Content, Transaction
    from elemta.protocol import Reply

log = logger(__name__)

HEADER_FAULTS: Final = {
    HeaderFault.TOO_LONG: replies.HEADER_TOO_BIG,
    HeaderFault.TOO_MANY_LINES: replies.HEADER_TOO_BIG,
}

#: Octets up to which a message is handed to the queue in one piece; larger ones are streamed.
SMALL: Final = 256 * 1024


class Handed(Struct, frozen=True, kw_only=True):
    """What is to be said of a message beside what its client says by SMTP.

    Attributes:
        protocol: the WITH word of its Received field; empty: what its session speaks.
        due, key, digest: as the queue has them.
    """

    protocol: str = ""
    due: float | None = None
    key: str = ""
    digest: bytes = b""


_SPOKEN: Final = Handed()


class Intake:
    """Takes the pieces of one message, and hands it to the queue.

    What went wrong is told by `refusal`, never raised: a message that nobody wants must still be
    read to its end. Leaving the ``async with`` without `keep` leaves no trace of the message.

    Attributes:
        refusal: what the client will be told at the end of the message; None as long as we would
            take it.
        by_plugin: a plugin's verdict is that refusal.
        size: octets that came in.
        id: of the message; once it is kept, of the one that was handed in first with its key.
    """

    __slots__ = (
        *("_chain", "_handed", "_house", "_incoming", "_on_disk", "_ownership", "_pieces"),
        *("_protocol", "_scanner", "_seen", "_share", "_trace", "_transaction"),
        *("by_plugin", "id", "refusal", "size"),
    )

    def __init__(
        self,
        transaction: Transaction,
        house: House,
        chain: Chain,
        *,
        lmtp: bool,
        refusal: Reply | None,
        handed: Handed = _SPOKEN,
        ownership: Ownership | None = None,
    ) -> None:
        self.refusal = refusal
        self.by_plugin = refusal is not None
        self.size = 0
        self.id = transaction.id
        self._handed = handed
        self._ownership = ownership
        self._transaction = transaction
        self._house = house
        self._chain = chain
        self._scanner = HeaderScanner()
        self._protocol = handed.protocol or _protocol(transaction, lmtp=lmtp)
        self._trace = self._received()
        self._pieces: list[bytes] = []
        self._seen = False  # the header was here, and looked at
        self._share = house.budget.share()
        self._incoming: Incoming | None = None
        self._on_disk: AsyncExitStack | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._share.give_back()
        if self._on_disk is not None:
            await self._on_disk.__aexit__(kind, error, trace)

    async def take(self, octets: bytes) -> None:
        """Take the next piece."""
        self.size += len(octets)
        if self.refusal is not None:
            return
        body = octets if self._scanner.done else await self._take_header(octets)
        if body and self._chain.body:
            objection = (await self._chain.on_body(self._transaction, body)).reply
            if objection is not None:
                self._give_up(objection, by_plugin=True)
        if self.refusal is None:
            await self._hold(octets)

    async def _take_header(self, octets: bytes) -> bytes:
        """Look for the end of the header; plugins are asked when it is here.

        What is wrong with it is known as soon as it is found.

        Returns:
            What of the piece is behind the empty line.
        """
        scanner = self._scanner
        scanner.feed(octets)
        if scanner.done:
            if (fault := self._fault()) is not None:
                self._give_up(fault)
            elif (refusal := await self._submit()) is not None:
                self._give_up(refusal)
            elif (objection := await self._judge_header()) is not None:
                self._give_up(objection, by_plugin=True)
            else:
                return octets[max(0, len(scanner.header) + 2 - self.size + len(octets)) :]
        return b""

    async def _submit(self) -> Reply | None:
        """Complete what is submitted, for all who are asked from here on.

        Returns:
            What we have against who it says it is of.
        """
        self._seen = True
        transaction, scanner, house = self._transaction, self._scanner, self._house
        if self._ownership is not None:
            refusal = await self._ownership.judge_authors(transaction.session, scanner)
            if refusal is not None:
                return refusal
        if transaction.session.submission:
            complete(transaction, scanner, hostname=house.config.hostname, now=house.clock())
        return None

    async def _judge_header(self) -> Reply | None:
        if not self._chain.header:
            return None
        return (await self._chain.on_header(self._transaction, self._scanner)).reply

    async def _hold(self, octets: bytes) -> None:
        """Keep a piece, in memory or on the disk."""
        if self._incoming is not None:
            await self._write(self._incoming, octets)
        elif self._share.grow(len(octets)) or await self._share.wait(len(octets)):
            self._pieces.append(octets)
            if self.size > SMALL:
                await self._spill()
        else:
            log.warning("memory.full", message=self._transaction.id)
            self._give_up(replies.NO_ROOM)

    async def keep(self) -> None:
        """Hand the message, whole by now, to the queue. It is ours unless there is a `refusal`."""
        if self.refusal is None and (fault := self._fault()) is not None:
            self._give_up(fault)
        alone = not self._seen  # it is nothing but a header
        if alone and self.refusal is None and (refusal := await self._submit()) is not None:
            self._give_up(refusal)
        if self.refusal is None and (objection := await self._judge(alone=alone)) is not None:
            self._give_up(objection, by_plugin=True)
        if self.refusal is None and self._chain.sign and (objection := await self._sign()):
            self._give_up(objection, by_plugin=True)
        if self.refusal is not None:
            return
        try:
            await self._store()
        except StoreUnavailable as error:
            self._not_stored(error)

    async def _judge(self, *, alone: bool) -> Reply | None:
        """What plugins have against the message.

        Args:
            alone: they have not been asked about its header.
        """
        if alone and (objection := await self._judge_header()) is not None:
            return objection
        if not (self._chain.inspect or self._chain.message):
            return None
        return (await self._chain.on_message(self._transaction, self._arrived())).reply

    async def _sign(self) -> Reply | None:
        """Have it signed as it is by now. What plugins have against it."""
        fate = self._transaction.fate()
        if fate is not None and isinstance(fate.fate, Discard):
            return None
        arrived = self._arrived()

        def show() -> Content:
            head, former = self._head()
            return Finished(head, arrived, former, self._share)

        return (await self._chain.on_sign(self._transaction, show)).reply

    def _arrived(self) -> Arrived:
        return Arrived(
            self._scanner, self.size, self._pieces, self._incoming, len(self._trace), self._share
        )

    def _head(self) -> tuple[bytes, int]:
        """All that stands before the empty line by now, and how much of it the client sent."""
        header = self._scanner.header
        changes = [each.change for each in self._transaction.made]
        utf8 = self._transaction.params.smtputf8
        return rewritten(header, changes, self._trace, utf8=utf8), len(header)

    async def _store(self) -> None:
        envelope, key, digest = self._envelope(), self._handed.key, self._handed.digest
        former, head = len(self._trace), self._trace
        if self._transaction.fields_changed:
            head, replaced = self._head()
            former += replaced
        if self._incoming is not None:
            if self._transaction.fields_changed:
                await self._incoming.replace_head(former, head)
            self.id = await self._incoming.commit(envelope, key=key, digest=digest)
            return
        content, queue = b"".join([head, *self._pieces]), self._house.queue
        if self._transaction.fields_changed:
            content = head + b"".join(self._pieces)[former - len(self._trace) :]
        self.id = await queue.accept(envelope, content, self.id, key=key, digest=digest)

    def tell(self) -> None:
        """Count the message, and say in the log that it is ours. Once it is kept, if it is new."""
        transaction, session = self._transaction, self._transaction.session
        self._house.meters.octets.observe(self.size)
        log.info(
            "message.received",
            id=transaction.id,
            session=session.id,
            listener=session.listener,
            client=session.address,
            helo=session.helo,
            **({} if session.login is None else {"login": session.login}),
            sender=str(transaction.sender or ""),
            recipients=len(transaction.addressees),
            size=self.size,
        )

    async def _spill(self) -> None:
        """From memory to the disk: the message is not small."""
        content = b"".join([self._trace, *self._pieces])
        self._pieces.clear()
        self._on_disk = AsyncExitStack()
        try:
            self._incoming = incoming = await self._on_disk.enter_async_context(
                self._house.queue.receive(self._envelope(), id=self._transaction.id)
            )
        except StoreUnavailable as error:
            self._not_stored(error)
            return
        # The share is kept: so much is gathered again before each write to the disk.
        await self._write(incoming, content)

    async def _write(self, incoming: Incoming, octets: bytes) -> None:
        try:
            await incoming.write(octets)
        except StoreUnavailable as error:
            self._not_stored(error)

    def _not_stored(self, error: StoreUnavailable) -> None:
        log.error("message.not_stored", message=self._transaction.id, error=str(error))
        self._give_up(replies.NOT_STORED if self._house.queue.room() else replies.NO_ROOM)

    def _give_up(self, refusal: Reply, *, by_plugin: bool = False) -> None:
        self.refusal, self.by_plugin = refusal, by_plugin
        self._pieces.clear()
        self._share.give_back()

    def _fault(self) -> Reply | None:
        """What is wrong with the header, if anything is."""
        if self._scanner.fault is not None:
            return HEADER_FAULTS[self._scanner.fault]
        return replies.GOING_ROUND if self._scanner.hops > MAX_HOPS else None

    def _envelope(self) -> Envelope:
        transaction = self._transaction
        session = transaction.session
        params, priority = precedence(transaction, self._scanner)
        now = self._house.clock()
        return Envelope(
            sender=transaction.sender,
            params=params,
            recipients=addressees(transaction),
            origin=Origin(
                address=session.address,
                helo=session.helo,
                session=session.id,
                listener=session.listener,
                protocol=self._protocol,
                login=session.login or "",
            ),
            hops=self._scanner.hops,
            priority=priority,
            tags=transaction.tags,
            holder=holder(transaction, now),
            due=self._handed.due,
            notes=notes(transaction, now),
        )

    def _received(self) -> bytes:
        """What stands above all that the client sent (RFC 5321 §4.4)."""
        transaction = self._transaction
        session, recipients = transaction.session, transaction.recipients
        encryption = session.encryption
        return received(
            helo=session.helo,
            address=session.address,
            rdns=None,
            by=self._house.config.hostname,
            protocol=self._protocol,
            id=transaction.id,
            # Of several, none may learn of the others (RFC 5321 §7.2).
            recipient=recipients[0] if len(recipients) == 1 else None,
            tls=None if encryption is None else encryption.written,
            time=self._house.clock(),
        )


def _protocol(transaction: Transaction, *, lmtp: bool) -> str:
    """The WITH word of the Received field (RFC 3848, RFC 6531 §4.3)."""
    session = transaction.session
    if lmtp:
        word = "UTF8LMTP" if transaction.params.smtputf8 else "LMTP"
    elif not session.extended:
        return "SMTP"
    else:
        word = "UTF8SMTP" if transaction.params.smtputf8 else "ESMTP"
    if session.tls is not None:
        word += "S"
    return word if session.login is None else word + "A"
