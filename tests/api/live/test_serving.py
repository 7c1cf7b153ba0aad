"""What clients of websockets and of Server-Sent Events see."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
from quart.testing.connections import WebsocketDisconnectError, WebsocketResponseError
from quart.testing.utils import make_test_scope
from trio.testing import MockClock, wait_all_tasks_blocked
from werkzeug.datastructures import Headers

from elemta.api.app import create_app
from elemta.api.live.clients import CLIENTS
from elemta.api.live.hub import HEARTBEAT
from elemta.api.live.websocket import FAULT, GOING_AWAY, PATIENCE
from elemta.control.facts import LogEntry, Spoken, TraceFilter
from elemta.queue import Missed
from tests.api.fakes import ALL, FakeAccess, site_of
from tests.api.live.world import FIRST, ID, LiveControl

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from quart_trio import QuartTrio
    from quart_trio.testing.connections import TestWebsocketConnection

    from elemta.api.live.clients import Clients

READ = {"Authorization": "Bearer read"}
SPOKEN = Spoken(
    session="s1", direction="in", place="mx", peer="192.0.2.1:25", at=1.0, speaker="C", text="NOOP"
)
ENTRY = LogEntry(at=1.0, level="info", event="daemon.ready", logger="elemta", fields={"a": 1})


class House:
    """An API that was started, and the server that it shows."""

    def __init__(self) -> None:
        self.control = LiveControl()
        self.access = FakeAccess()
        self.site = site_of(self.control, self.access)
        self.app: QuartTrio = create_app(self.site)
        self.clients: Clients = self.app.extensions["elemta.live"]

    @asynccontextmanager
    async def started(self) -> AsyncGenerator[House]:
        async with self.app.test_app():
            yield self
            self.site.stopping.set()

    @asynccontextmanager
    async def websocket(self, path: str, headers: dict[str, str] = READ) -> AsyncGenerator[Socket]:
        async with self.app.test_client().websocket(path, headers=headers) as connection:
            yield Socket(connection)

    async def refusal(self, path: str, headers: dict[str, str] = READ) -> tuple[int, Any]:
        """How a websocket is refused."""
        with trio.fail_after(60):
            try:
                async with self.websocket(path, headers) as socket:
                    await socket.receive()
            except BaseExceptionGroup as group:
                (error,) = _leaves(group)
            except WebsocketResponseError as refused:
                error = refused
        assert isinstance(error, WebsocketResponseError), error
        return error.response.status_code, json.loads(await error.response.get_data())

    @asynccontextmanager
    async def stream(
        self, path: str, headers: dict[str, str] | None = None
    ) -> AsyncGenerator[EventStream]:
        told = Headers({**READ, "Accept": "text/event-stream", **(headers or {})})
        where, _, query = path.partition("?")
        scope = make_test_scope("http", where, "GET", told, query.encode(), "http", "", "1.1", None)
        tell, asked = trio.open_memory_channel[dict[str, object]](1)
        give, given = trio.open_memory_channel[dict[str, Any]](100)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.app, scope, asked.receive, give.send)
            await tell.send({"type": "http.request", "body": b"", "more_body": False})
            start = await given.receive()
            assert start["status"] == 200
            yield EventStream(given)
            await tell.send({"type": "http.disconnect"})


class EventStream:
    """Server-Sent Events as they come, by their fields."""

    def __init__(self, given: trio.MemoryReceiveChannel[dict[str, Any]]) -> None:
        self._given = given

    async def events(self, count: int) -> list[dict[str, str]]:
        """So many of them."""
        text = ""
        while text.count("data:") < count:
            text += (await self._given.receive())["body"].decode()
        blocks = [each for each in text.strip().split("\n\n") if "data:" in each]
        return [dict(line.split(": ", 1) for line in block.splitlines()) for block in blocks]

    async def end(self) -> None:
        """Wait for it."""
        while (await self._given.receive())["more_body"]:
            pass


def _leaves(group: BaseExceptionGroup) -> list[BaseException]:
    found: list[BaseException] = []
    for each in group.exceptions:
        found += _leaves(each) if isinstance(each, BaseExceptionGroup) else [each]
    return found


class Socket:
    def __init__(self, connection: TestWebsocketConnection) -> None:
        self.connection = connection

    async def receive(self) -> Any:  # noqa: ANN401 # whatever JSON has
        """The value of a frame."""
        return json.loads(await self.connection.receive())

    async def closed(self) -> int:
        """The code with which it is closed."""
        try:
            while True:
                await self.connection.receive()
        except WebsocketDisconnectError as told:
            code: int = told.args[0]
            return code


async def test_a_websocket_tells_events_in_frames_that_are_arrays(
    autojump_clock: MockClock,
) -> None:
    async with House().started() as house, house.websocket("/v1/events") as socket:
        (hello,) = await socket.receive()
        assert (hello["type"], hello["number"]) == ("Hello", FIRST)
        house.control.queued()
        house.control.finished()
        queued, finished = await socket.receive()
        assert (queued["type"], queued["number"], queued["id"]) == ("Queued", FIRST + 1, ID)
        assert (finished["type"], finished["number"]) == ("Finished", FIRST + 2)
        assert await socket.receive() == [{"type": "Heartbeat", "number": FIRST + 2}]
    assert house.control.listening == 0


async def test_what_is_chosen_is_said_in_the_query(autojump_clock: MockClock) -> None:
    other = "01M82Q28V6DAVJCKE0E9HMK3Q2"
    async with House().started() as house:
        control = house.control
        control.queued("a@example.net")
        control.queued("a@sub.example.net", id_=other)
        control.finished()
        for query, numbers in (
            ("type=Queued", [1, 2]),
            ("type=Queued&type=Finished", [1, 2, 3]),
            ("domain=Example.NET", [1]),
            ("domain=*.example.net", [2]),
            (f"id={other.lower()}", [2]),
            (f"id={ID}&type=Finished", [3]),
        ):
            path = f"/v1/events?since={FIRST}&{query}"
            async with house.websocket(path) as socket:
                await socket.receive()
                told = [each["number"] - FIRST for each in await socket.receive()]
                assert told == numbers, query


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("type=Quequed", "type"),
        ("id=nonsense", "id"),
        ("since=-1", "since"),
        ("since=soon", "since"),
        ("domain=", "domain"),
        ("sort=up", "sort"),
    ],
)
async def test_a_query_that_makes_no_sense_is_refused_before_the_upgrade(
    query: str, field: str
) -> None:
    async with House().started() as house:
        status, problem = await house.refusal(f"/v1/events?{query}")
        assert status == 422
        assert [each["field"] for each in problem["faults"]] == [field]
        answer = await house.app.test_client().get(f"/v1/events?{query}", headers=READ)
        assert answer.status_code == 422


async def test_who_may_not_look_is_not_let_in() -> None:
    async with House().started() as house:
        for path in ("/v1/events", "/v1/trace", "/v1/logs/live"):
            status, problem = await house.refusal(path, {})
            assert (status, problem["title"]) == (401, "Unauthorized")
            status, problem = await house.refusal(path, {"Authorization": "Bearer operate"})
            assert (status, problem["detail"]) == (403, "this needs the scope `read`")
            answer = await house.app.test_client().get(path)
            assert answer.status_code == 401
        assert {each.method for each in house.access.visits} == {"WEBSOCKET", "GET"}


async def test_all_websockets_are_told_when_the_server_goes_away(
    autojump_clock: MockClock,
) -> None:
    async with House().started() as house, house.websocket("/v1/events") as socket:
        await socket.receive()
        house.site.stopping.set()
        assert await socket.closed() == GOING_AWAY
        status, problem = await house.refusal("/v1/events")
        assert (status, problem["detail"]) == (503, "the server is stopping")


async def test_a_fault_closes_the_websocket_and_says_so(autojump_clock: MockClock) -> None:
    async with House().started() as house, house.websocket("/v1/events") as socket:
        await socket.receive()
        house.control.fail()
        assert await socket.closed() == FAULT


async def test_there_is_a_limit_of_clients() -> None:
    async with House().started() as house:
        house.clients.count = CLIENTS - 1
        async with house.websocket("/v1/events") as socket:
            await socket.receive()
            for path in ("/v1/events", "/v1/control"):
                status, problem = await house.refusal(path)
                assert (status, problem["detail"]) == (503, f"{CLIENTS} clients listen already")
        await wait_all_tasks_blocked()
        assert house.clients.count == CLIENTS - 1


async def test_a_client_that_takes_nothing_is_dropped(autojump_clock: MockClock) -> None:
    async with House().started() as house, house.websocket("/v1/events") as socket:
        await socket.receive()
        began = trio.current_time()
        while house.control.listening:  # what the test client does not take fills up
            house.control.finished()
            await trio.sleep(1)
        assert PATIENCE < trio.current_time() - began < PATIENCE + 20
        assert house.clients.count == 0


async def test_what_a_client_says_is_not_heeded(autojump_clock: MockClock) -> None:
    async with House().started() as house, house.websocket("/v1/events") as socket:
        await socket.receive()
        for _ in range(100):
            await socket.connection.send("hello?")
        number = house.control.finished()
        assert [each["number"] for each in await socket.receive()] == [number]


async def test_server_sent_events_have_the_numbers_as_ids(autojump_clock: MockClock) -> None:
    async with House().started() as house, house.stream("/v1/events?type=Queued") as stream:
        (hello,) = await stream.events(1)
        assert json.loads(hello["data"])["number"] == FIRST
        number = house.control.queued()
        last = house.control.finished()
        (queued,) = await stream.events(1)
        assert queued["id"] == str(number)
        assert json.loads(queued["data"])["type"] == "Queued"
        began = trio.current_time()
        (heartbeat,) = await stream.events(1)
        assert (heartbeat["id"], trio.current_time() - began) == (
            str(last),
            pytest.approx(HEARTBEAT),
        )


async def test_a_browser_that_comes_again_resumes_by_the_last_id(
    autojump_clock: MockClock,
) -> None:
    async with House().started() as house:
        for _ in range(4):
            house.control.finished()
        path = f"/v1/events?since={FIRST}"  # as it was when it came first
        async with house.stream(path, {"Last-Event-ID": str(FIRST + 2)}) as stream:
            _, *events = await stream.events(3)
            assert [each["id"] for each in events] == [str(FIRST + 3), str(FIRST + 4)]
        answer = await house.app.test_client().get(path, headers={**READ, "Last-Event-ID": "x"})
        assert answer.status_code == 422
        problem = json.loads(await answer.get_data())
        assert problem["faults"][0]["field"] == "Last-Event-ID"


async def test_a_stream_ends_when_the_server_stops(autojump_clock: MockClock) -> None:
    async with House().started() as house, house.stream("/v1/events") as stream:
        await stream.events(1)
        house.site.stopping.set()
        await wait_all_tasks_blocked()
        await stream.end()
    assert house.control.listening == 0


async def test_who_accepts_no_event_stream_is_told_what_there_is() -> None:
    async with House().started() as house:
        answer = await house.app.test_client().get(
            "/v1/events", headers={**READ, "Accept": "application/json"}
        )
        assert answer.status_code == 406
        assert b"text/event-stream" in await answer.get_data()


async def test_conversations_are_traced_as_the_query_wants(autojump_clock: MockClock) -> None:
    async with House().started() as house:
        path = "/v1/trace?direction=in&peer=192.0.2.1"
        async with house.websocket(path) as one, house.websocket(path) as two:
            assert (await one.receive())[0]["type"] == "Hello"
            await two.receive()
            house.control.say(SPOKEN)
            house.control.say(Missed(3))
            for each in (one, two):
                line, missed = await each.receive()
                assert line == {
                    "type": "Spoken", "session": "s1", "direction": "in", "place": "mx",
                    "peer": "192.0.2.1:25", "at": 1.0, "speaker": "C", "text": "NOOP",
                }  # fmt: skip
                assert missed == {"type": "Missed", "count": 3}
            assert await one.receive() == [{"type": "Heartbeat", "number": 0}]
        assert house.control.traced == [TraceFilter(direction="in", peer="192.0.2.1")]
        status, _ = await house.refusal("/v1/trace?direction=up")
        assert status == 422


async def test_the_log_is_followed_from_a_level_on(autojump_clock: MockClock) -> None:
    async with House().started() as house:
        async with house.stream("/v1/logs/live?level=warning") as stream:
            await stream.events(1)
            house.control.write(ENTRY)
            (entry,) = await stream.events(1)
            assert "id" not in entry
            assert json.loads(entry["data"]) == {
                "type": "LogEntry", "at": 1.0, "level": "info", "event": "daemon.ready",
                "logger": "elemta", "fields": {"a": 1},
            }  # fmt: skip
        async with house.websocket("/v1/logs/live", ALL) as socket:
            await socket.receive()
        assert house.control.levels == ["warning", "debug"]
        status, _ = await house.refusal("/v1/logs/live?level=loud")
        assert status == 422
        await wait_all_tasks_blocked()
        assert house.control.listening == 0
