"""One plugin is asked one thing: whatever it does, there is an answer."""

from __future__ import annotations

import sys
from functools import partialmethod
from typing import TYPE_CHECKING, ClassVar

import pytest
import trio
from typing_extensions import override

from elemta import log as logs
from elemta.plugins import (
    CONTINUE,
    HOOKS,
    Accept,
    Chain,
    Continue,
    Defer,
    Loaded,
    Plugin,
    Quarantine,
    Reject,
    Session,
    Tag,
    Verdict,
)
from elemta.testing import FakeContent, a_session, a_transaction
from tests.plugins.saying import saying

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from trio.testing import MockClock

    from elemta.plugins import Content, Transaction

CONTENT = FakeContent(b"Subject: x\r\n\r\nbody\r\n")
LATER = Defer((3, 0), "try again later")


def chain(*plugins: Plugin, timeout: float = 30, on_failure: str | None = None) -> Chain:
    return Chain([Loaded(each, timeout, on_failure=on_failure) for each in plugins])


def last_failure() -> logs.Entry:
    """What the log has of the last plugin that failed."""
    return [each for each in logs.recent() if each.event == "plugin.failed"][-1]


async def of_message(asked: Chain) -> Verdict:
    return await asked.on_message(a_transaction(), CONTENT)


# What a hook without an await is spared.


class Quick(Plugin):
    name = "quick"

    @override
    async def on_connect(self, session: Session) -> Verdict:
        return CONTINUE

    @override
    async def on_mail(self, transaction: Transaction) -> Verdict:
        await trio.lowlevel.checkpoint()
        return CONTINUE

    @override
    async def on_data(self, transaction: Transaction) -> Verdict:
        async with trio.Lock():
            return CONTINUE

    @override
    async def on_message(self, transaction: Transaction, content: Content) -> Verdict:
        async for _ in content.pieces():
            pass
        return CONTINUE


def test_hooks_that_may_wait_are_known() -> None:
    assert Loaded(Quick()).waits == {"on_mail", "on_data", "on_message"}


def test_of_a_hook_that_nobody_can_look_into_it_is_assumed_that_it_waits() -> None:
    class Odd(Quick):
        on_connect: ClassVar[Callable[..., Awaitable[Verdict]]] = print  # type: ignore[assignment]

    assert "on_connect" in Loaded(Odd()).waits


def test_a_hook_that_hands_on_what_another_function_gives_may_wait() -> None:
    class Shared(Quick):
        async def wait(self, long: bool, session: Session) -> Verdict:  # partial
            await trio.sleep_forever() if long else None
            return CONTINUE

        on_connect = partialmethod(wait, True)  # type: ignore[assignment]

    assert "on_connect" in Loaded(Shared()).waits


async def test_a_hook_that_cannot_wait_is_timed_and_counted_like_any(
    autojump_clock: MockClock,
) -> None:
    asked = chain(Quick())
    # An expired deadline is noticed where somebody waits: so this one has none of its own.
    assert await asked.on_connect(a_session()) is CONTINUE
    assert await asked.on_mail(a_transaction()) is CONTINUE
    counts = asked.plugins[0].counts
    assert (counts.asked, counts.failed, sum(counts.seconds.counts)) == (2, 0, 2)


async def test_a_hook_that_cannot_wait_may_fail_like_any() -> None:
    class Breaks(Plugin):
        name = "breaks"

        @override
        async def on_connect(self, session: Session) -> Verdict:
            raise ValueError("odd")

    asked = chain(Breaks())
    assert await asked.on_connect(a_session()) == LATER
    assert asked.plugins[0].counts.failed == 1
    entry = last_failure()
    assert (entry.fields["plugin"], entry.fields["error"]) == ("breaks", "ValueError: odd")
    assert "in on_connect" in str(entry.fields["traceback"])


# What a failure means.


