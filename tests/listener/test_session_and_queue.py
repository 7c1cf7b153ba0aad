"""The two halves of "250 means kept", joined: a session and the queue as it is on a disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from elemta.config import load
from elemta.listener.reception import House
from elemta.net.reaper import Reaper
from elemta.queue import Filter, Reserve, RetryPolicy, StoreReader, open_queue
from tests.dialogue import CONFIG, Server

if TYPE_CHECKING:
    from pathlib import Path

ENVELOPE = """
    C: MAIL FROM:<a@b.example> RET=HDRS
    C: RCPT TO:<team@here.example> NOTIFY=FAILURE
    C: DATA
    S: 250 ...
    S: 250 ...
    S: 354 ...
"""


async def test_what_was_answered_for_is_on_the_disk(tmp_path: Path) -> None:
    small = b"Subject: small\r\n\r\nhello\r\n"
    large = b"Subject: large\r\n\r\n" + (b"x" * 998 + b"\r\n") * 700
    answers: list[str] = []
    reserve = Reserve(octets=0, share=0, inodes=0)
    with trio.fail_after(60):
        async with open_queue(
            tmp_path / "queue", RetryPolicy(), lane=lambda *_: "maildir", reserve=reserve
        ) as queue:
            house = House.of(load(CONFIG), queue=queue, reaper=Reaper())
            server = Server(house=house)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.session.run)
                await server.play("""
                    S: 220 ...
                    C: EHLO client.example
                    S: 250 ...
                """)
                for content in (small, large):
                    await server.play(ENVELOPE)
                    await server.client.send_all(content + b".\r\n")
                    answers.append(await server.line())
                # One that never comes to its end.
                await server.play(ENVELOPE)
                await server.client.send_all(large)
                server.client.close()
            assert house.budget.free == house.budget.total
    assert all(answer.startswith("250 2.0.0 OK: queued as ") for answer in answers)
    with StoreReader(tmp_path / "queue") as reader:
        messages = reader.search(Filter(), now=0.0)
        assert [message.id for message in messages] == [each.split()[-1] for each in answers]
        for message, content in zip(messages, (small, large), strict=True):
            stored = reader.body(message.id)
            assert stored is not None
            assert stored.startswith(b"Received: from client.example ([192.0.2.1])")
            assert stored.endswith(content)
            assert message.size == len(stored)
            assert sorted(str(each.address) for each in message.recipients) == [
                "alice@here.example",
                "bob@here.example",
                "carol@here.example",
            ]
            assert {str(each.original) for each in message.recipients} == {"team@here.example"}
            assert message.origin.session == messages[0].origin.session
    bodies = [path for path in (tmp_path / "queue" / "bodies").rglob("*") if path.is_file()]
    assert len(bodies) == 1  # of the message that was given up nothing is left
