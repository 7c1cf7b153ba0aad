"""One conversation with a host, played from a script."""

from __future__ import annotations

import io
from typing import Final

import pytest
import trio

from elemta import log
from elemta.delivery.session import HostUnusable, Outcome, SmtpSession, Timeouts
from elemta.delivery.transaction import NO_SMTPUTF8
from elemta.net.memory import MemoryTransport, memory_transport_pair
from elemta.protocol import (
    Body,
    Mailbox,
    MailParams,
    Notify,
    OriginalRecipient,
    RcptParams,
    Reply,
    Ret,
)
from elemta.queue import Message, Recipient, Result
from tests.delivery.world import Stored

ANN: Final = Mailbox("ann", "a.example")
PLAIN: Final = "S: 250 mx.example"
PIPELINED: Final = """
    S: 250-mx.example
    S: 250 PIPELINING"""
CHUNKED: Final = """
    S: 250-mx.example
    S: 250-PIPELINING
    S: 250 CHUNKING"""
DONE: Final = Outcome(Result.DELIVERED, Reply(250, None, ("ok",)), remote=True)


SMALL: Final = Stored(b"Subject: hi\r\n\r\n.dot\r\n")


class Host:
    """The other end, which follows a script: ``S:`` says, ``C:`` must be said by the client.

    What is said in ``C:`` lines that follow each other must arrive in one piece.
    """

    def __init__(self, transport: MemoryTransport) -> None:
        self.transport = transport

    async def play(self, script: str) -> None:
        said: list[str] = []
        heard: list[str] = []
        for line in [*script.strip().splitlines(), ""]:
            who, _, text = line.strip().partition(" ")
            if who != "C:" and heard:
                await self.expect("".join(f"{text}\r\n" for text in heard).encode())
                heard = []
            if who != "S:" and said:
                await self.transport.send_all("".join(f"{text}\r\n" for text in said).encode())
                said = []
            if who:
                {"S:": said, "C:": heard}[who].append(text)

    async def expect(self, octets: bytes) -> None:
        assert await self.transport.receive() == octets


class Conversation:
    """A session that has said hello, and its host."""

    def __init__(self, *, lmtp: bool = False) -> None:
        ours, theirs = memory_transport_pair()
        self.host = Host(theirs)
        self.session = SmtpSession(ours, lmtp=lmtp)
        self.transport = ours
        self.lmtp = lmtp

    async def opened(self, hello: str) -> Conversation:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.session.open, "me.example")
            verb = "LHLO" if self.lmtp else "EHLO"
            await self.host.play(f"S: 220 hi\nC: {verb} me.example\n{hello}")
        return self

    async def send(
        self,
        script: str,
        *names: str,
        body: Stored = SMALL,
        message: Message | None = None,
        then: str = "",
    ) -> list[Outcome]:
        """What becomes of a message while the host follows the script.

        Args:
            script: what the host does.
            names: local parts of the recipients.
            body: of the message.
            message: if not a plain one from Ann.
            then: ``hang up``, ``reset`` or ``wait``: what the host does at the end of the script.
        """
        outcomes: list[Outcome] = []
        recipients = [
            Recipient(number=i, address=Mailbox(name, "b.example")) for i, name in enumerate(names)
        ]

        async def deliver() -> None:
            outcomes.extend(await self.session.send(message or letter(body), recipients, body))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(deliver)
            await self.host.play(script)
            if then == "hang up":
                self.host.transport.close()
            elif then == "reset":
                self.host.transport.reset()
        return outcomes


def letter(body: Stored = SMALL, **fields: object) -> Message:
    return Message(
        id="m1",
        recipients=[],
        received_at=0.0,
        expires_at=1.0,
        **{"sender": ANN, "size": body.size, **fields},
    )


async def plain(*, lmtp: bool = False) -> Conversation:
    return await Conversation(lmtp=lmtp).opened(PLAIN)


async def pipelined(*, lmtp: bool = False) -> Conversation:
    return await Conversation(lmtp=lmtp).opened(PIPELINED)


async def chunked(*, lmtp: bool = False) -> Conversation:
    return await Conversation(lmtp=lmtp).opened(CHUNKED)


