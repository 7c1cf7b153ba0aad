"""The client's side of one SMTP or LMTP conversation (RFC 5321, RFC 2033)."""

from __future__ import annotations

import base64
import re
from collections import deque
from typing import TYPE_CHECKING, ClassVar, Final

from elemta.protocol.client_states import CLOSING, EXACT, FOLLOWS, LEADS, TABLE, Said, Step
from elemta.protocol.client_states import ClientState as State
from elemta.protocol.errors import LocalProtocolError, RemoteProtocolError
from elemta.protocol.events import (
    Answer,
    AuthAnswer,
    Broken,
    Closed,
    ContentAnswer,
    DataAnswer,
    Extensions,
    Goodbye,
    Greeting,
    HelloAnswer,
    MailAnswer,
    MailParams,
    NoopAnswer,
    Notify,
    OriginalRecipient,
    QuitAnswer,
    RcptAnswer,
    RcptParams,
    ResetAnswer,
    StartTlsAnswer,
    TransferAnswer,
    Wait,
)
from elemta.protocol.replies import Replies, read_challenge, read_extensions, read_reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from elemta.protocol.address import Mailbox, ReversePath
    from elemta.protocol.reply import Reply

_NO_EXTENSIONS: Final = Extensions()
_NO_MAIL_PARAMS: Final = MailParams()
_NO_RCPT_PARAMS: Final = RcptParams()

# To look a member up in its enum costs as much as to call a method, and these are looked at for
# each answer.
_CLOSED: Final = State.CLOSED
_DATA: Final = State.DATA
_NOTHING: Final = Said.NOTHING
_FOR_DATA: Final = Wait.FOR_DATA

#: What may stand in a command line only as its end, or not at all.
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
#: What xtext has to encode (RFC 3461 §4), once everything is ASCII.
_NOT_XTEXT: Final = re.compile(rb"[^!-*,-<>-~]")
#: What utf-8-addr-xtext has to encode (RFC 6533 §3).
_NOT_UTF8_XTEXT: Final = re.compile(r"[^!-*,-<>-\[\]-~]")


