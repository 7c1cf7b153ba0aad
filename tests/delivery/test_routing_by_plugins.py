from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from typing_extensions import override

from elemta.config import load
from elemta.delivery.routes import ByMx, LocalMaildir, ToHosts
from elemta.delivery.routing import Router
from elemta.plugins import Chain, Choosing, Loaded, Plugin, Undecided
from elemta.queue import Addressee, Filter, Reroute, State, Suspension
from tests.delivery.watching import ONE
from tests.delivery.world import CONFIG, World, on_virtual_time, to, world

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from elemta.queue import Destined

TWO = "198.51.100.2"
DEFERRED, DELIVERED, READY = State.DEFERRED, State.DELIVERED, State.READY

pytestmark = pytest.mark.trio(run=on_virtual_time)


class Table(Plugin):
    """Routes by domain, as a table of its own says.

    Attributes:
        ways: by domain; what is an exception is raised.
    """

    name = "table"

    def __init__(self, **ways: Sequence[str] | Exception) -> None:
        self.ways = {f"{name}.example": way for name, way in ways.items()}

    @override
    def on_route(self, recipient: Destined) -> Sequence[str] | None:
        way = self.ways.get(recipient.address.domain)
        if isinstance(way, Exception):
            raise way
        return way


def asking(*plugins: Plugin) -> Choosing:
    made = Choosing()
    made.chain = Chain([Loaded(each) for each in plugins])
    return made


@asynccontextmanager
async def routed(path: Path, plugin: Table) -> AsyncIterator[World]:
    async with world(path, choose=asking(plugin)) as made:
        made.domain("b.example", ("mx.b.example", ONE))
        yield made


def router(*plugins: Plugin) -> Router:
    made = Router(load(CONFIG))
    made.choose = asking(*plugins)
    return made


async def test_a_plugin_is_asked_before_the_configuration_and_after_an_operator() -> None:
    way = router(Table(b=["smtp://192.0.2.9:25"], us=["smtp://192.0.2.9:25"]))
    bob = to("bob@b.example")
    assert isinstance(way.route(bob, None), ToHosts)
    assert way.lane(bob, None) == "smtp:[192.0.2.9]:25"
    assert way.entry(bob, None) == "plugin:table"
    assert isinstance(way.route(to("bob@us.example"), None), ToHosts)
    assert way.entry(to("bob@us.example"), None) == "plugin:table"
    assert way.route(to("bob@c.example"), None) == ByMx("c.example")
    assert way.entry(to("bob@routed.example"), None) == "routes[0]"
    chosen = Addressee(address=bob.address, via=("maildir",))
    assert way.route(chosen, None) == LocalMaildir()
    assert way.entry(chosen, None) == ""


async def test_where_a_plugin_fails_mail_goes_nowhere() -> None:
    way = router(Table(b=ValueError("a bug")))
    bob = to("bob@b.example")
    assert way.route(bob, None) == Undecided("table")
    assert way.lane(bob, None) == "undecided:table"
    assert way.entry(bob, None) == "plugin:table"
    assert way.policy(bob, None) == way.policy(to("bob@c.example"), None)


async def test_mail_goes_where_a_plugin_says(tmp_path: Path) -> None:
    plugin = Table(b=[f"smtp://{TWO}:25"])
    async with routed(tmp_path, plugin) as here:
        usual, other = here.net.host(ONE), here.net.host(TWO)
        id_ = await here.send("bob@b.example")
        await trio.sleep(1)
        assert here.states(id_) == [DELIVERED]
        assert (len(usual.taken), len(other.taken)) == (0, 1)
        assert here.timeline(id_).attempts[0].destination == f"smtp:[{TWO}]:25"


async def test_mail_waits_while_a_plugin_cannot_say_where_it_goes(tmp_path: Path) -> None:
    plugin = Table(b=ValueError("a bug"))
    async with routed(tmp_path, plugin) as here:
        usual = here.net.host(ONE)
        id_ = await here.send("bob@b.example")
        await trio.sleep(60)
        assert here.states(id_) == [DEFERRED]
        [attempt] = here.timeline(id_).attempts
        assert attempt.destination == "undecided:table"
        assert (attempt.host, attempt.remote) == ("plugin:table", False)
        assert str(attempt.reply) == "451 4.4.4 where it goes cannot be found out just now"
        assert usual.taken == []
        plugin.ways.clear()
        await trio.sleep(600)
        assert here.states(id_) == [DELIVERED]
        assert len(usual.taken) == 1


async def test_a_route_is_decided_afresh_at_each_attempt(tmp_path: Path) -> None:
    plugin = Table(b=[f"smtp://{ONE}:25"])
    async with routed(tmp_path, plugin) as here:
        here.net.host(ONE, RCPT="451 4.2.0 later")
        other = here.net.host(TWO)
        id_ = await here.send("bob@b.example")
        await trio.sleep(1)
        assert here.states(id_) == [DEFERRED]
        plugin.ways["b.example"] = [f"smtp://{TWO}:25"]
        await trio.sleep(600)
        assert here.states(id_) == [DELIVERED]
        assert len(other.taken) == 1


async def test_what_stood_elsewhere_says_nothing_of_where_it_stood(tmp_path: Path) -> None:
    plugin = Table(b=[f"smtp://{ONE}:25"])
    async with routed(tmp_path, plugin) as here:
        stop = Suspension(scope=f"destination:smtp:[{ONE}]:25", who="root", reason="", since=0.0)
        await here.queue.suspend(stop)
        id_ = await here.send("bob@b.example")
        await trio.sleep(1)
        plugin.ways["b.example"] = [f"smtp://{TWO}:25"]  # where nobody is
        assert here.states(id_) == [READY]
        here.net.host(ONE)
        await here.queue.resume(stop.scope)
        await trio.sleep(1)
        assert here.states(id_) == [DEFERRED]
        [attempt] = here.timeline(id_).attempts
        assert attempt.destination == f"smtp:[{TWO}]:25"
        assert all(each.parked_until is None for each in here.queue.destinations())


async def test_what_waits_is_sorted_anew_when_a_plugin_says_so(tmp_path: Path) -> None:
    plugin = Table(b=[f"smtp://{ONE}:25"])
    async with routed(tmp_path, plugin) as here:
        other = here.net.host(TWO)
        ids = [await here.send("bob@b.example") for _ in range(50)]  # nobody is there: parked
        await trio.sleep(1)
        plugin.ways["b.example"] = [f"smtp://{TWO}:25"]
        here.queue.retune()
        await trio.sleep(400)
        assert [here.states(id_) for id_ in ids] == [[DELIVERED]] * 50
        assert len(other.taken) == 50


async def test_an_operator_overrules_a_plugin_that_fails(tmp_path: Path) -> None:
    async with routed(tmp_path, Table(b=ValueError("a bug"))) as here:
        other = here.net.host(TWO)
        id_ = await here.send("bob@b.example")
        await trio.sleep(1)
        await here.queue.act(Reroute((f"smtp://{TWO}:25",)), Filter(), who="operator:root")
        await trio.sleep(1)
        assert here.states(id_) == [DELIVERED]
        assert len(other.taken) == 1
