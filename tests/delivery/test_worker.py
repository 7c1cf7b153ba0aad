from __future__ import annotations

import errno
import json
from typing import TYPE_CHECKING

import pytest
import trio

from elemta.config import load
from elemta.delivery.routing import Router
from elemta.protocol import Notify, RcptParams
from elemta.queue import Filter, Reroute, State, Suspension
from tests.delivery.world import BODY, CONFIG, World, on_virtual_time, to, world

if TYPE_CHECKING:
    import io
    from collections.abc import AsyncIterator
    from pathlib import Path

ONE, TWO = "198.51.100.1", "198.51.100.2"
READY, DEFERRED, DELIVERED, FAILED = State.READY, State.DEFERRED, State.DELIVERED, State.FAILED


pytestmark = pytest.mark.trio(run=on_virtual_time)


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[World]:
    """A world on virtual time, with one exchanger for b.example."""
    async with world(tmp_path) as made:
        made.domain("b.example", ("mx.b.example", ONE))
        yield made


async def settle(seconds: float = 1) -> None:
    """Let everything happen that does not have to wait for longer."""
    await trio.sleep(seconds)


async def test_a_message_in_the_queue_is_delivered(here: World) -> None:
    host = here.net.host(ONE)
    id_ = await here.send("bob@b.example")
    await settle()
    assert [taken.content for taken in host.taken] == [BODY]
    assert here.states(id_) == [DELIVERED]
    assert here.messages() == []
    [attempt] = here.timeline(id_).attempts
    assert (attempt.destination, attempt.host) == ("mx:b.example", "mx.b.example[198.51.100.1]:25")
    assert attempt.remote


async def test_the_first_4xx_keeps_the_mail(here: World) -> None:
    # Fault 2 of the original: it deleted it.
    host = here.net.host(ONE, RCPT="451 4.7.1 greylisted")
    id_ = await here.send("bob@b.example")
    await settle(60)
    assert here.states(id_) == [DEFERRED]
    assert here.replies(id_) == ["451 4.7.1 greylisted"]
    host.says["RCPT"] = "250 welcome back"
    await settle(300)
    assert here.states(id_) == [DELIVERED]
    assert [taken.content for taken in host.taken] == [BODY]


async def test_a_destination_that_is_down_loses_no_mail(here: World) -> None:
    # Fault 3 of the original: "connection refused" was permanent.
    ids = [await here.send("bob@b.example") for _ in range(5)]
    await settle(3600)
    assert [here.states(id_) for id_ in ids] == [[DEFERRED]] * 5
    host = here.net.host(ONE)
    await settle(4 * 3600)
    assert [here.states(id_) for id_ in ids] == [[DELIVERED]] * 5
    assert len(host.taken) == 5


async def test_the_sender_learns_of_a_failure(here: World) -> None:
    # Fault 4 of the original: no bounce was ever made.
    here.net.host(ONE, RCPT="550 5.1.1 no such user")
    here.domain("sender.example", ("mx.sender.example", TWO))
    home = here.net.host(TWO)
    id_ = await here.send("bob@b.example")
    await settle()
    assert here.states(id_) == [FAILED]
    [report] = home.taken
    assert report.sender == ""
    assert report.recipients == ("ann@sender.example",)
    assert b"550 5.1.1 no such user" in report.content
    assert b"Subject: hi" in report.content
    assert b"hello" not in report.content
    assert here.messages() == []


async def test_recipients_of_one_message_have_fates_of_their_own(here: World) -> None:
    # Fault 5 of the original: there was no state by recipient.
    host = here.net.host(
        ONE, **{"RCPT bad@b.example": "550 5.1.1 unknown", "RCPT grey@b.example": "450 4.2.0 later"}
    )
    here.domain("c.example", ("mx.c.example", TWO))
    other = here.net.host(TWO)
    home = here.net.host("198.51.100.3")
    here.domain("sender.example", ("mx.sender.example", "198.51.100.3"))
    id_ = await here.send(
        "bob@b.example", "bad@b.example", "grey@b.example", "eve@b.example", "carol@c.example"
    )
    await settle()
    assert here.states(id_) == [DELIVERED, FAILED, DEFERRED, DELIVERED, DELIVERED]
    assert [taken.recipients for taken in host.taken] == [("bob@b.example", "eve@b.example")]
    assert [taken.recipients for taken in other.taken] == [("carol@c.example",)]
    assert home.taken[0].content.count(b"Final-Recipient") == 1
    del host.says["RCPT grey@b.example"]
    await settle(400)
    assert here.states(id_)[2] is DELIVERED
    assert [taken.recipients for taken in host.taken] == [
        ("bob@b.example", "eve@b.example"),
        ("grey@b.example",),
    ], "nobody gets it twice"


