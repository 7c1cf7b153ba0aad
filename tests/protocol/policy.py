"""The smallest server there can be around the engine: it says yes, and notes what happened."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elemta.protocol import (
    Auth,
    AuthResponse,
    Chunk,
    Closed,
    Content,
    ContentEnd,
    Data,
    Event,
    Fault,
    Hello,
    Limits,
    Offer,
    Quit,
    Refused,
    Reply,
    ServerConnection,
    StartTls,
    Wait,
    challenge,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

OK = Reply(250, (0, 0), ("OK",))
FAULTS = {
    Fault.BARE_NEWLINE: Reply(550, (5, 2), ("bare newline",)),
    Fault.LEADING_NUL: Reply(550, (5, 2), ("leading NUL",)),
    Fault.LINE_TOO_LONG: Reply(500, (5, 2), ("line too long",)),
    Fault.TOO_BIG: Reply(552, (3, 4), ("too big",)),
}


class Server:
    """Answers each event as a friendly server would, unless told otherwise.

    Attributes:
        events: what happened, content put together.
        messages: whole ones that were accepted.
        otherwise: replies by type of event, the next one first.
    """

    def __init__(
        self, offer: Offer | None = None, limits: Limits | None = None, *, lmtp: bool = False
    ) -> None:
        self.smtp = ServerConnection(limits or Limits(), offer or Offer(), lmtp=lmtp)
        self.events: list[Event] = []
        self.messages: list[bytes] = []
        self.otherwise: dict[type[Event], list[Reply]] = {}
        self._content = b""
        self.smtp.send(Reply(220, None, ("mx.example ESMTP",)))

    def says(self, octets: bytes | str) -> list[str]:
        """What the server answers to this."""
        self.smtp.receive_data(octets if isinstance(octets, bytes) else octets.encode())
        return self.answers()

    def answers(self) -> list[str]:
        unsent = b""
        while not isinstance(event := self.smtp.next_event(), Wait):
            self.events.append(event)
            if isinstance(event, Closed):
                break
            unsent += self._answer(event)
        return unsent.decode().split("\r\n")[:-1]

    def _answer(self, event: Event) -> bytes:
        if isinstance(event, Content):
            self._content += event.octets
        if isinstance(event, Content | Chunk):
            return b""
        if isinstance(event, ContentEnd):
            if event.fault is None:
                self.messages.append(self._content)
            self._content = b""
        replies = self.otherwise.get(type(event), [])
        unsent = b""
        while self.smtp.replies_owed:
            unsent += self.smtp.send(replies.pop(0) if replies else self._usual(event))
        return unsent

    def _usual(self, event: Event) -> Reply:
        match event:
            case Hello():
                return self.smtp.hello_reply("mx.example")
            case Data():
                return Reply(354, None, ("go ahead",))
            case StartTls(injected=False):
                return Reply(220, (0, 0), ("go ahead",))
            case StartTls():
                return Reply(554, (5, 0), ("injected",))
            case Quit():
                return Reply(221, (0, 0), ("bye",))
            case Auth(initial=None):
                return challenge(b"Username:")
            case Auth() | AuthResponse(bytes()):
                return Reply(235, (7, 0), ("welcome",))
            case AuthResponse():
                return Reply(501, (0, 0), ("cancelled",))
            case Refused(reply=reply):
                return reply
            case _:
                fault = getattr(event, "fault", None)
                return FAULTS[fault] if fault else OK


def codes(answers: Iterable[str]) -> list[str]:
    """Code and enhanced code of each reply line."""
    return [" ".join(answer.split(" ")[:2]) for answer in answers]
