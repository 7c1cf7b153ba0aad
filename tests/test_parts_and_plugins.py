"""What a running server lets plugins do with the mail that it has taken."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio.testing
from typing_extensions import override

from elemta.config import ConfigError, load
from elemta.control.facts import Hypothesis
from elemta.plugins import Plugin, PluginWith
from elemta.plugins.choosing import PAUSE
from elemta.protocol import parse_mailbox
from tests.queue.mail import CONTENT, envelope
from tests.test_parts import CONFIG, parts_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from elemta.config import Config
    from elemta.parts import Parts
    from elemta.plugins import Steers
    from elemta.queue import Destined, QueueEvent

from elemta.config import Table

HERE = "tests.test_parts_and_plugins"
BOB = parse_mailbox("bob@far.example")


class Settings(Table, frozen=True):
    host: str = ""


class Routes(PluginWith[Settings]):
    """Sends all mail to one host; without one it fails."""

    name = "routes"

    @override
    def on_route(self, recipient: Destined) -> Sequence[str] | None:
        if not self.settings.host:
            raise ValueError("no table")
        return [f"smtp://{self.settings.host}:25"]


class Hears(Plugin):
    """Remembers what it hears of."""

    name = "hears"

    def __init__(self) -> None:
        self.heard: list[QueueEvent] = []

    @override
    async def on_event(self, event: QueueEvent, queue: Steers) -> None:
        self.heard.append(event)


def routes(host: str) -> str:
    return f'plugins: [{{name: "{HERE}:Routes", settings: {{host: "{host}"}}}}]\n'


def lanes(parts: Parts) -> dict[str, int]:
    return {each.name: each.ready for each in parts.queue.destinations()}


async def test_what_waits_goes_where_plugins_say_from_the_start_on(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with parts_of(tmp_path) as parts:
        await parts.queue.accept(envelope(str(BOB)), CONTENT)
        assert lanes(parts) == {"mx:far.example": 1}
    async with parts_of(tmp_path, more=routes("192.0.2.1")) as parts:
        await trio.sleep(1)
        assert lanes(parts) == {"smtp:[192.0.2.1]:25": 1}


async def test_a_switch_and_a_reload_sort_what_waits_anew(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    text = CONFIG.format(data=tmp_path)
    wanted = [text + routes("192.0.2.1")]

    def reread() -> Config:
        return load(wanted[-1], "elemta.yaml")

    async with parts_of(tmp_path, reread=reread, more=routes("192.0.2.1")) as parts:
        await parts.queue.accept(envelope(str(BOB)), CONTENT)
        await trio.sleep(1)
        assert lanes(parts) == {"smtp:[192.0.2.1]:25": 1}
        parts.switch_plugin(f"{HERE}:Routes", enabled=False)
        await trio.sleep(1)
        assert lanes(parts) == {"mx:far.example": 1}
        await parts.reload()  # which enables it again
        await trio.sleep(1)
        assert lanes(parts) == {"smtp:[192.0.2.1]:25": 1}
        wanted.append(text + routes("192.0.2.2"))
        await parts.reload()
        await trio.sleep(1)
        assert lanes(parts) == {"smtp:[192.0.2.2]:25": 1}
        wanted.append(text)
        await parts.reload()
        await trio.sleep(1)
        assert lanes(parts) == {"mx:far.example": 1}


async def test_a_plugin_says_that_its_routes_have_changed(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with parts_of(tmp_path, more=routes("192.0.2.1")) as parts:
        await parts.queue.accept(envelope(str(BOB)), CONTENT)
        [loaded] = parts.house.plugins.plugins
        assert isinstance(loaded.plugin, Routes)
        loaded.plugin.settings = Settings(host="192.0.2.9")
        await trio.sleep(2 * PAUSE)
        assert lanes(parts) == {"smtp:[192.0.2.1]:25": 1}
        loaded.plugin.tools.routes_changed()
        await trio.sleep(1)
        assert lanes(parts) == {"smtp:[192.0.2.9]:25": 1}


async def test_it_can_be_explained_which_plugin_chose_a_route(tmp_path: Path) -> None:
    more = "relay: {networks: [192.0.2.0/24]}\n" + routes("198.51.100.1")
    asked = Hypothesis(recipient=BOB, client="192.0.2.7")
    async with parts_of(tmp_path, more=more) as parts:
        found = await parts.explain(asked)
        [route] = [each for each in found.steps if each.question == "route"]
        assert route.answer == "bob@far.example goes by SMTP to 198.51.100.1:25"
        assert route.details == (f"the plugin {HERE}:Routes says so",)
        assert found.summary == "It would be taken, and tried at once"


async def test_it_can_be_explained_which_plugin_fails_to_choose_a_route(tmp_path: Path) -> None:
    more = "relay: {networks: [192.0.2.0/24]}\n" + routes("")
    asked = Hypothesis(recipient=BOB, client="192.0.2.7")
    async with parts_of(tmp_path, more=more) as parts:
        found = await parts.explain(asked)
        [route] = [each for each in found.steps if each.question == "route"]
        assert route.answer == "bob@far.example waits: where it goes cannot be found out just now"
        assert route.details == (f"the plugin {HERE}:Routes fails to say where",)
        assert found.summary.startswith("It would be taken; then it would wait")
        assert parts.plugins()[0].failed > 0


async def test_a_plugin_hears_of_the_queue_while_it_is_enabled(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    more = f'plugins: [{{name: "{HERE}:Hears"}}]\n'
    async with parts_of(tmp_path, more=more) as parts:
        await trio.testing.wait_all_tasks_blocked()
        [loaded] = parts.house.plugins.plugins
        assert isinstance(loaded.plugin, Hears)
        heard = loaded.plugin.heard
        await parts.queue.accept(envelope(str(BOB)), CONTENT)
        await trio.sleep(1)
        assert [type(each).__name__ for each in heard] == ["Queued"]
        parts.switch_plugin(f"{HERE}:Hears", enabled=False)
        assert parts.queue.events.subscribers == 0
        await parts.queue.accept(envelope(str(BOB)), CONTENT)
        await trio.sleep(1)
        assert len(heard) == 1


async def test_a_reload_that_has_a_plugin_keep_mail_which_cannot_is_refused(
    tmp_path: Path,
) -> None:
    text = CONFIG.format(data=tmp_path)
    more = f'plugins: [{{name: "{HERE}:Hears"}}]\n'
    stores = f'domains: [{{name: a.example, deliver: "plugin:{HERE}:Hears"}}]\n'

    async with parts_of(tmp_path, reread=lambda: load(text + more + stores), more=more) as parts:
        with pytest.raises(ConfigError, match="keeps no mail"):
            await parts.reload()
        assert parts.config.domains == []
