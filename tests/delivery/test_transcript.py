"""What is written down of conversations with hosts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from elemta.control.tracing import sessions, transcripts
from elemta.delivery.conversation import Conversation
from elemta.net.dialogues import Dialogue, Dialogues, Standing
from elemta.net.memory import memory_transport_pair
from tests.delivery.world import BODY, EPOCH, on_virtual_time, world

if TYPE_CHECKING:
    from pathlib import Path

    from elemta.control.facts import Transcript
    from tests.delivery.world import World

pytestmark = pytest.mark.trio(run=on_virtual_time)

FIRST, SECOND = "198.51.100.1", "198.51.100.2"


def said(transcript: Transcript) -> list[str]:
    return [f"{each.speaker}: {each.text}" for each in transcript.said]


async def sent(here: World, *recipients: str, body: bytes = BODY) -> list[Transcript]:
    id_ = await here.send(*recipients, body=body)
    await wait_all_tasks_blocked()
    return transcripts(here.dialogues, id_)


async def test_a_conversation_is_written_down_with_its_content_counted(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        here.domain("b.example", ("mx1.example", FIRST))
        here.net.host(FIRST, greeting="220 mail.b.example ESMTP")
        (transcript,) = await sent(here, "bob@b.example")
        assert (transcript.direction, transcript.place) == ("out", "mx:b.example")
        assert transcript.peer == f"mx1.example[{FIRST}]:25"
        assert transcript.began == EPOCH
        assert transcript.ended is None, "the connection is kept"
        assert said(transcript) == [
            "S: 220 mail.b.example ESMTP",
            "C: EHLO mx.us.example",
            "S: 250-host",
            "S: 250-PIPELINING",
            "S: 250-DSN",
            "S: 250-SMTPUTF8",
            "S: 250 8BITMIME",
            "C: MAIL FROM:<ann@sender.example>",
            "C: RCPT TO:<bob@b.example>",
            "C: DATA",
            "S: 250 2.1.0 ok",
            "S: 250 2.1.5 ok",
            "S: 354 go on",
            f"C: ({len(BODY)} octets of content)",
            "S: 250 2.0.0 taken",
        ]
        (status,) = sessions(here.dialogues)
        assert (status.name, status.state, status.messages) == ("mail.b.example", "ready", 1)
        assert status.message is None
        await trio.sleep(3600)
        (later,) = transcripts(here.dialogues, transcript.messages[0])
        assert said(later)[-2:] == ["C: QUIT", "S: 221 bye"]
        assert later.ended is not None
        assert sessions(here.dialogues) == []


async def test_who_is_spoken_to_is_told_with_what_is_under_way(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        here.domain("b.example", ("mx1.example", FIRST))
        here.net.host(FIRST, **{".": ""})
        (transcript,) = await sent(here, "bob@b.example", "ann@b.example")
        (status,) = sessions(here.dialogues)
        assert status.id == transcript.id
        assert (status.message, status.messages) == (transcript.messages[0], 0)
        assert (status.sender, status.recipients) == ("ann@sender.example", 2)
        assert (status.state, status.octets) == ("data", len(BODY))


async def test_a_host_that_is_not_there_is_written_down_and_so_is_the_next(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        here.domain("b.example", ("mx1.example", FIRST), ("mx2.example", SECOND))
        here.net.host(SECOND)
        first, second = await sent(here, "bob@b.example")
        assert said(first) == ["C: (cannot connect: Connection refused)"]
        assert first.ended is not None
        assert second.peer == f"mx2.example[{SECOND}]:25"
        assert "S: 250 2.0.0 taken" in said(second)


async def test_while_a_host_is_dialled_that_is_a_session_too(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        here.domain("b.example", ("mx1.example", FIRST))
        here.net.silent.add(FIRST)
        await here.send("bob@b.example")
        await wait_all_tasks_blocked()
        (status,) = sessions(here.dialogues)
        assert (status.state, status.direction) == ("connecting", "out")
    assert sessions(here.dialogues) == [], "cancelled, it leaves nothing behind"


async def test_encryption_is_written_down(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        here.domain("b.example", ("mx1.example", FIRST))
        offered = "250-host\r\n250 STARTTLS"
        here.net.host(
            FIRST, **{"EHLO": offered, "TLS EHLO": "250 host", "STARTTLS": "220 go ahead"}
        )
        (transcript,) = await sent(here, "bob@b.example")
        lines = said(transcript)
        start = lines.index("C: STARTTLS")
        assert lines[start + 1 : start + 4] == [
            "S: 220 go ahead",
            "C: (encrypted: TLSv1.3 TLS_AES_256_GCM_SHA384)",
            "C: EHLO mx.us.example",
        ]
        (status,) = sessions(here.dialogues)
        assert status.tls == "TLSv1.3 TLS_AES_256_GCM_SHA384"


async def test_why_a_conversation_broke_off_is_written_down(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        here.domain("b.example", ("mx1.example", FIRST))
        here.net.host(FIRST, MAIL=None)
        (transcript,) = await sent(here, "bob@b.example")
        assert (
            said(transcript)[-1]
            == "C: (the host hung up while we waited for the answer to the envelope)"
        )
        assert transcript.ended is not None


async def test_content_in_chunks_is_counted_behind_its_command(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        here.domain("b.example", ("mx1.example", FIRST))
        here.net.host(FIRST, EHLO="250-host\r\n250-PIPELINING\r\n250 CHUNKING")
        (transcript,) = await sent(here, "bob@b.example")
        lines = said(transcript)
        chunk = lines.index(f"C: BDAT {len(BODY)} LAST")
        assert lines[chunk + 1] == f"C: ({len(BODY)} octets of content)"
        assert "Subject" not in "".join(lines)


def standing() -> Standing:
    return Standing(state="ready")


async def test_a_login_is_written_down_without_its_secrets() -> None:
    ours, theirs = memory_transport_pair()
    dialogue = Dialogue(Dialogues(1), "out", "smarthost", "relay", "s1")
    dialogue.begin(standing)
    talk = Conversation(ours, dialogue, lmtp=False)

    async def host() -> None:
        for reply in (b"220 relay\r\n", b"250-relay\r\n250 AUTH PLAIN LOGIN\r\n"):
            await theirs.send_all(reply)
            await theirs.receive()
        for reply in (
            b"334 VXNlcm5hbWU6\r\n",
            b"334 UGFzc3dvcmQ6\r\n",
            b"535 no\r\n",
            b"235 ok\r\n",
        ):
            await theirs.send_all(reply)
            await theirs.receive()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(host)
        await talk.answer()
        talk.say(talk.smtp.hello("me"))
        await talk.answer()
        for octets in (
            talk.smtp.auth("LOGIN"),
            lambda: talk.smtp.auth_response(b"ann"),
            lambda: talk.smtp.auth_response(b"secret"),
            lambda: talk.smtp.auth("PLAIN", b"\0ann\0secret"),
        ):
            talk.say(octets if isinstance(octets, bytes) else octets())
            await talk.flush()
            await talk.read()
            talk.smtp.next_event()
        nursery.cancel_scope.cancel()
    words = [each.words for each in dialogue.all_said() if each.speaker == "C"]
    assert words == [b"EHLO me", b"AUTH LOGIN", b"***", b"***", b"AUTH PLAIN ***"]


async def test_what_a_host_says_in_pieces_is_written_down_in_lines() -> None:
    ours, theirs = memory_transport_pair()
    dialogue = Dialogue(Dialogues(1), "out", "lane", "host", "s1")
    talk = Conversation(ours, dialogue, lmtp=False)
    for piece in (b"220-a", b" b\r\n22", b"0 c\r", b"\n"):
        await theirs.send_all(piece)
        await talk.read()
    assert [each.words for each in dialogue.all_said()] == [b"220-a b\r\n", b"220 c\r\n"]
    await theirs.send_all(b"x" * 5000)
    await talk.read()
    assert dialogue.all_said()[-1].words == b"x" * 5000
