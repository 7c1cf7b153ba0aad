"""Whom an address leads to, as `elemta explain` tells it: maps, tags, the catch-all, SRS."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elemta.config import load
from elemta.delivery.routing import Router
from elemta.listener.reception import House
from elemta.net.reaper import Reaper
from tests.explaining.scene import CONFIG, Scene, scene, step
from tests.maps.sources import at_once
from tests.queue.mail import now

if TYPE_CHECKING:
    from pathlib import Path


def reconfigure(here: Scene, folder: Path) -> None:
    """Have a domain of a real site."""
    (folder / "aliases").write_text("sales: bob+sales\nbroken\n")
    (folder / "good").write_text("sales: bob+sales\n")
    (secret := folder / "srs.secret").write_text("0123456789abcdef\n")
    secret.chmod(0o600)
    text = CONFIG.replace(
        "domains:\n",
        "forwarding: {srs: us.example, secret_file: srs.secret}\n"
        "maps: {aliases: {file: good}, down: {file: aliases}}\n"
        "domains:\n"
        "  - {name: site.example, mailboxes: [bob], delimiter: '+', alias_map: aliases,\n"
        "     catch_all: [bob]}\n"
        "  - {name: down.example, alias_map: down}\n",
    )
    config = load(text, base=folder)
    here.config = config
    here.house = House.of(config, queue=here.queue, reaper=Reaper(), clock=now, in_thread=at_once)
    here.delivery.configure(config, Router(config), None, here.house.srs)


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
