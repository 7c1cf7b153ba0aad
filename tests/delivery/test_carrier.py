from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest
import trio
from msgspec import Struct
from msgspec.structs import replace

from elemta.config import HostPort
from elemta.delivery.carrier import Carrier, Tried, Welcome
from elemta.delivery.hosts import Hosts
from elemta.delivery.routes import ByMx, Terms, ToHosts
from elemta.delivery.security import Security
from elemta.delivery.session import Timeouts
from elemta.message import Action
from elemta.metrics.meters import Meters
from elemta.protocol import (
    Mailbox,
    MailParams,
    Notify,
    OriginalRecipient,
    RcptParams,
    Ret,
)
from elemta.queue import Message, Recipient, Result
from tests.delivery.world import ANN, BODY, Net, on_virtual_time
from tests.delivery.zone import Zone

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

FIRST, SECOND, THIRD = "198.51.100.1", "198.51.100.2", "198.51.100.3"
ROUTE = ByMx("b.example")
DELIVERED, DEFERRED, FAILED = Result.DELIVERED, Result.DEFERRED, Result.FAILED

pytestmark = pytest.mark.trio(run=on_virtual_time)


class Stored(Struct):
    octets: bytes = BODY

    @property
    def size(self) -> int:
        return len(self.octets)

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        yield self.octets


def message(*names: str) -> Message:
    recipients = [
        Recipient(number=n, address=Mailbox(name, "b.example"))
        for n, name in enumerate(names or ("bob",))
    ]
    return Message(
        id="01JD0000000000000000000000",
        sender=ANN,
        params=MailParams(),
        recipients=recipients,
        received_at=0.0,
        expires_at=432_000.0,
        size=len(BODY),
    )