def reply(code: int, text: str) -> Reply:
    return Reply(code, None, (text,))


# A message that is taken.


async def test_a_host_without_extensions_is_led_step_by_step() -> None:
    talk = await plain()
    assert await talk.send(
        """
        C: MAIL FROM:<ann@a.example>
        S: 250 ok
        C: RCPT TO:<bob@b.example>
        S: 250 ok
        C: DATA
        S: 354 go
        C: Subject: hi
        C:
        C: ..dot
        C: .
        S: 250 ok
        """,
        "bob",
    ) == [DONE]
    assert talk.session.usable


async def test_pipelining_takes_two_round_trips() -> None:
    talk = await pipelined()
    assert await talk.send(
        """
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: RCPT TO:<cid@b.example>
        C: DATA
        S: 250 ok
        S: 250 ok
        S: 250 ok
        S: 354 go
        C: Subject: hi
        C:
        C: ..dot
        C: .
        S: 250 ok
        """,
        "bob",
        "cid",
    ) == [DONE, DONE]


async def test_chunking_takes_one_round_trip() -> None:
    talk = await chunked()
    for _ in range(2):
        assert await talk.send(
            """
            C: MAIL FROM:<ann@a.example>
            C: RCPT TO:<bob@b.example>
            C: BDAT 21 LAST
            C: Subject: hi
            C:
            C: .dot
            S: 250 ok
            S: 250 ok
            S: 250 ok
            """,
            "bob",
        ) == [DONE]


@pytest.mark.parametrize(
    ("content", "wire"),
    [
        (b"a: b\r\n\r\nno end", "C: BDAT 16 LAST\nC: a: b\nC:\nC: no end"),
        (b"a: b\r\n\r\nx\ny\rz\r", "C: BDAT 17 LAST\nC: a: b\nC:\nC: x\nC: y\nC: z"),
    ],
)
@pytest.mark.parametrize("large", [False, True])
async def test_line_ends_are_made_clean_on_the_way_out(
    content: bytes, wire: str, large: bool
) -> None:
    talk = await Conversation().opened("S: 250-mx.example\nS: 250 CHUNKING")
    body = Stored(content, large=large, piece=100)
    assert await talk.send(
        f"""
        C: MAIL FROM:<ann@a.example>
        S: 250 ok
        C: RCPT TO:<bob@b.example>
        S: 250 ok
        {wire}
        S: 250 ok
        """,
        "bob",
        body=body,
    ) == [DONE]


@pytest.mark.parametrize("body", [Stored(b"x\r\n" * 30_000), Stored(SMALL.content, large=True)])
async def test_a_large_message_is_asked_for_first(body: Stored) -> None:
    talk = await chunked()
    assert await talk.send(
        """
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        S: 250 ok
        S: 550 no
        """,
        "bob",
        body=body,
    ) == [Outcome(Result.FAILED, reply(550, "no"), remote=True)]
    assert talk.session.usable


class Chunks:
    """The end of a host that is sent a large message by BDAT.

    Attributes:
        content: of all chunks so far.
        sizes: of the chunks.
    """

    def __init__(self, talk: Conversation) -> None:
        self.content = b""
        self.sizes: list[int] = []
        self._talk = talk

    async def take(self, *, answer_at_once: bool, refuse: int = -1) -> None:
        """Take chunks up to the last; refuse one, by its place, and all that follow."""
        transport = self._talk.host.transport
        buffer, owed, last = b"", b"", False
        while not last:
            while b"\r\n" not in buffer:
                buffer += await transport.receive()
            line, _, buffer = buffer.partition(b"\r\n")
            verb, size, *rest = line.split()
            assert verb == b"BDAT"
            last = rest == [b"LAST"]
            while len(buffer) < int(size):
                buffer += await transport.receive()
            self.content += buffer[: int(size)]
            buffer = buffer[int(size) :]
            no = 0 <= refuse <= len(self.sizes)
            self.sizes.append(int(size))
            owed += b"552 too much\r\n" if no else b"250 ok\r\n"
            if answer_at_once or last or len(self.sizes) % 16 == 0:
                await transport.send_all(owed)
                owed = b""


