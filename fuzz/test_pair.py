"""Our client and our server against each other: what the one was given, the other has."""

from __future__ import annotations

from typing import Final

import hypothesis.strategies as st
from hypothesis import given
from msgspec import Struct

from elemta.protocol import (
    Body,
    Broken,
    Chunk,
    ChunkEnd,
    ClientConnection,
    ClientState,
    Closed,
    Content,
    ContentAnswer,
    ContentEnd,
    Data,
    Event,
    Goodbye,
    Hello,
    HelloAnswer,
    Limits,
    Mail,
    MailAnswer,
    Mailbox,
    MailParams,
    Notify,
    Offer,
    OriginalRecipient,
    Rcpt,
    RcptAnswer,
    RcptParams,
    Refused,
    Reply,
    Ret,
    ServerConnection,
    Wait,
    parse_mailbox,
)
from fuzz.model import ended, fault, normalized
from fuzz.profiles import examples
from fuzz.strategies import CONTENT, CUTS, addresses, pieces

MAX_SIZE: Final = 4000
LIMITS: Final = Limits(message=MAX_SIZE)

MAILBOXES: Final = addresses().map(parse_mailbox)
TEXT: Final = st.text("ab+= ;\\@!~<>", min_size=1, max_size=12)
MAIL_PARAMS: Final = st.builds(
    MailParams,
    size=st.none() | st.integers(0, MAX_SIZE),
    body=st.none() | st.sampled_from(Body),
    smtputf8=st.just(True),
    ret=st.none() | st.sampled_from(Ret),
    envid=st.none() | TEXT,
)
RCPT_PARAMS: Final = st.builds(
    RcptParams,
    notify=st.sampled_from(
        [frozenset(), frozenset({Notify.NEVER}), frozenset(Notify) - {Notify.NEVER}]
    ),
    orcpt=st.none()
    | st.builds(OriginalRecipient, address_type=st.just("rfc822"), address=TEXT)
    | st.builds(
        OriginalRecipient,
        address_type=st.just("utf-8"),
        address=st.text("aü+=\\ 用@", min_size=1, max_size=12),
    ),
)
OFFERS: Final = st.builds(
    Offer,
    pipelining=st.booleans(),
    chunking=st.booleans(),
    size=st.booleans(),
    eight_bit=st.booleans(),
    dsn=st.booleans(),
)
#: Mostly yes.
VERDICTS: Final = st.sampled_from([250, 250, 250, 250, 450, 550])


class Sent(Struct):
    """A message as the client has it, and what the server will make of it."""

    sender: Mailbox | None
    params: MailParams
    recipients: list[tuple[Mailbox, RcptParams]]
    content: bytes
    cuts: list[int]
    by_chunks: bool
    #: To MAIL, to each RCPT, to DATA, to each chunk; to the end, under LMTP in turn.
    mail: int
    rcpt: list[int]
    data: int
    chunk: int
    end: list[int]


class Received(Struct):
    """A message as the server has it."""

    mail: Mail
    recipients: list[Rcpt]
    content: bytes
    fault: bool = False


@st.composite
def messages(draw: st.DrawFn) -> Sent:
    number = draw(st.integers(1, 4))
    several = {"min_size": number, "max_size": number}
    return Sent(
        sender=draw(st.none() | MAILBOXES),
        params=draw(MAIL_PARAMS),
        recipients=draw(st.lists(st.tuples(MAILBOXES, RCPT_PARAMS), **several)),
        content=draw(CONTENT),
        cuts=draw(CUTS),
        by_chunks=draw(st.booleans()),
        mail=draw(VERDICTS),
        rcpt=draw(st.lists(VERDICTS, **several)),
        data=draw(VERDICTS),
        chunk=draw(VERDICTS),
        end=draw(st.lists(VERDICTS, **several)),
    )


class Server:
    """Answers as it is told to, and keeps what it took."""

    def __init__(self, offer: Offer, *, lmtp: bool) -> None:
        self.smtp = ServerConnection(LIMITS, offer, lmtp=lmtp)
        self.lmtp = lmtp
        self.plan: Sent | None = None
        self.mail: Mail | None = None
        self.recipients: list[Rcpt] = []
        self.asked = 0
        self.content = b""
        self.taken: list[Received] = []

    def answers(self, octets: bytes) -> bytes:
        """What it says when it has heard `octets`."""
        self.smtp.receive_data(octets)
        said = b""
        while not isinstance(event := self.smtp.next_event(), Wait | Closed):
            said += self.handle(event)
        return said

    def say(self, code: int) -> bytes:
        return self.smtp.send(Reply(code, None, ("as told",)))

    def handle(self, event: Event) -> bytes:
        plan = self.plan
        match event:
            case Hello():
                return self.smtp.send(self.smtp.hello_reply("mx.example"))
            case Refused(reply=reply):
                return self.smtp.send(reply)
            case Chunk():
                return b""
            case Content(octets):
                self.content += octets
                return b""
        if plan is None:
            return self.say(250)
        match event:
            case Mail():
                self.mail, self.recipients, self.asked, self.content = event, [], 0, b""
                return self.say(plan.mail)
            case Rcpt():
                verdict = plan.rcpt[self.asked]
                self.asked += 1
                if verdict == 250:
                    self.recipients.append(event)
                return self.say(verdict)
            case Data():
                return self.say(354 if plan.data == 250 else plan.data)
            case ChunkEnd(problem):
                return self.say(552 if problem else plan.chunk)
            case ContentEnd(problem):
                return self.take(plan, faulty=problem is not None)
            case _:
                return self.say(250)

    def take(self, plan: Sent, *, faulty: bool) -> bytes:
        assert self.mail is not None
        heard = Received(self.mail, self.recipients, self.content, faulty)
        self.taken.append(heard)
        codes = plan.end[: len(self.recipients)] if self.lmtp else plan.end[:1]
        return b"".join(self.say(550 if faulty else code) for code in codes)


