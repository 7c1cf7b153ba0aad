"""Recipients of whom the configuration knows only which map knows them."""

from __future__ import annotations

import msgspec
import pytest
import trio
import trio.testing
from typing_extensions import override

from elemta.config import Domain, load
from elemta.listener.expansion import (
    ALIAS_BROKEN,
    ALIAS_LOOP,
    ALIAS_TOO_LARGE,
    MAX_EXPANSION,
    NO_SUCH_MAILBOX,
)
from elemta.listener.recipients import MAP_DOWN, RELAY_DENIED, Recipients
from elemta.maps import MapDownError
from elemta.message import Srs
from elemta.protocol import Mailbox, Reply, parse_mailbox
from elemta.queue import Addressee
from tests.dialogue import CONFIG, STRANGER
from tests.maps.sources import Written


def ours(maps: Written, **keys: object) -> Recipients:
    domain = Domain(name="a.example", mailbox_map="users", alias_map="aliases")
    domain = msgspec.structs.replace(domain, **keys)
    config = msgspec.structs.replace(load(CONFIG), domains=[domain, Domain(name="b.example")])
    return Recipients(config, maps)


async def find(who: Recipients, address: str) -> list[str] | Reply:
    found = await who.find(parse_mailbox(address), client=STRANGER)
    return found if isinstance(found, Reply) else [str(each.address) for each in found]


async def test_a_map_has_more_mailboxes_and_aliases() -> None:
    maps = Written(
        users={"bob@a.example": ("1",), "eve@a.example": ()},
        aliases={"sales@a.example": ("Bob", "eve@a.example", "x@far.example")},
    )
    who = ours(maps)
    assert await find(who, "Bob@a.example") == ["Bob@a.example"]
    assert maps.asked == ["aliases: bob@a.example", "users: bob@a.example"]
    assert await find(who, "SALES@a.example") == [
        *("Bob@a.example", "eve@a.example", "x@far.example"),
    ]
    assert await find(who, "gone@a.example") is NO_SUCH_MAILBOX


async def test_what_stands_in_the_configuration_comes_before_maps() -> None:
    maps = Written(users={}, aliases={"bob@a.example": ("carol",)})
    who = ours(maps, mailboxes=["carol"], aliases={"bob": ["carol"]})
    assert await find(who, "bob@a.example") == ["carol@a.example"]
    assert maps.asked == ["aliases: carol@a.example"]
    assert await find(ours(maps, alias_map=None, mailboxes=["bob"]), "bob@a.example") == [
        "bob@a.example"
    ]
    assert len(maps.asked) == 1


async def test_no_map_is_asked_of_what_is_not_ours_or_has_none() -> None:
    maps = Written()
    who = ours(maps)
    assert await find(who, "bob@far.example") is RELAY_DENIED
    assert await find(who, "bob@b.example") is NO_SUCH_MAILBOX
    assert maps.asked == []


async def test_a_tag_is_looked_up_in_full_first() -> None:
    maps = Written(users={"bob@a.example": ("1",), "bob+own@a.example": ("2",)}, aliases={})
    who = ours(maps, delimiter="+")
    assert await find(who, "bob+own@a.example") == ["bob+own@a.example"]
    maps.asked.clear()
    assert await find(who, "bob+x@a.example") == ["bob@a.example"]
    assert maps.asked == [
        *("aliases: bob+x@a.example", "users: bob+x@a.example"),
        *("aliases: bob@a.example", "users: bob@a.example"),
    ]


async def test_a_map_may_catch_all_and_comes_before_the_list() -> None:
    maps = Written(users={"bob@a.example": ("1",)}, aliases={"@a.example": ("bob",)})
    assert await find(ours(maps, catch_all=["x@far.example"]), "y@a.example") == ["bob@a.example"]
    maps.maps["aliases"] = {}
    assert await find(ours(maps, catch_all=["x@far.example"]), "y@a.example") == ["x@far.example"]


@pytest.mark.parametrize("down", ["users", "aliases"])
async def test_a_map_that_is_down_defers_and_nothing_of_an_expansion_is_kept(down: str) -> None:
    maps = Written(users={}, aliases={"sales@a.example": ("x@far.example", "bob")})
    maps.down = down
    who = ours(maps)
    assert await find(who, "sales@a.example") is MAP_DOWN
    with pytest.raises(MapDownError):
        await who.owner_of(parse_mailbox("sales@a.example"))