LONG: Final = Stored(b"Subject: hi\r\n\r\n" + b".dot\r\n" * 100, large=True)
ENVELOPE: Final = """
    C: MAIL FROM:<ann@a.example>
    C: RCPT TO:<bob@b.example>
    S: 250 ok
    S: 250 ok
    """


async def send_in_chunks(
    talk: Conversation,
    chunks: Chunks,
    *,
    envelope: str = ENVELOPE,
    answer_at_once: bool = True,
    refuse: int = -1,
) -> list[Outcome]:
    async def take() -> None:
        await talk.host.play(envelope)
        await chunks.take(answer_at_once=answer_at_once, refuse=refuse)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        recipient = Recipient(number=0, address=Mailbox("bob", "b.example"))
        outcomes = await talk.session.send(letter(LONG), [recipient], LONG)
        nursery.cancel_scope.cancel()
    return outcomes


async def test_a_large_message_goes_in_chunks_that_do_not_wait_for_each_other() -> None:
    talk = await chunked()
    chunks = Chunks(talk)
    # The host answers every 16th: as many may be on their way.
    assert await send_in_chunks(talk, chunks, answer_at_once=False) == [DONE]
    assert chunks.content == LONG.content
    assert len(chunks.sizes) > 100
    assert talk.session.usable


async def test_without_pipelining_each_chunk_is_answered_before_the_next() -> None:
    talk = await Conversation().opened("S: 250-mx.example\nS: 250 CHUNKING")
    chunks = Chunks(talk)
    envelope = """
        C: MAIL FROM:<ann@a.example>
        S: 250 ok
        C: RCPT TO:<bob@b.example>
        S: 250 ok
        """
    assert await send_in_chunks(talk, chunks, envelope=envelope) == [DONE]
    assert chunks.content == LONG.content


async def test_a_chunk_that_is_refused_ends_the_message() -> None:
    talk = await chunked()
    chunks = Chunks(talk)
    with trio.fail_after(60):
        outcomes = await send_in_chunks(talk, chunks, refuse=3)
    assert outcomes == [Outcome(Result.FAILED, reply(552, "too much"), remote=True)]
    assert len(chunks.sizes) < 40, "the rest is spared"
    assert talk.session.usable


async def test_a_message_from_disk_goes_out_piece_by_piece() -> None:
    talk = await pipelined()
    outcomes: list[Outcome] = []

    async def take() -> None:
        await talk.host.play(
            """
            C: MAIL FROM:<ann@a.example>
            C: RCPT TO:<bob@b.example>
            C: DATA
            S: 250 ok
            S: 250 ok
            S: 354 go
            """
        )
        wire = b""
        while not wire.endswith(b"\r\n.\r\n"):
            wire += await talk.host.transport.receive()
        assert wire == b"Subject: hi\r\n\r\n..dot\r\n.\r\n"
        await talk.host.play("S: 250 ok")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        body = Stored(SMALL.content, large=True)
        recipient = Recipient(number=0, address=Mailbox("bob", "b.example"))
        outcomes += await talk.session.send(letter(body), [recipient], body)
    assert outcomes == [DONE]


async def test_lmtp_has_an_outcome_for_each_recipient() -> None:
    talk = await pipelined(lmtp=True)
    assert await talk.send(
        """
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: RCPT TO:<cid@b.example>
        C: RCPT TO:<dan@b.example>
        C: RCPT TO:<eve@b.example>
        C: DATA
        S: 250 ok
        S: 250 ok
        S: 550 no
        S: 250 ok
        S: 250 ok
        S: 354 go
        C: Subject: hi
        C:
        C: ..dot
        C: .
        S: 250 ok
        S: 452 full
        S: 552 full
        """,
        "bob",
        "cid",
        "dan",
        "eve",
    ) == [
        DONE,
        Outcome(Result.FAILED, reply(550, "no"), remote=True),
        Outcome(Result.DEFERRED, reply(452, "full"), remote=True),
        Outcome(Result.FAILED, reply(552, "full"), remote=True),
    ]