async def test_many_recipients_of_one_domain_share_transactions(here: World) -> None:
    host = here.net.host(ONE)
    id_ = await here.send(*(f"user{n}@b.example" for n in range(250)))
    await settle()
    assert set(here.states(id_)) == {DELIVERED}
    assert sorted(len(taken.recipients) for taken in host.taken) == [50, 100, 100]


async def test_a_message_of_many_domains_goes_to_each_by_its_own_way(here: World) -> None:
    for n in range(20):
        here.domain(f"d{n}.example", (f"mx{n}.example", f"198.51.100.{100 + n}"))
        here.net.host(f"198.51.100.{100 + n}")
    id_ = await here.send(*(f"bob@d{n}.example" for n in range(20)))
    await settle()
    assert set(here.states(id_)) == {DELIVERED}
    assert all(len(host.taken) == 1 for host in here.net.hosts.values())


async def test_a_connection_is_kept_for_a_minute(here: World) -> None:
    host = here.net.host(ONE)
    for pause in (1, 30, 50):
        await here.send("bob@b.example")
        await settle(pause)
    assert host.sessions == 1
    await settle(70)
    assert host.heard[-1] == "QUIT"
    await here.send("bob@b.example")
    await settle()
    assert host.sessions == 2


async def test_a_destination_has_two_connections_at_first_and_more_when_it_does_well(
    here: World,
) -> None:
    host = here.net.host(ONE)
    for _ in range(60):
        await here.send("bob@b.example")
    await settle(10)
    assert len(host.taken) == 60
    assert 2 <= host.sessions <= 40


async def test_routes_of_the_configuration_fail_over(here: World) -> None:
    second = here.net.host("192.0.2.102")
    id_ = await here.send("bob@routed.example")
    await settle()
    assert here.states(id_) == [DELIVERED]
    assert len(second.taken) == 1
    [attempt] = here.timeline(id_).attempts
    assert attempt.destination == "smtp:[192.0.2.101]:2600,[192.0.2.102]:2601"
    assert attempt.host == "192.0.2.102[192.0.2.102]:2601"


async def test_a_domain_that_does_not_exist_fails_at_once(here: World) -> None:
    here.domain("sender.example", ("mx.sender.example", TWO))
    home = here.net.host(TWO)
    id_ = await here.send("bob@gone.example")
    await settle()
    assert here.states(id_) == [FAILED]
    assert here.replies(id_) == ["550 5.1.2 no such domain"]
    assert b"Status: 5.1.2" in home.taken[0].content


async def test_dns_trouble_defers(here: World) -> None:
    here.zone.failing.add("b.example")
    host = here.net.host(ONE)
    id_ = await here.send("bob@b.example")
    await settle()
    assert here.states(id_) == [DEFERRED]
    here.zone.failing.clear()
    await settle(3600)
    assert here.states(id_) == [DELIVERED]
    assert len(host.taken) == 1


async def test_a_report_that_nobody_takes_is_the_end(here: World) -> None:
    here.net.host(ONE, RCPT="550 5.1.1 no such user")
    here.domain("sender.example", ("mx.sender.example", TWO))
    home = here.net.host(TWO, RCPT="550 5.1.1 no such sender either")
    await here.send("bob@b.example")
    await settle(10)
    assert here.messages() == []
    assert sum(line.startswith("MAIL") for line in home.heard) == 1