class Pair:
    """A client, its server, and a network that cuts."""

    def __init__(self, offer: Offer, cuts: list[int], *, lmtp: bool) -> None:
        self.client = ClientConnection(lmtp=lmtp)
        self.server = Server(offer, lmtp=lmtp)
        self.cuts = cuts
        self.heard: list[object] = []
        self.hear(self.server.say(220))
        self.say(self.client.hello("me.example"))
        hello = self.heard[-1]
        assert isinstance(hello, HelloAnswer)
        assert hello.extensions.pipelining == offer.pipelining

    def say(self, octets: bytes) -> None:
        said = b"".join(self.server.answers(piece) for piece in pieces(octets, self.cuts))
        self.hear(said)

    def hear(self, octets: bytes) -> None:
        for piece in pieces(octets, self.cuts):
            self.client.receive_data(piece)
            while not isinstance(event := self.client.next_event(), Wait):
                assert not isinstance(event, Broken | Goodbye | Closed), event
                self.heard.append(event)
        assert self.client.outstanding == 0, "the server owes an answer"

    def deliver(self, sent: Sent) -> list[object]:
        """Send a message; returns what the client has heard."""
        smtp, self.heard, self.server.plan = self.client, [], sent
        group = b"" if smtp.state is ClientState.READY else smtp.reset()
        group = self.step(group)
        group = self.step(group + smtp.mail(sent.sender, sent.params))
        for address, params in sent.recipients:
            if smtp.state is ClientState.READY and not group:
                return self.heard  # MAIL was refused
            group = self.step(group + smtp.rcpt(address, params))
        if not (group or smtp.accepted):
            return self.heard
        if sent.by_chunks and smtp.extensions.chunking:
            some = [*pieces(sent.content, sent.cuts)][:3]
            rest = sent.content[sum(map(len, some)) :]
            for piece in some:
                group = self.step(group + smtp.chunk(piece, last=False))
                if not group and smtp.state is not ClientState.CHUNKS:
                    return self.heard
            self.say(group + smtp.chunk(rest, last=True))
            return self.heard
        self.say(group + smtp.data())
        if smtp.state is ClientState.DATA:
            written = [smtp.content(piece) for piece in pieces(sent.content, sent.cuts)]
            self.say(b"".join(written) + smtp.content_end())
        return self.heard

    def step(self, group: bytes) -> bytes:
        """Hold a group back where the server takes groups; else say it and hear the answer."""
        if self.client.extensions.pipelining:
            return group
        if group:
            self.say(group)
        return b""


@given(
    sent=st.lists(messages(), min_size=1, max_size=3),
    cuts=CUTS,
    offer=OFFERS,
    lmtp=st.booleans(),
)
@examples(150)
def test_what_the_client_was_given_the_server_has(
    sent: list[Sent], cuts: list[int], offer: Offer, lmtp: bool
) -> None:
    pair = Pair(offer, cuts, lmtp=lmtp)
    for message in sent:
        pair.server.taken.clear()
        heard = pair.deliver(message)
        check(message, pair.server.taken, heard, offer, lmtp=lmtp)
    # Whatever happened, the conversation can go on.
    if pair.client.state is not ClientState.READY:
        pair.say(pair.client.reset())
    assert pair.client.usable


def announced(params: MailParams, offer: Offer) -> MailParams:
    """What of these a client may say."""
    return MailParams(
        size=params.size if offer.size else None,
        body=params.body if offer.eight_bit else None,
        smtputf8=True,
        ret=params.ret if offer.dsn else None,
        envid=params.envid if offer.dsn else None,
    )


def check(
    sent: Sent, taken: list[Received], heard: list[object], offer: Offer, *, lmtp: bool
) -> None:
    chunked = offer.chunking and sent.by_chunks
    assert [event.reply.code for event in heard if isinstance(event, MailAnswer)] == [sent.mail]
    if sent.mail == 250:
        rcpt = [event for event in heard if isinstance(event, RcptAnswer)]
        assert [event.reply.code for event in rcpt] == sent.rcpt
        assert [event.number for event in rcpt] == [*range(len(sent.rcpt))]
    answers = [event for event in heard if isinstance(event, ContentAnswer)]
    if not taken:
        assert all(answer.reply.code >= 400 for answer in answers)
        return
    accepted = [number for number, code in enumerate(sent.rcpt) if code == 250]
    assert sent.mail == 250
    assert accepted
    (got,) = taken
    assert got.mail == Mail(sent.sender, announced(sent.params, offer))
    assert [rcpt.path for rcpt in got.recipients] == [sent.recipients[n][0] for n in accepted]
    params = [sent.recipients[n][1] if offer.dsn else RcptParams() for n in accepted]
    assert [rcpt.params for rcpt in got.recipients] == params
    content = sent.content if chunked else ended(normalized(sent.content))
    faulty = fault(content, MAX_SIZE) is not None
    if chunked and not content.endswith(b"\r\n"):
        faulty = got.fault  # where the last line of a chunk may end is the server's business
    assert got.fault == faulty
    if not faulty:
        assert got.content == content
    codes = [550 if faulty else code for code in sent.end]
    want = codes[: len(accepted)] if lmtp else codes[:1] * len(accepted)
    assert [(answer.number, answer.reply.code) for answer in answers] == [
        *zip(accepted, want, strict=True)
    ]
