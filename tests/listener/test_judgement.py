"""What plugins answer while mail comes in, and what becomes of it: each verdict at each hook."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
import trio

from elemta.config import load
from elemta.listener.reception import House
from elemta.net.reaper import Reaper
from elemta.plugins import (
    CONTINUE,
    Accept,
    AddHeader,
    AddRecipient,
    Chain,
    Content,
    Continue,
    Defer,
    Discard,
    Loaded,
    Plugin,
    Prioritise,
    Quarantine,
    Redirect,
    Reject,
    RemoveHeader,
    RemoveRecipient,
    Session,
    Tag,
    TooLargeError,
    Transaction,
    Verdict,
    Via,
)
from elemta.protocol import Mailbox, Notify, parse_mailbox
from elemta.queue import Filter, Priority, State, StoreReader
from tests.dialogue import CONFIG, NOW, Server
from tests.plugins.saying import saying
from tests.queue.mail import virtual_queue

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

    from elemta.message import HeaderScanner
    from elemta.queue import Addressee, Envelope, Timeline
    from tests.fakes import Kept

#: By hook: what the client says then, and what it hears if nobody objects.
STEPS = {
    "on_connect": ("", "220 mx.example ESMTP"),
    "on_hello": ("EHLO client.example", "250 ..."),
    "on_mail": ("MAIL FROM:<a@b.example>", "250 2.1.0 sender OK"),
    "on_rcpt": ("RCPT TO:<alice@here.example>", "250 2.1.5 recipient OK"),
    "on_greylist": ("", ""),
    "on_data": ("DATA", "354 end with <CRLF>.<CRLF>"),
    "on_header": ("Subject: x\r\n\r\nbody\r\n.", "250 2.0.0 OK: queued as Q1"),
    "on_body": ("", ""),
    "on_inspect": ("", ""),
    "on_message": ("", ""),
}
EARLY = ("on_connect", "on_hello")
OF_RECIPIENTS = ("on_rcpt", "on_greylist")

ALICE = parse_mailbox("alice@here.example")
BOB = parse_mailbox("bob@any.example")
CAROL = parse_mailbox("carol@here.example")
FAR = parse_mailbox("x@far.example")


async def bring(
    server: Server,
    content: bytes = b"Subject: x\r\n\r\nbody\r\n",
    *to: str,
    mail: str = "",
    answer: str = "250 ...",
) -> None:
    """A client greets and brings a message."""
    await server.expect("220 ...")
    await server.client.send_all(b"EHLO client.example\r\n")
    await server.expect("250 ...")
    await bring_another(server, content, *to, mail=mail, answer=answer)


async def bring_another(
    server: Server, content: bytes, *to: str, mail: str = "", answer: str = "250 ..."
) -> None:
    await server.client.send_all(f"MAIL FROM:<a@b.example> {mail}\r\n".encode())
    await server.expect("250 ...")
    for each in to or ("<alice@here.example>",):
        await server.client.send_all(f"RCPT TO:{each}\r\n".encode())
        await server.expect("250 2.1.5 recipient OK")
    await server.client.send_all(b"DATA\r\n")
    await server.expect("354 ...")
    await server.client.send_all(content + b".\r\n")
    await server.expect(answer)


async def taken(
    nursery: trio.Nursery,
    *plugins: Plugin,
    content: bytes = b"Subject: x\r\n\r\nbody\r\n",
    to: tuple[str, ...] = (),
    mail: str = "",
    answer: str = "250 ...",
) -> Kept:
    """What the queue was given of a message that came past these plugins."""
    server = Server(*plugins)
    nursery.start_soon(server.run)
    await bring(server, content, *to, mail=mail, answer=answer)
    return server.queue.kept[0]


def nobody_gets(envelope: Envelope) -> bool:
    return all(each.via == ("discard",) and each.holder is None for each in envelope.recipients)


def addresses(envelope: Envelope) -> list[str]:
    return [str(each.address) for each in envelope.recipients]


def told(envelope: Envelope) -> list[tuple[str, str, str]]:
    return [(each.who, each.action, each.reason) for each in envelope.notes]


# Objections.


@pytest.mark.parametrize("hook", STEPS)
@pytest.mark.parametrize(
    ("verdict", "heard"),
    [
        (Defer((7, 1), "not now"), ("421 4.7.1 not now", "451 4.7.1 not now")),
        (Reject((7, 1), "never"), ("554 5.7.1 never", "550 5.7.1 never")),
        (Defer((7, 1), "not now", code=450), ("421 4.7.1 not now", "450 4.7.1 not now")),
        (Reject((3, 4), "message too big", code=552), ("554 5.3.4 ...", "552 5.3.4 ...")),
    ],
    ids=["defer", "reject", "other code", "as we say it"],
)
async def test_an_objection_is_heard_at_its_step_and_nothing_is_kept(
    hook: str, verdict: Verdict, heard: tuple[str, str], nursery: trio.Nursery,
    autojump_clock: MockClock,
) -> None:  # fmt: skip
    asked: list[str] = []
    answers = {each: (verdict if each == hook else CONTINUE) for each in STEPS}
    server = Server(saying(asked=asked, **answers))
    nursery.start_soon(server.run)
    waits_for_end = list(STEPS)[list(STEPS).index("on_header") :]
    step = {"on_greylist": "on_rcpt", **dict.fromkeys(waits_for_end, "on_header")}.get(hook, hook)
    for each, (command, agreed) in STEPS.items():
        if command:
            await server.client.send_all(command.encode() + b"\r\n")
        if each == step:
            await server.expect(heard[hook != "on_connect"])
            break
        if agreed:
            await server.expect(agreed)
    assert asked == list(STEPS)[: list(STEPS).index(hook) + 1]
    assert server.queue.kept == []
    assert server.house.meters.refusals == {"plugin": 1}


@pytest.mark.parametrize("hook", ["on_data", "on_header", "on_body", "on_inspect", "on_message"])
async def test_an_objection_to_a_chunk_is_counted_as_a_plugins(
    hook: str, nursery: trio.Nursery
) -> None:
    server = Server(saying(**{hook: Reject((7, 1), "never", code=554)}))
    nursery.start_soon(server.run)
    await _bring_chunk(server, b"Subject: x\r\n\r\nbody\r\n", "554 5.7.1 never")
    assert server.house.meters.refusals == {"plugin": 1}


async def test_what_is_wrong_with_content_is_no_plugins_objection(nursery: trio.Nursery) -> None:
    server = Server(saying(on_data=Reject((7, 1), "never", code=554)))
    nursery.start_soon(server.run)
    await _bring_chunk(server, b"Subject: x\r\n\r\na\nb\r\n", "550 5.5.2 ...")
    assert server.house.meters.refusals == {"bare_newline": 1}


async def test_a_header_that_goes_round_is_no_plugins_objection(nursery: trio.Nursery) -> None:
    server = Server(saying(on_header=Reject((7, 1), "never", code=554)))
    nursery.start_soon(server.run)
    await bring(server, b"Received: x\r\n" * 200 + b"\r\n", answer="554 5.4.6 ...")
    assert server.house.meters.refusals == {"loop": 1}


async def _bring_chunk(server: Server, content: bytes, answer: str) -> None:
    await server.play("""
        S: 220 ...
        C: EHLO client.example
        S: 250 ...
        C: MAIL FROM:<a@b.example>
        C: RCPT TO:<alice@here.example>
        S: 250 ...
        S: 250 ...
    """)
    await server.client.send_all(f"BDAT {len(content)} LAST\r\n".encode() + content)
    await server.expect(answer)


async def test_after_a_refused_message_the_next_one_is_judged_anew(nursery: trio.Nursery) -> None:
    verdicts: list[Verdict] = [Reject((7, 1), "no"), Quarantine("odd"), CONTINUE]
    server = Server(saying(on_header=lambda *_: verdicts.pop(0)))
    nursery.start_soon(server.run)
    await bring(server, answer="550 5.7.1 no")
    for _ in range(2):
        await bring_another(server, b"Subject: x\r\n\r\n")
    held, free = server.queue.kept
    assert held.envelope.holder is not None
    assert free.envelope.holder is None


@pytest.mark.parametrize("hook", ["on_header", "on_body", "on_inspect", "on_message"])
async def test_a_refusal_of_content_is_each_recipients_under_lmtp(
    hook: str, nursery: trio.Nursery
) -> None:
    server = Server(saying(**{hook: Reject((7, 1), "no")}), kind="lmtp")
    nursery.start_soon(server.run)
    await server.play("""
        S: 220 ...
        C: LHLO client.example
        S: 250 ...
        C: MAIL FROM:<>
        C: RCPT TO:<alice@here.example>
        C: RCPT TO:<carol@here.example>
        C: DATA
        S: 250 ...
        S: 250 ...
        S: 250 ...
        S: 354 ...
        C:
        C: x
        C: .
        S: 550 5.7.1 no
        S: 550 5.7.1 no
        Q: 0
    """)


# Quarantine and discard: 250, and not gone.


@pytest.mark.parametrize("hook", STEPS)
async def test_what_is_quarantined_is_taken_and_held(hook: str, nursery: trio.Nursery) -> None:
    plugin = saying("strict", **{hook: Quarantine("looks odd", text="we look at it", note="n")})
    kept = await taken(nursery, plugin, to=("<alice@here.example>", "<bob@any.example>"))
    envelope = kept.envelope
    holders = {each.holder or envelope.holder for each in envelope.recipients}
    assert [(each.owner, each.reason, each.since) for each in holders if each] == [
        ("plugin:strict", "looks odd", NOW)
    ]
    assert kept.content.endswith(b"Subject: x\r\n\r\nbody\r\n")
    action = "quarantine for alice@here.example" if hook in OF_RECIPIENTS else "quarantine"
    assert told(envelope)[0] == ("plugin:strict", action, "looks odd")


@pytest.mark.parametrize("hook", STEPS)
async def test_what_is_discarded_is_taken_and_given_to_nobody(
    hook: str, nursery: trio.Nursery
) -> None:
    plugin = saying("strict", **{hook: Discard("known junk")})
    both = ("<alice@here.example> NOTIFY=SUCCESS,DELAY", "<bob@any.example>")
    envelope = (await taken(nursery, plugin, to=both)).envelope
    assert nobody_gets(envelope)
    assert envelope.holder is None
    assert addresses(envelope) == ["alice@here.example", "bob@any.example"]
    # Its sender must not be told that somebody got it.
    assert {each.params.notify for each in envelope.recipients} == {frozenset({Notify.NEVER})}
    action = "discard for alice@here.example" if hook in OF_RECIPIENTS else "discard"
    assert told(envelope)[0] == ("plugin:strict", action, "known junk")


@pytest.mark.parametrize("hook", OF_RECIPIENTS)
@pytest.mark.parametrize("verdict", [Quarantine("odd"), Discard("junk")], ids=["hold", "discard"])
async def test_a_verdict_on_one_recipient_is_about_him_alone(
    hook: str, verdict: Verdict, nursery: trio.Nursery
) -> None:
    def judge(_: Transaction, recipient: Mailbox) -> Verdict:
        return verdict if recipient == ALICE else CONTINUE

    both = ("<alice@here.example>", "<bob@any.example>")
    envelope = (await taken(nursery, saying(**{hook: judge}), to=both)).envelope
    alice, bob = envelope.recipients
    assert (bob.via, bob.holder, envelope.holder) == ((), None, None)
    if isinstance(verdict, Discard):
        assert (alice.via, alice.holder) == (("discard",), None)
    else:
        assert alice.holder is not None
        assert (alice.holder.reason, alice.via) == ("odd", ())


@pytest.mark.parametrize("verdict", [Quarantine("odd"), Discard("junk")], ids=["hold", "discard"])
@pytest.mark.parametrize("first", ["team", "alice"])
async def test_who_is_reached_by_two_ways_gets_what_one_of_them_lets_through(
    verdict: Verdict, first: str, nursery: trio.Nursery
) -> None:
    def judge(_: Transaction, recipient: Mailbox) -> Verdict:
        return verdict if recipient.local_part == "team" else CONTINUE

    names = [first, *({"team", "alice"} - {first})]
    to = tuple(f"<{each}@here.example>" for each in names)
    envelope = (await taken(nursery, saying(on_rcpt=judge), to=to)).envelope

    def free(each: Addressee) -> bool:
        return not each.via and each.holder is None

    assert {str(each.address): free(each) for each in envelope.recipients} == {
        "alice@here.example": True,
        "bob@here.example": False,
        "carol@here.example": False,
    }


async def test_what_was_wanted_of_a_recipient_who_is_refused_is_forgotten(
    nursery: trio.Nursery,
) -> None:
    wanting = saying(
        "wanting",
        on_rcpt=lambda _, recipient: (
            Quarantine(
                "odd", "held", changes=(AddRecipient(FAR), AddHeader("X-To", str(recipient)))
            )
            if recipient == ALICE
            else CONTINUE
        ),
    )
    refusing = saying(
        "refusing",
        on_rcpt=lambda _, recipient: Reject((1, 1), "no") if recipient == ALICE else CONTINUE,
    )
    server = Server(wanting, refusing)
    nursery.start_soon(server.run)
    await server.play("""
        S: 220 ...
        C: EHLO client.example
        S: 250 ...
        C: MAIL FROM:<a@b.example>
        C: RCPT TO:<alice@here.example>
        C: RCPT TO:<bob@any.example>
        C: DATA
        S: 250 ...
        S: 550 5.1.1 no
        S: 250 ...
        S: 354 ...
        C: .
        S: 250 2.0.0 OK: queued as Q1
    """)
    (kept,) = server.queue.kept
    assert addresses(kept.envelope) == ["bob@any.example"]
    assert kept.envelope.notes == ()
    assert b"X-To" not in kept.content


@pytest.mark.parametrize("hook", EARLY)
@pytest.mark.parametrize("verdict", [Quarantine("odd"), Discard("junk")], ids=["hold", "discard"])
async def test_a_verdict_on_a_client_is_about_all_it_brings(
    hook: str, verdict: Verdict, nursery: trio.Nursery
) -> None:
    server = Server(saying(**{hook: verdict}))
    nursery.start_soon(server.run)
    await bring(server)
    await bring_another(server, b"Subject: y\r\n\r\n")
    for kept in server.queue.kept:
        if isinstance(verdict, Discard):
            assert nobody_gets(kept.envelope)
        else:
            assert kept.envelope.holder is not None
        assert len(kept.envelope.notes) == 1
    assert len(server.queue.kept) == 2


async def test_a_verdict_on_a_name_that_is_said_twice_stands_once(nursery: trio.Nursery) -> None:
    server = Server(saying(on_hello=Quarantine("odd")))
    nursery.start_soon(server.run)
    await bring(server)
    await server.client.send_all(b"EHLO client.example\r\n" * 3)
    for _ in range(3):
        await server.expect("250 ...")
    await bring_another(server, b"Subject: y\r\n\r\n")
    assert len(server.queue.kept[1].envelope.notes) == 1


async def test_who_rejects_after_a_quarantine_wins(nursery: trio.Nursery) -> None:
    for hook in ("on_header", "on_body", "on_inspect", "on_message"):
        server = Server(
            saying("one", on_header=Quarantine("odd")),
            saying("two", **{hook: Reject((7, 1), "never")}),
        )
        nursery.start_soon(server.run)
        await bring(server, answer="550 5.7.1 never")
        assert server.queue.kept == []


async def test_who_discards_after_a_quarantine_wins_and_both_are_told(
    nursery: trio.Nursery,
) -> None:
    one = saying("one", on_header=Quarantine("odd"))
    two = saying("two", on_message=Discard("junk"))
    envelope = (await taken(nursery, one, two)).envelope
    assert nobody_gets(envelope)
    assert envelope.holder is None
    assert told(envelope) == [
        ("plugin:one", "quarantine", "odd"),
        ("plugin:two", "discard", "junk"),
    ]


async def test_of_two_quarantines_the_first_holds(nursery: trio.Nursery) -> None:
    one, two = saying("one", on_mail=Quarantine("a")), saying("two", on_mail=Quarantine("b"))
    holder = (await taken(nursery, one, two)).envelope.holder
    assert holder is not None
    assert (holder.owner, holder.reason) == ("plugin:one", "a")


async def test_a_discard_ends_its_hook_and_a_later_one_may_still_refuse(
    nursery: trio.Nursery,
) -> None:
    asked: list[str] = []
    one = saying("one", on_mail=Discard("junk"))
    two = saying("two", asked=asked, on_mail=CONTINUE, on_data=Reject((7, 1), "no"))
    server = Server(one, two)
    nursery.start_soon(server.run)
    await server.play("""
        S: 220 ...
        C: EHLO client.example
        S: 250 ...
        C: MAIL FROM:<a@b.example>
        C: RCPT TO:<alice@here.example>
        C: DATA
        S: 250 ...
        S: 250 ...
        S: 550 5.7.1 no
    """)
    assert asked == ["on_data"]


@pytest.mark.parametrize("hook", STEPS)
async def test_who_accepts_ends_one_hook_and_no_other(hook: str, nursery: trio.Nursery) -> None:
    asked: list[str] = []
    first = saying("first", **{hook: Accept(note="known")})
    rest = saying("rest", asked=asked, **dict.fromkeys(STEPS, CONTINUE))
    await taken(nursery, first, rest)
    # Those that inspect are asked side by side.
    assert asked == [each for each in STEPS if each != hook or hook == "on_inspect"]


async def test_what_plugins_say_stands_behind_what_the_client_hears_anyway(
    nursery: trio.Nursery,
) -> None:
    server = Server(
        saying("one", on_rcpt=Accept("thank you"), on_body=Accept("many pieces")),
        saying("two", on_message=Quarantine("odd", text="a person looks at it")),
        saying("three", on_message=Accept("x" * 400), on_body=Accept("many pieces")),
    )
    nursery.start_soon(server.run)
    await bring(
        server, b"Subject: x\r\n\r\n" + b"x\r\n" * 50_000, answer="250-2.0.0 OK: queued as Q1"
    )
    assert [await server.line() for _ in range(4)] == [
        "250-2.0.0 thank you",
        "250-2.0.0 many pieces",
        "250-2.0.0 a person looks at it",
        f"250 2.0.0 {'x' * 400}",
    ]


async def test_a_plugin_that_says_the_same_of_each_piece_of_a_body_is_told_once(
    nursery: trio.Nursery,
) -> None:
    pieces: list[str] = []
    plugin = saying(asked=pieces, on_body=Quarantine("odd"))
    body = b"Subject: x\r\n\r\n" + b"x" * 900 + b"\r\n"
    kept = await taken(nursery, plugin, content=body + (b"y" * 900 + b"\r\n") * 1000)
    assert len(pieces) > 5
    assert len(kept.envelope.notes) == 1


# Changes.

SMALL = b"A: 1\r\nSubject: a\r\n long one\r\na: 2\r\nB: x\r\nA: 3\r\n\r\nbody\r\nA: no field\r\n"
LARGE = SMALL + (b"z" * 998 + b"\r\n") * 500
CHANGES = (
    AddHeader("X-Top", "t"),
    AddHeader("X-Low", "l", top=False),
    RemoveHeader("a", 2),
    RemoveHeader("Subject"),
)


def changed(content: bytes) -> bytes:
    head, body = content.split(b"\r\n\r\n", 1)
    head = head.replace(b"Subject: a\r\n long one\r\na: 2\r\n", b"")
    return head + b"\r\nX-Low: l\r\n\r\n" + body


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("hook", ["on_mail", "on_header", "on_body", "on_inspect", "on_message"])
async def test_a_header_is_changed_and_not_an_octet_else(
    content: bytes, hook: str, nursery: trio.Nursery
) -> None:
    once = iter([Continue(CHANGES)])
    plugin = saying("fix", **{hook: lambda *_: next(once, CONTINUE)})
    kept = await taken(nursery, plugin, content=content)
    top, trace, rest = kept.content.partition(b"Received: from client.example")
    assert top == b"X-Top: t\r\n"
    assert trace
    assert rest.endswith(changed(content))
    assert rest.removesuffix(changed(content)).endswith(b"+0000\r\n")
    assert told(kept.envelope) == [
        ("plugin:fix", "add header X-Top", ""),
        ("plugin:fix", "add header X-Low", ""),
        ("plugin:fix", "remove header a", ""),
        ("plugin:fix", "remove header Subject", ""),
    ]


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"", b"X-Low: l\r\n"),
        (b"Subject: x\r\n", b"X-Low: l\r\n"),
        (b"B: x\r\n", b"B: x\r\nX-Low: l\r\n"),
        (b"\r\nbody\r\n", b"X-Low: l\r\n\r\nbody\r\n"),
        (b"\r\n", b"X-Low: l\r\n\r\n"),
        (b"\r\n" + b"z\r\n" * 200_000, b"X-Low: l\r\n\r\n" + b"z\r\n" * 200_000),
    ],
    ids=["nothing", "all removed", "only a header", "only a body", "only its end", "large"],
)
async def test_a_header_may_be_all_or_nothing(
    content: bytes, wanted: bytes, nursery: trio.Nursery
) -> None:
    kept = await taken(nursery, saying(on_message=Continue(CHANGES)), content=content)
    assert kept.content.startswith(b"X-Top: t\r\nReceived:")
    assert kept.content.endswith(b"+0000\r\n" + wanted)


@pytest.mark.parametrize("cut", [1, 7, 1000])
async def test_a_header_in_chunks_is_changed_as_well(cut: int, nursery: trio.Nursery) -> None:
    server = Server(saying(on_header=Continue(CHANGES)))
    nursery.start_soon(server.run)
    await server.play("""
        S: 220 ...
        C: EHLO client.example
        S: 250 ...
        C: MAIL FROM:<a@b.example>
        C: RCPT TO:<alice@here.example>
        S: 250 ...
        S: 250 ...
    """)
    for start in range(0, len(SMALL), cut):
        piece = SMALL[start : start + cut]
        last = " LAST" if start + cut >= len(SMALL) else ""
        await server.client.send_all(f"BDAT {len(piece)}{last}\r\n".encode() + piece)
        await server.expect("250 ...")
    assert server.queue.kept[0].content.endswith(b"+0000\r\n" + changed(SMALL))


async def test_lmtp_is_changed_as_well(nursery: trio.Nursery) -> None:
    server = Server(saying(on_header=Continue((*CHANGES, RemoveRecipient(CAROL)))), kind="lmtp")
    nursery.start_soon(server.run)
    await server.play("""
        S: 220 ...
        C: LHLO client.example
        S: 250 ...
        C: MAIL FROM:<a@b.example>
        C: RCPT TO:<alice@here.example>
        C: RCPT TO:<carol@here.example>
        C: DATA
        S: 250 ...
        S: 250 ...
        S: 250 ...
        S: 354 ...
    """)
    await server.client.send_all(SMALL + b".\r\n")
    for _ in range(2):  # an answer for each that was taken, whatever became of it
        await server.expect("250 2.0.0 OK: queued as Q1")
    (kept,) = server.queue.kept
    assert kept.content.endswith(b"+0000\r\n" + changed(SMALL))
    assert b" with LMTP" in kept.content
    assert addresses(kept.envelope) == [str(ALICE)]


async def test_a_field_beyond_ascii_is_encoded_unless_the_client_takes_it_as_it_is(
    nursery: trio.Nursery,
) -> None:
    plugin = saying(on_message=Continue((AddHeader("X-Note", "für uns"),)))
    plain = await taken(nursery, plugin)
    assert plain.content.startswith(b"X-Note: =?utf-8?q?f=C3=BCr?= uns\r\n")
    assert plain.content.isascii()
    wide = await taken(nursery, plugin, mail="SMTPUTF8")
    assert wide.content.startswith("X-Note: für uns\r\n".encode())


def now_gets(*changes: object) -> Plugin:
    return saying("fix", on_message=Continue(tuple(changes)))


async def test_recipients_are_added_removed_and_redirected(nursery: trio.Nursery) -> None:
    both = ("<alice@here.example>", "<bob@any.example>")

    async def after(*changes: object) -> list[str]:
        envelope = (await taken(nursery, now_gets(*changes), to=both)).envelope
        assert {each.via for each in envelope.recipients} == {()}
        return addresses(envelope)

    assert await after(AddRecipient(FAR)) == [str(ALICE), str(BOB), str(FAR)]
    assert await after(AddRecipient(BOB)) == [str(ALICE), str(BOB)]
    assert await after(RemoveRecipient(BOB)) == [str(ALICE)]
    assert await after(RemoveRecipient(FAR)) == [str(ALICE), str(BOB)]
    assert sorted(await after(Redirect(ALICE, FAR))) == [str(BOB), str(FAR)]
    assert await after(Redirect(ALICE, BOB)) == [str(BOB)]
    assert await after(Redirect(ALICE, ALICE)) == [str(ALICE), str(BOB)]
    assert await after(Redirect(FAR, CAROL)) == [str(ALICE), str(BOB)]
    assert await after(RemoveRecipient(ALICE), RemoveRecipient(BOB), AddRecipient(FAR)) == [
        str(FAR)
    ]


async def test_who_is_redirected_stands_in_reports_as_he_was_named(nursery: trio.Nursery) -> None:
    redirect = Redirect(ALICE, FAR)
    to = ("<alice@here.example> NOTIFY=FAILURE",)
    for hook in ("on_rcpt", "on_message"):
        kept = await taken(nursery, saying(**{hook: Continue((redirect,))}), to=to)
        (one,) = kept.envelope.recipients
        assert (one.address, one.original) == (FAR, ALICE)
        assert one.params.notify == {Notify.FAILURE}
        assert [each.action for each in kept.envelope.notes] == [str(redirect)]


async def test_an_alias_is_redirected_by_its_name(nursery: trio.Nursery) -> None:
    team = parse_mailbox("team@here.example")
    plugin = saying(on_rcpt=Continue((Redirect(team, FAR),)))
    envelope = (await taken(nursery, plugin, to=("<team@here.example>",))).envelope
    assert addresses(envelope) == [str(FAR)]
    assert envelope.recipients[0].original == team


async def test_if_all_recipients_are_removed_it_is_kept_for_nobody(nursery: trio.Nursery) -> None:
    plugin = now_gets(RemoveRecipient(ALICE), RemoveRecipient(BOB))
    both = ("<alice@here.example> NOTIFY=SUCCESS", "<bob@any.example>")
    kept = await taken(nursery, plugin, to=both)
    assert nobody_gets(kept.envelope)
    assert addresses(kept.envelope) == [str(ALICE), str(BOB)]
    assert {each.params.notify for each in kept.envelope.recipients} == {frozenset({Notify.NEVER})}
    assert [each.action for each in kept.envelope.notes] == [
        f"remove recipient {ALICE}",
        f"remove recipient {BOB}",
    ]


async def test_urgency_tags_and_ways_are_as_plugins_want_them(nursery: trio.Nursery) -> None:
    both = ("<alice@here.example>", "<bob@any.example>")
    way, other = ("smtp://mx.example:26",), ("maildir",)
    plugin = now_gets(
        Prioritise(Priority.LOW), Prioritise(Priority.HIGH), Tag("a"), Tag("b"), Tag("a"),
        Via(way), Via(other, BOB),
    )  # fmt: skip
    envelope = (await taken(nursery, plugin, to=both)).envelope
    assert (envelope.priority, envelope.tags) == (Priority.HIGH, ("a", "b"))
    assert [each.via for each in envelope.recipients] == [way, other]


async def test_a_way_does_not_bring_back_what_is_discarded_for_one(nursery: trio.Nursery) -> None:
    plugin = saying(
        on_rcpt=lambda _, recipient: Discard("junk") if recipient == ALICE else CONTINUE,
        on_message=Continue((Via(("maildir",)),)),
    )
    both = ("<alice@here.example>", "<bob@any.example>")
    envelope = (await taken(nursery, plugin, to=both)).envelope
    assert [each.via for each in envelope.recipients] == [("discard",), ("maildir",)]


async def test_what_is_changed_before_a_message_is_there_is_a_plugins_mistake(
    nursery: trio.Nursery,
) -> None:
    server = Server(saying(on_connect=Continue((Tag("x"),)), on_hello=Accept(changes=(Tag("x"),))))
    nursery.start_soon(server.run)
    await bring(server)
    assert server.queue.kept[0].envelope.tags == ()
    assert server.house.plugins.plugins[0].counts.failed == 2


# What plugins are shown.


async def test_a_header_is_shown_before_the_body_has_come(nursery: trio.Nursery) -> None:
    shown = trio.Event()
    fields: list[tuple[bytes, bytes]] = []

    def look(_: Transaction, header: HeaderScanner) -> Verdict:
        fields.extend(header.fields)
        shown.set()
        return CONTINUE

    server = Server(saying(on_header=look))
    nursery.start_soon(server.run)
    await server.play("""
        S: 220 ...
        C: EHLO client.example
        S: 250 ...
        C: MAIL FROM:<a@b.example>
        C: RCPT TO:<alice@here.example>
        C: DATA
        S: 250 ...
        S: 250 ...
        S: 354 ...
        C: Subject: x
        C: To: y
        C:
        C: body
    """)
    with trio.fail_after(60):
        await shown.wait()
    assert fields == [(b"subject", b"x"), (b"to", b"y")]
    await server.play("""
        C: .
        S: 250 ...
    """)


@pytest.mark.parametrize("content", [SMALL, LARGE, b"Subject: x\r\n"], ids=len)
async def test_content_is_what_the_client_sent_whether_in_memory_or_on_disk(
    content: bytes, nursery: trio.Nursery
) -> None:
    async def look(_: Transaction, shown: Content) -> Verdict:
        assert shown.size == len(content)
        for _ in range(2):
            assert b"".join([piece async for piece in shown.pieces()]) == content
            assert await shown.read() == content
        return CONTINUE

    plugin = saying(on_inspect=look, on_message=look)
    kept = await taken(nursery, plugin, saying("other", on_inspect=look), content=content)
    assert kept.content.endswith(content)


async def test_a_message_too_large_to_be_read_is_deferred_unless_a_plugin_says_otherwise(
    nursery: trio.Nursery,
) -> None:
    async def read(_: Transaction, shown: Content) -> Verdict:
        await shown.read(most=10)
        return CONTINUE

    server = Server(saying(on_message=read))
    nursery.start_soon(server.run)
    await bring(server, answer="451 4.3.0 try again later")


async def test_plugins_get_no_more_memory_than_there_is(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    content = b"\r\n" + (b"z" * 998 + b"\r\n") * 900
    read: list[int] = []

    async def look(_: Transaction, shown: Content) -> Verdict:
        try:
            read.append(len(await shown.read()))
        except TooLargeError:
            read.append(sum([len(piece) async for piece in shown.pieces()]))
            return Quarantine("too large to be read at once")
        return CONTINUE

    config = load(CONFIG + "limits: {memory: 1 MiB}\n")
    server = Server(saying("a", on_inspect=look), saying("b", on_inspect=look), config=config)
    nursery.start_soon(server.run)
    await bring(server, content)
    assert read == [len(content)] * 2
    assert server.queue.kept[0].envelope.holder is not None
    assert server.house.budget.free == server.house.budget.total


async def test_a_session_is_told_to_plugins_as_it_is(nursery: trio.Nursery) -> None:
    seen: list[Session] = []
    server = Server(
        saying(on_mail=lambda transaction: seen.append(transaction.session) or CONTINUE)
    )
    nursery.start_soon(server.run)
    await bring(server)
    (session,) = seen
    assert (session.address, session.listener) == ("192.0.2.1", "mx")
    assert (session.helo, session.extended) == ("client.example", True)
    assert not session.exempt


async def test_greylisting_is_asked_last_and_not_of_whom_we_trust(nursery: trio.Nursery) -> None:
    asked: list[str] = []
    refusing = saying(asked=asked, on_rcpt=Reject((1, 1), "no"), on_greylist=CONTINUE)
    server = Server(refusing)
    nursery.start_soon(server.run)
    await server.play("""
        S: 220 ...
        C: EHLO client.example
        S: 250 ...
        C: MAIL FROM:<a@b.example>
        C: RCPT TO:<alice@here.example>
        S: 250 ...
        S: 550 5.1.1 no
    """)
    assert asked == ["on_rcpt"]
    server = Server(saying(on_greylist=Defer((7, 1), "later")), client="198.51.100.7")
    nursery.start_soon(server.run)
    await bring(server)


async def test_plugins_are_told_of_names_that_nobody_has(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    unknown: list[str] = []

    async def note(transaction: Transaction, recipient: Mailbox) -> Verdict:
        await trio.lowlevel.checkpoint()
        assert str(transaction.sender) == "a@b.example"
        unknown.append(str(recipient))
        return Quarantine("no such mailbox", "held", changes=(Tag("trap"), AddRecipient(CAROL)))

    asked: list[str] = []
    server = Server(saying(on_unknown=note, asked=asked, on_rcpt=CONTINUE))
    nursery.start_soon(server.run)
    await server.play("""
        S: 220 ...
        C: EHLO client.example
        S: 250 ...
        C: MAIL FROM:<a@b.example>
        C: RCPT TO:<nobody@here.example>
        C: RCPT TO:<x@elsewhere.example>
        C: RCPT TO:<alice@here.example>
        S: 250 ...
        S: 550 5.1.1 no such mailbox
        S: 550 5.7.1 relay access denied
        S: 250 ...
    """)
    assert unknown == ["nobody@here.example"]
    assert asked == ["on_unknown", "on_rcpt"]
    await server.play("""
        C: DATA
        S: 354 ...
        C: Subject: x
        C:
        C: .
        S: 250 2.0.0 OK: queued as Q1
    """)
    (envelope,) = [each.envelope for each in server.queue.kept]
    assert [each.address for each in envelope.recipients] == [ALICE], "of nobody comes nothing"
    assert (envelope.tags, envelope.holder, envelope.notes) == ((), None, ())


@pytest.mark.parametrize(
    ("verdict", "answer"),
    [
        (Defer((7, 0), "come again"), "451 4.7.0 come again"),
        (Reject((7, 0), "go away"), "550 5.7.0 go away"),
        ("fails", "451 4.3.0 try again later"),
    ],
)
async def test_who_is_turned_down_cannot_tell_who_is_there(
    nursery: trio.Nursery, autojump_clock: MockClock, verdict: Verdict | str, answer: str
) -> None:
    says = (lambda *_: 1 // 0) if isinstance(verdict, str) else verdict
    server = Server(saying(on_unknown=says, on_rcpt=says))
    nursery.start_soon(server.run)
    took: list[float] = []
    await server.play("""
        S: 220 ...
        C: EHLO client.example
        S: 250 ...
        C: MAIL FROM:<a@b.example>
        S: 250 ...
    """)
    for who in ("alice", "nobody"):
        began = trio.current_time()
        await server.play(f"""
            C: RCPT TO:<{who}@here.example>
            S: {answer}
        """)
        took.append(trio.current_time() - began)
    assert took[0] == took[1]


# As operators find it.


async def test_what_plugins_found_changed_and_decided_is_in_the_timeline(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    class Found(msgspec.Struct, frozen=True):
        what: str

        def __str__(self) -> str:
            return f"found {self.what}"

    class Silent(msgspec.Struct, frozen=True):
        what: str

    def find(transaction: Transaction) -> Verdict:
        transaction.session.results.add(Found("a client"), "finder")
        transaction.results.add(Found("a sender"), "finder")
        transaction.results.add(Silent("unseen"), "finder")
        return CONTINUE

    finder = saying("finder", on_mail=find)
    judge = saying(
        "judge",
        on_rcpt=lambda _, recipient: Discard("no thanks") if recipient == BOB else CONTINUE,
        on_message=Quarantine("too good", changes=(AddHeader("X-Odd", "yes"), Tag("odd"))),
    )
    both = ("<alice@here.example>", "<bob@any.example>")
    for content in (SMALL, LARGE):
        timeline, stored = await kept_on_disk(
            tmp_path / str(len(content)), content, both, finder, judge
        )
        assert [(each.who, each.action, each.reason) for each in timeline.notes] == [
            ("plugin:finder", "found", "found a client"),
            ("plugin:finder", "found", "found a sender"),
            ("plugin:judge", "add header X-Odd", ""),
            ("plugin:judge", "tag odd", ""),
            ("plugin:judge", "discard for bob@any.example", "no thanks"),
            ("plugin:judge", "quarantine", "too good"),
        ]
        message = timeline.message
        assert {each.state for each in message.recipients} == {State.HELD}
        assert message.tags == ("odd",)
        assert stored.startswith(b"X-Odd: yes\r\nReceived: ")
        assert stored.endswith(content)
        assert message.size == len(stored)


async def kept_on_disk(
    folder: Path, content: bytes, to: tuple[str, ...], *plugins: Plugin
) -> tuple[Timeline, bytes]:
    """What lies in a real queue of a message that came past these plugins."""
    async with virtual_queue(folder / "queue") as queue:
        house = House.of(load(CONFIG), queue=queue, reaper=Reaper())
        chain = Chain([Loaded(each) for each in plugins])
        server = Server(house=msgspec.structs.replace(house, plugins=chain))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.run)
            await bring(server, content, *to)
            await server.client.send_all(b"QUIT\r\n")
        with StoreReader(folder / "queue") as reader:
            (message,) = reader.search(Filter(), now=0.0)
            timeline, body = reader.timeline(message.id), reader.body(message.id)
    assert timeline is not None
    assert body is not None
    return timeline, body


class Odd(msgspec.Struct, frozen=True):
    """Cannot be told."""

    def __str__(self) -> str:
        raise ValueError("odd")


class Long(msgspec.Struct, frozen=True):
    """Says more than anybody reads, and what is no text."""

    def __str__(self) -> str:
        return "\udc80" + "x" * 100_000


async def test_what_cannot_be_written_down_costs_no_message(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    def find(transaction: Transaction, _: HeaderScanner) -> Verdict:
        transaction.results.add(Odd(), "finder")
        transaction.results.add(Long(), "finder")
        return Quarantine("\udcff" * 5000)

    hold = saying("hold", on_mail=Quarantine(None))  # type: ignore[arg-type] # the mistake
    timeline, _ = await kept_on_disk(tmp_path, SMALL, (), hold, saying("finder", on_header=find))
    assert [(each.who, each.reason[:60]) for each in timeline.notes] == [
        ("plugin:finder", "Odd, which cannot be told: ValueError"),
        ("plugin:finder", "?" + "x" * 59),
        ("plugin:hold", "None"),
        ("plugin:finder", "?" * 60),
    ]
    assert max(len(each.reason) for each in timeline.notes) == 1000
    (recipient,) = timeline.message.recipients
    assert recipient.holder is not None
    assert recipient.holder.reason == "None"
