from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import pytest
import trio

from elemta.mailauth.asking import (
    QUESTIONS,
    Answers,
    TemporaryError,
    TooManyQuestionsError,
    always,
    replay,
)
from elemta.net.dns import Absent, DnsResolver, Failed, Found, Kind
from elemta.testing import FakeDns, at_once

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

T = TypeVar("T")


async def test_what_is_asked_is_there_the_next_time() -> None:
    dns = FakeDns({("a.example", "A"): ["192.0.2.1"], ("b.example", "A"): ["192.0.2.2"]})
    runs = 0

    def call(answers: Answers) -> tuple[str, ...]:
        nonlocal runs
        runs += 1
        return answers.records("a.example", Kind.A) + answers.records("B.example.", Kind.A)

    found = await replay(call, resolver=DnsResolver(backend=dns), in_thread=at_once)
    assert found == ("192.0.2.1", "192.0.2.2")
    assert runs == 3
    runs = 0
    first = [("a.example", Kind.A), ("b.example", Kind.A)]
    await replay(call, resolver=DnsResolver(backend=dns), in_thread=at_once, first=first)
    assert runs == 1


async def test_a_library_that_swallows_what_it_does_not_know_is_run_again() -> None:
    dns = FakeDns({("a.example", "A"): ["192.0.2.1"]})

    def call(answers: Answers) -> tuple[str, ...]:
        try:
            return answers.records("a.example", Kind.A)
        except Exception:
            return ()

    found = await replay(call, resolver=DnsResolver(backend=dns), in_thread=at_once)
    assert found == ("192.0.2.1",)


async def test_who_asks_without_end_is_ended() -> None:
    class Any:
        async def ask(self, name: str, kind: Kind) -> Found | Absent | Failed:
            await trio.lowlevel.checkpoint()
            return Found((f"x{name}.",), 60)

    def call(answers: Answers) -> None:
        for number in range(QUESTIONS + 1):
            answers.records(f"h{number}.example", Kind.A)

    with pytest.raises(TooManyQuestionsError):
        await replay(call, resolver=DnsResolver(backend=Any()), in_thread=at_once)


async def test_what_a_library_raises_comes_out() -> None:
    def call(answers: Answers) -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await replay(call, resolver=DnsResolver(backend=FakeDns()), in_thread=at_once)


@pytest.mark.parametrize("name", ["ünicode.example", "", "x." * 200])
async def test_names_that_cannot_be_are_not_asked(name: str) -> None:
    dns = FakeDns()

    def call(answers: Answers) -> tuple[str, ...]:
        return answers.records(name, Kind.A)

    assert await replay(call, resolver=DnsResolver(backend=dns), in_thread=at_once) == ()
    assert dns.asked == []


def of_two(answers: Answers) -> tuple[str, ...]:
    """What the name that stands at one name says."""
    (name,) = answers.records("a.example", Kind.PTR)
    return answers.records(name, Kind.A)


def two() -> FakeDns:
    return FakeDns({("a.example", "PTR"): ["b.example."], ("b.example", "A"): ["192.0.2.2"]})


async def test_what_is_light_and_known_is_over_at_once() -> None:
    resolver = DnsResolver(backend=two())
    assert await replay(of_two, resolver=resolver, light=always) == ("192.0.2.2",)
    with trio.CancelScope() as scope:
        scope.cancel()  # nobody notices who waits for nothing
        assert await replay(of_two, resolver=resolver, light=always) == ("192.0.2.2",)
    assert not scope.cancelled_caught
    assert (resolver.hits, resolver.misses) == (2, 2)


async def test_what_is_not_light_goes_to_a_thread_though_it_is_known() -> None:
    runs = 0

    async def in_thread(call: Callable[[], T]) -> T:
        nonlocal runs
        runs += 1
        return await at_once(call)

    def light(answers: Answers) -> bool:
        return len(answers) < 2

    resolver = DnsResolver(backend=two())
    for _ in range(2):
        found = await replay(of_two, resolver=resolver, in_thread=in_thread, light=light)
        assert found == ("192.0.2.2",)
    assert runs == 2


async def test_a_failure_that_is_remembered_is_one_also_at_once() -> None:
    dns = two()
    dns.failing.add("b.example")
    resolver = DnsResolver(backend=dns)
    for _ in range(2):
        with pytest.raises(TemporaryError):
            await replay(of_two, resolver=resolver, light=always)
    assert (resolver.hits, resolver.misses) == (2, 2)


async def test_no_more_than_some_runs_are_made_at_once(autojump_clock: MockClock) -> None:
    def call(answers: Answers) -> None:
        for number in range(10):
            answers.records(f"h{number}.example", Kind.A)

    resolver = DnsResolver(backend=FakeDns())
    await replay(call, resolver=resolver)
    with trio.CancelScope() as scope:
        scope.cancel()
        await replay(call, resolver=resolver, light=always)
    assert scope.cancelled_caught


async def test_who_has_no_time_gets_no_answer(autojump_clock: MockClock) -> None:
    class Silent:
        async def ask(self, name: str, kind: Kind) -> Found | Absent | Failed:
            await trio.sleep_forever()
            raise AssertionError

    began = trio.current_time()
    with pytest.raises(trio.TooSlowError):
        await replay(of_two, resolver=DnsResolver(backend=Silent()), light=always, seconds=7)
    assert trio.current_time() == began + 7
