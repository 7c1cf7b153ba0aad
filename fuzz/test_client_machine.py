"""No server, whatever it says and however the network cuts it, can confuse the client engine."""

from __future__ import annotations

import copy
import re
from typing import Final, NamedTuple

import hypothesis.strategies as st
from hypothesis import example, given
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from elemta.protocol import (
    Answer,
    Broken,
    ClientConnection,
    Closed,
    ContentAnswer,
    DataAnswer,
    Goodbye,
    Greeting,
    HelloAnswer,
    LocalProtocolError,
    MailAnswer,
    Mailbox,
    NoopAnswer,
    QuitAnswer,
    RcptAnswer,
    ResetAnswer,
    StartTlsAnswer,
    TransferAnswer,
    Wait,
)
from fuzz.model import normalized, stuffed
from fuzz.profiles import examples
from fuzz.strategies import CONTENT, CUTS, pieces

ANN: Final = Mailbox("ann", "a.example")

#: What a client says, and the answer that it is told; of a message's end there is no one answer.
ANSWERS: Final = {
    "CONNECT": Greeting,
    "EHLO": HelloAnswer,
    "MAIL": MailAnswer,
    "RCPT": RcptAnswer,
    "DATA": DataAnswer,
    "BDAT": TransferAnswer,
    "RSET": ResetAnswer,
    "NOOP": NoopAnswer,
    "QUIT": QuitAnswer,
}
COMMANDS: Final = [verb for verb in ANSWERS if verb != "CONNECT"] + ["LAST"]
#: RFC 2920 §3.1, RFC 3030 §4.2: these may stand anywhere in a group, and those last in it.
ANYWHERE: Final = {"MAIL", "RCPT", "RSET", "BDAT", "LAST"}
LAST_IN_GROUP: Final = {"DATA", "NOOP", "QUIT"}

#: What a client says in one go.
GROUPS: Final = [
    ["EHLO"],
    ["MAIL", "RCPT", "DATA"],
    ["MAIL", "RCPT", "RCPT", "DATA"],
    ["MAIL", "RCPT", "RCPT", "RCPT", "DATA"],
    ["MAIL", "RCPT", "RCPT", "LAST"],
    ["MAIL", "RCPT", "RCPT", "BDAT", "LAST"],
    ["MAIL", "RCPT", "LAST", "MAIL", "RCPT"],
    ["RSET", "MAIL", "RCPT", "DATA", "RSET"],
    ["RSET"],
    ["MAIL", "RCPT", "RCPT"],
    ["MAIL", "RCPT", "BDAT"],
]
#: What a server in its right mind answers: more often yes than no.
CODES: Final = st.lists(st.sampled_from([250, 250, 250, 450, 550]), max_size=6)
TEXTS: Final = ["", "ok", "2.1.5 ok", "5.1.1 no", "\xfc\x00\x1b", "x" * 600]


def sensible(verb: str, code: int) -> int:
    """What yes is to this command."""
    return 354 if verb == "DATA" and code == 250 else code


class Facts:
    """What the answers so far mean (RFC 5321 §4.1.4, RFC 3030 §2), and what may be said then."""

    def __init__(self) -> None:
        self.greeted = self.hello = self.sender = self.data = False
        self.unwelcome = self.over = False
        self.chunks = 0
        self.accepted: list[int] = []
        self.asked = 0  # recipients answered
        self.stuck = False  # only RSET helps

    def may(self, verb: str) -> bool:
        if self.over or not self.greeted or self.data:
            return False
        if verb == "QUIT":
            return True
        if self.unwelcome:
            return False
        between = self.hello and not self.sender and not self.stuck
        match verb:
            case "EHLO":
                return not self.hello or between
            case "NOOP":
                return not self.chunks
            case "RSET":
                return self.hello
            case "MAIL":
                return between
            case "RCPT":
                return self.sender and not self.stuck and not self.chunks
            case "DATA":
                return bool(self.accepted) and not self.stuck and not self.chunks
            case _:
                return bool(self.accepted) and not self.stuck

    def answered(self, verb: str, code: int) -> bool:
        """Note an answer; false if a server cannot mean that."""
        good = code < 300
        late = verb not in ("CONNECT", ".") and not self.may(verb)
        for_nobody = verb == "DATA" and code == 354 and self.sender and not self.stuck
        if (late and code < 400 and not (for_nobody and not self.accepted)) or (
            300 <= code < 400 and not (verb == "DATA" and code == 354)
        ):
            return False
        match verb:
            case "CONNECT":
                self.greeted, self.unwelcome = True, not good
            case "EHLO":
                self.hello = good
            case "MAIL":
                self.sender = self.sender or good
                self.accepted, self.asked = [], 0
            case "RCPT":
                if good:
                    self.accepted.append(self.asked)
                self.asked += 1
            case "DATA":
                self.data = code == 354
                self.stuck = self.stuck or (code >= 400 and not late)
                return not good
            case "BDAT":
                self.chunks += good
                self._refused_chunk(late=late, good=good)
            case "LAST":
                self._refused_chunk(late=late, good=good)
                if good:
                    self.sender, self.chunks = False, 0
                self.accepted = []
            case ".":
                self.sender = self.data = False
                self.accepted = []
            case "RSET":
                self.unwelcome = self.unwelcome or not good
                self.sender = self.stuck = False
                self.chunks = 0
                self.accepted = []
            case "QUIT":
                self.over = True
            case _:
                pass
        return True

    def _refused_chunk(self, *, late: bool, good: bool) -> None:
        if not good:
            self.accepted = []
            if not late:
                self.stuck, self.chunks = True, 0


