"""Saying things to one host and hearing its answers, before a deadline and on any transport.

The rules of this file:

- Whatever ends a conversation before its time is a `ConversationOverError`, with a reply that says
  what the matter was: the host's own words, if it said any.
- After that, and after any other exception, nothing more can be said: what was said and not
  answered is never said again on this connection.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Final, Self

import trio

from elemta.delivery.replies import made
from elemta.net.dialogues import unheard
from elemta.net.tls import TlsError, start_tls
from elemta.protocol import (
    MASK,
    AuthAnswer,
    Broken,
    ClientConnection,
    ClientState,
    Closed,
    Goodbye,
    Greeting,
    HelloAnswer,
    QuitAnswer,
    StartTlsAnswer,
    Wait,
    mask_challenges,
    mask_login,
)

if TYPE_CHECKING:
    from types import TracebackType

    from elemta.net.dialogues import Dialogue
    from elemta.net.transport import Transport
    from elemta.protocol import Answer, Reply

#: Seconds that `Conversation.listen` waits for what might come.
_LISTEN: Final = 0.001
#: Seconds that a deadline may come early (`Phase.lasts`).
_SLACK: Final = 1.0
#: Octets of a line without end after which it is written down as it is.
_LONG: Final = 4096


class ConversationOverError(Exception):
    """The host said goodbye, or is gone, or its words make no sense.

    Attributes:
        reply: the host's, or of our own making.
        remote: whether it is the host's own words.
    """

    def __init__(self, reply: Reply, *, remote: bool = False) -> None:
        super().__init__(str(reply))
        self.reply = reply
        self.remote = remote


class Conversation:
    """What is said and heard on one connection.

    Attributes:
        smtp: knows what may be said next, and what it means that was heard.
        over: nothing more can be said.
        secret: how the conversation is encrypted, e.g. ``TLSv1.3 TLS_AES_256_GCM_SHA384``, with
            `` verified`` behind it if the host has proved who it is; empty if it is not.
        given: octets of content since somebody set it to 0.
        phase: what we wait for, in words, should we wait in vain.

    Resource handling:
        `close` closes the transport, and ends the dialogue.

    Args:
        transport: connected, nothing said yet.
        dialogue: where it is written down what both sides say; None: nowhere.
        lmtp: speak LMTP (RFC 2033).
    """

    def __init__(
        self, transport: Transport, dialogue: Dialogue | None = None, *, lmtp: bool
    ) -> None:
        self.smtp = ClientConnection(lmtp=lmtp)
        self.over = False
        self.secret = ""
        self.given = 0
        self._transport = transport
        self._dialogue = dialogue or unheard()
        self._lmtp = lmtp
        self._unsent: list[bytes] = []
        #: How much of `_unsent` is written down already, as it is content.
        self._written = 0
        #: What the host has said of a line that has not ended yet.
        self._unended = b""
        #: Takes a command to be written with the next `flush`: a line, in BDAT with its content
        #: behind it. Called for each command: a method of ours in between would cost as much again.
        self.say: Final = self._unsent.append
        self.phase = "the greeting"

    def give(self, octets: bytes, size: int) -> None:
        """Take content that follows a 354, to be written with the next `flush`.

        Args:
            octets: with dots stuffed.
            size: without.
        """
        self.given += size
        self._unsent.append(octets)
        self._written = len(self._unsent)

    def give_end(self, octets: bytes) -> None:
        """Take the end of that content."""
        self._unsent.append(octets)
        self._written = len(self._unsent)
        self._dialogue.said("C", f"{self.given} octets of content")

    async def flush(self) -> None:
        """Write what was said."""
        if self._unsent:
            self._write_down()
            octets = b"".join(self._unsent)
            self._unsent.clear()
            await self._transport.send_all(octets)

    async def read(self) -> None:
        """Wait for something of the host's, which `ClientConnection.next_event` then knows."""
        octets = await self._transport.receive()
        if octets:
            self._write_down_of_host(octets)
            self.smtp.receive_data(octets)
        else:
            self.smtp.receive_eof()

    def _write_down(self) -> None:
        """Have it in the transcript what is to be sent, without content and secrets."""
        said = self._dialogue.said
        for piece in self._unsent[self._written :] if self._written else self._unsent:
            end = piece.find(b"\r\n")
            line = piece[:end]
            if self.smtp.state is ClientState.LOGIN and line != b"*":
                line = MASK
            said("C", mask_login(line))
            if content := len(piece) - end - 2:
                self.given += content
                said("C", f"{content} octets of content")
        self._written = 0

    def _write_down_of_host(self, octets: bytes) -> None:
        """Have it in the transcript what the host says, each line as a whole."""
        if self._unended:
            octets = self._unended + octets
            self._unended = b""
        if not octets.endswith(b"\n"):
            whole = octets.rfind(b"\n") + 1
            octets, rest = octets[:whole], octets[whole:]
            if len(rest) < _LONG:
                self._unended = rest
            else:
                octets += rest
        if octets:
            self._dialogue.said("S", mask_challenges(octets))

    async def answer(self) -> Greeting | HelloAnswer | StartTlsAnswer | AuthAnswer | QuitAnswer:
        """The answer to what was said, where that is one thing.

        Raises:
            ConversationOverError: there is none.
        """
        while isinstance(event := self.smtp.next_event(), Wait):
            await self.flush()
            await self.read()
        if isinstance(event, Greeting | HelloAnswer | StartTlsAnswer | AuthAnswer | QuitAnswer):
            return event
        raise self.ended(event)

    async def listen(self) -> None:
        """Find out whether the host has hung up while nobody spoke.

        Raises:
            ConversationOverError: it has.
        """
        with trio.move_on_after(_LISTEN):
            await self.read()
        if not isinstance(event := self.smtp.next_event(), Wait):
            raise self.ended(event)

    async def encrypt(
        self, context: ssl.SSLContext, server_name: str | None, *, greeted: bool = True
    ) -> None:
        """Go on in TLS, after a 220 to STARTTLS; nothing that was heard before counts any more.

        Args:
            context: what is demanded of the host.
            server_name: whom we want.
            greeted: false: it begins with this (RFC 8314 §3), and the greeting comes later.

        Raises:
            ConversationOverError: the handshake failed.
        """
        try:
            encrypted = await start_tls(self._transport, context, server_name=server_name)
        except TlsError as error:
            raise self.ends(made(451, 7, 5, f"the handshake failed: {error}")) from error
        self._transport = encrypted
        self.smtp = ClientConnection(lmtp=self._lmtp, greeted=greeted)
        verified = " verified" if context.verify_mode is ssl.CERT_REQUIRED else ""
        self.secret = self._dialogue.tls = f"{encrypted.version} {encrypted.cipher}{verified}"
        self._dialogue.said("C", f"encrypted: {self.secret}")

    def close(self) -> None:
        """Hang up at once; may be repeated."""
        self.over = True
        self._transport.close()
        self._dialogue.end()

    def within(self, seconds: float, phase: str) -> Phase:
        """One phase, or several one after the other (`Phase.becomes`).

        However it fails, nothing more can be said on this connection.

        Args:
            seconds: that it may take.
            phase: what is waited for in it, in words.

        Raises:
            ConversationOverError: on leaving: it took longer, or the connection is gone.
        """
        return Phase(self, seconds, phase)

    def ended(self, answer: Answer) -> ConversationOverError:
        """To raise for what ends a conversation instead of an answer to what we said."""
        if isinstance(answer, Goodbye):
            return self.ends(answer.reply, remote=True)
        if isinstance(answer, Broken):
            return self.ends(made(451, 5, 0, f"the host broke the protocol: {answer.reason}"))
        assert isinstance(answer, Closed), f"nobody asked for {answer}"
        return self.ends(made(451, 4, 2, f"the host hung up while we waited for {self.phase}"))

    def ends(self, reply: Reply, *, remote: bool = False) -> ConversationOverError:
        """To raise where the conversation cannot go on."""
        self.over = True
        if not remote:
            self._dialogue.said("C", reply.text)
        return ConversationOverError(reply, remote=remote)