class Bench:
    """A carrier, and two exchangers of b.example."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.net = Net(nursery)
        self.meters = Meters()
        self.zone = Zone()
        self.zone.mx_records["b.example"] = [
            (10, "mx1.example"),
            (20, "mx2.example"),
            (30, "mx3.example"),
        ]
        self.zone.hosts |= {"mx1.example": [FIRST], "mx2.example": [SECOND], "mx3.example": [THIRD]}
        hosts = Hosts(self.zone, hostname="mx.us.example", is_own=lambda *_: False)
        self.carrier = Carrier(
            self.net.dial,
            hosts,
            "mx.us.example",
            Timeouts(),
            Security("opportunistic"),
            meters=self.meters,
        )

    async def deliver(self, *names: str, route: ByMx | ToHosts = ROUTE) -> list[Tried]:
        whole = message(*names)
        tried: dict[int, Tried] = {}
        await self.carrier.deliver(route, whole, whole.recipients, Stored(), tried)
        return [tried[recipient.number] for recipient in whole.recipients]


@pytest.fixture
def bench(nursery: trio.Nursery) -> Bench:
    return Bench(nursery)


async def test_a_message_goes_to_the_best_exchanger(bench: Bench) -> None:
    first, second = bench.net.host(FIRST), bench.net.host(SECOND)
    [tried] = await bench.deliver()
    assert tried.result is DELIVERED
    assert tried.remote
    assert str(tried.reply) == "250 2.0.0 taken"
    assert tried.host == "mx1.example[198.51.100.1]:25"
    assert [taken.recipients for taken in first.taken] == [("bob@b.example",)]
    assert first.taken[0].sender == "ann@sender.example"
    assert first.taken[0].content == BODY
    assert second.dialled == 0
    assert bench.carrier.welcome is Welcome.HEARD


async def test_connection_refused_is_temporary(bench: Bench) -> None:
    # Fault 3 of the original: it was permanent, and a restart of Dovecot lost mail.
    [tried] = await bench.deliver()
    assert tried.result is DEFERRED
    assert not tried.remote
    assert str(tried.reply).startswith("451 4.4.1 cannot connect to mx3.example")
    assert "Connection refused" in tried.reply.text
    assert bench.net.dialled == [FIRST, SECOND, THIRD]
    assert bench.carrier.welcome is Welcome.SILENT


@pytest.mark.parametrize(
    "down",
    [
        OSError(errno.EHOSTUNREACH, "No route to host"),
        OSError(errno.ENETUNREACH, "Network is unreachable"),
        OSError(errno.ECONNRESET, "Connection reset by peer"),
        OSError("no errno at all"),
        trio.TooSlowError(),
    ],
    ids=repr,
)
async def test_a_host_that_cannot_be_reached_is_passed_over(down: Exception, bench: Bench) -> None:
    bench.net.host(FIRST).down = down
    second = bench.net.host(SECOND)
    [tried] = await bench.deliver()
    assert tried.result is DELIVERED
    assert len(second.taken) == 1


async def test_nobody_there_at_all_is_temporary_however_it_shows(bench: Bench) -> None:
    for address in (FIRST, SECOND, THIRD):
        bench.net.host(address).down = trio.TooSlowError()
    [tried] = await bench.deliver()
    assert tried.result is DEFERRED
    assert tried.reply.text.endswith("timed out")
    assert bench.carrier.welcome is Welcome.SILENT


GONE_BEFORE_CONTENT = [
    {"greeting": None},
    {"greeting": ""},
    {"greeting": "554 5.7.1 go away"},
    {"greeting": "421 4.3.2 too busy"},
    {"greeting": "garbage"},
    {"EHLO": None},
    {"EHLO": ""},
    {"EHLO": "421 4.3.2 too busy"},
    {"EHLO": "550 no", "HELO": "550 no"},
    {"EHLO": "451 not now"},
    {"MAIL": None},
    {"MAIL": ""},
    {"MAIL": "421 4.3.2 too busy"},
    {"RCPT": None},
    {"RCPT": ""},
    {"RCPT": "421 4.3.2 too busy"},
    {"DATA": None},
    {"DATA": ""},
]


@pytest.mark.parametrize("says", GONE_BEFORE_CONTENT, ids=repr)
async def test_who_breaks_off_before_the_content_makes_way_for_the_next(
    says: dict[str, str | None], bench: Bench
) -> None:
    first, second = bench.net.host(FIRST, **says), bench.net.host(SECOND)
    [tried] = await bench.deliver()
    assert tried.result is DELIVERED
    assert tried.host.startswith("mx2.example")
    assert first.taken == []
    assert len(second.taken) == 1


@pytest.mark.parametrize("says", GONE_BEFORE_CONTENT, ids=repr)
async def test_an_attempt_talks_to_two_hosts_and_what_is_left_then_is_temporary(
    says: dict[str, str | None], bench: Bench
) -> None:
    for address in (FIRST, SECOND, THIRD):
        bench.net.host(address, **says)
    [tried] = await bench.deliver()
    assert tried.result is DEFERRED
    assert tried.host.startswith("mx2.example")
    assert bench.net.dialled == [FIRST, SECOND]
    assert bench.carrier.welcome is not Welcome.HEARD
    assert not bench.carrier.connected


@pytest.mark.parametrize(
    ("says", "result", "said"),
    [
        ({"MAIL": "451 4.7.1 later"}, DEFERRED, "451 4.7.1 later"),
        ({"RCPT": "450 4.2.0 greylisted"}, DEFERRED, "450 4.2.0 greylisted"),
        ({"RCPT": "550 5.1.1 unknown"}, FAILED, "550 5.1.1 unknown"),
        ({"RCPT": "551 user not local"}, FAILED, "551 user not local"),
        ({"DATA": "451 4.3.0 no"}, DEFERRED, "451 4.3.0 no"),
        ({"DATA": "554 5.3.0 no"}, FAILED, "554 5.3.0 no"),
        ({".": "452 4.3.1 disk full"}, DEFERRED, "452 4.3.1 disk full"),
        ({".": "554 5.7.1 spam"}, FAILED, "554 5.7.1 spam"),
        ({".": "250 ok"}, DELIVERED, "250 ok"),
    ],
    ids=repr,
)
async def test_what_a_host_says_of_the_mail_counts(
    says: dict[str, str | None], result: Result, said: str, bench: Bench
) -> None:
    bench.net.host(FIRST, **says)
    second = bench.net.host(SECOND)
    [tried] = await bench.deliver()
    assert (tried.result, str(tried.reply), tried.remote) == (result, said, True)
    assert second.dialled == 0, "no other host is asked for a better answer"
    assert bench.carrier.welcome is Welcome.HEARD
    assert bench.carrier.connected


@pytest.mark.parametrize("lost", [None, ""], ids=["hangs up", "is silent"])
async def test_an_answer_to_a_whole_message_that_is_lost_is_temporary_and_tried_nowhere_else(
    lost: str | None, bench: Bench
) -> None:
    bench.net.host(FIRST, **{".": lost})
    second = bench.net.host(SECOND)
    started = trio.current_time()
    [tried] = await bench.deliver()
    assert tried.result is DEFERRED
    assert not tried.remote
    assert second.dialled == 0, "the first may have it"
    assert trio.current_time() - started == (0 if lost is None else 600)
    assert bench.carrier.welcome is Welcome.TURNED_AWAY


async def test_a_sender_that_is_refused_for_ever_may_be_welcome_at_the_next_host(
    bench: Bench,
) -> None:
    first = bench.net.host(FIRST, MAIL="550 5.7.1 not you")
    second = bench.net.host(SECOND)
    [tried] = await bench.deliver()
    assert (tried.result, tried.host[:3]) == (DELIVERED, "mx2")
    assert (first.taken, len(second.taken)) == ([], 1)
    # The same on a connection that was kept.
    second.says["MAIL"] = "553 5.1.8 not you either"
    first.says["MAIL"] = "250 ok"
    [tried] = await bench.deliver()
    assert (tried.result, tried.host[:3]) == (DELIVERED, "mx1")


async def test_a_sender_whom_no_host_wants_is_refused_for_ever(bench: Bench) -> None:
    bench.net.host(FIRST, MAIL="550 5.7.1 not you")
    tried = await bench.deliver(*(f"user{n}" for n in range(250)))
    assert {(one.result, str(one.reply)) for one in tried} == {(FAILED, "550 5.7.1 not you")}
    assert bench.carrier.welcome is Welcome.HEARD
    bench.net.host(SECOND, MAIL="553 5.1.8 nor here")
    third = bench.net.host(THIRD)
    tried = await bench.deliver("bob", "eve")
    assert {(one.result, str(one.reply)) for one in tried} == {(FAILED, "553 5.1.8 nor here")}
    assert third.dialled == 0, "two hosts an attempt"


async def test_a_sender_refused_by_a_single_host_leaves_the_connection_usable(
    bench: Bench,
) -> None:
    host = bench.net.host("192.0.2.101", MAIL="550 5.7.1 not you")
    route = ToHosts((HostPort("192.0.2.101", 2600),))
    for _ in range(2):
        [tried] = await bench.deliver(route=route)
        assert tried.result is FAILED
    assert host.sessions == 1


LACKING = [
    ({"eight_bit": True}, "250-host\r\n250 PIPELINING", "554 5.6.3"),
    ({"sender": Mailbox("j\u00f8rn", "a.example")}, "250-host\r\n250 8BITMIME", "550 5.6.7"),
    ({}, "250-host\r\n250 SIZE 10", "552 5.3.4"),
]


@pytest.mark.parametrize(("fields", "offers", "said"), LACKING)
async def test_what_the_message_needs_is_looked_for_at_the_next_host(
    fields: dict[str, object], offers: str, said: str, bench: Bench
) -> None:
    first, second = bench.net.host(FIRST, EHLO=offers), bench.net.host(SECOND)
    whole = replace(message(), **fields)
    tried: dict[int, Tried] = {}
    await bench.carrier.deliver(ROUTE, whole, whole.recipients, Stored(), tried)
    assert tried[0].result is DELIVERED
    assert not any(line.startswith("MAIL") for line in first.heard)
    await bench.carrier.quit()
    second.says["EHLO"] = offers
    await bench.carrier.deliver(ROUTE, whole, whole.recipients, Stored(), tried)
    assert (tried[0].result, str(tried[0].reply)[: len(said)]) == (FAILED, said)
    assert not tried[0].remote


async def test_fault_23_who_asked_to_be_told_is_told_by_us_or_by_the_host(bench: Bench) -> None:
    # DSN parameters were accepted, and honoured nowhere.
    first = bench.net.host(FIRST)
    [tried] = await bench.deliver()
    assert tried.action is None, "the host announced DSN: the duty is its own now"
    await bench.carrier.quit()
    first.says["EHLO"] = "250 host"
    [tried] = await bench.deliver()
    assert tried.action is Action.RELAYED
    lmtp = bench.net.host("192.0.2.101", LHLO="250-host\r\n250 PIPELINING")
    [tried] = await bench.deliver(route=ToHosts((HostPort("192.0.2.101", 24),), lmtp=True))
    assert tried.action is Action.DELIVERED
    assert len(lmtp.taken) == 1


async def test_fault_23_what_was_asked_for_is_passed_on_where_the_host_honours_it(
    bench: Bench,
) -> None:
    whole = replace(message(), params=MailParams(envid="e1", ret=Ret.HEADERS))
    params = RcptParams(
        notify=frozenset({Notify.SUCCESS}), orcpt=OriginalRecipient("rfc822", "b@x.example")
    )
    whole.recipients = [replace(whole.recipients[0], params=params)]
    for offers, mail, rcpt in [
        ("250-host\r\n250 DSN", " RET=HDRS ENVID=e1", " NOTIFY=SUCCESS ORCPT=rfc822;b@x.example"),
        ("250 host", "", ""),
    ]:
        host = bench.net.host(FIRST, EHLO=offers)
        tried: dict[int, Tried] = {}
        await bench.carrier.deliver(ROUTE, whole, whole.recipients, Stored(), tried)
        assert f"MAIL FROM:<ann@sender.example>{mail}" in host.heard
        assert f"RCPT TO:<bob@b.example>{rcpt}" in host.heard
        await bench.carrier.quit()


async def test_recipients_have_fates_of_their_own(bench: Bench) -> None:
    # Fault 5 of the original: all or none.
    first = bench.net.host(
        FIRST,
        **{"RCPT bad@b.example": "550 5.1.1 unknown", "RCPT grey@b.example": "450 4.7.1 later"},
    )
    tried = await bench.deliver("bob", "bad", "grey", "eve")
    assert [one.result for one in tried] == [DELIVERED, FAILED, DEFERRED, DELIVERED]
    assert [one.reply.code for one in tried] == [250, 550, 450, 250]
    assert [taken.recipients for taken in first.taken] == [("bob@b.example", "eve@b.example")]


async def test_a_refusal_counts_though_the_host_then_breaks_off(bench: Bench) -> None:
    bench.net.host(FIRST, **{"RCPT bad@b.example": "550 5.1.1 unknown", "RCPT eve@b.example": None})
    second = bench.net.host(SECOND)
    tried = await bench.deliver("bad", "bob", "eve")
    assert [one.result for one in tried] == [FAILED, DELIVERED, DELIVERED]
    assert [one.host[:3] for one in tried] == ["mx1", "mx2", "mx2"]
    assert second.taken[0].recipients == ("bob@b.example", "eve@b.example")


@pytest.mark.parametrize("most", [1, 3, 100])
async def test_recipients_that_are_too_many_for_one_transaction_go_in_the_next(
    most: int, bench: Bench
) -> None:
    first = bench.net.host(FIRST)
    first.recipients = most
    names = [f"user{n}" for n in range(10)]
    tried = await bench.deliver(*names)
    assert [one.result for one in tried] == [DELIVERED] * 10
    assert [name for taken in first.taken for name in taken.recipients] == [
        f"{name}@b.example" for name in names
    ]
    assert all(len(taken.recipients) <= most for taken in first.taken)
    assert first.sessions == 1


async def test_a_host_that_takes_nobody_is_not_asked_again_and_again(bench: Bench) -> None:
    first = bench.net.host(FIRST)
    first.recipients = 0
    tried = await bench.deliver("bob", "eve")
    assert [one.result for one in tried] == [DEFERRED, DEFERRED]
    assert sum(line.startswith("MAIL") for line in first.heard) == 1


async def test_a_host_that_announces_its_limits_is_asked_for_no_more(bench: Bench) -> None:
    first = bench.net.host(
        FIRST, EHLO="250-host\r\n250-PIPELINING\r\n250 LIMITS RCPTMAX=4 MAILMAX=2"
    )
    tried = await bench.deliver(*(f"user{n}" for n in range(10)))
    assert [one.result for one in tried] == [DELIVERED] * 10
    assert [len(taken.recipients) for taken in first.taken] == [4, 4, 2]
    assert first.sessions == 2


async def test_the_connection_is_kept_for_the_next_message(bench: Bench) -> None:
    first = bench.net.host(FIRST)
    for _ in range(3):
        await bench.deliver()
    assert len(first.taken) == 3
    assert first.sessions == 1
    await bench.carrier.quit()
    assert first.heard[-1] == "QUIT"


async def test_a_connection_carries_a_hundred_messages_at_most(bench: Bench) -> None:
    first = bench.net.host(FIRST)
    for _ in range(250):
        await bench.deliver()
    assert len(first.taken) == 250
    assert first.sessions == 3


async def test_another_destination_is_another_connection(bench: Bench) -> None:
    first, other = bench.net.host(FIRST), bench.net.host("192.0.2.101")
    await bench.deliver()
    await bench.deliver(route=ToHosts((HostPort("192.0.2.101", 2600),)))
    assert (first.sessions, other.sessions) == (1, 1)
    assert first.heard[-1] == "QUIT"


async def test_a_kept_connection_that_died_is_no_fault_of_the_destination(bench: Bench) -> None:
    first = bench.net.host(FIRST)
    await bench.deliver()
    first.says["MAIL"] = None
    await bench.deliver()
    assert bench.carrier.welcome is Welcome.TURNED_AWAY, "a new one died too"
    first.says["MAIL"] = "250 ok"
    await bench.deliver()
    del bench.net.hosts[FIRST]
    first.says["MAIL"] = "421 4.4.2 idle for too long"
    [tried] = await bench.deliver()
    assert (tried.result, bench.carrier.welcome) == (DEFERRED, Welcome.SILENT)
    assert bench.carrier.trouble.startswith("451 4.4.1 cannot connect to mx3.example")


async def test_a_kept_connection_that_the_host_has_closed_costs_no_attempt(bench: Bench) -> None:
    first = bench.net.host(FIRST)
    first.idle = 30
    await bench.deliver()
    await trio.sleep(45)
    [tried] = await bench.deliver()
    assert tried.result is DELIVERED
    assert len(first.taken) == 2
    assert first.sessions == 2


async def test_a_route_has_a_name_and_addresses_of_its_own_to_call_from(bench: Bench) -> None:
    bench.zone.hosts["mx1.example"] = ["2001:db8::1", FIRST]
    bench.net.hosts["2001:db8::1"] = first = bench.net.host(FIRST)
    terms = Terms(hello_name="out.us.example", source=("2001:db8::25",))
    [tried] = await bench.deliver(route=ByMx("b.example", terms))
    assert tried.result is DELIVERED
    assert bench.net.dialled == ["2001:db8::1"], "from IPv6 there is no way to IPv4"
    assert bench.net.sources == ["2001:db8::25"]
    assert first.heard[0] == "EHLO out.us.example"
    await bench.deliver()
    assert bench.net.sources[-1] is None
    assert first.heard[-4] == "EHLO mx.us.example"


async def test_smarthosts_are_tried_in_their_order(bench: Bench) -> None:
    route = ToHosts((HostPort("192.0.2.101", 2600), HostPort("192.0.2.102", 2601)))
    second = bench.net.host("192.0.2.102")
    [tried] = await bench.deliver(route=route)
    assert tried.result is DELIVERED
    assert tried.host == "192.0.2.102[192.0.2.102]:2601"
    assert bench.net.dialled == ["192.0.2.101", "192.0.2.102"]
    assert len(second.taken) == 1


async def test_what_dns_says_outright_is_permanent_and_all_else_is_not(bench: Bench) -> None:
    bench.zone.failing.add("failing.example")
    bench.zone.mx_records["null.example"] = [(0, "")]
    for domain, result, said in [
        ("gone.example", FAILED, "550 5.1.2"),
        ("null.example", FAILED, "556 5.1.10"),
        ("failing.example", DEFERRED, "451 4.4.3"),
    ]:
        tried = await bench.deliver("bob", "eve", route=ByMx(domain))
        assert [one.result for one in tried] == [result, result]
        assert all(str(one.reply).startswith(said) and not one.remote for one in tried)
        assert (bench.carrier.welcome is Welcome.HEARD) == (result is FAILED)


async def test_cancelled_in_the_middle_it_hangs_up(bench: Bench, nursery: trio.Nursery) -> None:
    first = bench.net.host(FIRST, **{".": ""})
    with trio.move_on_after(10) as scope:
        await bench.deliver()
    assert scope.cancelled_caught
    assert not bench.carrier.connected
    bench.carrier.close()
    assert first.taken == []


async def test_connections_are_counted_by_what_came_of_them(bench: Bench) -> None:
    bench.net.host(SECOND)
    await bench.deliver()
    assert bench.meters.hosts == {"unreachable": 1, "open": 1}
    assert not bench.meters.tls
