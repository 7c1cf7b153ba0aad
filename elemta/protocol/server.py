"""The server's side of one SMTP or LMTP conversation (RFC 5321, RFC 2033)."""

from __future__ import annotations

from collections import deque
from typing import Final

from msgspec import Struct

from elemta.protocol import grammar
from elemta.protocol.errors import LocalProtocolError
from elemta.protocol.events import (
    Auth,
    AuthResponse,
    Chunk,
    ChunkEnd,
    Closed,
    Command,
    Content,
    ContentEnd,
    Data,
    Event,
    Hello,
    Help,
    Mail,
    Noop,
    Quit,
    Rcpt,
    Refused,
    Reset,
    StartTls,
    Verify,
    Wait,
)
from elemta.protocol.framing import BareNewline, Checks, Counted, Dots, Fault, Lines
from elemta.protocol.masking import MASK, is_login, mask_login
from elemta.protocol.offer import Offer, announcement
from elemta.protocol.reply import Reply, reply
from elemta.protocol.sasl import decode_base64
from elemta.protocol.states import IN_TRANSACTION, State, Verb, after, legal

BAD_SEQUENCE: Final = reply(503, 5, 1, "bad sequence of commands")
LINE_TOO_LONG: Final = reply(500, 5, 2, "line too long")
LOGIN_TOO_LONG: Final = reply(500, 5, 6, "authentication exchange line is too long")
OUT_OF_STEP: Final = reply(554, 5, 0, "protocol synchronization error")

_VERBS: Final[dict[type[Event], Verb]] = {
    Hello: Verb.HELLO,
    Mail: Verb.MAIL,
    Rcpt: Verb.RCPT,
    Data: Verb.DATA,
    Chunk: Verb.BDAT,
    StartTls: Verb.STARTTLS,
    Auth: Verb.AUTH,
    Verify: Verb.VRFY,
    Help: Verb.HELP,
    Reset: Verb.RSET,
    Noop: Verb.NOOP,
    Quit: Verb.QUIT,
    Refused: Verb.NONSENSE,
    AuthResponse: Verb.RESPONSE,
    ChunkEnd: Verb.END_OF_CHUNK,
    ContentEnd: Verb.END_OF_DATA,
}


class Limits(Struct, frozen=True, kw_only=True):
    """What one conversation may cost us, and how strictly it is read.

    Attributes:
        command_line: octets of a command line, CRLF included (RFC 5321 §4.5.3.1.4: at least 512,
            and more for the parameters of extensions).
        login_line: octets of a line of an AUTH exchange, CRLF included (RFC 4954 §4: at least
            12288).
        message: octets of one message, after unstuffing.
        text_line: octets of a line of content, CRLF included (RFC 5321 §4.5.3.1.6: at least 1000).
        bare_newline: what becomes of a bare CR or LF in content.
        strict_pipelining: refuse what is pipelined behind EHLO, too. No harm can come of it, and
            simple clients do so.
    """

    command_line: int = 2048
    login_line: int = 12288
    message: int = 50 * 2**20
    text_line: int = 1000
    bare_newline: BareNewline = BareNewline.REJECT
    strict_pipelining: bool = False


_LIMITS: Final = Limits()
_OFFER: Final = Offer()
#: Stands where those of a message will be: most connections make them once, some never.
_NO_CHECKS: Final = Checks(0)