class Phase:
    """A part of a conversation with a deadline; made by `Conversation.within`.

    One scope for all that is said of a message, and a class: a generator round that of
    `trio.fail_after`, for each phase anew, cost more than what is said in it.
    """

    __slots__ = ("_deadline", "_scope", "_talk")

    def __init__(self, talk: Conversation, seconds: float, phase: str) -> None:
        self._talk = talk
        self._deadline = trio.current_time() + seconds
        self._scope = trio.CancelScope(deadline=self._deadline)
        talk.phase = phase

    def __enter__(self) -> Self:
        self._scope.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        talk = self._talk
        if error is not None:
            talk.over = True
        self._scope.__exit__(kind, error, at)
        if self._scope.cancelled_caught:
            raise talk.ends(made(451, 4, 2, f"timed out waiting for {talk.phase}")) from None
        if isinstance(error, trio.BrokenResourceError | trio.ClosedResourceError):
            text = f"connection lost while waiting for {talk.phase}: {error}"
            raise talk.ends(made(451, 4, 2, text)) from error

    def lasts(self, seconds: float) -> None:
        """It may take so long from now on, or up to `_SLACK` less.

        A deadline that is moved costs as much as a command: among quick answers it stays.
        """
        deadline = trio.current_time() + seconds
        if not deadline - _SLACK < self._deadline <= deadline:
            self._scope.deadline = self._deadline = deadline

    def becomes(self, seconds: float, phase: str) -> None:
        """Something else is waited for from now on, and may take so long (`lasts`)."""
        self._talk.phase = phase
        self.lasts(seconds)