class Client:
    """A connection that is asked what happened as early and as often as can be."""

    def __init__(self, *, lmtp: bool) -> None:
        self.connection = ClientConnection(lmtp=lmtp)
        self.happened: list[Answer] = []

    def feed(self, octets: bytes) -> None:
        self.connection.receive_data(octets)
        while not isinstance(event := self.connection.next_event(), Wait | Closed):
            self.happened.append(event)

    def refuses(self, verb: str) -> bool:
        try:
            self.say(verb)
        except LocalProtocolError:
            return True
        return False

    def say(self, verb: str) -> bytes:
        smtp = self.connection
        return {
            "EHLO": lambda: smtp.hello("me.example"),
            "MAIL": lambda: smtp.mail(ANN),
            "RCPT": lambda: smtp.rcpt(ANN),
            "DATA": smtp.data,
            "BDAT": lambda: smtp.chunk(b"ab", last=False),
            "LAST": lambda: smtp.chunk(b"", last=True),
            "RSET": smtp.reset,
            "NOOP": smtp.noop,
            "QUIT": smtp.quit,
        }[verb]()


class Replied(NamedTuple):
    """A reply of the server: its octets, and whether it announces what the server can do."""

    code: int
    octets: int
    announces: bool


class ClientMachine(RuleBasedStateMachine):
    """A server that says anything, a network that cuts anywhere, a client that says what it may."""

    @initialize(lmtp=st.booleans(), pipelining=st.booleans(), greeted=st.booleans())
    def begin(self, lmtp: bool, pipelining: bool, greeted: bool) -> None:
        self.connect(lmtp=lmtp, pipelining=pipelining, greeted=greeted)

    @precondition(lambda self: self.facts.over)
    @rule(lmtp=st.booleans(), pipelining=st.booleans())
    def begin_again(self, lmtp: bool, pipelining: bool) -> None:
        self.connect(lmtp=lmtp, pipelining=pipelining, greeted=True)

    def connect(self, *, lmtp: bool, pipelining: bool, greeted: bool) -> None:
        """A new connection; `greeted`: hello is said and answered."""
        self.lmtp = lmtp
        self.pipelining = pipelining
        self.whole = Client(lmtp=lmtp)  # is fed the pieces that Hypothesis draws
        self.bits = Client(lmtp=lmtp)  # is fed octet by octet
        self.wire = bytearray()  # said by the server, not yet arrived
        self.replied: list[Replied] = []  # the replies on the wire, or in part
        self.arrived = 0  # octets behind the last reply that was understood
        self.facts = Facts()
        self.announced = False
        self.said = ["CONNECT"]  # by us, and not yet answered
        self.told = 0  # answers to the end of a message that came in (LMTP)
        if greeted:
            self.agree()
            self.say(["EHLO"])
            self.agree()

    def ahead(self) -> Facts:
        """The facts, should everything be answered with yes."""
        facts = copy.copy(self.facts)
        facts.accepted = [*facts.accepted]
        for verb in self.said:
            facts.answered(verb, 354 if verb == "DATA" else 250)
        return facts

    def may(self, verb: str) -> bool:
        if verb in ("BDAT", "LAST") and not self.announced:
            return False
        if not self.said:
            return self.facts.may(verb)
        grouped = self.announced and self.pipelining
        leads = self.said[-1] in ANYWHERE | {"."}
        return (
            grouped
            and leads
            and verb in ANYWHERE | LAST_IN_GROUP
            and not self.facts.over
            and self.ahead().may(verb)
        )

    @precondition(lambda self: not self.facts.over)
    @rule(
        group=st.sampled_from(GROUPS) | st.lists(st.sampled_from(COMMANDS), max_size=3),
        codes=st.none() | CODES,
    )
    def say_some(self, group: list[str], codes: list[int] | None) -> None:
        """Say some things, in order or not; often the server answers all of them at once."""
        self.say(group)
        if codes is not None:
            self.answer(codes)

    def say(self, group: list[str]) -> None:
        for verb in group:
            if self.may(verb):
                assert self.whole.say(verb) == self.bits.say(verb)
                if self.arrived and not self.said:
                    self.said.append("")  # what has begun to arrive is no answer to this
                self.said.append(verb)
            else:
                assert self.whole.refuses(verb), f"let {verb} be said"
                assert self.bits.refuses(verb)

    @precondition(lambda self: len(self.said) > len(self.replied))
    @rule(
        codes=CODES,
        text=st.sampled_from(TEXTS),
        lines=st.integers(1, 3),
        octets=st.integers(1, 4000),
    )
    def reply(self, codes: list[int], text: str, lines: int, octets: int) -> None:
        """The server answers what it was asked, one way or the other."""
        for verb, code in zip(self.said[len(self.replied) :], codes, strict=False):
            self.put(sensible(verb, code), text, lines)
        self.arrive(octets)

    @precondition(lambda self: not self.facts.over)
    @rule(
        code=st.sampled_from([0, 0, 0, 0, 0, 0, 0, 0, 421, 333, 354, 250, 550]),
        text=st.sampled_from(TEXTS),
    )
    def reply_amiss(self, code: int, text: str) -> None:
        """Seldom, the server says what nobody asked for or what makes no sense, or goodbye."""
        if code:
            self.put(code, text, 1)

    @precondition(lambda self: len(self.said) > len(self.replied))
    @rule()
    def agree(self) -> None:
        """The server answers all that it was asked with yes."""
        self.answer([])

    def answer(self, codes: list[int]) -> None:
        """The server answers all that it was asked; with yes, where `codes` are used up."""
        left = iter(codes)
        for verb in self.said[len(self.replied) :]:
            # What was said before has to arrive: under LMTP it matters to how many there are.
            self.arrive(len(self.wire))
            ends = verb in (".", "LAST") and self.lmtp
            for _ in range(max(1, len(self.facts.accepted)) if ends else 1):
                self.put(sensible(verb, next(left, 250)), "ok", 1)
        self.arrive(len(self.wire))

    def put(self, code: int, text: str, lines: int) -> None:
        texts = [text] * lines
        announces = self.said[len(self.replied) : len(self.replied) + 1] == ["EHLO"]
        if announces:
            texts = ["mx", "CHUNKING", *(["PIPELINING"] if self.pipelining else [])]
        marks = ["-"] * (len(texts) - 1) + [" "]
        said = "".join(f"{code}{mark}{line}\r\n" for mark, line in zip(marks, texts, strict=True))
        self.wire += said.encode("latin-1")
        self.replied.append(Replied(code, len(said), announces))

    @precondition(lambda self: self.wire)
    @rule(octets=st.integers(1, 2000))
    def arrive(self, octets: int) -> None:
        piece = bytes(self.wire[:octets])
        del self.wire[:octets]
        self.arrived += len(piece)
        self.whole.feed(piece)
        for octet in piece:
            self.bits.feed(bytes([octet]))
        assert self.whole.happened == self.bits.happened
        happened, self.whole.happened, self.bits.happened = self.whole.happened, [], []
        while happened:
            self.check(happened)

    @precondition(lambda self: self.facts.data and not (self.facts.over or self.said or self.wire))
    @rule(content=CONTENT, cuts=CUTS, codes=st.none() | CODES)
    def transfer(self, content: bytes, cuts: list[int], codes: list[int] | None) -> None:
        self.transfer_now(content, cuts, codes)

    def transfer_now(self, content: bytes, cuts: list[int], codes: list[int] | None) -> None:
        """Send a message, cut in two ways."""
        if not self.facts.accepted:
            content = b""
        one, two = self.whole.connection, self.bits.connection
        wire = b"".join([one.content(piece) for piece in pieces(content, cuts)])
        assert wire + one.content_end() == stuffed(normalized(content))
        assert two.content(content) + two.content_end() == stuffed(normalized(content))
        self.said.append(".")
        if codes is not None:
            self.answer(codes)

    def check(self, happened: list[Answer]) -> None:
        """One reply was understood as it should be."""
        event, (code, octets, announces) = happened.pop(0), self.replied.pop(0)
        self.arrived -= octets
        if code == 421:
            assert isinstance(event, Goodbye)
            self.end(happened)
            return
        verb = self.said[0] if self.said else ""
        accepted = list(self.facts.accepted)
        if verb in (".", "LAST") and self.lmtp and len(accepted) > self.told + 1:
            if 300 <= code < 400:
                assert isinstance(event, Broken)
                self.end(happened)
                return
            assert event == ContentAnswer(accepted[self.told], event.reply)
            assert event.reply.code == code
            self.told += 1
            return
        for_nobody = verb == "DATA" and code == 354 and not accepted and self.lmtp
        if not verb or not self.facts.answered(verb, code) or for_nobody:
            assert isinstance(event, Broken), f"{code} to {verb or 'nothing'} gave {event}"
            self.end(happened)
            return
        self.said.pop(0)
        if verb in (".", "LAST") and accepted:
            for number in accepted[self.told :]:
                assert isinstance(event, ContentAnswer)
                assert (event.number, event.reply.code) == (number, code)
                event = happened.pop(0) if number != accepted[-1] else event
            self.told = 0
            return
        assert isinstance(event, ANSWERS.get(verb, TransferAnswer))
        assert event.reply.code == code
        assert all(line.isprintable() for line in event.reply.lines)
        if isinstance(event, RcptAnswer):
            assert event.number == self.facts.asked - 1
        if isinstance(event, HelloAnswer):
            self.announced = code < 300 and announces
            assert event.extensions.pipelining == (self.announced and self.pipelining)
        if verb == "QUIT":
            self.end(happened)

    def end(self, happened: list[Answer]) -> None:
        assert not happened, "something was told after the end"
        self.facts.over = True
        self.said.clear()
        self.replied.clear()
        self.arrived = 0
        self.wire.clear()

    @invariant()
    def how_the_stream_was_cut_never_shows(self) -> None:
        one, two = self.whole.connection, self.bits.connection
        assert one.state is two.state
        assert (one.usable, one.accepted, one.outstanding) == (
            two.usable,
            two.accepted,
            two.outstanding,
        )

    @invariant()
    def it_knows_where_it_stands(self) -> None:
        smtp, facts = self.whole.connection, self.facts
        assert smtp.outstanding == len(self.said)
        if not facts.over:
            assert smtp.accepted == len(facts.accepted)
        for verb in COMMANDS:
            assert self.may(verb) or self.whole.refuses(verb), f"let {verb} be said"
        if not self.arrived:
            idle = facts.hello and not (
                facts.sender or facts.stuck or facts.unwelcome or facts.over
            )
            assert smtp.usable == (idle and not self.said)


