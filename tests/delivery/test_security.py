"""Mail that is encrypted on its way where that can be."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import pytest
import trio

from elemta import log
from elemta.config import HostPort, load
from elemta.control.tracing import transcripts
from elemta.delivery.hosts import Candidate
from elemta.delivery.routes import ByMx, Terms, ToHosts
from elemta.delivery.security import MEMORY, Security
from elemta.queue import Result, State
from tests.delivery.test_carrier import FIRST, ROUTE, SECOND, Bench
from tests.delivery.world import BODY, CONFIG, on_virtual_time, world
from tests.net.certificates import old_server_context

if TYPE_CHECKING:
    from pathlib import Path

OFFERED = "250-host\r\n250-PIPELINING\r\n250 STARTTLS"
PLAIN = "250 host"
REQUIRED = ByMx("b.example", Terms(tls="required"))
DELIVERED, DEFERRED = Result.DELIVERED, Result.DEFERRED

pytestmark = pytest.mark.trio(run=on_virtual_time)


@pytest.fixture
def bench(nursery: trio.Nursery) -> Bench:
    return Bench(nursery)


def encrypting(bench: Bench, address: str = FIRST, **says: str | None) -> None:
    bench.net.host(
        address, **{"EHLO": OFFERED, "TLS EHLO": PLAIN, "STARTTLS": "220 go ahead", **says}
    )


async def test_mail_is_encrypted_where_the_host_can(bench: Bench) -> None:
    encrypting(bench)
    host = bench.net.hosts[FIRST]
    [tried] = await bench.deliver()
    assert tried.result is DELIVERED
    assert tried.tls == host.secret == "TLSv1.3 TLS_AES_256_GCM_SHA384"
    assert host.taken[0].content == BODY
    # Nothing from before survives: the host is asked again, and no longer pipelines.
    assert host.heard[:4] == [
        *("EHLO mx.us.example", "STARTTLS", "EHLO mx.us.example"),
        "MAIL FROM:<ann@sender.example>",
    ]
    assert host.sessions == 1


async def test_a_host_that_offers_no_tls_gets_mail_in_clear(bench: Bench) -> None:
    host = bench.net.host(FIRST)
    [tried] = await bench.deliver()
    assert (tried.result, tried.tls) == (DELIVERED, "")
    assert "STARTTLS" not in host.heard


async def test_where_tls_is_off_it_is_not_even_tried(bench: Bench) -> None:
    encrypting(bench)
    [tried] = await bench.deliver(route=ByMx("b.example", Terms(tls="off")))
    assert (tried.result, tried.tls) == (DELIVERED, "")
    assert "STARTTLS" not in bench.net.hosts[FIRST].heard


BROKEN = [
    {"STARTTLS": "454 4.7.0 no certificate"},
    {"STARTTLS": "502 5.5.1 not really"},
    {"STARTTLS": "220 go ahead\r\n250 already"},
    {"STARTTLS": "250 go ahead"},
    {"STARTTLS": None},
    {"STARTTLS": ""},
    {"TLS EHLO": None},
    {"TLS EHLO": ""},
    {"old": ""},
    {"no tls": ""},
]


def breaking(bench: Bench, says: dict[str, str | None]) -> None:
    encrypting(bench, **says)
    if "old" in says:
        bench.net.hosts[FIRST].tls = old_server_context()
    elif "no tls" in says:
        bench.net.hosts[FIRST].tls = None


@pytest.mark.parametrize("says", BROKEN, ids=repr)
async def test_where_tls_fails_the_same_host_gets_it_in_clear_at_once_and_for_an_hour(
    says: dict[str, str | None], bench: Bench
) -> None:
    breaking(bench, says)
    host, second = bench.net.hosts[FIRST], bench.net.host(SECOND)
    [tried] = await bench.deliver()
    assert (tried.result, tried.tls, tried.host[:3]) == (DELIVERED, "", "mx1")
    assert (host.sessions, second.sessions) == (2, 0)
    await bench.carrier.quit()
    await bench.deliver()
    assert host.sessions == 3, "it is remembered"
    assert host.heard.count("STARTTLS") == 1
    await bench.carrier.quit()
    await trio.sleep(MEMORY)
    await bench.deliver()
    assert host.heard.count("STARTTLS") == 2, "after an hour it is tried again"


@pytest.mark.parametrize("says", [*BROKEN, {"EHLO": PLAIN}], ids=repr)
async def test_where_tls_is_required_nothing_ever_goes_in_clear(
    says: dict[str, str | None], bench: Bench
) -> None:
    breaking(bench, says)
    encrypting(bench, SECOND)
    [tried] = await bench.deliver(route=REQUIRED)
    assert (tried.result, tried.host[:3]) == (DELIVERED, "mx2")
    assert tried.tls
    await bench.carrier.quit()
    del bench.net.hosts[SECOND]
    bench.zone.mx_records["b.example"] = [(10, "mx1.example")]
    [tried] = await bench.deliver(route=REQUIRED)
    assert tried.result is DEFERRED
    assert str(tried.reply).startswith("451 4.7.")
    assert not any(line.startswith("MAIL") for line in bench.net.hosts[FIRST].heard)


async def test_a_host_that_wants_nobody_in_tls_either_is_left(bench: Bench) -> None:
    encrypting(bench, **{"TLS EHLO": "554 no", "TLS HELO": "554 no"})
    bench.net.host(SECOND)
    [tried] = await bench.deliver()
    assert tried.host.startswith("mx2")
    assert bench.net.hosts[FIRST].sessions == 1


@pytest.mark.parametrize("step", ["STARTTLS", "TLS EHLO"])
async def test_a_host_that_asks_to_come_later_meant_no_failure_of_tls(
    step: str, bench: Bench
) -> None:
    encrypting(bench, **{step: "421 4.3.2 too busy"})
    bench.net.host(SECOND)
    [tried] = await bench.deliver()
    assert tried.host.startswith("mx2")
    assert bench.net.hosts[FIRST].sessions == 1


async def test_a_smarthost_is_asked_for_by_its_name_or_by_none(bench: Bench) -> None:
    named = Candidate("mx1.example", FIRST, 25)
    security = Security("opportunistic")
    assert (wish := security.wish(named, ROUTE, 0)) is not None
    assert wish.server_name == "mx1.example"
    numbered = security.wish(Candidate(FIRST, FIRST, 25), ROUTE, 0)
    assert numbered is not None
    assert numbered.server_name is None


async def test_there_is_nobody_to_hide_from_behind_a_unix_socket() -> None:
    socket = Candidate("/run/lmtp", "/run/lmtp", 0)
    assert Security("required").wish(socket, ROUTE, 0) is None


async def test_memory_of_failures_is_bounded() -> None:
    security = Security("opportunistic", remembered=3)
    hosts = [Candidate("mx", f"192.0.2.{n}", 25) for n in range(5)]
    for host in hosts:
        security.failed(host, 0, "broken")
    assert [security.wish(host, ROUTE, 1) is None for host in hosts] == [
        *(False, False),
        *(True, True, True),
    ]


async def test_how_mail_was_encrypted_stands_in_the_log_and_the_timeline(tmp_path: Path) -> None:
    stream = io.StringIO()
    log.configure("json", stream=stream)
    async with world(tmp_path) as here:
        here.domain("b.example", ("mx.b.example", FIRST))
        here.net.host(FIRST, EHLO=OFFERED, STARTTLS="220 go")
        id_ = await here.send("bob@b.example")
        await trio.sleep(1)
        [attempt] = here.timeline(id_).attempts
    log.configure()
    assert attempt.tls == "TLSv1.3 TLS_AES_256_GCM_SHA384"
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    [told] = [line for line in lines if line["event"] == "delivery.delivered"]
    assert told["tls"] == attempt.tls


async def test_a_route_may_require_tls_of_a_domain(tmp_path: Path) -> None:
    config = load(CONFIG + "  - {match: b.example, tls: required}\n")
    async with world(tmp_path, config=config) as here:
        for domain in ("b.example", "c.example"):
            here.domain(domain, (f"mx.{domain}", FIRST))
        here.net.host(FIRST)
        id_ = await here.send("bob@b.example", "bob@c.example")
        await trio.sleep(1)
        assert here.states(id_) == [State.DEFERRED, State.DELIVERED]
        assert "451 4.7.4 TLS is required here, and the host does not offer it" in here.replies(id_)
        assert {attempt.destination for attempt in here.timeline(id_).attempts} == {
            *("mx:b.example;tls=required", "mx:c.example"),
        }


async def test_named_hosts_are_encrypted_to_as_well(bench: Bench) -> None:
    encrypting(bench, "192.0.2.101")
    [tried] = await bench.deliver(route=ToHosts((HostPort("192.0.2.101", 587),)))
    assert tried.tls


async def test_a_conversation_in_clear_says_why_it_is(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        here.domain("b.example", ("mx.b.example", FIRST))
        here.net.host(FIRST, EHLO=OFFERED, STARTTLS="454 4.7.0 no certificate")
        id_ = await here.send("bob@b.example")
        await trio.sleep(1)
        found = transcripts(here.dialogues, id_)
        told = ["\n".join(each.text for each in one.said) for one in found]
        why = (
            "(in clear for now: TLS cannot be had: STARTTLS was refused: 454 4.7.0 no certificate)"
        )
        assert sorted(why in each for each in told) == [False, True]


async def test_what_is_required_takes_no_heed_of_what_failed_before(bench: Bench) -> None:
    encrypting(bench, STARTTLS="454 not now")
    await bench.deliver()
    await bench.carrier.quit()
    host = bench.net.hosts[FIRST]
    host.says["STARTTLS"] = "220 go ahead"
    [tried] = await bench.deliver(route=REQUIRED)
    assert (tried.result, tried.tls) == (DELIVERED, host.secret)
    await bench.carrier.quit()
    [tried] = await bench.deliver()
    assert tried.tls == "", "where it may be in clear, it is remembered as before"
