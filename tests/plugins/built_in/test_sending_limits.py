from __future__ import annotations

import sqlite3
from contextlib import asynccontextmanager, closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import override

from elemta.config import ConfigError
from elemta.ledger import FILE
from elemta.plugins import (
    CONTINUE,
    Attempted,
    Chain,
    Defer,
    Granted,
    Loaded,
    Plugin,
    Quarantine,
    Reject,
    Session,
    Verdict,
)
from elemta.plugins.built_in.sending_limits import SendingLimits
from elemta.plugins.tools import NoMail
from elemta.protocol import reply
from elemta.queue import (
    Delete,
    Filter,
    Finished,
    Origin,
    Released,
    Result,
    StoreUnavailable,
)
from elemta.testing import FakeClock, FakeContent, a_letter, a_session, a_transaction, some_tools
from elemta.testing import running as running_server

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from elemta.plugins.results import Store
    from elemta.protocol import Credentials, Reply
    from elemta.queue import MessageId
    from elemta.testing import Elemta

ALICE = "alice@example.org"
SMALL = FakeContent(b"Subject: x\r\n\r\ny\r\n")
DAY = 86400


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


class Queue(NoMail):
    """Remembers what was released."""

    def __init__(self) -> None:
        self.released: list[MessageId] = []
        self.broken = False

    @override
    async def release(self, id: MessageId, reason: str = "", *, own: bool = False) -> None:
        assert own, "what somebody else holds is not ours to release"
        if self.broken:
            raise StoreUnavailable("the disk is full")
        self.released.append(id)


class Postmaster:
    """Reads his mail, unless the disk is full."""

    def __init__(self) -> None:
        self.mail: list[tuple[str, str]] = []
        self.broken = False

    async def __call__(self, subject: str, text: str, /) -> bool:
        if not self.broken:
            self.mail.append((subject, text))
        return not self.broken


@asynccontextmanager
async def living(
    folder: Path,
    clock: FakeClock | None = None,
    queue: Queue | None = None,
    postmaster: Postmaster | None = None,
    shared: Store | None = None,
    **wanted: object,
) -> AsyncGenerator[SendingLimits]:
    wanted.setdefault("brake", None)
    plugin = SendingLimits.configured(wanted, "settings")
    plugin.tools = some_tools(
        "sending-limits",
        folder=folder,
        clock=clock or FakeClock(),
        queue=queue or Queue(),
        tell_postmaster=postmaster or Postmaster(),
    )
    if shared is not None:
        plugin.tools.shared = shared
    try:
        await plugin.start()
        yield plugin
    finally:
        await plugin.stop()


def of(login: str | None = ALICE, address: str = "192.0.2.1", *, trusted: bool = True) -> Session:
    session = a_session(address, trusted=trusted)
    session.login = login
    return session


async def send(
    plugin: SendingLimits,
    *recipients: str,
    session: Session | None = None,
    sender: str = ALICE,
    id: str = "MESSAGE",  # noqa: A002 # the word of people
) -> Verdict:
    """Go through a message as a session does; what becomes of it."""
    one = a_transaction(
        session or of(), sender=sender, recipients=recipients or ("bob@far.example",)
    )
    one.id = id
    chain = Chain([Loaded(plugin)])
    if (found := await chain.on_mail(one)).reply is not None:
        return found
    if (found := await chain.on_message(one, SMALL)).reply is not None:
        return found
    fate = one.fate()
    return CONTINUE if fate is None else fate.fate


def some(number: int, domain: str = "far.example") -> list[str]:
    return [f"r{each}@{domain}" for each in range(number)]


# Limits.


async def test_what_is_over_a_limit_is_held_with_the_numbers(
    tmp_path: Path, clock: FakeClock
) -> None:
    async with living(tmp_path, clock, account={"messages": ["3/1 d"]}) as plugin:
        for _ in range(3):
            assert await send(plugin) is CONTINUE
        assert await send(plugin) == Quarantine("alice@example.org: 4 of 3 messages in 1 d")
        assert await send(plugin, session=of("bea@example.org")) is CONTINUE
        clock.advance(1.1 * DAY)
        assert await send(plugin) is CONTINUE
        assert plugin.tools.meters.sending == {"passed": 5, "held": 1}