async def test_parameters_are_passed_on_and_octets_above_127_declared() -> None:
    talk = await Conversation().opened(
        """
        S: 250-mx
        S: 250-SIZE 1000
        S: 250-8BITMIME
        S: 250-AUTH PLAIN
        S: 250 DSN
        """
    )
    params = MailParams(
        size=1, body=Body.SEVEN_BIT, smtputf8=True, ret=Ret.FULL, envid="e1", auth="eve@x"
    )
    notify = RcptParams(
        notify=frozenset({Notify.FAILURE}), orcpt=OriginalRecipient("rfc822", "b@x")
    )
    async with trio.open_nursery() as nursery:
        recipient = Recipient(number=0, address=Mailbox("bob", "b.example"), params=notify)
        message = letter(params=params, eight_bit=True)
        nursery.start_soon(talk.session.send, message, [recipient], SMALL)
        await talk.host.play(
            """
            C: MAIL FROM:<ann@a.example> SIZE=21 BODY=8BITMIME RET=FULL ENVID=e1
            S: 250 ok
            C: RCPT TO:<bob@b.example> NOTIFY=FAILURE ORCPT=rfc822;b@x
            S: 421 bye
            """
        )


# A message that is refused.


async def test_a_refused_sender_is_refused_for_all() -> None:
    no = Outcome(Result.FAILED, reply(550, "no"), remote=True, elsewhere=True)
    talk = await plain()
    script = "C: MAIL FROM:<ann@a.example>\nS: 550 no"
    assert await talk.send(script, "bob", "cid") == [no, no]
    assert talk.session.usable


async def test_recipients_are_refused_one_by_one() -> None:
    talk = await plain()
    assert await talk.send(
        """
        C: MAIL FROM:<ann@a.example>
        S: 250 ok
        C: RCPT TO:<bob@b.example>
        S: 550 no
        C: RCPT TO:<cid@b.example>
        S: 450 later
        """,
        "bob",
        "cid",
    ) == [
        Outcome(Result.FAILED, reply(550, "no"), remote=True),
        Outcome(Result.DEFERRED, reply(450, "later"), remote=True),
    ]
    assert await talk.send(
        """
        C: RSET
        S: 250 ok
        C: MAIL FROM:<ann@a.example>
        S: 450 later
        """,
        "bob",
    ) == [Outcome(Result.DEFERRED, reply(450, "later"), remote=True)]


async def test_a_354_for_nobody_gets_its_dot_and_nothing_else() -> None:
    talk = await pipelined()
    assert await talk.send(
        """
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: DATA
        S: 250 ok
        S: 550 no
        S: 354 go
        C: .
        S: 554 nobody
        """,
        "bob",
    ) == [Outcome(Result.FAILED, reply(550, "no"), remote=True)]
    assert talk.session.usable


@pytest.mark.parametrize(("code", "result"), [(451, Result.DEFERRED), (554, Result.FAILED)])
async def test_a_refused_data_is_the_word_on_all_who_were_accepted(
    code: int, result: Result
) -> None:
    talk = await pipelined()
    assert await talk.send(
        f"""
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: RCPT TO:<cid@b.example>
        C: DATA
        S: 250 ok
        S: 450 later
        S: 250 ok
        S: {code} no
        """,
        "bob",
        "cid",
    ) == [
        Outcome(Result.DEFERRED, reply(450, "later"), remote=True),
        Outcome(result, reply(code, "no"), remote=True),
    ]
    # The next transaction goes in one group with the RSET that it needs.
    assert await talk.send(
        """
        C: RSET
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: DATA
        S: 250 ok
        S: 550 no
        S: 503 no
        S: 503 no
        """,
        "bob",
    ) == [Outcome(Result.FAILED, reply(550, "no"), remote=True, elsewhere=True)]


@pytest.mark.parametrize(("code", "result"), [(451, Result.DEFERRED), (554, Result.FAILED)])
async def test_a_refused_message_is_refused_for_all(code: int, result: Result) -> None:
    talk = await chunked()
    assert await talk.send(
        f"""
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: BDAT 21 LAST
        C: Subject: hi
        C:
        C: .dot
        S: 250 ok
        S: 250 ok
        S: {code} no
        """,
        "bob",
    ) == [Outcome(result, reply(code, "no"), remote=True)]
    assert talk.session.usable


