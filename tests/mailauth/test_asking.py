from __future__ import annotations

import pytest
import trio

from elemta.mailauth.asking import QUESTIONS, Answers, TooManyQuestionsError, replay
from elemta.net.dns import Absent, DnsResolver, Failed, Found, Kind
from elemta.testing import FakeDns, at_once


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