@pytest.mark.parametrize("notify", [Notify.NEVER, Notify.SUCCESS], ids=repr)
async def test_who_did_not_ask_is_told_nothing(notify: Notify, here: World) -> None:
    here.net.host(ONE, RCPT="550 5.1.1 no such user")
    here.domain("sender.example", ("mx.sender.example", TWO))
    home = here.net.host(TWO)
    id_ = await here.send(to("bob@b.example", RcptParams(notify=frozenset({notify}))))
    await settle()
    assert here.states(id_) == [FAILED]
    assert home.taken == []


async def test_a_bug_defers_the_mail_and_harms_nobody_else(here: World) -> None:
    here.domain("c.example", ("mx.c.example", TWO))
    here.net.host(ONE).down = ZeroDivisionError("a bug in dialling")
    other = here.net.host(TWO)
    id_, fine = await here.send("bob@b.example"), await here.send("carol@c.example")
    await settle()
    assert here.states(id_) == [DEFERRED]
    assert here.replies(id_)[0].startswith("451 4.3.0")
    assert here.states(fine) == [DELIVERED]
    here.net.hosts[ONE].down = None
    await settle(600)
    assert here.states(id_) == [DELIVERED]
    assert len(other.taken) == 1


async def test_a_bug_in_the_resolver_defers_the_mail(here: World) -> None:
    def bug() -> None:
        raise KeyError("bug")

    here.net.host(ONE)
    here.zone.on_question = bug
    id_ = await here.send("bob@b.example")
    await settle()
    assert here.states(id_) == [DEFERRED]
    here.zone.on_question = lambda: None
    await settle(600)
    assert here.states(id_) == [DELIVERED]


async def test_a_changed_configuration_frees_stuck_mail(here: World) -> None:
    for address in ("192.0.2.101", "192.0.2.102"):
        here.net.host(address).down = OSError(errno.ECONNREFUSED, "refused")
    id_ = await here.send("bob@routed.example")
    await settle()
    assert here.states(id_) == [DEFERRED]
    new = load(CONFIG.replace("192.0.2.101:2600", "192.0.2.103"))
    mended = here.net.host("192.0.2.103")
    router = Router(new)
    here.delivery.configure(new, router)
    here.queue.retune(lane=router.lane)
    await settle(400)
    assert here.states(id_) == [DELIVERED]
    assert len(mended.taken) == 1


async def test_draining_finishes_what_was_begun_and_begins_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        here.domain("b.example", ("mx.b.example", ONE))
        here.domain("c.example", ("mx.c.example", TWO))
        busy, idle = here.net.host(ONE), here.net.host(TWO)
        done = trio.Event()

        async def run() -> None:
            await here.delivery.run()
            done.set()

        await here.send("carol@c.example")
        await settle()
        busy.says["greeting"] = ""
        id_ = await here.send("bob@b.example")
        await settle()
        here.delivery.drain()
        await settle()
        later = await here.send("carol@c.example")
        await settle(200)
        assert idle.heard[-1] == "QUIT"
        assert here.states(later) == [READY]
        assert here.states(id_) == [READY], "it is still waiting for its greeting"
        await settle(200)
        assert here.states(id_) == [DEFERRED]
        await run()
        assert done.is_set()


async def test_who_is_told_to_finish_finishes_one_message_and_not_the_whole_lane(
    here: World,
) -> None:
    host = here.net.host(ONE)
    host.delay = 1
    ids = [await here.send("bob@b.example") for _ in range(50)]
    await settle(10)
    here.delivery.drain()
    await settle(10)
    done = len(host.taken)
    assert 0 < done < 30
    await settle(600)
    assert len(host.taken) == done
    assert sum(here.states(id_) == [READY] for id_ in ids) == 50 - done