async def test_many_slow_look_ups_are_given_up(autojump_clock: trio.testing.MockClock) -> None:
    class Slow(Written):
        @override
        async def get(self, name: str, key: str, *, exact: bool = False) -> tuple[str, ...] | None:
            await trio.sleep(4)
            return await super().get(name, key, exact=exact)

    many = tuple(f"x{number}" for number in range(500))
    who = ours(
        Slow(users={f"{each}@a.example": () for each in many}, aliases={"all@a.example": many})
    )
    began = trio.current_time()
    way: list[str] = []
    found = await who.find(parse_mailbox("all@a.example"), client=STRANGER, tell=way.append)
    assert found is MAP_DOWN
    assert way[-1] == "maps take more than 60 s for this one address"
    assert trio.current_time() - began == pytest.approx(60)


async def test_aliases_of_maps_have_the_same_bounds() -> None:
    many = tuple(f"x{number}@far.example" for number in range(MAX_EXPANSION + 1))
    chain = {f"c{number}@a.example": (f"c{number + 1}",) for number in range(101)}
    maps = Written(
        users={"self@a.example": ()},
        aliases={
            "many@a.example": many,
            "loop@a.example": ("pool",),
            "pool@a.example": ("loop@a.example",),
            "self@a.example": ("self", "x@far.example"),
            "broken@a.example": ("gone",),
            "wrong@a.example": ("a@b@c",),
            **chain,
        },
    )
    who = ours(maps)
    assert await find(who, "many@a.example") is ALIAS_TOO_LARGE
    assert await find(who, "c0@a.example") is ALIAS_TOO_LARGE
    assert await find(who, "loop@a.example") is ALIAS_LOOP
    assert await find(who, "broken@a.example") is ALIAS_BROKEN
    assert await find(who, "wrong@a.example") is ALIAS_BROKEN
    assert await find(who, "self@a.example") == ["self@a.example", "x@far.example"]


async def test_what_leads_to_too_many_is_not_followed_to_its_end() -> None:
    lists = [f"list{number}@a.example" for number in range(100)]
    aliases = {
        name: tuple(f"x{number}@{name.partition('@')[0]}.example" for number in range(600))
        for name in lists
    }
    maps = Written(users={}, aliases={"all@a.example": tuple(lists), **aliases})
    assert await find(ours(maps), "all@a.example") is ALIAS_TOO_LARGE
    assert maps.asked == [f"aliases: {name}" for name in ("all@a.example", *lists[:2])]


async def test_keys_are_quoted_where_that_is_needed_and_have_a_labels() -> None:
    maps = Written(users={'"a b"@xn--mnchen-3ya.example': ()}, aliases={})
    who = ours(maps, name="münchen.example")
    assert await find(who, '"A b"@münchen.example') == ['"A b"@münchen.example']


async def test_each_step_is_told() -> None:
    maps = Written(users={"bob@a.example": ("1",)}, aliases={"sales@a.example": ("bob+s",)})
    way: list[str] = []
    await ours(maps, delimiter="+").find(
        parse_mailbox("sales@a.example"), client=STRANGER, tell=way.append
    )
    assert way == [
        "the map aliases is asked for sales@a.example: bob+s",
        "sales@a.example is an alias of aliases: bob+s@a.example",
        "the map aliases is asked for bob+s@a.example: is not there",
        "the map users is asked for bob+s@a.example: is not there",
        "the map aliases is asked for bob@a.example: is not there",
        "the map users is asked for bob@a.example: 1",
        "bob+s@a.example is a sub-address of bob@a.example",
    ]
    maps.down, way = "users", []
    told = await ours(maps).find(parse_mailbox("bob@a.example"), client=STRANGER, tell=way.append)
    assert told is MAP_DOWN
    assert way[-1] == "the map users is down: refused"


async def test_an_owner_may_be_known_to_a_map_alone() -> None:
    maps = Written(users={"bob@a.example": ("1",)}, aliases={"sales@a.example": ("bob",)})
    assert await ours(maps).owner_of(parse_mailbox("Sales@a.example")) == Mailbox(
        "bob", "a.example"
    )


SRS = Srs("a.example", [b"0123456789abcdef"])
NOW = 1_800_000_000.0
ANN = Mailbox("ann", "far.example")


