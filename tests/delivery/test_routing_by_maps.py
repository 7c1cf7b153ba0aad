"""Routes that maps have: whom they are asked for, what they may say, and what is done meanwhile."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from elemta.config import ConfigError, HostPort, TlsPolicy, load
from elemta.delivery.routes import (
    ByMx,
    LocalMaildir,
    Nowhere,
    Route,
    Terms,
    ToHosts,
    ToProgram,
    Unsaid,
)
from elemta.delivery.routing import Answer, Router
from elemta.protocol import parse_mailbox
from elemta.queue import Addressee, State
from tests.delivery.watching import ONE
from tests.delivery.world import World, on_virtual_time, to, world
from tests.maps.sources import Written

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

TWO = "198.51.100.2"
DEFERRED, DELIVERED = State.DEFERRED, State.DELIVERED

CONFIG = """
hostname: mx.us.example
listeners: [{name: mx, address: "203.0.113.25:25"}]
maps:
  backends: {file: backends}
  transport: {file: transport}
  shop: {file: shop}
domains:
  - {name: us.example, mailboxes: ["*"], delimiter: "+", deliver_map: backends}
routes:
  - {name: office, via: ["smtp://192.0.2.1:2525"], tls: "off"}
  - {name: outside, hello_name: out.us.example}
  - {name: tickets, via: ["pipe:/bin/ticket {recipient}"]}
  - {match: "*", map: shop, senders: ["@shop.example"]}
  - {match: "*", map: transport, source: ["192.0.2.9"]}
  - {match: "*.net", via: ["smtp://net.internal"]}
