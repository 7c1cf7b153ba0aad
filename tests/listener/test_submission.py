"""Mail that is handed in, but not by SMTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
import trio
import trio.testing
from msgspec import Struct
from typing_extensions import override

from elemta.config import load
from elemta.listener.reception import House
from elemta.listener.submission import NotTakenError, hand_in
from elemta.net.reaper import Reaper
from elemta.plugins import (
    CONTINUE,
    AddHeader,
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
    Tag,
    Transaction,
    Verdict,
)
from elemta.protocol import Mailbox, ReversePath, parse_mailbox
from elemta.queue import (
    KeyReusedError,
    Priority,
    Reserve,
    RetryPolicy,
    StoreReader,
    StoreUnavailable,
    open_queue,
)
from tests.dialogue import CONFIG, NOW
from tests.fakes import FakeQueue
from tests.plugins.saying import saying

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

WHO = "token:shop"
#: It lacks nothing.
CONTENT = (
    b"From: a@b.example\r\nDate: Sun, 22 Nov 2026 00:00:00 +0000\r\nMessage-ID: <1@b.example>\r\n"
    b"Subject: hello\r\n\r\nhello\r\n"
)


class Submission(Struct, frozen=True, kw_only=True):
    """What somebody hands in."""

    sender: ReversePath = parse_mailbox("a@b.example")
    recipients: tuple[Mailbox, ...] = (parse_mailbox("x@far.example"),)
    content: bytes = CONTENT
    priority: Priority | None = None
    tags: tuple[str, ...] = ()
    due: float | None = None
    key: str = ""
    client: str = "192.0.2.1"


def to(*recipients: str) -> Submission:
    return Submission(recipients=tuple(map(parse_mailbox, recipients)))


def house(*plugins: Plugin, queue: FakeQueue | None = None, more: str = "") -> House:
    config = load(CONFIG + more)
    made = House.of(config, queue=queue or FakeQueue(), reaper=Reaper(), clock=lambda: NOW)
    chain = Chain([Loaded(plugin) for plugin in plugins])
    return msgspec.structs.replace(made, plugins=chain)


async def refused(submission: Submission, where: House, queue: FakeQueue) -> tuple[str, str]:
    """The reply and the place; nothing was kept."""
    with pytest.raises(NotTakenError) as caught:
        await hand_in(submission, WHO, where)
    assert queue.kept == []
    assert queue.open == 0
    assert where.budget.free == where.budget.total
    return str(caught.value.reply), caught.value.place


async def test_a_message_is_stored_as_it_was_handed_in() -> None:
    queue = FakeQueue()
    taken = await hand_in(
        Submission(tags=("shop",), priority=Priority.HIGH), WHO, house(queue=queue)
    )
    assert taken == ("Q1", False)
    (kept,) = queue.kept
    assert (
        kept.content
        == (
            b"Received: from [192.0.2.1] ([192.0.2.1])\r\n"
            b"\tby mx.example with HTTP\r\n"
            b"\tid Q1 for <x@far.example>;\r\n"
            b"\tSun, 22 Nov 2026 00:00:00 +0000\r\n"
        )
        + CONTENT
    )
    envelope = kept.envelope
    assert (envelope.tags, envelope.priority, envelope.due) == (("shop",), Priority.HIGH, None)
    origin = envelope.origin
    assert (origin.address, origin.listener, origin.protocol) == ("192.0.2.1", "api", "HTTP")
    assert origin.login == WHO


async def test_a_message_is_completed_as_one_that_comes_by_smtp() -> None:
    queue = FakeQueue()
    content = b"From: a@b.example\r\nBcc: x@far.example\r\n\r\nhello\r\n"
    await hand_in(Submission(content=content), WHO, house(queue=queue))
    (kept,) = queue.kept
    assert kept.content.endswith(
        b"From: a@b.example\r\n"
        b"Date: Sun, 22 Nov 2026 00:00:00 +0000\r\n"
        b"Message-ID: <Q1@mx.example>\r\n"
        b"\r\nhello\r\n"
    )
    told = [(each.who, each.action) for each in kept.envelope.notes]
    assert told == [
        ("listener", "add header Date"),
        ("listener", "add header Message-ID"),
        ("listener", "remove header Bcc"),
    ]


async def test_what_a_message_has_is_not_added() -> None:
    queue = FakeQueue()
    content = b"MESSAGE-ID: <1@b>\r\ndate: today\r\n\r\nhello"
    await hand_in(Submission(content=content, client=""), WHO, house(queue=queue))
    (kept,) = queue.kept
    assert kept.content.startswith(b"Received: from unknown\r\n\tby mx.example with HTTP\r\n")
    assert kept.content.endswith(b"+0000\r\n" + content + b"\r\n")


@pytest.mark.parametrize("client", ["2001:db8::1", ""])
async def test_who_hands_in_is_named_as_far_as_that_is_known(client: str) -> None:
    queue = FakeQueue()
    await hand_in(Submission(client=client), WHO, house(queue=queue))
    named = b"from [IPv6:2001:db8::1] ([IPv6:2001:db8::1])" if client else b"from unknown\r\n"
    assert named in queue.kept[0].content


async def test_a_login_may_send_anywhere_and_aliases_are_followed() -> None:
    queue = FakeQueue()
    await hand_in(
        to("x@far.example", "team@here.example", "alice@here.example"), WHO, house(queue=queue)
    )
    addressees = queue.kept[0].envelope.recipients
    assert [str(each.address) for each in addressees] == [
        "x@far.example",
        "alice@here.example",
        "bob@here.example",
        "carol@here.example",
    ]
    assert b" for <" not in queue.kept[0].content


async def test_one_recipient_that_is_refused_refuses_all() -> None:
    queue = FakeQueue()
    told = await refused(to("x@far.example", "nobody@here.example"), house(queue=queue), queue)
    assert told == ("550 5.1.1 no such mailbox", "recipients[1]")


async def test_there_is_a_limit_to_recipients() -> None:
    queue = FakeQueue()
    many = to(*(f"r{number}@far.example" for number in range(1001)))
    where = house(queue=queue)
    told = await refused(many, where, queue)
    assert told == ("550 5.5.3 too many recipients for one message", "recipients[1000]")
    assert where.meters.refusals == {"too_many_recipients": 1}


@pytest.mark.parametrize(
    ("content", "reply"),
    [
        (b"Subject: a\n\nb\n", "550 5.5.2 bare CR or LF in message"),
        (b"a\r\n.\rb\r\n", "550 5.5.2 bare CR or LF in message"),
        (b"Subject: a\r\n\r\n\0.\r\n", "550 5.5.2 a line of the message begins with NUL"),
        (b"x\r\n" * 30_000 + b"\0.\r\n", "550 5.5.2 a line of the message begins with NUL"),
        (b"x" * 999 + b"\r\n", "550 5.5.2 line over 1000 octets in message"),
        (b"x" * 200_000, "550 5.5.2 line over 1000 octets in message"),
        (b"x\r\n" * 30_000 + b"y\n" + b"x\r\n" * 9, "550 5.5.2 bare CR or LF in message"),
        (b"X-A: b\r\n" * 1001 + b"\r\n", "552 5.3.4 message header too big"),
        (b"Received: x\r\n" * 51 + b"\r\n", "554 5.4.6 too many hops, this message goes round"),
    ],
)
async def test_content_that_smtp_would_refuse_is_refused(content: bytes, reply: str) -> None:
    queue = FakeQueue()
    told, place = await refused(Submission(content=content), house(queue=queue), queue)
    assert told.startswith(reply)
    assert place == "content"


async def test_a_line_of_998_octets_is_none_too_many() -> None:
    queue = FakeQueue()
    content = b"Subject: x\r\n\r\n" + (b"x" * 998 + b"\r\n") * 300
    await hand_in(Submission(content=content), WHO, house(queue=queue))
    assert queue.kept[0].content.endswith(content.partition(b"\r\n\r\n")[2])
    assert queue.streamed == 1


async def test_a_message_may_be_as_large_as_the_largest_listener_takes_it() -> None:
    queue = FakeQueue()
    config = load(CONFIG.replace("address: 127.0.0.1:0", "address: ':0'\n    message_size: 64 KiB"))
    small = House.of(config, queue=queue, reaper=Reaper(), clock=lambda: NOW)
    content = b"Subject: hello\r\n" + b"\r\n" * 8 + b"12345678901234\r\n" * 4094
    assert len(content) == 65536
    told = await refused(Submission(content=content + b"\r\n"), small, queue)
    assert told == ("552 5.3.4 message too big", "content")
    await hand_in(Submission(content=content), WHO, small)
    assert queue.kept[0].content.endswith(content.partition(b"\r\n\r\n")[2])


async def test_without_room_or_health_it_is_for_now() -> None:
    queue = FakeQueue()
    queue.full = True
    told = await refused(Submission(), house(queue=queue), queue)
    assert told == ("452 4.3.1 no room for mail now, try again later", "")
    queue.full, queue.healthy = False, False
    assert (await refused(Submission(), house(queue=queue), queue))[0].startswith("452")
    queue.healthy, queue.broken = True, True
    told = await refused(Submission(), house(queue=queue), queue)
    assert told == ("451 4.3.0 cannot keep mail now, try again later", "content")
    with pytest.raises(StoreUnavailable):
        await hand_in(Submission(key="k"), WHO, house(queue=queue))


async def test_without_memory_it_is_for_now(autojump_clock: MockClock) -> None:
    queue = FakeQueue()
    where = house(queue=queue)
    with where.budget.share() as all_of_it:
        assert all_of_it.grow(where.budget.total)
        with pytest.raises(NotTakenError, match="452"):
            await hand_in(Submission(), WHO, where)
    assert trio.current_time() >= where.budget.patience
    assert where.budget.free == where.budget.total


async def test_plugins_do_not_stop_while_a_message_waits_to_be_read() -> None:
    class Looking(FakeQueue):
        async def known(self, key: str, /) -> None:
            users.append(where.plugins.users.count)

    users: list[int] = []
    where = house(queue=Looking())
    await hand_in(Submission(key="k"), WHO, where)
    assert (users, where.plugins.users.count) == ([1], 0)


async def test_who_shuts_down_takes_nothing_more() -> None:
    queue = FakeQueue()
    where = house(queue=queue)
    where.roster.drain()
    told = await refused(Submission(), where, queue)
    assert told == ("421 4.3.2 shutting down, come again", "")


class Judge(Plugin):
    """Objects at one hook, and notes at which it was asked."""

    name = "judge"

    def __init__(self, hook: str = "", verdict: Verdict = CONTINUE) -> None:
        self._hook = hook
        self._verdict = verdict
        self.asked: list[str] = []
        self.transaction: Transaction | None = None
        self.content = b""

    def _say(self, hook: str, transaction: Transaction) -> Verdict:
        self.asked.append(hook)
        self.transaction = transaction
        return self._verdict if hook == self._hook else CONTINUE

    @override
    async def on_mail(self, transaction: Transaction) -> Verdict:
        return self._say("mail", transaction)

    @override
    async def on_rcpt(self, transaction: Transaction, recipient: Mailbox) -> Verdict:
        return self._say("rcpt", transaction)

    @override
    async def on_data(self, transaction: Transaction) -> Verdict:
        return self._say("data", transaction)

    @override
    async def on_message(self, transaction: Transaction, content: Content) -> Verdict:
        self.content = await content.read()
        said = self._say("message", transaction)
        return Continue((Prioritise(Priority.LOW), Tag("judged"))) if said is CONTINUE else said


async def test_plugins_are_asked_as_by_smtp_and_have_the_last_word() -> None:
    queue, judge = FakeQueue(), Judge()
    wanted = Submission(priority=Priority.HIGH, tags=("a",))
    await hand_in(wanted, WHO, house(judge, queue=queue))
    assert judge.asked == ["mail", "rcpt", "data", "message"]
    assert judge.content.endswith(CONTENT)
    assert judge.transaction is not None
    session = judge.transaction.session
    assert (session.listener, session.login, session.trusted) == ("api", WHO, True)
    envelope = queue.kept[0].envelope
    assert (envelope.priority, envelope.tags) == (Priority.LOW, ("a", "judged"))


@pytest.mark.parametrize(
    ("hook", "place"),
    [("mail", "sender"), ("rcpt", "recipients[0]"), ("data", ""), ("message", "content")],
)
async def test_what_a_plugin_objects_to_is_not_taken(hook: str, place: str) -> None:
    queue = FakeQueue()
    never = Judge(hook, Reject((7, 1), "never"))
    assert await refused(Submission(), house(never, queue=queue), queue) == (
        "550 5.7.1 never",
        place,
    )
    later = Judge(hook, Defer((7, 1), "later"))
    assert (await refused(Submission(), house(later, queue=queue), queue))[0] == "451 4.7.1 later"


async def test_addresses_beyond_ascii_make_it_smtputf8() -> None:
    queue = FakeQueue()
    where = house(queue=queue)
    await hand_in(to("jörg@far.example"), WHO, where)
    await hand_in(to("x@far.example"), WHO, where)
    assert [each.envelope.params.smtputf8 for each in queue.kept] == [True, False]


async def test_a_message_may_be_wanted_later() -> None:
    queue = FakeQueue()
    await hand_in(Submission(due=NOW + 60), WHO, house(queue=queue))
    assert queue.kept[0].envelope.due == NOW + 60


async def test_the_same_with_the_same_key_is_taken_once() -> None:
    queue, judge = FakeQueue(), Judge()
    where = house(judge, queue=queue)
    first = await hand_in(Submission(key="k"), WHO, where)
    asked = len(judge.asked)
    assert await hand_in(Submission(key="k"), WHO, where) == (first[0], True)
    assert len(judge.asked) == asked
    assert (await hand_in(Submission(key="l"), WHO, where))[1] is False
    assert (await hand_in(Submission(key="k"), "token:other", where))[1] is False
    assert len(queue.kept) == 3
    with pytest.raises(KeyReusedError):
        await hand_in(Submission(key="k", content=CONTENT + b"more\r\n"), WHO, where)
    with pytest.raises(KeyReusedError):
        await hand_in(Submission(key="k", tags=("t",)), WHO, where)


async def test_of_two_that_come_at_once_with_the_same_key_one_is_taken() -> None:
    queue = FakeQueue()
    where = house(queue=queue)
    queue.slow = trio.Event()
    told: list[tuple[str, bool]] = []

    async def one() -> None:
        told.append(await hand_in(Submission(key="k"), WHO, where))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one)
        nursery.start_soon(one)
        await trio.testing.wait_all_tasks_blocked()
        queue.slow.set()
    assert len(queue.kept) == 1
    assert sorted(again for _, again in told) == [False, True]
    assert len({id_ for id_, _ in told}) == 1


async def test_what_was_handed_in_is_on_the_disk_and_known_after_a_start(tmp_path: Path) -> None:
    large = b"Date: today\r\nMessage-ID: <1@b>\r\n\r\n" + (b"x" * 998 + b"\r\n") * 700
    reserve = Reserve(octets=0, share=0, inodes=0)
    ids: list[str] = []
    for again in (False, True):
        with trio.fail_after(60):
            async with open_queue(
                tmp_path / "queue", RetryPolicy(), lane=lambda *_: "maildir", reserve=reserve
            ) as queue:
                where = House.of(load(CONFIG), queue=queue, reaper=Reaper())
                for key, content in (("small", CONTENT), ("large", large)):
                    taken = await hand_in(Submission(key=key, content=content), WHO, where)
                    assert taken[1] is again
                    ids.append(taken[0])
    assert ids[:2] == ids[2:]
    with StoreReader(tmp_path / "queue") as reader:
        assert reader.stats().messages == 2
        stored = reader.body(ids[1])
        assert stored is not None
        assert stored.endswith(large)


# What plugins do with it.


def held(*plugins: Plugin, queue: FakeQueue, **listeners: tuple[str, ...]) -> House:
    chain = Chain([Loaded(each, listeners=listeners.get(each.name, ())) for each in plugins])
    return msgspec.structs.replace(house(queue=queue), plugins=chain)


HOOKS = ("on_mail", "on_rcpt", "on_data", "on_header", "on_body", "on_inspect", "on_message")


@pytest.mark.parametrize("hook", HOOKS)
async def test_what_plugins_hold_or_throw_away_is_taken_and_can_be_found(hook: str) -> None:
    for verdict in (Quarantine("odd"), Discard("odd")):
        queue = FakeQueue()
        id_, again = await hand_in(
            to("x@far.example", "y@far.example"), WHO, held(saying(**{hook: verdict}), queue=queue)
        )
        (kept,) = queue.kept
        assert (kept.id, again) == (id_, False)
        envelope = kept.envelope
        for each in envelope.recipients:
            if isinstance(verdict, Discard):
                assert (each.via, each.holder or envelope.holder) == (("discard",), None)
            else:
                holder = each.holder or envelope.holder
                assert holder is not None
                assert (holder.owner, holder.reason) == ("plugin:p", "odd")
        assert {each.reason for each in envelope.notes} == {"odd"}


@pytest.mark.parametrize("hook", HOOKS)
async def test_what_plugins_refuse_at_any_hook_is_not_taken(hook: str) -> None:
    queue = FakeQueue()
    where = held(saying(**{hook: Reject((7, 1), "never", code=554)}), queue=queue)
    reply, _ = await refused(Submission(), where, queue)
    assert reply == "554 5.7.1 never"
    assert where.plugins.users.count == 0
    assert where.meters.refusals == {"plugin": 1}


@pytest.mark.parametrize("large", [False, True])
async def test_what_plugins_change_is_changed(large: bool) -> None:
    queue = FakeQueue()
    far = parse_mailbox("new@far.example")
    changes = (
        AddHeader("X-Top", "1"),
        AddHeader("X-Low", "2", top=False),
        RemoveHeader("Subject"),
        Redirect(parse_mailbox("x@far.example"), far),
    )
    content = CONTENT + (b"x" * 70 + b"\r\n") * (10_000 if large else 0)
    submission = Submission(content=content)
    await hand_in(submission, WHO, held(saying(on_message=Continue(changes)), queue=queue))
    (kept,) = queue.kept
    assert kept.content.startswith(b"X-Top: 1\r\nReceived: ")
    head, _, body = kept.content.partition(b"\r\n\r\n")
    assert body == content.partition(b"\r\n\r\n")[2]
    assert head.endswith(b"Message-ID: <1@b.example>\r\nX-Low: 2")
    assert [each.address for each in kept.envelope.recipients] == [far]
    assert queue.streamed == large


async def test_plugins_of_the_api_are_asked_and_those_of_listeners_are_not() -> None:
    queue, asked = FakeQueue(), list[str]()
    ours = saying("ours", asked=asked, **dict.fromkeys(HOOKS, CONTINUE))
    theirs = saying("theirs", **dict.fromkeys(HOOKS, Reject((7, 1), "no")))
    where = held(ours, theirs, queue=queue, ours=("api",), theirs=("mx",))
    await hand_in(Submission(), WHO, where)
    assert asked[:3] == ["on_mail", "on_rcpt", "on_data"]
    assert set(asked) == set(HOOKS)


async def test_nobody_greylists_who_has_logged_in() -> None:
    queue = FakeQueue()
    await hand_in(Submission(), WHO, held(saying(on_greylist=Defer((7, 1), "later")), queue=queue))
    assert len(queue.kept) == 1