@pytest.mark.parametrize(
    ("on_failure", "wanted"),
    [
        (None, LATER),
        ("defer", LATER),
        ("continue", CONTINUE),
        ("reject", Reject((3, 0), "this mail cannot be taken")),
    ],
)
async def test_the_configuration_says_what_a_failure_means(
    on_failure: str | None, wanted: Verdict
) -> None:
    breaks = saying(on_mail=lambda _: 1 // 0)
    assert await chain(breaks, on_failure=on_failure).on_mail(a_transaction()) == wanted


async def test_the_configuration_may_have_held_what_a_plugin_fails_at() -> None:
    transaction = a_transaction()
    asked = chain(saying("scan", on_mail=lambda _: 1 // 0), on_failure="quarantine")
    assert await asked.on_mail(transaction) is CONTINUE
    (doomed,) = transaction.doomed
    assert (doomed.plugin, doomed.fate) == ("scan", Quarantine("scan failed"))


@pytest.mark.parametrize(
    ("on_error", "wanted"),
    [
        (Reject((7, 1), "never"), {"on_mail": Reject((7, 1), "never")}),
        (Continue(), {"on_mail": CONTINUE, "on_data": CONTINUE}),
        (Accept(), {"on_mail": CONTINUE}),
        ({"on_mail": CONTINUE}, {"on_mail": CONTINUE, "on_data": LATER}),
        ({}, {"on_mail": LATER}),
    ],
)
async def test_a_plugin_says_what_its_failure_means_in_all_or_by_hook(
    on_error: Verdict | Mapping[str, Verdict], wanted: dict[str, Verdict]
) -> None:
    breaks = saying(on_error=on_error, on_mail=lambda _: 1 // 0, on_data=lambda _: 1 // 0)
    for hook, verdict in wanted.items():
        assert await getattr(chain(breaks), hook)(a_transaction()) == verdict
    # The configuration counts more.
    assert await chain(breaks, on_failure="defer").on_mail(a_transaction()) == LATER


@pytest.mark.parametrize("answer", [None, True, "no", Reject, 5])
async def test_what_is_no_verdict_is_a_failure(answer: object) -> None:
    asked = chain(saying(on_mail=lambda _: answer))
    assert await asked.on_mail(a_transaction()) == LATER
    counts = asked.plugins[0].counts
    assert (counts.asked, counts.failed, counts.objected) == (1, 1, 1)
    assert "a verdict was expected" in str(last_failure().fields["error"])


@pytest.mark.parametrize(
    "changes",
    [Tag("x"), "a note", ["x"], (Tag("x"), "x"), None, 5],
    ids=lambda each: repr(each)[:9],
)
@pytest.mark.parametrize("kind", [Continue, Accept, Quarantine])
async def test_what_are_no_changes_is_a_failure_before_any_is_made(
    kind: Callable[..., Verdict], changes: object
) -> None:
    transaction = a_transaction()
    verdict = kind("odd", changes=changes) if kind is Quarantine else kind(changes=changes)
    asked = chain(saying(on_mail=verdict))
    assert await asked.on_mail(transaction) == LATER
    assert asked.plugins[0].counts.failed == 1
    assert (transaction.made, transaction.doomed, transaction.tags) == ([], [], ())


# What may come out of a hook.


@pytest.mark.parametrize(
    "error",
    [
        ExceptionGroup("of a nursery", [ValueError(), KeyError()]),
        BaseExceptionGroup("of a nursery", [ValueError(), SystemExit(1)]),
        SystemExit(1),
        RecursionError(),
        MemoryError(),
        trio.TooSlowError(),
        StopAsyncIteration(),
        AssertionError(),
    ],
    ids=repr,
)
async def test_whatever_a_plugin_raises_costs_its_answer_alone(error: BaseException) -> None:
    def raises(_: object) -> Verdict:
        raise error

    asked = chain(saying(on_mail=raises))
    assert await asked.on_mail(a_transaction()) == LATER
    assert asked.plugins[0].counts.failed == 1


@pytest.mark.parametrize("grouped", [False, True])
async def test_an_interrupt_passes(grouped: bool) -> None:
    def raises(_: object) -> Verdict:
        if grouped:
            raise BaseExceptionGroup("of a nursery", [ValueError(), KeyboardInterrupt()])
        raise KeyboardInterrupt

    asked = chain(saying(on_mail=raises))
    with pytest.raises((KeyboardInterrupt, BaseExceptionGroup)) as caught:
        await asked.on_mail(a_transaction())
    if grouped:
        assert caught.group_contains(KeyboardInterrupt)
        assert not caught.group_contains(ValueError)
        assert asked.plugins[0].counts.failed == 1


async def test_what_fails_while_it_is_cancelled_does_not_reach_who_cancels(
    autojump_clock: MockClock,
) -> None:
    async def nursery(_: object) -> Verdict:
        async def clean_up() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("while it was cancelled")

        async with trio.open_nursery() as tasks:
            tasks.start_soon(clean_up)
            await trio.sleep_forever()
        raise AssertionError

    asked = chain(saying(on_mail=nursery))
    with trio.move_on_after(1) as scope:
        # In no group: `elemta.listener.session` says goodbye then.
        with pytest.raises(trio.Cancelled) as caught:
            await asked.on_mail(a_transaction())
        raise caught.value
    assert scope.cancelled_caught
    assert asked.plugins[0].counts.failed == 1
    assert isinstance(
        await chain(saying(on_mail=nursery), timeout=1).on_mail(a_transaction()), Defer
    )


async def test_a_deadline_ends_what_holds_it_off_as_soon_as_it_waits(
    autojump_clock: MockClock,
) -> None:
    async def stubborn(_: object) -> Verdict:
        with trio.CancelScope(shield=True):
            await trio.sleep(50)
        return CONTINUE

    asked = chain(saying(on_mail=stubborn), timeout=3)
    began = trio.current_time()
    # It had its answer after all, though late: what it decides is better than nothing.
    assert await asked.on_mail(a_transaction()) is CONTINUE
    assert trio.current_time() - began == 50


# Side by side.


async def test_those_that_inspect_run_side_by_side_and_take_none_along(
    autojump_clock: MockClock,
) -> None:
    ended: list[float] = []

    async def slow(*_: object) -> Verdict:
        await trio.sleep(10)
        ended.append(trio.current_time())
        return CONTINUE

    async def hangs(*_: object) -> Verdict:
        await trio.sleep_forever()
        raise AssertionError

    keep = {"on_inspect": CONTINUE}
    asked = chain(
        saying("a", on_inspect=slow),
        saying("b", on_inspect=lambda *_: 1 // 0, on_error=keep),
        saying("c", on_inspect=slow),
        saying("d", on_inspect=hangs, on_error=keep),
        timeout=20,
    )
    began = trio.current_time()
    assert await of_message(asked) is CONTINUE
    assert [each - began for each in ended] == [10, 10]
    assert trio.current_time() - began == pytest.approx(20)
    assert [each.counts.failed for each in asked.plugins] == [0, 1, 0, 1]


async def test_of_those_that_inspect_the_first_in_the_file_decides(
    autojump_clock: MockClock,
) -> None:
    async def late(*_: object) -> Verdict:
        await trio.sleep(5)
        return Reject((7, 1), "late, but first")

    told: list[str] = []
    asked = chain(
        saying("a", on_inspect=late),
        saying("b", on_inspect=Reject((7, 1), "soon"), on_message=CONTINUE, asked=told),
    )
    assert await of_message(asked) == Reject((7, 1), "late, but first")
    assert told == ["on_inspect"]


async def test_what_they_find_is_there_for_those_that_judge() -> None:
    found: list[str] = []

    def find(transaction: Transaction, _: Content) -> Verdict:
        transaction.tags += ("found",)
        return CONTINUE

    def judge(transaction: Transaction, _: Content) -> Verdict:
        found.extend(transaction.tags)
        return CONTINUE

    await of_message(chain(saying(on_message=judge), saying(on_inspect=find)))
    assert found == ["found"]


async def test_cancelling_those_that_inspect_is_one_cancellation(
    autojump_clock: MockClock,
) -> None:
    async def hangs(*_: object) -> Verdict:
        await trio.sleep_forever()
        raise AssertionError

    asked = chain(saying("a", on_inspect=hangs), saying("b", on_inspect=hangs))
    with trio.move_on_after(1) as scope:
        with pytest.raises(trio.Cancelled) as caught:
            await of_message(asked)
        raise caught.value
    assert scope.cancelled_caught


def test_every_hook_is_in_the_order_in_which_they_are_asked() -> None:
    assert len(set(HOOKS)) == len(HOOKS)
    assert {each for each in dir(Plugin) if each.startswith("on_")} - {"on_error"} == set(HOOKS)
    assert sys.modules["elemta.plugins"].HOOKS is HOOKS
