from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TypeVar

import pytest
import spf as pyspf
import trio

from elemta.mailauth import Spf, check_spf, spf
from elemta.net.dns import Absent, DnsResolver, Failed, Found, Kind
from elemta.testing import FakeDns, at_once
from elemta.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

T = TypeVar("T")


async def check(
    dns: FakeDns,
    sender: str = "ann@sender.example",
    *,
    address: str = "192.0.2.1",
    helo: str = "client.example",
) -> Spf:
    return await check_spf(
        address, sender, helo, resolver=DnsResolver(backend=dns), in_thread=at_once
    )


@pytest.mark.parametrize(
    ("record", "result"),
    [
        ("v=spf1 ip4:192.0.2.0/24 -all", "pass"),
        ("v=spf1 ip4:198.51.100.0/24 -all", "fail"),
        ("v=spf1 ~all", "softfail"),
        ("v=spf1 ?all", "neutral"),
        ("v=spf1 nonsense", "permerror"),
        ("something else", "none"),
    ],
)
async def test_the_record_decides(record: str, result: str) -> None:
    dns = FakeDns()
    dns.text("sender.example", record)
    assert (await check(dns)).result == result


async def test_what_it_says_of_itself_is_as_in_authentication_results() -> None:
    dns = FakeDns()
    dns.text("sender.example", "v=spf1 ip4:192.0.2.1 -all")
    dns.text("wrong.example", "v=spf1 (moo)")
    assert str(await check(dns)) == "spf=pass smtp.mailfrom=sender.example"
    assert str(await check(dns, "")) == "spf=none smtp.helo=client.example"
    assert str(await check(dns, "x@wrong.example")) == (
        "spf=permerror (Unknown mechanism found: ?moo?) smtp.mailfrom=wrong.example"
    )


async def test_the_null_sender_stands_for_its_host() -> None:
    dns = FakeDns()
    dns.text("client.example", "v=spf1 ip4:192.0.2.1 -all")
    assert await check(dns, "") == Spf("pass", "client.example", "helo")


async def test_what_the_dns_cannot_say_is_no_result() -> None:
    dns = FakeDns()
    dns.text("sender.example", "v=spf1 include:broken.example -all")
    dns.failing.add("broken.example")
    assert (await check(dns)).result == "temperror"
    dns.failing.add("other.example")
    assert (await check(dns, "x@other.example")).result == "temperror"


async def test_an_address_literal_and_a_unix_socket_have_none() -> None:
    dns = FakeDns()
    assert (await check(dns, "x@[192.0.2.1]")).result == "none"
    assert (await check(dns, address="")).result == "none"
    assert dns.asked == []


async def test_a_silent_name_server_costs_no_more_than_its_time(autojump_clock: MockClock) -> None:
    class Silent:
        async def ask(self, name: str, kind: Kind) -> Found | Absent | Failed:
            await trio.sleep_forever()
            raise AssertionError

    began = trio.current_time()
    found = await check_spf(
        *("192.0.2.1", "x@sender.example", "client.example"),
        resolver=DnsResolver(backend=Silent()),
        in_thread=at_once,
    )
    assert found.result == "temperror"
    assert trio.current_time() - began == pytest.approx(20)


async def test_no_record_makes_us_ask_without_end() -> None:
    class Endless:
        """Each name includes ten others, and has ten exchangers."""

        def __init__(self) -> None:
            self.asked = 0

        async def ask(self, name: str, kind: Kind) -> Found | Absent | Failed:
            await trio.lowlevel.checkpoint()
            self.asked += 1
            match kind:
                case Kind.TXT:
                    terms = " ".join(f"mx:{n}.{name} include:{n}.{name}" for n in range(10))
                    return Found((f'"v=spf1 {terms[:200]}" "{terms[200:400]} -all"',), 60)
                case Kind.MX:
                    return Found(tuple(f"{n} m{n}.{name}." for n in range(10)), 60)
                case _:
                    return Found(("198.51.100.7",), 60)

    backend = Endless()
    found = await check_spf(
        *("192.0.2.1", "x@s.example", "client.example"),
        resolver=DnsResolver(backend=backend),
        in_thread=at_once,
    )
    assert found.result == "permerror"
    assert backend.asked <= 250


