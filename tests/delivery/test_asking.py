from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest
import trio
from typing_extensions import override

from elemta.delivery.asking import ASKING, TELLING
from elemta.plugins import (
    CONTINUE,
    Accept,
    Attempted,
    Defer,
    Discard,
    Letter,
    Plugin,
    Quarantine,
    Reject,
    Verdict,
)
from elemta.protocol import Notify, RcptParams
from elemta.queue import Filter, Hold, Release, Result, State, StoreReader, Suspension
from tests.delivery.watching import ONE, Watches, chain, with_plugins
from tests.delivery.world import BODY, World, on_virtual_time, to, world

if TYPE_CHECKING:
    from pathlib import Path


DEFERRED, DELIVERED, FAILED, HELD = State.DEFERRED, State.DELIVERED, State.FAILED, State.HELD

pytestmark = pytest.mark.trio(run=on_virtual_time)


class Hears(Plugin):
    name = "hears"

    def __init__(
        self, world: list[World], slow: float = 0.0, error: Exception | None = None
    ) -> None:
        self._world = world
        self._slow = slow
        self._error = error
        self.settled: list[State] = []

    @override
    async def on_attempted(self, letter: Letter, attempted: Attempted) -> None:
        await trio.sleep(self._slow)
        self.settled += self._world[0].states(letter.message.id)
        if self._error is not None:
            raise self._error


async def test_a_plugin_sees_each_attempt_and_what_became_of_it(tmp_path: Path) -> None:
    plugin = Watches()
    async with with_plugins(tmp_path, plugin) as here:
        host = here.net.host(ONE, **{"RCPT eve@b.example": "451 4.2.0 later"})
        await here.send("bob@b.example", "eve@b.example")
        await trio.sleep(1)
        assert plugin.asked == [("bob", 0), ("eve", 0)]
        assert plugin.content == BODY
        where = "mx.b.example[198.51.100.1]:25"
        assert plugin.told == [
            ("bob", Result.DELIVERED, "250 2.0.0 taken", where),
            ("eve", Result.DEFERRED, "451 4.2.0 later", where),
        ]
        host.says["RCPT eve@b.example"] = "250 ok"
        await trio.sleep(600)
        assert plugin.asked[2:] == [("eve", 1)]
        assert plugin.told[2][:2] == ("eve", Result.DELIVERED)


async def test_each_recipient_has_a_verdict_of_its_own(tmp_path: Path) -> None:
    plugin = Watches(
        late=Defer((7, 1), "not at this hour"),
        never=Reject((7, 1), "never"),
        gone=Discard("nobody wants it"),
        odd=Quarantine("looks odd"),
        fine=Accept(),
    )
    async with with_plugins(tmp_path, plugin) as here:
        host = here.net.host(ONE)
        here.domain("sender.example", ("mx.sender.example", "198.51.100.3"))
        home = here.net.host("198.51.100.3")
        id_ = await here.send(
            *(f"{who}@b.example" for who in ("late", "never", "gone", "odd", "fine", "bob"))
        )
        await trio.sleep(1)
        assert here.states(id_) == [DEFERRED, FAILED, DELIVERED, HELD, DELIVERED, DELIVERED]
        assert [each.recipients for each in host.taken] == [("fine@b.example", "bob@b.example")]
        timeline = here.timeline(id_)
        assert [
            (each.number, str(each.reply), each.host, each.remote) for each in timeline.attempts
        ][:3] == [
            (0, "451 4.7.1 not at this hour", "plugin:watches", False),
            (1, "550 5.7.1 never", "plugin:watches", False),
            (2, "250 2.0.0 discarded: nobody wants it", "plugin:watches", False),
        ]
        holder = timeline.message.recipients[3].holder
        assert holder is not None
        assert (holder.owner, holder.reason) == ("plugin:watches", "looks odd")
        [note] = timeline.notes
        assert (note.who, note.action, note.recipients) == ("plugin:watches", "hold", (3,))
        # Of those who were held nobody hears, as there was no attempt.
        told = ["late", "never", "gone", "fine", "bob"]
        assert [each[0] for each in plugin.told if each[0] != "ann"] == told
        # The sender learns of the failure, and not that there are plugins.
        [report] = home.taken
        assert b"550 5.7.1 never" in report.content
        assert b"watches" not in report.content


async def test_nobody_is_told_that_what_was_discarded_was_delivered(tmp_path: Path) -> None:
    async with with_plugins(tmp_path, Watches(bob=Discard("spam"))) as here:
        here.net.host(ONE)
        here.domain("sender.example", ("mx.sender.example", "198.51.100.3"))
        home = here.net.host("198.51.100.3")
        params = RcptParams(notify=frozenset({Notify.SUCCESS}))
        id_ = await here.send(to("bob@b.example", params))
        await trio.sleep(1)
        assert here.states(id_) == [DELIVERED]
        assert home.taken == []


async def test_who_releases_what_a_plugin_holds_has_the_last_word(tmp_path: Path) -> None:
    plugin = Watches(odd=Quarantine("looks odd"))
    async with with_plugins(tmp_path, plugin) as here:
        host = here.net.host(ONE)
        id_ = await here.send("odd@b.example")
        await trio.sleep(1)
        assert here.states(id_) == [HELD]
        assert host.taken == []
        await here.queue.act(Release(), Filter(), who="operator:root")
        await trio.sleep(1)
        assert here.states(id_) == [DELIVERED]
        assert len(plugin.asked) == 2


