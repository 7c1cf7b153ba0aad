from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from typing_extensions import override

from elemta.config import load
from elemta.plugins import (
    CONTINUE,
    Accept,
    Chain,
    Defer,
    Discard,
    Letter,
    Plugin,
    Quarantine,
    Reject,
    Verdict,
    failure_modes,
)
from elemta.protocol import Notify, RcptParams
from elemta.queue import State
from tests.delivery.watching import ONE, chain
from tests.delivery.world import BODY, CONFIG, World, on_virtual_time, to, world

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

DEFERRED, DELIVERED, FAILED = State.DEFERRED, State.DELIVERED, State.FAILED

pytestmark = pytest.mark.trio(run=on_virtual_time)


class Keeps(Plugin):
    """A mailbox back end."""

    name = "keeps"

    def __init__(self, **says: Verdict) -> None:
        self.says = says
        self.kept: list[tuple[str, bytes]] = []

    @override
    async def on_store(self, letter: Letter) -> Verdict:
        local = letter.recipient.address.local_part
        found = self.says.get(local, Accept("kept as 17"))
        if isinstance(found, Accept):
            content = b"".join([each async for each in letter.body.chunks()])
            self.kept.append((local, letter.head + content))
        return found


STORED = CONFIG.replace(
    'mailboxes: ["*"]}', 'mailboxes: ["*"], deliver: "plugin:keeps"}\nplugins: [{name: keeps}]'
)


@asynccontextmanager
async def stored(path: Path, chains: list[Chain]) -> AsyncIterator[World]:
    async with world(path, config=load(STORED), plugins=lambda: chains[-1]) as made:
        yield made


async def test_a_plugin_keeps_mail(tmp_path: Path) -> None:
    plugin = Keeps(full=Defer((2, 2), "over quota"), never=Reject((2, 1), "closed"))
    async with stored(tmp_path, [chain(plugin)]) as here:
        id_ = await here.send("bob@us.example", "full@us.example", "never@us.example")
        await trio.sleep(1)
        assert here.states(id_) == [DELIVERED, DEFERRED, FAILED]
        head = b"Return-Path: <ann@sender.example>\r\nDelivered-To: bob@us.example\r\n"
        assert plugin.kept == [("bob", head + BODY)]
        assert here.replies(id_) == [
            "250 2.0.0 kept as 17",
            "451 4.2.2 over quota",
            "550 5.2.1 closed",
        ]
        assert {each.destination for each in here.timeline(id_).attempts} == {"plugin:keeps"}


async def test_the_sender_who_asked_learns_that_a_plugin_keeps_it(tmp_path: Path) -> None:
    async with stored(tmp_path, [chain(Keeps())]) as here:
        here.domain("sender.example", ("mx.sender.example", ONE))
        home = here.net.host(ONE)
        params = RcptParams(notify=frozenset({Notify.SUCCESS}))
        await here.send(to("bob@us.example", params))
        await trio.sleep(1)
        [report] = home.taken
        assert b"Action: delivered" in report.content


async def test_mail_waits_for_a_plugin_that_is_gone(tmp_path: Path) -> None:
    plugin = Keeps()
    chains = [Chain()]
    async with stored(tmp_path, chains) as here:
        id_ = await here.send("bob@us.example")
        await trio.sleep(1)
        assert here.states(id_) == [DEFERRED]
        chains.append(chain(plugin))
        await trio.sleep(600)
        assert here.states(id_) == [DELIVERED]
        assert len(plugin.kept) == 1


async def test_a_plugin_does_not_keep_what_comes_back_again_and_again(tmp_path: Path) -> None:
    plugin = Keeps()
    async with stored(tmp_path, [chain(plugin)]) as here:
        body = b"Delivered-To: bob@us.example\r\n" + BODY
        id_ = await here.send("bob@us.example", "eve@us.example", body=body)
        await trio.sleep(1)
        assert here.states(id_) == [FAILED, DELIVERED]
        assert here.replies(id_)[0].startswith("554 5.4.6 mail loop")


@pytest.mark.parametrize("declared", [Accept("whatever"), CONTINUE, Quarantine("odd")])
async def test_mail_is_not_kept_by_a_failure_whatever_it_shall_mean(
    declared: Verdict, tmp_path: Path
) -> None:
    class Fails(Plugin):
        name = "keeps"
        on_error = declared

        @override
        async def on_store(self, letter: Letter) -> Verdict:
            raise OSError("no such disk")

    failing = chain(Fails())
    async with stored(tmp_path, [failing]) as here:
        id_ = await here.send("bob@us.example")
        await trio.sleep(1)
        assert here.states(id_) == [DEFERRED]
        assert here.replies(id_) == ["451 4.3.0 try again later"]
        assert failure_modes(failing.plugins[0]) == {"on_store": "defer"}


@pytest.mark.parametrize("verdict", [CONTINUE, Quarantine("odd"), Discard("why not")])
async def test_what_is_no_answer_about_keeping_defers(verdict: Verdict, tmp_path: Path) -> None:
    async with stored(tmp_path, [chain(Keeps(bob=verdict))]) as here:
        id_ = await here.send("bob@us.example")
        await trio.sleep(1)
        assert here.states(id_) == [DEFERRED]