async def test_one_recipient_too_many_is_tried_again() -> None:
    talk = await pipelined()
    assert await talk.send(
        """
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: RCPT TO:<cid@b.example>
        C: RCPT TO:<dan@b.example>
        C: DATA
        S: 250 ok
        S: 250 ok
        S: 552 too many
        S: 552 5.2.2 mailbox full
        S: 451 later
        """,
        "bob",
        "cid",
        "dan",
    ) == [
        Outcome(Result.DEFERRED, reply(451, "later"), remote=True),
        Outcome(Result.DEFERRED, reply(552, "too many"), remote=True),
        Outcome(Result.FAILED, Reply(552, (2, 2), ("mailbox full",)), remote=True),
    ]


async def test_a_refused_reset_says_nothing_of_the_next_message() -> None:
    talk = await pipelined()
    group = """
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: DATA
        S: 250 ok
        S: 550 no
        S: 503 no
        """
    await talk.send(group, "bob")
    (outcome,) = await talk.send(
        """
        C: RSET
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: DATA
        S: 500 what
        """,
        "bob",
    )
    refused = Reply(451, (5, 1), ("RSET was refused: 500 what",))
    assert outcome == Outcome(Result.DEFERRED, refused, remote=False)
    assert not talk.session.usable


# A message that this host cannot take.


@pytest.mark.parametrize(
    ("keyword", "fields", "status"),
    [
        ("SIZE 20", {}, (3, 4)),
        ("X", {"eight_bit": True}, (6, 3)),
        ("8BITMIME", {"sender": Mailbox("j\u00f8rn", "a.example")}, (6, 7)),
    ],
)
async def test_what_the_message_needs_and_the_host_has_not_is_our_own_refusal(
    keyword: str, fields: dict[str, object], status: tuple[int, int]
) -> None:
    talk = await Conversation().opened(f"S: 250-mx\nS: 250 {keyword}")
    (outcome,) = await talk.send("", "bob", message=letter(**fields))
    assert outcome.result is Result.FAILED
    assert outcome.reply.status == status
    assert not outcome.remote
    assert outcome.elsewhere
    assert talk.session.usable


@pytest.mark.parametrize(
    ("content", "large", "needed"),
    [
        ("Subject: hi\r\n\r\ngr\u00fc\u00dfe\r\n", False, False),
        ("Subject: gr\u00fc\u00dfe\r\n\r\nhi\r\n", False, True),
        ("Subject: hi\r\n\r\ngr\u00fc\u00dfe\r\n", True, True),
    ],
)
async def test_smtputf8_is_needed_if_the_header_is_not_ascii(
    content: str, large: bool, needed: bool
) -> None:
    talk = await Conversation().opened("S: 250-mx\nS: 250 8BITMIME")
    body = Stored(content.encode(), large=large)
    message = letter(body, params=MailParams(smtputf8=True), eight_bit=True)
    script = "" if needed else "C: MAIL FROM:<ann@a.example> BODY=8BITMIME\nS: 250 ok"
    then = "" if needed else "hang up"
    (outcome,) = await talk.send(script, "bob", body=body, message=message, then=then)
    assert (outcome.result is Result.FAILED) == needed


async def test_a_domain_beyond_ascii_is_spelled_in_ascii_where_smtputf8_is_missing() -> None:
    message = letter(sender=Mailbox("ann", "b\u00fccher.example"))
    recipient = Recipient(number=0, address=Mailbox("bob", "m\u00fcnchen.example"))
    for extensions, said in [
        ("8BITMIME", ("ann@xn--bcher-kva.example>", "bob@xn--mnchen-3ya.example>")),
        ("SMTPUTF8", ("ann@b\u00fccher.example> SMTPUTF8", "bob@m\u00fcnchen.example>")),
    ]:
        talk = await Conversation().opened(f"S: 250-mx\nS: 250 {extensions}")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk.session.send, message, [recipient], SMALL)
            await talk.host.play(
                f"C: MAIL FROM:<{said[0]}\nS: 250 ok\nC: RCPT TO:<{said[1]}\nS: 421 bye"
            )