class ServerConnection:
    """Turns what a client sends into events, and our replies into octets.

    Strictly in turn: each event that takes a reply is followed by `Wait.FOR_REPLY` until `send`
    has been called once. A pipelining client (RFC 2920) therefore needs no special care: its
    further commands wait in the buffer, and each is judged in the state that the replies before
    it have led to.

    Read from the network only on `Wait.FOR_DATA`, and write all that `send` returned before.

    The first reply that is owed is the greeting. The end of a message under LMTP owes one reply
    for each recipient that was accepted, in their order (RFC 2033 §4.2).

    Whoever pipelines where that is dangerous is cut off, as Postfix does. Behind STARTTLS it is
    told by `StartTls.injected`; behind DATA and in an AUTH exchange by a `Refused` that is
    hostile, for if we refuse the command, what follows it was never meant as commands: somebody
    else may have written it. That can only be seen of octets that are here when the command is
    read; those that come later, but before our reply, are taken for content or response.

    After a 220 to STARTTLS the object is spent: make a new one over the TLS stream.

    Args:
        limits: what the conversation may cost.
        offer: what EHLO announces; what is not announced is not understood either.
        lmtp: whether this is LMTP.
        greeted: the conversation goes on in TLS after STARTTLS: there is no second greeting, and
            the client begins anew with EHLO (RFC 3207 §4.2).

    Attributes:
        line: what the client said that made the last event, for people to read: a command or an
            answer to a challenge, its CRLF gone and what may be a secret masked. None where that
            was content or its end, or nothing that a line could be told of.
    """

    def __init__(
        self,
        limits: Limits = _LIMITS,
        offer: Offer = _OFFER,
        *,
        lmtp: bool = False,
        greeted: bool = False,
    ) -> None:
        self.line: bytes | None = None
        self._limits = limits
        self._offer = offer
        self._lmtp = lmtp
        self._state = State.START if greeted else State.GREETING
        self._lines = Lines()
        self._eof = False
        # What the next reply answers, how many replies it takes, whether it can only be refused,
        # and whether the conversation ends with it.
        self._owed: Verb | None = None if greeted else Verb.CONNECT
        self._replies = 1
        self._must_refuse = False
        self._final = False
        # The message that is coming in: by DATA or by BDAT, never by both.
        self._checks = _NO_CHECKS
        self._dots: Dots | None = None
        self._chunk: Counted | None = None
        self._ready: deque[Content | ContentEnd] = deque()
        # A chunk that nobody wants: octets still to be thrown away, and what is said then.
        self._unwanted = 0
        self._refusal: Refused | None = None
        # What was said and is still of interest.
        self._hello: Hello | None = None
        self._smtputf8 = False
        self._recipients = 0
        self._logged_in = False
        # AUTH was refused: who does not notice goes on to say what it was to say next.
        self._indiscreet = False

    @property
    def state(self) -> State:
        """Where the conversation stands."""
        return self._state

    @property
    def in_transaction(self) -> bool:
        """Whether a message is on its way in, from MAIL to the reply to its end."""
        return self._state in IN_TRANSACTION

    @property
    def replies_owed(self) -> int:
        """How many replies the last event still waits for: 0, 1, or more under LMTP."""
        return 0 if self._owed is None else self._replies

    @property
    def has_buffered(self) -> bool:
        """Whether the client has said something that no event has told yet.

        Before the greeting it means that the client did not wait for it.
        """
        return bool(self._lines or self._ready)

    def receive_data(self, octets: bytes) -> None:
        """Take what the peer sent; `next_event` makes sense of it.

        After the conversation is over it is thrown away.

        Raises:
            LocalProtocolError: after `receive_eof`, or after a 220 to STARTTLS.
        """
        if self._eof:
            raise LocalProtocolError("data after the end of the stream")
        if self._state is State.TLS:
            raise LocalProtocolError("this connection object ended with STARTTLS")
        if self._dots is not None:
            self._unstuff(self._dots, octets)
        elif self._state is not State.CLOSED:
            self._lines.feed(octets)

    def receive_eof(self) -> None:
        """Note that the peer will send no more."""
        self._eof = True

    def next_event(self) -> Event | Wait:
        """The next thing that happened, or why there is none.

        Never raises: whatever the peer sends is some event.
        """
        if self._state is State.CLOSED or self._state is State.TLS:
            self.line = None
            return Closed()
        if self._owed is not None:
            return Wait.FOR_REPLY
        self.line = None
        event: Event | None
        if self._ready:
            event = self._ready.popleft()
        elif self._chunk is not None:
            event = self._next_of_chunk(self._chunk)
        elif self._dots is not None:
            event = None
        else:
            event = self._next_line()
        if event is None:
            return Closed() if self._eof else Wait.FOR_DATA
        if not isinstance(event, (Content, Chunk)):
            self._owe(event)
        return event

    def send(self, reply: Reply) -> bytes:
        """Answer the last event.

        Returns:
            The octets to write.

        Raises:
            LocalProtocolError: nothing waits for a reply, or this one cannot be its answer: a 3xx
                to anything but DATA and AUTH, a 2xx to DATA, or either to what must be refused; or
                a line is too long. The event still waits then.
        """
        verb, code = self._owed, reply.code
        if verb is None:
            raise LocalProtocolError(f"{code} answers nothing")
        state = after(self._state, verb, code)
        if state is None or (self._must_refuse and code < 400):
            raise LocalProtocolError(f"{code} cannot answer {verb.name}")
        if reply.status is not None and not self._offer.enhanced_status_codes:
            reply = Reply(code, None, reply.lines)
        octets = bytes(reply)
        if self._final:
            state = State.CLOSED
        if self._replies > 1 and state is not State.CLOSED:
            self._replies -= 1
        else:
            self._advance(verb, state, good=code < 300)
        return octets

    def hello_reply(self, hostname: str) -> Reply:
        """The reply to the `Hello` just received: our name, and the offer unless it was HELO.

        Raises:
            LocalProtocolError: there was none.
        """
        if self._hello is None:
            raise LocalProtocolError("nobody said hello")
        if not self._hello.extended:
            return Reply(250, None, (hostname,))
        return announcement(hostname, self._offer, self._limits.message)

    def _new_checks(self) -> Checks:
        limits = self._limits
        return Checks(limits.message, limits.text_line, limits.bare_newline)

    def _owe(self, event: Event) -> None:
        """Note what the next reply answers."""
        self._owed = _VERBS[type(event)]
        match event:
            case Mail(params=params):
                self._smtputf8 = params.smtputf8
                self._recipients = 0
            case Hello():
                self._hello = event
            case ContentEnd(fault=fault):
                self._must_refuse = fault is not None
                self._replies = self._recipients if self._lmtp else 1
            case ChunkEnd(fault=fault):
                self._must_refuse = fault is not None
            case StartTls(injected=True):
                self._must_refuse = self._final = True
            case Refused(hostile=hostile):
                self._final = hostile
            case _:
                pass

    def _advance(self, verb: Verb, state: State, *, good: bool) -> None:
        """The last event is answered; `good` is a 2xx."""
        self._owed = None
        self._must_refuse = False
        self._state = state
        if verb is Verb.DATA and state is State.DATA:
            self._checks = self._new_checks()
            self._dots = Dots(self._checks)
            if self._lines:  # came after the command, and before our reply
                self._unstuff(self._dots, self._lines.take())
        elif good and verb is Verb.RCPT:
            self._recipients += 1
        elif good and (verb is Verb.AUTH or verb is Verb.RESPONSE):
            self._logged_in = True

    def _unstuff(self, dots: Dots, octets: bytes) -> None:
        content, rest = dots.feed(octets)
        if content:
            self._ready.append(Content(content))
        if rest is not None:
            self._ready.append(ContentEnd(self._checks.fault))
            self._dots = None
            self._lines.feed(rest)

    def _next_of_chunk(self, chunk: Counted) -> Content | ChunkEnd | ContentEnd | None:
        if not chunk.whole:
            content = chunk.feed(self._lines.take(chunk.wanted))
            if content:
                return Content(content)
            if not chunk.whole:
                return None
        self._chunk = None
        fault = self._checks.fault
        return ContentEnd(fault) if chunk.last else ChunkEnd(fault)

    def _next_line(self) -> Event | None:
        if self._refusal is not None:
            return self._skip(self._refusal)
        if self._state is State.LOGIN:
            return self._next_response()
        lines, limits = self._lines, self._limits
        if not lines:
            return None
        most = limits.command_line
        if len(lines) > most and self._offer.mechanisms and lines.starts_with(b"AUTH "):
            most = limits.login_line
        line = lines.next_line(most)
        if line is None:
            if lines.starts_with(grammar.TLS_HELLO):  # which may have no line end at all
                return Refused(b"", grammar.NOT_SMTP, hostile=True)
            return None
        if isinstance(line, Fault):
            return Refused(b"", LINE_TOO_LONG)
        return self._command(line)

    def _next_response(self) -> AuthResponse | Refused | None:
        line = self._lines.next_line(self._limits.login_line)
        if line is None:
            return None
        self.line = MASK
        if self._lines:
            return Refused(b"", OUT_OF_STEP, hostile=True)
        if isinstance(line, Fault):
            return Refused(b"", LOGIN_TOO_LONG)
        if line == b"*":
            self.line = line
            return AuthResponse(None)
        response = decode_base64(line)
        return Refused(b"", grammar.BAD_BASE64) if response is None else AuthResponse(response)

    def _command(self, line: bytes) -> Event | None:
        parsed = grammar.parse(line, self._offer, lmtp=self._lmtp, smtputf8=self._smtputf8)
        if isinstance(parsed, (Reply, grammar.Hostile, Auth)):
            self.line = line = self._masked(line)
        else:
            self.line = line
            self._indiscreet = False
        if isinstance(parsed, Reply):
            return _refused(line, parsed)
        if isinstance(parsed, grammar.Hostile):
            return _refused(line, parsed.reply, hostile=True)
        if isinstance(parsed, Chunk):
            return self._begin_chunk(line, parsed)
        if self._lines and self._out_of_step(parsed):
            return _refused(line, OUT_OF_STEP, hostile=True)
        if not legal(self._state, _VERBS[type(parsed)]):
            return _refused(line, BAD_SEQUENCE)
        if isinstance(parsed, Auth) and self._logged_in:
            return _refused(line, BAD_SEQUENCE)
        if isinstance(parsed, StartTls) and self._lines:
            return StartTls(injected=True)
        return parsed

    def _masked(self, line: bytes) -> bytes:
        """A line of AUTH, or one that makes no sense, without what may be a secret."""
        if is_login(line):
            self._indiscreet = True
            return mask_login(line)
        return MASK if self._indiscreet else line

    def _out_of_step(self, command: Command) -> bool:
        """Whether nothing may stand behind this command: it has to be waited for."""
        if isinstance(command, Hello):
            return self._limits.strict_pipelining
        return isinstance(command, (Data, Auth))

    def _begin_chunk(self, line: bytes, chunk: Chunk) -> Event | None:
        if not self._offer.chunking:
            refused = Refused(line, grammar.NOT_IMPLEMENTED)
        elif not legal(self._state, Verb.BDAT):
            refused = Refused(line, BAD_SEQUENCE)
        else:
            if self._state is State.RCPT:
                self._checks = self._new_checks()
            self._chunk = Counted(self._checks, chunk.size, last=chunk.last)
            self._state = after(self._state, Verb.BDAT, 250) or self._state
            return chunk
        # Its octets are no commands, though nobody wants them (RFC 3030 §2).
        self._unwanted, self._refusal = chunk.size, refused
        return self._skip(refused)

    def _skip(self, refused: Refused) -> Refused | None:
        self._unwanted -= len(self._lines.take(self._unwanted))
        if self._unwanted:
            return None
        self._refusal = None
        self.line = refused.line or None
        return refused


def _refused(line: bytes, reply: Reply, *, hostile: bool = False) -> Refused:
    # A line of AUTH may carry a password, and is kept out of logs.
    return Refused(b"" if line == MASK or is_login(line) else line, reply, hostile)