class ClientConnection:
    """Turns what we want to say into octets, and what a server answers into typed answers.

    Each method that says something returns the octets to write, and its answer comes later out of
    `next_event`, in order. Where the server announced PIPELINING, several may be said before the
    first is answered. Read from the network only on `Wait.FOR_DATA`.

    After `Goodbye`, `Broken` and `Closed` nothing more can be said. After a 220 to STARTTLS the
    object is spent: go on with a new one over the TLS stream (its server says nothing first: the
    new one is made with `greeted=True`).

    Args:
        lmtp: speak LMTP (RFC 2033): LHLO, and an answer for each recipient after the message.
        greeted: the server has greeted us before the TLS handshake and will not do so again.
    """

    def __init__(self, *, lmtp: bool = False, greeted: bool = False) -> None:
        self._lmtp = lmtp
        self._replies = Replies()
        self._eof = False
        self._state = State.START if greeted else State.GREETING
        #: Said and not yet answered, in order.
        self._unanswered: deque[Said] = deque(() if greeted else (Said.CONNECT,))
        #: Where a 2xx to everything in `_unanswered` leads.
        self._ahead = self._state
        self._ready: deque[Answer] = deque()
        self._extensions = _NO_EXTENSIONS
        #: The recipients of the transaction whose answers are coming in: how many were answered,
        #: the numbers of the accepted, and how many of these have heard of the message (LMTP).
        self._answered = 0
        self._accepted: list[int] = []
        self._told = 0
        #: The content so far ends with a CRLF; or with a CR, which was not written yet.
        self._line_ended = True
        self._carriage_return = False

    @property
    def state(self) -> State:
        """Where the answers so far have led."""
        return self._state

    @property
    def extensions(self) -> Extensions:
        """What the server announced in its last answer to EHLO or LHLO."""
        return self._extensions

    @property
    def accepted(self) -> int:
        """How many recipients of this transaction the server has accepted so far."""
        return len(self._accepted)

    @property
    def outstanding(self) -> int:
        """How many of the things we said are not answered."""
        return len(self._unanswered)

    @property
    def usable(self) -> bool:
        """Whether a new transaction may begin: greeted, all answered, nothing half done."""
        return self._state is State.READY and not (
            self._unanswered or self._ready or self._replies.pending
        )

    def receive_data(self, octets: bytes) -> None:
        """Take what the server sent; `next_event` makes sense of it.

        Raises:
            LocalProtocolError: after `receive_eof`.
        """
        if self._eof:
            raise LocalProtocolError("data after the end of the stream")
        self._replies.feed(octets)

    def receive_eof(self) -> None:
        """Note that the server will send no more."""
        self._eof = True

    def next_event(self) -> Answer | Wait:
        """The next answer, or why there is none. Never raises: whatever a server says is some."""
        if self._ready:
            return self._ready.popleft()
        if self._state is _CLOSED:
            return Closed()
        try:
            found = self._replies.next_reply()
            if found is not None:
                return self._answer(*found)
        except RemoteProtocolError as error:
            self._close()
            return Broken(str(error))
        if self._eof:
            self._close()
            return Closed()
        return _FOR_DATA

    # What can be said.

    def hello(self, name: str, *, extended: bool = True) -> bytes:
        """EHLO (LHLO under LMTP), or HELO. `name` is a domain or an address literal."""
        if not extended and self._lmtp:
            raise LocalProtocolError("LMTP has no HELO")
        verb = "LHLO" if self._lmtp else "EHLO" if extended else "HELO"
        octets = self._line(f"{verb} {name}")
        self._say(Said.EHLO if extended else Said.HELO)
        return octets

    def starttls(self) -> bytes:
        """STARTTLS (RFC 3207)."""
        if not self._extensions.starttls:
            raise LocalProtocolError("STARTTLS was not announced")
        self._say(Said.STARTTLS)
        return b"STARTTLS\r\n"

    def auth(self, mechanism: str, initial: bytes | None = None) -> bytes:
        """AUTH (RFC 4954 §4), with an initial response or without."""
        if mechanism not in self._extensions.auth:
            raise LocalProtocolError(f"AUTH {mechanism} was not announced")
        self._say(Said.AUTH)
        response = b"" if initial is None else b" " + (base64.b64encode(initial) or b"=")
        return b"AUTH %b%b\r\n" % (mechanism.encode(), response)

    def auth_response(self, response: bytes | None) -> bytes:
        """Answer a challenge; None gives up."""
        self._say(Said.AUTH_RESPONSE)
        return (b"*" if response is None else base64.b64encode(response)) + b"\r\n"

    def mail(self, sender: ReversePath, params: MailParams = _NO_MAIL_PARAMS) -> bytes:
        """MAIL FROM. Of `params` that is written which the server announced.

        What the message cannot do without (SMTPUTF8, 8BITMIME) is the caller's to check before.
        """
        offered = self._extensions
        line = f"MAIL FROM:<{'' if sender is None else sender}>"
        if params.size is not None and offered.size is not None:
            line += f" SIZE={params.size}"
        if params.body is not None and offered.eight_bit:
            line += f" BODY={params.body.value}"
        if params.smtputf8 and offered.smtputf8:
            line += " SMTPUTF8"
        if offered.dsn:
            if params.ret is not None:
                line += f" RET={params.ret.value}"
            if params.envid is not None:
                line += f" ENVID={xtext(params.envid)}"
        if params.auth is not None and offered.auth:
            line += f" AUTH={xtext(params.auth)}"
        if params.mt_priority is not None and offered.mt_priority:
            line += f" MT-PRIORITY={params.mt_priority}"
        octets = self._line(line)
        self._say(Said.MAIL)
        return octets

    def rcpt(self, recipient: Mailbox, params: RcptParams = _NO_RCPT_PARAMS) -> bytes:
        """RCPT TO. Of `params` that is written which the server announced."""
        line = f"RCPT TO:<{recipient}>"
        if self._extensions.dsn:
            if params.notify:
                chosen = ",".join(when.value for when in Notify if when in params.notify)
                line += f" NOTIFY={chosen}"
            if params.orcpt is not None:
                line += f" ORCPT={_original(params.orcpt)}"
        octets = self._line(line)
        self._say(Said.RCPT)
        return octets

    def data(self) -> bytes:
        """DATA. The content may be written once it is answered with 354.

        Should that be so although no recipient was accepted, say `content_end` at once.
        """
        self._say(Said.DATA)
        self._line_ended, self._carriage_return = True, False
        return b"DATA\r\n"

    def content(self, octets: bytes) -> bytes:
        """Some octets of the message, cut anywhere; dots are stuffed (RFC 5321 §4.5.2).

        A CR or LF on its own is written as CRLF: no server may ever find another end of a line,
        or of the message, than we do.
        """
        self._require_data()
        if self._carriage_return:
            octets = b"\r" + octets
        self._carriage_return = octets.endswith(b"\r")
        if self._carriage_return:
            octets = octets[:-1]  # with the LF that may follow it is one CRLF
        if not octets:
            return b""
        if not has_clean_lines(octets):
            octets = octets.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
        stuffed = octets.replace(b"\r\n.", b"\r\n..")
        if self._line_ended and octets.startswith(b"."):
            stuffed = b"." + stuffed
        self._line_ended = octets.endswith(b"\r\n")
        return stuffed

    def content_end(self) -> bytes:
        """End the message: the dot, behind a CRLF if the content did not end with one."""
        self._require_data()
        self._say(Said.DOT)
        return b".\r\n" if self._line_ended and not self._carriage_return else b"\r\n.\r\n"

    def chunk(self, octets: bytes, *, last: bool) -> bytes:
        """BDAT (RFC 3030): some octets of the message, written as they are."""
        if not self._extensions.chunking:
            raise LocalProtocolError("CHUNKING was not announced")
        self._say(Said.BDAT_LAST if last else Said.BDAT)
        return b"BDAT %d%b\r\n%b" % (len(octets), b" LAST" if last else b"", octets)

    def reset(self) -> bytes:
        """RSET."""
        self._say(Said.RSET)
        return b"RSET\r\n"

    def noop(self) -> bytes:
        """NOOP."""
        self._say(Said.NOOP)
        return b"NOOP\r\n"

    def quit(self) -> bytes:
        """QUIT."""
        self._say(Said.QUIT)
        return b"QUIT\r\n"

    def _say(self, verb: Said) -> None:
        """Note that `verb` is being said.

        Raises:
            LocalProtocolError: it may not come now.
        """
        waiting = self._unanswered
        state = self._ahead if waiting else self._state
        if waiting and not (
            self._extensions.pipelining and verb in FOLLOWS and waiting[-1] in LEADS
        ):
            raise LocalProtocolError(f"{verb.name} before the answer to {waiting[-1].name}")
        step = TABLE[state].get(verb)
        if step is None or not step.write:
            raise LocalProtocolError(f"{verb.name} in state {state.name}")
        if not waiting and self._replies.pending:
            # It was sent before we said this, so it is no answer to it.
            waiting.append(Said.NOTHING)
        waiting.append(verb)
        self._ahead = step.done or step.more or state

    def _require_data(self) -> None:
        if self._state is not State.DATA or self._unanswered:
            raise LocalProtocolError(f"content in state {self._state.name}")

    def _line(self, line: str) -> bytes:
        if not line.isprintable() and _CONTROL.search(line):
            raise LocalProtocolError(f"control character in {line!r}")
        if not line.isascii() and not self._extensions.smtputf8:
            raise LocalProtocolError(f"SMTPUTF8 was not announced: {line!r}")
        return line.encode() + b"\r\n"

    # What is answered.

    def _answer(self, code: int, texts: list[bytes]) -> Answer:
        reply = read_reply(code, texts)
        if code == CLOSING:
            self._close()
            return Goodbye(reply)
        verb = self._unanswered[0] if self._unanswered else _NOTHING
        return self._ANSWERED[verb](self, verb, reply, texts)

    def _hello_answered(self, verb: Said, reply: Reply, texts: list[bytes]) -> Answer:
        self._advance(verb, reply)
        extended = verb is Said.EHLO and reply.code < 300
        self._extensions = read_extensions(texts) if extended else _NO_EXTENSIONS
        return HelloAnswer(reply, self._extensions)

    def _starttls_answered(self, verb: Said, reply: Reply, _texts: list[bytes]) -> Answer:
        self._advance(verb, reply)
        if self._state is State.TLS and self._replies.pending:
            # Somebody on the way put it there, to be taken for the first words over TLS.
            raise RemoteProtocolError("octets behind the 220 to STARTTLS")
        return StartTlsAnswer(reply)

    def _login_answered(self, verb: Said, reply: Reply, texts: list[bytes]) -> Answer:
        self._advance(verb, reply)
        return AuthAnswer(reply, read_challenge(texts) if reply.code == EXACT[verb] else None)

    def _mail_answered(self, verb: Said, reply: Reply, _texts: list[bytes]) -> Answer:
        self._advance(verb, reply)
        self._answered, self._told = 0, 0
        return MailAnswer(reply)

    def _rcpt_answered(self, verb: Said, reply: Reply, _texts: list[bytes]) -> Answer:
        self._advance(verb, reply)
        number, self._answered = self._answered, self._answered + 1
        if reply.code < 300:
            self._accepted.append(number)
        return RcptAnswer(number, reply)

    def _chunk_answered(self, verb: Said, reply: Reply, _texts: list[bytes]) -> Answer:
        self._advance(verb, reply)
        if reply.code >= 400:
            self._accepted = []  # the rest of the message speaks for nobody any more
        return TransferAnswer(reply)

    def _message_answered(self, verb: Said, reply: Reply, _texts: list[bytes]) -> Answer:
        """The answer to a whole message: one for all who were accepted, or under LMTP one each."""
        accepted = self._accepted
        if self._lmtp and self._told + 1 < len(accepted):
            if reply.code // 100 == 3:
                raise RemoteProtocolError(f"{reply.code} to {verb.name}")
            self._told += 1
            return ContentAnswer(accepted[self._told - 1], reply)
        self._advance(verb, reply)
        self._accepted = []
        if not accepted:
            return TransferAnswer(reply)
        if self._lmtp:
            return ContentAnswer(accepted[-1], reply)
        self._ready.extend([ContentAnswer(number, reply) for number in accepted])
        return self._ready.popleft()

    def _reset_answered(self, verb: Said, reply: Reply, _texts: list[bytes]) -> Answer:
        self._advance(verb, reply)
        self._accepted = []
        return ResetAnswer(reply)

    def _plain_answered(self, verb: Said, reply: Reply, _texts: list[bytes]) -> Answer:
        self._advance(verb, reply)
        return _PLAIN[verb](reply)

    #: What each answer becomes. A table, since looking at one `Said` after the other takes longer
    #: than all the rest.
    _ANSWERED: ClassVar[
        dict[Said, Callable[[ClientConnection, Said, Reply, list[bytes]], Answer]]
    ] = {
        **dict.fromkeys(Said, _plain_answered),
        Said.EHLO: _hello_answered,
        Said.HELO: _hello_answered,
        Said.STARTTLS: _starttls_answered,
        Said.AUTH: _login_answered,
        Said.AUTH_RESPONSE: _login_answered,
        Said.MAIL: _mail_answered,
        Said.RCPT: _rcpt_answered,
        Said.BDAT: _chunk_answered,
        Said.BDAT_LAST: _message_answered,
        Said.DOT: _message_answered,
        Said.RSET: _reset_answered,
    }

    def _advance(self, verb: Said, reply: Reply) -> None:
        """Let the answer to `verb` move the state.

        Raises:
            RemoteProtocolError: that is no answer to it.
        """
        if verb is _NOTHING:
            raise RemoteProtocolError(f"{reply.code} to nothing")
        step, kind, exact = TABLE[self._state].get(verb, _GONE), reply.code // 100, EXACT.get(verb)
        state = step.done if kind == 2 else step.more if kind == 3 else step.no or self._state
        if state is None or (exact and kind == exact // 100 and reply.code != exact):
            raise RemoteProtocolError(f"{reply.code} to {verb.name} in state {self._state.name}")
        if state is _DATA and self._lmtp and not self._accepted:
            # How many answers the dot will have is anyone's guess (RFC 2033 §4.2: 503).
            raise RemoteProtocolError("354 although no recipient was accepted")
        self._unanswered.popleft()
        self._state = state
        if kind != 2 and self._unanswered:
            # What was said behind it leads elsewhere than it would have.
            for said in self._unanswered:
                step = TABLE[state].get(said, _GONE)
                state = step.done or step.more or state
            self._ahead = state

    def _close(self) -> None:
        self._state = State.CLOSED
        self._unanswered.clear()


#: A command whose cell has gone since it was said can only be refused.
_GONE: Final = Step(None)

_PLAIN: Final[dict[Said, Callable[[Reply], Answer]]] = {
    Said.CONNECT: Greeting,
    Said.DATA: DataAnswer,
    Said.NOOP: NoopAnswer,
    Said.QUIT: QuitAnswer,
}


def has_clean_lines(octets: bytes) -> bool:
    """Whether there is no CR without its LF and no LF without its CR."""
    ends = octets.count(b"\r\n")
    # Counts by taking away: for one octet twice as fast as `count`, however odd that is.
    rest = len(octets) - ends
    return len(octets.replace(b"\n", b"")) == rest == len(octets.replace(b"\r", b""))


def xtext(text: str) -> str:
    """Any text as a parameter's value (RFC 3461 §4)."""
    return _NOT_XTEXT.sub(lambda found: b"+%02X" % found[0][0], text.encode()).decode()


def _original(orcpt: OriginalRecipient) -> str:
    """An ORCPT value; a ``utf-8`` address in the form that any server takes (RFC 6533 §3)."""
    if orcpt.address_type.lower() != "utf-8":
        return f"{orcpt.address_type};{xtext(orcpt.address)}"
    address = _NOT_UTF8_XTEXT.sub(lambda found: f"\\x{{{ord(found[0]):X}}}", orcpt.address)
    return f"{orcpt.address_type};{address}"
