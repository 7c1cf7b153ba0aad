"""No client, whatever it says and however the network cuts it, can confuse the server engine."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections import deque
from typing import Final

import hypothesis.strategies as st
import pytest
from hypothesis import given
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import Struct

from elemta.protocol import (
    Auth,
    AuthResponse,
    BareNewline,
    Chunk,
    ChunkEnd,
    Closed,
    Content,
    ContentEnd,
    Event,
    Limits,
    LocalProtocolError,
    Mail,
    Offer,
    Refused,
    Reply,
    ServerConnection,
    StartTls,
    State,
    Wait,
)
from fuzz import model
from fuzz.profiles import examples
from fuzz.strategies import CONTENT, pieces

MAX_SIZE: Final = 2048
OFFER: Final = Offer(starttls=True, mechanisms=("PLAIN", "LOGIN"), mt_priority=True)


class Said(Struct, frozen=True):
    """Something the client says that takes one reply (or, at LMTP's end of a message, several).

    Attributes:
        verb: what the model calls it; empty for nonsense.
        content: of a chunk or a message.
        last: this is the end of the message.
        code: how nonsense is to be refused.
    """

    verb: str
    wire: bytes
    content: bytes = b""
    last: bool = False
    code: int = 0


COMMANDS: Final = {
    "MAIL": Said("MAIL", b"MAIL FROM:<>"),
    "RCPT": Said("RCPT", b"rcpt to: <a@b.example>"),
    "DATA": Said("DATA", b"DATA"),
    "RSET": Said("RSET", b"RSET "),
    "NOOP": Said("NOOP", b"NOOP"),
    "VRFY": Said("VRFY", b"VRFY someone"),
    "HELP": Said("HELP", b"HELP"),
    "STARTTLS": Said("STARTTLS", b"STARTTLS"),
    "AUTH": Said("AUTH", b"AUTH LOGIN"),
    "AUTH with a long response": Said("AUTH", b"auth PLAIN " + b"QUFB" * 200),
    "AUTH of no known mechanism": Said("", b"AUTH GUESS", code=504),
    "AUTH that is no base64": Said("", b"AUTH PLAIN QUF", code=501),
    "AUTH that is too long": Said("", b"AUTH PLAIN " + b"A" * 1000, code=500),
    "unknown": Said("", b"FROBNICATE", code=500),
    "too long": Said("", b"A" * 700, code=500),
    "parameter": Said("", b"MAIL FROM:<> FROB=1", code=555),
    "QUIT": Said("QUIT", b"QUIT"),
    "HTTP": Said("hostile", b"GET / HTTP/1.1", code=554),
    "BDAT without a size": Said("hostile", b"BDAT LAST", code=501),
}
#: Nothing may be pipelined behind these: it is wrong to, and what happens then depends on timing.
ALONE: Final = {"DATA", "STARTTLS", "AUTH", "RESPONSE"}
TRANSACTION: Final = ["HELLO", "MAIL", "RCPT", "RCPT"]
GROUPS: Final = (
    st.just([*TRANSACTION, "DATA"])
    | st.sampled_from([["HELLO", "AUTH"], ["HELLO", "AUTH with a long response"], ["AUTH"]])
    | st.sampled_from([[name] for name in ("HELLO", "BDAT", *sorted(COMMANDS))])
    | st.lists(st.sampled_from(["HELLO", "BDAT", *sorted(COMMANDS)]), min_size=1, max_size=4)
    | st.lists(st.just("BDAT"), min_size=1, max_size=3).map(lambda some: [*TRANSACTION, *some])
)
RESPONSES: Final = [b"", b"YQ==", b"*", b"YQ", b"Y!Q==", b"QUFB" * 200, b"A" * 1000]
CONTENTS: Final = st.lists(CONTENT, min_size=3, max_size=3)
CHALLENGES: Final = st.sampled_from([True, True, False])
CODES: Final = st.sampled_from([*[250] * 12, 550, 550, 451, 421])
MANY_CODES: Final = st.just([250] * 8) | st.lists(CODES, min_size=1, max_size=8)


class Server:
    """A connection that is asked what happened as early and as often as can be."""

    def __init__(self, limits: Limits, *, lmtp: bool) -> None:
        self.connection = ServerConnection(limits, OFFER, lmtp=lmtp)
        self.happened: deque[Event] = deque()
        self.content = b""
        self.messages: deque[bytes] = deque()

    def feed(self, octets: bytes) -> None:
        self.connection.receive_data(octets)
        self.poll()

    def send(self, reply: Reply) -> bytes:
        octets = self.connection.send(reply)
        self.poll()
        return octets

    def poll(self) -> None:
        while not isinstance(event := self.connection.next_event(), Wait | Closed):
            if isinstance(event, Content):
                assert event.octets, "an event of nothing"
                self.content += event.octets
            elif not isinstance(event, Chunk):
                self.happened.append(event)
            if isinstance(event, Mail):
                self.content = b""
            elif isinstance(event, ContentEnd):
                self.messages.append(self.content)
                self.content = b""


class ServerMachine(RuleBasedStateMachine):
    """A client that says anything, a network that cuts anywhere, a server that answers at whim."""

    @initialize(newline=st.sampled_from(BareNewline), lmtp=st.booleans())
    def greet(self, newline: BareNewline, lmtp: bool) -> None:
        self.model = model.Conversation()
        self.wire = bytearray()  # said by the client, not yet arrived
        self.said: deque[Said] = deque()  # said, not yet answered
        self.message = b""  # the chunks of it so far
        self.over = False
        self.newline, self.lmtp = newline, lmtp
        limits = Limits(command_line=600, login_line=900, message=MAX_SIZE, bare_newline=newline)
        self.whole = Server(limits, lmtp=lmtp)  # is fed the pieces that Hypothesis draws
        self.bits = Server(limits, lmtp=lmtp)  # is fed octet by octet
        self.answer(220)

    @precondition(lambda self: self.over)
    @rule(newline=st.sampled_from(BareNewline), lmtp=st.booleans())
    def connect_again(self, newline: BareNewline, lmtp: bool) -> None:
        self.greet(newline, lmtp)

    @property
    def may_speak(self) -> bool:
        return not any(said.verb in ALONE for said in self.said) and not self.over

    @precondition(lambda self: self.may_speak and not self.model.challenged)
    @rule(group=GROUPS, contents=CONTENTS, last=st.integers(0, 3))
    def say(self, group: list[str], contents: list[bytes], last: int) -> None:
        """Pipeline some commands (RFC 2920), in order or not; none behind what must be last."""
        chunks = 0
        for name in group:
            if name == "HELLO":
                said = Said(name, b"LHLO [::1]" if self.lmtp else b"EHLO relay.example")
            elif name == "BDAT":
                content, final = contents[chunks % 3], chunks == last
                chunks += 1
                line = b"BDAT %d%s\r\n" % (len(content), b" LAST" if final else b"")
                said = Said(name, line + content, content, final)
            else:
                said = COMMANDS[name]
            self.utter(said)
            if said.verb in ALONE:
                break

    @precondition(lambda self: self.may_speak and self.model.challenged and not self.said)
    @rule(line=st.sampled_from(RESPONSES))
    def respond(self, line: bytes) -> None:
        self.utter(Said("RESPONSE", line, line))

    def utter(self, said: Said) -> None:
        self.wire += said.wire if said.verb in ("BDAT", ".") else said.wire + b"\r\n"
        self.said.append(said)

    @precondition(lambda self: not self.over)
    @rule(octets=st.integers(1, 200) | st.just(5000))
    def arrive(self, octets: int) -> None:
        piece = bytes(self.wire[:octets])
        del self.wire[:octets]
        self.whole.feed(piece)
        for bit in pieces(piece, []):
            self.bits.feed(bit)

    @precondition(lambda self: not self.over)
    @rule(codes=MANY_CODES, challenge=CHALLENGES, content=CONTENT)
    def judge(self, codes: list[int], challenge: bool, content: bytes) -> None:
        """Answer what was said first, so far as it has arrived."""
        for code in codes:
            if self.whole.happened and not self.over:
                self.judge_one(code, challenge, content)
        if not self.whole.happened and not self.over:
            assert self.wire or not self.said, "a whole command was overlooked"

    def judge_one(self, code: int, challenge: bool, content: bytes) -> None:
        event, said = self.whole.happened.popleft(), self.said.popleft()
        self.bits.happened.popleft()
        self.judge_line(said)
        if said.verb == "RESPONSE":
            self.judge_response(said, event, 334 if code == 451 else code)
        elif isinstance(event, Refused):
            self.refuse(said, event)
        else:
            assert self.model.may(said.verb), f"let {said.verb} pass out of order"
            if said.verb in ("BDAT", "."):
                self.judge_content(said, event, code)
            elif said.verb == "DATA" and code == 250:
                self.judge_code(said, 354)
                end = Said(".", model.stuffed(content), model.ended(content), last=True)
                self.utter(end)
                self.utter(COMMANDS["NOOP"])  # pipelined behind the dot
            elif said.verb == "AUTH":
                _, _, initial = said.wire.partition(b"PLAIN ")
                assert isinstance(event, Auth)
                assert event.initial == (b64decode(initial) if initial else None)
                self.judge_code(said, 334 if challenge else code)
            else:
                self.judge_code(said, 550 if said.verb == "DATA" and code == 250 else code)

    def judge_line(self, said: Said) -> None:
        """What a transcript has of it is what was said, but for what may be a secret."""
        for server in (self.whole, self.bits):
            line = server.connection.line
            if said.verb == "RESPONSE":
                assert line == (b"*" if said.wire == b"*" else b"***")
            elif said.wire.upper().startswith(b"AUTH"):
                words = said.wire.split()
                masked = [*words[:2], b"***"] if words[2:] else words
                assert line is None or line in (b" ".join(masked), b"AUTH ***")
            elif line is not None and not (line == b"***" and said.verb in ("", "hostile")):
                assert line == said.wire.split(b"\r\n")[0]

    def refuse(self, said: Said, event: Refused) -> None:
        """What the engine turns down is turned down for the right reason."""
        code = event.reply.code
        if said.verb in ("", "hostile"):
            assert code == said.code
        else:
            assert not self.model.may(said.verb), f"refused {said.verb}"
            assert code == 503
        assert event.hostile == (said.verb == "hostile")
        assert b"AUTH" not in event.line.upper()
        self.never(250)
        self.answer(code)
        self.over = event.hostile

    def judge_response(self, said: Said, event: Event, code: int) -> None:
        try:
            want: Event | int = AuthResponse(None if said.wire == b"*" else b64(said.wire))
        except ValueError:
            want = 501
        if len(said.wire) + 2 > 900:
            want = 500
        if isinstance(want, int):
            assert isinstance(event, Refused)
            assert event.reply.code == want
            assert not event.line
            assert not event.hostile
            self.never(250)
            code = want
        else:
            assert event == want
        self.judge_code(said, code)

    def judge_content(self, said: Said, event: Event, code: int) -> None:
        """The end of a message, or of a chunk that is not the last."""
        assert isinstance(event, ContentEnd if said.last else ChunkEnd)
        self.message += said.content
        message = self.message
        if not said.last and self.newline is BareNewline.NORMALIZE and message.endswith(b"\r"):
            message = message[:-1]  # not judged yet
        if self.newline is BareNewline.NORMALIZE:
            message = model.normalized(message)
        fault = model.fault(message, MAX_SIZE, whole=said.last)
        assert (event.fault and event.fault.name) == fault
        if said.last:
            contents = self.whole.messages.popleft(), self.bits.messages.popleft()
            assert fault is not None or contents == (message, message)
        if fault is not None:
            self.never(250)
            code = 550 if code == 250 else code
        for _ in range(self.model.recipients if self.lmtp and said.last else 1):
            if not self.over:
                self.answer(code)
        self.model.answered("." if said.last else said.verb, code)
        if said.last:
            self.message = b""

    def judge_code(self, said: Said, code: int) -> None:
        if said.verb == "DATA":
            self.never(250)
        elif said.verb not in ("AUTH", "RESPONSE"):
            self.never(354)
        self.answer(code)
        self.model.answered(said.verb, code)
        if said.verb == "QUIT" or (said.verb == "STARTTLS" and code == 250):
            self.over = True
        if said.verb == "MAIL":
            self.message = b""

    def never(self, code: int) -> None:
        """This reply is impossible; and to have tried it changes nothing."""
        for server in (self.whole, self.bits):
            with pytest.raises(LocalProtocolError):
                server.connection.send(Reply(code, None, ("fuzz",)))

    def answer(self, code: int) -> None:
        """Reply on both connections."""
        reply = Reply(code, None, ("fuzz",))
        assert self.whole.send(reply) == self.bits.send(reply) == b"%d fuzz\r\n" % code
        self.over = self.over or code == 421

    @invariant()
    def how_the_stream_was_cut_never_shows(self) -> None:
        whole, bits = self.whole, self.bits
        assert whole.connection.state is bits.connection.state
        assert whole.connection.in_transaction == bits.connection.in_transaction
        assert whole.happened == bits.happened
        if self.over:
            assert whole.connection.state in (State.CLOSED, State.TLS)
            assert whole.connection.next_event() == bits.connection.next_event() == Closed()
        elif not whole.happened:
            assert whole.connection.in_transaction == self.model.sender


def b64(text: bytes) -> bytes:
    """Read base64, and refuse what is not exactly what one would write."""
    octets = b64decode(text, validate=True)
    if b64encode(octets) != text:
        raise ValueError("another way to write it")
    return octets


class Turn(Struct, frozen=True):
    """Some commands, and how they and what follows from them are answered."""

    group: list[str]
    contents: list[bytes]
    last: int
    cut: int
    codes: list[int]
    challenge: bool
    response: bytes


TURNS: Final = st.builds(
    Turn,
    group=GROUPS,
    contents=CONTENTS,
    last=st.integers(0, 3),
    cut=st.integers(0, 300),
    codes=MANY_CODES,
    challenge=CHALLENGES,
    response=st.sampled_from(RESPONSES),
)


@given(
    turns=st.lists(TURNS, min_size=1, max_size=4),
    newline=st.sampled_from(BareNewline),
    lmtp=st.booleans(),
)
@examples(500)
def test_a_conversation_comes_to_its_ends(
    turns: list[Turn], newline: BareNewline, lmtp: bool
) -> None:
    """The machine again, with the network in order: chance alone is slow to end a message."""
    machine = ServerMachine()
    machine.greet(newline, lmtp)
    for turn in turns:
        if machine.may_speak and not machine.model.challenged:
            machine.say(turn.group, turn.contents, turn.last)
        for _ in range(4):
            if machine.over:
                return
            machine.arrive(turn.cut)
            machine.arrive(5000)
            machine.judge(turn.codes, turn.challenge, turn.contents[0])
            machine.how_the_stream_was_cut_never_shows()
            if machine.may_speak and machine.model.challenged and not machine.said:
                machine.respond(turn.response)


ServerMachine.TestCase.settings = examples(100)
TestServerMachine = ServerMachine.TestCase


GREETING: Final = Reply(220, None, ("fuzz",))


@given(
    command=st.sampled_from([b"DATA", b"AUTH LOGIN", b"AUTH PLAIN AGEAYg==", b"STARTTLS"]),
    behind=st.sampled_from([b"x", b"\r\n", b"NOOP\r\n", b"YQ==\r\n", b"RSET\r\nMAIL FROM:<>\r\n"]),
)
@examples(30)
def test_what_is_pipelined_behind_a_question_is_never_obeyed(command: bytes, behind: bytes) -> None:
    smtp = ServerConnection(offer=OFFER)
    smtp.send(GREETING)
    smtp.receive_data(b"EHLO a\r\n")
    if command == b"DATA":
        smtp.receive_data(b"MAIL FROM:<>\r\nRCPT TO:<postmaster>\r\n")
    smtp.receive_data(command + b"\r\n" + behind)
    while not isinstance(event := smtp.next_event(), Refused | StartTls):
        smtp.send(Reply(250, None, ("fuzz",)))
    assert event == StartTls(injected=True) if command == b"STARTTLS" else event.hostile
    with pytest.raises(LocalProtocolError):
        smtp.send(GREETING)
    smtp.send(Reply(554, None, ("fuzz",)))
    smtp.receive_data(b"NOOP\r\n")
    assert smtp.next_event() == Closed()
