"""The lives of plugins: who is started, runs and is stopped, and when."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from msgspec.structs import replace
from typing_extensions import override

from elemta import log as logs
from elemta.config import ConfigError, PluginEntry
from elemta.plugins import CONTINUE, Chain, Lives, Loaded, Plugin, Session, Verdict, load
from elemta.plugins.lives import STOPPING
from elemta.supervision import Supervision
from elemta.testing import some_tools

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.testing import MockClock


class Lively(Plugin):
    """Says what happens to it."""

    name = "lively"

    def __init__(self, name: str, told: list[str]) -> None:
        self.called = name
        self.told = told

    @override
    async def start(self) -> None:
        await trio.lowlevel.checkpoint()
        self.told.append(f"{self.called} started as {self.tools.name}")

    @override
    async def run(self) -> None:
        self.told.append(f"{self.called} runs")
        try:
            await trio.sleep_forever()
        finally:
            self.told.append(f"{self.called} runs no more")

    @override
    async def stop(self) -> None:
        await trio.lowlevel.checkpoint()
        self.told.append(f"{self.called} stopped")

    @override
    async def on_connect(self, session: Session) -> Verdict:
        return CONTINUE


class Failing(Lively):
    """Fails where it is told to."""

    def __init__(
        self, name: str, told: list[str], where: str, how: Callable[[], Awaitable[None]]
    ) -> None:
        super().__init__(name, told)
        self.where, self.how = where, how

    @override
    async def start(self) -> None:
        if self.where == "start":
            await self.how()
        await super().start()

    @override
    async def run(self) -> None:
        if self.where == "run":
            await self.how()
        await super().run()

    @override
    async def stop(self) -> None:
        if self.where == "stop":
            await self.how()
        await super().stop()


async def raises() -> None:
    raise OSError("no such socket")


async def raises_a_group() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(raises)


async def exits() -> None:
    raise SystemExit(3)


async def hangs() -> None:
    await trio.sleep_forever()


def chain(*plugins: Plugin, timeout: float = 7) -> Chain:
    return Chain([Loaded(each, timeout, f"p{n}") for n, each in enumerate(plugins)])


def lives(supervision: Supervision | None = None) -> Lives:
    def tools(loaded: Loaded) -> object:
        return some_tools(loaded.name)

    return Lives(tools, keep=(supervision or Supervision()).keep)  # type: ignore[arg-type]


async def test_plugins_start_in_order_before_and_stop_after(autojump_clock: MockClock) -> None:
    told: list[str] = []
    async with lives().living(chain(Lively("a", told), Lively("b", told))):
        assert [each for each in told if "started" in each] == [
            "a started as p0",
            "b started as p1",
        ]
        await trio.testing.wait_all_tasks_blocked()
        assert {"a runs", "b runs"} <= {*told}
        assert not any("stopped" in each for each in told)
    for name in "ab":
        assert told.index(f"{name} runs no more") < told.index(f"{name} stopped")


async def test_a_plugin_that_overrides_nothing_of_its_life_lives(nursery: trio.Nursery) -> None:
    supervision = Supervision()
    async with lives(supervision).living(chain(Plugin())):
        assert supervision.parts == ()


@pytest.mark.parametrize(
    ("how", "why"),
    [
        (raises, "OSError: no such socket"),
        (raises_a_group, "OSError: no such socket"),
        (exits, "RuntimeError: it wants to end the process: 3"),
        (hangs, "TimeoutError: it takes more than 7 seconds"),
    ],
)
async def test_a_plugin_that_does_not_start_keeps_the_server_from_starting(
    how: Callable[[], Awaitable[None]], why: str, autojump_clock: MockClock
) -> None:
    told: list[str] = []
    asked = chain(Lively("a", told), Failing("b", told, "start", how), Lively("c", told))
    with pytest.raises(ConfigError) as caught:
        async with lives().living(asked):
            raise AssertionError
    assert str(caught.value) == f"plugins[1]: p1 cannot start: {why}"
    # What was begun is over, and what had begun half is closed.
    assert [each for each in told if "start" in each or "stopped" in each] == [
        "a started as p0", "b stopped", "a stopped",
    ]  # fmt: skip


async def test_what_runs_beside_the_mail_is_run_again_when_it_fails(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    for how, why in ((raises, "OSError: no such socket"), (exits, "RuntimeError: it wants to")):
        supervision = Supervision()
        plugin = Failing("a", [], "run", how)
        async with lives(supervision).living(chain(plugin)):
            await trio.sleep(2)
            (part,) = supervision.parts
            assert (part.name, part.restarts) == ("plugin p0", 1)
            assert str(part.failure).startswith(why)
            plugin.where = ""
            await trio.sleep(100)
            (part,) = supervision.parts
            assert (part.running, part.failure) == (True, None)
        assert supervision.parts == ()


@pytest.mark.parametrize(("how", "seconds"), [(raises, 0), (exits, 0), (hangs, STOPPING)])
async def test_a_plugin_that_does_not_stop_holds_nobody_up(
    how: Callable[[], Awaitable[None]], seconds: float, autojump_clock: MockClock
) -> None:
    told: list[str] = []
    began = trio.current_time()
    async with lives().living(chain(Failing("a", told, "stop", how), Lively("b", told))):
        pass
    assert trio.current_time() - began == pytest.approx(seconds)
    assert told[-1] == "b stopped" or "b stopped" in told
    assert logs.recent(logs.Level.WARNING, 1)[0].event == "plugin.not_stopped"


# Reload.


async def test_a_reload_starts_the_new_and_stops_the_old_when_nobody_uses_it(
    autojump_clock: MockClock,
) -> None:
    told: list[str] = []
    stays, goes, comes = Lively("stays", told), Lively("goes", told), Lively("comes", told)
    old, new = chain(stays, goes), chain(stays, comes)
    living = lives()
    async with living.living(old):
        with old.at("mx").users:
            await trio.sleep(1)
            told.clear()
            await living.begin(new)
            await trio.sleep(1000)
            # Whoever began with the old ones goes on asking them.
            assert told == ["comes started as p1", "comes runs"]
        await trio.sleep(1)
        assert told[2:] == ["goes runs no more", "goes stopped"]
        told.clear()
    assert sorted(each for each in told if "stopped" in each) == ["comes stopped", "stays stopped"]


async def test_a_plugin_that_comes_back_meanwhile_is_not_stopped(
    autojump_clock: MockClock,
) -> None:
    told: list[str] = []
    plugin = Lively("a", told)
    first, second, third = chain(plugin), chain(), chain(plugin)
    living = lives()
    async with living.living(first):
        with first.users:
            await living.begin(second)
            await living.begin(third)
        await trio.sleep(10)
        assert not any("stopped" in each for each in told)
        assert [each for each in told if "started" in each] == ["a started as p0"]


async def test_who_is_switched_off_and_on_is_the_same_one(autojump_clock: MockClock) -> None:
    told: list[str] = []
    first = chain(Lively("a", told))
    living = lives()
    async with living.living(first):
        off = first.switched("p0", enabled=False)
        with off.at("mx").users:
            assert first.users.count == 1
            await living.begin(chain())
            await trio.sleep(10)
            assert "a stopped" not in told
        await trio.sleep(1)
        assert "a stopped" in told


@pytest.mark.parametrize("how", [raises, exits, hangs])
async def test_if_a_plugin_does_not_start_a_reload_changes_nothing(
    how: Callable[[], Awaitable[None]], autojump_clock: MockClock
) -> None:
    told: list[str] = []
    stays, begun = Lively("stays", told), Lively("begun", told)
    living = lives()
    async with living.living(chain(stays)):
        with pytest.raises(ConfigError, match=r"plugins\[1\]: p1 cannot start"):
            await living.begin(chain(begun, Failing("no", told, "start", how)))
        await trio.sleep(1)
        assert "begun stopped" in told
        assert "stays stopped" not in told
        # And the next one finds all as it was.
        await living.begin(chain(stays, Lively("next", told)))
        assert "next started as p1" in told
        await trio.sleep(1)
        assert "stays stopped" not in told


async def test_who_wants_a_reload_and_goes_leaves_nothing_of_it(autojump_clock: MockClock) -> None:
    told: list[str] = []
    stays, begun = Lively("stays", told), Lively("begun", told)
    living = lives()
    async with living.living(chain(stays)):
        with trio.move_on_after(1):
            await living.begin(chain(begun, Failing("slow", told, "start", hangs)))
        await trio.sleep(1)
        assert told[-3:] == ["slow stopped", "begun runs no more", "begun stopped"]


async def test_many_reloads_during_one_session_stop_what_is_gone(autojump_clock: MockClock) -> None:
    told: list[str] = []
    first, living = chain(Lively("0", told)), lives()
    async with living.living(first):
        with first.users:
            for number in range(1, 5):
                await living.begin(chain(Lively(str(number), told)))
                await trio.sleep(1)
            stopped = [each for each in told if each.endswith("stopped")]
            assert stopped == ["1 stopped", "2 stopped", "3 stopped"]
        await trio.sleep(1)
        assert told[-1] == "0 stopped"


async def test_nothing_is_begun_once_the_server_ends(autojump_clock: MockClock) -> None:
    living = lives()
    async with living.living(chain()):
        pass
    with pytest.raises(ConfigError, match="plugins are being stopped"):
        await living.begin(chain(Lively("late", [])))


HERE = "tests.plugins.test_loader:Whole"


def test_who_has_the_same_settings_is_the_same_plugin() -> None:
    entry = PluginEntry(name="recipient-limit", settings={"recipients": 200})
    (before,) = load([entry])
    (same,) = load([replace(entry, enabled=False, listeners=["mx"])], [before])
    assert same.plugin is before.plugin
    assert same.counts is before.counts
    assert not same.judges("api")
    (other,) = load([replace(entry, settings={"recipients": 300})], [before])
    assert other.plugin is not before.plugin
    assert other.counts is before.counts, "it goes on counting"


def test_of_two_of_one_name_each_goes_on_as_what_it_was() -> None:
    entries = [PluginEntry(name=HERE), PluginEntry(name=HERE)]
    before = load(entries)
    after = load(entries, before)
    assert [each.plugin for each in after] == [each.plugin for each in before]
    assert after[0].plugin is not after[1].plugin
