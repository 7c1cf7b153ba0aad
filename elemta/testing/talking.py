"""A client of ours, in a test's hands."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Final, TypeAlias

import trio

from elemta.protocol import Replies, Reply, read_reply

if TYPE_CHECKING:
    from elemta.net.memory import MemoryTransport

#: A message: octets as they are; or text, whose lines may end in LF.
Mail: TypeAlias = bytes | str

#: Seconds, virtual ones, that a client waits for an answer.
PATIENCE: Final = 3600.0


class HungUpError(Exception):
    """The server has ended the conversation in place of an answer."""


class Client:
    """A conversation with the server, line by line.

    Attributes:
        greeting: what the server said first.
    """

    greeting: Reply

    def __init__(self, transport: MemoryTransport) -> None:
        self._transport = transport
        self._replies = Replies()

    async def say(self, line: str) -> Reply:
        """Say a line, without its CRLF, and hear the answer.

        Raises:
            HungUpError: there is none.
        """
        await self.write(f"{line}\r\n".encode())
        return await self.hear()

    async def log_in(self, user: str, password: str) -> Reply:
        """Say who this is (AUTH PLAIN, RFC 4616), after EHLO; the answer.

        Raises:
            HungUpError: there is none.
        """
        said = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
        return await self.say(f"AUTH PLAIN {said}")

    async def send(self, content: Mail) -> Reply:
        """Say DATA and, if we may go on, the content.

        Raises:
            HungUpError: there is no answer.
        """
        answer = await self.say("DATA")
        if answer.code != 354:
            return answer
        await self.write(re.sub(rb"(?m)^\.", b"..", octets_of(content)) + b".\r\n")
        return await self.hear()

    async def write(self, octets: bytes) -> None:
        """Send octets as they are, and wait for nothing."""
        try:
            await self._transport.send_all(octets)
        except trio.BrokenResourceError:
            raise HungUpError("the server has hung up") from None

    async def hear(self) -> Reply:
        """The next answer.

        Raises:
            HungUpError: there is none.
            trio.TooSlowError: nor does it hang up.
        """
        with trio.fail_after(PATIENCE):
            while (found := self._replies.next_reply()) is None:
                octets = await self._transport.receive()
                if not octets:
                    raise HungUpError("the server has hung up")
                self._replies.feed(octets)
        return read_reply(*found)

    def hang_up(self) -> None:
        """Leave without a word."""
        self._transport.close()


def octets_of(content: Mail) -> bytes:
    """A message as it goes over the wire, dots not stuffed: CRLF line ends, one at its end."""
    if isinstance(content, str):
        content = re.sub(r"\r?\n", "\r\n", content).encode()
    return content if content.endswith(b"\r\n") else content + b"\r\n"
