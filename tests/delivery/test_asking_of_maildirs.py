"""What plugins say to mail for Maildirs; in real time, since virtual time sees no threads."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import trio
import trio.testing

from elemta.plugins import Defer, Quarantine
from elemta.queue import State
from tests.delivery.watching import Watches, chain
from tests.delivery.world import world

if TYPE_CHECKING:
    from pathlib import Path

DEFERRED, DELIVERED, HELD = State.DEFERRED, State.DELIVERED, State.HELD


async def test_each_is_asked_about_though_they_are_written_together(tmp_path: Path) -> None:
    plugin = Watches(late=Defer((7, 1), "not now"), odd=Quarantine("looks odd"))
    asked = chain(plugin)
    async with world(tmp_path, clock=time.time, plugins=lambda: asked) as here:
        with trio.fail_after(60), here.queue.events.subscribe() as events:
            ids = [await here.send(f"{who}@us.example") for who in ("bob", "late", "odd", "eve")]
            both = await here.send("odd@us.example", "ann@us.example")
            while len(plugin.told) < 4:
                await anext(events)
                await trio.testing.wait_all_tasks_blocked(0.01)
        assert [here.states(id_) for id_ in ids] == [[DELIVERED], [DEFERRED], [HELD], [DELIVERED]]
        assert here.states(both) == [HELD, DELIVERED]
        mail = tmp_path / "mail" / "us.example"
        assert sorted(each.name for each in mail.iterdir()) == ["ann", "bob", "eve"]
        assert sorted(each[0] for each in plugin.told) == ["ann", "bob", "eve", "late"]
        assert asked.users.count == 0


async def test_none_of_them_is_written_that_plugins_object_to(tmp_path: Path) -> None:
    plugin = Watches(bob=Defer((7, 1), "not now"))
    asked = chain(plugin)
    async with world(tmp_path, clock=time.time, plugins=lambda: asked) as here:
        with trio.fail_after(60), here.queue.events.subscribe() as events:
            id_ = await here.send("bob@us.example")
            while not here.timeline(id_).attempts:
                await anext(events)
                await trio.testing.wait_all_tasks_blocked(0.01)
        assert here.replies(id_) == ["451 4.7.1 not now"]
        assert not (tmp_path / "mail").exists()