ClientMachine.TestCase.settings = examples(150)
TestClientMachine = ClientMachine.TestCase


class Turn(NamedTuple):
    """What the client says, how the server takes it, and what follows a 354."""

    group: list[str]
    codes: list[int]
    content: bytes
    cuts: list[int]
    end: list[int]
    early: bool


CODE: Final = st.sampled_from([250, 250, 250, 450, 550])
TURNS: Final = st.builds(
    Turn,
    st.sampled_from(GROUPS) | st.lists(st.sampled_from(COMMANDS), max_size=3),
    st.lists(CODE, max_size=6),
    CONTENT,
    CUTS,
    st.lists(CODE, max_size=3),
    st.sampled_from([False] * 7 + [True]),
)


#: 354 although nobody was accepted: owed a dot by SMTP, impossible by LMTP.
FOR_NOBODY: Final = Turn(["MAIL", "RCPT", "DATA"], [250, 550, 250], b"", [], [], early=False)
#: Its rest may still be said, and is for nobody.
REFUSED_CHUNK: Final = Turn(["MAIL", "RCPT", "BDAT"], [250, 250, 550], b"", [], [], early=False)


@given(lmtp=st.booleans(), pipelining=st.booleans(), turns=st.lists(TURNS, min_size=2, max_size=6))
@example(lmtp=False, pipelining=True, turns=[FOR_NOBODY, FOR_NOBODY])
@example(lmtp=True, pipelining=True, turns=[FOR_NOBODY])
@example(lmtp=False, pipelining=True, turns=[REFUSED_CHUNK])
@examples(300)
def test_transactions_come_out_as_the_server_says(
    lmtp: bool, pipelining: bool, turns: list[Turn]
) -> None:
    """The same checks as the machine's, with a server in its right mind."""
    machine = ClientMachine()
    machine.connect(lmtp=lmtp, pipelining=pipelining, greeted=True)
    for turn in turns:
        codes = iter(turn.codes)
        if turn.early:  # a reply begins before anything was asked
            machine.put(250, "early", 1)
            machine.arrive(3)
        for group in [turn.group] if pipelining else [[verb] for verb in turn.group]:
            machine.say(group)
            machine.answer([next(codes, 250) for _ in machine.said])
            if machine.facts.over:
                return
            if machine.facts.data:
                machine.transfer_now(turn.content, turn.cuts, turn.end)
            machine.how_the_stream_was_cut_never_shows()
            machine.it_knows_where_it_stands()


