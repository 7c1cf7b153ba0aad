"""Whom an address leads to, as `elemta explain` tells it: maps, tags, the catch-all, SRS."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from typing_extensions import override

from elemta.config import load
from elemta.delivery.routing import Router
from elemta.listener.reception import House
from elemta.net.reaper import Reaper
from elemta.testing import at_once
from tests.explaining.scene import CONFIG, Scene, scene, step
from tests.maps.sources import Written
from tests.queue.mail import now

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock


def reconfigure(here: Scene, folder: Path) -> None:
    """Have a domain of a real site."""
    (folder / "aliases").write_text("sales: bob+sales\nbroken\n")
    (folder / "good").write_text("sales: bob+sales\n")
    (secret := folder / "srs.secret").write_text("0123456789abcdef\n")
    secret.chmod(0o600)
    text = CONFIG.replace(
        "domains:\n",
        "forwarding: {srs: us.example, secret_file: srs.secret}\n"
        "maps: {aliases: {file: good}, down: {file: aliases}, transport: {file: transport}}\n"
        "domains:\n"
        "  - {name: site.example, mailboxes: [bob], delimiter: '+', alias_map: aliases,\n"
        "     catch_all: [bob]}\n"
        "  - {name: down.example, alias_map: down}\n",
    )
    text = text.replace("  domains: [", "  domain_map: transport\n  domains: [")
    text = text.replace("routes:\n", "routes:\n  - {match: '*.mapped.example', map: transport}\n")
    text = text.replace("routes:\n", "routes:\n  - {match: '*.unsure.example', map: down}\n")
    (folder / "transport").write_text(".mapped.example smtp://192.0.2.5\nx.mapped.example hush\n")
    config = load(text, base=folder)
    here.config = config
    here.house = House.of(config, queue=here.queue, reaper=Reaper(), clock=now, in_thread=at_once)
    router = Router(config, maps=here.house.maps)
    here.delivery.configure(config, router, None, here.house.srs)
    here.queue.retune(lane=router.lane)


async def test_each_step_from_the_address_to_the_mailbox(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        reconfigure(here, tmp_path)
        recipient = step(await here.explain("sales@site.example"), "recipient")
        assert recipient.answer == "sales@site.example leads to 1 address"
        assert recipient.details == (
            "bob@site.example",
            "the map aliases is asked for sales@site.example: bob+sales",
            "sales@site.example is an alias of aliases: bob+sales@site.example",
            "the map aliases is asked for bob+sales@site.example: is not there",
            "the map aliases is asked for bob@site.example: is not there",
            "bob+sales@site.example is a sub-address of bob@site.example",
        )
        caught = step(await here.explain("anybody@site.example"), "recipient")
        assert "anybody@site.example is caught by catch_all: bob@site.example" in caught.details


async def test_a_map_that_is_down(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        reconfigure(here, tmp_path)
        found = await here.explain("x@down.example")
        assert found.summary.startswith("It would be refused (recipient): 451 4.4.3 who that is")
        (why,) = step(found, "recipient").details
        assert why.startswith("the map down is down: ")
        assert why.endswith("line 2: expected a key and its values, not 'broken'")


async def test_in_whose_name_a_forward_goes(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        reconfigure(here, tmp_path)
        here.zone.mx_records["far.example"] = []
        found = await here.explain("team@us.example")
        named = [each.answer for each in found.steps if each.question == "sender"]
        assert named[0] == "<ann@far.example> is taken"
        (forward,) = named[1:]
        assert forward.startswith("to carol@far.example it goes in the name of <SRS0=")
        assert forward.endswith("=far.example=ann@us.example> (SRS)")
        address = forward.partition("<")[2].partition(">")[0]
        back = step(await here.explain(address, sender=None), "recipient")
        assert f"{address} stands for the sender ann@far.example (SRS)" in back.details


async def test_which_map_and_key_of_it_say_where_mail_goes(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        reconfigure(here, tmp_path)
        found = await here.explain("bob@a.mapped.example")
        route = step(found, "route")
        assert route.answer == "bob@a.mapped.example goes by SMTP to 192.0.2.5:25"
        assert route.details == (
            "routes[1] matches: *.mapped.example, as the map transport has it",
            "the map transport is asked for bob@a.mapped.example: is not there",
            "the map transport is asked for a.mapped.example: is not there",
            "the map transport is asked for .mapped.example: smtp://192.0.2.5",
        )
        assert step(found, "lane").answer == "smtp:[192.0.2.5]:25 is open; nothing waits there"
        permission = step(found, "relay permission")
        assert permission.answer == "a.mapped.example is not ours, and relay.domain_map has it"
        assert permission.details[-1] == (
            "the map transport of relay.domain_map is asked for .mapped.example: is there"
        )


async def test_where_a_map_cannot_say_where_mail_goes_it_waits(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        reconfigure(here, tmp_path)
        unread = step(await here.explain("bob@x.mapped.example"), "route")
        assert unread.good is None
        assert unread.answer == (
            "bob@x.mapped.example waits: where it goes cannot be found out just now"
        )
        assert unread.details[-1].startswith("which is not understood: expected maildir, smtp://")
        down = step(await here.explain("bob@x.unsure.example", login="ann"), "route")
        assert "the map down is down: " in down.details[-1]
        assert "line 2" in down.details[-1]


async def test_a_map_of_relayed_domains_that_is_down(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        reconfigure(here, tmp_path)
        (tmp_path / "transport").write_text("broken\n")
        permission = step(await here.explain("bob@a.mapped.example"), "relay permission")
        assert permission.answer == (
            "a.mapped.example is not ours, and nobody can say who may send there"
        )
        assert permission.reply.startswith("451 4.4.3 ")
        assert permission.good is False


async def test_a_map_that_does_not_answer_holds_no_explanation_up(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with scene(tmp_path) as here:
        reconfigure(here, tmp_path)

        class Silent(Written):
            @override
            async def get(
                self, name: str, key: str, *, exact: bool = False
            ) -> tuple[str, ...] | None:
                await trio.sleep_forever()
                raise AssertionError

        here.delivery.configure(here.config, Router(here.config, maps=Silent()))
        route = step(await here.explain("bob@a.mapped.example", login="ann"), "route")
        assert route.details[-1] == "no answer within 30 s"
