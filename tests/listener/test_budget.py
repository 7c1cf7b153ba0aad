from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from trio.testing import wait_all_tasks_blocked

from elemta.listener.budget import Budget

if TYPE_CHECKING:
    from trio.testing import MockClock


async def test_what_is_held_is_given_back_at_the_end() -> None:
    budget = Budget(100)
    with budget.share() as share:
        assert share.grow(60)
        assert share.grow(40)
        assert not share.grow(1)
        assert (budget.free, share.held) == (0, 100)
    assert budget.free == 100


async def test_who_waits_gets_what_others_give_back(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    budget = Budget(100)
    got: list[int] = []

    async def want(octets: int) -> None:
        with budget.share() as share:
            assert await share.wait(octets)
            got.append(octets)
            await trio.sleep_forever()

    with budget.share() as share:
        assert share.grow(100)
        nursery.start_soon(want, 70)
        nursery.start_soon(want, 30)
        await wait_all_tasks_blocked()
        assert got == []
    await wait_all_tasks_blocked()
    assert sorted(got) == [30, 70]
    assert budget.free == 0


async def test_waiting_has_an_end(autojump_clock: MockClock) -> None:
    budget = Budget(100, patience=7)
    with budget.share() as first, budget.share() as second:
        assert first.grow(100)
        began = trio.current_time()
        assert not await second.wait(1)
        assert trio.current_time() - began == 7
        assert second.held == 0


async def test_more_than_there_ever_is_cannot_be_had(autojump_clock: MockClock) -> None:
    budget = Budget(100)
    with budget.share() as share:
        assert not await share.wait(101)


async def test_a_smaller_budget_takes_nothing_away_but_gives_no_more() -> None:
    budget = Budget(100)
    with budget.share() as share:
        assert share.grow(80)
        budget.resize(50)
        assert budget.free == -30
        assert not share.grow(1)
    assert budget.free == budget.total == 50
