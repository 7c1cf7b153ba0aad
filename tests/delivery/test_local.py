"""Mail that stays on this machine: Maildirs, loops, and what is thrown away."""

from __future__ import annotations

import io
import json
import time
from typing import TYPE_CHECKING

import pytest
import trio

from elemta import log
from elemta.config import load
from elemta.delivery.lines import LineEnds, UnixLines
from elemta.delivery.local import Local
from elemta.delivery.loops import delivered_before, is_in
from elemta.message import Action
from elemta.protocol import Mailbox
from elemta.queue import Recipient, Result, State
from tests.delivery.test_pipe import Unreadable, message
from tests.delivery.world import BODY, CONFIG, Stored, on_virtual_time, world

if TYPE_CHECKING:
    from pathlib import Path

BOB = Mailbox("bob", "us.example")
LOOP = b"Received: x\r\nDelivered-To:\r\n Bob@us.example\r\nDELIVERED-TO: <eve@x>\r\n" + BODY


@pytest.mark.parametrize("large", [False, True])
async def test_where_a_message_was_delivered_before_is_in_its_header(large: bool) -> None:
    body = Stored(LOOP, large=large)
    assert await delivered_before(body) == {"bob@us.example", "<eve@x>"}
    in_text = Stored(BODY + b"Delivered-To: bob@us.example\r\n", large=large)
    assert await delivered_before(in_text) == frozenset()
    assert is_in(BOB, await delivered_before(body))
    assert not is_in(Mailbox("eve", "us.example"), await delivered_before(body))


async def test_a_letter_that_comes_back_to_its_mailbox_is_refused_and_others_are_not(
    tmp_path: Path,
) -> None:
    local = Local(load(CONFIG.replace("hostname:", f"data_dir: {tmp_path}\nhostname:")))
    eve = Mailbox("eve", "us.example")
    tried = await local.to_maildirs(
        [
            (message(), Recipient(number=0, address=BOB), Stored(LOOP)),
            (message(), Recipient(number=1, address=eve), Stored(LOOP)),
            (message(), Recipient(number=2, address=BOB), Unreadable()),
            (message(), Recipient(number=3, address=BOB), Stored(BODY)),
        ]
    )
    assert [str(one.reply)[:9] for one in tried] == [
        *("554 5.4.6", "250 2.0.0", "451 4.3.0", "250 2.0.0"),
    ]
    assert [one.action for one in tried] == [None, Action.DELIVERED, None, Action.DELIVERED]
    assert [one.result for one in tried][:3] == [
        *(Result.FAILED, Result.DELIVERED, Result.DEFERRED),
    ]
    assert len(list((tmp_path / "mail/us.example").glob("*/new/*"))) == 2


async def test_a_message_that_comes_back_to_its_maildir_fails_for_good(tmp_path: Path) -> None:
    async with world(tmp_path, clock=time.time) as here:
        with here.queue.events.subscribe() as events, trio.fail_after(60):
            id_ = await here.send("bob@us.example", body=LOOP)
            while here.states(id_) != [State.FAILED]:
                await anext(events)


async def test_a_program_that_is_not_there_keeps_all_its_mail_waiting(tmp_path: Path) -> None:
    config = load(CONFIG + "  - {match: prog.example, via: ['pipe:/nonexistent/program']}\n")
    async with world(tmp_path, config=config, clock=time.time) as here:
        with here.queue.events.subscribe() as events, trio.fail_after(60):
            ids = [await here.send(f"{name}@prog.example") for name in ("bob", "eve")]
            while here.states(ids[0]) + here.states(ids[1]) != [State.DEFERRED] * 2:
                await anext(events)
        assert {text for id_ in ids for text in here.replies(id_)} == {
            "451 4.3.5 cannot run /nonexistent/program: No such file or directory"
        }


@pytest.mark.trio(run=on_virtual_time)
async def test_what_is_to_be_discarded_is_and_the_log_says_so(tmp_path: Path) -> None:
    stream = io.StringIO()
    log.configure("json", stream=stream)
    config = load(CONFIG + "  - {match: void.example, via: [discard]}\n")
    async with world(tmp_path, config=config) as here:
        id_ = await here.send("bob@void.example", "eve@void.example")
        await trio.sleep(1)
        assert here.states(id_) == [State.DELIVERED] * 2
        assert {attempt.destination for attempt in here.timeline(id_).attempts} == {"discard"}
    log.configure()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    [told] = [line for line in lines if line["event"] == "delivery.discarded"]
    assert (told["id"], told["recipients"]) == (id_, 2)


CONTENT = b"a\r\nb\nc\rd\r\n\r\n\re\r\r\n"


@pytest.mark.parametrize("piece", range(1, len(CONTENT) + 1))
def test_line_ends_come_out_the_same_however_the_content_is_cut(piece: int) -> None:
    pieces = [CONTENT[n : n + piece] for n in range(0, len(CONTENT), piece)]
    wire, unix = LineEnds(), UnixLines()
    assert b"".join(map(wire.feed, pieces)) + wire.end() == (
        b"a\r\nb\r\nc\r\nd\r\n\r\n\r\ne\r\n\r\n"
    )
    assert b"".join(map(unix.feed, pieces)) + unix.end() == b"a\nb\nc\rd\n\n\re\r\n"


@pytest.mark.parametrize(
    ("content", "missing"), [(b"", b""), (b"a", b"\r\n"), (b"a\r", b"\r\n"), (b"a\r\n", b"")]
)
def test_the_last_line_is_ended(content: bytes, missing: bytes) -> None:
    lines = LineEnds()
    lines.feed(content)
    assert lines.end() == missing