def returning(maps: Written | None = None) -> Recipients:
    config = msgspec.structs.replace(
        load(CONFIG), domains=[Domain(name="a.example", delimiter="="), Domain(name="b.example")]
    )
    return Recipients(config, maps, SRS, lambda: NOW)


async def test_a_rewritten_sender_gets_what_comes_for_him_and_nobody_else_does() -> None:
    ours = SRS.rewritten(ANN, NOW)
    assert ours is not None
    found = await returning().find(ours, client=STRANGER)
    assert found == (Addressee(address=ANN, original=ours),)
    forged = Mailbox(ours.local_part.replace("ann", "eve"), ours.domain)
    assert await find(returning(), str(forged)) is NO_SUCH_MAILBOX
    assert await find(returning(), str(SRS.rewritten(ANN, NOW - 30 * 86400))) is NO_SUCH_MAILBOX
    elsewhere = Mailbox(ours.local_part, "b.example")
    assert await find(returning(), str(elsewhere)) is NO_SUCH_MAILBOX
    way: list[str] = []
    await returning().find(ours, client=STRANGER, tell=way.append)
    assert way == [f"{ours} stands for the sender ann@far.example (SRS)"]


async def test_what_comes_back_by_way_of_us_twice_finds_the_sender() -> None:
    first = SRS.rewritten(ANN, NOW)
    assert first is not None
    other = Srs("other.example", [b"another secret"]).rewritten(first, NOW)
    assert other is not None
    twice = SRS.rewritten(other, NOW)
    assert twice is not None
    assert await find(returning(), str(twice)) == ["ann@far.example"]


async def test_a_sender_who_has_become_ours_is_found_as_others_of_ours_are() -> None:
    ours = SRS.rewritten(Mailbox("postmaster", "b.example"), NOW)
    assert ours is not None
    assert await find(returning(), str(ours)) == ["postmaster@b.example"]


def relaying(maps: Written) -> Recipients:
    config = load(CONFIG)
    relay = msgspec.structs.replace(config.relay, domain_map="relayed")
    return Recipients(msgspec.structs.replace(config, relay=relay), maps)


async def test_a_map_may_say_to_which_domains_anybody_may_send() -> None:
    maps = Written(
        relayed={"far.example": ("1",), ".wide.example": (), "xn--mnchen-3ya.example": ()}
    )
    who = relaying(maps)
    assert await find(who, "x@far.example") == ["x@far.example"]
    assert await find(who, "x@a.b.wide.example") == ["x@a.b.wide.example"]
    assert await find(who, "x@münchen.example") == ["x@münchen.example"]
    maps.asked.clear()
    assert await find(who, "x@a.far.example") is RELAY_DENIED
    assert maps.asked == ["relayed: a.far.example", "relayed: .far.example", "relayed: .example"]
    assert await find(who, "x@wide.example") is RELAY_DENIED


async def test_nobody_relays_by_a_map_that_is_down_and_nobody_is_refused_by_it() -> None:
    maps = Written(relayed={"far.example": ("1",)})
    maps.down = "relayed"
    assert await find(relaying(maps), "x@far.example") is MAP_DOWN


@pytest.mark.parametrize("local_part", ["a%b.example", "b.example!a", '"a@b.example"'])
async def test_what_may_be_a_route_to_others_is_relayed_by_no_map(local_part: str) -> None:
    maps = Written(relayed={"far.example": ("1",)})
    assert await find(relaying(maps), f"{local_part}@far.example") is RELAY_DENIED
    assert maps.asked == []


async def test_who_may_relay_anyhow_waits_for_no_map() -> None:
    maps = Written(relayed={})
    found = relaying(maps).decide(parse_mailbox("x@far.example"), client=STRANGER, login="ann")
    assert found == (Addressee(address=parse_mailbox("x@far.example")),)


async def test_a_map_of_domains_takes_no_more_than_a_minute(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Slow(Written):
        @override
        async def get(self, name: str, key: str, *, exact: bool = False) -> tuple[str, ...] | None:
            await trio.sleep(30)
            return await super().get(name, key, exact=exact)

    began, way = trio.current_time(), list[str]()
    who = relaying(Slow(relayed={}))
    found = await who.find(parse_mailbox("x@a.b.c.example"), client=STRANGER, tell=way.append)
    assert found is MAP_DOWN
    assert trio.current_time() - began == pytest.approx(60)
    assert way == [
        "the map relayed of relay.domain_map is asked for a.b.c.example: is not there",
        "the map relayed takes more than 60 s",
    ]
