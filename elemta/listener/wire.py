"""The protocol engine, spoken to through a transport: one place that reads, one that writes.

Replies gather until the engine needs more octets, so that a group of pipelined commands costs one
write (RFC 2920 §3.2). Nothing follows half a reply.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio

from elemta.listener.roster import DrainedError
from elemta.net.tls import serve_tls
from elemta.protocol import (
    ChunkEnd,
    Closed,
    Content,
    ContentEnd,
    Event,
    Refused,
    ServerConnection,
    State,
    Wait,
    mask_challenges,
)

if TYPE_CHECKING:
    from elemta.config import Listener
    from elemta.listener.reception import Reception
    from elemta.net.dialogues import Dialogue
    from elemta.net.tls import Encryption
    from elemta.net.transport import Transport
    from elemta.protocol import Reply

#: Seconds that a last word may take: a peer that does not read must not hold up a shutdown.
GOODBYE: Final = 5.0
#: Seconds that a handshake may take.
HANDSHAKE: Final = 60.0
#: Seconds that a client may think once most places are taken (as with Postfix's `stress`).
HURRIED: Final = 10.0


class Wire:
    """One client's end of the line. Belongs to one session, and to its task.

    Args:
        transport: the client.
        reception: what all sessions of this listener share.
        dialogue: where it is written down what both sides say.

    Attributes:
        smtp: the engine. It knows where the conversation stands; nothing here says it again.
    """

    def __init__(self, transport: Transport, reception: Reception, dialogue: Dialogue) -> None:
        self.smtp = ServerConnection(reception.limits, reception.offer, lmtp=reception.lmtp)
        self._reception = reception
        self._reaper = reception.house.reaper
        self._transport = transport
        self._roster = reception.house.roster
        self._table = reception.table
        self._unsent: list[bytes] = []
        self._writable = True
        #: As `trio.current_time`, without the way to it, which takes longer than the clock.
        self._now = trio.lowlevel.current_clock().current_time
        self._opened = self._now()
        #: When the content began to come in, and how much came; for `Listener.data_rate`.
        self._content_began = 0.0
        self._content_size = 0
        self._said = dialogue.said
        #: Octets of content that are to be written down as one remark.
        self._unmentioned = 0

    def open(self) -> None:
        """Have somebody look at its deadline; `close` it."""
        self._reaper.watch(self._transport)

    def close(self) -> None:
        """Close the transport, and have nobody look at it any more."""
        self._transport.close()
        self._reaper.forget(self._transport)

    async def encrypt(self, *, greeted: bool) -> Encryption:
        """Go on in TLS, with an engine that knows nothing of what was said in clear.

        RFC 3207 §4.2.

        What the client has sent in clear and nobody has read yet is taken for a part of the
        handshake, which then fails: no octet of it comes to the new engine.

        Args:
            greeted: this is after STARTTLS; else the greeting is still to come.

        Raises:
            TlsError: the two find no common ground.
            DrainedError, trio.TooSlowError, trio.BrokenResourceError: as `next_event`.
        """
        reception, below = self._reception, self._transport
        below.deadline = self._now() + (HURRIED if self._roster.busy else HANDSHAKE)
        await self.flush()
        self._writable = False  # a goodbye in clear would be no part of a handshake
        shown = reception.house.certificates.shown(reception.table.client_certificates)
        above, encryption = await serve_tls(below, shown)
        self._reaper.forget(below)
        self._transport = above
        self._reaper.watch(above)
        self._writable = True
        self._opened = self._now()
        self.smtp = ServerConnection(
            reception.limits, reception.offer_to(encryption), lmtp=reception.lmtp, greeted=greeted
        )
        return encryption

    def spoke_first(self) -> bool:
        """Whether the client has said something already; does not wait for it to.

        Raises:
            trio.BrokenResourceError: it has left already.
        """
        self._opened = self._now()  # plugins may have taken their time before
        octets = self._transport.receive_nowait()
        if octets == b"":
            raise trio.BrokenResourceError("the client did not wait to be greeted")
        return octets is not None

    async def next_event(self) -> Event:
        """What the client does next, having told it all that we have to tell.

        Raises:
            DrainedError: we are shutting down, and the client is in the middle of nothing.
            trio.TooSlowError: the client took too long.
            trio.BrokenResourceError: it is gone.
        """
        smtp = self.smtp
        event = smtp.next_event()
        if isinstance(event, Wait):
            transport = self._transport
            # One deadline for the whole command: who sends an octet now and then is slow all the
            # same. It ends nothing but our waiting for the client: what plugins and disks take is
            # our time.
            transport.deadline = self._deadline()
            while isinstance(event, Wait):
                assert event is Wait.FOR_DATA, "a handler forgot to reply"
                if self._roster.draining and not smtp.in_transaction:
                    raise DrainedError
                if self._unsent:
                    await self.flush()
                octets = await transport.receive()
                self._content_size += len(octets)
                if octets:
                    smtp.receive_data(octets)
                else:
                    smtp.receive_eof()
                event = smtp.next_event()
        if (line := smtp.line) is not None:
            self._said("C", line)
        else:
            self._mention(event)
        return event

    def reply(self, answer: Reply) -> None:
        """Answer the last event; what is said waits for others, and for `next_event` or `flush`."""
        octets = self.smtp.send(answer)
        self._unsent.append(octets)
        self._said("S", mask_challenges(octets) if answer.code == 334 else octets)

    async def flush(self) -> None:
        """Write what is unsaid.

        Raises:
            trio.TooSlowError: the client did not read it in time.
            trio.BrokenResourceError: it is gone.
        """
        if not self._unsent:
            return
        octets = self._unsent[0] if len(self._unsent) == 1 else b"".join(self._unsent)
        self._unsent.clear()
        self._writable = False  # until all of it is out
        await self._transport.send_all(octets)
        self._writable = True

    async def finish(self) -> None:
        """Write what is unsaid at the end of the conversation, for which there is not much time.

        Raises:
            trio.TooSlowError, trio.BrokenResourceError: see `flush`.
        """
        self._transport.deadline = self._now() + GOODBYE
        await self.flush()

    async def say_goodbye(self, goodbye: Reply) -> None:
        """Say what is unsaid and then `goodbye`, whoever's turn it is, if that is any use."""
        if not self._writable:
            return
        octets = bytes(goodbye)
        self._unsent.append(octets)
        self._said("S", octets)
        self._transport.deadline = math.inf
        with trio.move_on_after(GOODBYE, shield=True):
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError, DrainedError):
                await self.flush()

    def content_begins(self) -> None:
        """Note that the octets of a message are expected from here on."""
        self._content_began = self._now()
        self._content_size = 0

    @property
    def received(self) -> int:
        """Octets of the message that is coming in, so far."""
        state = self.smtp.state
        return self._content_size if state is State.DATA or state is State.CHUNK else 0

    def _mention(self, event: Event) -> None:
        """Write down what is no line."""
        match event:
            case Content(octets=octets):
                self._unmentioned += len(octets)
            case ContentEnd() | ChunkEnd():
                self._said("C", f"{self._unmentioned} octets of content")
                self._unmentioned = 0
            case Refused(hostile=hostile):
                self._said("C", "no SMTP" if hostile else "a line that is too long")
            case Closed() if self.smtp.state is not State.CLOSED:
                self._said("C", "hung up")
            case _:
                pass

    def hurry(self) -> None:
        """See `elemta.listener.roster.Guest`."""
        if self._transport.waiting and not self.smtp.in_transaction:
            hurried = self._now() + HURRIED
            self._transport.deadline = min(self._transport.deadline, hurried)

    def drain(self) -> None:
        """See `elemta.listener.roster.Guest`."""
        if self._transport.waiting and not self.smtp.in_transaction:
            self._transport.interrupt(DrainedError())

    def _deadline(self) -> float:
        """Until when the client may take over what comes next, in `trio.current_time`."""
        now, state, table = self._now(), self.smtp.state, self._table
        if self._roster.busy:
            return self._hurried_deadline(now, state, table)
        # `is` thrice: to look an enum member up in a set costs more than all the rest of this.
        if state is State.DATA or state is State.CHUNK:
            return now + table.data_timeout
        if state is State.START:
            return self._opened + table.hello_timeout
        return now + table.idle_timeout

    def _hurried_deadline(self, now: float, state: State, table: Listener) -> float:
        if state is State.DATA or state is State.CHUNK:
            earned = table.data_timeout + self._content_size / table.data_rate
            return min(now + table.data_timeout, self._content_began + earned)
        if state is State.START:
            return self._opened + min(table.hello_timeout, HURRIED)
        return now + min(table.idle_timeout, HURRIED)
