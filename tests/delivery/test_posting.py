"""Delivery into Maildirs, from the queue on; in real time, since virtual time sees no threads."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import trio

from elemta.queue import State
from tests.delivery.world import BODY, World, world

if TYPE_CHECKING:
    from pathlib import Path

DEFERRED, DELIVERED = State.DEFERRED, State.DELIVERED


async def eventually(here: World, id_: str, state: State) -> None:
    with trio.fail_after(60), here.queue.events.subscribe(since=0) as events:
        while state not in here.states(id_):
            await anext(events)


async def test_mail_for_a_domain_of_ours_goes_to_its_maildir(tmp_path: Path) -> None:
    async with world(tmp_path, clock=time.time) as here:
        id_ = await here.send("bob@us.example", "eve@us.example")
        await eventually(here, id_, DELIVERED)
        assert here.states(id_) == [DELIVERED, DELIVERED]
        for name in ("bob", "eve"):
            [file] = (tmp_path / "mail/us.example" / name / "new").iterdir()
            assert file.read_bytes() == (
                f"Return-Path: <ann@sender.example>\nDelivered-To: {name}@us.example\n".encode()
                + BODY.replace(b"\r\n", b"\n")
            )
        assert {attempt.destination for attempt in here.timeline(id_).attempts} == {"maildir"}


async def test_many_messages_go_to_maildirs_together(tmp_path: Path) -> None:
    async with world(tmp_path, clock=time.time) as here:
        ids = [await here.send(f"user{n % 5}@us.example") for n in range(200)]
        for id_ in ids:
            await eventually(here, id_, DELIVERED)
        files = list((tmp_path / "mail/us.example").glob("*/new/*"))
        assert len(files) == 200
        assert not list((tmp_path / "mail/us.example").glob("*/tmp/*"))


async def test_a_large_message_goes_to_a_maildir(tmp_path: Path) -> None:
    body = b"Subject: large\r\n\r\n" + b"0123456789\r\n" * 100_000
    async with world(tmp_path, clock=time.time) as here:
        id_ = await here.send("bob@us.example", body=body)
        await eventually(here, id_, DELIVERED)
        [file] = (tmp_path / "mail/us.example/bob/new").iterdir()
        assert file.read_bytes().endswith(body.replace(b"\r\n", b"\n"))


async def test_a_maildir_that_cannot_be_written_defers(tmp_path: Path) -> None:
    (tmp_path / "mail/us.example").mkdir(parents=True)
    (tmp_path / "mail/us.example/bob").write_bytes(b"in the way")
    async with world(tmp_path, clock=time.time) as here:
        id_ = await here.send("bob@us.example", "eve@us.example")
        await eventually(here, id_, DELIVERED)
        assert here.states(id_) == [DEFERRED, DELIVERED]
        assert here.timeline(id_).attempts[0].reply.code == 451