@given(content=CONTENT, cuts=CUTS, other_cuts=CUTS)
@examples(300)
def test_content_is_the_same_however_it_is_cut(
    content: bytes, cuts: list[int], other_cuts: list[int]
) -> None:
    machine = ClientMachine()
    machine.connect(lmtp=False, pipelining=True, greeted=True)
    for some in (cuts, other_cuts):
        machine.say(["MAIL", "RCPT", "DATA"])
        machine.answer([])
        machine.transfer_now(content, some, [])


#: What replies are made of.
FRAGMENTS: Final = st.lists(
    st.sampled_from(
        [b"220", b"220 ", b"220-", b"250", b"421 ", b"2", b" ", b"-", b"\r\n", b"\r\n", b"\n",
         b"\r", b"ok", b"2.0.0 ", b"\xff", b"\0", b"250 ok\r\n", b"250-ok\r\n", b"x" * 999],
    ),
    max_size=16,
)  # fmt: skip


def first_reply(said: bytes) -> int | None:
    """The code of the first reply; 0 if it makes no sense, None if it is not whole."""
    codes: list[bytes] = []
    *lines, rest = said.split(b"\n")
    for line in lines:
        found = re.fullmatch(rb"([2-5][0-9][0-9])(?:([ -])[^\n]*)?\r", line)
        if found is None or len(line) >= 4096 or found[1] != (codes or [found[1]])[0]:
            return 0
        codes.append(found[1])
        if found[2] != b"-":
            return int(found[1])
        if len(codes) == 100:
            return 0
    return 0 if len(rest) >= 4096 else None


