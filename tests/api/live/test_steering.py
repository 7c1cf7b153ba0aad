"""The control protocol over a websocket: what each scope may do, and what is remembered of it."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, get_args

import pytest
import trio
from quart.testing.connections import WebsocketDisconnectError

from elemta.api.app import create_app
from elemta.api.live.scopes import is_noted, scope_of, told_of
from elemta.api.live.websocket import GOING_AWAY
from elemta.api.visit import Scope
from elemta.control import messages as wire
from elemta.control.client import Client
from elemta.control.facts import Hypothesis, Scale, Submission
from elemta.control.interface import ForbiddenError, RequestError, UnavailableError
from elemta.protocol import parse_mailbox
from elemta.queue import Delete, Filter, Finished
from tests.api.fakes import FakeAudit, site_of
from tests.api.live.world import FIRST, ID, LiveControl

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from quart_trio.testing.connections import TestWebsocketConnection

BOB = parse_mailbox("bob@example.net")
SUBMISSION = Submission(sender=BOB, recipients=(BOB,), content=b"Subject: secret\r\n\r\n")
REQUESTS: list[wire.Question] = [
    wire.AskStatus(), wire.Search(), wire.AskTimeline(id=ID), wire.AskRaw(id=ID),
    wire.AskStats(), wire.AskDestinations(), wire.Act(action=Delete(), filter=Filter()),
    wire.Count(filter=Filter()), wire.Suspend(scope="all"), wire.Resume(scope="all"),
    wire.AskSuspensions(), wire.Watch(), wire.Reload(), wire.Check(), wire.Backup(target="/x"),
    wire.AskSessions(), wire.AskTranscripts(id=ID), wire.Trace(), wire.AskFailures(),
    wire.AskLog(), wire.Follow(), wire.AskLogLevel(), wire.AskStatistics(scale=Scale.DAY),
    wire.AskConfiguration(), wire.AskPlugins(), wire.SwitchPlugin(name="x", enabled=True),
    wire.Explain(hypothesis=Hypothesis(recipient=BOB)), wire.AskWhy(id=ID),
    wire.Submit(submission=SUBMISSION), wire.AskMetrics(),
]  # fmt: skip


class Pipe(trio.abc.Stream):
    """The client's end of a websocket, in the test client's words."""

    def __init__(self, connection: TestWebsocketConnection) -> None:
        self._connection = connection

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._connection.send(bytes(data).decode())

    async def wait_send_all_might_not_block(self) -> None:
        raise AssertionError("nobody asks")

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        try:
            frame: str = await self._connection.receive()
        except WebsocketDisconnectError:
            return b""
        return frame.encode()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


class Desk:
    """An API, and those who steer by it."""

    def __init__(self) -> None:
        self.control = LiveControl()
        self.audit = FakeAudit()
        self.site = site_of(self.control, audit=self.audit)
        self.app = create_app(self.site)

    @asynccontextmanager
    async def steered(self, token: str) -> AsyncGenerator[Client]:
        headers = {"Authorization": f"Bearer {token}"}
        async with (
            self.app.test_app(),
            self.app.test_client().websocket("/v1/control", headers=headers) as connection,
        ):
            self.connection = connection
            yield Client(Pipe(connection))


def test_every_request_has_its_scope() -> None:
    assert {type(each) for each in REQUESTS} == set(get_args(wire.Question))
    scopes = {
        Scope.CONTENT: {"AskRaw"},
        Scope.OPERATE: {"Act", "Suspend", "Resume"},
        Scope.SUBMIT: {"Submit"},
        Scope.ADMIN: {"Reload", "Check", "Backup", "SwitchPlugin"},
    }
    for request in REQUESTS:
        name = type(request).__name__
        expected = next((scope for scope, names in scopes.items() if name in names), Scope.READ)
        assert scope_of(request) is expected, name
        assert is_noted(request, done=False) is (expected is not Scope.READ), name
        harmless = expected is Scope.READ or name == "Check"
        assert is_noted(request, done=True) is not harmless, name
    assert scope_of(wire.AskLogLevel(level="debug")) is Scope.ADMIN


def test_the_audit_log_is_told_no_content_of_mail() -> None:
    told = told_of(wire.Submit(submission=SUBMISSION))
    assert told == "submit from <bob@example.net> to bob@example.net"
    null = Submission(sender=None, recipients=(BOB,), content=b"")
    assert told_of(wire.Submit(submission=null)).startswith("submit from <> to")
    assert told_of(wire.Suspend(scope="all")) == (
        '{"is":"suspend","scope":"all","reason":"","until":null,"dry_run":false}'
    )


async def test_who_may_operate_acts_in_the_name_of_the_token() -> None:
    desk = Desk()
    async with desk.steered("operate") as client:
        tally = await client.act(Delete(), Filter(ids=(ID,)), reason="a test")
        assert tally.messages == 1
        assert desk.control.acted[0].reason == "a test"
        assert desk.control.who == "token:operate"
        with pytest.raises(ForbiddenError, match="this needs the scope `read`"):
            await client.status()
        with pytest.raises(ForbiddenError, match="this needs the scope `content`"):
            async for _ in client.raw(ID):
                pass
    noted = [(each.who, each.method, each.path, each.status) for each in desk.audit.noted]
    assert noted == [
        ("token:operate", "WEBSOCKET", "/v1/control", 200),
        ("token:operate", "WEBSOCKET", "/v1/control", 403),
    ]
    assert '"reason":"a test"' in desk.audit.noted[0].told


async def test_a_dry_run_is_remembered_only_if_it_was_refused() -> None:
    desk = Desk()
    async with desk.steered("operate") as client:
        await client.act(Delete(), Filter(ids=(ID,)), dry_run=True)
        await client.suspend("all", dry_run=True)
        assert desk.audit.noted == []
        with pytest.raises(ForbiddenError, match="this needs the scope `admin`"):
            await client.reload(dry_run=True)
    assert [each.status for each in desk.audit.noted] == [403]


async def test_what_fails_is_remembered_with_how_it_failed() -> None:
    desk = Desk()
    desk.control.failure = UnavailableError("the disk")
    async with desk.steered("all") as client:
        with pytest.raises(UnavailableError, match="the disk"):
            await client.act(Delete(), Filter(ids=(ID,)))
    assert [each.status for each in desk.audit.noted] == [503]


async def test_nobody_speaks_for_others() -> None:
    desk = Desk()
    async with desk.steered("all") as client:
        with pytest.raises(RequestError, match="may not speak for others"):
            await client.speak_for("operator:root")


async def test_events_are_watched_until_the_server_goes_away() -> None:
    desk = Desk()
    async with desk.steered("read") as client:
        assert (await client.status()).event == FIRST
        number = desk.control.finished()
        events = client.events(FIRST)
        assert await anext(events) == Finished(number, 2.0, ID)
        desk.site.stopping.set()
        with pytest.raises(UnavailableError, match="went away"):
            await anext(events)
    assert desk.control.listening == 0


async def test_the_websocket_says_that_the_server_goes_away() -> None:
    desk = Desk()
    async with desk.steered("read"):
        desk.site.stopping.set()
        with pytest.raises(WebsocketDisconnectError) as told:
            await desk.connection.receive()
        assert told.value.args[0] == GOING_AWAY


async def test_lines_may_be_cut_anywhere_and_frames_may_be_octets() -> None:
    desk = Desk()
    async with desk.steered("read"):
        for piece in (b'{"is": "st', b'ats"}\n{"is": "stats"}', b"\n"):
            await desk.connection.send(piece)
        for _ in range(2):
            assert json.loads(await desk.connection.receive())["is"] == "stats"
            assert json.loads(await desk.connection.receive()) == {"is": "done"}
