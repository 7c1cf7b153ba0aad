from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked
from typing_extensions import override

from elemta.listener import budget
from elemta.listener.intake import SMALL
from elemta.plugins import (
    CONTINUE,
    Content,
    Defer,
    Plugin,
    Reject,
    Session,
    Transaction,
    Verdict,
)
from tests.dialogue import STRANGER, TRUSTED, Server
from tests.fakes import FakeQueue

if TYPE_CHECKING:
    from trio.testing import MockClock

    from elemta.protocol import Mailbox

ENVELOPE = """
    S: 220 mx.example ESMTP
    C: EHLO client.example
    S: 250 ...
    C: MAIL FROM:<a@b.example>
    C: RCPT TO:<alice@here.example>
    S: 250 2.1.0 sender OK
    S: 250 2.1.5 recipient OK
"""

MESSAGE = (
    ENVELOPE
    + """
    C: DATA
    S: 354 end with <CRLF>.<CRLF>
"""
)


async def test_a_message_is_kept_as_it_came_below_one_field_of_ours(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = Server()
    nursery.start_soon(server.run)
    await server.play(MESSAGE)
    await server.play("""
        C: Subject: x
        C:
        C: ..stuffed
        C: .
        S: 250 2.0.0 OK: queued as Q1
    """)
    (kept,) = server.queue.kept
    trace, content = kept.content.split(b"Subject:")
    assert content == b" x\r\n\r\n.stuffed\r\n"
    assert b" ".join(trace.split()) == (
        b"Received: from client.example ([192.0.2.1]) by mx.example with ESMTP id Q1"
        b" for <alice@here.example>; Sun, 22 Nov 2026 00:00:00 +0000"
    )


async def test_the_envelope_says_who_handed_it_in(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = Server()
    nursery.start_soon(server.run)
    await server.play("""
        S: 220 ...
        C: EHLO client.example
        C: MAIL FROM:<a@b.example> RET=HDRS ENVID=abc BODY=8BITMIME
        C: RCPT TO:<alice@here.example> NOTIFY=NEVER
        C: DATA
        S: 250 ...
        S: 250 ...
        S: 250 ...
        S: 354 ...
        C: Received: by one
        C: Received: by two
        C:
        C: .
        S: 250 ...
    """)
    envelope = server.queue.kept[0].envelope
    assert str(envelope.sender) == "a@b.example"
    assert envelope.params.envid == "abc"
    (addressee,) = envelope.recipients
    assert (str(addressee.address), addressee.original) == ("alice@here.example", None)
    assert [word.name for word in addressee.params.notify] == ["NEVER"]
    assert envelope.hops == 2
    origin = envelope.origin
    assert (origin.address, origin.helo, origin.listener) == (STRANGER, "client.example", "mx")
    assert origin.protocol == "ESMTP"
    assert len(origin.session) == 12


# Fault 18 of the original: Received at the end, naming every recipient.
async def test_recipients_are_not_told_of_each_other(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = Server()
    nursery.start_soon(server.run)
    await server.play(ENVELOPE)
    await server.play("""
        C: RCPT TO:<carol@here.example>
        C: DATA
        S: 250 ...
        S: 354 ...
        C: Subject: x
        C: .
        S: 250 ...
    """)
    (kept,) = server.queue.kept
    assert kept.content.startswith(b"Received: from client.example")
    assert b"alice" not in kept.content
    assert b"carol" not in kept.content
    assert kept.content.endswith(b"Subject: x\r\n")
    assert len(kept.envelope.recipients) == 2


async def test_an_alias_of_one_recipient_is_not_told_in_the_message(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = Server()
    nursery.start_soon(server.run)
    await server.play("""
        S: 220 ...
        C: EHLO client.example
        C: MAIL FROM:<>
        C: RCPT TO:<team@here.example>
        C: RCPT TO:<alice@here.example>
        C: DATA
        S: 250 ...
        S: 250 ...
        S: 250 ...
        S: 250 ...
        S: 354 ...
        C: .
        S: 250 ...
    """)
    (kept,) = server.queue.kept
    assert sorted(str(each.address) for each in kept.envelope.recipients) == [
        "alice@here.example",  # once, though named twice
        "bob@here.example",
        "carol@here.example",
    ]
    assert b"for <" not in kept.content


async def test_a_recipient_that_is_named_twice_is_one(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = Server()
    nursery.start_soon(server.run)
    await server.play("""
        S: 220 ...
        C: EHLO client.example
        C: MAIL FROM:<a@b.example>
        C: RCPT TO:<alice@here.example> NOTIFY=NEVER
        C: RCPT TO:<alice@here.example>
        C: DATA
        S: 250 ...
        S: 250 ...
        S: 250 ...
        S: 250 ...
        S: 354 ...
        C: .
        S: 250 ...
    """)
    (addressee,) = server.queue.kept[0].envelope.recipients
    assert [word.name for word in addressee.params.notify] == ["NEVER"]


# Fault 18 of the original: no loop was ever noticed.
@pytest.mark.parametrize(
    ("hops", "answer"),
    [
        (50, "250 2.0.0 OK: queued as Q1"),
        (51, "554 5.4.6 too many hops, this message goes round in circles"),
    ],
)
async def test_a_message_that_goes_round_in_circles_is_refused(
    hops: int, answer: str, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = Server()
    nursery.start_soon(server.run)
    await server.play(MESSAGE)
    await server.client.send_all(b"Received: by mx.example\r\n" * hops + b"\r\nx\r\n.\r\n")
    await server.expect(answer)
    assert len(server.queue.kept) == (hops == 50)


@pytest.mark.parametrize("header", [b"X: y\r\n" * 1001, (b"X: " + b"y" * 900 + b"\r\n") * 150])
async def test_a_header_without_end_is_refused(
    header: bytes, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = Server()
    nursery.start_soon(server.run)
    await server.play(MESSAGE)
    await server.client.send_all(header + b"\r\nx\r\n.\r\n")
    await server.expect("552 5.3.4 message header too big")
    await server.play("""
        C: NOOP
        S: 250 2.0.0 OK
        Q: 0
    """)


async def test_a_large_message_is_streamed(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = Server()
    nursery.start_soon(server.run)
    await server.play(MESSAGE)
    line = b"x" * 998 + b"\r\n"
    await server.client.send_all(b"Subject: large\r\n\r\n")
    for _ in range(4):
        await server.client.send_all(line * 256)
    await server.client.send_all(b".\r\n")
    await server.expect("250 2.0.0 OK: queued as Q1")
    (kept,) = server.queue.kept
    assert kept.content.endswith(b"\r\n" + line * 1024)
    assert kept.content.startswith(b"Received:")
    assert server.queue.streamed == 1
    assert server.queue.open == 0
    assert server.queue.largest_write < SMALL + 2 * 65536


async def test_what_is_larger_than_it_said_is_refused_after_its_end(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = Server(message_size="1 MiB")
    nursery.start_soon(server.run)
    await server.play(MESSAGE)
    for _ in range(2):
        await server.client.send_all((b"x" * 998 + b"\r\n") * 600)
    await server.client.send_all(b".\r\n")
    await server.play("""
        S: 552 5.3.4 message too big
        C: NOOP
        S: 250 2.0.0 OK
        Q: 0
    """)
    assert server.queue.open == 0


@pytest.mark.parametrize("size", [100, 600_000], ids=["small", "large"])
async def test_a_message_cut_short_leaves_no_trace(
    size: int, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = Server()
    nursery.start_soon(server.run)
    await server.play(MESSAGE)
    await server.client.send_all(b"\r\nhalf a mess" * (size // 13))
    server.client.close()
    await wait_all_tasks_blocked()
    assert server.queue.kept == []
    assert server.queue.open == 0
    assert server.house.budget.free == server.house.budget.total
    assert len(server.house.roster) == 0


@pytest.mark.parametrize("size", [100, 600_000], ids=["small", "large"])
async def test_a_reset_in_mid_message_leaves_no_trace(
    size: int, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = Server()
    nursery.start_soon(server.run)
    await server.play(MESSAGE)
    await server.client.send_all(b"\r\nhalf a mess" * (size // 13))
    await wait_all_tasks_blocked()
    server.client.reset()
    await wait_all_tasks_blocked()
    assert server.queue.kept == []
    assert server.queue.open == 0


async def test_mail_is_refused_for_now_while_there_is_no_room(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = Server()
    server.queue.full = True
    nursery.start_soon(server.run)
    await server.play("""
        S: 220 ...
        C: EHLO client.example
        C: MAIL FROM:<a@b.example>
        S: 250 ...
        S: 452 4.3.1 no room for mail now, try again later
    """)
    server.queue.full, server.queue.healthy = False, False
    await server.play("""
        C: MAIL FROM:<a@b.example>
        S: 452 4.3.1 no room for mail now, try again later
    """)
    server.queue.healthy = True
    await server.play("""
        C: MAIL FROM:<a@b.example>
        S: 250 2.1.0 sender OK
    """)


@pytest.mark.parametrize("size", [100, 600_000], ids=["small", "large"])
@pytest.mark.parametrize(
    ("full", "answer"),
    [
        (True, "452 4.3.1 no room for mail now, try again later"),
        (False, "451 4.3.0 cannot keep mail now, try again later"),
    ],
    ids=["full", "broken"],
)
async def test_what_the_disk_does_not_take_is_not_answered_for(
    size: int, full: bool, answer: str, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = Server()
    nursery.start_soon(server.run)
    await server.play(MESSAGE)
    server.queue.broken, server.queue.full = True, full
    await server.client.send_all(b"\r\na message" * (size // 11) + b"\r\n" + b".\r\n")
    await server.expect(answer)
    server.queue.broken = server.queue.full = False
    assert server.queue.kept == []
    assert server.queue.open == 0
    await server.play("""
        C: MAIL FROM:<a@b.example>
        S: 250 2.1.0 sender OK
    """)


async def test_without_memory_a_client_waits_and_then_comes_again(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = Server()
    nursery.start_soon(server.run)
    with server.house.budget.share() as others:
        assert others.grow(server.house.budget.free - 50)
        await server.play(MESSAGE)
        began = trio.current_time()
        await server.play("""
            C: more octets than there is memory for, in this one line of a message
            C: .
            S: 452 4.3.1 no room for mail now, try again later
        """)
        assert trio.current_time() - began == pytest.approx(budget.PATIENCE)
        assert server.house.budget.free == 50
        await server.play("""
            C: MAIL FROM:<a@b.example>
            C: RCPT TO:<alice@here.example>
            C: DATA
            S: 250 ...
            S: 250 ...
            S: 354 ...
            C: this one is too long as well, but others finish while it waits
            C: .
        """)
        await trio.sleep(5)
        assert server.queue.kept == []
    await server.expect("250 2.0.0 OK: queued as Q2")


async def test_draining_spares_a_message_in_transit(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    idle = Server()
    busy = Server(house=idle.house)
    half = Server(house=idle.house)
    for server in (idle, busy, half):
        nursery.start_soon(server.run)
    await idle.play("S: 220 mx.example ESMTP")
    await half.play("S: 220 mx.example ESMTP")
    await half.client.send_all(b"EHLO clie")
    await busy.play(MESSAGE)
    await wait_all_tasks_blocked()
    idle.house.roster.drain()
    for server in (idle, half):
        await server.play("""
            S: 421 4.3.2 shutting down, come again
            E:
        """)
    await busy.play("""
        C: .
        C: MAIL FROM:<next@b.example>
        S: 250 2.0.0 OK: queued as Q1
        S: 250 2.1.0 sender OK
        C: RSET
        S: 250 2.0.0 OK
        S: 421 4.3.2 shutting down, come again
        E:
    """)
    assert len(idle.house.roster) == 0


async def test_a_reset_transaction_is_no_reason_to_wait(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = Server()
    nursery.start_soon(server.run)
    await server.play(ENVELOPE)
    await server.play("""
        C: RSET
        S: 250 2.0.0 OK
    """)
    await wait_all_tasks_blocked()
    server.house.roster.drain()
    await server.expect("421 4.3.2 shutting down, come again")


async def test_a_client_that_comes_while_we_drain_is_sent_away(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = Server()
    server.house.roster.drain()
    nursery.start_soon(server.run)
    await server.play("""
        S: 220 ...
        S: 421 4.3.2 shutting down, come again
        E:
    """)


async def test_cancelling_says_goodbye(autojump_clock: MockClock) -> None:
    server = Server()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run)
        await server.play("S: 220 ...")
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    await server.play("""
        S: 421 4.3.2 shutting down, come again
        E:
    """)


async def test_a_goodbye_that_nobody_reads_does_not_take_long(autojump_clock: MockClock) -> None:
    server = Server(buffer=30)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.session.run)
        await wait_all_tasks_blocked()
        assert await server.line() == "220 mx.example ESMTP"
        await server.client.send_all(b"RSET\r\n")
        await wait_all_tasks_blocked()
        began = trio.current_time()
        nursery.cancel_scope.cancel()
    assert trio.current_time() - began < 10


async def test_nothing_follows_half_a_reply(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = Server(buffer=3)
    cancelled = trio.CancelScope()

    async def run() -> None:
        with cancelled:
            await server.session.run()

    nursery.start_soon(run)
    await wait_all_tasks_blocked()
    cancelled.cancel()
    heard = b""
    while octets := await server.client.receive():  # it listens, but too late
        heard += octets
    assert heard == b"220"


async def test_a_goodbye_waits_for_a_slow_reader(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = Server(buffer=40)
    cancelled = trio.CancelScope()

    async def run() -> None:
        with cancelled:
            await server.session.run()

    nursery.start_soon(run)
    await server.expect("220 mx.example ESMTP")
    await server.client.send_all(b"HELO x.example\r\n")
    await wait_all_tasks_blocked()
    cancelled.cancel()
    await trio.sleep(1)
    await server.play("""
        S: 250 mx.example
        S: 421 4.3.2 shutting down, come again
        E:
    """)


async def test_who_does_not_read_the_last_word_is_not_waited_for(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = Server(buffer=10)
    nursery.start_soon(server.run)
    assert await server.line() == "220 mx.example ESMTP"
    await server.client.send_all(b"QUIT\r\n")
    await trio.sleep(20)
    assert len(server.house.roster) == 0


async def test_small_talk_buys_no_time_before_ehlo(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = Server()
    nursery.start_soon(server.run)
    await server.play("S: 220 ...")
    for _ in range(5):
        await trio.sleep(5)
        await server.play("""
            C: NOOP
            S: 250 2.0.0 OK
        """)
    await server.expect("421 4.4.2 timed out waiting for you")
    assert 30 <= trio.current_time() < 32


async def test_a_command_that_comes_octet_by_octet_is_too_slow(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = Server()
    nursery.start_soon(server.run)
    await server.play("""
        S: 220 ...
        C: EHLO client.example
        S: 250 ...
    """)
    for octet in b"NOOP 12":
        await server.client.send_all(bytes([octet]))
        await trio.sleep(40)
    await server.expect("421 4.4.2 timed out waiting for you")
    assert trio.current_time() < 320


async def test_a_client_that_does_not_read_is_given_up(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = Server(buffer=8)
    nursery.start_soon(server.run)
    await trio.sleep(400)
    heard = b""
    while octets := await server.client.receive():
        heard += octets
    assert heard == b"220 mx.e"
    assert len(server.house.roster) == 0


async def test_who_speaks_before_the_greeting_is_sent_away(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = Server()
    await server.client.send_all(b"EHLO spammer.example\r\n")
    nursery.start_soon(server.run)
    await server.play("""
        S: 554 5.5.0 you spoke before you were greeted
        E:
    """)


async def test_who_leaves_before_the_greeting_costs_nothing(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = Server()
    server.client.close()
    nursery.start_soon(server.run)
    await wait_all_tasks_blocked()
    assert len(server.house.roster) == 0


async def test_mistakes_are_answered_ever_more_slowly(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = Server()
    nursery.start_soon(server.run)
    await server.play("""
        S: 220 ...
        C: EHLO client.example
        S: 250 ...
    """)
    waits: list[float] = []
    for _ in range(8):
        began = trio.current_time()
        await server.play("""
            C: DATA
            S: 503 5.5.1 bad sequence of commands
        """)
        waits.append(trio.current_time() - began)
    assert waits == pytest.approx([0, 0, 0, 0, 0, 1, 2, 3])


async def test_a_message_that_is_taken_makes_up_for_mistakes(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = Server(hard_errors=5)
    nursery.start_soon(server.run)
    await server.play("""
        S: 220 ...
        C: EHLO client.example
        S: 250 ...
    """)
    for number in range(1, 4):
        await server.play(f"""
            C: RCPT TO:<x@y.example>
            C: RCPT TO:<x@y.example>
            C: RCPT TO:<x@y.example>
            C: MAIL FROM:<>
            C: RCPT TO:<alice@here.example>
            C: DATA
            S: 503 5.5.1 bad sequence of commands
            S: 503 5.5.1 bad sequence of commands
            S: 503 5.5.1 bad sequence of commands
            S: 250 ...
            S: 250 ...
            S: 354 ...
            C: .
            S: 250 2.0.0 OK: queued as Q{number}
        """)


async def test_when_many_are_connected_the_idle_must_hurry(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    first = Server()
    first.house.roster.places = 5
    nursery.start_soon(first.run)
    await first.play("""
        S: 220 ...
        C: EHLO client.example
        S: 250 ...
    """)
    await trio.sleep(100)
    others = [Server(house=first.house) for _ in range(4)]
    for other in others:
        nursery.start_soon(other.run)
    await others[-1].play("S: 220 ...")
    assert first.house.roster.busy
    began = trio.current_time()
    await first.play("""
        S: 421 4.4.2 timed out waiting for you
        E:
    """)
    assert 9 < trio.current_time() - began < 12
    await others[0].play("S: 220 ...")
    await others[0].play("""
        S: 421 4.4.2 timed out waiting for you
        E:
    """)
    assert not first.house.roster.busy


async def test_when_many_are_connected_a_message_must_come_at_a_rate(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = Server(data_rate="500 B")
    nursery.start_soon(server.run)
    await server.play(MESSAGE)
    server.house.roster.busy = True
    began = trio.current_time()
    with suppress(trio.BrokenResourceError):
        while trio.current_time() - began < 1000:
            await server.client.send_all(b"x" * 998 + b"\r\n")
            await trio.sleep(20)
    assert 180 < trio.current_time() - began < 260
    assert server.queue.kept == []


async def test_a_slow_disk_is_not_the_clients_fault(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = Server()
    nursery.start_soon(server.run)
    await server.play(MESSAGE)
    server.queue.slow = trio.Event()
    await server.play("C: .")
    await trio.sleep(1000)
    server.queue.slow.set()
    await server.play("""
        S: 250 2.0.0 OK: queued as Q1
        C: QUIT
        S: 221 2.0.0 bye
        E:
    """)


class BrokenQueue(FakeQueue):
    """A bug of ours."""

    @override
    def room(self) -> bool:
        raise ZeroDivisionError


async def test_a_bug_costs_one_session(
    nursery: trio.Nursery, autojump_clock: MockClock, capfd: pytest.CaptureFixture[str]
) -> None:
    server = Server(queue=BrokenQueue())
    nursery.start_soon(server.run)
    await server.play("""
        S: 220 ...
        C: EHLO client.example
        C: MAIL FROM:<>
        S: 250 ...
        S: 421 4.3.0 internal error, come again
        E:
    """)
    logged = capfd.readouterr().err
    assert "session.failed" in logged
    assert "ZeroDivisionError" in logged


class Everywhere(Plugin):
    """Notes what it is asked, and objects at one step."""

    name = "everywhere"

    def __init__(self, step: str = "", verdict: Verdict = CONTINUE) -> None:
        self._step = step
        self._verdict = verdict
        self.asked: list[str] = []
        self.content = b""

    def _judge(self, step: str) -> Verdict:
        self.asked.append(step)
        return self._verdict if step == self._step else CONTINUE

    @override
    async def on_connect(self, session: Session) -> Verdict:
        assert session.address == STRANGER
        assert not session.trusted
        return self._judge("connect")

    @override
    async def on_hello(self, session: Session, name: str) -> Verdict:
        assert (session.helo, name) == ("", "client.example")
        return self._judge("hello")

    @override
    async def on_mail(self, transaction: Transaction) -> Verdict:
        assert transaction.session.helo == "client.example"
        assert str(transaction.sender) == "a@b.example"
        return self._judge("mail")

    @override
    async def on_rcpt(self, transaction: Transaction, recipient: Mailbox) -> Verdict:
        assert transaction.recipients == []
        assert str(recipient) == "alice@here.example"
        return self._judge("rcpt")

    @override
    async def on_data(self, transaction: Transaction) -> Verdict:
        assert [str(each) for each in transaction.recipients] == ["alice@here.example"]
        return self._judge("data")

    @override
    async def on_message(self, transaction: Transaction, content: Content) -> Verdict:
        self.content = await content.read()
        return self._judge("message")


CONVERSATION = {
    "connect": ("", "220 mx.example ESMTP"),
    "hello": ("EHLO client.example", "250 ..."),
    "mail": ("MAIL FROM:<a@b.example>", "250 2.1.0 sender OK"),
    "rcpt": ("RCPT TO:<alice@here.example>", "250 2.1.5 recipient OK"),
    "data": ("DATA", "354 end with <CRLF>.<CRLF>"),
    "message": ("Subject: x\r\n.", "250 2.0.0 OK: queued as Q1"),
}


@pytest.mark.parametrize("step", ["", *CONVERSATION])
@pytest.mark.parametrize(
    ("verdict", "answers"),
    [
        (Defer((7, 1), "not now", note="a rule"), ("421 4.7.1 not now", "451 4.7.1 not now")),
        (Reject((7, 1), "never", note="a rule"), ("554 5.7.1 never", "550 5.7.1 never")),
    ],
    ids=["defer", "reject"],
)
async def test_plugins_judge_each_step(
    step: str,
    verdict: Verdict,
    answers: tuple[str, str],
    nursery: trio.Nursery,
    autojump_clock: MockClock,
) -> None:
    plugin = Everywhere(step, verdict)
    server = Server(plugin)
    nursery.start_soon(server.run)
    steps = list(CONVERSATION)
    for each, (command, agreed) in CONVERSATION.items():
        if command:
            await server.client.send_all(command.encode() + b"\r\n")
        if each == step:
            await server.expect(answers[each != "connect"])
            assert plugin.asked == steps[: steps.index(step) + 1]
            assert server.queue.kept == []
            return
        await server.expect(agreed)
    assert plugin.asked == steps
    assert plugin.content == b"Subject: x\r\n"
    assert len(server.queue.kept) == 1


async def test_a_plugins_refusal_of_the_envelope_holds_for_chunks(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = Server(Everywhere("data", Reject((7, 1), "never")))
    nursery.start_soon(server.run)
    await server.play(ENVELOPE)
    await server.client.send_all(b"BDAT 3\r\na\r\nBDAT 3 LAST\r\nb\r\nNOOP\r\n")
    await server.play("""
        S: 550 5.7.1 never
        S: 503 5.5.1 bad sequence of commands
        S: 250 2.0.0 OK
        Q: 0
    """)


async def test_plugins_are_shown_a_large_message_whole(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    plugin = Everywhere()
    server = Server(plugin)
    nursery.start_soon(server.run)
    await server.play(MESSAGE)
    await server.client.send_all(b"\r\n")
    for _ in range(3):
        await server.client.send_all((b"x" * 998 + b"\r\n") * 256)
    await server.client.send_all(b".\r\n")
    await server.expect("250 2.0.0 OK: queued as Q1")
    assert plugin.content == b"\r\n" + (b"x" * 998 + b"\r\n") * 768
    assert server.queue.kept[0].content.endswith(plugin.content)


class Broken(Plugin):
    name = "broken"

    @override
    async def on_mail(self, transaction: Transaction) -> Verdict:
        raise RuntimeError("bug")


class Hanging(Plugin):
    name = "hanging"

    @override
    async def on_mail(self, transaction: Transaction) -> Verdict:
        await trio.sleep_forever()
        raise AssertionError


class Mute(Plugin):
    """Of an author who does not check types."""

    name = "mute"

    @override
    async def on_mail(self, transaction: Transaction) -> Verdict:
        return None  # type: ignore[return-value] # the mistake that is tested


@pytest.mark.parametrize("plugin", [Broken(), Hanging(), Mute()], ids=lambda plugin: plugin.name)
async def test_a_failing_plugin_defers_mail(
    plugin: Plugin, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = Server(plugin)
    nursery.start_soon(server.run)
    await server.play("""
        S: 220 mx.example ESMTP
        C: HELO relay.example
        S: 250 mx.example
        C: MAIL FROM:<>
        S: 451 4.3.0 try again later
        C: RCPT TO:<alice@here.example>
        S: 503 5.5.1 bad sequence of commands
    """)


async def test_a_trusted_client_is_known_to_plugins(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    seen: list[bool] = []

    class Look(Plugin):
        name = "look"

        @override
        async def on_connect(self, session: Session) -> Verdict:
            seen.append(session.trusted)
            return CONTINUE

    for client in (STRANGER, TRUSTED):
        server = Server(Look(), client=client)
        nursery.start_soon(server.run)
        await server.expect("220 mx.example ESMTP")
    assert seen == [False, True]


async def test_what_comes_in_and_how_long_it_took_is_measured(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = Server()
    nursery.start_soon(server.run)
    await server.play(MESSAGE)
    await trio.sleep(20)
    await server.play("""
        C: Subject: x
        C: .
        S: 250 2.0.0 OK: queued as Q1
        C: QUIT
        S: 221 2.0.0 bye
    """)
    await server.expect_end()
    meters = server.house.meters
    assert (sum(meters.accepts.counts), meters.accepts.total) == (1, pytest.approx(20))
    assert (sum(meters.octets.counts), meters.octets.total) == (1, 12)
    assert meters.conversations.total >= 20
    assert not meters.connection_errors


async def test_who_takes_too_long_is_counted_as_an_error(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = Server()
    nursery.start_soon(server.run)
    await server.expect("220 mx.example ESMTP")
    await server.expect("421 4.4.2 timed out waiting for you")
    await server.expect_end()
    assert server.house.meters.connection_errors == {"timed_out": 1}


async def test_refusals_are_counted_by_their_reason(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    class Picky(Plugin):
        name = "picky"

        @override
        async def on_rcpt(self, transaction: Transaction, recipient: Mailbox) -> Verdict:
            return Reject((7, 1), "not you")

    server = Server(Picky())
    nursery.start_soon(server.run)
    await server.play("""
        S: 220 ...
        C: EHLO client.example
        S: 250 ...
        C: RCPT TO:<alice@here.example>
        S: 503 ...
        C: MAIL FROM:<a@b.example> SIZE=999999999999
        S: 552 ...
        C: MAIL FROM:<a@b.example>
        S: 250 ...
        C: RCPT TO:<who@here.example>
        S: 550 ...
        C: RCPT TO:<who@there.example>
        S: 550 ...
        C: RCPT TO:<alice@here.example>
        S: 550 ...
        C: STARTTLS
        S: 502 ...
        C: WHAT
        S: 500 ...
    """)
    assert server.house.meters.refusals == {
        "sequence": 1, "too_big": 1, "unknown_mailbox": 1, "relay_denied": 1, "plugin": 1,
        "not_offered": 1, "syntax": 1,
    }  # fmt: skip