async def test_a_domain_that_has_no_spelling_in_ascii_is_for_smtputf8_alone() -> None:
    talk = await plain()
    # It was said in SMTPUTF8, and no rule made it: the DNS can have no such name.
    recipient = Recipient(number=0, address=Mailbox("bob", "\u00fc" * 64 + ".example"))
    (outcome,) = await talk.session.send(letter(), [recipient], SMALL)
    assert outcome.reply is NO_SMTPUTF8


async def test_who_cannot_be_named_without_smtputf8_keeps_nobody_else_from_getting_it() -> None:
    talk = await plain()
    assert await talk.send(
        """
        C: MAIL FROM:<ann@a.example>
        S: 250 ok
        C: RCPT TO:<bob@b.example>
        S: 250 ok
        C: RCPT TO:<cid@b.example>
        S: 550 no
        C: DATA
        S: 354 go
        C: Subject: hi
        C:
        C: ..dot
        C: .
        S: 250 ok
        """,
        "j\u00f8rn",
        "bob",
        "\u00f8le",
        "cid",
    ) == [
        Outcome(Result.FAILED, NO_SMTPUTF8, remote=False, elsewhere=True),
        DONE,
        Outcome(Result.FAILED, NO_SMTPUTF8, remote=False, elsewhere=True),
        Outcome(Result.FAILED, reply(550, "no"), remote=True),
    ]
    (outcome,) = await talk.send("", "j\u00f8rn")
    assert outcome.reply is NO_SMTPUTF8
    assert talk.session.usable


async def test_an_alias_beyond_ascii_makes_a_message_smtputf8() -> None:
    talk = await Conversation().opened("S: 250-mx\nS: 250-8BITMIME\nS: 250 SMTPUTF8")
    await talk.send("C: MAIL FROM:<ann@a.example> SMTPUTF8", "j\u00f8rn", then="hang up")


# A host that fails us.


async def test_a_421_defers_whoever_is_undecided_with_its_words() -> None:
    talk = await pipelined()
    assert await talk.send(
        """
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: RCPT TO:<cid@b.example>
        C: DATA
        S: 250 ok
        S: 550 no
        S: 421 bye
        """,
        "bob",
        "cid",
    ) == [
        Outcome(Result.FAILED, reply(550, "no"), remote=True),
        Outcome(Result.DEFERRED, reply(421, "bye"), remote=True),
    ]
    assert not talk.session.usable


@pytest.mark.parametrize(
    ("then", "said", "text"),
    [
        ("hang up", "", "the host hung up while we waited for the answer to the envelope"),
        ("reset", "", "connection lost while waiting for the answer to the envelope"),
        ("wait", "", "timed out waiting for the answer to the envelope"),
        ("wait", "S: 999 x", "the host broke the protocol: no reply code: b'999 x"),
    ],
)
async def test_a_host_that_is_lost_defers(
    then: str, said: str, text: str, autojump_clock: trio.testing.MockClock
) -> None:
    talk = await pipelined()
    script = "C: MAIL FROM:<ann@a.example>\nC: RCPT TO:<bob@b.example>\nC: DATA\n" + said
    (outcome,) = await talk.send(script, "bob", then=then)
    assert outcome.result is Result.DEFERRED
    assert outcome.reply.code == 451
    assert outcome.reply.text.startswith(text)
    assert not outcome.remote
    assert not talk.session.usable


async def test_a_host_may_take_its_time_for_each_phase(
    autojump_clock: trio.testing.MockClock,
) -> None:
    talk = await plain()
    answers = ["250 ok", "250 ok", "354 go", "250 ok"]
    waits = [299, 299, 119, 599]

    async def slow() -> None:
        for seconds, answer in zip(waits, answers, strict=True):
            await talk.host.transport.receive()
            await trio.sleep(seconds)
            await talk.host.play(f"S: {answer}")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(slow)
        recipient = Recipient(number=0, address=Mailbox("bob", "b.example"))
        assert await talk.session.send(letter(), [recipient], SMALL) == [DONE]