async def test_what_is_over_a_limit_is_refused_with_when_to_come_again(
    tmp_path: Path, clock: FakeClock
) -> None:
    async with living(tmp_path, clock, account={"messages": ["2/1 h"]}, over="refuse") as plugin:
        for _ in range(2):
            assert await send(plugin) is CONTINUE
        clock.advance(1200)
        verdict = await send(plugin)
        said = "452 4.7.1 3 of 2 messages in 1 h, try again in 43 min"
        assert str(verdict.reply) == said
        assert isinstance(verdict, Defer)
        assert verdict.note == "alice@example.org: 3 of 2 messages in 1 h"
        clock.advance(43 * 60)
        assert await send(plugin) is CONTINUE
        assert plugin.tools.meters.sending == {"passed": 3, "refused": 1}


@pytest.mark.parametrize(
    ("limit", "after", "said"),
    [("1/10 s", 0, "11 s"), ("1/1 d", 0, "25 h"), ("1/1 min", 30, "33 s"), ("1/4 h", 0, "5 h")],
)
async def test_the_time_to_wait_is_said_as_people_say_it(
    limit: str, after: int, said: str, tmp_path: Path, clock: FakeClock
) -> None:
    async with living(tmp_path, clock, account={"messages": [limit]}, over="refuse") as plugin:
        await send(plugin)
        clock.advance(after)
        assert str((await send(plugin)).reply).endswith(f"try again in {said}")


async def test_a_message_to_three_is_three_recipients(tmp_path: Path) -> None:
    async with living(tmp_path, account={"recipients": ["5/1 d"]}) as plugin:
        assert await send(plugin, *some(3)) is CONTINUE
        assert await send(plugin, *some(3)) == Quarantine(f"{ALICE}: 6 of 5 recipients in 1 d")
        assert await send(plugin, *some(2)) is CONTINUE, "what was held took nothing"


async def test_several_windows_hold_at_once(tmp_path: Path, clock: FakeClock) -> None:
    limits = {"messages": ["2/1 min", "4/1 h"], "recipients": ["100/1 d"]}
    async with living(tmp_path, clock, account=limits, over="refuse") as plugin:
        told: list[str] = []
        for _ in range(4):
            told += [str((await send(plugin)).reply) for _ in range(3)]
            clock.advance(63)
        assert told == [
            *("None", "None", "452 4.7.1 3 of 2 messages in 1 min, try again in 63 s"),
            *("None", "None", "452 4.7.1 5 of 4 messages in 1 h, try again in 62 min"),
            *["452 4.7.1 5 of 4 messages in 1 h, try again in 61 min"] * 3,
            *["452 4.7.1 5 of 4 messages in 1 h, try again in 60 min"] * 3,
        ]


async def test_more_recipients_than_there_ever_may_be_need_not_come_again(tmp_path: Path) -> None:
    limits = {"recipients": ["5/1 d"]}
    async with living(tmp_path, account=limits, over="refuse") as plugin:
        verdict = await send(plugin, *some(6))
        assert isinstance(verdict, Reject)
        assert str(verdict.reply) == "550 5.5.3 6 of 5 recipients in 1 d: too many recipients"


async def test_a_domain_is_all_its_accounts_together(tmp_path: Path) -> None:
    async with living(tmp_path, sender_domain={"messages": ["2/1 d"]}) as plugin:
        assert await send(plugin) is CONTINUE
        assert await send(plugin, session=of("bea"), sender="bea@EXAMPLE.org") is CONTINUE
        assert await send(plugin, session=of("carl"), sender="carl@example.org") == Quarantine(
            "example.org: 3 of 2 messages in 1 d"
        )
        assert await send(plugin, session=of("carl"), sender="carl@example.net") is CONTINUE
        assert await send(plugin, session=of("carl"), sender="") is CONTINUE


