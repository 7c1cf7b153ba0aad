"""What holds for every endpoint, whatever it is about."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
import trio
from msgspec import Struct

from elemta.api.app import create_app
from elemta.api.dispatch import (
    ANSWER_TIME,
    BODY_TIME,
    COSTLY,
    LARGE,
    MAX_BODY,
    TURN_TIME,
)
from elemta.api.endpoint import Asked, Content, Nothing, endpoint
from elemta.api.problem import MEDIA_TYPE, Document, Fault
from elemta.api.visit import GONE, Scope
from elemta.config import ConfigError, Mistake
from elemta.control.interface import RequestError, UnavailableError, UnknownError
from tests.api.asgi import Call
from tests.api.fakes import ALL, FakeAccess, FakeAudit, Noted, site_of
from tests.control.fake import FakeControl

if TYPE_CHECKING:
    from quart.wrappers import Response
    from quart_trio import QuartTrio


class Wish(Struct, frozen=True, forbid_unknown_fields=True):
    """A body."""

    colour: str


class Manner(Struct, frozen=True, forbid_unknown_fields=True):
    """A query."""

    often: int = 1
    to: list[str] = []
    age: float | None = None


class Granted(Struct, frozen=True):
    """An answer."""

    name: str
    colour: str
    often: int
    to: list[str]


@endpoint(
    "POST", "/v1/wishes/{name}",
    scope=Scope.OPERATE, query=Manner, body=Wish, answer=Granted, tag="wishes", status=201,
)  # fmt: skip
async def wish(asked: Asked[Manner, Wish]) -> Granted:
    """Wish for something.

    It may come true.
    """
    await asked.control.status()
    asked.add_header("X-Granted", "yes")
    return Granted(asked.path["name"], asked.body.colour, asked.query.often, asked.query.to)


@endpoint(
    "GET", "/v1/wishes",
    scope=Scope.READ, query=Nothing, body=Nothing, answer=Nothing, tag="wishes", costly=True,
)  # fmt: skip
async def wishes(asked: Asked[Nothing, Nothing]) -> Nothing:
    """Look at wishes."""
    await asked.control.status()
    return Nothing()


@endpoint(
    "POST", "/v1/letters",
    scope=Scope.SUBMIT, query=Nothing, body=Nothing, answer=Nothing, tag="wishes",
    takes=("message/rfc822",),
)  # fmt: skip
async def letter(asked: Asked[Nothing, Nothing]) -> Nothing:
    """Write a letter."""
    await asked.control.status()
    asked.tell(f"{len(asked.arrival.content)} octets")
    return Nothing()


@endpoint(
    "GET", "/v1/poems",
    scope=Scope.CONTENT, query=Nothing, body=Nothing, answer=Content, tag="wishes",
    gives="text/plain",
)  # fmt: skip
async def poem(asked: Asked[Nothing, Nothing]) -> Content:
    """Read a poem."""
    return Content(asked.control.raw("1"))


@endpoint(
    "POST", "/v1/doors",
    scope=None, query=Nothing, body=Wish, answer=Nothing, tag="wishes", open=True, secret=True,
)  # fmt: skip
async def door(asked: Asked[Nothing, Wish]) -> Nothing:
    """Knock."""
    return Nothing()


JSON = ALL | {"Content-Type": "application/json"}


class World:
    """An application, and what is round it."""

    def __init__(self) -> None:
        self.control = FakeControl()
        self.access = FakeAccess()
        self.audit = FakeAudit()
        self.app: QuartTrio = create_app(
            site_of(self.control, self.access, self.audit), (wish, wishes, letter, poem, door)
        )

    async def wish(self, body: str = '{"colour": "red"}', query: str = "") -> Response:
        """Ask for what is right, but for this."""
        return await self.app.test_client().post(
            f"/v1/wishes/pony{query}",
            headers=JSON,
            data=body,
        )


@pytest.fixture
def world() -> World:
    return World()


async def problem(response: Response, status: int) -> Document:
    """The problem that a response is."""
    assert response.status_code == status
    assert response.content_type == MEDIA_TYPE
    assert response.headers["Cache-Control"] == "no-store"
    found = msgspec.json.decode(await response.get_data(as_text=False), type=Document)
    assert found.status == status
    return found


async def test_an_endpoint_is_given_its_path_its_query_and_its_body(world: World) -> None:
    response = await world.wish(query="?often=3&to=a&to=b")
    assert response.status_code == 201
    assert await response.get_json() == {
        "name": "pony", "colour": "red", "often": 3, "to": ["a", "b"]
    }  # fmt: skip
    assert response.content_type == "application/json"
    assert response.headers["X-Granted"] == "yes"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert world.control.who == "token:all"


async def test_who_is_nobody_is_told_how_to_be_somebody(world: World) -> None:
    response = await world.app.test_client().get("/v1/wishes")
    assert (await problem(response, 401)).title == "Unauthorized"
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="elemta"'


async def test_who_may_not_is_told_what_it_takes(world: World) -> None:
    response = await world.app.test_client().post(
        "/v1/wishes/pony", headers={"Authorization": "Bearer read"}
    )
    assert (await problem(response, 403)).detail == "this needs the scope `operate`"
    assert world.audit.noted == [Noted("token:read", "POST", "/v1/wishes/pony", 403, "")]


async def test_a_change_is_remembered_with_its_body(world: World) -> None:
    await world.wish()
    assert world.audit.noted == [
        Noted("token:all", "POST", "/v1/wishes/pony", 201, '{"colour": "red"}')
    ]


async def test_a_change_that_failed_is_remembered_too(world: World) -> None:
    world.control.failure = UnavailableError("the disk")
    response = await world.wish()
    assert (await problem(response, 503)).detail == "the disk"
    assert response.headers["Retry-After"] == "5"
    assert [each.status for each in world.audit.noted] == [503]


async def test_a_secret_body_is_not_remembered(world: World) -> None:
    response = await world.app.test_client().post("/v1/doors", json={"colour": "red"})
    assert response.status_code == 204
    assert world.audit.noted == [Noted(None, "POST", "/v1/doors", 204, "")]


async def test_a_look_into_mail_is_remembered_and_another_is_not(world: World) -> None:
    world.control.pieces = [b"roses", b" are red"]
    client = world.app.test_client()
    response = await client.get("/v1/poems", headers=ALL)
    assert (await response.get_data(as_text=True), response.content_type) == (
        "roses are red", "text/plain"
    )  # fmt: skip
    await client.get("/v1/wishes", headers=ALL)
    assert world.audit.noted == [Noted("token:all", "GET", "/v1/poems", 200, "")]


async def test_a_client_that_goes_away_in_a_change_is_remembered(world: World) -> None:
    world.control.slow = True
    call = Call("/v1/wishes/pony", JSON)
    call.send(b'{"colour": "red"}', more=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call.run, world.app)
        await trio.testing.wait_all_tasks_blocked()
        call.leave()
    assert world.control.cancelled == 1
    assert [each.status for each in world.audit.noted] == [GONE]


@pytest.mark.parametrize(
    ("error", "status", "faults"),
    [
        (RequestError("no such age", "filter.older_than"), 422,
         (Fault("filter.older_than", "no such age"),)),
        (RequestError("an address", "action.to"), 422, (Fault("to", "an address"),)),
        (RequestError("it makes no sense"), 422, ()),
        (UnknownError("no such thing"), 404, ()),
        (ConfigError(Mistake("listeners[0].address", "is taken", 3, 5), where="a.yaml"), 422,
         (Fault("listeners[0].address", "line 3: is taken"),)),
        (ConfigError(Mistake("", "is empty")), 422, (Fault("", "is empty"),)),
        (ExceptionGroup("nodes", [UnknownError("no such thing")]), 404, ()),
    ],
)  # fmt: skip
async def test_what_control_says_becomes_a_problem(
    world: World, error: Exception, status: int, faults: tuple[Fault, ...]
) -> None:
    world.control.failure = error
    found = await problem(await world.wish(), status)
    assert found.faults == faults


async def test_a_fault_of_ours_is_logged_and_not_told(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.control.failure = LookupError("a secret of ours")
    found = await problem(await world.wish(), 500)
    assert found.detail == "a fault of the server; its log says more"
    logged = capsys.readouterr().err
    assert "api.failed" in logged
    assert "a secret of ours" in logged


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        ("?oftn=3", Fault("oftn", "there is no such parameter; did you mean `often`?")),
        ("?zzz=3", Fault("zzz", "there is no such parameter here; there are often, to, age")),
        ("?often=x", Fault("often", "expected a whole number, not text")),
        ("?often=", Fault("often", "expected a whole number, not text")),
        ("?often=1&often=2", Fault("often", "is given more than once")),
        ("?age=nan", Fault("age", "expected a number, not nan")),
        ("?age=inf", Fault("age", "expected a number, not inf")),
        ("?age=NULL", Fault("age", "expected a value, not null; leave it out to say nothing")),
    ],
)
async def test_a_query_that_makes_no_sense_is_told_where(
    world: World, query: str, fault: Fault
) -> None:
    assert (await problem(await world.wish(query=query), 422)).faults == (fault,)


async def test_a_query_that_is_no_text_is_refused(world: World) -> None:
    assert "UTF-8" in (await problem(await world.wish(query="?to=%ff"), 400)).detail


async def test_a_query_of_many_parameters_is_refused(world: World) -> None:
    found = await problem(await world.wish(query="?" + "to=a&" * 1001), 400)
    assert found.detail == "expected a query of at most 1000 parameters"


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ('{"colour": 1}', Fault("colour", "expected text, not a whole number")),
        ('{"color": "red"}', Fault("color", "there is no such key; did you mean `colour`?")),
        ("{}", Fault("colour", "this key is missing")),
        ("", Fault("colour", "this key is missing")),
        ("[]", Fault("", "expected an object, not a list")),
    ],
)
async def test_a_body_that_makes_no_sense_is_told_where(
    world: World, body: str, fault: Fault
) -> None:
    assert (await problem(await world.wish(body), 422)).faults == (fault,)


@pytest.mark.parametrize("body", ["{", '{"colour": "\udcff"}', '{"colour": "\\ud800"}'])
async def test_a_body_that_is_no_json_is_refused(world: World, body: str) -> None:
    response = await world.app.test_client().post(
        "/v1/wishes/pony",
        headers=ALL | {"Content-Type": "application/json; charset=utf-8"},
        data=body.encode("utf-8", "surrogateescape"),
    )
    assert (await problem(response, 400)).detail.startswith("the body is no JSON: ")


async def test_a_body_of_another_type_is_refused(world: World) -> None:
    response = await world.app.test_client().post("/v1/wishes/pony", headers=ALL, data="a=b")
    found = await problem(response, 415)
    assert found.detail == "expected a body of the type application/json"
    assert response.headers["Accept"] == "application/json"


async def test_a_body_that_says_that_it_is_too_large_is_refused(world: World) -> None:
    found = await problem(await world.wish(" " * (MAX_BODY + 1)), 413)
    assert found.detail == "expected a body of at most 1048576 octets"


async def test_a_body_that_turns_out_too_large_is_refused(world: World) -> None:
    call = Call("/v1/wishes/pony", JSON)
    for _ in range(9):
        call.send(b" " * (MAX_BODY // 8))
    await call.run(world.app)
    await problem(call.response, 413)


async def test_a_body_that_does_not_come_is_not_waited_for(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    call = Call("/v1/wishes/pony", JSON)
    call.send(b"{")
    await call.run(world.app)
    await problem(call.response, 408)
    assert trio.current_time() == pytest.approx(BODY_TIME)


async def test_an_answer_that_does_not_come_is_not_waited_for(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    world.control.slow = True
    found = await problem(await world.wish(), 503)
    assert found.detail == "no answer was found in 60 s"
    assert trio.current_time() == pytest.approx(ANSWER_TIME)
    assert world.control.cancelled == 1


async def test_what_is_costly_waits_for_its_turn_and_not_for_ever(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    world.control.slow = True
    async with trio.open_nursery() as nursery:
        for _ in range(COSTLY):
            nursery.start_soon(ask, world, "/v1/wishes")
        await trio.testing.wait_all_tasks_blocked(0.001)
        began = trio.current_time()
        response = await world.app.test_client().get("/v1/wishes", headers=ALL)
        await problem(response, 503)
        assert response.headers["Retry-After"] == "5"
        assert trio.current_time() - began == pytest.approx(TURN_TIME)
        nursery.cancel_scope.cancel()
    world.control.slow = False
    assert (await world.app.test_client().get("/v1/wishes", headers=ALL)).status_code == 204


async def ask(world: World, path: str) -> None:
    await world.app.test_client().get(path, headers=ALL)


async def test_much_that_comes_in_at_once_is_refused_at_once(world: World) -> None:
    client = world.app.test_client()
    headers = ALL | {"Content-Type": "message/rfc822"}
    calls = [Call("/v1/letters", headers) for _ in range(LARGE)]
    async with trio.open_nursery() as nursery:
        for call in calls:
            nursery.start_soon(call.run, world.app)
        await trio.testing.wait_all_tasks_blocked()
        large = await client.post("/v1/letters", headers=headers, data=b" " * (MAX_BODY + 1))
        await problem(large, 503)
        small = headers | {"Content-Length": "4"}
        assert (await client.post("/v1/letters", headers=small, data=b"dear")).status_code == 204
        for call in calls:
            call.leave()
    large = await client.post("/v1/letters", headers=headers, data=b" " * (MAX_BODY + 1))
    assert large.status_code == 204
    assert world.audit.noted[-1].told == "1048577 octets"


@pytest.mark.parametrize("path", ["/nothing", "/v1/wishes/a/b", "/v1//wishes", "/v1/wishes/"])
async def test_a_path_that_is_not_there_is_a_problem(world: World, path: str) -> None:
    response = await world.app.test_client().get(path, headers=ALL)
    assert (await problem(response, 404)).detail == "there is nothing of this path"


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
async def test_a_method_that_is_not_there_is_a_problem(world: World, method: str) -> None:
    response = await world.app.test_client().open("/v1/wishes", method=method, headers=ALL)
    await problem(response, 405)
    assert set(response.headers["Allow"].split(", ")) == {"GET", "HEAD"}


async def test_the_client_is_who_connected_and_not_who_it_says_it_is(world: World) -> None:
    await world.app.test_client().get(
        "/v1/wishes",
        headers=ALL | {"Remote-Addr": "192.0.2.1", "X-Two": "a"},
        scope_base={"client": ("192.0.2.9", 4711)},
    )
    [visit] = world.access.visits
    assert visit.client == "192.0.2.9"
    assert (visit.method, visit.path) == ("GET", "/v1/wishes")
    assert visit.headers["x-two"] == "a"
    assert "authorization" in visit.headers


@pytest.mark.parametrize("host", [".", "a..b", "x" * 80, "é"])
async def test_a_host_that_is_no_name_does_no_harm(world: World, host: str) -> None:
    response = await world.app.test_client().get("/v1/wishes", headers={**ALL, "Host": host})
    assert response.status_code == 204