async def test_what_somebody_else_held_before_a_plugin_may_hold(tmp_path: Path) -> None:
    plugin = Watches(odd=Quarantine("looks odd"))
    async with with_plugins(tmp_path, plugin) as here:
        here.net.host(ONE, RCPT="451 4.2.0 later")
        plugin.says.clear()
        id_ = await here.send("odd@b.example")
        await trio.sleep(1)
        await here.queue.act(Hold(), Filter(), who="operator:root")
        plugin.says["odd"] = Quarantine("looks odd")
        await here.queue.act(Release(), Filter(), who="operator:root")
        await trio.sleep(1)
        assert here.states(id_) == [HELD]


async def test_a_plugin_that_fails_defers_that_attempt_alone(tmp_path: Path) -> None:
    plugin = Watches(bob=ValueError("a bug"))
    async with with_plugins(tmp_path, plugin) as here:
        here.net.host(ONE)
        id_ = await here.send("bob@b.example", "eve@b.example")
        await trio.sleep(1)
        assert here.states(id_) == [DEFERRED, DELIVERED]
        assert here.replies(id_)[0] == "451 4.3.0 try again later"
        plugin.says.clear()
        await trio.sleep(600)
        assert here.states(id_) == [DELIVERED, DELIVERED]


async def test_a_plugin_that_hangs_defers_that_attempt(tmp_path: Path) -> None:
    class Hangs(Plugin):
        name = "hangs"

        @override
        async def on_attempt(self, letter: Letter) -> Verdict:
            await trio.sleep_forever()
            raise AssertionError

    async with with_plugins(tmp_path, Hangs(), seconds=7) as here:
        here.net.host(ONE)
        id_ = await here.send("bob@b.example")
        await trio.sleep(8)
        assert here.states(id_) == [DEFERRED]


@pytest.mark.parametrize("error", [None, ValueError("a bug")])
async def test_who_hears_of_an_attempt_cannot_hurt_it(
    error: Exception | None, tmp_path: Path
) -> None:
    worlds: list[World] = []
    hears = Hears(worlds, slow=0.5, error=error)
    async with with_plugins(tmp_path, hears) as here:
        worlds.append(here)
        here.net.host(ONE)
        id_ = await here.send("bob@b.example")
        await trio.sleep(1)
        assert hears.settled == [DELIVERED]  # it was, before it was told
        assert here.states(id_) == [DELIVERED]


async def test_a_plugin_hears_of_an_attempt_that_a_bug_of_ours_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = Watches()
    async with with_plugins(tmp_path, plugin) as here:

        async def breaks(*_: object) -> None:
            raise ValueError("a bug of ours")

        monkeypatch.setattr("elemta.delivery.carrier.Carrier.deliver", breaks)
        id_ = await here.send("bob@b.example")
        await trio.sleep(1)
        assert here.states(id_) == [DEFERRED]
        assert plugin.told == [
            ("bob", Result.DEFERRED, "451 4.3.0 internal trouble; not tried", "")
        ]


async def test_a_plugin_that_hangs_each_time_does_not_hold_a_worker_for_hours(
    tmp_path: Path,
) -> None:
    class Hangs(Plugin):
        name = "hangs"

        @override
        async def on_attempt(self, letter: Letter) -> Verdict:
            if letter.recipient.address.local_part == "eve":
                return CONTINUE
            await trio.sleep_forever()
            raise AssertionError

        @override
        async def on_attempted(self, letter: Letter, attempted: Attempted) -> None:
            await trio.sleep_forever()

    async with with_plugins(tmp_path, Hangs()) as here:
        here.net.host(ONE)
        id_ = await here.send("eve@b.example", *(f"bob{n}@b.example" for n in range(50)))
        await trio.sleep(ASKING + 29)
        assert here.states(id_) == [DELIVERED] + [DEFERRED] * 50
        assert here.replies(id_)[-1].startswith("451 4.3.0 not tried")
        other = await here.send("eve@b.example")
        await trio.sleep(TELLING + 29)
        assert here.states(other) == [DELIVERED]


async def test_what_is_overdue_is_not_tried_and_nobody_is_asked(tmp_path: Path) -> None:
    plugin = Watches()
    async with with_plugins(tmp_path, plugin) as here:
        stop = Suspension(scope="domain:b.example", who="operator:root", reason="", since=0.0)
        await here.queue.suspend(stop)
        id_ = await here.send("bob@b.example", sender=None)
        await trio.sleep(6 * 86400)
        assert here.states(id_) == [State.EXPIRED]
        assert plugin.asked == []
        assert plugin.told == []


async def test_a_hold_that_the_disk_cannot_look_up_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = Watches(odd=Quarantine("looks odd"))
    async with with_plugins(tmp_path, plugin) as here:

        def breaks(*_: object) -> None:
            raise sqlite3.OperationalError("disk I/O error")

        with monkeypatch.context() as patch:
            patch.setattr(StoreReader, "timeline", breaks)
            id_ = await here.send("odd@b.example")
            await trio.sleep(1)
        assert here.states(id_) == [DEFERRED]
        await trio.sleep(600)
        assert here.states(id_) == [HELD]


async def test_a_chain_is_used_until_its_attempts_are_over(tmp_path: Path) -> None:
    asked = chain(Watches())
    async with world(tmp_path, plugins=lambda: asked) as here:
        here.domain("b.example", ("mx.b.example", ONE))
        here.net.host(ONE).delay = 3
        await here.send("bob@b.example")
        await trio.sleep(1)
        assert asked.users.count == 1
        await trio.sleep(60)
        assert asked.users.count == 0