async def test_what_one_account_sends_to_one_domain_is_limited(tmp_path: Path) -> None:
    async with living(tmp_path, recipient_domain={"recipients": ["3/1 h"]}) as plugin:
        assert await send(plugin, *some(3), *some(3, "near.example")) is CONTINUE
        assert await send(plugin, "x@FAR.example", "x@other.example") == Quarantine(
            "alice@example.org to far.example: 4 of 3 recipients in 1 h"
        )
        assert await send(plugin, "x@other.example") is CONTINUE
        assert await send(plugin, *some(3), session=of("bea")) is CONTINUE


async def test_only_who_has_logged_in_has_an_account(tmp_path: Path) -> None:
    async with living(tmp_path, account={"messages": ["1/1 d"]}) as plugin:
        for _ in range(3):
            assert await send(plugin, session=of(None)) is CONTINUE
        assert plugin.tools.meters.sending == {}


async def test_clients_that_may_relay_are_accounts_if_that_is_wanted(tmp_path: Path) -> None:
    async with living(tmp_path, account={"messages": ["1/1 d"]}, clients=True) as plugin:
        assert await send(plugin, session=of(None)) is CONTINUE
        assert await send(plugin, session=of(None)) == Quarantine(
            "192.0.2.1: 2 of 1 messages in 1 d"
        )
        assert await send(plugin, session=of(None, "192.0.2.2")) is CONTINUE
        for _ in range(3):
            assert await send(plugin, session=of(None, trusted=False)) is CONTINUE
            assert await send(plugin, session=of(None, "")) is CONTINUE


async def test_case_makes_no_other_account(tmp_path: Path) -> None:
    async with living(tmp_path, account={"messages": ["1/1 d"]}) as plugin:
        assert await send(plugin, session=of("Alice@example.org")) is CONTINUE
        assert isinstance(await send(plugin), Quarantine)


async def test_some_have_other_limits_and_some_have_none(tmp_path: Path) -> None:
    overrides: list[dict[str, object]] = [
        {"accounts": ["news"], "account": {"messages": ["2/1 d"]}},
        {"accounts": ["@lists.example.org"], "account": {}, "sender_domain": {}},
        {"accounts": ["alice@example.org"], "recipient_domain": {}},
    ]
    async with living(
        tmp_path,
        account={"messages": ["1/1 d"]},
        sender_domain={"messages": ["4/1 d"]},
        recipient_domain={"messages": ["2/1 d"]},
        overrides=overrides,
        exempt=["@*.robots.example", "backup"],
    ) as plugin:
        assert await count(plugin, "news", "news@example.org") == 2
        assert await count(plugin, "x@lists.example.org", "x@lists.example.org") == 2, (
            "what an override does not say is as for all: two messages to one domain"
        )
        assert await count(plugin, ALICE, ALICE) == 1
        assert await count(plugin, "x@y.robots.example", "x@many.example") == 9
        assert await count(plugin, "Backup", "x@many.example") == 9


async def count(plugin: SendingLimits, login: str, sender: str) -> int:
    """How many of nine messages go through."""
    found = [await send(plugin, session=of(login), sender=sender) for _ in range(9)]
    return found.count(CONTINUE)


async def test_held_mail_has_a_limit_too(tmp_path: Path, clock: FakeClock) -> None:
    async with living(tmp_path, clock, account={"messages": ["1/1 d"]}, held="2/1 h") as plugin:
        assert await send(plugin) is CONTINUE
        for _ in range(2):
            assert isinstance(await send(plugin), Quarantine)
        verdict = await send(plugin)
        said = "452 4.7.1 2 of 1 messages in 1 d, try again in 63 min"
        assert str(verdict.reply) == said
        clock.advance(64 * 60)
        assert isinstance(await send(plugin), Quarantine)