@given(said=FRAGMENTS.map(b"".join), cuts=CUTS)
@example(said=b"220\r\r\n", cuts=[])  # a code, and a text that was lost
@example(said=b"199 ok\r\n", cuts=[])
@example(said=b"600 ok\r\n", cuts=[])
@example(said=b"220 ok\n", cuts=[])
@example(said=b"220-ok\r\n250 ok\r\n", cuts=[])
@example(said=b"x" * 4096, cuts=[])
@example(said=b"220 " + b"x" * 4091 + b"\r\n", cuts=[])
@example(said=b"220 " + b"x" * 4090 + b"\r\n", cuts=[])
@example(said=b"220-ok\r\n" * 99 + b"220 ok\r\n", cuts=[1000])
@example(said=b"220-ok\r\n" * 100, cuts=[1000])
@examples(500)
def test_any_octets_are_some_answer_and_the_same_however_they_are_cut(
    said: bytes, cuts: list[int]
) -> None:
    one, two = Client(lmtp=False), Client(lmtp=False)
    one.feed(said)
    for piece in pieces(said, cuts):
        two.feed(piece)
    assert one.happened == two.happened
    assert one.connection.state is two.connection.state
    code = first_reply(said)
    want = {None: None, 0: Broken, 421: Goodbye, 220: Greeting, 250: Greeting}[code]
    assert (type(one.happened[0]) if one.happened else None) is want
    for event in one.happened:
        if isinstance(event, Greeting):
            assert event.reply.code == code
            assert all(line.isprintable() for line in event.reply.lines)


@given(behind=FRAGMENTS.map(b"".join).filter(bool), code=st.sampled_from([220, 454]))
@examples(100)
def test_nothing_gets_from_plaintext_into_tls(behind: bytes, code: int) -> None:
    client = Client(lmtp=False)
    client.feed(b"220 hi\r\n")
    client.say("EHLO")
    client.feed(b"250-mx\r\n250 STARTTLS\r\n")
    client.connection.starttls()
    client.happened.clear()
    client.feed(b"%d go\r\n" % code + behind)
    assert isinstance(client.happened[0], Broken if code == 220 else StartTlsAnswer)