@pytest.mark.parametrize(
    "record",
    [
        "v=spf1 exists:" + "%." * 20_000 + "example -all",
        "v=spf1 " + "a " * 30_000,
        "v=spf1 a:" + "x" * 60_000,
        "v=spf1 " + "%{l}" * 10_000,
        "v=spf1 ip4:192.0.2.1/" + "9" * 5_000,
    ],
)
async def test_long_records_take_no_time(record: str) -> None:
    dns = FakeDns()
    dns.text("sender.example", record)
    assert (await check(dns)).result == "permerror"


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ("v=spf1 " + "?a " * 1400, "a record of more than 4096 octets"),
        ("v=spf1 x=" + "y" * 520, "a term of more than 512 octets"),
    ],
)
async def test_long_records_are_refused(record: str, reason: str) -> None:
    dns = FakeDns()
    dns.text("sender.example", record)
    assert (await check(dns)).reason == reason


REVERSE = "1.2.0.192.in-addr.arpa"


@pytest.mark.parametrize(
    ("names", "result"),
    [
        (["mail.sender.example."], "pass"),
        (["Mail.Sender.Example."], "pass"),
        (["mail.other.example."], "fail"),
        # What nobody can say of one name is no reason to forget the others (RFC 7208 §5.5).
        (["broken.example.", "mail.sender.example."], "pass"),
        # Ten are looked at (§4.6.4).
        ([*(f"{n}.other.example." for n in range(10)), "mail.sender.example."], "fail"),
    ],
)
async def test_names_of_the_client(names: list[str], result: str) -> None:
    dns = FakeDns()
    dns.text("sender.example", "v=spf1 ptr -all")
    dns.add(REVERSE, "PTR", *names)
    dns.add("mail.sender.example", "A", "192.0.2.1")
    dns.add("mail.other.example", "A", "192.0.2.1")
    for number in range(10):
        dns.add(f"{number}.other.example", "A", "192.0.2.1")
    dns.failing.add("broken.example")
    assert (await check(dns)).result == result


async def test_names_of_the_client_that_nobody_can_say_are_none() -> None:
    dns = FakeDns()
    dns.text("sender.example", "v=spf1 ptr -all")
    dns.failing.add(REVERSE)
    assert (await check(dns)).result == "fail"


async def test_the_domain_explains_a_fail_and_nothing_else() -> None:
    dns = FakeDns()
    dns.text("sender.example", "v=spf1 -all exp=why.%{d}")
    dns.text("why.sender.example", "%{i} is none of ours")
    dns.text("fine.example", "v=spf1 +all exp=why.%{d}")
    dns.text("long.example", "v=spf1 -all exp=why.%{d}")
    dns.text("why.long.example", "%%." * 2_000)
    assert (await check(dns)).explanation == "192.0.2.1 is none of ours"
    assert (await check(dns, "x@long.example")).explanation == ""
    dns.asked.clear()
    assert (await check(dns, "x@fine.example")).explanation == ""
    assert dns.asked == [("fine.example", "TXT")]


async def test_checks_side_by_side_keep_their_answers_apart() -> None:
    dns = FakeDns()
    for number in range(20):
        host = "192.0.2.1" if number % 2 else "198.51.100.1"
        dns.text(f"d{number}.example", f"v=spf1 include:i{number}.example -all")
        dns.text(f"i{number}.example", f"v=spf1 a:h{number}.example -all")
        dns.add(f"h{number}.example", "A", host)
    resolver = DnsResolver(backend=dns)
    found: dict[int, str] = {}
    threads: set[int] = set()

    async def judge(number: int) -> None:
        def seen() -> None:
            threads.add(threading.get_ident())

        await in_thread(seen)
        spf = await check_spf(
            *("192.0.2.1", f"x@d{number}.example", "client.example"),
            resolver=resolver,
            in_thread=in_thread,
        )
        found[number] = spf.result

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(judge, number)
    assert found == {number: "pass" if number % 2 else "fail" for number in range(20)}
    assert threading.get_ident() not in threads


