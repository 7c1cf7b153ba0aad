"""Whole servers on virtual time: maps that go down, forwards, reports that find the way back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
import trio
from trio.testing import memory_stream_pair

from elemta.testing import on_virtual_time, running

if TYPE_CHECKING:
    from pathlib import Path

    from elemta.config import Service
    from elemta.testing import Elemta

pytestmark = pytest.mark.trio(run=on_virtual_time)

CONFIG: Final = """
hostname: mx.us.example
listeners: [{name: mx, address: "203.0.113.25:25"}]
maps: {people: {http: "http://127.0.0.1:8000/", ttl: 1 min, timeout: 5 s}}
domains:
  - {name: us.example, alias_map: people, mailboxes: [bob], delimiter: "+"}
"""
#: What another forwarder writes above.
FIELD: Final = (
    b"Received: from mx.us.example by mx.there.example;\r\n\tThu, 1 Jan 1970 00:00:00 +0000\r\n"
)
MAIL: Final = "From: ann@far.example\nSubject: x\n\nHello.\n"


class People:
    """A service that knows aliases, until it is down."""

    def __init__(self) -> None:
        self.known: dict[str, bytes] = {}
        self.down = False
        self.asked: list[str] = []

    async def connect(self, service: Service) -> trio.abc.Stream:
        if self.down:
            raise ConnectionRefusedError("refused")
        ours, theirs = memory_stream_pair()
        trio.lowlevel.spawn_system_task(self._serve, theirs)
        return ours

    async def _serve(self, stream: trio.abc.Stream) -> None:
        question = b""
        while not question.endswith(b"\r\n\r\n"):
            question += await stream.receive_some(4096)
        key = question.split()[1].decode().removeprefix("/").replace("%40", "@")
        self.asked.append(key)
        found = self.known.get(key)
        status = b"404 Gone" if found is None else b"200 OK"
        body = found or b""
        answer = b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)
        await stream.send_all(answer)
        await stream.aclose()


async def test_a_map_goes_down_in_the_middle_of_a_session() -> None:
    people = People()
    people.known["team@us.example"] = b"bob, bob+team@us.example, x@far.example"
    async with running(CONFIG, connect=people.connect) as elemta:
        elemta.host("far.example")
        async with elemta.client() as client:
            await client.say("EHLO client.example")
            await client.say("MAIL FROM:<ann@far.example>")
            assert (await client.say("RCPT TO:<team@us.example>")).code == 250
            people.down = True
            gone = await client.say("RCPT TO:<gone@us.example>")
            assert (gone.code, gone.status) == (451, (4, 3))
            assert (await client.say("RCPT TO:<team@us.example>")).code == 250  # remembered
            assert (await client.say("DATA")).code == 354
            assert (await client.say(f"{MAIL}.".replace("\n", "\r\n"))).code == 250
        await elemta.settled()
        # What it was expanded to before is what gets it, whatever the map says by now.
        assert sorted(to for each in elemta.delivered for to in each.recipients) == [
            *("bob@us.example", "x@far.example"),
        ]
        await elemta.advance(minutes=2)
        assert (await elemta.send("ann@far.example", "team@us.example", MAIL)).code == 451
        people.down = False
        await elemta.advance(seconds=2)
        assert (await elemta.send("ann@far.example", "gone@us.example", MAIL)).code == 550
        assert (await elemta.send("ann@far.example", "team@us.example", MAIL)).code == 250
        told = [each.event for each in elemta.log if each.event.startswith("map.")]
        assert told == ["map.down", "map.up"]
        elemta.errors.clear()


FORWARDS: Final = """
hostname: mx.us.example
listeners: [{name: mx, address: "203.0.113.25:25"}]
relay: {networks: [10.0.0.0/8]}
domains:
  - {name: us.example, mailboxes: [bob], aliases: {carol: [c@there.example], both: [bob, carol]}}
forwarding: {srs: us.example, secret_file: SECRET}
queue: {retry: [5 min], lifetime: 1 h, delay_warning: 0 s}
"""


@pytest.fixture
def forwards(tmp_path: Path) -> str:
    secret = tmp_path / "srs.secret"
    secret.write_text("0123456789abcdef\n")
    secret.chmod(0o600)
    return FORWARDS.replace("SECRET", str(secret))


def commands(elemta: Elemta, verb: str) -> list[str]:
    (host,) = elemta.network.hosts.values()
    return [line for line in host.heard if line.startswith(verb)]


async def test_a_forward_goes_in_our_name_and_a_report_finds_the_way_back(forwards: str) -> None:
    async with running(forwards) as elemta:
        there = elemta.host("there.example")
        await elemta.send("ann@far.example", ["both@us.example"], MAIL)
        (forwarded,) = there.taken
        assert forwarded.sender.startswith("SRS0=")
        assert forwarded.sender.endswith("=far.example=ann@us.example")
        (ours,) = (each for each in elemta.delivered if each.place == "maildir")
        assert ours.header("Return-Path") == ["<ann@far.example>"]
        far = elemta.host("far.example")
        assert (await elemta.send("", forwarded.sender, MAIL)).code == 250
        assert [(each.sender, each.recipients) for each in far.taken] == [
            ("", ("ann@far.example",))
        ]
        forged = forwarded.sender.replace("=ann@", "=eve@")
        assert (await elemta.send("", forged, MAIL)).code == 550


async def test_one_message_for_a_forward_and_for_who_was_named_is_two_transactions(
    forwards: str,
) -> None:
    async with running(forwards) as elemta:
        there = elemta.host("there.example")
        named = ["carol@us.example", "d@there.example", "e@there.example"]
        reply = await elemta.send("ann@far.example", named, MAIL, client="10.0.0.1")
        assert reply.code == 250
        assert sorted((each.sender[:4], each.recipients) for each in there.taken) == [
            ("SRS0", ("c@there.example",)),
            ("ann@", ("d@there.example", "e@there.example")),
        ]
        assert there.sessions == 1
        assert elemta.queued() == []


async def test_our_own_report_of_a_forward_that_fails_goes_to_the_true_sender(
    forwards: str,
) -> None:
    async with running(forwards) as elemta:
        there, far = elemta.host("there.example"), elemta.host("far.example")
        there.says["RCPT"] = "550 5.1.1 nobody"
        await elemta.send("ann@far.example", "carol@us.example", MAIL)
        (report,) = far.taken
        assert (report.sender, report.recipients) == ("", ("ann@far.example",))


async def test_senders_of_ours_are_left_alone(forwards: str) -> None:
    async with running(forwards) as elemta:
        there = elemta.host("there.example")
        await elemta.send("bob@us.example", "carol@us.example", MAIL)
        await elemta.send("", "carol@us.example", MAIL)
        assert [each.sender for each in there.taken] == ["bob@us.example", ""]


async def test_two_servers_that_forward_to_each_other_stop(forwards: str) -> None:
    # What comes back to us here was forwarded by the other one, with its own fields above.
    async with running(forwards) as elemta:
        there = elemta.host("there.example")
        await elemta.send("ann@far.example", "carol@us.example", MAIL)
        for _ in range(49):
            came = there.taken[-1]
            content = (FIELD + came.content).decode().replace("\r\n", "\n")
            reply = await elemta.send("x@far.example", "carol@us.example", content)
            if reply.code != 250:
                break
        assert (reply.code, reply.status) == (554, (4, 6))
        assert len(there.taken) < 30  # each round leaves two Received fields, and fifty are many
