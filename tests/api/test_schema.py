"""The Structs of answers, and `elemta.control.plain`: two forms of the same words."""

from __future__ import annotations

import msgspec
import pytest

from elemta.api import schema
from elemta.api.writing import written
from elemta.control import plain
from elemta.control.interface import ListenerStatus, Status
from elemta.protocol import parse_mailbox, reply
from elemta.queue import (
    Attempt,
    Deferred,
    Expired,
    Failed,
    Holder,
    Message,
    Note,
    Origin,
    Priority,
    Recipient,
    Result,
    State,
    Stats,
    Suspension,
    Tally,
    Timeline,
)
from elemta.supervision import Part
from tests.control.fake import message

BOB = parse_mailbox("bob@example.net")
NO = reply(550, 1, 1, "no such mailbox")
#: As full as a message can be.
FULL = Message(
    id=message().id,
    sender=parse_mailbox("alice@example.org"),
    recipients=[
        Recipient(
            number=0, address=BOB, original=parse_mailbox("robert@example.net"),
            state=State.DEFERRED, due=7.5, attempts=2, last=NO,
        ),
        Recipient(
            number=1, address=parse_mailbox('"c d"@example.net'), state=State.HELD,
            holder=Holder(owner="operator:root", reason="why not", since=3.0),
        ),
    ],
    received_at=1.5, expires_at=9.5, size=100, priority=Priority.HIGH, tags=("a", "b"), due=2.5,
    origin=Origin(
        address="192.0.2.1", helo="mx", session="s", listener="l", protocol="ESMTPSA", login="ann",
    ),
)  # fmt: skip
STORY = Timeline(
    message=FULL,
    finished_at=8.0,
    attempts=(
        Attempt(
            number=0, started=1.0, ended=2.0, result=Result.DEFERRED, destination="mx:example.net",
            host="mx[192.0.2.2]:25", reply=NO, remote=True, warned=True,
        ),
        Attempt(
            number=1, started=1.0, ended=2.0, result=Result.DEFERRED, destination="maildir",
            reply=NO, expired=True,
        ),
    ),
    notes=(
        Note(at=4.0, who="operator:root", action="hold", recipients=(1,), reason="why not"),
        Note(at=5.0, who="operator:root", action="retry", recipients=(0,)),
    ),
)  # fmt: skip
STATUS = Status(
    version="1", hostname="mx.example", pid=1, started_at=0.0, asked_at=1.0, stopping=False,
    troubles=("the disk",), sessions=0, places=1, deliveries=1, files=1, in_memory=0,
    listeners=(ListenerStatus(name="mx", kind="smtp", addresses=("[::]:25",), connections=3),),
    queue=Stats(messages=1, recipients={State.HELD: 2}, oldest=None, history=5),
    counts={"Queued": 3}, parts=(Part(name="p", running=True, restarts=1, failure="x"),),
)  # fmt: skip


@pytest.mark.parametrize("found", [FULL, message(1, 3)])
async def test_a_message_is_as_in_json_elsewhere(found: Message) -> None:
    assert msgspec.to_builtins(await schema.message_of(found)) == plain.message(found)


@pytest.mark.parametrize("found", [STORY, Timeline(message=FULL, finished_at=None, attempts=())])
async def test_a_timeline_is_as_in_json_elsewhere(found: Timeline) -> None:
    assert msgspec.to_builtins(await schema.timeline_of(found)) == plain.timeline(found)


@pytest.mark.parametrize("found", [STATUS, msgspec.structs.replace(STATUS, queue=None)])
def test_a_status_is_as_in_json_elsewhere(found: Status) -> None:
    told = msgspec.json.encode(schema.status_of(found))
    assert msgspec.json.decode(told) == msgspec.json.decode(
        msgspec.json.encode(plain.status(found))
    )


@pytest.mark.parametrize("until", [None, 5.0])
def test_a_suspension_is_as_in_json_elsewhere(until: float | None) -> None:
    found = Suspension(scope="all", reason="why", who="operator:root", since=1.0, until=until)
    assert msgspec.to_builtins(schema.suspension_of(found)) == plain.suspension(found)


def test_a_tally_is_as_in_json_elsewhere() -> None:
    found = Tally(messages=1, recipients=2, octets=3, busy=4)
    told = schema.tally_of(found, dry_run=True)
    assert msgspec.to_builtins(told) == plain.tally(found, dry_run=True)


@pytest.mark.parametrize(
    "found",
    [
        Deferred(1, 2.0, "m", BOB, "mx:example.net", "mx", NO, 9.0),
        Failed(1, 2.0, "m", BOB, "mx:example.net", "mx", NO),
        Expired(1, 2.0, "m", BOB, "mx:example.net", "", NO),
    ],
)
def test_a_failure_is_as_in_json_elsewhere(found: Deferred | Failed | Expired) -> None:
    assert msgspec.to_builtins(schema.failure_of(found)) == plain.event(found)


@pytest.mark.parametrize("priority", Priority)
def test_a_priority_goes_there_and_back(priority: Priority) -> None:
    assert schema.priority_of(schema.urgency_of(priority)) is priority


@pytest.mark.parametrize("recipients", [0, 1, 99, 100, 101, 1000])
async def test_what_is_written_in_pieces_is_what_is_written_at_once(recipients: int) -> None:
    page = schema.Page(
        messages=[await schema.message_of(message(n, recipients)) for n in range(5)], next="x"
    )
    assert msgspec.json.decode(await written(page)) == msgspec.to_builtins(page)


@pytest.mark.parametrize("found", [STORY, Timeline(message=FULL, finished_at=None, attempts=())])
async def test_a_timeline_is_written_as_it_is(found: Timeline) -> None:
    told = await schema.timeline_of(found)
    assert msgspec.json.decode(await written(told)) == msgspec.to_builtins(told)