async def test_two_sessions_cannot_both_have_the_last_place(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    found: list[Verdict] = []
    async with living(tmp_path, account={"messages": ["10/1 d"]}) as plugin:

        async def one() -> None:
            transaction = a_transaction(of(), sender=ALICE)
            chain = Chain([Loaded(plugin)])
            await chain.on_mail(transaction)
            await trio.sleep(1)  # until all of them have looked
            await chain.on_message(transaction, SMALL)
            fate = transaction.fate()
            found.append(CONTINUE if fate is None else fate.fate)

        async with trio.open_nursery() as nursery:
            for _ in range(25):
                nursery.start_soon(one)
    assert found.count(CONTINUE) == 10


async def test_what_somebody_has_sent_is_known_after_a_restart(
    tmp_path: Path, clock: FakeClock
) -> None:
    limits = {"messages": ["2/1 d"]}
    async with living(tmp_path, clock, account=limits) as plugin:
        for _ in range(2):
            assert await send(plugin) is CONTINUE
    clock.advance(3600)
    async with living(tmp_path, clock, account=limits) as plugin:
        assert isinstance(await send(plugin), Quarantine)
    async with living(tmp_path, clock, account={"messages": ["3/1 d"]}) as plugin:
        assert await send(plugin) is CONTINUE, "the limit has changed, not what was sent"
        assert isinstance(await send(plugin), Quarantine)


async def test_memory_is_bounded_whatever_domains_somebody_invents(tmp_path: Path) -> None:
    async with living(tmp_path, recipient_domain={"messages": ["1/1 h"]}, keys=1000) as plugin:
        for number in range(40):
            assert await send(plugin, *[f"x@{number}-{n}.example" for n in range(100)]) is CONTINUE
    with closing(sqlite3.connect(tmp_path / FILE)) as ledger:
        [(rows,)] = ledger.execute("SELECT count(*) FROM rows WHERE book LIKE '%recipient_domain'")
    assert 0 < rows <= 1000


@settings(max_examples=30, deadline=None)  # each makes a ledger on the disk
@given(
    st.lists(
        st.tuples(
            st.floats(0, 900), st.sampled_from(["alice", "bea"]), st.integers(1, 4), st.booleans()
        ),
        max_size=40,
    )
)
def test_no_sequence_gets_more_through_than_a_limit(
    steps: list[tuple[float, str, int, bool]],
) -> None:
    passed = trio.run(_passed, steps)
    for begin, login, _, to in passed:
        of_login = [each for each in passed if each[1] == login]
        hour = [each for each in of_login if begin <= each[0] < begin + 3600]
        assert len(hour) <= 4
        assert sum(each[2] for each in of_login if begin <= each[0] < begin + 7200) <= 9
        assert sum(each[2] for each in hour if each[3] == to) <= 5


async def _passed(
    steps: list[tuple[float, str, int, bool]],
) -> list[tuple[float, str, int, str]]:
    """What goes through: when, whose, to how many, and where."""
    clock = FakeClock()
    passed: list[tuple[float, str, int, str]] = []
    limits = {"messages": ["4/1 h"], "recipients": ["9/2 h"]}
    each_domain = {"recipients": ["5/1 h"]}
    with TemporaryDirectory() as folder:
        async with living(
            Path(folder), clock, account=limits, recipient_domain=each_domain
        ) as plugin:
            for pause, login, number, far in steps:
                clock.advance(pause)
                domain = "far.example" if far else "near.example"
                if await send(plugin, *some(number, domain), session=of(login)) is CONTINUE:
                    passed.append((clock.now, login, number, domain))
    return passed


# What is held goes on.


@asynccontextmanager
async def running(plugin: SendingLimits) -> AsyncGenerator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(plugin.run)
        yield
        nursery.cancel_scope.cancel()


async def test_what_is_held_goes_on_when_there_is_room(
    tmp_path: Path, clock: FakeClock, autojump_clock: trio.testing.MockClock
) -> None:
    queue = Queue()
    async with (
        living(
            tmp_path, clock, queue, account={"messages": ["2/1 h"]}, release="when-room"
        ) as plugin,
        running(plugin),
    ):
        for number in range(7):
            await send(plugin, id=f"M{number}")
            clock.advance(1)
        await trio.sleep(100)
        assert queue.released == []
        clock.advance(4000)
        await trio.sleep(100)
        assert queue.released == ["M2", "M3"], "the oldest first, and no more than may go"
        assert isinstance(await send(plugin, id="M7"), Quarantine)
        await plugin.on_event(Finished(1, clock.now, "M4"), queue)  # somebody has deleted it
        clock.advance(4000)
        queue.broken = True
        await trio.sleep(100)
        queue.broken = False
        clock.advance(4000)
        await trio.sleep(100)
        assert queue.released == ["M2", "M3", "M5", "M6"]
        assert plugin.tools.meters.sending["released"] == 4


async def test_what_is_held_is_known_after_a_restart(
    tmp_path: Path, clock: FakeClock, autojump_clock: trio.testing.MockClock
) -> None:
    async with living(
        tmp_path, clock, account={"messages": ["1/1 h"]}, release="when-room"
    ) as plugin:
        await send(plugin, id="M1")
        await send(plugin, id="M2")
    clock.advance(5000)
    queue = Queue()
    async with (
        living(
            tmp_path, clock, queue, account={"messages": ["1/1 h"]}, release="when-room"
        ) as plugin,
        running(plugin),
    ):
        await trio.sleep(100)
    assert queue.released == ["M2"]


async def test_what_an_operator_releases_is_not_released_again(
    tmp_path: Path, clock: FakeClock, autojump_clock: trio.testing.MockClock
) -> None:
    queue = Queue()
    async with (
        living(
            tmp_path, clock, queue, account={"messages": ["1/1 h"]}, release="when-room"
        ) as plugin,
        running(plugin),
    ):
        await send(plugin, id="M1")
        await send(plugin, id="M2")
        await plugin.on_event(released("M9"), queue)  # which somebody else has held
        await plugin.on_event(released("M2"), queue)
        clock.advance(5000)
        await trio.sleep(100)
        assert queue.released == []
        assert await send(plugin) is CONTINUE


def released(id: MessageId) -> Released:  # noqa: A002 # the word of people
    to = a_letter().recipient.address
    return Released(1, 0.0, id, to, "operator:root", "")


# The brake.


async def spread(
    plugin: SendingLimits, clock: FakeClock, days: int, recipients: int, login: str = ALICE
) -> None:
    """Send the same each day."""
    for _ in range(days):
        assert await send(plugin, *some(recipients), session=of(login)) is CONTINUE
        clock.advance(DAY)


async def test_an_account_that_sends_far_more_than_usual_is_stopped(
    tmp_path: Path, clock: FakeClock
) -> None:
    async with living(tmp_path, clock, brake={"times": 10}) as plugin:
        await spread(plugin, clock, 14, 20)
        clock.advance(DAY)
        allowed = int(10 * 20 * 14 / 14 * 13 / 14)  # yesterday there was none
        assert await send(plugin, *some(allowed)) is CONTINUE
        verdict = await send(plugin)
        assert isinstance(verdict, Quarantine)
        assert verdict.reason == f"{ALICE}: 186 recipients in 1 d, usually 18.6, at most 185"
        assert await send(plugin) == verdict, "and so is all that comes after it"
        assert await send(plugin, *some(100), session=of("bea")) is CONTINUE
        clock.advance(23 * 3600)
        assert await send(plugin) == verdict, "also later, as long as it goes on"
        clock.advance(23 * 3600)
        assert await send(plugin) == verdict
    meters = plugin.tools.meters
    assert (meters.sending_stopped, meters.sending_stops) == (1, 1)
    assert meters.sending == {"passed": 16, "braked": 4}
    clock.advance(25 * 3600)
    async with living(tmp_path, clock, brake={"times": 10}) as plugin:
        assert await send(plugin) is CONTINUE
    assert plugin.tools.meters.sending_stopped == 0


async def test_a_new_account_has_an_allowance(tmp_path: Path, clock: FakeClock) -> None:
    async with living(tmp_path, clock, brake={"new_account": 30}) as plugin:
        assert await send(plugin, *some(30)) is CONTINUE
        assert isinstance(await send(plugin), Quarantine)
        verdict = await send(plugin, *some(31), session=of("bea"))
        assert verdict == Quarantine("bea: 31 recipients in 1 d, usually 0, at most 30")


async def test_nobody_gets_two_bursts_around_midnight(tmp_path: Path, clock: FakeClock) -> None:
    clock.advance(DAY - clock.now % DAY - 60)
    async with living(tmp_path, clock, brake={"times": 2, "new_account": 30}) as plugin:
        assert await send(plugin, *some(10)) is CONTINUE
        clock.advance(120)
        assert await send(plugin, *some(20)) is CONTINUE
        assert isinstance(await send(plugin), Quarantine)


async def test_who_is_stopped_stays_so_over_a_restart(tmp_path: Path, clock: FakeClock) -> None:
    async with living(tmp_path, clock, brake={"new_account": 5}) as plugin:
        stopped = await send(plugin, *some(6))
        assert isinstance(stopped, Quarantine)
    async with living(tmp_path, clock, brake={"new_account": 5}) as plugin:
        assert await send(plugin) == stopped
        assert plugin.tools.meters.sending_stopped == 1


async def test_an_operator_who_releases_one_message_lets_the_account_go(
    tmp_path: Path, clock: FakeClock
) -> None:
    async with living(tmp_path, clock, brake={"new_account": 5}) as plugin:
        for number in range(2):
            assert isinstance(await send(plugin, *some(6), id=f"M{number}"), Quarantine)
        await plugin.on_event(Finished(1, clock.now, "M0"), NoMail())
        assert isinstance(await send(plugin), Quarantine), "it was deleted, which says nothing"
        await plugin.on_event(released("M1"), NoMail())
        for _ in range(2):
            assert await send(plugin, *some(6)) is CONTINUE
        clock.advance(1.1 * DAY)
        assert await send(plugin, *some(500)) is CONTINUE, "for now it is usual: 50 times 12"
        assert isinstance(await send(plugin, *some(101)), Quarantine)


async def test_held_mail_of_who_is_stopped_is_bounded(tmp_path: Path, clock: FakeClock) -> None:
    async with living(tmp_path, clock, brake={"new_account": 5}, held="2/1 d") as plugin:
        for _ in range(2):
            assert isinstance(await send(plugin, *some(6)), Quarantine)
        assert str((await send(plugin)).reply) == (
            "452 4.7.1 sending is stopped for this account, ask your postmaster"
        )


async def test_some_are_never_stopped(tmp_path: Path) -> None:
    override = {"accounts": ["news@example.org"], "brake": False}
    async with living(tmp_path, brake={}, overrides=[override], exempt=["robot"]) as plugin:
        assert await send(plugin, *some(5000), session=of("news@example.org")) is CONTINUE
        assert await send(plugin, *some(5000), session=of("robot")) is CONTINUE
        assert isinstance(await send(plugin, *some(5000), session=of("x@example.org")), Quarantine)


async def test_what_is_over_a_limit_is_not_usual(tmp_path: Path, clock: FakeClock) -> None:
    limits = {"recipients": ["10/1 d"]}
    async with living(tmp_path, clock, account=limits, brake={"new_account": 20}) as plugin:
        await spread(plugin, clock, 2, 5)
        for _ in range(5):
            assert isinstance(await send(plugin, *some(11)), Quarantine)
        assert await send(plugin, *some(5)) is CONTINUE


async def fail(
    plugin: SendingLimits,
    login: str = ALICE,
    code: int = 550,
    result: Result = Result.FAILED,
) -> None:
    letter = a_letter()
    letter.message.origin = Origin(login=login)
    await plugin.on_attempted(letter, Attempted(result, reply(code, 1, 1, "no"), "mx", 1.0))


async def test_who_is_refused_too_often_is_stopped(tmp_path: Path, clock: FakeClock) -> None:
    async with living(tmp_path, clock, brake={"bounces": "3/1 h"}, exempt=["robot"]) as plugin:
        for _ in range(3):
            await fail(plugin)
            await fail(plugin, code=450, result=Result.DEFERRED)
            await fail(plugin, code=450)
            await fail(plugin, "")
            await fail(plugin, "robot")
        assert await send(plugin) is CONTINUE
        await fail(plugin)
        assert await send(plugin) == Quarantine(f"{ALICE}: 4 recipients refused in 1 h")
        await fail(plugin)
        assert plugin.tools.meters.sending_stops == 1


async def test_refusals_count_if_that_is_wanted(tmp_path: Path) -> None:
    async with living(tmp_path, brake={}) as plugin:
        for _ in range(1000):
            await fail(plugin)
        assert await send(plugin) is CONTINUE


# The postmaster.


async def test_the_postmaster_hears_of_it_once_a_day(
    tmp_path: Path, clock: FakeClock, autojump_clock: trio.testing.MockClock
) -> None:
    postmaster = Postmaster()
    async with (
        living(tmp_path, clock, None, postmaster, brake={"new_account": 5}) as plugin,
        running(plugin),
    ):
        for _ in range(3):
            await send(plugin, *some(6))
            await send(plugin, *some(6), session=of("bea"))
            await trio.sleep(100)
        assert [subject for subject, _ in postmaster.mail] == [
            "Sending is stopped for alice@example.org and 1 more"
        ]
        text = postmaster.mail[0][1]
        assert f"{ALICE}: 6 recipients in 1 d, usually 0, at most 5" in text
        assert "bea: 6 recipients in 1 d" in text
        assert "--owner plugin:sending-limits" in text
        clock.advance(0.9 * DAY)
        await send(plugin)
        await trio.sleep(100)
        assert len(postmaster.mail) == 1
        clock.advance(0.2 * DAY)
        await send(plugin)
        await trio.sleep(100)
        assert postmaster.mail[-1][0] == "Sending is stopped for alice@example.org"


async def test_a_disk_that_fails_delays_the_word_to_the_postmaster(
    tmp_path: Path, clock: FakeClock, autojump_clock: trio.testing.MockClock
) -> None:
    postmaster = Postmaster()
    postmaster.broken = True
    async with (
        living(tmp_path, clock, None, postmaster, brake={"new_account": 5}) as plugin,
        running(plugin),
    ):
        await send(plugin, *some(6))
        await trio.sleep(100)
        postmaster.broken = False
        await trio.sleep(300)
        assert postmaster.mail == []
        await trio.sleep(1000)
        assert len(postmaster.mail) == 1


async def test_a_reload_does_not_forget_whom_the_postmaster_has_to_hear_of(
    tmp_path: Path, clock: FakeClock, autojump_clock: trio.testing.MockClock
) -> None:
    postmaster, brake = Postmaster(), {"new_account": 5}
    async with living(tmp_path, clock, brake=brake) as former:
        await send(former, *some(6))
        shared = former.tools.shared
        async with (
            living(tmp_path, clock, None, postmaster, shared, brake=brake) as plugin,
            running(plugin),
        ):
            await trio.sleep(100)
    assert len(postmaster.mail) == 1


# In a server.


class Knows(Plugin):
    """Knows whoever comes."""

    name = "knows"

    @override
    async def on_authenticate(
        self, session: Session, credentials: Credentials
    ) -> Granted | Verdict:
        return Granted(credentials.user)


HEAD = """
hostname: mx.us.example
listeners: [{name: mx, address: "203.0.113.25:25", auth: always}]
domains: [{name: us.example, mailboxes: ["*"]}]
plugins:
  - name: sending-limits
"""


async def submit(elemta: Elemta, *recipients: str) -> Reply:
    """Log in and send."""
    async with elemta.client() as client:
        await client.say("EHLO laptop.us.example")
        assert (await client.log_in("ann@us.example", "secret")).code == 235
        await client.say("MAIL FROM:<ann@us.example>")
        for each in recipients or ("bob@us.example",):
            await client.say(f"RCPT TO:<{each}>")
        answer = await client.send("Subject: hello\n\nHello.\n")
    await elemta.settled()
    return answer


async def test_an_operator_finds_what_is_held_and_why_and_releases_or_deletes_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    limits = "    settings: {account: {messages: [1/1 d]}, brake: null}\n"
    async with running_server(HEAD + limits, [Knows()]) as elemta:
        assert (await submit(elemta)).code == 250
        released, deleted = await submit(elemta), await submit(elemta)
        assert (released.code, deleted.code) == (250, 250)
        assert len(elemta.delivered) == 1
        [one, _] = elemta.held()
        [recipient] = one.recipients
        assert recipient.holder is not None
        assert recipient.holder.owner == "plugin:sending-limits"
        assert recipient.holder.reason == "ann@us.example: 2 of 1 messages in 1 d"
        assert elemta.notes(released) == [
            "plugin:sending-limits: quarantine: ann@us.example: 2 of 1 messages in 1 d"
        ]
        await elemta.release(released)
        assert len(elemta.delivered) == 2
        await elemta.queue.act(Delete(), Filter(owner="plugin:sending-limits"), who="test")
        await elemta.advance(days=2)
        assert (elemta.queued(), len(elemta.delivered)) == ([], 2)


async def test_what_is_held_goes_on_by_itself(
    autojump_clock: trio.testing.MockClock,
) -> None:
    limits = "    settings: {account: {messages: [1/1 d]}, release: when-room}\n"
    async with running_server(HEAD + limits, [Knows()]) as elemta:
        for _ in range(3):
            assert (await submit(elemta)).code == 250
        first, second = [each.id for each in elemta.held()]
        await elemta.release(second)
        assert len(elemta.delivered) == 2
        await elemta.advance(days=1.2)
        assert elemta.held() == []
        assert len(elemta.delivered) == 3
        assert elemta.notes(first)[-1] == "plugin:sending-limits: release: there is room again"


async def test_the_postmaster_gets_mail_about_who_is_stopped(
    autojump_clock: trio.testing.MockClock,
) -> None:
    limits = "    settings: {brake: {new_account: 2}}\n"
    async with running_server(HEAD + limits, [Knows()]) as elemta:
        assert (await submit(elemta, "a@us.example", "b@us.example", "c@us.example")).code == 250
        await elemta.advance(minutes=5)
        [notice] = elemta.delivered
        assert (notice.sender, notice.recipients) == ("", ("postmaster@us.example",))
        assert notice.header("subject") == ["Sending is stopped for ann@us.example"]
        await elemta.release(elemta.held()[0].id)
        assert len(elemta.delivered) == 4
        assert (await submit(elemta, "a@us.example", "b@us.example", "c@us.example")).code == 250
        assert elemta.held() == []


# Settings.


WRONG: list[tuple[dict[str, object], str]] = [
    ({"account": {"messages": ["5/1 h", "9/1 h"]}}, "two limits of messages in the same time"),
    ({"exempt": ["a@b@c"]}, "expected"),
    ({"exempt": [""]}, "an account has a name"),
    ({"overrides": [{"accounts": []}]}, "accounts"),
    ({"overrides": [{"accounts": ["@"]}]}, "expected"),
    ({"account": {"messages": ["0/1 h"]}}, "at least one"),
    ({"over": "drop"}, "over"),
]


@pytest.mark.parametrize(("wanted", "problem"), WRONG)
def test_what_makes_no_sense_is_a_mistake(wanted: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        SendingLimits.configured(wanted, "settings")


def test_it_may_have_no_settings() -> None:
    assert SendingLimits.configured({}, "settings").settings.brake is not None