async def test_a_host_may_take_its_time_for_each_answer_to_a_group(
    autojump_clock: trio.testing.MockClock,
) -> None:
    talk = await pipelined()

    async def slow() -> None:
        await talk.host.transport.receive()
        for answer in ("250 ok", "250 ok", "354 go"):
            await trio.sleep(299)
            await talk.host.play(f"S: {answer}")
        await talk.host.transport.receive()
        await talk.host.play("S: 250 ok")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(slow)
        recipient = Recipient(number=0, address=Mailbox("bob", "b.example"))
        assert await talk.session.send(letter(), [recipient], SMALL) == [DONE]


async def test_an_answer_lost_behind_the_dot_is_noted(
    autojump_clock: trio.testing.MockClock,
) -> None:
    lines = io.StringIO()
    log.configure("json", "info", lines)
    try:
        talk = await pipelined()
        began = trio.current_time()
        (outcome,) = await talk.send(
            """
            C: MAIL FROM:<ann@a.example>
            C: RCPT TO:<bob@b.example>
            C: DATA
            S: 250 ok
            S: 250 ok
            S: 354 go
            C: Subject: hi
            C:
            C: ..dot
            C: .
            """,
            "bob",
            then="wait",
        )
    finally:
        log.configure()
    assert trio.current_time() - began == 600
    assert outcome.result is Result.DEFERRED
    assert outcome.reply.text == "timed out waiting for the answer to the message"
    assert '"event":"delivery.answer_lost"' in lines.getvalue()
    assert '"id":"m1"' in lines.getvalue()


async def test_a_host_that_takes_no_content_is_given_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ours, theirs = memory_transport_pair(buffer=200)
    talk = Conversation()
    talk.host, talk.session = Host(theirs), SmtpSession(ours)
    await talk.opened(PIPELINED)
    (outcome,) = await talk.send(
        """
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: DATA
        S: 250 ok
        S: 250 ok
        S: 354 go
        """,
        "bob",
        body=Stored(b"a: b\r\n" * 100, large=True),
        then="wait",
    )
    assert outcome.reply.text == "timed out waiting for the host to take the content"


async def test_a_cancelled_session_can_only_be_closed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    talk = await plain()
    with trio.move_on_after(1):
        recipient = Recipient(number=0, address=Mailbox("bob", "b.example"))
        await talk.session.send(letter(), [recipient], SMALL)
    assert not talk.session.usable
    await talk.session.quit()
    assert await talk.host.transport.receive() == b"MAIL FROM:<ann@a.example>\r\n"
    assert await talk.host.transport.receive() == b""


@pytest.mark.parametrize(("goodbye", "code"), [("", 451), ("S: 421 idle too long", 421)])
async def test_a_host_that_hung_up_between_messages_is_noticed_before_the_next(
    goodbye: str, code: int, autojump_clock: trio.testing.MockClock
) -> None:
    talk = await chunked()
    await talk.host.play(goodbye)
    talk.host.transport.close()
    await trio.sleep(60)
    assert talk.session.usable  # nobody has told us yet
    (outcome,) = await talk.send("", "bob")
    assert (outcome.result, outcome.reply.code) == (Result.DEFERRED, code)
    assert talk.session.unheard
    assert not talk.session.usable


async def test_a_connection_that_was_kept_is_used_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    talk = await plain()
    await trio.sleep(60)
    await talk.send("C: MAIL FROM:<ann@a.example>\nS: 550 no", "bob")
    assert talk.session.usable
    assert not talk.session.unheard


@pytest.mark.parametrize(
    ("answers", "then", "unheard"),
    [
        ("S: 250 ok\nS: 421 bye", "", True),
        ("S: 250 ok\nS: 250 ok", "hang up", False),
        ("S: 250 ok\nS: 550 no\nS: 503 no", "", False),
    ],
)
async def test_only_silence_leaves_us_in_doubt_whether_a_message_was_taken(
    answers: str, then: str, unheard: bool
) -> None:
    talk = await chunked()
    script = f"""
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: BDAT 21 LAST
        C: Subject: hi
        C:
        C: .dot
        {answers}
        """
    await talk.send(script, "bob", then=then)
    assert talk.session.unheard == unheard


# Hello and goodbye.


