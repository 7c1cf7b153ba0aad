"""What the resolver remembers, and how it asks nothing twice; in virtual time."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from elemta.net.dns import (
    MX,
    Absent,
    DnsError,
    DnsResolver,
    DnsTemporaryError,
    Failed,
    Found,
    Kind,
    NoRecordsError,
    NoSuchDomainError,
)

if TYPE_CHECKING:
    from trio.testing import MockClock

DAY = 86400


class FakeBackend:
    """Answers what the test says, after `delay` seconds; remembers what it was asked."""

    def __init__(self, answer: Found | Absent | Failed | Exception) -> None:
        self.answer = answer
        self.answers: dict[Kind, Found | Absent | Failed] = {}
        self.delay = 0.0
        self.asked: list[tuple[str, Kind]] = []

    async def ask(self, name: str, kind: Kind) -> Found | Absent | Failed:
        self.asked.append((name, kind))
        await trio.sleep(self.delay)
        answer = self.answers.get(kind, self.answer)
        if isinstance(answer, Exception):
            raise answer
        return answer


async def asked_again_after(resolver: DnsResolver, backend: FakeBackend, seconds: float) -> bool:
    """Whether the same question goes out again `seconds` after it was answered."""
    for pause in (0, seconds):
        await trio.sleep(pause)
        before = len(backend.asked)
        with suppress(DnsError):
            await resolver.mx("example.net")
    return len(backend.asked) > before


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        (Found(("10 mx.example",), ttl=60), 60),
        (Found(("10 mx.example",), ttl=7 * DAY), DAY),
        (Absent(domain=True, ttl=60), 60),
        (Absent(domain=True, ttl=DAY), 300),
        (Absent(domain=False, ttl=DAY), 300),
        (Failed("SERVFAIL"), 5),
    ],
)
async def test_an_answer_is_remembered_for_its_time_and_no_longer(
    autojump_clock: MockClock, answer: Found | Absent | Failed, seconds: float
) -> None:
    for pause, again in ((seconds - 1, False), (seconds, True)):
        backend = FakeBackend(answer)
        resolver = DnsResolver(backend=backend)
        assert await asked_again_after(resolver, backend, pause) is again


async def test_what_holds_for_no_time_is_not_remembered(autojump_clock: MockClock) -> None:
    backend = FakeBackend(Found(("10 mx.example",), ttl=0))
    resolver = DnsResolver(backend=backend)
    assert await asked_again_after(resolver, backend, 0)
    assert resolver.remembered == 0


async def test_hits_and_misses_are_counted(autojump_clock: MockClock) -> None:
    resolver = DnsResolver(backend=FakeBackend(Found(("10 mx.example",), ttl=60)))
    for name in ("a.example", "A.example.", "b.example", "a.example"):
        assert await resolver.mx(name) == [MX(10, "mx.example")]
    assert (resolver.hits, resolver.misses, resolver.joined) == (2, 2, 0)


async def test_the_cache_forgets_what_was_not_used_for_longest(autojump_clock: MockClock) -> None:
    backend = FakeBackend(Found(("10 mx.example",), ttl=60))
    resolver = DnsResolver(backend=backend, entries=2)
    for name in ("a", "b", "a", "c", "a", "b"):
        await resolver.mx(name)
        assert resolver.remembered <= 2
    assert [name for name, _ in backend.asked] == ["a", "b", "c", "b"]


async def test_the_cache_can_be_emptied(autojump_clock: MockClock) -> None:
    backend = FakeBackend(Found(("10 mx.example",), ttl=60))
    resolver = DnsResolver(backend=backend)
    await resolver.mx("example.net")
    resolver.forget()
    await resolver.mx("example.net")
    assert len(backend.asked) == 2


async def test_an_answer_under_way_serves_all_who_ask(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    backend = FakeBackend(Failed("SERVFAIL"))
    backend.delay = 5
    resolver = DnsResolver(backend=backend)
    failed = 0

    async def ask() -> None:
        nonlocal failed
        with pytest.raises(DnsTemporaryError):
            await resolver.mx("example.net")
        failed += 1

    for _ in range(100):
        nursery.start_soon(ask)
    await trio.sleep(6)
    assert failed == 100
    assert len(backend.asked) == 1
    assert (resolver.misses, resolver.joined) == (1, 99)


async def test_a_cancelled_first_asker_fails_nobody_else(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    backend = FakeBackend(Found(("10 mx.example",), ttl=60))
    backend.delay = 5
    resolver = DnsResolver(backend=backend)
    found: list[list[MX]] = []
    first = trio.CancelScope()

    async def ask_first() -> None:
        with first:
            await resolver.mx("example.net")

    async def ask() -> None:
        found.append(await resolver.mx("example.net"))

    nursery.start_soon(ask_first)
    await wait_all_tasks_blocked()
    for _ in range(10):
        nursery.start_soon(ask)
    await wait_all_tasks_blocked()
    first.cancel()
    await trio.sleep(6)
    assert found == [[MX(10, "mx.example")]] * 10
    assert len(backend.asked) == 2


async def test_a_cancelled_joiner_fails_nobody_else(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    backend = FakeBackend(Found(("10 mx.example",), ttl=60))
    backend.delay = 5
    resolver = DnsResolver(backend=backend)
    nursery.start_soon(resolver.mx, "example.net")
    await wait_all_tasks_blocked()
    with trio.move_on_after(1) as scope:
        await resolver.mx("example.net")
    assert scope.cancelled_caught
    await trio.sleep(5)
    assert await resolver.mx("example.net") == [MX(10, "mx.example")]
    assert len(backend.asked) == 1


async def test_a_backend_that_crashes_leaves_nothing_behind(autojump_clock: MockClock) -> None:
    backend = FakeBackend(RuntimeError("bug"))
    resolver = DnsResolver(backend=backend)
    for _ in range(2):
        with pytest.raises(RuntimeError):
            await resolver.mx("example.net")
    assert len(backend.asked) == 2


async def test_both_kinds_of_address_are_asked_for_at_once(autojump_clock: MockClock) -> None:
    backend = FakeBackend(Found(("192.0.2.1",), ttl=60))
    backend.delay = 5
    start = trio.current_time()
    await DnsResolver(backend=backend).addresses("mx.example")
    assert trio.current_time() - start == pytest.approx(5)


@pytest.mark.parametrize(
    ("ipv6", "ipv4", "want"),
    [
        (Failed("timeout"), Found(("192.0.2.1",), ttl=60), ["192.0.2.1"]),
        (Found(("2001:db8::1",), ttl=60), Failed("timeout"), ["2001:db8::1"]),
        (Failed("timeout"), Absent(domain=False, ttl=60), DnsTemporaryError),
        (Absent(domain=False, ttl=60), Failed("timeout"), DnsTemporaryError),
        (Absent(domain=True, ttl=60), Absent(domain=True, ttl=60), NoSuchDomainError),
        (Absent(domain=False, ttl=60), Absent(domain=False, ttl=60), NoRecordsError),
    ],
)
async def test_half_an_answer_is_used_and_half_a_failure_is_no_absence(
    ipv6: Found | Absent | Failed,
    ipv4: Found | Absent | Failed,
    want: list[str] | type[Exception],
) -> None:
    backend = FakeBackend(Failed("not asked"))
    backend.answers = {Kind.AAAA: ipv6, Kind.A: ipv4}
    resolver = DnsResolver(backend=backend)
    if isinstance(want, list):
        assert await resolver.addresses("mx.example") == want
    else:
        with pytest.raises(want):
            await resolver.addresses("mx.example")


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (Found(("10 mx.example",), ttl=60), "found"),
        (Absent(domain=True, ttl=60), "absent"),
        (Failed("SERVFAIL"), "failed"),
        (Failed("nobody there", timed_out=True), "timed_out"),
    ],
)
async def test_what_name_servers_answer_is_counted_and_timed(
    autojump_clock: MockClock, answer: Found | Absent | Failed, word: str
) -> None:
    backend = FakeBackend(answer)
    backend.delay = 2.0
    resolver = DnsResolver(backend=backend)
    for _ in range(2):
        with suppress(DnsError):
            await resolver.mx("example.net")
    assert resolver.answers == {word: 1}
    assert (resolver.hits, resolver.misses) == (1, 1)
    assert (sum(resolver.seconds.counts), resolver.seconds.total) == (1, 2.0)