"""

SOURCE = Terms(source=("192.0.2.9",))
OFF: TlsPolicy = "off"

pytestmark = pytest.mark.trio(run=on_virtual_time)


def tables(**transport: tuple[str, ...]) -> Written:
    return Written(transport=transport, backends={}, shop={})


def router(maps: Written | None) -> Router:
    return Router(load(CONFIG), maps=maps)


async def asked(maps: Written, address: str, sender: str = "ann@far.example") -> Route:
    return (await router(maps).ask(to(address), parse_mailbox(sender))).route


async def test_the_address_comes_first_then_its_domain_then_those_above_it() -> None:
    maps = tables()
    assert await asked(maps, "Bob@A.B.example") == ByMx("a.b.example")
    assert maps.asked == [
        *("transport: bob@a.b.example", "transport: a.b.example"),
        *("transport: .b.example", "transport: .example"),
    ]
    hosts = ("smtp://10.0.0.1",)
    route = ToHosts((HostPort("10.0.0.1", 25),), terms=SOURCE)
    for key in ("bob@a.b.example", "a.b.example", ".b.example", ".example"):
        assert await asked(tables(**{key: hosts, ".example": hosts}), "Bob@A.B.example") == route
        assert await asked(tables(**{key: ("discard",), ".org": hosts}), "Bob@A.B.example") == (
            Nowhere()
        )
    # What lies below a domain is not the domain.
    assert await asked(tables(**{".b.example": hosts}), "bob@b.example") == ByMx("b.example")


async def test_nobodys_name_costs_more_than_a_dozen_questions() -> None:
    maps = tables()
    await asked(maps, f"bob@{'a.' * 100}example")
    assert len(maps.asked) == 12
    assert maps.asked[-1] == "transport: .example"


async def test_an_address_without_a_domain_that_dns_knows_is_asked_for_too() -> None:
    maps = tables()
    assert await asked(maps, "bob@[192.0.2.7]") == ByMx("[192.0.2.7]")
    assert maps.asked == ["transport: bob@[192.0.2.7]", "transport: [192.0.2.7]"]


@pytest.mark.parametrize(
    ("values", "route"),
    [
        (("mx",), ByMx("a.example", SOURCE)),
        (("MX",), ByMx("a.example", SOURCE)),
        (("maildir",), LocalMaildir()),
        (("discard",), Nowhere()),
        (
            ("smtps://b.internal", "smtp://c.internal:26"),
            ToHosts(
                (HostPort("b.internal", 465), HostPort("c.internal", 26)),
                terms=SOURCE,
                implicit=frozenset({HostPort("b.internal", 465)}),
            ),
        ),
        (("lmtp:///run/lmtp",), ToHosts((HostPort("/run/lmtp", 0),), lmtp=True, terms=SOURCE)),
        # A route with a name has terms of its own.
        (("office",), ToHosts((HostPort("192.0.2.1", 2525),), terms=Terms(tls=OFF))),
        (("outside",), ByMx("a.example", Terms(hello_name="out.us.example"))),
    ],
)
async def test_a_map_says_what_a_route_says_or_names_one(
    values: tuple[str, ...], route: Route
) -> None:
    assert await asked(tables(**{"a.example": values}), "bob@a.example") == route


async def test_a_program_is_for_the_configuration_alone_to_choose() -> None:
    assert isinstance(await asked(tables(**{"a.example": ("tickets",)}), "b@a.example"), ToProgram)


@pytest.mark.parametrize(
    "values",
    [
        (),
        ("gone",),
        ("pipe:/bin/sh",),
        ("plugin:store",),
        ("smtp://",),
        ("smtp://a.example", "lmtp://b.example"),
        ("office", "smtp://a.example"),
    ],
)
async def test_what_is_not_understood_keeps_mail_waiting(
    values: tuple[str, ...],
) -> None:
    told: list[str] = []
    way = router(tables(**{"a.example": values}))
    answer = await way.ask(to("bob@a.example"), None, told.append)
    assert answer == Answer(Unsaid("transport"), "routes[4]")
    assert told[-1].startswith("which is not understood: ")
    assert way.lane(to("bob@a.example"), None) == "undecided:maps.transport"


async def test_what_a_map_does_not_have_is_for_the_next_route() -> None:
    maps = tables()
    net = ToHosts((HostPort("net.internal", 25),))
    assert await asked(maps, "bob@a.net") == net
    maps.maps["shop"] = {".net": ("office",)}
    assert await asked(maps, "bob@a.net") == net
    assert await asked(maps, "bob@a.net", "eve@shop.example") == ToHosts(
        (HostPort("192.0.2.1", 2525),), terms=Terms(tls=OFF)
    )


async def test_mailboxes_of_ours_may_lie_on_several_machines() -> None:
    maps = tables()
    maps.maps["backends"] = {
        "bob@us.example": ("lmtp://b1.internal",),
        "eve+own@us.example": ("lmtp://b2.internal",),
        "x@us.example": ("mx",),
    }
    first = ToHosts((HostPort("b1.internal", 24),), lmtp=True)
    assert await asked(maps, "Bob@us.example") == first
    assert await asked(maps, "bob+tag@us.example") == first
    assert await asked(maps, "eve+own@us.example") == ToHosts(
        (HostPort("b2.internal", 24),), lmtp=True
    )
    assert await asked(maps, "eve@us.example") == LocalMaildir()
    # Our own MX leads back to us.
    assert await asked(maps, "x@us.example") == Unsaid("backends")
    way = router(maps)
    assert await way.ask(to("eve@us.example"), None) == Answer(LocalMaildir(), "domains[0]")


async def test_a_lane_is_known_once_the_map_was_asked() -> None:
    maps = tables(**{"a.example": ("office",)})
    way, bob = router(maps), to("bob@a.example")
    assert way.asks
    assert way.lane(bob, None) == "undecided:maps.transport"
    assert way.route(bob, None) == Unsaid("transport")
    assert way.entry(bob, None) == "routes[4]"
    await way.ask(bob, None)
    assert way.lane(bob, None) == "smtp:[192.0.2.1]:2525;tls=off"
    assert way.entry(bob, None) == "routes[4]"
    await way.ask(to("bob@b.net"), None)
    assert way.entry(to("bob@b.net"), None) == "routes[5]"
    assert way.lane(to("bob@b.net"), None) == "smtp:net.internal:25"
    assert way.policy(bob, None) == way.policy(to("bob@b.net"), None)


async def test_a_router_without_maps_knows_no_way() -> None:
    way, bob = router(None), to("bob@a.example")
    assert way.lane(bob, None) == "undecided:maps.transport"
    assert await way.ask(bob, None) == Answer(Unsaid("transport"), "routes[4]")


async def test_what_somebody_chose_asks_no_map() -> None:
    maps = tables()
    way = router(maps)
    chosen = Addressee(address=to("bob@a.example").address, via=("smtp://192.0.2.5",))
    # On the terms of the first route that is for it.
    there = ToHosts((HostPort("192.0.2.5", 25),), terms=SOURCE)
    assert await way.ask(chosen, None) == Answer(there, "routes[4]")
    assert way.route(chosen, None) == there
    assert maps.asked == []


async def test_without_maps_of_routes_nothing_is_to_be_asked() -> None:
    text = 'hostname: mx.us.example\nlisteners: [{name: mx, address: ":25"}]\n'
    assert not Router(load(text)).asks


@pytest.mark.parametrize(
    ("line", "place", "problem"),
    [
        ('{match: "*", map: gone}', "routes[6].map", "there is no such map: 'gone'"),
        (
            '{match: "x.example", map: shop, via: ["smtp://a.example"]}',
            "routes[6].map",
            "expected no `via` beside it: the map says where to",
        ),
        (
            '{match: "x.example", map: shop, name: x}',
            "routes[6].map",
            "expected no `name` beside it: no map leads to another",
        ),
        ("{name: mx}", "routes[6].name", "mx means something else in a map"),
        ("{name: office}", "routes[6].name", "'office' is taken by routes[0] already"),
        (
            '{via: ["smtp://a.example"]}',
            "routes[6]",
            "the key `match` is missing; or `name`, for maps to lead here",
        ),
        ('{match: "*", map: transport}', "routes[6].match", "is taken by routes[4] already"),
    ],
)
async def test_a_mistake_is_told_with_its_place(line: str, place: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(f"{CONFIG}  - {line}\n")
    [mistake] = caught.value.mistakes
    assert mistake.place == place
    assert problem in mistake.problem


# Mail that goes by them.


@asynccontextmanager
async def routed(path: Path, maps: Written) -> AsyncIterator[World]:
    async with world(path, config=load(CONFIG), maps=maps) as made:
        made.domain("b.example", ("mx.b.example", ONE))
        yield made


async def test_mail_goes_where_a_map_says_by_the_lane_of_that_place(tmp_path: Path) -> None:
    maps = tables(**{"b.example": (f"smtp://{TWO}:25",)})
    async with routed(tmp_path, maps) as here:
        usual, other = here.net.host(ONE), here.net.host(TWO)
        first = await here.send("bob@b.example")
        await trio.sleep(1)
        second = await here.send("bob@b.example", "carol@b.example")
        await trio.sleep(1)
        for id_ in (first, second):
            assert set(here.states(id_)) == {DELIVERED}
            assert here.timeline(id_).attempts[0].destination == (
                f"smtp:[{TWO}]:25;source=192.0.2.9"
            )
        # Bob's way was known already, and carol's was asked for first.
        assert (len(usual.taken), len(other.taken)) == (0, 3)
        assert {each.name for each in here.queue.destinations()} >= {
            f"smtp:[{TWO}]:25;source=192.0.2.9"
        }


async def test_mail_waits_while_a_map_is_down_and_goes_when_it_is_up(tmp_path: Path) -> None:
    maps = tables()
    maps.down = "transport"
    async with routed(tmp_path, maps) as here:
        usual = here.net.host(ONE)
        id_ = await here.send("bob@b.example")
        await trio.sleep(60)
        assert here.states(id_) == [DEFERRED]
        [attempt] = here.timeline(id_).attempts
        assert attempt.destination == "undecided:maps.transport"
        assert (attempt.host, attempt.remote) == ("", False)
        assert str(attempt.reply) == "451 4.4.4 where it goes cannot be found out just now"
        assert usual.taken == []
        maps.down = ""
        await trio.sleep(600)
        assert here.states(id_) == [DELIVERED]


async def test_a_map_that_remembers_nothing_is_asked_and_mail_goes(tmp_path: Path) -> None:
    maps = tables()
    maps.remembers = False
    async with routed(tmp_path, maps) as here:
        usual = here.net.host(ONE)
        id_ = await here.send("bob@b.example")
        await trio.sleep(1)
        assert here.states(id_) == [DELIVERED]
        assert len(usual.taken) == 1
        assert here.timeline(id_).attempts[0].destination == "mx:b.example"


async def test_a_route_of_a_map_is_looked_up_afresh_at_each_attempt(tmp_path: Path) -> None:
    maps = tables()
    async with routed(tmp_path, maps) as here:
        here.net.host(ONE, RCPT="451 4.2.0 later")
        other = here.net.host(TWO)
        id_ = await here.send("bob@b.example")
        await trio.sleep(1)
        assert here.states(id_) == [DEFERRED]
        maps.maps["transport"] = {"bob@b.example": (f"smtp://{TWO}:25",)}
        await trio.sleep(600)
        assert here.states(id_) == [DELIVERED]
        assert len(other.taken) == 1


async def test_of_two_recipients_each_goes_where_its_map_says(tmp_path: Path) -> None:
    maps = tables(**{"eve@b.example": (f"smtp://{TWO}:25",)})
    async with routed(tmp_path, maps) as here:
        usual, other = here.net.host(ONE), here.net.host(TWO)
        id_ = await here.send("bob@b.example", "eve@b.example")
        await trio.sleep(1)
        assert here.states(id_) == [DELIVERED, DELIVERED]
        assert (len(usual.taken), len(other.taken)) == (1, 1)


async def test_a_mailbox_of_ours_is_on_the_machine_that_its_map_names(tmp_path: Path) -> None:
    maps = tables()
    maps.maps["backends"] = {"bob@us.example": (f"smtp://{TWO}:25",)}
    async with routed(tmp_path, maps) as here:
        other = here.net.host(TWO)
        id_ = await here.send("bob+tag@us.example")
        await trio.sleep(1)
        assert here.states(id_) == [DELIVERED]
        assert len(other.taken) == 1