async def opening(script: str, *, then: str = "", lmtp: bool = False) -> HostUnusable | None:
    talk = Conversation(lmtp=lmtp)
    unusable: list[HostUnusable] = []

    async def open_session() -> None:
        try:
            await talk.session.open("me.example")
        except HostUnusable as error:
            unusable.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(open_session)
        await talk.host.play(script)
        if then == "hang up":
            talk.host.transport.close()
    assert talk.session.usable == (not unusable)
    return unusable[0] if unusable else None


async def test_a_host_that_knows_no_ehlo_hears_helo() -> None:
    script = "S: 220 hi\nC: EHLO me.example\nS: 502 what\nC: HELO me.example\nS: 250 mx"
    assert await opening(script) is None


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("S: 554 5.7.1 your address is blocked", "554 5.7.1 your address is blocked"),
        ("S: 450 busy", "450 busy"),
        ("S: 421 busy", "421 busy"),
        ("S: 220 hi\nC: EHLO me.example\nS: 450 busy", "450 busy"),
        ("S: 220 hi\nC: EHLO me.example\nS: 550 no\nC: HELO me.example\nS: 550 no", "550 no"),
    ],
)
async def test_an_unwelcoming_host_is_left_with_its_words(script: str, words: str) -> None:
    unusable = await opening(script)
    assert unusable is not None
    assert str(unusable) == str(unusable.reply) == words
    assert unusable.remote


async def test_lmtp_has_no_helo_to_fall_back_to() -> None:
    script = "S: 220 hi\nC: LHLO me.example\nS: 500 what"
    unusable = await opening(script, lmtp=True)
    assert unusable is not None
    assert unusable.reply.code == 500


@pytest.mark.parametrize(
    ("script", "then", "text"),
    [
        ("", "hang up", "the host hung up while we waited for the greeting"),
        ("", "wait", "timed out waiting for the greeting"),
        ("S: 220 hi\nC: EHLO me.example", "wait", "timed out waiting for the answer to EHLO"),
        ("S: SSH-2.0-x", "wait", "the host broke the protocol: no reply code: b'SSH-2.0-x\\r\\n'"),
    ],
)
async def test_a_host_that_is_no_mail_server_is_unusable(
    script: str, then: str, text: str, autojump_clock: trio.testing.MockClock
) -> None:
    unusable = await opening(script, then=then)
    assert unusable is not None
    assert unusable.reply.code == 451
    assert unusable.reply.text == text
    assert not unusable.remote


async def test_quit_is_said_and_the_transport_closed() -> None:
    talk = await plain()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk.session.quit)
        await talk.host.play("C: QUIT\nS: 221 bye")
    assert await talk.host.transport.receive() == b""
    assert not talk.session.usable


async def test_the_answer_to_quit_is_not_waited_for_long(
    autojump_clock: trio.testing.MockClock,
) -> None:
    talk = await plain()
    began = trio.current_time()
    await talk.session.quit()
    assert trio.current_time() - began == 5
    assert await talk.host.transport.receive() == b"QUIT\r\n"
    assert await talk.host.transport.receive() == b""


async def test_an_unwelcoming_host_hears_quit() -> None:
    talk = Conversation()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk.host.play, "S: 554 no\nC: QUIT\nS: 221 bye")
        with pytest.raises(HostUnusable):
            await talk.session.open("me.example", Timeouts(greeting=1))
        await talk.session.quit()


@pytest.mark.parametrize(
    ("limits", "most"),
    [("X", 100), ("LIMITS RCPTMAX=50", 50), ("LIMITS RCPTMAX=5000", 100), ("LIMITS RCPTMAX=0", 1)],
)
async def test_a_host_may_announce_how_many_recipients_it_takes(limits: str, most: int) -> None:
    talk = await Conversation().opened(f"S: 250-mx\nS: 250 {limits}")
    assert talk.session.recipient_limit == most
    assert talk.session.extensions.dsn is False


async def test_a_host_may_announce_how_many_messages_it_takes() -> None:
    talk = await Conversation().opened("S: 250-mx\nS: 250 LIMITS MAILMAX=1")
    assert talk.session.usable
    await talk.send("C: MAIL FROM:<ann@a.example>\nS: 550 no", "bob")
    assert not talk.session.usable
