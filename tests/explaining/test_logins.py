"""Who somebody would be who logs in, and as whom he may send, as `elemta explain` tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from elemta.login import ScramVerifier
from elemta.plugins import CONTINUE, Chain, Defer, Granted, Known, Loaded, Reject
from tests.explaining.scene import scene, step
from tests.plugins.saying import saying

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from elemta.plugins import Plugin, Verdict
    from tests.explaining.scene import Scene

VERIFIER = ScramVerifier(iterations=4096, salt=b"salt", stored_key=b"s" * 32, server_key=b"k" * 32)


def granting(login: str, *addresses: str) -> Plugin:
    return saying("people", on_verifier=lambda *_: Known(VERIFIER, Granted(login, addresses)))


def for_people(here: Scene, plugins: Sequence[Plugin] = (), **keys: object) -> None:
    """Have a listener for everybody, and one for people."""
    mx, lmtp = here.config.listeners
    people = replace(lmtp, kind="submission", auth="always", **keys)
    here.config = replace(here.config, listeners=[mx, people])
    here.house = replace(here.house, config=here.config)
    here.with_plugins(Chain([Loaded(each) for each in plugins]))


async def test_who_has_logged_in_may_send_as_who_that_is(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        for_people(here, [granting("alice@us.example", "@shop.example")])
        found = await here.explain("x@gone.example", login="alice", sender="alice@us.example")
        told = step(found, "login")
        assert told.answer == "alice is alice@us.example"
        assert told.details == (
            "may send as alice@us.example, @shop.example, and as what leads to these alone",
        )
        assert step(found, "listener").answer.startswith("lmtp (submission) takes")
        assert step(found, "sender").answer == "<alice@us.example> is taken"
        assert found.summary.startswith("It would be taken")
        for own in ("x@shop.example", None):
            found = await here.explain("x@gone.example", login="alice", sender=own)
            assert found.summary.startswith("It would be taken")


async def test_and_as_nobody_else(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        for_people(here, [granting("alice@us.example")])
        found = await here.explain("x@gone.example", login="alice", sender="bob@us.example")
        assert found.summary.startswith("It would be refused (sender): 553 5.7.1 ")
        told = step(found, "sender")
        assert told.answer == "<bob@us.example> is not an address of alice@us.example"
        assert told.details == ("may send as alice@us.example, and as what leads to these alone",)


async def test_where_all_must_log_in_nobody_else_is_heard(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        for_people(here, [granting("alice@us.example")])
        found = await here.explain(listener="lmtp", client="198.51.100.9")
        assert found.summary == ("It would be refused (login): 530 5.7.0 Authentication required")
        # Nobody who has not logged in is meant to come there.
        assert step(await here.explain(), "listener").answer.startswith("mx (smtp) takes")


@pytest.mark.parametrize(
    ("says", "answer"),
    [
        (CONTINUE, "alice is unknown to people, or has no verifier there"),
        (Defer((3, 0), "later"), "nobody can say just now who alice is"),
        (None, "no plugin says without a password who alice is, and what is granted"),
    ],
)
async def test_what_is_not_known_of_somebody_is_said(
    says: Verdict | None, answer: str, tmp_path: Path
) -> None:
    async with scene(tmp_path) as here:
        for_people(here, [] if says is None else [saying("people", on_verifier=says)])
        found = await here.explain("x@gone.example", login="alice", sender="alice@us.example")
        assert step(found, "login").answer == answer
        assert found.summary.startswith("It would be taken")


async def test_who_is_turned_away_is_refused(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        for_people(here, [saying("people", on_verifier=Reject((7, 8), "no"))])
        found = await here.explain(login="alice")
        assert found.summary.startswith("It would be refused (login): 535 5.7.8 ")


async def test_who_may_be_anybody_is_told_so(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        for_people(here, [granting("gateway", "*")])
        found = await here.explain(login="gateway", sender="x@far.example")
        assert step(found, "login").details == ("may send as anybody: * is granted",)


async def test_where_senders_may_be_any_or_nobody_can_log_in_that_is_told(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        found = await here.explain(login="alice")
        assert step(found, "login").details == (
            "nobody can log in at mx: its `auth` is off",
            "may send as anybody: `senders` is any",
        )