async def not_here(call: Callable[[], T]) -> T:
    raise AssertionError("a thread was asked for")


@pytest.mark.parametrize("where", ["v=spf1 exists:%{l}.x.example -all", "v=spf1 exists:%{h} -all"])
async def test_what_came_of_one_sender_is_not_taken_for_another(where: str) -> None:
    dns = FakeDns({("ann.x.example", "A"): ["127.0.0.1"], ("good.example", "A"): ["127.0.0.1"]})
    dns.text("sender.example", where)
    assert (await check(dns, "ann@sender.example", helo="good.example")).result == "pass"
    assert (await check(dns, "bob@sender.example", helo="bad.example")).result == "fail"
    assert (await check(dns, "ann@sender.example", helo="good.example")).result == "pass"


async def test_what_came_of_one_client_domain_or_record_is_not_taken_for_another() -> None:
    dns = FakeDns()
    dns.text("sender.example", "v=spf1 a:x.example -all")
    dns.text("other.example", "v=spf1 ?all")
    dns.add("x.example", "A", "192.0.2.1")
    for _ in range(2):
        assert (await check(dns)).result == "pass"
        assert (await check(dns, "bob@SENDER.example")).result == "pass"
        assert (await check(dns, address="192.0.2.2")).result == "fail"
        assert (await check(dns, "x@other.example")).result == "neutral"
        assert await check(dns, "", helo="sender.example") == Spf("pass", "sender.example", "helo")
    changed = FakeDns()
    changed.text("sender.example", "v=spf1 a:x.example -all")
    assert (await check(changed)).result == "fail"
    changed.failing.add("x.example")
    assert (await check(changed)).result == "temperror"
    assert (await check(dns)).result == "pass"


async def test_pyspf_runs_once_for_what_is_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[str] = []
    check_of_pyspf = pyspf.query.check

    def counted(self: pyspf.query) -> tuple[str, int, str]:
        runs.append(self.i)
        return check_of_pyspf(self)

    monkeypatch.setattr(pyspf.query, "check", counted)
    monkeypatch.setattr(spf, "settled", {})
    monkeypatch.setattr(spf, "_CASES", 2)
    dns = FakeDns()
    dns.text("sender.example", "v=spf1 ip4:192.0.2.0/24 -all")
    for local in ("ann", "bob", "ann"):
        assert (await check(dns, f"{local}@sender.example")).result == "pass"
    assert runs == ["192.0.2.1"]
    for address in ("192.0.2.2", "192.0.2.3", "192.0.2.1"):
        assert (await check(dns, address=address)).result == "pass"
    assert len(runs) == 4  # no more is remembered than may be


async def test_small_records_need_no_thread_and_large_ones_do() -> None:
    dns = FakeDns()
    dns.text("small.example", "v=spf1 ip4:192.0.2.0/24 -all")
    dns.text("large.example", "v=spf1 " + "ip4:198.51.100.0/24 " * 30 + "-all")
    resolver = DnsResolver(backend=dns)
    spf.settled.clear()
    for domain, result in (("small", "pass"), ("large", "permerror")):
        found = await check_spf(
            "192.0.2.1", f"x@{domain}.example", "h", resolver=resolver, in_thread=not_here
        )
        assert found.result == result
    assert (await check(dns, "x@large.example")).result == "fail"
    # Once it is known what comes of it, it is as light as any.
    found = await check_spf(
        "192.0.2.1", "x@large.example", "h", resolver=resolver, in_thread=not_here
    )
    assert found.result == "fail"
