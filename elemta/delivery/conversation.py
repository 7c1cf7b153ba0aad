"""Saying things to one host and hearing its answers, before a deadline and on any transport.

The rules of this file:

- Whatever ends a conversation before its time is a `ConversationOverError`, with a reply that says
  what the matter was: the host's own words, if it said any.
- After that, and after any other exception, nothing more can be said: what was said and not
  answered is never said again on this connection.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import trio

from elemta.delivery.replies import made
from elemta.net.tls import TlsError, start_tls
from elemta.protocol import (
    Broken,
    ClientConnection,
    Closed,
    Goodbye,
    Greeting,
    HelloAnswer,
    QuitAnswer,
    StartTlsAnswer,
    Wait,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import Generator

    from elemta.net.transport import Transport
    from elemta.protocol import Answer, Reply

#: Seconds that `Conversation.listen` waits for what might come.
_LISTEN: Final = 0.001


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
        secret: how the conversation is encrypted, e.g. ``TLSv1.3 TLS_AES_256_GCM_SHA384``; empty
            if it is not.

    Resource handling:
        `close` closes the transport.

    Args:
        transport: connected, nothing said yet.
        lmtp: speak LMTP (RFC 2033).
    """

    def __init__(self, transport: Transport, *, lmtp: bool) -> None:
        self.smtp = ClientConnection(lmtp=lmtp)
        self.over = False
        self.secret = ""
        self._transport = transport
        self._lmtp = lmtp
        self._unsent: list[bytes] = []
        #: Takes octets to be written with the next `flush`. Called for each command: a method of
        #: ours in between would cost as much again.
        self.say: Final = self._unsent.append
        #: What we wait for, should we wait in vain.
        self._phase = "the greeting"

    async def flush(self) -> None:
        """Write what was said."""
        if self._unsent:
            octets = b"".join(self._unsent)
            self._unsent.clear()
            await self._transport.send_all(octets)

    async def read(self) -> None:
        """Wait for something of the host's, which `ClientConnection.next_event` then knows."""
        octets = await self._transport.receive()
        if octets:
            self.smtp.receive_data(octets)
        else:
            self.smtp.receive_eof()

    async def answer(self) -> Greeting | HelloAnswer | StartTlsAnswer | QuitAnswer:
        """The answer to what was said, where that is one thing.

        Raises:
            ConversationOverError: there is none.
        """
        while isinstance(event := self.smtp.next_event(), Wait):
            await self.flush()
            await self.read()
        if isinstance(event, Greeting | HelloAnswer | StartTlsAnswer | QuitAnswer):
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

    async def encrypt(self, context: ssl.SSLContext, server_name: str | None) -> None:
        """Go on in TLS, after a 220 to STARTTLS; nothing that was heard before counts any more.

        Raises:
            ConversationOverError: the handshake failed.
        """
        try:
            encrypted = await start_tls(self._transport, context, server_name=server_name)
        except TlsError as error:
            raise self.ends(made(451, 7, 5, f"the handshake failed: {error}")) from error
        self._transport = encrypted
        self.smtp = ClientConnection(lmtp=self._lmtp, greeted=True)
        self.secret = f"{encrypted.version} {encrypted.cipher}"

    def close(self) -> None:
        """Hang up at once; may be repeated."""
        self.over = True
        self._transport.close()

    @contextmanager
    def within(self, seconds: float, phase: str) -> Generator[trio.CancelScope]:
        """One phase. However it fails, nothing more can be said on this connection.

        Args:
            seconds: that it may take.
            phase: what is waited for in it, in words.

        Raises:
            ConversationOverError: it took longer, or the connection is gone.
        """
        self._phase = phase
        try:
            with trio.fail_after(seconds) as scope:
                yield scope
        except trio.TooSlowError:
            raise self.ends(made(451, 4, 2, f"timed out waiting for {phase}")) from None
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            text = f"connection lost while waiting for {phase}: {error}"
            raise self.ends(made(451, 4, 2, text)) from error
        except BaseException:
            self.over = True
            raise

    def ended(self, answer: Answer) -> ConversationOverError:
        """To raise for what ends a conversation instead of an answer to what we said."""
        if isinstance(answer, Goodbye):
            return self.ends(answer.reply, remote=True)
        if isinstance(answer, Broken):
            return self.ends(made(451, 5, 0, f"the host broke the protocol: {answer.reason}"))
        assert isinstance(answer, Closed), f"nobody asked for {answer}"
        return self.ends(made(451, 4, 2, f"the host hung up while we waited for {self._phase}"))

    def ends(self, reply: Reply, *, remote: bool = False) -> ConversationOverError:
        """To raise where the conversation cannot go on."""
        self.over = True
        return ConversationOverError(reply, remote=remote)