async def test_who_has_it_when_we_are_stopped_does_not_get_it_again(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        here.domain("b.example", ("mx.b.example", ONE))
        host = here.net.host(ONE, EHLO="250-host\r\n250 LIMITS RCPTMAX=1")
        host.says["RCPT eve@b.example"] = ""
        id_ = await here.send("bob@b.example", "eve@b.example")
        await settle(100)
        assert [taken.recipients for taken in host.taken] == [("bob@b.example",)]
    async with world(tmp_path) as here:
        here.domain("b.example", ("mx.b.example", ONE))
        host = here.net.host(ONE)
        await settle(1000)
        assert here.states(id_) == [DELIVERED, DELIVERED]
        assert [taken.recipients for taken in host.taken] == [("eve@b.example",)]


async def test_mail_that_stands_in_the_lane_of_an_old_route_goes_where_it_belongs_now(
    here: World,
) -> None:
    for address in ("192.0.2.101", "192.0.2.102"):
        here.net.host(address).down = OSError(errno.ECONNREFUSED, "refused")
    host = here.net.host(ONE)
    id_ = await here.send("bob@routed.example", "eve@routed.example")
    new = load(CONFIG.replace("match: routed.example", "match: other.example"))
    here.domain("routed.example", ("mx.b.example", ONE))
    here.delivery.configure(new, Router(new))
    await settle(400)
    assert here.states(id_) == [DELIVERED, DELIVERED]
    assert len(host.taken) == 1


async def test_each_recipient_of_each_attempt_is_a_line_in_the_log(
    here: World, lines: io.StringIO
) -> None:
    here.net.host(
        ONE, **{"RCPT bad@b.example": "550 5.1.1 unknown", "RCPT grey@b.example": "450 4.2.0 later"}
    )
    here.domain("sender.example", ("mx.sender.example", TWO))
    here.net.host(TWO)
    id_ = await here.send("bob@b.example", "bad@b.example", "grey@b.example")
    await settle()
    events = [json.loads(line) for line in lines.getvalue().splitlines()]
    told = {event["to"]: event for event in events if event.get("id") == id_}
    assert {name: line["event"] for name, line in told.items()} == {
        "bob@b.example": "delivery.delivered",
        "bad@b.example": "delivery.failed",
        "grey@b.example": "delivery.deferred",
    }
    assert told["bad@b.example"]["reply"] == "550 5.1.1 unknown"
    assert told["bad@b.example"]["host"] == "mx.b.example[198.51.100.1]:25"
    assert told["bad@b.example"]["lane"] == "mx:b.example"


async def test_what_is_overdue_is_settled_and_nobody_is_called(here: World) -> None:
    here.net.host(ONE)
    for scope in ("domain:b.example", "domain:us.example"):
        await here.queue.suspend(
            Suspension(scope=scope, reason="moved", who="operator:root", since=0.0)
        )
    id_ = await here.send("bob@b.example", "bob@us.example")
    await settle(6 * 86400)
    assert here.states(id_) == [State.EXPIRED, State.EXPIRED]
    assert ONE not in here.net.dialled
    assert set(here.replies(id_)) == {
        "451 4.4.7 not tried: the destination was closed to mail for too long"
    }


async def test_a_connection_is_kept_and_used_as_the_configuration_says(tmp_path: Path) -> None:
    changed = "delivery: {idle_timeout: 5 min, messages_per_connection: 3}\n"
    async with world(tmp_path, config=load(CONFIG + changed)) as here:
        here.domain("b.example", ("mx.b.example", ONE))
        host = here.net.host(ONE)
        for _ in range(4):
            await here.send("bob@b.example")
            await settle(200)
        assert host.sessions == 2
        assert host.heard.count("QUIT") == 1
        await settle(200)
        assert host.heard.count("QUIT") == 2


async def test_an_operator_can_send_one_recipient_by_another_host(here: World) -> None:
    here.domain("b.example", ("mx.b.example", ONE))
    here.net.host(ONE).down = OSError(errno.ECONNREFUSED, "refused")
    other = here.net.host(TWO)
    id_ = await here.send("bob@b.example", "eve@b.example")
    await settle(10)
    chosen = Reroute((f"smtp://{TWO}:2600",))
    await here.queue.act(chosen, Filter(recipient="bob@b.example"), who="operator:root")
    await settle(10)
    assert here.states(id_) == [DELIVERED, State.DEFERRED]
    assert [taken.recipients for taken in other.taken] == [("bob@b.example",)]
